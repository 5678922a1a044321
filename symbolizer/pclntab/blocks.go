package pclntab

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	// blockBytes is the unit of reading. A look-up touches about nine places; reading costs about as much for
	// 2 KB as for 64 bytes, and 2 KB holds the pc-value tables of most functions whole.
	blockBytes = 2 << 10
	// cacheBlocks is what look-ups in one function and its inlined calls use at a time, and some more.
	// 32 KB per table: the agent keeps tables of every Go binary on the host.
	cacheBlocks = 16
	// maxStringBytes bounds function names and paths; names of instantiated functions reach some KB.
	maxStringBytes = 16 << 10
)

// blocks reads the image in blocks and keeps the ones used last. Not safe for concurrent use.
type blocks struct {
	f       *objfile.File
	regions [2]span // of the table, and of the inline trees where those are elsewhere
	cached  [cacheBlocks]block
	clock   uint64
}

type block struct {
	span            // empty: not in use
	lastUsed uint64 // clock of the last use
	data     *[blockBytes]byte
}

// at returns the bytes from a to the end of its block, valid until the next call; nil if they cannot be read.
func (b *blocks) at(a objfile.Address) []byte {
	b.clock++
	oldest := &b.cached[0]
	for i := range b.cached {
		c := &b.cached[i]
		if c.contains(a) {
			c.lastUsed = b.clock
			return c.data[a-c.start : c.end-c.start]
		}
		if c.lastUsed < oldest.lastUsed {
			oldest = c
		}
	}
	return b.load(oldest, a)
}

func (b *blocks) load(c *block, a objfile.Address) []byte {
	for _, region := range b.regions {
		if !region.contains(a) {
			continue
		}
		start := a - (a-region.start)%blockBytes
		end := start + min(blockBytes, region.end-start)
		if c.data == nil {
			c.data = new([blockBytes]byte)
		}
		c.span = span{}
		if !readFull(b.f, c.data[:end-start], start) {
			return nil
		}
		c.span, c.lastUsed = span{start, end}, b.clock
		return c.data[a-start : end-start]
	}
	return nil
}

// read fills p from a.
func (b *blocks) read(p []byte, a objfile.Address) bool {
	for len(p) > 0 {
		data := b.at(a)
		if len(data) == 0 {
			return false
		}
		n := copy(p, data)
		p, a = p[n:], a+objfile.Address(n)
	}
	return true
}

func (b *blocks) uint32(a objfile.Address) (uint32, bool) {
	if data := b.at(a); len(data) >= 4 {
		return binary.LittleEndian.Uint32(data), true
	}
	var buf [4]byte
	ok := b.read(buf[:], a)
	return binary.LittleEndian.Uint32(buf[:]), ok
}

// appendString appends the NUL-terminated string at offset off of table, without the NUL.
func (b *blocks) appendString(dst []byte, table span, off uint32) ([]byte, bool) {
	if uint64(off) >= table.size() {
		return dst, false
	}
	a := table.start + objfile.Address(off)
	end := min(table.end, a+maxStringBytes)
	for a < end {
		data := b.at(a)
		if len(data) == 0 {
			return dst, false
		}
		data = data[:min(uint64(len(data)), uint64(end-a))]
		for i, c := range data {
			if c == 0 {
				return append(dst, data[:i]...), true
			}
		}
		dst = append(dst, data...)
		a += objfile.Address(len(data))
	}
	return dst, false
}

// bytes is the memory held by the cache.
func (b *blocks) bytes() int {
	n := 0
	for i := range b.cached {
		if b.cached[i].data != nil {
			n += blockBytes
		}
	}
	return n
}
