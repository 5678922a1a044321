package elfsym

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

var le = binary.LittleEndian

// A table is a symbol table and its strings, not read yet.
type table struct {
	name        string // for errors
	symtab      bool   // .symtab, not .dynsym
	symbols     io.ReaderAt
	count       uint64
	strings     io.ReaderAt
	stringsSize int64
}

// findTables returns the tables of f, the better first. The error says what kept a table
// out of the result.
func findTables(f *objfile.File) ([]table, error) {
	if len(f.Sections()) == 0 {
		t, err := dynamicTable(f)
		if errors.Is(err, ErrNone) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("PT_DYNAMIC: %w", err)
		}
		return []table{t}, nil
	}
	var tables []table
	var errs error
	for _, typ := range []uint32{objfile.SHT_SYMTAB, objfile.SHT_DYNSYM} {
		for _, s := range f.Sections() {
			if s.Type != typ || s.Size == 0 {
				continue
			}
			t, err := sectionTable(f, s)
			if err != nil {
				errs = errors.Join(errs, fmt.Errorf("%s: %w", s.Name, err))
			} else {
				tables = append(tables, t)
			}
			break // the ABI allows one of each
		}
	}
	return tables, errs
}

func sectionTable(f *objfile.File, s objfile.Section) (table, error) {
	if s.EntSize != symbolSize {
		return table{}, fmt.Errorf("%w: entries of %d bytes, want %d", objfile.ErrCorrupt, s.EntSize, symbolSize)
	}
	if uint64(s.Link) >= uint64(len(f.Sections())) {
		return table{}, fmt.Errorf("%w: strings in section %d of %d", objfile.ErrCorrupt, s.Link, len(f.Sections()))
	}
	symbols, err := f.SectionReader(s)
	if err != nil {
		return table{}, err
	}
	strings, err := f.SectionReader(f.Sections()[s.Link])
	if err != nil {
		return table{}, err
	}
	return table{
		name:        s.Name,
		symtab:      s.Type == objfile.SHT_SYMTAB,
		symbols:     symbols,
		count:       s.Size / symbolSize,
		strings:     strings,
		stringsSize: strings.Size(),
	}, nil
}

// Tags of the dynamic section. An entry is d_tag:8 d_val:8; a DT_NULL ends them.
const (
	dtNull    = 0
	dtHash    = 4
	dtStrtab  = 5
	dtSymtab  = 6
	dtStrsz   = 10
	dtSyment  = 11
	dtGNUHash = 0x6ffffef5

	dynamicEntrySize = 16
	// maxDynamic bounds the dynamic section; it has about 30 entries, and one more for
	// each library needed.
	maxDynamic = 4096 * dynamicEntrySize
)

// dynamicTable finds .dynsym the way the dynamic loader does.
func dynamicTable(f *objfile.File) (table, error) {
	tags, err := dynamicTags(f)
	if err != nil {
		return table{}, err
	}
	symtab, strtab := objfile.Address(tags[dtSymtab]), objfile.Address(tags[dtStrtab])
	if symtab == 0 || strtab == 0 {
		return table{}, ErrNone
	}
	if n, ok := tags[dtSyment]; ok && n != symbolSize {
		return table{}, fmt.Errorf("%w: DT_SYMENT is %d, want %d", objfile.ErrCorrupt, n, symbolSize)
	}
	if tags[dtStrsz] > math.MaxUint32+1 {
		return table{}, fmt.Errorf("%w: DT_STRSZ is %d", objfile.ErrCorrupt, tags[dtStrsz])
	}
	count, err := dynamicCount(f, tags)
	if err != nil {
		return table{}, err
	}
	return table{
		name:        "dynamic symbols",
		symbols:     addressReader{f, symtab},
		count:       count,
		strings:     addressReader{f, strtab},
		stringsSize: int64(tags[dtStrsz]),
	}, nil
}

