package elfsym

import (
	"bytes"
	"cmp"
	"iter"
	"math"
	"slices"
	"sort"
	"unsafe"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A Table is the function symbols of one file, immutable and safe for concurrent use.
//
// It is four arrays. An entry is 12 bytes, split so that the search touches starts alone:
//
//	blocks  [ base, first entry ]              one for each 4 GiB of code: one, in practice
//	starts  [ 32-bit distance from the base ]  ascending
//	entries [ size:32 | name:32 ]              name is an index into names
//	names   "main\0_ZN3geo4areaEv\0..."
//
// Symbols may lie inside one another. Where an inner one ends and an outer one goes on, a
// resumed entry stands; its name field is resumed|i, i being the entry of the outer symbol:
//
//	symbols   outer [10                          60)
//	                       inner [20      30)
//	starts           10           20        30
//	entries          50 "outer"   10 "inner"  30 resumed|0
//
// So an address belongs to the last entry that starts at or before it, or to none: one
// binary search, however deep symbols are nested. There are at most twice as many entries
// as symbols.
type Table struct {
	blocks  []block
	starts  []uint32
	entries []entry
	names   []byte

	symbols    int
	fromSymtab bool
	dropped    uint64
	damage     error
}

type block struct {
	base  objfile.Address
	first int
}

type entry struct {
	size uint32
	name uint32
}

const resumed = 1 << 31

// Lookup returns the function that holds the address. Its name is a copy: keeping it does
// not keep the table.
func (t *Table) Lookup(a objfile.Address) (Symbol, bool) {
	i := t.find(a)
	if i < 0 || uint64(a-t.start(i)) >= uint64(t.entries[i].size) {
		return Symbol{}, false
	}
	return t.symbol(t.original(i)), true
}

// find returns the last entry that starts at or before a, or -1.
func (t *Table) find(a objfile.Address) int {
	b := sort.Search(len(t.blocks), func(i int) bool { return t.blocks[i].base > a }) - 1
	if b < 0 {
		return -1
	}
	first, end := t.blocks[b].first, len(t.starts)
	if b+1 < len(t.blocks) {
		end = t.blocks[b+1].first
	}
	// Beyond 4 GiB from the base only the last entry of the block can hold a.
	distance := uint32(min(uint64(a-t.blocks[b].base), math.MaxUint32))
	lo, hi := first, end
	for lo < hi { // starts[lo-1] <= distance < starts[hi]
		mid := int(uint(lo+hi) / 2)
		if t.starts[mid] <= distance {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// start returns the address at which entry i starts.
func (t *Table) start(i int) objfile.Address {
	b := sort.Search(len(t.blocks), func(b int) bool { return t.blocks[b].first > i }) - 1
	return t.blocks[b].base + objfile.Address(t.starts[i])
}

// original returns the entry of the symbol that entry i belongs to.
func (t *Table) original(i int) int {
	if name := t.entries[i].name; name&resumed != 0 {
		return int(name &^ resumed)
	}
	return i
}

func (t *Table) symbol(i int) Symbol {
	return Symbol{
		Name:  string(cString(t.names[t.entries[i].name:])),
		Start: t.start(i),
		Size:  uint64(t.entries[i].size),
	}
}

// All returns the symbols by ascending start; of two that start at one address the
// larger comes first. Symbols may overlap.
func (t *Table) All() iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		for i := range t.entries {
			if t.original(i) == i && !yield(t.symbol(i)) {
				return
			}
		}
	}
}

// Len returns the number of symbols.
func (t *Table) Len() int { return t.symbols }

// FromSymtab reports whether .symtab gave names: the local functions are among them. Else
// they are those of .dynsym alone, the functions that other files can call.
func (t *Table) FromSymtab() bool { return t.fromSymtab }

// Dropped returns how many symbols the bounds left out; 0 for any sane file.
func (t *Table) Dropped() uint64 { return t.dropped }

// Damage says which part of the file's symbol tables could not be read; nil if all was.
func (t *Table) Damage() error { return t.damage }

// Bytes returns the memory the table holds.
func (t *Table) Bytes() int {
	return int(unsafe.Sizeof(*t)) +
		cap(t.blocks)*int(unsafe.Sizeof(block{})) +
		cap(t.starts)*int(unsafe.Sizeof(t.starts[0])) +
		cap(t.entries)*int(unsafe.Sizeof(entry{})) +
		cap(t.names)
}

// index makes the table of the collected candidates.
func (b *builder) index() *Table {
	s := sweep{table: &Table{
		fromSymtab: b.fromSymtab,
		dropped:    b.dropped,
		damage:     b.damage,
	}}
	chosen := b.choose()
	s.table.starts = make([]uint32, 0, len(chosen))
	s.table.entries = make([]entry, 0, len(chosen))
	for i, c := range chosen {
		s.resumeUntil(c.addr)
		end := c.addr + objfile.Address(c.size)
		if c.size == 0 {
			if len(s.open) > 0 && c.isLabel() {
				continue // the function around it is the better name
			}
			end = b.reach(chosen, i)
			if n := len(s.open); n > 0 {
				end = min(end, s.open[n-1].end)
			}
		}
		s.add(c, end)
	}
	s.resumeUntil(math.MaxUint64)
	s.compact(b.names)
	return s.table
}

// reach returns where chosen[i], which has no size, ends: at the next symbol, or with its section.
func (b *builder) reach(chosen []candidate, i int) objfile.Address {
	c := chosen[i]
	r, _ := findRange(b.code, c.addr)
	end := min(r.end, c.addr+math.MaxUint32)
	if i+1 < len(chosen) {
		end = min(end, chosen[i+1].addr)
	}
	return end
}

// choose keeps one candidate for each address, by the rules of the package comment, in
// place. If the chosen one has no size it takes that of its longest alias. If an alias is
// longer, that one is kept before it, for the addresses that the chosen one does not hold.
func (b *builder) choose() []candidate {
	all := b.candidates
	chosen := all[:0]
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].addr == all[0].addr {
			n++
		}
		best, longest := all[0], all[0]
		for _, c := range all[1:n] {
			if b.better(c, best) {
				best = c
			}
			if c.size > longest.size || c.size == longest.size && b.better(c, longest) {
				longest = c
			}
		}
		if best.size == 0 {
			best.size = longest.size
		}
		if longest.size > best.size {
			chosen = append(chosen, longest)
		}
		chosen = append(chosen, best)
		all = all[n:]
	}
	return chosen
}

