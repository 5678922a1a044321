package unwind

import (
	"encoding/binary"
	"strings"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
	"github.com/pilotlight/pilotlight/symbolizer/pclntab"
)

// Three functions of Go's runtime leave a goroutine's stack for the thread's own, each at one instruction:
//
//	systemstack   calls a function there and comes back; its frame on the goroutine's stack is found by the frame pointer
//	mcall         calls the scheduler, which goes on with another goroutine: the root of what is there
//	morestack     calls what makes the goroutine's stack larger, which goes on with it from what it has saved
//
// Until that instruction their frames are as any. The last two clear the frame pointer.

// maxSwitchCode bounds what is read of such a function. They have 200 bytes at most.
const maxSwitchCode = 512

// An arrival is what a frame of these functions is, once the stack is another.
type arrival uint8

const (
	byDepth        arrival = iota // not yet: as any function's
	outermost                     // nobody called it
	byFramePointer                // on the other stack only the frame pointer leads back
	toGoroutine                   // what the goroutine saved leads back
)

// arrivalOf says what becomes of the frame of a function that switches, and at how many bytes from its start: 0 where that is not known.
func (c *compiler) arrivalOf(s *pclntab.Stack) (arrival, uint32) {
	var then arrival
	switch strings.TrimSuffix(s.Name, ".abi0") {
	case "runtime.systemstack":
		then = byFramePointer
	case "runtime.mcall":
		then = outermost
	case "runtime.morestack":
		then = toGoroutine
	default:
		return byFramePointer, 0
	}
	_, room, _ := c.place(s.Entry)
	code := make([]byte, min(maxSwitchCode, room))
	if ok, err := c.readCode(code, s.Entry); !ok || err != nil {
		return byFramePointer, 0
	}
	if then == byFramePointer {
		c.goroutine = goroutineRule(c.file.Machine(), code)
	}
	at := stackSwitch(c.file.Machine(), code)
	if at == 0 {
		return byFramePointer, 0
	}
	return then, at
}

// stackSwitch finds the end of the first instruction that sets the stack pointer to what g0 has saved; 0: there is none.
//
//	x86-64   mov disp8(%reg),%rsp        arm64   mov sp, xN
func stackSwitch(m objfile.Machine, code []byte) uint32 {
	if m == objfile.EM_AARCH64 {
		for at := 0; at+4 <= len(code); at += 4 {
			if binary.LittleEndian.Uint32(code[at:])&^(31<<5) == 0x9100001f {
				return uint32(at + 4)
			}
		}
		return 0
	}
	for at := 0; at+4 <= len(code); at++ {
		if code[at]&^1 == 0x48 && code[at+1] == 0x8b && code[at+2]&0xf8 == 0x60 && code[at+2] != 0x64 {
			return uint32(at + 4)
		}
	}
	return 0
}

// goroutineRule reads out of systemstack where the runtime keeps things, which differs from release to release: so it comes back.
//
//	64 48 8b 04 25 D4       mov %fs:g,%rax
//	48 8b 58 D1             mov m(%rax),%rbx
//	48 8b 83 D4             mov curg(%rbx),%rax
//	64 48 89 04 25 D4       mov %rax,%fs:g
//	48 8b 60 D1             mov sp(%rax),%rsp
//	48 8b 68 D1             mov fp(%rax),%rbp
//
// It is a gap where the instructions are others: in code that does not depend on its address, before Go 1.21, and on arm64, where the g is in a
// register that the walk does not carry along.
func goroutineRule(m objfile.Machine, code []byte) Rule {
	if m != objfile.EM_X86_64 {
		return Rule{}
	}
	pattern := "\x64\x48\x8b\x04\x25....\x48\x8b\x58.\x48\x8b\x83....\x64\x48\x89\x04\x25....\x48\x8b\x60.\x48\x8b\x68."
	for at := 0; at+len(pattern) <= len(code); at++ {
		if !matches(code[at:], pattern) {
			continue
		}
		long := func(offset int) int32 { return int32(binary.LittleEndian.Uint32(code[at+offset:])) }
		short := func(offset int) int32 { return int32(int8(code[at+offset])) }
		sp := short(32)
		return Rule{
			Kind: Goroutine, CFABase: X86RSP, Offset: long(5), Add: short(12), Base: Saved{Offset: long(16)},
			ReturnAddress: Saved{Offset: sp}, FP: Saved{Offset: short(36) - sp},
		}
	}
	return Rule{}
}

// matches compares the beginning of code with a pattern, in which dots are any bytes.
func matches(code []byte, pattern string) bool {
	for i := range len(pattern) {
		if pattern[i] != '.' && code[i] != pattern[i] {
			return false
		}
	}
	return true
}
