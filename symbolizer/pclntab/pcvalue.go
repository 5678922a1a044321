package pclntab

import (
	"math"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// maxSteps bounds the pairs decoded for one look-up, all its tables together: some 5 ms at the worst. The tables
// of the largest generated functions (1 MB of code) have some 100,000.
const maxSteps = 1 << 20

// noValue is what a pc-value table holds for code that it does not cover.
const noValue = -1

// A stepper decodes pc-value tables within one budget.
type stepper struct {
	blocks  *blocks
	pctab   span
	quantum uint32
	budget  int
}

// value returns the value at pc of the table at off, for a function that starts at entry; pc and entry count from
// text. It is noValue where there is no table or the table ends before pc; false says that the table is broken.
func (s *stepper) value(off, entry, pc uint32) (int32, bool) {
	value, found := int32(noValue), false
	ok := s.ranges(off, entry, func(_, to uint32, v int32) bool {
		if found = pc < to; found {
			value = v
		}
		return !found
	})
	return value, ok
}

// ranges calls yield for each value of the table at off, and the pcs [from, to) that it holds for, until it returns false. The result is
// false where the table is broken.
func (s *stepper) ranges(off, entry uint32, yield func(from, to uint32, value int32) bool) bool {
	if off == 0 {
		return true // pctab begins with a byte that no table uses
	}
	if uint64(off) >= s.pctab.size() {
		return false
	}
	in := byteReader{blocks: s.blocks, next: s.pctab.start + objfile.Address(off), end: s.pctab.end}
	value, from := int32(noValue), uint64(entry)
	for first := true; ; first = false {
		if s.budget--; s.budget < 0 {
			return false
		}
		valueDelta, ok := in.uvarint()
		if !ok {
			return false
		}
		if valueDelta == 0 && !first {
			return true
		}
		pcDelta, ok := in.uvarint()
		if !ok {
			return false
		}
		value += int32(valueDelta>>1) ^ -int32(valueDelta&1)
		to := min(from+uint64(pcDelta)*uint64(s.quantum), math.MaxUint32)
		if !yield(uint32(from), uint32(to), value) {
			return true
		}
		from = to
	}
}

// byteReader reads on across blocks.
type byteReader struct {
	blocks    *blocks
	next, end objfile.Address // of what is not in data yet
	data      []byte
}

// uvarint decodes seven bits a byte, lowest first.
func (r *byteReader) uvarint() (uint32, bool) {
	if len(r.data) > 0 && r.data[0] < 0x80 {
		v := r.data[0]
		r.data = r.data[1:]
		return uint32(v), true
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		if len(r.data) == 0 && !r.fill() {
			return 0, false
		}
		c := r.data[0]
		r.data = r.data[1:]
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v, true
		}
	}
	return 0, false
}

func (r *byteReader) fill() bool {
	if r.next >= r.end {
		return false
	}
	data := r.blocks.at(r.next)
	r.data = data[:min(uint64(len(data)), uint64(r.end-r.next))]
	r.next += objfile.Address(len(r.data))
	return len(r.data) > 0
}
