package pclntab

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// External linkers leave the pointers of a position-independent file zero and state their values in .rela.dyn
// alone, as RELATIVE relocations (Go's own linker writes both). An entry:
//
//	offset u64, the pointer's address    info u64, low half the type    addend i64, the pointer's value

const (
	relaSize = 24
	// maxRelaBytes bounds the reading of .rela.dyn in Open: 2.7 million pointers.
	maxRelaBytes = 64 << 20

	dtNull = 0
	dtRela = 7
	dtSize = 8
	// maxDynamicEntries: a few dozen are usual.
	maxDynamicEntries = 1024

	relativeAMD64 = 8    // R_X86_64_RELATIVE
	relativeARM64 = 1027 // R_AARCH64_RELATIVE
)

// relaTable finds .rela.dyn through the dynamic segment, which every loader needs, rather than through sections.
func relaTable(f *objfile.File) (span, bool) {
	var start, size uint64
	for _, s := range f.Segments() {
		if s.Type != objfile.PT_DYNAMIC {
			continue
		}
		var entry [16]byte
		for i := range min(s.FileSize/uint64(len(entry)), maxDynamicEntries) {
			if !readFull(f, entry[:], s.Addr+objfile.Address(i*uint64(len(entry)))) {
				break
			}
			tag, value := binary.LittleEndian.Uint64(entry[:]), binary.LittleEndian.Uint64(entry[8:])
			switch tag {
			case dtRela:
				start = value
			case dtSize:
				size = min(value, maxRelaBytes)
			}
			if tag == dtNull {
				break
			}
		}
	}
	rela := span{objfile.Address(start), objfile.Address(start + size)}
	return rela, start != 0 && rela.end > rela.start
}

// relativeRelocations calls visit with the address and the value of each pointer until it returns false.
func relativeRelocations(f *objfile.File, visit func(at, value objfile.Address) bool) {
	rela, ok := relaTable(f)
	if !ok {
		return
	}
	buf := make([]byte, scanChunkBytes/relaSize*relaSize)
	for a := rela.start; a < rela.end; {
		chunk := buf[:min(uint64(len(buf)), uint64(rela.end-a))]
		n, _ := f.ReadAtAddress(chunk, a)
		chunk = chunk[:n-n%relaSize]
		if len(chunk) == 0 {
			return
		}
		for i := 0; i < len(chunk); i += relaSize {
			e := chunk[i : i+relaSize]
			if kind := binary.LittleEndian.Uint32(e[8:]); kind != relativeAMD64 && kind != relativeARM64 {
				continue
			}
			at, value := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[16:])
			if !visit(objfile.Address(at), objfile.Address(value)) {
				return
			}
		}
		a += objfile.Address(len(chunk))
	}
}
