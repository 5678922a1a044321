package objfile

import "fmt"

// Names and numbers are those of the System V ABI and of elf.h.

// Machine is e_machine.
type Machine uint16

// The architectures Pilotlight runs on.
const (
	EM_X86_64  Machine = 62
	EM_AARCH64 Machine = 183
)

func (m Machine) String() string {
	switch m {
	case EM_X86_64:
		return "x86-64"
	case EM_AARCH64:
		return "arm64"
	}
	return fmt.Sprintf("machine %d", uint16(m))
}

// Type is e_type.
type Type uint16

// The types of linked files.
const (
	ET_EXEC Type = 2
	ET_DYN  Type = 3
)

func (t Type) String() string {
	switch t {
	case ET_EXEC:
		return "ET_EXEC"
	case ET_DYN:
		return "ET_DYN"
	}
	return fmt.Sprintf("type %d", uint16(t))
}

// Segment types and flags.
const (
	PT_LOAD         uint32 = 1
	PT_DYNAMIC      uint32 = 2
	PT_INTERP       uint32 = 3
	PT_NOTE         uint32 = 4
	PT_TLS          uint32 = 7
	PT_GNU_EH_FRAME uint32 = 0x6474e550

	PF_X uint32 = 1
	PF_W uint32 = 2
	PF_R uint32 = 4
)

// Section types and flags.
const (
	SHT_PROGBITS uint32 = 1
	SHT_SYMTAB   uint32 = 2
	SHT_STRTAB   uint32 = 3
	SHT_NOTE     uint32 = 7
	SHT_NOBITS   uint32 = 8
	SHT_DYNSYM   uint32 = 11

	SHF_ALLOC      uint64 = 1 << 1
	SHF_EXECINSTR  uint64 = 1 << 2
	SHF_COMPRESSED uint64 = 1 << 11
)

// Header counts that do not fit 16 bits stand in section header 0.
const (
	pnXnum    = 0xffff // e_phnum: the count is sh_info of section 0
	shnXindex = 0xffff // e_shstrndx: the index is sh_link of section 0
)

const (
	fileHeaderSize    = 64
	programHeaderSize = 56
	sectionHeaderSize = 64
)
