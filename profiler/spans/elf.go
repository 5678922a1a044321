package spans

import (
	"errors"
	"fmt"
	"io"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// variable is the thread-local one, as a symbol table has it.
type variable struct {
	index uint32 // in .dynsym; 0: it is in .symtab alone, and no relocation names it
	value uint64 // offset in the block
}

const (
	shtRela    = 4
	symbolSize = 24
	relaSize   = 24
	sttTLS     = 6

	// maxSymbols and maxRelocations bound what is read of a file, those of the largest browsers and LLVM twice.
	maxSymbols     = 4 << 20
	maxRelocations = 4 << 20
	// maxTLSSymbols bounds the names that are looked at.
	maxTLSSymbols = 4096
	// atOnce is how many entries are read in one piece.
	atOnce = 4096
)

// findVariable looks for the symbol: in .dynsym, where the specification has it, or else in .symtab.
func findVariable(f *objfile.File) (variable, error) {
	index, value, err := findSymbol(f, objfile.SHT_DYNSYM, symbol)
	if !errors.Is(err, ErrNone) {
		return variable{index, value}, err
	}
	_, value, err = findSymbol(f, objfile.SHT_SYMTAB, symbol)
	return variable{0, value}, err
}

// findSymbol finds a thread-local symbol in a table.
func findSymbol(f *objfile.File, typ uint32, name string) (index uint32, value uint64, err error) {
	for _, s := range f.Sections() {
		if s.Type != typ || s.EntSize != symbolSize || uint64(s.Link) >= uint64(len(f.Sections())) {
			continue
		}
		names, err := f.SectionReader(f.Sections()[s.Link])
		if err != nil {
			return 0, 0, err
		}
		looked, found := 0, false
		err = entries(f, s, symbolSize, maxSymbols, func(i uint32, e []byte) bool {
			if e[4]&15 != sttTLS || le.Uint16(e[6:]) == 0 {
				return true
			}
			if looked++; looked > maxTLSSymbols {
				return false
			}
			if found = isNamed(names, le.Uint32(e), name); found {
				index, value = i, le.Uint64(e[8:])
			}
			return !found
		})
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", s.Name, err)
		}
		if found {
			return index, value, nil
		}
	}
	return 0, 0, ErrNone
}

func isNamed(names io.ReaderAt, at uint32, name string) bool {
	text := make([]byte, len(name)+1)
	if _, err := names.ReadAt(text, int64(at)); err != nil {
		return false
	}
	return string(text) == name+"\x00"
}

// entries visits those of a section until visit returns false.
func entries(f *objfile.File, s objfile.Section, size, most uint64, visit func(i uint32, entry []byte) bool) error {
	r, err := f.SectionReader(s)
	if err != nil {
		return err
	}
	count := min(s.Size/size, most)
	buffer := make([]byte, min(count, atOnce)*size)
	for i := uint64(0); i < count; i += atOnce {
		piece := buffer[:min(count-i, atOnce)*size]
		if _, err := r.ReadAt(piece, int64(i*size)); err != nil {
			return err
		}
		for j := uint64(0); j < uint64(len(piece)); j += size {
			if !visit(uint32(i+j/size), piece[j:j+size]) {
				return nil
			}
		}
	}
	return nil
}

// relocations of thread-local variables.
type relocations struct{ offset, module, descriptor uint32 }

var relocationsOf = map[objfile.Machine]relocations{
	objfile.EM_X86_64:  {offset: 18, module: 16, descriptor: 36},
	objfile.EM_AARCH64: {offset: 1030, module: 1028, descriptor: 1031},
}

// findSlot finds what the loader writes for code that uses the variable.
func findSlot(f *objfile.File, v variable) (Source, error) {
	kinds := relocationsOf[f.Machine()]
	var found, local Source // by the symbol's name; by its value or the module alone
	for _, s := range f.Sections() {
		if s.Type != shtRela || s.Flags&objfile.SHF_ALLOC == 0 || s.EntSize != relaSize {
			continue
		}
		err := entries(f, s, relaSize, maxRelocations, func(_ uint32, e []byte) bool {
			slot, kind, index, addend := objfile.Address(le.Uint64(e)), le.Uint32(e[8:]), le.Uint32(e[12:]), le.Uint64(e[16:])
			to := &found
			switch {
			case index == 0 && (addend == v.value || kind == kinds.module):
				to = &local
			case index == 0 || index != v.index:
				return true
			}
			switch kind {
			case kinds.offset:
				*to = Source{Kind: bpf.SpanSourceSlot, Slot: slot}
			case kinds.module:
				*to = Source{Kind: bpf.SpanSourceModule, Slot: slot, Offset: int64(v.value)}
			case kinds.descriptor:
				*to = Source{Kind: bpf.SpanSourceDescriptor, Slot: slot}
			}
			return found.Kind == bpf.SpanSourceNone
		})
		if err != nil {
			return Source{}, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	switch {
	case found.Kind != bpf.SpanSourceNone:
		return found, nil
	case local.Kind != bpf.SpanSourceNone:
		return local, nil
	}
	return Source{}, ErrNone
}
