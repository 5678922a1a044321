package unwind

import (
	"bytes"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Of code with frame pointers, of which nothing is told, there is much in one place: V8's builtins, which its own compiler makes and which lie in the text of
// Node.js and Chromium, are 1.6 MB. It has a prologue each 900 bytes on average. What has no frame pointers, such as musl, has one
// each 100 KB, and the tables of numbers that cryptography keeps in the text have none.
const (
	minFramePointerCode  = 64 << 10
	bytesForEachPrologue = 4 << 10
)

// How frame pointers come and go on x86-64, up to the instruction that needs another rule. V8's compiler and gcc encode moves differently.
var (
	x86Prologues = []string{"\x55\x48\x89\xe5", "\x55\x48\x8b\xec"} // push %rbp; mov %rsp,%rbp
	x86Epilogues = []string{                                        // up to the instruction after pop %rbp
		"\x48\x8b\xe5\x5d", "\x48\x89\xec\x5d", // mov %rbp,%rsp; pop %rbp; often followed by a jump
		"\xc9\xc3", "\xc9\xc2", "\x5d\xc3", "\x5d\xc2", // leave or pop %rbp; ret
	}
)

// addFramePointerCode adds the code of a gap if it has frame pointers. Where a function has none, as V8's builtins on their short ways, a walk
// misses its caller and goes on: these call nobody.
//
//	push %rbp         CFA = rsp+8                     pop %rbp
//	mov %rsp,%rbp     CFA = rsp+16, rbp at CFA-16     ret           CFA = rsp+8
//	...               CFA = rbp+16, rbp at CFA-16
//
// Only x86-64 is known: on arm64 a frame pointer does not tell the stack pointer of the caller, which what is told of it may need.
func (c *compiler) addFramePointerCode(g gap, code []byte) {
	if c.file.Machine() != objfile.EM_X86_64 || len(code) < minFramePointerCode {
		return
	}
	prologues := places(code, x86Prologues)
	if len(prologues) < len(code)/bytesForEachPrologue {
		return
	}
	const pushBytes = 1
	type stretch struct {
		at, length int
		rule       Rule
	}
	saved := pushed
	saved.FP = fromCFA(-2 * word)
	var special []stretch
	for at, prologue := range prologues {
		special = append(special, stretch{at, pushBytes, unframed}, stretch{at + pushBytes, len(prologue) - pushBytes, saved})
	}
	for at, epilogue := range places(code, x86Epilogues) {
		after := at + len(epilogue)
		if last := epilogue[len(epilogue)-1]; last == 0xc3 || last == 0xc2 {
			after--
		}
		special = append(special, stretch{after, 1, unframed})
	}
	slices.SortFunc(special, func(a, b stretch) int { return a.at - b.at })
	done := 0
	framed := FramePointerRule(c.file.Machine())
	for _, s := range special {
		if s.at < done || s.at >= len(code) {
			continue // "mov %rbp,%rsp; pop %rbp; ret" is two epilogues
		}
		if s.at > done {
			c.addRule(g.off+objfile.FileOffset(done), s.at-done, framed)
		}
		c.addRule(g.off+objfile.FileOffset(s.at), s.length, s.rule)
		done = s.at + s.length
	}
	c.addRule(g.off+objfile.FileOffset(done), len(code)-done, framed)
}

// places are where one of some sequences of instructions begins, and which.
func places(code []byte, sequences []string) map[int]string {
	found := make(map[int]string)
	for _, sequence := range sequences {
		for at := 0; ; at++ {
			next := bytes.Index(code[at:], []byte(sequence))
			if next < 0 {
				break
			}
			at += next
			found[at] = sequence
		}
	}
	return found
}
