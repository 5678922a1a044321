package unwind

import (
	"github.com/pilotlight/pilotlight/symbolizer/callframe"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Call frame instructions (DWARF 5, 6.4.2; the GNU and AArch64 ones in their ABIs). The upper two bits of the first three are
// the instruction, the others its operand.
const (
	cfaAdvanceLoc = 0x40
	cfaOffset     = 0x80
	cfaRestore    = 0xc0

	cfaNop                       = 0x00
	cfaSetLoc                    = 0x01
	cfaAdvanceLoc1               = 0x02
	cfaAdvanceLoc2               = 0x03
	cfaAdvanceLoc4               = 0x04
	cfaOffsetExtended            = 0x05
	cfaRestoreExtended           = 0x06
	cfaUndefined                 = 0x07
	cfaSameValue                 = 0x08
	cfaRegister                  = 0x09
	cfaRememberState             = 0x0a
	cfaRestoreState              = 0x0b
	cfaDefCFA                    = 0x0c
	cfaDefCFARegister            = 0x0d
	cfaDefCFAOffset              = 0x0e
	cfaDefCFAExpression          = 0x0f
	cfaExpression                = 0x10
	cfaOffsetExtendedSF          = 0x11
	cfaDefCFASF                  = 0x12
	cfaDefCFAOffsetSF            = 0x13
	cfaValOffset                 = 0x14
	cfaValOffsetSF               = 0x15
	cfaValExpression             = 0x16
	cfaNegateRAStateWithPC       = 0x2c
	cfaNegateRAState             = 0x2d // on SPARC: GNU_window_save
	cfaGNUArgsSize               = 0x2e
	cfaGNUNegativeOffsetExtended = 0x2f
)

// A location is where a register is saved, or a canonical frame address.
type location struct {
	kind locationKind
	reg  Register
	off  int64
	add  int64
}

type locationKind uint8

const (
	same        locationKind = iota // the register was not touched
	undefined                       // its value is lost; for the return address: there is none
	unsupported                     // a rule says it that ours cannot
	cfaRelative                     // in memory at CFA + off
	inMemory                        // register: in memory at reg + off; CFA: what the memory at reg + off holds, + add
	inRegister                      // in another register
	sum                             // of a CFA: reg + off
	plt                             // of a CFA: see CFAPLT
)

// A state is what one row says.
type state struct {
	cfa, ra, fp, base location
	// sp is that of the stack pointer, which is the CFA unless something else is said: at the end of longjmp it is in a register, and
	// the CFA is where the jump buffer lies. Rules know the CFA alone.
	sp location
}

// An interpreter runs the instructions of a CIE, or those of an FDE.
type interpreter struct {
	roles roles
	cie   *cie
	in    callframe.Cursor
	state state
	stack [maxRemembered]state
	depth int
}

// slot is the location of a register that rules speak of, nil for others.
func (m *interpreter) slot(reg uint64) *location {
	switch {
	case reg == m.cie.ReturnColumn:
		return &m.state.ra
	case reg == uint64(m.roles.fp):
		return &m.state.fp
	case reg == uint64(m.roles.sp):
		return &m.state.sp
	case reg == uint64(m.roles.base):
		return &m.state.base
	}
	return nil
}

func (m *interpreter) set(reg uint64, l location) {
	if slot := m.slot(reg); slot != nil {
		*slot = l
	}
}

// restore gives a register the location that the CIE says.
func (m *interpreter) restore(reg uint64) {
	slot := m.slot(reg)
	if slot == nil {
		return
	}
	now := m.state
	m.state = m.cie.initial
	initial := *slot // of the same name, in the initial state
	m.state = now
	*slot = initial
}

// run executes to the end of the instructions. It calls advance, which says whether to go on, where the code moves on by some bytes, or to
// an address. It returns false where an instruction is unknown or cut short: what it said before is right.
func (m *interpreter) run(advance func(bytes uint64, to objfile.Address) bool) bool {
	for !m.in.Empty() {
		op := m.in.Uint8()
		bytes, moves := uint64(0), true
		switch {
		case op >= cfaRestore:
			m.restore(uint64(op & 0x3f))
			moves = false
		case op >= cfaOffset:
			m.saved(uint64(op&0x3f), int64(m.in.ULEB())*m.cie.DataAlign)
			moves = false
		case op >= cfaAdvanceLoc:
			bytes = uint64(op & 0x3f)
		case op == cfaAdvanceLoc1:
			bytes = uint64(m.in.Uint8())
		case op == cfaAdvanceLoc2:
			bytes = uint64(m.in.Uint16())
		case op == cfaAdvanceLoc4:
			bytes = uint64(m.in.Uint32())
		case op == cfaSetLoc:
			to := m.in.Pointer(m.cie.Encoding)
			if m.in.Failed || advance == nil {
				return false
			}
			if !advance(0, to) {
				return true
			}
			moves = false
		default:
			if !m.execute(op) {
				return false
			}
			moves = false
		}
		if m.in.Failed || moves && advance == nil {
			return false
		}
		if moves && !advance(bytes*m.cie.CodeAlign, 0) {
			return true
		}
	}
	return !m.in.Failed
}

// execute runs an instruction that has an operation code of its own, and moves nothing.
func (m *interpreter) execute(op uint8) bool {
	in, cfa := &m.in, &m.state.cfa
	switch op {
	case cfaNop, cfaNegateRAState, cfaNegateRAStateWithPC: // signatures are stripped from every return address
	case cfaOffsetExtended:
		reg := in.ULEB()
		m.saved(reg, int64(in.ULEB())*m.cie.DataAlign)
	case cfaOffsetExtendedSF:
		reg := in.ULEB()
		m.saved(reg, in.SLEB()*m.cie.DataAlign)
	case cfaGNUNegativeOffsetExtended:
		reg := in.ULEB()
		m.saved(reg, -int64(in.ULEB())*m.cie.DataAlign)
	case cfaRestoreExtended:
		m.restore(in.ULEB())
	case cfaUndefined:
		m.set(in.ULEB(), location{kind: undefined})
	case cfaSameValue:
		m.set(in.ULEB(), location{kind: same})
	case cfaRegister:
		reg, other := in.ULEB(), in.ULEB()
		m.set(reg, location{kind: inRegister, reg: Register(min(other, noRegister))})
	case cfaValOffset:
		reg := in.ULEB()
		m.valueOf(reg, int64(in.ULEB()))
	case cfaValOffsetSF:
		reg := in.ULEB()
		m.valueOf(reg, in.SLEB())
	case cfaRememberState:
		if m.depth == len(m.stack) {
			return false
		}
		m.stack[m.depth] = m.state
		m.depth++
	case cfaRestoreState:
		if m.depth == 0 {
			return false
		}
		m.depth--
		m.state = m.stack[m.depth]
	case cfaDefCFA:
		m.defineCFA(in.ULEB(), int64(in.ULEB()))
	case cfaDefCFASF:
		m.defineCFA(in.ULEB(), in.SLEB()*m.cie.DataAlign)
	case cfaDefCFARegister:
		m.changeCFA(in.ULEB(), cfa.off)
	case cfaDefCFAOffset:
		m.changeCFA(uint64(cfa.reg), int64(in.ULEB()))
	case cfaDefCFAOffsetSF:
		m.changeCFA(uint64(cfa.reg), in.SLEB()*m.cie.DataAlign)
	case cfaDefCFAExpression:
		*cfa = cfaExpressionOf(m.operand(), m.roles)
	case cfaExpression:
		reg := in.ULEB()
		m.set(reg, addressExpressionOf(m.operand()))
	case cfaValExpression:
		reg := in.ULEB()
		m.operand()
		m.set(reg, location{kind: unsupported})
	case cfaGNUArgsSize:
		in.ULEB()
	default:
		return false
	}
	return true
}

// operand is a block of bytes: an expression.
func (m *interpreter) operand() callframe.Cursor {
	length := m.in.ULEB()
	from := m.in.Pos
	if m.in.Take(length) == nil {
		return callframe.Cursor{}
	}
	return m.in.Sub(from, m.in.Pos)
}

func (m *interpreter) saved(reg uint64, off int64) {
	m.set(reg, location{kind: cfaRelative, off: off})
}

// valueOf is what val_offset says: the register's value is CFA + off. Of the stack pointer, and 0, that is no news.
func (m *interpreter) valueOf(reg uint64, off int64) {
	l := location{kind: unsupported}
	if reg == uint64(m.roles.sp) && off == 0 {
		l.kind = same
	}
	m.set(reg, l)
}

// changeCFA changes a part of what defineCFA said. After an expression there is no such part.
func (m *interpreter) changeCFA(reg uint64, off int64) {
	if m.state.cfa.kind != sum {
		m.state.cfa = location{kind: unsupported}
		return
	}
	m.defineCFA(reg, off)
}

func (m *interpreter) defineCFA(reg uint64, off int64) {
	m.state.cfa = location{kind: sum, reg: Register(min(reg, noRegister)), off: off}
}

// rule puts a state into the words of rules; false where they do not suffice.
func (s *state) rule(r roles, cie *cie) (Rule, bool) {
	if s.ra.kind == undefined {
		return Rule{Kind: Outermost}, true
	}
	rule := Rule{Kind: Step, CFABase: s.cfa.reg, Offset: int32(s.cfa.off), Add: int32(s.cfa.add)}
	if cie.Signal {
		rule.Kind = SignalFrame
	}
	switch s.cfa.kind {
	case sum:
	case inMemory:
		rule.CFA = CFAMemory
	case plt:
		rule.CFA = CFAPLT
	default:
		return Rule{}, false
	}
	// A signal's frame restores the stack pointer from where the CFA is loaded, too.
	isCFA := s.sp.kind == same || s.sp.kind == inMemory && s.cfa.kind == inMemory && s.cfa.add == 0 && s.sp.reg == s.cfa.reg && s.sp.off == s.cfa.off
	ra := s.ra
	if ra.kind == same && cie.ReturnColumn != uint64(r.ra) { // a helper that is called with the address elsewhere
		ra = location{kind: inRegister, reg: Register(min(cie.ReturnColumn, noRegister))}
	}
	ok := isCFA && (ra.kind != same || r.linked)
	ok = ok && fits32(s.cfa.off) && fits32(s.cfa.add) &&
		ra.save(&rule.ReturnAddress) && s.fp.save(&rule.FP) && s.base.save(&rule.Base)
	return rule, ok
}

// save says where a register is saved. One whose value is lost is taken for unchanged: nobody asks for it.
func (l location) save(to *Saved) bool {
	switch l.kind {
	case same, undefined:
		*to = Saved{}
	case cfaRelative:
		*to = fromCFA(int32(l.off))
	case inMemory:
		*to = Saved{Kind: AtBase, Base: l.reg, Offset: int32(l.off)}
	case inRegister:
		*to = Saved{Kind: InBase, Base: l.reg}
	default:
		return false
	}
	return fits32(l.off)
}
