package pclntab

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// The start of runtime.moduledata has not moved from Go 1.18 to 1.26; indices of words:
//
//	0 pcHeader        4 cutab    10 pctab       16 ftab          20 minpc   22 text
//	1 funcnametab     7 filetab  13 pclntable   19 findfunctab   21 maxpc   38 gofunc (40 from Go 1.20)
//
// where funcnametab to ftab are slices of three words.
const (
	mdPCHeader    = 0
	mdFuncnametab = 1
	mdFtab        = 16
	mdFtabLen     = 17
	mdMinPC       = 20
	mdMaxPC       = 21
	mdText        = 22

	maxModuledataWords = 41
)

// moduledata holds what the header does not tell.
type moduledata struct {
	text   objfile.Address // runtime.text: entries of functab count from here
	gofunc objfile.Address // go:func.*: funcdata counts from here; 0: not known
}

// findModuledata searches the writable segments for the struct's first word and, where that finds nothing, the
// relocations. entries are the first and the last value of functab, which the right struct's minpc and maxpc confirm.
func findModuledata(f *objfile.File, h header, first, end uint32) (moduledata, bool) {
	var md moduledata
	check := func(words []uint64) bool {
		var ok bool
		md, ok = parseModuledata(words, h, first, end)
		return ok
	}

	found := false
	pointsToHeader := func(word uint64) bool { return word == uint64(h.addr) }
	// A search cut off by its bounds is one that found nothing.
	_ = scanSegments(f, writableSegment, pointsToHeader, func(a objfile.Address) bool {
		words, ok := readModuledata(f, h, a)
		found = ok && check(words)
		return found
	})
	if found {
		return md, true
	}

	var places []objfile.Address
	relativeRelocations(f, func(at, value objfile.Address) bool {
		if value == h.addr {
			places = append(places, at)
		}
		return len(places) < maxScanMatches
	})
	for _, place := range places {
		words, ok := readModuledata(f, h, place)
		if !ok {
			continue
		}
		relativeRelocations(f, func(at, value objfile.Address) bool {
			if i := uint64(at-place) / pointerSize; at >= place && i < uint64(len(words)) {
				words[i] = uint64(value)
			}
			return true
		})
		if check(words) {
			return md, true
		}
	}
	return moduledata{}, false
}

func readModuledata(f *objfile.File, h header, a objfile.Address) ([]uint64, bool) {
	var buf [maxModuledataWords * pointerSize]byte
	p := buf[:h.layout.moduledataWords*pointerSize]
	if !readFull(f, p, a) {
		return nil, false
	}
	words := make([]uint64, h.layout.moduledataWords)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(p[i*pointerSize:])
	}
	return words, true
}

func parseModuledata(words []uint64, h header, first, end uint32) (moduledata, bool) {
	text := words[mdText]
	ok := words[mdPCHeader] == uint64(h.addr) &&
		words[mdFuncnametab] == uint64(h.funcnametab.start) &&
		words[mdFtab] == uint64(h.functab.start) &&
		words[mdFtabLen] == uint64(h.nfunc)+1 &&
		words[mdMinPC] == text+uint64(first) &&
		words[mdMaxPC] == text+uint64(end)
	return moduledata{
		text:   objfile.Address(text),
		gofunc: objfile.Address(words[h.layout.gofuncIndex]),
	}, ok
}

// headerTextStart is the way to text without moduledata, up to Go 1.25.
func headerTextStart(f *objfile.File, h header) (objfile.Address, bool) {
	const textStartOffset = 24
	text := h.textStart
	if text == 0 {
		relativeRelocations(f, func(at, value objfile.Address) bool {
			if at == h.addr+textStartOffset {
				text = value
			}
			return text == 0
		})
	}
	for _, s := range f.Segments() {
		if s.Type == objfile.PT_LOAD && s.Flags&objfile.PF_X != 0 && s.Addr <= text && text < s.Addr+objfile.Address(s.FileSize) {
			return text, text != 0
		}
	}
	return 0, false
}
