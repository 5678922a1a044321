package unwind

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// leafRule is that of arm64 code without a frame.
var leafRule = Rule{Kind: Step, CFABase: ARM64SP}

// maxLeafCode bounds the code that is read to find leaves. The vdso of arm64 has 3 KB.
const maxLeafCode = 64 << 10

// addLeaves adds the functions of the vdso of arm64, of which nothing tells: those that have no frame, which are all but one. Their return address is
// in x30 from the first instruction to the last, and the stack pointer is their caller's.
func (c *compiler) addLeaves() error {
	if c.file.Machine() != objfile.EM_AARCH64 || c.stats.Code > maxLeafCode {
		return nil
	}
	symbols, err := c.symbols()
	if symbols == nil {
		return err
	}
	var code []byte
	for s := range symbols.All() {
		off, room, ok := c.place(s.Start)
		if !ok || s.Size > room || s.Size%4 != 0 {
			continue
		}
		code = slices.Grow(code[:0], int(s.Size))[:s.Size]
		if ok, err := c.readCode(code, s.Start); err != nil {
			return err
		} else if ok && isLeaf(code) && !bytes.HasPrefix(code, trampolineOf(c.file.Machine())) {
			c.addRule(off, len(code), leafRule)
		}
	}
	return nil
}

// isLeaf reports whether no instruction of arm64 code changes the stack pointer or x30, as far as can be told with ease: whatever
// may do so is taken for one that does.
func isLeaf(code []byte) bool {
	for ; len(code) >= 4; code = code[4:] {
		i := binary.LittleEndian.Uint32(code)
		rd, rn := i&31, i>>5&31
		switch {
		case i>>26 == 0b100101: // bl
			return false
		case i>>26 == 0b000101, i>>24 == 0b01010100, i>>25&0x3f == 0b011010, i>>25&0x3f == 0b011011: // b, b.cond, cbz, tbz
		case i>>25 == 0b1101011: // br, blr, ret
			if i>>21&15 != 0b0000 && i>>21&15 != 0b0010 {
				return false
			}
		case rd == 30:
			return false
		case i>>27&1 == 1 && i>>25&1 == 0: // loads and stores: on the stack there is a frame
			if rn == 31 || i>>10&31 == 30 {
				return false
			}
		case rd == 31 && i>>26&7 == 0b100 && i>>29&3 != 0b01 && i>>29&3 != 0b11, // with a constant: not cmp, cmn, tst
			rd == 31 && i>>21&0xff == 0b01011001 && i>>29&1 == 0: // add, sub with an extended register
			return false
		}
	}
	return true
}
