// Package kallsyms names kernel addresses: the kernel's own text, modules, BPF programs and trampolines.
//
// The caller supplies the content of /proc/kallsyms (an open file, usually) and, while it runs, the
// PERF_RECORD_KSYMBOL records of BPF programs that come and go; module loads have no such record, so the
// caller reads the file again when it wants to see new modules. The package opens nothing itself.
//
// /proc/kallsyms gives no sizes. A symbol therefore reaches to the next one, but never beyond what is known
// to be code: an address past the end of the kernel's text, or far behind the last function of a module, has
// no name rather than its nearest neighbour's.
//
// Refused: a file in which kptr_restrict hides every address ([ErrRestricted]), one without any code
// ([ErrNoSymbols]), and one beyond the bounds ([ErrTooLarge]). Lines that cannot be parsed are skipped and
// counted ([Table.Malformed]): one odd line must not cost a host its kernel names.
package kallsyms

import (
	"errors"
	"slices"
	"sort"
	"strings"
	"sync"
)

// The errors of [Read] to branch on.
var (
	// ErrRestricted: the kernel shows every address as zero. The reader needs CAP_SYSLOG (as root), or
	// kernel.kptr_restrict=0 together with kernel.perf_event_paranoid <= 1.
	ErrRestricted = errors.New("kallsyms: all addresses are zero (kernel.kptr_restrict; CAP_SYSLOG is needed)")
	// ErrNoSymbols: there is no code symbol in the input.
	ErrNoSymbols = errors.New("kallsyms: no code symbols")
	// ErrTooLarge: the input exceeds maxInputBytes or maxSymbols.
	ErrTooLarge = errors.New("kallsyms: input exceeds the size bounds")
)

const (
	// pageBytes is the smallest page of the supported architectures. Text of different owners (a module, the
	// next module) never shares a page.
	pageBytes = 4 << 10

	// maxFunctionBytes is how far a function of the kernel or a module may reach where no next symbol ends
	// it: behind the last function of a module, behind .exit.text, in alignment holes. The largest function of
	// a 6.18 kernel (hidinput_connect) has 20 KiB; sanitizers triple that.
	maxFunctionBytes = 128 << 10

	// maxProgramBytes is the same for a BPF program that was there before we were: one program of several
	// thousand instructions is one JIT function. Programs loaded later come with their size.
	maxProgramBytes = 512 << 10

	// unnamed marks an entry of Table.names that ends the symbol before it and names nothing.
	unnamed = ^uint32(0)
)

// bpfOwner is what the kernel writes in the module column of BPF programs and trampolines.
const bpfOwner = "bpf"

// A Symbol is what [Table.Lookup] finds. Its strings share the table's memory: clone what outlives the table.
type Symbol struct {
	Name   string
	Module string // without brackets; empty for the kernel itself, "bpf" for BPF programs
	Start  uint64
}

// A Table maps addresses to kernel symbols. All methods are safe for concurrent use; only the dynamic
// symbols change after [Read].
//
// Eight bytes a symbol and the names: symbols are grouped into runs, stretches of the address space that
// belong to one owner, and within a run a symbol is its offset from the run's base.
//
//	runs     {base, owner, first} {base, owner, first} ...
//	offsets   0 16 96 ... end      0 64 ... end             parallel to names;
//	names     @ @  @  ... unnamed  @ @  ... unnamed         @ is an offset into blob
//	blob     "__pfx_do_exit\n__pfx_do_group_exit\n..."      do_exit lies inside __pfx_do_exit
type Table struct {
	runs      []run
	offsets   []uint32
	names     []uint32
	owners    []string
	blob      string
	symbols   int
	malformed int

	mu      sync.RWMutex
	dynamic overlay
}

// A run is a stretch of symbols with one owner. It begins with a symbol at its base and ends with an unnamed
// entry, less than 4 GiB later.
type run struct {
	base  uint64
	first uint32 // index of its first entry in offsets and names
	owner uint32 // index into Table.owners
}

// Lookup returns the symbol whose code holds addr. For a return address the caller passes addr-1.
func (t *Table) Lookup(addr uint64) (Symbol, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if d, ok := t.dynamic.lookup(addr); ok {
		return Symbol{Name: d.name, Module: d.module(), Start: d.start}, true
	}
	s, ok := t.static(addr)
	if ok && s.Module != "" && t.dynamic.isRemoved(s.Start) {
		return Symbol{}, false
	}
	return s, ok
}

// static looks addr up in what [Read] saw.
func (t *Table) static(addr uint64) (Symbol, bool) {
	r := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].base > addr }) - 1
	if r < 0 {
		return Symbol{}, false
	}
	run, end := t.runs[r], len(t.offsets)
	if r+1 < len(t.runs) {
		end = int(t.runs[r+1].first)
	}
	offset := addr - run.base
	if last := t.offsets[end-1]; offset >= uint64(last) {
		return Symbol{}, false
	}
	i, exact := slices.BinarySearch(t.offsets[run.first:end], uint32(offset))
	if !exact {
		i-- // never below 0: the first offset of a run is 0
	}
	i += int(run.first)
	if t.names[i] == unnamed {
		return Symbol{}, false
	}
	return Symbol{
		Name:   t.nameAt(t.names[i]),
		Module: t.owners[run.owner],
		Start:  run.base + uint64(t.offsets[i]),
	}, true
}

func (t *Table) nameAt(at uint32) string {
	name, _, _ := strings.Cut(t.blob[at:], "\n")
	return name
}

// Len is the number of distinct addresses with a name, dynamic symbols not included.
func (t *Table) Len() int { return t.symbols }

// Malformed is the number of input lines that were skipped because they could not be parsed.
func (t *Table) Malformed() int { return t.malformed }

// Bytes is the memory the table holds, dynamic symbols included.
func (t *Table) Bytes() int {
	const runBytes, stringHeaderBytes = 16, 16
	n := cap(t.runs)*runBytes + cap(t.offsets)*4 + cap(t.names)*4 + len(t.blob)
	for _, o := range t.owners {
		n += stringHeaderBytes + len(o)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return n + t.dynamic.bytes()
}