func dynamicTags(f *objfile.File) (map[uint64]uint64, error) {
	for _, s := range f.Segments() {
		if s.Type != objfile.PT_DYNAMIC {
			continue
		}
		raw := make([]byte, min(s.FileSize, maxDynamic)/dynamicEntrySize*dynamicEntrySize)
		if _, err := f.ReadAtAddress(raw, s.Addr); err != nil {
			return nil, err
		}
		tags := map[uint64]uint64{}
		for ; len(raw) > 0; raw = raw[dynamicEntrySize:] {
			tag := le.Uint64(raw)
			if tag == dtNull {
				break
			}
			switch tag {
			case dtHash, dtStrtab, dtSymtab, dtStrsz, dtSyment, dtGNUHash:
				tags[tag] = le.Uint64(raw[8:])
			}
		}
		return tags, nil
	}
	return nil, ErrNone
}

// dynamicCount returns the number of dynamic symbols, which only the hash tables tell.
func dynamicCount(f *objfile.File, tags map[uint64]uint64) (uint64, error) {
	if a, ok := tags[dtHash]; ok {
		// nbucket:4 nchain:4 ...; there is a chain entry for each symbol.
		var h [8]byte
		if _, err := f.ReadAtAddress(h[:], objfile.Address(a)); err != nil {
			return 0, fmt.Errorf("DT_HASH: %w", err)
		}
		return uint64(le.Uint32(h[4:])), nil
	}
	if a, ok := tags[dtGNUHash]; ok {
		n, err := gnuHashCount(f, objfile.Address(a))
		if err != nil {
			return 0, fmt.Errorf("DT_GNU_HASH: %w", err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("%w: neither DT_HASH nor DT_GNU_HASH", objfile.ErrCorrupt)
}

// gnuHashCount walks a DT_GNU_HASH table:
//
//	nbuckets:4 symoffset:4 bloomsize:4 bloomshift:4
//	bloom:  8 x bloomsize
//	bucket: 4 x nbuckets   first symbol of the chain, 0 if empty
//	chain:  4 each         one for each symbol from symoffset on; bit 0 ends a chain
//
// The symbols are sorted by bucket, so the last chain ends with the last symbol.
func gnuHashCount(f *objfile.File, a objfile.Address) (uint64, error) {
	var h [16]byte
	if _, err := f.ReadAtAddress(h[:], a); err != nil {
		return 0, err
	}
	buckets, symOffset, bloom := le.Uint32(h[:]), le.Uint32(h[4:]), le.Uint32(h[8:])
	bucketsAt := a + 16 + 8*objfile.Address(bloom)
	chainsAt := bucketsAt + 4*objfile.Address(buckets)

	last := uint32(0)
	_, err := scanWords(f, bucketsAt, uint64(buckets), func(w uint32) bool {
		last = max(last, w)
		return true
	})
	if err != nil {
		return 0, err
	}
	if last < symOffset { // all buckets empty: nothing but undefined symbols
		return uint64(symOffset), nil
	}
	n, err := scanWords(f, chainsAt+4*objfile.Address(last-symOffset), maxScan, func(w uint32) bool { return w&1 == 0 })
	return uint64(last) + n, err
}

// scanWords reads up to count 32-bit words until more returns false, and returns how many
// it read.
func scanWords(f *objfile.File, a objfile.Address, count uint64, more func(uint32) bool) (uint64, error) {
	if count > maxScan {
		return 0, fmt.Errorf("%w: %d words at address %#x, limit %d", objfile.ErrCorrupt, count, uint64(a), maxScan)
	}
	var buf [4096]byte
	for done := uint64(0); done < count; {
		chunk := buf[:min(4*(count-done), uint64(len(buf)))]
		// A chain may end with the segment, before the chunk does.
		n, err := f.ReadAtAddress(chunk, a+objfile.Address(4*done))
		if n < 4 {
			return done, readError(err)
		}
		for chunk = chunk[:n&^3]; len(chunk) > 0; chunk = chunk[4:] {
			done++
			if !more(le.Uint32(chunk)) {
				return done, nil
			}
		}
	}
	return count, nil
}

// An addressReader reads a file by address; offset 0 is base.
type addressReader struct {
	f    *objfile.File
	base objfile.Address
}

func (r addressReader) ReadAt(p []byte, off int64) (int, error) {
	return r.f.ReadAtAddress(p, r.base+objfile.Address(off))
}
