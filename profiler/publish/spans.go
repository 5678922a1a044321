package publish

import (
	"path"
	"strings"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
)

// findSpans takes in what a mapped file has to do with spans: the program comes first, then its libraries as they lie.
func (e *entry) findSpans(t *table, m *process.Mapping) {
	e.musl = e.musl || isMusl(m.File.Path)
	if e.spans != nil || t.spans == nil {
		return
	}
	if at, ok := t.spans.layout.AddressOf(m.FileOffset(m.Start)); ok {
		e.spans, e.bias = t.spans, uint64(m.Start)-uint64(at)
	}
}

// isMusl knows the C library by its names: glibc's has a number behind it.
func isMusl(file string) bool {
	name := path.Base(file)
	return name == "libc.so" || strings.HasPrefix(name, "ld-musl-")
}

// put says in an entry for the programs where threads keep the ids of spans.
func (s *source) put(to *bpf.Process, bias uint64, musl bool) {
	to.SpanSource, to.SpanFlags = uint8(s.Kind), uint8(s.Flags)
	to.GoM, to.GoCurg, to.GoLabels = s.M, s.Curg, s.Labels
	if musl {
		to.SpanFlags |= uint8(bpf.SpanMusl)
	}
	switch s.Kind {
	case bpf.SpanSourceStatic, bpf.SpanSourceGo:
		to.SpanAt = uint64(s.Offset)
	default:
		to.SpanAt, to.SpanOffset = bias+uint64(s.Slot), uint32(s.Offset)
	}
}
