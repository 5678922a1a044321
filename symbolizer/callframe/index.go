package callframe

import (
	"errors"
	"fmt"
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

// ReadHeader reads .eh_frame_hdr. Errors are [ErrNone], or wrap [objfile.ErrCorrupt] or what the file's reader returned.
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
		if in.Failed || h.count > s.FileSize/entrySize { // there is no room for so many
			h.count = 0
		}
		return h, nil
	}
	return Header{}, ErrNone
}

// An Index finds the function of an address in a file that may have no symbols. It holds nothing of the table but where it is: a look-up reads the file, some
// ten times for a hundred thousand functions.
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
	if h.count == 0 {
		return nil, ErrNone
	}
	return &Index{file: f.Loaded(), header: h}, nil
}

// Bytes returns the memory that the index keeps, without the file's reader.
func (x *Index) Bytes() int { return int(unsafe.Sizeof(*x)) + x.file.Bytes() }

// entrySize is that of the table's entries, and blockEntries are read at once.
const (
	entrySize    = 8
	blockEntries = 256
)

// Lookup returns where the function that holds an address starts, and its length in bytes; a length of 0 where none does, or where what tells it is damaged. The error is
// that of the file's reader.
func (x *Index) Lookup(a objfile.Address) (start objfile.Address, length uint64, err error) {
	start, length, err = x.find(a)
	if errors.Is(err, objfile.ErrNotMapped) || errors.Is(err, objfile.ErrCorrupt) {
		return 0, 0, nil
	}
	return start, length, err
}

func (x *Index) find(a objfile.Address) (start objfile.Address, length uint64, err error) {
	var raw [blockEntries * entrySize]byte
	first, end := uint64(0), x.header.count // of what may be the last entry that starts at or before a
	for end-first > blockEntries {
		middle := first + (end-first)/2
		if err := x.read(raw[:entrySize], middle); err != nil {
			return 0, 0, err
		}
		if start, _ := x.entry(raw[:entrySize]); start <= a {
			first = middle
		} else {
			end = middle
		}
	}
	block := raw[:(end-first)*entrySize]
	if err := x.read(block, first); err != nil {
		return 0, 0, err
	}
	after := sort.Search(int(end-first), func(i int) bool {
		start, _ := x.entry(block[i*entrySize:])
		return start > a
	})
	if after == 0 {
		return 0, 0, nil
	}
	start, at := x.entry(block[(after-1)*entrySize:])
	f, err := x.function(at)
	if err != nil || f.Start != start || a < start || uint64(a-start) >= f.Length {
		return 0, 0, err
	}
	return start, f.Length, nil
}

// read reads entries of the table, from one on.
func (x *Index) read(raw []byte, from uint64) error {
	_, err := x.file.ReadAtAddress(raw, x.header.table+objfile.Address(from*entrySize))
	return err
}

// entry decodes an entry of the table: the start of a function, and where its FDE stands.
func (x *Index) entry(raw []byte) (start, fde objfile.Address) {
	in := NewCursor(raw[:entrySize], 0)
	start = x.header.at + objfile.Address(in.Value(peSData4))
	return start, x.header.at + objfile.Address(in.Value(peSData4))
}

// function reads the FDE at an address; one without a length is none.
func (x *Index) function(at objfile.Address) (FDE, error) {
	var raw, common [headSize]byte
	fde, err := x.head(raw[:], at)
	if err != nil || fde.Length == 0 || fde.IsCIE {
		return FDE{}, err
	}
	cie, err := x.head(common[:], at+objfile.Address(fde.CIE))
	if err != nil || cie.Length == 0 || !cie.IsCIE {
		return FDE{}, err
	}
	k, ok := ReadCIE(cie.Cursor)
	if !ok {
		return FDE{}, nil
	}
	f, ok := k.ReadFDE(fde.Cursor)
	if !ok {
		return FDE{}, nil
	}
	return f, nil
}

// headSize is how much of an entry is read: more than what stands before its instructions, if those who write them are in their senses.
const headSize = 64

// head reads the head of the entry at an address; one without a length is none.
func (x *Index) head(raw []byte, at objfile.Address) (Entry, error) {
	n, err := x.file.ReadAtAddress(raw, at)
	if err != nil && !errors.Is(err, objfile.ErrNotMapped) {
		return Entry{}, err
	}
	in := NewCursor(raw[:n], at)
	if e := ReadEntry(&in, false); !e.Failed {
		return e, nil
	}
	return Entry{}, nil
}
