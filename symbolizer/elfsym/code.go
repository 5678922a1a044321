package elfsym

import (
	"cmp"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A codeRange is addresses that hold code: an executable section, or without section
// headers an executable segment.
type codeRange struct {
	start, end objfile.Address
}

const execFlags = objfile.SHF_ALLOC | objfile.SHF_EXECINSTR

// holdsCode reports whether s is an executable section and a lies in it.
func holdsCode(s objfile.Section, a objfile.Address) bool {
	return s.Flags&execFlags == execFlags && a >= s.Addr && uint64(a-s.Addr) < s.Size
}

// codeRanges returns f's code, sorted and without overlaps.
func codeRanges(f *objfile.File) []codeRange {
	var code []codeRange
	for _, s := range f.Sections() {
		if s.Flags&execFlags == execFlags {
			code = appendRange(code, s.Addr, s.Size)
		}
	}
	if len(f.Sections()) == 0 {
		for _, s := range f.Segments() {
			if s.Type == objfile.PT_LOAD && s.Flags&objfile.PF_X != 0 {
				code = appendRange(code, s.Addr, s.MemSize)
			}
		}
	}
	slices.SortFunc(code, func(x, y codeRange) int { return cmp.Compare(x.start, y.start) })
	// Adjacent sections stay apart: a symbol without a size ends with its section.
	merged := code[:0]
	for _, r := range code {
		if n := len(merged); n > 0 && r.start < merged[n-1].end {
			merged[n-1].end = max(merged[n-1].end, r.end)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

func appendRange(code []codeRange, start objfile.Address, size uint64) []codeRange {
	end := start + objfile.Address(size)
	if end <= start { // empty, or wraps around
		return code
	}
	return append(code, codeRange{start, end})
}

func findRange(code []codeRange, a objfile.Address) (codeRange, bool) {
	i, found := slices.BinarySearchFunc(code, a, func(r codeRange, a objfile.Address) int {
		return cmp.Compare(r.start, a)
	})
	if !found {
		i--
	}
	if i < 0 || a >= code[i].end {
		return codeRange{}, false
	}
	return code[i], true
}
