package unwind

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// maxSearch bounds the code of a file that is searched for what its instructions tell. musl, of which nothing is told, has 0.4 MB.
const maxSearch = 4 << 20

// addUntold adds what is known by its instructions alone.
func (c *compiler) addUntold() error {
	c.sort()
	before := len(c.functions)
	if before == 0 {
		if err := c.addLeaves(); err != nil {
			return err
		}
	}
	if err := c.addLinkageTables(); err != nil {
		return err
	}
	c.sort()
	var calls []lastCall
	err := c.searchGaps(func(g gap, code []byte) {
		c.addTrampolines(g, code)
		calls = appendLastCalls(calls, c.file.Machine(), g, code)
	})
	if err != nil {
		return err
	}
	if err := c.addRoots(calls); err != nil {
		return err
	}
	c.sort()
	err = c.searchGaps(func(g gap, code []byte) { // of what is left
		c.addFramePointerCode(g, code)
		c.addInit(g, code)
		c.addCrtBegin(g, code)
	})
	if err != nil {
		return err
	}
	if len(c.functions) > before {
		c.stats.Sources = append(c.stats.Sources, sourceInstructions)
	}
	return nil
}

// addRule lets a rule hold for a stretch of code.
func (c *compiler) addRule(off objfile.FileOffset, length int, r Rule) {
	if len(c.rules) == 0 || c.rules[len(c.rules)-1] != r {
		c.rules = append(c.rules, r)
	}
	rule := uint32(len(c.rules) - 1)
	if n := len(c.functions); n > 0 {
		if last := &c.functions[n-1]; last.kind == ruled && last.from == rule && last.end() == off {
			last.length += uint32(length)
			return
		}
	}
	c.functions = append(c.functions, function{start: off, length: uint32(length), kind: ruled, from: rule})
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
	for _, e := range c.code {
		at, end := e.Off, e.Off+objfile.FileOffset(e.Size)
		add := func(until objfile.FileOffset) {
			if until > at {
				gaps = append(gaps, gap{at, e.Addr + objfile.Address(at-e.Off), uint64(until - at)})
			}
		}
		first, _ := slices.BinarySearchFunc(c.functions, at, func(f function, off objfile.FileOffset) int { return cmp.Compare(f.start, off) })
		if first > 0 {
			at = max(at, c.functions[first-1].end())
		}
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

// searchGaps calls look for each gap, or its beginning.
func (c *compiler) searchGaps(look func(g gap, code []byte)) error {
	budget := uint64(maxSearch)
	var code []byte
	for _, g := range c.gaps() {
		n := min(g.bytes, budget)
		budget -= n
		code = slices.Grow(code[:0], int(n))[:n]
		if ok, err := c.readCode(code, g.addr); err != nil {
			return err
		} else if ok {
			look(g, code)
		}
	}
	return nil
}

// readCode fills code with the bytes at an address. It is not ok where a damaged file does not have them.
func (c *compiler) readCode(code []byte, addr objfile.Address) (ok bool, err error) {
	_, err = c.file.ReadAtAddress(code, addr)
	switch {
	case errors.Is(err, objfile.ErrCorrupt), errors.Is(err, objfile.ErrNotMapped):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("code at %#x: %w", uint64(addr), err)
	}
	return true, nil
}

// symbols are those of the file, nil where it has none that can be read.
func (c *compiler) symbols() (*elfsym.Table, error) {
	symbols, err := elfsym.Build(c.file)
	if errors.Is(err, elfsym.ErrNone) || errors.Is(err, objfile.ErrCorrupt) {
		return nil, nil
	}
	return symbols, err
}

// Signal handlers return to a trampoline: two instructions, which call rt_sigreturn. On x86-64 each C library has its own; glibc's has call
// frame information, musl's has none. On arm64 it is in the vdso, which has none of any kind. Where nothing tells of it, it is known by its
// instructions, as libgcc knows it. (Go tells of its own, but takes its handler for the outermost function.)
const (
	x86Trampoline   = "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05" // mov $15,%rax; syscall
	arm64Trampoline = "\x68\x11\x80\xd2\x01\x00\x00\xd4"     // mov x8,#139; svc #0
)

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

func (c *compiler) addTrampolines(g gap, code []byte) {
	instructions := trampolineOf(c.file.Machine())
	for at := 0; ; at += len(instructions) {
		next := bytes.Index(code[at:], instructions)
		if next < 0 {
			return
		}
		at += next
		// The handler returns to the first instruction, and return addresses are looked up at the byte before them. glibc and the kernel
		// have a nop there; where nobody has, no return address but this is likely to lead there.
		off := g.off + objfile.FileOffset(at)
		before := min(off, 1)
		c.addRule(off-before, len(instructions)+int(before), trampolineRule(c.file.Machine()))
	}
}

// A lastCall is an indirect call whose value is passed on to another function. So musl calls main and what threads begin with, and of musl
// nothing is told:
//
//	x86-64   call *%rbx    or call *(%rbx)                                       arm64   blr x19
//	         mov %eax,%edi or mov %rax,%rdi or movslq %eax,%rdi                          bl exit
//	         call exit     or pthread_exit
type lastCall struct {
	last objfile.FileOffset // byte of the call
	next objfile.Address    // the other function
}

func appendLastCalls(calls []lastCall, m objfile.Machine, g gap, code []byte) []lastCall {
	le := binary.LittleEndian
	if m == objfile.EM_AARCH64 {
		for at := int(-g.addr & 3); at+8 <= len(code); at += 4 {
			blr, bl := le.Uint32(code[at:]), le.Uint32(code[at+4:])
			if blr&^(31<<5) == 0xd63f0000 && bl>>26 == 0b100101 {
				next := g.addr + objfile.Address(at+4) + objfile.Address(int32(bl<<6)>>4)
				calls = append(calls, lastCall{g.off + objfile.FileOffset(at+3), next})
			}
		}
		return calls
	}
	for _, move := range []string{"\x48\x89\xc7\xe8", "\x89\xc7\xe8", "\x48\x63\xf8\xe8"} { // up to the opcode of the direct call
		for at := 0; ; at += len(move) {
			next := bytes.Index(code[at:], []byte(move))
			if next < 0 {
				break
			}
			at += next
			operand := at + len(move)
			if at < 2 || operand+4 > len(code) || code[at-2] != 0xff {
				continue
			}
			if mod, op, rm := code[at-1]>>6, code[at-1]>>3&7, code[at-1]&7; op != 2 || mod != 3 && (mod != 0 || rm == 4 || rm == 5) {
				continue
			}
			end := g.addr + objfile.Address(operand+4)
			calls = append(calls, lastCall{g.off + objfile.FileOffset(at-1), end + objfile.Address(int32(le.Uint32(code[operand:])))})
		}
	}
	return calls
}

// addRoots adds the calls whose value goes to a function that never returns: whoever makes one was called by nobody that matters.
func (c *compiler) addRoots(calls []lastCall) error {
	if len(calls) == 0 {
		return nil
	}
	symbols, err := c.symbols()
	if symbols == nil {
		return err
	}
	ends := map[objfile.Address]bool{}
	for s := range symbols.All() {
		switch s.Name {
		case "exit", "pthread_exit", "__pthread_exit":
			ends[s.Start] = true
		}
	}
	for _, call := range calls {
		if ends[call.next] {
			c.addRule(call.last, 1, Rule{Kind: Outermost})
		}
	}
	return nil
}
