package unwind

import (
	"bytes"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// What compilers add to every program and library (crti.o, crtbegin.o) runs at its start and at its end, and nothing tells of it. It is the
// first code of a library that is executed, so that short programs spend a part of their time there, on page faults.

// maxInit bounds the gap that .init or .fini may be: 27 bytes, and a few where a call was added by hand.
const maxInit = 64

// x86Inits are how the code of .init and .fini on x86-64 makes its frame, of one word, and how it leaves it. Before the first stands endbr64, or nothing.
var x86Inits = []struct{ enter, leave string }{
	{"\x48\x83\xec\x08", "\x48\x83\xc4\x08"}, // sub $8,%rsp; add $8,%rsp
	{"\x50", "\x58"},                         // push %rax; pop %rax, of musl
}

// Rules of x86-64 at the first instruction of a function, and after it has moved the stack pointer by a word or two.
var (
	unframed    = Rule{Kind: Step, CFABase: X86RSP, Offset: word, ReturnAddress: fromCFA(-word)}
	pushed      = Rule{Kind: Step, CFABase: X86RSP, Offset: 2 * word, ReturnAddress: fromCFA(-word)}
	pushedTwice = Rule{Kind: Step, CFABase: X86RSP, Offset: 3 * word, ReturnAddress: fromCFA(-word)}
)

// addInit adds the code of a gap if it is that of .init or .fini. Zeros align it, and what comes after it.
func (c *compiler) addInit(g gap, code []byte) {
	if c.file.Machine() != objfile.EM_X86_64 || len(code) > maxInit {
		return
	}
	trimmed := bytes.TrimLeft(code, "\x00")
	off := g.off + objfile.FileOffset(len(code)-len(trimmed))
	code = bytes.TrimRight(trimmed, "\x00")
	body := bytes.TrimPrefix(code, []byte("\xf3\x0f\x1e\xfa"))
	for _, init := range x86Inits {
		if bytes.HasPrefix(body, []byte(init.enter)) && bytes.HasSuffix(body, []byte(init.leave+"\xc3")) {
			entered, left := len(code)-len(body)+len(init.enter), len(code)-1
			c.addRule(off, entered, unframed)
			c.addRule(off+objfile.FileOffset(entered), left-entered, pushed)
			c.addRule(off+objfile.FileOffset(left), 1, unframed)
			return
		}
	}
}

const (
	// maxCrtBegin bounds the gap that crtbegin.o may be: it has 160 to 210 bytes.
	maxCrtBegin = 512
	// maxCrtEnd bounds what of it comes after the function that has a frame: 34 bytes, or 78 where that of static programs has another.
	maxCrtEnd = 40
)

// addCrtBegin adds the code of a gap if it is that of crtbegin.o. Its functions have no frame, but for one:
//
//	80 3d completed 00   cmpb $0,completed(%rip)
//	75 return            jne return
//	55                   push %rbp
//	...
//	5d                   pop %rbp
//	c3                   ret
func (c *compiler) addCrtBegin(g gap, code []byte) {
	if c.file.Machine() != objfile.EM_X86_64 || len(code) > maxCrtBegin {
		return
	}
	at := bytes.Index(code, []byte("\x80\x3d"))
	if at < 0 || at+10 > len(code) || code[at+6] != 0 || code[at+7] != 0x75 || code[at+9] != 0x55 {
		return
	}
	entered := at + 10
	leave := bytes.Index(code[entered:], []byte("\x5d\xc3"))
	if leave < 0 {
		return
	}
	left := entered + leave + 1
	rest := len(code) - left
	if rest > maxCrtEnd {
		const alignment = 16
		rest = alignment - int(g.addr+objfile.Address(left))%alignment
	}
	framed := pushed
	framed.FP = fromCFA(-2 * word)
	c.addRule(g.off, entered, unframed)
	c.addRule(g.off+objfile.FileOffset(entered), left-entered, framed)
	c.addRule(g.off+objfile.FileOffset(left), rest, unframed)
}
