// Package elfsym answers "which function is at this address?" from an ELF file's symbol
// tables, .symtab and .dynsym, out of an index of about 12 bytes a function plus its name.
//
// The caller supplies a parsed [objfile.File]; after [Build] the file is not used any more.
// Addresses are those of the file. A file that holds nothing but debug information
// (objcopy --only-keep-debug) serves as well as the file it was split from, since it keeps
// that file's section addresses. Without section headers the tables are found
// as the dynamic loader finds them, through PT_DYNAMIC.
//
// Kept are function symbols (STT_FUNC, STT_GNU_IFUNC), and untyped ones in executable
// sections, which is what hand-written assembly leaves. Refused are undefined symbols,
// data, compiler labels (".L..."), annotations (".annobin...") and the arm64
// mapping symbols $x and $d.
//
// A name is the raw linkage name, clone suffixes (.cold, .part.0) included and symbol
// versions (@@GLIBC_2.14) taken off. Names are not demangled here.
//
// # Whose name an address gets
//
// The innermost symbol that holds it: of those that start at or before the address and end
// beyond it, the one that starts last. Between two functions an address has no name, except that
// a symbol without a size reaches to the next symbol, to the end of the symbol
// around it, or to the end of its section, whichever comes first.
//
// Of several names for one address, the choice is, in this order:
//
//   - global, then weak, then local: what other code calls it is what its users know;
//   - with a size, then without: the first says where it ends;
//   - fewer leading underscores: memcpy rather than __memcpy;
//   - the shorter: malloc rather than libc_malloc_alias;
//   - the lexicographically first, only so that equal files give equal names.
package elfsym

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// ErrNone is what Build returns for a file with no function symbols.
var ErrNone = errors.New("no function symbols")

// Bounds on what one file makes us read and hold. What exceeds them is left out and counted in
// [Table.Dropped]; the choice of what is left out depends on the file alone.
const (
	// maxScan bounds the entries looked at, over both tables: a sparse file can claim any
	// number at no cost. A debug build of Chromium has about 4 million.
	maxScan = 8 << 20
	// maxSymbols bounds the functions considered: 32 bytes each while building, and at
	// most 24 in the index (12, and 12 more if another symbol lies inside).
	maxSymbols = 2 << 20
	// maxNameBytes bounds the names of those functions. Large C++ programs average 60 to 100 bytes.
	maxNameBytes = 128 << 20
	// maxName bounds one name. Longer ones, if a template really makes them, are dropped:
	// half a mangled name names nothing.
	maxName = 32 << 10
	// maxStrings bounds how far into a string table we read, again for sparse files.
	maxStrings = 1 << 30
)

// A Symbol is one function of a file.
type Symbol struct {
	Name  string // linkage name
	Start objfile.Address
	Size  uint64 // bytes; for a symbol without a size, as far as it reaches
}

// Build reads the symbol tables of f. It returns [ErrNone] if there is nothing to name, and
// an error that wraps [objfile.ErrCorrupt] or the reader's if no table could be read.
// If one table is read and the other cannot be, the result has the names of the first,
// and [Table.Damage] says why.
func Build(f *objfile.File) (*Table, error) {
	b := builder{code: codeRanges(f)}
	tables, err := findTables(f)
	b.damage = err
	for _, t := range tables {
		if err := b.collect(f, t); err != nil {
			b.damage = errors.Join(b.damage, fmt.Errorf("%s: %w", t.name, err))
		}
	}
	if len(b.candidates) == 0 {
		if b.damage != nil {
			return nil, fmt.Errorf("symbols: %w", b.damage)
		}
		return nil, ErrNone
	}
	return b.index(), nil
}

// A builder collects the functions of the tables.
type builder struct {
	code       []codeRange
	candidates []candidate
	names      []byte // NUL-terminated
	fromSymtab bool
	dropped    uint64
	damage     error
}

// A candidate is a function symbol that may get into the index.
type candidate struct {
	addr        objfile.Address
	size        uint64
	name        uint32 // st_name at first, then an index into builder.names
	length      uint16 // of the name
	underscores uint16 // at its start
	rank        uint8  // lower is better: 2 x binding, +1 without a size
	kind        kind
}

type kind uint8

const (
	function kind = iota
	untyped       // STT_NOTYPE
)

const (
	rankGlobal   = 0
	rankWeak     = 2
	rankLocal    = 4
	rankUnsized  = 1
	rankBindings = rankWeak | rankLocal
)

