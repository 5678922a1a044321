package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// document is what a file holds, with all that its format says: one of the three.
type document struct {
	pprof  *pb.Profile
	otlp   *otlp.Data
	folded *profile.Profile
}

// withInput calls read with a file, or with standard input for -. Errors name it.
func withInput(path string, read func(io.Reader) error) error {
	in, name := os.Stdin, "standard input"
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		in, name = file, path
	}
	if err := read(in); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readDocument reads a file of any of the formats, gzipped or not.
func readDocument(r io.Reader) (*document, error) {
	in := bufio.NewReader(r)
	begin, err := peek(in)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(begin, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("read gzipped file: %w", err)
		}
		in = bufio.NewReader(unzipped)
		if begin, err = peek(in); err != nil {
			return nil, fmt.Errorf("read gzipped file: %w", err)
		}
	}
	d := new(document)
	switch {
	case bytes.HasPrefix(begin, []byte(`{"`)) || bytes.HasPrefix(begin, []byte("{\n")):
		err = errors.New("it is JSON, which is not read; want pprof, OTLP as protobuf, or folded text")
	case isText(begin):
		d.folded, err = folded.Read(in)
	case isOTLP(begin):
		d.otlp, err = otlp.Parse(in)
	default:
		d.pprof, err = pprof.Parse(in)
	}
	return d, err
}

func peek(in *bufio.Reader) ([]byte, error) {
	begin, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return begin, nil
}

// isText says whether a file begins with a line of text, as folded stacks do.
func isText(begin []byte) bool {
	line, _, _ := bytes.Cut(begin, []byte{'\n'})
	control := func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' }
	return len(line) > 0 && !bytes.ContainsFunc(line, control)
}

// isOTLP tells the two protobuf formats apart, which have no mark, by the first message in them:
//
//	pprof: sample_type, whose fields are numbers     0a 04 | 08 01 10 02
//	OTLP:  resource_profiles, whose fields are long  0a 95 02 | 0a 57 ...
//	OTLP:  dictionary, where it stands first         12 95 02 | 0a 00 ...
//
// A pprof file that begins with another of its fields, as the protocol allows, begins with none of these.
func isOTLP(begin []byte) bool {
	const resourceProfiles, dictionary = 1<<3 | 2, 2<<3 | 2
	for len(begin) > 0 {
		tag := begin[0]
		length, n := binary.Uvarint(begin[1:])
		if n <= 0 || tag != resourceProfiles && tag != dictionary {
			return false
		}
		if begin = begin[1+n:]; length > 0 {
			return len(begin) > 0 && begin[0]&7 == 2
		}
	}
	return false
}

// profile gives the values of one type, "" for the file's default. Folded text has one, whatever is asked for.
func (d *document) profile(sampleType string) (*profile.Profile, error) {
	switch {
	case d.folded != nil:
		return d.folded, nil
	case d.otlp != nil:
		return d.otlp.Profile(sampleType)
	}
	return pprof.ConvertBack(d.pprof, sampleType, pprof.Beyond{})
}

// readAny reads a profile of any format.
func readAny(r io.Reader, sampleType string) (*profile.Profile, error) {
	d, err := readDocument(r)
	if err != nil {
		return nil, err
	}
	return d.profile(sampleType)
}
