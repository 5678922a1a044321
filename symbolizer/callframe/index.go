package callframe

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"unsafe"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// ErrNone: the file has no .eh_frame_hdr, or one without a table that can be searched.
var ErrNone = errors.New("no .eh_frame_hdr")

// A Header is the start of .eh_frame_hdr, which the program itself finds .eh_frame by. A segment of its own points at it: files without section
// headers have it too.
//
//	version u8 = 1, encoding of the pointer u8, of the count u8, of the table u8,
//	pointer to .eh_frame, count, count x (start of a function, its FDE), sorted
type Header struct {
	EHFrame objfile.Address
	at      objfile.Address
	count   uint64 // 0: the table is not of the kind that linkers write
	table   objfile.Address
}

// tableEncoding is that of tables as linkers write them: four bytes, signed, relative to the header.
const tableEncoding = peDataRelative | peSData4

// ReadHeader reads .eh_frame_hdr. Errors are [ErrNone] or what the file's reader returned.
func ReadHeader(f *objfile.File) (Header, error) {
	for _, s := range f.Segments() {
		if s.Type != objfile.PT_GNU_EH_FRAME {
			continue
		}
		var raw [24]byte
		n, err := f.ReadAtAddress(raw[:], s.Addr)
		if err != nil && !errors.Is(err, objfile.ErrNotMapped) {
			return Header{}, fmt.Errorf(".eh_frame_hdr: %w", err)
		}
		in := NewCursor(raw[:n], s.Addr)
		version, pointer, count, table := in.Uint8(), in.Uint8(), in.Uint8(), in.Uint8()
		h := Header{EHFrame: in.Pointer(pointer), at: s.Addr}
		if in.Failed || version != 1 {
			break
		}
		if count&peApplication == 0 && table == tableEncoding {
			h.count, h.table = in.Value(count), s.Addr+objfile.Address(in.Pos)
		}
		if in.Failed {
			h.count = 0
		}
		return h, nil
	}
	return Header{}, ErrNone
}

// An Index finds the function of an address in a file that may have no symbols. It holds nothing of the table but where it is: each look-up reads
// some 20 words of the file, by a binary search, and the entries of the function found.
//
// It is immutable and safe for concurrent use if the file's reader is, which must stay readable.
type Index struct {
	file   *objfile.File
	header Header
}

// NewIndex finds the table of f. Errors are those of [ReadHeader].
func NewIndex(f *objfile.File) (*Index, error) {
	h, err := ReadHeader(f)
	if err != nil {
		return nil, err
	}
	if h.count == 0 || h.count > math.MaxInt32 {
		return nil, ErrNone
	}
	return &Index{file: f, header: h}, nil
}

// Bytes returns the memory that the index keeps, without the file's reader.
func (x *Index) Bytes() int { return int(unsafe.Sizeof(*x)) + x.file.Bytes() }

// entrySize is that of the table's entries.
const entrySize = 8

// Lookup returns where the function that holds an address starts, and its length in bytes; false where none does, or where
// what is told of it cannot be read.
func (x *Index) Lookup(a objfile.Address) (start objfile.Address, length uint64, ok bool) {
	readable := true
	after := sort.Search(int(x.header.count), func(i int) bool {
		start, _, ok := x.entry(i)
		readable = readable && ok
		return start > a
	})
	if !readable || after == 0 {
		return 0, 0, false
	}
	start, at, ok := x.entry(after - 1)
	if !ok {
		return 0, 0, false
	}
	f, ok := x.function(at)
	if !ok || f.Start != start || a < start || uint64(a-start) >= f.Length {
		return 0, 0, false
	}
	return start, f.Length, true
}

// entry reads an entry of the table: the start of a function, and where its FDE stands.
func (x *Index) entry(i int) (start, fde objfile.Address, ok bool) {
	var raw [entrySize]byte
	if _, err := x.file.ReadAtAddress(raw[:], x.header.table+objfile.Address(i)*entrySize); err != nil {
		return 0, 0, false
	}
	in := NewCursor(raw[:], 0)
	start = x.header.at + objfile.Address(in.Value(peSData4))
	return start, x.header.at + objfile.Address(in.Value(peSData4)), true
}

// function reads the FDE at an address.
func (x *Index) function(at objfile.Address) (FDE, bool) {
	var raw, common [headSize]byte
	fde, ok := x.read(raw[:], at)
	if !ok || fde.IsCIE {
		return FDE{}, false
	}
	cie, ok := x.read(common[:], at+objfile.Address(fde.CIE))
	if !ok || !cie.IsCIE {
		return FDE{}, false
	}
	k, ok := ReadCIE(cie.Cursor)
	if !ok {
		return FDE{}, false
	}
	return k.ReadFDE(fde.Cursor)
}

// headSize is how much of an entry is read: more than what stands before its instructions, if those who write them are in their senses.
const headSize = 64

// read reads the head of the entry at an address.
func (x *Index) read(raw []byte, at objfile.Address) (Entry, bool) {
	n, err := x.file.ReadAtAddress(raw, at)
	if err != nil && !errors.Is(err, objfile.ErrNotMapped) {
		return Entry{}, false
	}
	in := NewCursor(raw[:n], at)
	e := ReadEntry(&in, false)
	return e, !e.Failed && e.Length != 0
}
