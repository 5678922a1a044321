package objfile

import (
	"bytes"
	"errors"
	"fmt"
)

// The ELF64 file header (64 bytes), field by offset:
//
//	0  7f 45 4c 46  magic             32  e_phoff        56  e_phnum
//	4  class, 5 data, 6 version       40  e_shoff        58  e_shentsize
//	16 e_type     18 e_machine        48  e_flags        60  e_shnum
//	20 e_version  24 e_entry          52  e_ehsize       62  e_shstrndx
//	                                  54  e_phentsize
type fileHeader struct {
	typ                  Type
	machine              Machine
	entry                Address
	phoff, shoff         FileOffset
	phentsize, shentsize uint16
	phnum, shnum         uint16
	shstrndx             uint16
}

const (
	elfClass64      = 2
	elfDataLittle   = 1
	offClass        = 4
	offData         = 5
	offType         = 16
	offMachine      = 18
	offEntry        = 24
	offProgramTable = 32
	offSectionTable = 40
)

// readFileHeader fills raw, and tells a file that is no ELF file from one cut short.
func (f *File) readFileHeader(raw *[fileHeaderSize]byte) error {
	if f.size < 0 {
		return fmt.Errorf("%w: size %d", ErrNotELF, f.size)
	}
	n := min(f.size, fileHeaderSize)
	if err := readFull(f.r, raw[:n], 0); err != nil {
		if errors.Is(err, ErrCorrupt) {
			return fmt.Errorf("%w: %w", ErrNotELF, err)
		}
		return err
	}
	magic := []byte{0x7f, 'E', 'L', 'F'}
	if !bytes.HasPrefix(raw[:n], magic) {
		return errorAt(ErrNotELF, 0, "starts with % x", raw[:min(n, int64(len(magic)))])
	}
	if n < fileHeaderSize {
		return errorAt(ErrCorrupt, 0, "file header cut short: %d of %d bytes", n, fileHeaderSize)
	}
	return nil
}

func decodeFileHeader(raw *[fileHeaderSize]byte) (fileHeader, error) {
	if c := raw[offClass]; c != elfClass64 {
		return fileHeader{}, errorAt(ErrUnsupported, offClass, "class %d is not 64-bit", c)
	}
	if d := raw[offData]; d != elfDataLittle {
		return fileHeader{}, errorAt(ErrUnsupported, offData, "data encoding %d is not little endian", d)
	}
	h := fileHeader{
		typ:       Type(le.Uint16(raw[offType:])),
		machine:   Machine(le.Uint16(raw[offMachine:])),
		entry:     Address(le.Uint64(raw[offEntry:])),
		phoff:     FileOffset(le.Uint64(raw[offProgramTable:])),
		shoff:     FileOffset(le.Uint64(raw[offSectionTable:])),
		phentsize: le.Uint16(raw[54:]),
		phnum:     le.Uint16(raw[56:]),
		shentsize: le.Uint16(raw[58:]),
		shnum:     le.Uint16(raw[60:]),
		shstrndx:  le.Uint16(raw[62:]),
	}
	if h.machine != EM_X86_64 && h.machine != EM_AARCH64 {
		return fileHeader{}, errorAt(ErrUnsupported, offMachine, "%v is neither x86-64 nor arm64", h.machine)
	}
	if h.typ != ET_EXEC && h.typ != ET_DYN {
		return fileHeader{}, errorAt(ErrUnsupported, offType, "%v is neither an executable nor a library", h.typ)
	}
	return h, nil
}

// readSegments reads the program headers. Unlike section headers they must be right:
// the kernel ran the file by them.
func (f *File) readSegments(h fileHeader) error {
	count := uint64(h.phnum)
	if h.phnum == pnXnum {
		first, err := f.sectionZero(h)
		if err != nil {
			return fmt.Errorf("count of program headers: %w", err)
		}
		count = uint64(first.Info)
	}
	if count == 0 {
		return nil
	}
	if h.phentsize != programHeaderSize {
		return errorAt(ErrCorrupt, 54, "program headers of %d bytes, want %d", h.phentsize, programHeaderSize)
	}
	if count > maxSegments {
		return errorAt(ErrCorrupt, 56, "%d program headers, limit %d", count, maxSegments)
	}
	raw, err := f.readTable("program headers", h.phoff, count*programHeaderSize)
	if err != nil {
		return err
	}
	f.segments = make([]Segment, count)
	for i := range f.segments {
		b := raw[i*programHeaderSize:]
		s := Segment{
			Type:     le.Uint32(b),
			Flags:    le.Uint32(b[4:]),
			Off:      FileOffset(le.Uint64(b[8:])),
			Addr:     Address(le.Uint64(b[16:])),
			FileSize: le.Uint64(b[32:]),
			MemSize:  le.Uint64(b[40:]),
			Align:    le.Uint64(b[48:]),
		}
		// A range may end beyond the file (debug files keep the headers of the file they
		// were split from), but must not wrap around: the arithmetic below relies on it.
		if overflows(uint64(s.Off), s.FileSize) || overflows(uint64(s.Addr), s.FileSize) || overflows(uint64(s.Addr), s.MemSize) {
			return errorAt(ErrCorrupt, h.phoff+FileOffset(i*programHeaderSize), "segment %d wraps around the address space", i)
		}
		f.segments[i] = s
	}
	return nil
}

