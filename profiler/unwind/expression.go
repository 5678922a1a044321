package unwind

import "github.com/pilotlight/pilotlight/symbolizer/callframe"

// Operations of DWARF expressions.
const (
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opAnd        = 0x1a
	opPlus       = 0x22
	opPlusUconst = 0x23
	opShl        = 0x24
	opGe         = 0x2a
	opLit0       = 0x30
	opLit31      = 0x4f
	opBreg0      = 0x70
	opBreg31     = 0x8f
)

// cfaExpressionOf understands the expressions that compilers and linkers write for canonical frame addresses:
//
//	breg off                                      register + off
//	breg off, deref [, plus_uconst add]           frames that realign the stack; signal frames; hand-written code
//	breg7 8, breg16 0, lit15, and, litN, ge, lit3, shl, plus       procedure linkage tables of x86-64, N is 10 or 11
func cfaExpressionOf(e callframe.Cursor, r roles) location {
	l, ok := breg(&e)
	if !ok {
		return location{kind: unsupported}
	}
	if e.Empty() {
		l.kind = sum
		return l
	}
	if l.reg == r.sp && pltTail(&e, r) {
		return l.plt(e)
	}
	if e.Uint8() != opDeref {
		return location{kind: unsupported}
	}
	l.kind = inMemory
	if !e.Empty() {
		if l.add, ok = addition(&e); !ok || !e.Empty() {
			return location{kind: unsupported}
		}
	}
	return l
}

// addressExpressionOf understands what is written for the places of saved registers: register + off. The expression finds
// the CFA on its stack, and may leave it there.
func addressExpressionOf(e callframe.Cursor) location {
	l, ok := breg(&e)
	if !ok || !e.Empty() {
		return location{kind: unsupported}
	}
	l.kind = inMemory
	return l
}

// breg reads a register and an offset.
func breg(c *callframe.Cursor) (location, bool) {
	op := c.Uint8()
	if op < opBreg0 || op > opBreg31 {
		return location{}, false
	}
	l := location{reg: Register(op - opBreg0), off: c.SLEB()}
	return l, !c.Failed
}

// addition reads the addition of a constant.
func addition(c *callframe.Cursor) (int64, bool) {
	var n int64
	switch op := c.Uint8(); {
	case op == opPlusUconst:
		n = int64(c.ULEB())
		return n, !c.Failed
	case op >= opLit0 && op <= opLit31:
		n = int64(op - opLit0)
	case op == opConst1u:
		n = int64(c.Uint8())
	case op == opConst1s:
		n = int64(int8(c.Uint8()))
	default:
		return 0, false
	}
	return n, c.Uint8() == opPlus && !c.Failed
}

// pltTail reports whether the rest is that of a procedure linkage table's expression. It reads nothing.
func pltTail(c *callframe.Cursor, r roles) bool {
	rest := c.Data[c.Pos:c.End]
	return len(rest) == 9 && rest[0] == opBreg0+byte(r.ra) && rest[1] == 0 && rest[2] == opLit0+15 && rest[3] == opAnd &&
		rest[4] >= opLit0 && rest[4] <= opLit31 && rest[5] == opGe && rest[6] == opLit0+3 && rest[7] == opShl && rest[8] == opPlus
}

// plt is the location of an expression whose tail is at the cursor.
func (l location) plt(e callframe.Cursor) location {
	l.kind, l.add = plt, int64(e.Data[e.Pos+4]-opLit0)
	return l
}
