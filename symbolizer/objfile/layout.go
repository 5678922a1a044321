package objfile

import "unsafe"

// A Layout is how a file lies in the address space: the PT_LOAD segments, without the file.
// It is small, immutable and safe for concurrent use; keep it where only the way from file
// offsets to addresses is needed. The zero Layout holds no segment.
type Layout struct {
	code  []span // PT_LOAD with PF_X
	other []span // PT_LOAD without
	page  uint64
}

// A span is a PT_LOAD segment: file bytes [off, off+size) at address addr.
//
//	file     ....|page     off=======off+size  |....
//	               padding  |         | padding
//	address  ....|page     addr=====addr+size  |....
//
// The kernel maps whole pages, so the padding on both sides is in memory too, and holds
// whatever stands next to the segment in the file.
type span struct {
	off  FileOffset
	addr Address
	size uint64
}

func newLayout(m Machine, segments []Segment) Layout {
	// arm64 kernels use pages of 4, 16 or 64 KiB, and the file does not say which.
	// The largest is right for all: padding counts only where no segment holds the offset.
	l := Layout{page: 4 << 10}
	if m == EM_AARCH64 {
		l.page = 64 << 10
	}
	for _, s := range segments {
		if s.Type != PT_LOAD || s.FileSize == 0 {
			continue
		}
		sp := span{off: s.Off, addr: s.Addr, size: s.FileSize}
		if s.Flags&PF_X != 0 {
			l.code = append(l.code, sp)
		} else {
			l.other = append(l.other, sp)
		}
	}
	return l
}

// Layout returns the way from file offsets to addresses, for keeping without the file.
func (f *File) Layout() Layout { return f.layout }

// AddressOf is [Layout.AddressOf] of the file.
func (f *File) AddressOf(off FileOffset) (Address, bool) { return f.layout.AddressOf(off) }

// AddressOf returns the address of the code at a file offset: where the process mapped
// that offset, less the load bias.
//
// A file offset may be in several segments, for segments share pages. What was executed was
// mapped executable, so the choice is: the executable segment that holds the offset; else
// the executable segment in whose page padding it lies, the nearer one if there are two; else any
// segment that holds it.
func (l Layout) AddressOf(off FileOffset) (Address, bool) {
	for _, s := range l.code {
		if s.holds(off) {
			return s.at(off), true
		}
	}
	if s, ok := l.padded(off); ok {
		return s.at(off), true
	}
	for _, s := range l.other {
		if s.holds(off) {
			return s.at(off), true
		}
	}
	return 0, false
}

// padded returns the executable segment nearest to off among those that share a page with it.
func (l Layout) padded(off FileOffset) (best span, ok bool) {
	nearest := l.page
	for _, s := range l.code {
		var distance uint64
		first, last := uint64(s.off), uint64(s.off)+(s.size-1)
		switch {
		case uint64(off) < first && uint64(off)/l.page == first/l.page:
			distance = first - uint64(off)
			if distance > uint64(s.addr) {
				continue // the address would be below zero
			}
		case uint64(off) > last && uint64(off)/l.page == last/l.page:
			distance = uint64(off) - last
			if overflows(uint64(s.addr), uint64(off)-first) {
				continue
			}
		default:
			continue
		}
		if distance < nearest {
			best, nearest, ok = s, distance, true
		}
	}
	return best, ok
}

func (s span) holds(off FileOffset) bool { return off >= s.off && uint64(off-s.off) < s.size }

// at works for offsets before the segment too: unsigned differences wrap, and wrap back.
func (s span) at(off FileOffset) Address { return s.addr + Address(off-s.off) }

// Bytes returns the memory that the Layout's segments take.
func (l Layout) Bytes() int { return (cap(l.code) + cap(l.other)) * int(unsafe.Sizeof(span{})) }
