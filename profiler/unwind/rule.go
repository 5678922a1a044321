package unwind

import (
	"fmt"
	"math"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A Register is a DWARF register number.
type Register uint8

// The registers that rules speak of.
const (
	X86RBX Register = 3
	X86RBP Register = 6
	X86RSP Register = 7
	X86RIP Register = 16

	ARM64FP Register = 29
	ARM64LR Register = 30
	ARM64SP Register = 31
	ARM64PC Register = 32

	// noRegister stands for those that no walk knows the value of.
	noRegister = 0xff
)

// roles are what an architecture's registers are for.
type roles struct {
	sp, fp, ra Register
	// base is one more that rules speak of. On x86-64 some code keeps its frame's address in it, in place of fp. On arm64 it is ra, whose value
	// is known in frames that were interrupted alone: any call changes it.
	base   Register
	linked bool // a call leaves the return address in ra, not on the stack
}

func rolesOf(m objfile.Machine) roles {
	if m == objfile.EM_AARCH64 {
		return roles{sp: ARM64SP, fp: ARM64FP, ra: ARM64LR, base: ARM64LR, linked: true}
	}
	return roles{sp: X86RSP, fp: X86RBP, ra: X86RIP, base: X86RBX}
}

// A Kind says what a Rule is.
type Kind uint8

// The kinds of rules.
const (
	// Gap: nothing is known here.
	Gap Kind = iota
	// Outermost: the frame was called by nobody.
	Outermost
	// Step leads to the caller.
	Step
	// SignalFrame is a Step to where a signal interrupted the program: that address is no return address, and the instruction
	// at it is still to be executed.
	SignalFrame
	// StackSwitch is a Step to a caller whose frame is on another stack.
	StackSwitch
	// Goroutine leads from a stack of Go's runtime to the goroutine that the thread runs, where it has saved its registers. The thread keeps its g at
	// Offset from the thread pointer, which has its m at Add, which has the current g at Base.Offset; and that has sp at
	// ReturnAddress.Offset, pc behind it, and fp FP.Offset after sp.
	Goroutine
)

// A CFAKind says how the canonical frame address is found.
type CFAKind uint8

// The kinds of canonical frame addresses.
const (
	// CFARegister: register + Offset.
	CFARegister CFAKind = iota
	// CFAMemory: what the memory at register + Offset holds, plus Add. Code that realigns its stack and
	// signal frames need it.
	CFAMemory
	// CFAPLT: register + Offset, and 8 more from byte Add of each 16 bytes of code on: the entries of a procedure linkage table,
	// which push one word on the way.
	CFAPLT
)

// A SavedKind says where the value is that a register has in the caller.
type SavedKind uint8

// The places of values.
const (
	// Unchanged: in the register itself.
	Unchanged SavedKind = iota
	// AtCFA: in memory at CFA + Offset.
	AtCFA
	// AtBase: in memory at Base + Offset, with the value that Base has in this frame.
	AtBase
	// InBase: in the register Base.
	InBase
)

// A Saved is the place of the value that a register has in the caller.
type Saved struct {
	Kind   SavedKind
	Base   Register
	Offset int32
}

// A Rule says how to step from a frame to its caller. The stack pointer of the caller is the CFA.
type Rule struct {
	Kind    Kind
	CFA     CFAKind
	CFABase Register
	Offset  int32
	Add     int32
	// ReturnAddress, FP (rbp, x29) and Base (rbx; on arm64 x30, which a SignalFrame alone gives back).
	ReturnAddress, FP, Base Saved
}

// Codes of rules; see the package's doc.
const (
	codeBits = 20
	kindBits = 3
	kindPos  = codeBits - kindBits

	kindNone  = 0
	kindTable = 7

	codeGap       = kindNone << kindPos
	codeOutermost = codeGap | 1
)

// word is the unit of codes, in bytes.
const word = 8

// fromCFA is a register saved at an offset from the CFA.
func fromCFA(offset int32) Saved { return Saved{Kind: AtCFA, Offset: offset} }

// A codec packs the rules of one architecture into codes, and unpacks them. Rules that do not fit have no code.
type codec interface {
	pack(r Rule) (code uint32, ok bool)
	unpack(code uint32) Rule
}

func codecOf(m objfile.Machine) codec {
	if m == objfile.EM_AARCH64 {
		return arm64Codec{}
	}
	return x86Codec{}
}

// words gives a number of bytes as words, if it fits the bits.
func words(bytes int64, bits uint) (uint32, bool) {
	if bytes < 0 || bytes%word != 0 || bytes/word >= 1<<bits {
		return 0, false
	}
	return uint32(bytes / word), true
}

// fits32 reports whether an offset can stand in a rule.
func fits32(offset int64) bool { return offset >= math.MinInt32 && offset <= math.MaxInt32 }

type x86Codec struct{}

// Kinds of x86-64 codes: what the CFA counts from, and which registers are saved.
const (
	x86SP       = 1 // rbp, or neither
	x86FP       = 2 // rbp, or neither
	x86SPBoth   = 3 // rbp, and rbx after it
	x86FPBoth   = 4 // rbp at CFA-16 as always in such frames, and rbx
	x86SPBase   = 5 // rbx alone
	x86SPFirst  = 6 // rbp at CFA-16, as clang pushes it first, and rbx
	x86SaveBits = 5 // of b
	x86CFABits  = 12
)

func (x86Codec) pack(r Rule) (uint32, bool) {
	if r.Kind != Step || r.CFA != CFARegister || r.ReturnAddress != fromCFA(-word) {
		return 0, false
	}
	a, ok := words(int64(r.Offset), x86CFABits)
	if !ok {
		return 0, false
	}
	var kind uint32
	saved := r.FP
	switch onFP := r.CFABase == X86RBP; {
	case !onFP && r.CFABase != X86RSP:
		return 0, false
	case r.Base.Kind == Unchanged && onFP:
		kind = x86FP
	case r.Base.Kind == Unchanged:
		kind = x86SP
	case onFP && r.FP == fromCFA(-2*word):
		kind, saved = x86FPBoth, r.Base
	case !onFP && r.FP.Kind == Unchanged:
		kind, saved = x86SPBase, r.Base
	case !onFP && r.FP.Kind == AtCFA && r.Base == fromCFA(r.FP.Offset-word):
		kind = x86SPBoth
	case !onFP && r.FP == fromCFA(-2*word):
		kind, saved = x86SPFirst, r.Base
	default:
		return 0, false
	}
	var b uint32 // 0: not saved
	if saved.Kind != Unchanged {
		if b, ok = words(-int64(saved.Offset), x86SaveBits); !ok || b == 0 || saved.Kind != AtCFA {
			return 0, false
		}
	}
	return kind<<kindPos | a<<x86SaveBits | b, true
}

func (x86Codec) unpack(code uint32) Rule {
	r := Rule{Kind: Step, CFABase: X86RSP, ReturnAddress: fromCFA(-word)}
	r.Offset = int32(code>>x86SaveBits&(1<<x86CFABits-1)) * word
	var saved Saved
	if b := code & (1<<x86SaveBits - 1); b != 0 {
		saved = fromCFA(-int32(b) * word)
	}
	switch code >> kindPos {
	case x86SP:
		r.FP = saved
	case x86FP:
		r.CFABase, r.FP = X86RBP, saved
	case x86SPBoth:
		r.FP, r.Base = saved, fromCFA(saved.Offset-word)
	case x86FPBoth:
		r.CFABase, r.FP, r.Base = X86RBP, fromCFA(-2*word), saved
	case x86SPBase:
		r.Base = saved
	case x86SPFirst:
		r.FP, r.Base = fromCFA(-2*word), saved
	}
	return r
}

type arm64Codec struct{}

// Kinds of arm64 codes.
const (
	arm64Leaf = 1
	arm64SP   = 2
	arm64FP   = 3

	arm64LeafBits = 17
	arm64Bits     = 11 // of a
	arm64PairBits = 6  // of d
)

func (arm64Codec) pack(r Rule) (uint32, bool) {
	if r.Kind != Step || r.CFA != CFARegister || r.Base.Kind != Unchanged {
		return 0, false
	}
	if r.ReturnAddress.Kind == Unchanged && r.FP.Kind == Unchanged && r.CFABase == ARM64SP {
		a, ok := words(int64(r.Offset), arm64LeafBits)
		return arm64Leaf<<kindPos | a, ok
	}
	kind := uint32(arm64SP)
	switch r.CFABase {
	case ARM64SP:
	case ARM64FP:
		kind = arm64FP
	default:
		return 0, false
	}
	a, ok := words(int64(r.Offset), arm64Bits)
	if !ok || r.FP.Kind != AtCFA || r.FP.Offset%word != 0 || r.ReturnAddress != fromCFA(r.FP.Offset+word) {
		return 0, false
	}
	d := -int64(r.FP.Offset)/word - int64(a)
	if d < -1<<(arm64PairBits-1) || d >= 1<<(arm64PairBits-1) {
		return 0, false
	}
	return kind<<kindPos | a<<arm64PairBits | uint32(d)&(1<<arm64PairBits-1), true
}

func (arm64Codec) unpack(code uint32) Rule {
	r := Rule{Kind: Step, CFABase: ARM64SP}
	kind := code >> kindPos
	if kind == arm64Leaf {
		r.Offset = int32(code&(1<<arm64LeafBits-1)) * word
		return r
	}
	if kind == arm64FP {
		r.CFABase = ARM64FP
	}
	a := int32(code >> arm64PairBits & (1<<arm64Bits - 1))
	d := int32(code<<(32-arm64PairBits)) >> (32 - arm64PairBits)
	r.Offset = a * word
	r.FP = fromCFA(-(a + d) * word)
	r.ReturnAddress = fromCFA(r.FP.Offset + word)
	return r
}

func (r Rule) String() string {
	switch r.Kind {
	case Gap:
		return "gap"
	case Outermost:
		return "outermost"
	}
	text := fmt.Sprintf("cfa=r%d%+d", r.CFABase, r.Offset)
	switch r.CFA {
	case CFAMemory:
		text = fmt.Sprintf("cfa=[r%d%+d]%+d", r.CFABase, r.Offset, r.Add)
	case CFAPLT:
		text += fmt.Sprintf(" (+8 from byte %d of 16)", r.Add)
	}
	for _, s := range []struct {
		name  string
		saved Saved
	}{{"ra", r.ReturnAddress}, {"fp", r.FP}, {"base", r.Base}} {
		if s.saved.Kind != Unchanged {
			text += fmt.Sprintf(" %s=%v", s.name, s.saved)
		}
	}
	switch r.Kind {
	case SignalFrame:
		text += " signal"
	case StackSwitch:
		text += " switch"
	case Goroutine:
		return fmt.Sprintf("goroutine g=[tp%+d] m=[g%+d] g=[m%+d] sp=[g%+d] fp=[sp%+d]", r.Offset, r.Add, r.Base.Offset, r.ReturnAddress.Offset, r.FP.Offset)
	}
	return text
}

func (s Saved) String() string {
	switch {
	case s.Kind == AtCFA:
		return fmt.Sprintf("[cfa%+d]", s.Offset)
	case s.Kind == InBase:
		return fmt.Sprintf("r%d", s.Base)
	}
	return fmt.Sprintf("[r%d%+d]", s.Base, s.Offset)
}