// readSections reads the section headers and their names.
func (f *File) readSections(h fileHeader) ([]Section, error) {
	if h.shoff == 0 {
		return nil, nil
	}
	count, strndx := uint64(h.shnum), uint32(h.shstrndx)
	if h.shnum == 0 || h.shstrndx == shnXindex {
		first, err := f.sectionZero(h)
		if err != nil {
			return nil, err
		}
		if h.shnum == 0 {
			count = first.Size
		}
		if h.shstrndx == shnXindex {
			strndx = first.Link
		}
	}
	if count > maxSections {
		return nil, errorAt(ErrCorrupt, h.shoff, "%d section headers, limit %d", count, maxSections)
	}
	if count == 0 {
		return nil, nil
	}
	if h.shentsize != sectionHeaderSize {
		return nil, errorAt(ErrCorrupt, 58, "section headers of %d bytes, want %d", h.shentsize, sectionHeaderSize)
	}
	raw, err := f.readTable("section headers", h.shoff, count*sectionHeaderSize)
	if err != nil {
		return nil, err
	}
	sections := make([]Section, count)
	for i := range sections {
		sections[i] = decodeSection(raw[i*sectionHeaderSize:])
	}
	// Without names the sections still serve those who look for a type.
	if uint64(strndx) < count {
		err = f.nameSections(sections, raw, sections[strndx])
	} else if strndx != 0 {
		err = errorAt(ErrCorrupt, 62, "section names in section %d of %d", strndx, count)
	}
	return sections, err
}

// nameSections gives the sections their names from the string table. The names share one
// copy of it, so they cost no memory each.
func (f *File) nameSections(sections []Section, raw []byte, strtab Section) error {
	if strtab.Size == 0 {
		return nil
	}
	names, err := f.SectionData(strtab, maxSectionNames)
	if err != nil {
		return fmt.Errorf("section names: %w", err)
	}
	all := string(names)
	for i := range sections {
		start := uint64(le.Uint32(raw[i*sectionHeaderSize:]))
		if start >= uint64(len(all)) {
			continue
		}
		b := names[start:min(start+maxSectionName, uint64(len(all)))]
		if n := bytes.IndexByte(b, 0); n >= 0 {
			sections[i].Name = all[start : start+uint64(n)]
		}
	}
	return nil
}

// sectionZero reads the header of section 0, which holds the counts that outgrew the
// file header.
func (f *File) sectionZero(h fileHeader) (Section, error) {
	if h.shentsize != sectionHeaderSize {
		return Section{}, errorAt(ErrCorrupt, 58, "section headers of %d bytes, want %d", h.shentsize, sectionHeaderSize)
	}
	raw, err := f.readTable("section header 0", h.shoff, sectionHeaderSize)
	if err != nil {
		return Section{}, err
	}
	return decodeSection(raw), nil
}

func decodeSection(b []byte) Section {
	return Section{
		Type:    le.Uint32(b[4:]),
		Flags:   le.Uint64(b[8:]),
		Addr:    Address(le.Uint64(b[16:])),
		Off:     FileOffset(le.Uint64(b[24:])),
		Size:    le.Uint64(b[32:]),
		Link:    le.Uint32(b[40:]),
		Info:    le.Uint32(b[44:]),
		EntSize: le.Uint64(b[56:]),
	}
}

// readTable reads n bytes of headers; the caller has bounded n.
func (f *File) readTable(what string, off FileOffset, n uint64) ([]byte, error) {
	if !within(uint64(off), n, uint64(f.size)) {
		return nil, errorAt(ErrCorrupt, off, "%s: %d bytes end beyond the file's %d", what, n, f.size)
	}
	b := make([]byte, n)
	if err := readFull(f.r, b, int64(off)); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}
