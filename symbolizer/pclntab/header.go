package pclntab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	magicGo12  = 0xfffffffb // Go 1.2 to 1.15
	magicGo116 = 0xfffffffa // Go 1.16 and 1.17
	magicGo118 = 0xfffffff0 // Go 1.18 and 1.19
	magicGo120 = 0xfffffff1 // Go 1.20 and newer

	headerSize  = 72
	pointerSize = 8
	functabSize = 8 // one functab entry

	// maxHeaders bounds the tables tried in one file.
	maxHeaders = 4

	// maxFuncs bounds the reading of functab in Open: 32 MB of it. The largest Go binaries known have
	// less than a million functions.
	maxFuncs = 1 << 22
)

// quantumOf gives the length of the shortest instruction, the unit of pc differences.
var quantumOf = map[objfile.Machine]uint32{objfile.EM_X86_64: 1, objfile.EM_AARCH64: 4}

// header is the pcHeader of one table with its offsets made into addresses.
type header struct {
	addr      objfile.Address
	layout    *layout
	quantum   uint32
	nfunc     uint32
	textStart objfile.Address // 0 where not written or not relocated

	funcnametab, cutab, filetab, pctab, functab span
}

// span is a range of addresses, end exclusive.
type span struct{ start, end objfile.Address }

func (s span) contains(a objfile.Address) bool { return s.start <= a && a < s.end }
func (s span) size() uint64                    { return uint64(s.end - s.start) }

// layout holds what changed between versions of the format. The offsets are those of the fields in a func
// record, an inlined call and, counted in words, in moduledata.
type layout struct {
	funcSize, startLine, funcID, nfuncdata      uint32 // startLine 0: no such field
	callSize, callFuncID, callName, callParent  uint32
	callStartLine, moduledataWords, gofuncIndex uint32 // callStartLine 0: no such field
}

var (
	layoutGo118 = layout{
		funcSize: 40, funcID: 36, nfuncdata: 39,
		callSize: 20, callFuncID: 2, callName: 12, callParent: 16,
		moduledataWords: 39, gofuncIndex: 38,
	}
	layoutGo120 = layout{
		funcSize: 44, startLine: 36, funcID: 40, nfuncdata: 43,
		callSize: 16, callFuncID: 0, callName: 4, callParent: 8, callStartLine: 12,
		moduledataWords: 41, gofuncIndex: 40, // covctrs and ecovctrs came before it
	}
)

// couldBeHeader reports whether a header of a supported table can begin with the eight bytes of word.
func couldBeHeader(word uint64) bool {
	if high := word >> 32; high != 0x08_01_0000 && high != 0x08_04_0000 {
		return false
	}
	return uint32(word) == magicGo118 || uint32(word) == magicGo120
}

// findHeaders returns the table that a section is named after, else, in files that can be Go's, those found in the segments:
// a program may carry other Go programs as data.
func findHeaders(f *objfile.File) ([]header, error) {
	refused := error(ErrNone)
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		s, ok := f.Section(name)
		if !ok {
			continue
		}
		h, err := readHeader(f, s.Addr)
		if err == nil {
			return []header{h}, nil
		}
		refused = err
	}
	if !mayBeGo(f) {
		return nil, refused
	}
	// GNU ld folds .data.rel.ro.gopclntab into .data.rel.ro, and section headers may be gone.
	var found []header
	err := scanSegments(f, anySegment, couldBeHeader, func(a objfile.Address) bool {
		if h, err := readHeader(f, a); err == nil {
			found = append(found, h)
		}
		return len(found) == maxHeaders
	})
	switch {
	case len(found) > 0:
		return found, nil
	case errors.Is(refused, ErrNone) && err != nil:
		return nil, err
	}
	return nil, refused
}

// mayBeGo spares the reading of every C library on the host from end to end: a file with section headers has
// a section that only Go's linker makes, or it is not searched. The names survive strip and external linkers.
func mayBeGo(f *objfile.File) bool {
	sections := f.Sections()
	for _, s := range sections {
		switch s.Name {
		case ".gopclntab", ".data.rel.ro.gopclntab", ".go.buildinfo", ".note.go.buildid", ".go.module", ".noptrdata", ".typelink":
			return true
		}
	}
	return len(sections) == 0
}

// readHeader reads the header at a and checks it against the file.
func readHeader(f *objfile.File, a objfile.Address) (header, error) {
	region, ok := fileRegion(f, a)
	if !ok {
		return header{}, fmt.Errorf("%w: header at %#x is in no segment", ErrCorrupt, uint64(a))
	}
	var buf [headerSize]byte
	if !readFull(f, buf[:], a) {
		return header{}, fmt.Errorf("%w: header at %#x is cut short", ErrCorrupt, uint64(a))
	}
	h := header{addr: a, quantum: uint32(buf[6])}
	magic := binary.LittleEndian.Uint32(buf[:])
	switch magic {
	case magicGo118:
		h.layout = &layoutGo118
	case magicGo120:
		h.layout = &layoutGo120
	case magicGo12, magicGo116:
		return header{}, fmt.Errorf("%w: made by a Go older than 1.18 (magic %#x)", ErrUnsupported, magic)
	default:
		return header{}, fmt.Errorf("%w: unknown magic %#x", ErrUnsupported, magic)
	}
	if buf[7] != pointerSize {
		return header{}, fmt.Errorf("%w: pointers of %d bytes", ErrUnsupported, buf[7])
	}
	if buf[4] != 0 || buf[5] != 0 || h.quantum != quantumOf[f.Machine()] {
		return header{}, fmt.Errorf("%w: header begins with % x", ErrCorrupt, buf[:8])
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(buf[8+8*i:]) }

	nfunc := word(0)
	if nfunc == 0 || nfunc > maxFuncs {
		return header{}, fmt.Errorf("%w: %d functions", ErrCorrupt, nfunc)
	}
	h.nfunc = uint32(nfunc)
	h.textStart = objfile.Address(word(2))

	// The parts follow one another; the last ends with the segment at the latest.
	limit := uint64(region.end - a)
	offs := [...]uint64{word(3), word(4), word(5), word(6), word(7), limit}
	prev := uint64(headerSize)
	for _, off := range offs {
		if off < prev || off > limit {
			return header{}, fmt.Errorf("%w: offsets %#x do not ascend within %#x bytes", ErrCorrupt, offs[:5], limit)
		}
		prev = off
	}
	part := func(i int) span { return span{a + objfile.Address(offs[i]), a + objfile.Address(offs[i+1])} }
	h.funcnametab, h.cutab, h.filetab, h.pctab, h.functab = part(0), part(1), part(2), part(3), part(4)
	if h.functab.size() < nfunc*functabSize+4 {
		return header{}, fmt.Errorf("%w: %d functions in %#x bytes", ErrCorrupt, nfunc, h.functab.size())
	}
	return h, nil
}
