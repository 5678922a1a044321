package pclntab

import (
	"encoding/binary"
	"fmt"
	"sort"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// functabIndex is every stride-th entry of functab, so that a look-up reads one block of it rather than some
// seventeen: 6 KB for the 100,000 functions of a Kubernetes binary, where functab has 800 KB.
type functabIndex struct {
	stride  uint32
	entries []uint32
	end     uint32 // end of the last function
}

const (
	minIndexStride  = 64      // 512 bytes of functab
	maxIndexEntries = 1 << 14 // 64 KB; larger tables get a larger stride
)

// newFunctabIndex reads functab once and refuses one that is not sorted.
func newFunctabIndex(f *objfile.File, h header) (functabIndex, error) {
	x := functabIndex{stride: minIndexStride}
	for h.nfunc/x.stride >= maxIndexEntries {
		x.stride *= 2
	}
	x.entries = make([]uint32, 0, (h.nfunc+x.stride-1)/x.stride)

	buf := make([]byte, min(scanChunkBytes, uint64(h.nfunc)*functabSize))
	prev := uint32(0)
	for i := uint32(0); i < h.nfunc; {
		chunk := buf[:min(uint64(len(buf)), uint64(h.nfunc-i)*functabSize)]
		if !readFull(f, chunk, h.functab.start+objfile.Address(i)*functabSize) {
			return x, fmt.Errorf("%w: functab is cut short", ErrCorrupt)
		}
		for ; len(chunk) > 0; chunk = chunk[functabSize:] {
			entry := binary.LittleEndian.Uint32(chunk)
			if entry < prev {
				return x, fmt.Errorf("%w: function %d starts at %#x, before %#x", ErrCorrupt, i, entry, prev)
			}
			if i%x.stride == 0 {
				x.entries = append(x.entries, entry)
			}
			prev = entry
			i++
		}
	}
	var end [4]byte
	if !readFull(f, end[:], h.functab.start+objfile.Address(h.nfunc)*functabSize) {
		return x, fmt.Errorf("%w: functab is cut short", ErrCorrupt)
	}
	x.end = binary.LittleEndian.Uint32(end[:])
	if x.end <= x.entries[0] || x.end < prev {
		return x, fmt.Errorf("%w: functions end at %#x, before the last starts", ErrCorrupt, x.end)
	}
	return x, nil
}

// find returns the number of the function that holds pc, an offset from text.
func (x *functabIndex) find(b *blocks, h *header, pc uint32) (uint32, bool) {
	if pc < x.entries[0] || pc >= x.end {
		return 0, false
	}
	group := sort.Search(len(x.entries), func(i int) bool { return x.entries[i] > pc }) - 1
	low := uint32(group) * x.stride
	high := min(low+x.stride, h.nfunc)
	// low starts at or before pc, high after it.
	for high-low > 1 {
		mid := low + (high-low)/2
		entry, ok := b.uint32(h.functab.start + objfile.Address(mid)*functabSize)
		if !ok {
			return 0, false
		}
		if entry <= pc {
			low = mid
		} else {
			high = mid
		}
	}
	return low, true
}

// A function is a func record.
type function struct {
	entry, end   uint32 // offsets from text
	name         uint32 // offset into funcnametab
	startLine    int32  // 0: not known
	pcsp         uint32 // offset into pctab; 0: no table
	pcfile, pcln uint32 // likewise
	inlineIndex  uint32 // offset into pctab; 0: no inlined calls
	inlineTree   uint32 // offset from gofunc, or noInlineTree
	cu           uint32 // index into cutab, or ^0
	funcID, flag uint8
}

const (
	pcdataInlineIndex  = 2
	funcdataInlineTree = 3
	noInlineTree       = ^uint32(0)
	// maxPCData is far above the five tables there are.
	maxPCData = 64
)

// readFunction reads the record of function i.
func readFunction(b *blocks, h *header, i uint32) (function, bool) {
	var pair [functabSize + 4]byte // its entry of functab, and the start of the next function
	if !b.read(pair[:], h.functab.start+objfile.Address(i)*functabSize) {
		return function{}, false
	}
	off := binary.LittleEndian.Uint32(pair[4:])
	l := h.layout
	if uint64(off)+uint64(l.funcSize) > h.functab.size() {
		return function{}, false
	}
	at := h.functab.start + objfile.Address(off)
	var buf [64]byte
	rec := buf[:l.funcSize]
	if !b.read(rec, at) {
		return function{}, false
	}
	field := func(off uint32) uint32 { return binary.LittleEndian.Uint32(rec[off:]) }
	fn := function{
		entry:      field(0),
		end:        binary.LittleEndian.Uint32(pair[8:]),
		name:       field(4),
		pcsp:       field(16),
		pcfile:     field(20),
		pcln:       field(24),
		cu:         field(32),
		funcID:     rec[l.funcID],
		flag:       rec[l.funcID+1],
		inlineTree: noInlineTree,
	}
	if fn.entry != binary.LittleEndian.Uint32(pair[:]) {
		return function{}, false
	}
	if l.startLine != 0 {
		fn.startLine = max(0, int32(field(l.startLine)))
	}
	npcdata, nfuncdata := field(28), rec[l.nfuncdata]
	if npcdata > maxPCData {
		return function{}, false
	}
	if npcdata <= pcdataInlineIndex || nfuncdata <= funcdataInlineTree {
		return fn, true
	}
	pcdata := at + objfile.Address(l.funcSize)
	funcdata := pcdata + objfile.Address(npcdata)*4
	var ok1, ok2 bool
	fn.inlineIndex, ok1 = b.uint32(pcdata + pcdataInlineIndex*4)
	fn.inlineTree, ok2 = b.uint32(funcdata + funcdataInlineTree*4)
	return fn, ok1 && ok2
}
