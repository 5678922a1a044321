package kallsyms

import (
	"slices"
	"sort"
	"strings"
)

const (
	// maxDynamic bounds the symbols that come while we run. Hosts have tens to hundreds of BPF programs; only
	// a lost stream of unload records fills the overlay, and then the oldest go.
	maxDynamic = 4096
	// maxDynamicNameBytes is the kernel's KSYM_NAME_LEN.
	maxDynamicNameBytes = 512
)

// AddDynamic adds a symbol that appeared after [Read]: a PERF_RECORD_KSYMBOL record without the unregister flag.
// Symbols it overlaps are gone, their memory is used again. It reports whether the symbol was added: one of
// no size or no name, or one that leaves the address space, is not.
func (t *Table) AddDynamic(addr, size uint64, name string) bool {
	if size == 0 || name == "" || addr+size < addr {
		return false
	}
	name = strings.Clone(name[:min(len(name), maxDynamicNameBytes)])
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dynamic.add(dynamicSymbol{start: addr, end: addr + size, name: name})
	return true
}

// RemoveDynamic removes the symbol that starts at addr, whether AddDynamic or [Read] brought it: a
// PERF_RECORD_KSYMBOL record with the unregister flag. An unknown address, or one of the kernel's own text, is ignored.
func (t *Table) RemoveDynamic(addr uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dynamic.remove(addr)
	if s, ok := t.static(addr); ok && s.Start == addr && s.Module != "" {
		t.dynamic.markRemoved(addr)
	}
}

// A dynamicSymbol covers [start, end).
type dynamicSymbol struct {
	start, end uint64
	name       string
	age        uint64 // counts up: the smallest is the oldest
}

// module is what kallsyms would show. Records come for two types of code: BPF, whose names all begin with bpf_, and
// out-of-line code such as ftrace_trampoline.
func (s dynamicSymbol) module() string {
	if strings.HasPrefix(s.name, "bpf_") {
		return bpfOwner
	}
	return ""
}

// An overlay holds what changed since the table was read. It is not safe for concurrent use; Table.mu guards it.
type overlay struct {
	symbols []dynamicSymbol // sorted by start, disjoint, at most maxDynamic
	added   uint64
	// removed holds starts of the table's symbols outside the kernel's own text, so it is bounded by their number.
	removed map[uint64]struct{}
}

func (o *overlay) lookup(addr uint64) (dynamicSymbol, bool) {
	i := o.firstEndingAfter(addr)
	if i == len(o.symbols) || o.symbols[i].start > addr {
		return dynamicSymbol{}, false
	}
	return o.symbols[i], true
}

func (o *overlay) firstEndingAfter(addr uint64) int {
	return sort.Search(len(o.symbols), func(i int) bool { return o.symbols[i].end > addr })
}

func (o *overlay) add(s dynamicSymbol) {
	o.added++
	s.age = o.added
	from := o.firstEndingAfter(s.start)
	to := from
	for to < len(o.symbols) && o.symbols[to].start < s.end {
		to++
	}
	o.symbols = slices.Replace(o.symbols, from, to, s)
	if len(o.symbols) > maxDynamic {
		o.dropOldest()
	}
}

func (o *overlay) dropOldest() {
	oldest := 0
	for i, s := range o.symbols {
		if s.age < o.symbols[oldest].age {
			oldest = i
		}
	}
	o.symbols = slices.Delete(o.symbols, oldest, oldest+1)
}

func (o *overlay) remove(addr uint64) {
	if i := o.firstEndingAfter(addr); i < len(o.symbols) && o.symbols[i].start == addr {
		o.symbols = slices.Delete(o.symbols, i, i+1)
	}
}

func (o *overlay) markRemoved(addr uint64) {
	if o.removed == nil {
		o.removed = make(map[uint64]struct{})
	}
	o.removed[addr] = struct{}{}
}

func (o *overlay) isRemoved(start uint64) bool {
	_, ok := o.removed[start]
	return ok
}

func (o *overlay) bytes() int {
	const symbolBytes, removedBytes = 40, 16
	n := cap(o.symbols)*symbolBytes + len(o.removed)*removedBytes
	for _, s := range o.symbols {
		n += len(s.name)
	}
	return n
}
