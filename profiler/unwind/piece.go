package unwind

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A Piece is a stretch of a table, whole blocks of it, as the BPF programs search it: in words of 4 bytes that lie together in
// their arena.
//
//	rules  9 words each │ index  one word for each block, and one more │ rows  one word each
//
// It holds all rules of the table, and the index holds positions in the arena in the place of numbers of rows.
type Piece struct {
	table       *Table
	first, last int // blocks [first, last)
}

const ruleWords = int(unsafe.Sizeof(bpf.UnwindRule{})) / 4

// Pieces cuts the table into pieces of at most so many words. Blocks that do not fit, and blocks without rules at the ends of pieces, are in none.
func (t *Table) Pieces(most int) (pieces []Piece) {
	fixed := len(t.rules)*ruleWords + 1
	size := fixed
	p := Piece{table: t}
	end := func(block int) {
		for p.first < block && t.index[p.first] == t.index[p.first+1] {
			p.first++
		}
		p.last = block
		for p.first < p.last && t.index[p.last-1] == t.index[p.last] {
			p.last--
		}
		if p.first < p.last {
			pieces = append(pieces, p)
		}
	}
	for block := range max(1, len(t.index)) - 1 {
		words := 1 + int(t.index[block+1]-t.index[block])
		if size+words > most {
			end(block)
			p.first, size = block, fixed
		}
		if size+words > most {
			p.first = block + 1 // no piece is large enough
			continue
		}
		size += words
	}
	end(max(1, len(t.index)) - 1)
	return pieces
}

// Start is the file offset of the first code of the piece, End that behind the last.
func (p Piece) Start() objfile.FileOffset {
	return p.table.start + objfile.FileOffset(p.first)<<blockBits
}

// End is the file offset behind the last block.
func (p Piece) End() objfile.FileOffset {
	return p.table.start + objfile.FileOffset(p.last)<<blockBits
}

// Len is the number of words.
func (p Piece) Len() int {
	t := p.table
	return len(t.rules)*ruleWords + p.last - p.first + 1 + int(t.index[p.last]-t.index[p.first])
}

// Index is where the index lies in a piece that is at a position.
func (p Piece) Index(position uint32) uint32 {
	return position + uint32(len(p.table.rules)*ruleWords)
}

// Words gives the piece as it lies at a position.
func (p Piece) Words(position uint32) []uint32 {
	t := p.table
	words := make([]uint32, 0, p.Len())
	for _, r := range t.rules {
		words = appendRule(words, t.machine, r)
	}
	rows := p.Index(position) + uint32(p.last-p.first) + 1
	for _, row := range t.index[p.first : p.last+1] {
		words = append(words, rows+row-t.index[p.first])
	}
	return append(words, t.rows[t.index[p.first]:t.index[p.last]]...)
}

// framePointerRule holds wherever frame pointers are kept, but for the first and the last instructions of functions.
func framePointerRule(m objfile.Machine) Rule {
	return Rule{Kind: Step, CFABase: rolesOf(m).fp, Offset: 2 * word, ReturnAddress: fromCFA(-word), FP: fromCFA(-2 * word)}
}

// FramePointerRule is the rule for code of which nothing is known but that it keeps frame pointers: it may have changed all other registers.
func FramePointerRule(m objfile.Machine) Rule {
	r := framePointerRule(m)
	r.Base = Saved{Kind: InBase, Base: noRegister}
	return r
}

// FramePointerCode is the code of that rule, as far as codes go: the programs forget the other register by themselves.
func FramePointerCode(m objfile.Machine) uint32 {
	code, _ := codecOf(m).pack(framePointerRule(m)) // all architectures have a code for it
	return code
}

// CallersKeepFramePointer says that in the whole file the frame pointer leads from a function that called another to its caller. Go's
// functions do so too, but change from stack to stack on the way. Of a file of which some code is known by its
// instructions alone, nothing is said.
func (t *Table) CallersKeepFramePointer() bool {
	return t.stats.KeepsFramePointer && !t.goCode && !slices.Contains(t.stats.Sources, sourceInstructions)
}

// number says how the programs know a register of the machine.
func (r roles) number(reg Register) uint8 {
	switch {
	case reg == r.sp:
		return uint8(bpf.RuleSP)
	case reg == r.fp:
		return uint8(bpf.RuleFP)
	case reg == r.base:
		return uint8(bpf.RuleBase)
	}
	return uint8(bpf.RuleRegisters) // none that a walk knows
}

func appendRule(words []uint32, m objfile.Machine, r Rule) []uint32 {
	roles := rolesOf(m)
	saved := func(s Saved) bpf.UnwindSaved {
		return bpf.UnwindSaved{Kind: uint8(s.Kind), Base: roles.number(s.Base), Offset: s.Offset}
	}
	rule := bpf.UnwindRule{
		Kind: uint8(r.Kind), Cfa: uint8(r.CFA), CfaBase: roles.number(r.CFABase), Offset: r.Offset, Add: r.Add,
		Ra: saved(r.ReturnAddress), Fp: saved(r.FP), Base: saved(r.Base),
	}
	bytes, err := binary.Append(nil, binary.NativeEndian, rule)
	if err != nil {
		panic(err) // a struct of fixed size
	}
	for ; len(bytes) > 0; bytes = bytes[4:] {
		words = append(words, binary.NativeEndian.Uint32(bytes))
	}
	return words
}
