package main

import (
	"bufio"
	"bytes"
	"io"

	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// readAny reads a profile of either format. Folded text begins with a line of text; a pprof file is zipped, or has
// control characters where it begins.
func readAny(r io.Reader, sampleType string) (*profile.Profile, error) {
	in := bufio.NewReader(r)
	begin, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, err
	}
	line, _, _ := bytes.Cut(begin, []byte{'\n'})
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' }
	if len(line) > 0 && !bytes.ContainsFunc(line, control) {
		return folded.Read(in)
	}
	return pprof.Read(in, sampleType)
}
