package objfile

import (
	"cmp"
	"slices"
)

// An Extent is a stretch of the file, and where it lies in memory.
type Extent struct {
	Off  FileOffset
	Addr Address
	Size uint64
}

// maxCodeSegments bounds the executable segments that are looked at; linkers make one or two.
const maxCodeSegments = 64

// Code returns where the file has code, in its order and without overlaps: its executable sections, as far as segments have them executable. Of a
// file that has no such section it is the segments, in which other things may lie between the code.
func (f *File) Code() []Extent {
	var segments, sections []Extent
	for _, s := range f.segments {
		if s.Type == PT_LOAD && s.Flags&PF_X != 0 && s.FileSize > 0 && len(segments) < maxCodeSegments {
			segments = append(segments, Extent{s.Off, s.Addr, s.FileSize})
		}
	}
	for _, s := range f.sections {
		if s.Flags&SHF_EXECINSTR == 0 || s.Size == 0 {
			continue
		}
		for _, in := range segments {
			if s.Addr >= in.Addr && uint64(s.Addr-in.Addr) < in.Size {
				skip := uint64(s.Addr - in.Addr)
				sections = append(sections, Extent{in.Off + FileOffset(skip), s.Addr, min(s.Size, in.Size-skip)})
				break
			}
		}
	}
	if len(sections) > 0 {
		return inOrder(sections)
	}
	return inOrder(segments)
}

// inOrder sorts extents, and takes from each what an earlier one has.
func inOrder(extents []Extent) []Extent {
	slices.SortStableFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Off, b.Off) })
	var end FileOffset
	kept := extents[:0]
	for _, e := range extents {
		if over := uint64(max(end, e.Off) - e.Off); over < e.Size {
			e = Extent{e.Off + FileOffset(over), e.Addr + Address(over), e.Size - over}
			end = e.Off + FileOffset(e.Size)
			kept = append(kept, e)
		}
	}
	return kept
}