// better reports whether x names the address of both better than y.
func (b *builder) better(x, y candidate) bool {
	switch {
	case x.rank != y.rank:
		return x.rank < y.rank
	case x.underscores != y.underscores:
		return x.underscores < y.underscores
	case x.length != y.length:
		return x.length < y.length
	case x.name != y.name:
		if c := bytes.Compare(b.comparable(x), b.comparable(y)); c != 0 {
			return c < 0
		}
	}
	return byAddress(x, y) < 0
}

// comparable returns the start of c's name. What a million aliases of equal, endless names
// would cost is why it is not the whole; their order is then that of the string table.
func (b *builder) comparable(c candidate) []byte {
	const enough = 1024
	return b.names[c.name:][:min(c.length, enough)]
}

// cString returns b up to its first NUL. There always is one in builder.names and Table.names.
func cString(b []byte) []byte {
	return b[:bytes.IndexByte(b, 0)]
}

// byAddress is a total order on what the file says, so that equal files give equal tables.
func byAddress(x, y candidate) int {
	return cmp.Or(
		cmp.Compare(x.addr, y.addr),
		cmp.Compare(x.name, y.name),
		cmp.Compare(x.rank, y.rank),
		cmp.Compare(y.size, x.size),
	)
}

// A sweep goes through the symbols by ascending start and writes the entries.
type sweep struct {
	table *Table
	open  []openSymbol // by ascending start; some but never the last may have ended
}

// An openSymbol is one that started and may not have ended.
type openSymbol struct {
	end   objfile.Address
	entry int
}

// resumeUntil ends the symbols that end at or before a, and resumes those around them.
func (s *sweep) resumeUntil(a objfile.Address) {
	for n := len(s.open); n > 0 && s.open[n-1].end <= a; n = len(s.open) {
		at := s.open[n-1].end
		for n > 0 && s.open[n-1].end <= at {
			n--
		}
		s.open = s.open[:n]
		if n > 0 {
			outer := s.open[n-1]
			s.emit(at, entry{size: uint32(outer.end - at), name: resumed | uint32(outer.entry)})
		}
	}
}

// add opens c.
func (s *sweep) add(c candidate, end objfile.Address) {
	s.open = append(s.open, openSymbol{end: end, entry: len(s.table.entries)})
	s.emit(c.addr, entry{size: uint32(end - c.addr), name: c.name})
	s.table.symbols++
}

func (s *sweep) emit(at objfile.Address, e entry) {
	t := s.table
	n := len(t.blocks)
	if n == 0 || uint64(at-t.blocks[n-1].base) > math.MaxUint32 {
		t.blocks = append(t.blocks, block{base: at, first: len(t.starts)})
		n++
	}
	t.starts = append(t.starts, uint32(at-t.blocks[n-1].base))
	t.entries = append(t.entries, e)
}

// compact copies the names of the entries out of those of all candidates. Symbols may
// share a name.
func (s *sweep) compact(names []byte) {
	t := s.table
	order := make([]uint32, 0, t.symbols) // entries by the place of their name
	for i, e := range t.entries {
		if e.name&resumed == 0 {
			order = append(order, uint32(i))
		}
	}
	slices.SortFunc(order, func(x, y uint32) int {
		return int(int64(t.entries[x].name) - int64(t.entries[y].name))
	})
	// Names move towards the front, never onto one not read yet.
	kept := names[:0]
	lastOld, lastNew := uint32(math.MaxUint32), uint32(0)
	for _, i := range order {
		old := t.entries[i].name
		if old != lastOld {
			lastOld, lastNew = old, uint32(len(kept))
			name := cString(names[old:])
			kept = append(kept, names[old:int(old)+len(name)+1]...)
		}
		t.entries[i].name = lastNew
	}
	t.names = shrink(kept)
	t.starts = shrink(t.starts)
	t.entries = shrink(t.entries)
}

// shrink gives s an array of its own size, unless it nearly has one.
func shrink[T any](s []T) []T {
	if cap(s)-len(s) <= len(s)/16 {
		return s
	}
	return append(make([]T, 0, len(s)), s...)
}
