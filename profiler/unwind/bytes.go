package unwind

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A cursor reads a section, or a part of it. Once it has read beyond its end it stays failed, and all that it reads is 0.
type cursor struct {
	data   []byte // of the section
	addr   objfile.Address
	pos    int // of data
	end    int
	failed bool
}

// sub is a cursor of [from, to), which lies in the section.
func (c *cursor) sub(from, to int) cursor {
	return cursor{data: c.data, addr: c.addr, pos: from, end: to}
}

func (c *cursor) empty() bool { return c.failed || c.pos >= c.end }

// take returns the next n bytes.
func (c *cursor) take(n uint64) []byte {
	if c.failed || n > uint64(c.end-c.pos) {
		c.failed = true
		return nil
	}
	b := c.data[c.pos : c.pos+int(n)]
	c.pos += int(n)
	return b
}

func (c *cursor) uint8() uint8 {
	if c.failed || c.pos >= c.end {
		c.failed = true
		return 0
	}
	c.pos++
	return c.data[c.pos-1]
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// uleb reads an unsigned LEB128. Bits beyond 64 are dropped, as other readers do.
func (c *cursor) uleb() uint64 {
	v, _, _ := c.leb()
	return v
}

// sleb reads a signed LEB128.
func (c *cursor) sleb() int64 {
	v, shift, negative := c.leb()
	if negative && shift < 64 {
		v |= ^uint64(0) << shift
	}
	return int64(v)
}

func (c *cursor) leb() (v uint64, shift uint, negative bool) {
	for {
		b := c.uint8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		shift += 7
		if b < 0x80 {
			return v, shift, b&0x40 != 0
		}
	}
}

// cstring reads to a NUL.
func (c *cursor) cstring() string {
	start := c.pos
	for c.uint8() != 0 {
	}
	if c.failed {
		return ""
	}
	return string(c.data[start : c.pos-1])
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

	pePCRelative  = 0x10
	peAligned     = 0x50
	peApplication = 0x70
	peIndirect    = 0x80
)

// pointer reads an encoded pointer. Relations to other things than the pointer's own address, and indirections, are not used for
// code: they fail.
func (c *cursor) pointer(encoding uint8) objfile.Address {
	at := c.addr + objfile.Address(c.pos)
	v := c.value(encoding)
	switch {
	case encoding&peIndirect != 0:
		c.failed = true
	case encoding&peApplication == pePCRelative:
		v += uint64(at)
	case encoding&peApplication != 0:
		c.failed = true
	}
	return objfile.Address(v)
}

// value reads what stands for a pointer, without its relation.
func (c *cursor) value(encoding uint8) uint64 {
	switch encoding & peFormat {
	case peAbsolute, peUData8, peSData8:
		return c.uint64()
	case peULEB:
		return c.uleb()
	case peUData2:
		return uint64(c.uint16())
	case peUData4:
		return uint64(c.uint32())
	case peSLEB:
		return uint64(c.sleb())
	case peSData2:
		return uint64(int16(c.uint16()))
	case peSData4:
		return uint64(int32(c.uint32()))
	}
	c.failed = true
	return 0
}
