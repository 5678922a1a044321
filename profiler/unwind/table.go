package unwind

import (
	"unsafe"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Blocks of code.
const (
	blockBits  = 12
	blockBytes = 1 << blockBits
)

// A Table tells how to step from a frame to its caller, for the code of one file. The package's doc draws it. It is immutable and
// safe for concurrent use.
type Table struct {
	machine objfile.Machine
	codec   codec
	start   objfile.FileOffset // of block 0
	index   []uint32
	rows    []uint32
	rules   []Rule
	stats   Stats
	goCode  bool // some of it is Go's
}

// sourceInstructions stands among the sources for code that told of itself.
const sourceInstructions = "instructions"

// Stats are what a compilation found and made.
type Stats struct {
	// Functions are those that the file tells of. Broken counts those of them whose instructions end in nonsense, from where on they
	// are a gap, and those besides that nothing could be read of.
	Functions, Broken int
	// Unsupported counts the rows that say something that rules cannot: they are gaps.
	Unsupported int
	// Rows and Rules are what the table holds; rules only those that do not fit a code.
	Rows, Rules int
	// Code is how many bytes of code the file has.
	Code uint64
	// KeepsFramePointer: in all functions that something is known of, and that call others, the frame pointer leads to the caller.
	KeepsFramePointer bool
	// Sources are the sections that the rules come from, and "instructions" where code told of itself.
	Sources []string
	// Damage says why sections were not read to their ends.
	Damage []error
}

// Machine returns the architecture of the code.
func (t *Table) Machine() objfile.Machine { return t.machine }

// Stats returns what the compilation found.
func (t *Table) Stats() Stats { return t.stats }

// Bytes returns the memory that the table takes.
func (t *Table) Bytes() int {
	return int(unsafe.Sizeof(*t)) + 4*(cap(t.index)+cap(t.rows)) + cap(t.rules)*int(unsafe.Sizeof(Rule{}))
}

// Rule returns the rule at a file offset: that of the instruction there, with all before it executed. For a return address the
// caller passes the offset less one. Where nothing is known the rule is a [Gap].
func (t *Table) Rule(off objfile.FileOffset) Rule {
	if off < t.start {
		return Rule{}
	}
	block := uint64(off-t.start) >> blockBits
	if block+1 >= uint64(len(t.index)) {
		return Rule{}
	}
	return t.Decode(Search(t.rows[t.index[block]:t.index[block+1]], off))
}

// Search finds the code of the rule at a file offset among the rows of its block.
func Search(rows []uint32, off objfile.FileOffset) (code uint32) {
	key := uint32(off)<<codeBits | (1<<codeBits - 1)
	// The last row that begins at or before off.
	low, high := 0, len(rows)
	for low < high {
		if mid := low + (high-low)/2; rows[mid] <= key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return codeGap // a block without rows, or the part of one before the first
	}
	return codeOf(rows[low-1])
}

// Strip drops the rows, for a table of which the pieces lie elsewhere. It serves for [Table.Decode] still.
func (t *Table) Strip() { t.index, t.rows = nil, nil }

// Decode gives the rule of a code.
func (t *Table) Decode(code uint32) Rule {
	switch kind := code >> kindPos; {
	case code == codeGap:
		return Rule{}
	case code == codeOutermost:
		return Rule{Kind: Outermost}
	case kind == kindTable:
		return t.rules[code&(1<<kindPos-1)]
	}
	return t.codec.unpack(code)
}

// A Row is a rule, and the file offsets [From, To) that it holds for.
type Row struct {
	From, To objfile.FileOffset
	Rule     Rule
}

// All calls yield for each row, in the order of the code; gaps are left out.
func (t *Table) All(yield func(Row) bool) {
	for block := range max(1, len(t.index)) - 1 {
		start := t.start + objfile.FileOffset(block)<<blockBits
		rows := t.rows[t.index[block]:t.index[block+1]]
		for i, row := range rows {
			to := start + blockBytes
			if i+1 < len(rows) {
				to = start + objfile.FileOffset(rows[i+1]>>codeBits)
			}
			r := Row{start + objfile.FileOffset(row>>codeBits), to, t.Decode(codeOf(row))}
			if r.Rule.Kind != Gap && !yield(r) {
				return
			}
		}
	}
}

// Goroutine is where a Go program keeps the g of a thread, counted from the thread pointer; nil where its code did not tell.
func (t *Table) Goroutine() *int32 {
	for i := range t.rules {
		if t.rules[i].Kind == Goroutine {
			return &t.rules[i].Offset
		}
	}
	return nil
}
