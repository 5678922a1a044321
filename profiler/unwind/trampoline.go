package unwind

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Signal handlers return to a trampoline: two instructions, which call rt_sigreturn. On x86-64 each C library has its own; glibc's has call
// frame information, musl's has none. On arm64 it is in the vdso, which has none of any kind. Where nothing tells of it, it is known by its
// instructions, as libgcc knows it. (Go tells of its own, but takes its handler for the outermost function.)
const (
	x86Trampoline   = "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05" // mov $15,%rax; syscall
	arm64Trampoline = "\x68\x11\x80\xd2\x01\x00\x00\xd4"     // mov x8,#139; svc #0
)

// maxSearch bounds the code of a file that is searched. musl, of which nothing is known, has 0.4 MB.
const maxSearch = 4 << 20

func trampolineOf(m objfile.Machine) []byte {
	if m == objfile.EM_AARCH64 {
		return []byte(arm64Trampoline)
	}
	return []byte(x86Trampoline)
}

// trampolineRule finds the interrupted registers where the kernel has put them, counted from the stack pointer as the handler leaves it:
//
//	x86-64   struct ucontext       rbp 120, rbx 128, rsp 160, rip 168
//	arm64    struct rt_sigframe    x29 544, x30 552, sp 560, pc 568
//
// x30 holds the return address of a function that has not saved it.
func trampolineRule(m objfile.Machine) Rule {
	sp := rolesOf(m).sp
	at := func(offset int32) Saved { return Saved{Kind: AtBase, Base: sp, Offset: offset} }
	r := Rule{Kind: SignalFrame, CFA: CFAMemory, CFABase: sp}
	if m == objfile.EM_AARCH64 {
		r.FP, r.Base, r.Offset, r.ReturnAddress = at(544), at(552), 560, at(568)
	} else {
		r.FP, r.Base, r.Offset, r.ReturnAddress = at(120), at(128), 160, at(168)
	}
	return r
}

// addTrampolines searches the code that no function has.
func (c *compiler) addTrampolines() error {
	instructions := trampolineOf(c.file.Machine())
	size := uint64(len(instructions))
	budget := uint64(maxSearch)
	var buffer []byte
	var found []function
	for _, g := range c.gaps() {
		searched := min(g.bytes, budget)
		if searched < size {
			continue
		}
		budget -= searched
		buffer = slices.Grow(buffer[:0], int(searched))[:searched]
		_, err := c.file.ReadAtAddress(buffer, g.addr)
		if errors.Is(err, objfile.ErrCorrupt) || errors.Is(err, objfile.ErrNotMapped) {
			continue
		} else if err != nil {
			return fmt.Errorf("code at %#x: %w", uint64(g.addr), err)
		}
		for at := 0; ; at += len(instructions) {
			next := bytes.Index(buffer[at:], instructions)
			if next < 0 {
				break
			}
			at += next
			// The handler returns to the first instruction, and return addresses are looked up at the byte before them. glibc and the kernel
			// have a nop there; where nobody has, no return address but this is likely to lead there.
			off := g.off + objfile.FileOffset(at)
			found = append(found, function{start: off - min(off, 1), length: 1, kind: trampoline}, function{start: off, length: uint32(size), kind: trampoline})
		}
	}
	if len(found) > 0 {
		c.functions = append(c.functions, found...)
		c.stats.Sources = append(c.stats.Sources, "instructions")
	}
	return nil
}

// A gap is code that no function has.
type gap struct {
	off   objfile.FileOffset
	addr  objfile.Address
	bytes uint64
}

// gaps are those between the functions, which are sorted; what aligns the next function is none.
func (c *compiler) gaps() []gap {
	var gaps []gap
	for _, s := range c.code {
		at, end := s.Off, s.Off+objfile.FileOffset(s.FileSize)
		add := func(until objfile.FileOffset) {
			if until > at {
				gaps = append(gaps, gap{at, s.Addr + objfile.Address(at-s.Off), uint64(until - at)})
			}
		}
		first, _ := slices.BinarySearchFunc(c.functions, at, func(f function, off objfile.FileOffset) int { return cmp.Compare(f.start, off) })
		for i := first; i < len(c.functions) && c.functions[i].start < end; i++ {
			f := &c.functions[i]
			if i == first || !isPadding(&c.functions[i-1], f) {
				add(f.start)
			}
			at = max(at, f.end())
		}
		add(end)
	}
	return gaps
}
