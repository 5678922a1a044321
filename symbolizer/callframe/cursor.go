package callframe

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A Cursor reads a section, or a part of it. Once it has read beyond its end it stays failed, and all that it reads is 0.
type Cursor struct {
	Data   []byte          // of the section
	Addr   objfile.Address // of Data
	Pos    int             // in Data, of what is read next
	End    int             // in Data
	Failed bool
}

// NewCursor reads all of data, which lies at an address.
func NewCursor(data []byte, addr objfile.Address) Cursor {
	return Cursor{Data: data, Addr: addr, End: len(data)}
}

// Sub is a cursor of [from, to), which lies in the section.
func (c *Cursor) Sub(from, to int) Cursor {
	return Cursor{Data: c.Data, Addr: c.Addr, Pos: from, End: to}
}

// Empty reports whether nothing is left to read.
func (c *Cursor) Empty() bool { return c.Failed || c.Pos >= c.End }

// Take returns the next n bytes.
func (c *Cursor) Take(n uint64) []byte {
	if c.Failed || n > uint64(c.End-c.Pos) {
		c.Failed = true
		return nil
	}
	b := c.Data[c.Pos : c.Pos+int(n)]
	c.Pos += int(n)
	return b
}

// Uint8 reads a byte.
func (c *Cursor) Uint8() uint8 {
	if c.Failed || c.Pos >= c.End {
		c.Failed = true
		return 0
	}
	c.Pos++
	return c.Data[c.Pos-1]
}

// Uint16 reads two bytes, as the next ones the lower first.
func (c *Cursor) Uint16() uint16 {
	if b := c.Take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads four bytes.
func (c *Cursor) Uint32() uint32 {
	if b := c.Take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads eight bytes.
func (c *Cursor) Uint64() uint64 {
	if b := c.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// ULEB reads an unsigned LEB128. Bits beyond 64 are dropped, as other readers do.
func (c *Cursor) ULEB() uint64 {
	v, _, _ := c.leb()
	return v
}

// SLEB reads a signed LEB128.
func (c *Cursor) SLEB() int64 {
	v, shift, negative := c.leb()
	if negative && shift < 64 {
		v |= ^uint64(0) << shift
	}
	return int64(v)
}

func (c *Cursor) leb() (v uint64, shift uint, negative bool) {
	for {
		b := c.Uint8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		shift += 7
		if b < 0x80 {
			return v, shift, b&0x40 != 0
		}
	}
}

// CString reads to a NUL.
func (c *Cursor) CString() string {
	start := c.Pos
	for c.Uint8() != 0 {
	}
	if c.Failed {
		return ""
	}
	return string(c.Data[start : c.Pos-1])
}

// Pointer encodings, of the Linux Standard Base (DW_EH_PE_*).
const (
	peAbsolute = 0x00
	peULEB     = 0x01
	peUData2   = 0x02
	peUData4   = 0x03
	peUData8   = 0x04
	peSLEB     = 0x09
	peSData2   = 0x0a
	peSData4   = 0x0b
	peSData8   = 0x0c
	peFormat   = 0x0f

	pePCRelative   = 0x10
	peDataRelative = 0x30
	peAligned      = 0x50
	peApplication  = 0x70
	peIndirect     = 0x80
)

// Pointer reads an encoded pointer. Relations to other things than the pointer's own address, and indirections, are not used for
// code: they fail.
func (c *Cursor) Pointer(encoding uint8) objfile.Address {
	at := c.Addr + objfile.Address(c.Pos)
	v := c.Value(encoding)
	switch {
	case encoding&peIndirect != 0:
		c.Failed = true
	case encoding&peApplication == pePCRelative:
		v += uint64(at)
	case encoding&peApplication != 0:
		c.Failed = true
	}
	return objfile.Address(v)
}

// Value reads what stands for a pointer, without its relation.
func (c *Cursor) Value(encoding uint8) uint64 {
	switch encoding & peFormat {
	case peAbsolute, peUData8, peSData8:
		return c.Uint64()
	case peULEB:
		return c.ULEB()
	case peUData2:
		return uint64(c.Uint16())
	case peUData4:
		return uint64(c.Uint32())
	case peSLEB:
		return uint64(c.SLEB())
	case peSData2:
		return uint64(int16(c.Uint16()))
	case peSData4:
		return uint64(int32(c.Uint32()))
	}
	c.Failed = true
	return 0
}
