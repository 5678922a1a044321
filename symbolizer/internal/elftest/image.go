package elftest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// An Image is a tiny ELF file to be. It has one symbol table and its strings, and the segments
// and sections given; their contents, where they have any, are zeros.
//
//	file header | program headers | contents, up to ContentSize | symbols | strings | section headers
type Image struct {
	Machine  elf.Machine // 0 means x86-64
	Type     elf.Type    // 0 means ET_DYN
	Segments []elf.ProgHeader
	Sections []elf.SectionHeader // from index 1; symbols and strings come after them
	Symbols  []Symbol
	// SymbolsType is that of the symbol table's section; 0 means SHT_SYMTAB.
	SymbolsType elf.SectionType
	// Contents are put at these file offsets.
	Contents map[uint64][]byte
	// NoSectionHeaders leaves e_shoff and e_shnum zero.
	NoSectionHeaders bool
}

// A Symbol is one entry of the symbol table. Symbol 0 is added.
type Symbol struct {
	Name        string
	Type        elf.SymType
	Bind        elf.SymBind
	Section     elf.SectionIndex
	Value, Size uint64
}

// ContentSize is where the symbols begin.
const ContentSize = 0x1000

// Text is a code section at address and offset 0x400, of 0x800 bytes, and the segment around it.
func Text() ([]elf.ProgHeader, []elf.SectionHeader) {
	return []elf.ProgHeader{{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0, Vaddr: 0, Filesz: ContentSize, Memsz: ContentSize, Align: 0x1000}},
		[]elf.SectionHeader{{Name: ".text", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Addr: 0x400, Offset: 0x400, Size: 0x800}}
}

// Bytes returns the file.
func (m Image) Bytes() []byte {
	le := binary.LittleEndian
	if m.Machine == 0 {
		m.Machine = elf.EM_X86_64
	}
	if m.Type == 0 {
		m.Type = elf.ET_DYN
	}
	if m.SymbolsType == 0 {
		m.SymbolsType = elf.SHT_SYMTAB
	}
	strings := []byte{0}
	intern := func(s string) uint32 {
		at := len(strings)
		strings = append(append(strings, s...), 0)
		return uint32(at)
	}
	symbols := make([]byte, elf.Sym64Size)
	for _, s := range m.Symbols {
		symbols, _ = binary.Append(symbols, le, elf.Sym64{
			Name: intern(s.Name), Info: elf.ST_INFO(s.Bind, s.Type),
			Shndx: uint16(s.Section), Value: s.Value, Size: s.Size,
		})
	}
	sections := append([]elf.SectionHeader{{}}, m.Sections...)
	symtab := len(sections)
	sections = append(sections,
		elf.SectionHeader{Name: "symbols", Type: m.SymbolsType, Offset: ContentSize, Size: uint64(len(symbols)), Link: uint32(symtab + 1), Entsize: elf.Sym64Size},
		elf.SectionHeader{Name: "strings", Type: elf.SHT_STRTAB, Offset: ContentSize + uint64(len(symbols))})
	names := make([]uint32, len(sections))
	for i, s := range sections {
		names[i] = intern(s.Name)
	}
	sections[symtab+1].Size = uint64(len(strings))

	h := elf.Header64{
		Type: uint16(m.Type), Machine: uint16(m.Machine), Version: 1,
		Phoff: 64, Phentsize: 56, Phnum: uint16(len(m.Segments)), Ehsize: 64,
	}
	copy(h.Ident[:], []byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1})
	if !m.NoSectionHeaders {
		h.Shoff = ContentSize + uint64(len(symbols)+len(strings))
		h.Shentsize, h.Shnum, h.Shstrndx = 64, uint16(len(sections)), uint16(symtab+1)
	}
	var b bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&b, le, v); err != nil {
			panic(err)
		}
	}
	write(h)
	for _, p := range m.Segments {
		write(elf.Prog64{
			Type: uint32(p.Type), Flags: uint32(p.Flags), Off: p.Off, Vaddr: p.Vaddr, Paddr: p.Paddr,
			Filesz: p.Filesz, Memsz: p.Memsz, Align: p.Align,
		})
	}
	b.Write(make([]byte, ContentSize-b.Len()))
	for at, c := range m.Contents {
		copy(b.Bytes()[at:], c)
	}
	b.Write(symbols)
	b.Write(strings)
	if m.NoSectionHeaders {
		return b.Bytes()
	}
	for i, s := range sections {
		write(elf.Section64{
			Name: names[i], Type: uint32(s.Type), Flags: uint64(s.Flags), Addr: s.Addr, Off: s.Offset,
			Size: s.Size, Link: s.Link, Info: s.Info, Addralign: s.Addralign, Entsize: s.Entsize,
		})
	}
	return b.Bytes()
}
