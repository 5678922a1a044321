// Package spans finds out of an ELF file where the threads of a program keep the ids of the span that they work for, so that
// the BPF programs can read them as they take a sample.
//
// There are two conventions. A library that takes part in tracing publishes the thread context of OpenTelemetry (OTEP 4947): a thread-local
// variable otel_thread_ctx_v1, which points to a record. A Go program sets labels, trace_id and span_id, by runtime/pprof; they
// are found from the g of the goroutine that a thread runs.
//
// The caller supplies a parsed file, reads what Find gives in the memory of a process that has it mapped, and does so within
// bounds of its own: whoever made the file may have written anything into it. Refused are Go libraries (c-shared, plugins), whose place for
// the g only the loader knows, and Go before 1.18.
package spans

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Source says where threads keep the ids; see enum span_source. It is what the file alone tells.
type Source struct {
	Kind  bpf.SpanSource
	Flags bpf.SpanFlag
	// Slot is where the loader writes what leads to the variable: for Slot, Module and Descriptor.
	Slot objfile.Address
	// Offset is how far the variable is from the thread pointer (Static, Go), or from the beginning of its module's block (Module).
	Offset int64
	// The offsets of g.m, m.curg and g.labels: for Go and GoRegister.
	M, Curg, Labels uint16
}

// ErrNone says that the file has nothing to do with spans.
var ErrNone = errors.New("no trace context")

// symbol is the thread-local variable of OTEP 4947.
const symbol = "otel_thread_ctx_v1"

var le = binary.LittleEndian

// Find looks into a file. Goroutine is where the program keeps the g of a thread, counted from the thread pointer, if that is known from
// elsewhere. An error that is not ErrNone says that the file has spans, and why they cannot be had.
func Find(f *objfile.File, goroutine *int32) (Source, error) {
	s, err := findGo(f, goroutine)
	if !errors.Is(err, ErrNone) {
		return s, err
	}
	return findThreadContext(f)
}

// findThreadContext finds the variable, and how code comes to it: by what the loader is told to write.
//
//	Relocation section '.rela.dyn'
//	  Offset          Type             Symbol's Value   Symbol's Name + Addend
//	  000000003fd8    R_X86_64_TPOFF64 0000000000000000 otel_thread_ctx_v1 + 0     initial exec
//	                  R_..._DTPMOD64   ... and DTPOFF64 for the next word          general dynamic
//	                  R_..._TLSDESC                                                TLSDESC
//
// Where the symbol cannot be another file's, the linker leaves it out of the relocation, and puts its value into the addend.
func findThreadContext(f *objfile.File) (Source, error) {
	block, ok := tlsSegment(f)
	if !ok {
		return Source{}, ErrNone
	}
	v, err := findVariable(f)
	if err != nil {
		return Source{}, err
	}
	if v.value > block.MemSize || block.MemSize-v.value < 8 {
		return Source{}, fmt.Errorf("%s: %w: it lies beyond the thread-local block", symbol, objfile.ErrCorrupt)
	}
	s, err := findSlot(f, v)
	switch {
	case err == nil || !errors.Is(err, ErrNone):
		return s, err
	case isProgram(f):
		return Source{Kind: bpf.SpanSourceStatic, Offset: staticOffset(f.Machine(), block, v.value)}, nil
	}
	return Source{}, fmt.Errorf("%s: no code of the library refers to it", symbol)
}

func tlsSegment(f *objfile.File) (objfile.Segment, bool) {
	for _, s := range f.Segments() {
		if s.Type == objfile.PT_TLS {
			return s, true
		}
	}
	return objfile.Segment{}, false
}

// tcbBytes are what arm64 has at the thread pointer, before the program's block.
const tcbBytes = 16

// staticOffset is where a program has its own thread-local variables, from the thread pointer on: its block is the first one, below it (x86-64) or
// above (arm64).
func staticOffset(m objfile.Machine, block objfile.Segment, value uint64) int64 {
	align := max(block.Align, 1)
	up := func(n uint64) uint64 { return (n + align - 1) / align * align }
	if m == objfile.EM_AARCH64 {
		return int64(up(tcbBytes) + value)
	}
	return int64(value - up(block.MemSize))
}

// Tags of the dynamic section that are of use here.
const (
	dtNeeded = 1
	dtFlags1 = 0x6ffffffb
	df1PIE   = 0x08000000

	maxDynamic = 4096 * 16
)

// dynamic visits the entries of the dynamic section.
func dynamic(f *objfile.File, visit func(tag, value uint64)) {
	for _, s := range f.Segments() {
		if s.Type != objfile.PT_DYNAMIC {
			continue
		}
		raw := make([]byte, min(s.FileSize, maxDynamic)/16*16)
		n, _ := f.ReadAtAddress(raw, s.Addr)
		for raw = raw[:n/16*16]; len(raw) > 0 && le.Uint64(raw) != 0; raw = raw[16:] {
			visit(le.Uint64(raw), le.Uint64(raw[8:]))
		}
		return
	}
}

// isProgram tells a program from a library. Both can be at any address; libraries can be run, and have an interpreter.
func isProgram(f *objfile.File) bool {
	if f.Type() == objfile.ET_EXEC {
		return true
	}
	pie := false
	dynamic(f, func(tag, value uint64) { pie = pie || tag == dtFlags1 && value&df1PIE != 0 })
	return pie
}