// isLabel tells a jump target inside hand-written assembly from a function: nothing says it
// is a function, and nothing outside its file can call it.
func (c candidate) isLabel() bool {
	return c.kind == untyped && c.rank&rankBindings == rankLocal && c.size == 0
}

// collect appends the functions of one table, with their names.
func (b *builder) collect(f *objfile.File, t table) error {
	known := b.candidates
	first := len(known)
	err := b.readSymbols(f, t, known)
	fresh := b.candidates[first:]
	// In the order of their names these are read in one pass, through a small window.
	slices.SortFunc(fresh, func(x, y candidate) int { return cmp.Compare(x.name, y.name) })
	kept, nameErr := b.readNames(fresh, t)
	b.candidates = b.candidates[:first+kept]
	if t.symtab {
		b.fromSymtab = kept > 0
	}
	slices.SortFunc(b.candidates, byAddress)
	return errors.Join(err, nameErr)
}

// readSymbols appends t's function symbols. Addresses in known, which is sorted, are those
// of a better table and are left out: .symtab holds what .dynsym holds, and more.
func (b *builder) readSymbols(f *objfile.File, t table, known []candidate) error {
	const chunkEntries = 4096
	count := t.count
	if count > maxScan {
		b.dropped += count - maxScan
		count = maxScan
	}
	buf := make([]byte, min(count, chunkEntries)*symbolSize)
	sections := f.Sections()
	for done := uint64(0); done < count; {
		n := min(count-done, chunkEntries)
		chunk := buf[:n*symbolSize]
		if got, err := t.symbols.ReadAt(chunk, int64(done*symbolSize)); got < len(chunk) {
			return fmt.Errorf("entry %d of %d: %w", done+uint64(got)/symbolSize, count, readError(err))
		}
		for ; len(chunk) > 0; chunk = chunk[symbolSize:] {
			c, ok := b.decode(chunk[:symbolSize], sections)
			if !ok || isKnown(known, c.addr) {
				continue
			}
			if len(b.candidates) == maxSymbols {
				b.dropped++
				continue
			}
			b.candidates = append(b.candidates, c)
		}
		done += n
	}
	return nil
}

func isKnown(known []candidate, a objfile.Address) bool {
	_, found := slices.BinarySearchFunc(known, a, func(c candidate, a objfile.Address) int {
		return cmp.Compare(c.addr, a)
	})
	return found
}

// readError makes a short read what it means here: headers that promise more than there is.
func readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: ends early", objfile.ErrCorrupt)
	}
	return err
}

// A symbol table entry, Elf64_Sym:
//
//	st_name:4 st_info:1 st_other:1 st_shndx:2 st_value:8 st_size:8
const symbolSize = 24

const (
	sttNotype   = 0
	sttFunc     = 2
	sttGNUIfunc = 10

	stbGlobal    = 1
	stbWeak      = 2
	stbGNUUnique = 10

	shnUndef     = 0
	shnLoReserve = 0xff00
	shnXindex    = 0xffff // the index stands in another section
)

// decode reads one entry and says whether it is a function's.
func (b *builder) decode(e []byte, sections []objfile.Section) (candidate, bool) {
	c := candidate{
		name: le.Uint32(e),
		addr: objfile.Address(le.Uint64(e[8:])),
		size: le.Uint64(e[16:]),
	}
	shndx := le.Uint16(e[6:])
	if c.name == 0 || shndx == shnUndef {
		return c, false
	}
	switch e[4] & 0xf {
	case sttFunc, sttGNUIfunc:
	case sttNotype:
		// A linker script's constants are untyped too: absolute, or at the end of a
		// section (_etext), where they would take the name of what comes next.
		if shndx >= shnLoReserve && shndx != shnXindex {
			return c, false
		}
		if int(shndx) < len(sections) && !holdsCode(sections[shndx], c.addr) {
			return c, false
		}
		c.kind = untyped
	default:
		return c, false
	}
	if _, ok := findRange(b.code, c.addr); !ok {
		return c, false
	}
	switch e[4] >> 4 {
	case stbGlobal, stbGNUUnique:
		c.rank = rankGlobal
	case stbWeak:
		c.rank = rankWeak
	default:
		c.rank = rankLocal
	}
	if c.size == 0 {
		c.rank |= rankUnsized
	}
	// No function is longer than 4 GiB, and the index has 32 bits for it.
	c.size = min(c.size, math.MaxUint32, math.MaxUint64-uint64(c.addr))
	return c, true
}
