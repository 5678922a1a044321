package unwind

import (
	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Registers are those of a thread, by their DWARF numbers. Some may not be known.
type Registers struct {
	values [33]uint64
	known  uint64 // bits
}

// Set gives a register its value.
func (r *Registers) Set(reg Register, value uint64) {
	if int(reg) < len(r.values) {
		r.values[reg] = value
		r.known |= 1 << reg
	}
}

// Get returns the value of a register, and whether it is known.
func (r *Registers) Get(reg Register) (uint64, bool) {
	if int(reg) >= len(r.values) || r.known&(1<<reg) == 0 {
		return 0, false
	}
	return r.values[reg], true
}

// Memory is that of the thread's process.
type Memory interface {
	// Word reads 8 bytes; false where there are none.
	Word(address uint64) (uint64, bool)
}

// Code is what a process has mapped.
type Code interface {
	// Rule returns the rule at an address; a reason where there is none.
	Rule(address uint64) (Rule, bpf.Reason)
}

// A Frame is one of a stack.
type Frame struct {
	// PC is where the frame's code goes on.
	PC uint64
	// Interrupted: the instruction at PC was not executed yet, and no call stands before it: the frame was interrupted, or is that of a signal's
	// trampoline, which nobody has called. Else names are looked up at PC-1.
	Interrupted bool
}

// LookupPC is an address inside of the instruction that the frame is at.
func (f Frame) LookupPC() uint64 {
	if f.Interrupted || f.PC == 0 {
		return f.PC
	}
	return f.PC - 1
}

// A Walker walks stacks of one process. It is the reference for the walk in BPF: simple, exact, and in no hurry. The zero value of PointerBits
// is right for x86-64.
type Walker struct {
	Code   Code
	Memory Memory
	// PointerBits is how many bits of an address are one on arm64, where the others of a return address may hold its signature; 0 is all.
	PointerBits uint
}

// Walk appends the frames of a stack to frames, innermost first, up to max of them, and says why it ended.
func (w *Walker) Walk(m objfile.Machine, r Registers, frames []Frame, max int) ([]Frame, bpf.Reason) {
	roles := rolesOf(m)
	pc := roles.ra
	if m == objfile.EM_AARCH64 {
		pc = ARM64PC
	}
	interrupted := true
	for first := true; ; first = false {
		at, ok := r.Get(pc)
		if !ok {
			return frames, bpf.ReasonUnknownRegister
		}
		if at == 0 && !first {
			return frames, bpf.ReasonNone // kernels and loaders leave a zero there
		}
		if len(frames) >= max {
			return frames, bpf.ReasonMaxDepth
		}
		f := Frame{PC: at, Interrupted: interrupted}
		frames = append(frames, f)
		rule, end := w.Code.Rule(f.LookupPC())
		if end != bpf.ReasonNone || rule.Kind == Outermost {
			return frames, end
		}
		signal := rule.Kind == SignalFrame
		frames[len(frames)-1].Interrupted = interrupted || signal
		if rule.Kind == Goroutine {
			return frames, bpf.ReasonStackUnreadable // a copy has none of the runtime's memory
		}
		if end := w.step(roles, pc, rule, &r, interrupted); end != bpf.ReasonNone {
			return frames, end
		}
		interrupted = signal
	}
}

// step makes the registers those of the caller; ReasonNone is no end.
func (w *Walker) step(roles roles, pc Register, rule Rule, r *Registers, interrupted bool) bpf.Reason {
	cfa, end := w.cfa(rule, r, pc)
	if end != bpf.ReasonNone {
		return end
	}
	sp, ok := r.Get(roles.sp)
	if !ok {
		return bpf.ReasonUnknownRegister
	}
	// A function that has no frame yet may have its caller's. Signals have stacks of their own.
	if rule.Kind == Step && (cfa < sp || cfa == sp && !interrupted) {
		return bpf.ReasonNotAdvancing
	}
	var caller Registers
	for _, saved := range []struct {
		to, from Register
		at       Saved
	}{{pc, roles.ra, rule.ReturnAddress}, {roles.fp, roles.fp, rule.FP}, {roles.base, roles.base, rule.Base}} {
		if saved.to == roles.base && roles.linked && rule.Kind != SignalFrame {
			continue // the call has changed it
		}
		value, known := r.Get(saved.from)
		switch saved.at.Kind {
		case InBase:
			value, known = r.Get(saved.at.Base)
		case AtCFA, AtBase:
			at := cfa
			if saved.at.Kind == AtBase {
				if at, ok = r.Get(saved.at.Base); !ok {
					return bpf.ReasonUnknownRegister
				}
			}
			if value, known = w.Memory.Word(at + uint64(int64(saved.at.Offset))); !known {
				return bpf.ReasonStackUnreadable
			}
		}
		if known {
			caller.Set(saved.to, value)
		}
	}
	ra, ok := caller.Get(pc)
	if !ok {
		return bpf.ReasonUnknownRegister
	}
	if w.PointerBits > 0 {
		caller.Set(pc, ra&(1<<w.PointerBits-1))
	}
	caller.Set(roles.sp, cfa)
	*r = caller
	return bpf.ReasonNone
}

func (w *Walker) cfa(rule Rule, r *Registers, pc Register) (uint64, bpf.Reason) {
	base, ok := r.Get(rule.CFABase)
	if !ok {
		return 0, bpf.ReasonUnknownRegister
	}
	at := base + uint64(int64(rule.Offset))
	switch rule.CFA {
	case CFAMemory:
		value, ok := w.Memory.Word(at)
		if !ok {
			return 0, bpf.ReasonStackUnreadable
		}
		return value + uint64(int64(rule.Add)), bpf.ReasonNone
	case CFAPLT:
		if address, _ := r.Get(pc); address&15 >= uint64(rule.Add) {
			at += word
		}
	}
	return at, bpf.ReasonNone
}
