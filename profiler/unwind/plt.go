package unwind

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// maxLinkageTable bounds what is read of a procedure linkage table: 65,536 entries.
const maxLinkageTable = 1 << 20

// addLinkageTables adds the procedure linkage tables of which nothing is told: GNU ld tells of those of shared programs of x86-64, and other
// linkers of none.
func (c *compiler) addLinkageTables() error {
	for _, name := range []string{".plt", ".plt.sec", ".plt.got", ".iplt"} {
		s, ok := c.file.Section(name)
		if !ok || s.Size > maxLinkageTable {
			continue
		}
		off, room, ok := c.place(s.Addr)
		if !ok || s.Size > room || c.covers(off) {
			continue
		}
		code := make([]byte, s.Size)
		if ok, err := c.readCode(code, s.Addr); err != nil {
			return err
		} else if !ok {
			continue
		}
		if c.file.Machine() == objfile.EM_AARCH64 {
			c.addARM64LinkageTable(off, code)
		} else {
			c.addX86LinkageTable(off, code)
		}
	}
	return nil
}

// covers reports whether a function, of those that are sorted, has the code at an offset.
func (c *compiler) covers(off objfile.FileOffset) bool {
	next, found := slices.BinarySearchFunc(c.functions, off, func(f function, off objfile.FileOffset) int { return cmp.Compare(f.start, off) })
	return found || next > 0 && c.functions[next-1].end() > off
}

// addX86LinkageTable reads entries of these kinds, of 8 or 16 bytes, and before them a header, which is entered with the index pushed:
//
//	ff 25 slot   jmp *slot(%rip)     68 index     push $index     ff 35 slot   push slot(%rip)
//	68 index     push $index         e9 header    jmp header      ff 25 slot   jmp *slot(%rip)
//	e9 header    jmp header
//
// endbr64 may stand before them, and prefixes before the jumps. Of the first kind the second and third instructions may be missing.
func (c *compiler) addX86LinkageTable(off objfile.FileOffset, code []byte) {
	const entryBytes = 8
	for at := 0; at < len(code); {
		rest := code[at:]
		n := 0 // bytes of the entry
		take := func(opcode string, operandBytes int) bool {
			if !bytes.HasPrefix(rest[n:], []byte(opcode)) || len(rest)-n < len(opcode)+operandBytes {
				return false
			}
			n += len(opcode) + operandBytes
			return true
		}
		jump := func() bool { return take("\xff\x25", 4) || take("\xf2\xff\x25", 4) }
		push := func() bool { return take("\x68", 4) }
		toHeader := func() bool { return take("\xe9", 4) || take("\xf2\xe9", 4) }
		if at == 0 && take("\xff\x35", 4) {
			after := n
			if jump() {
				c.addRule(off, after, pushed)
				c.addRule(off+objfile.FileOffset(after), n-after, pushedTwice)
			}
			at += 2 * entryBytes
			continue
		}
		take("\xf3\x0f\x1e\xfa", 0)
		if jumped := jump(); push() || jumped {
			begin, after := off+objfile.FileOffset(at), n
			c.addRule(begin, after, unframed)
			if toHeader() {
				c.addRule(begin+objfile.FileOffset(after), n-after, pushed)
			}
		}
		at += (max(n, 1) + entryBytes - 1) &^ (entryBytes - 1)
	}
}

// addARM64LinkageTable adds entries, which have no frame, and the header before them, which pushes x16 and x30:
//
//	header   stp x16, x30, [sp, #-16]!    entry   adrp x16, page
//	         adrp x16, page                       ldr x17, [x16, #slot]
//	         ldr x17, [x16, #slot]                add x16, x16, #slot
//	         add x16, x16, #slot                  br x17
//	         br x17
func (c *compiler) addARM64LinkageTable(off objfile.FileOffset, code []byte) {
	const headerBytes = 32
	const btiC, stp = 0xd503245f, 0xa9bf7bf0
	if len(code) >= headerBytes {
		n := 0
		if binary.LittleEndian.Uint32(code) == btiC {
			n = 4
		}
		if binary.LittleEndian.Uint32(code[n:]) == stp {
			n += 4
			c.addRule(off, n, leafRule)
			c.addRule(off+objfile.FileOffset(n), headerBytes-n, Rule{Kind: Step, CFABase: ARM64SP, Offset: 16, ReturnAddress: fromCFA(-8)})
			off, code = off+headerBytes, code[headerBytes:]
		}
	}
	if isLeaf(code) {
		c.addRule(off, len(code), leafRule)
	}
}
