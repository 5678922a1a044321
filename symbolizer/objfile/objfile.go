// Package objfile reads the parts of an ELF file that naming and unwinding need:
// its segments, its sections, its identity, and the way from a file offset to an address.
//
// The caller supplies the bytes (an io.ReaderAt and their size) and keeps them readable for
// as long as it uses the [File]; this package opens nothing. Whoever runs a process on the
// host controls those bytes, so every count and every length taken from them is checked
// against a named bound before anything is allocated, offsets are checked for overflow,
// and a file that lies yields an error or less information, never a panic.
//
// It reads ELF64, little endian, x86-64 and arm64, linked files only (ET_EXEC, ET_DYN).
// It refuses everything else with [ErrUnsupported], and it does not apply relocations or join
// relocatable objects.
//
// The kernel and the dynamic loader run a file by its program headers and never look at
// its section headers. So does this package: bad program headers are an error, section
// headers that are missing or bad leave a File that has none, and [File.SectionsErr] says why.
//
// # Glossary
//
//   - file offset: a place in the file, counted from its first byte.
//   - address: a place in the virtual address space the linker laid the file out in
//     (p_vaddr, sh_addr, st_value). Not where the file happens to be mapped in a process.
//   - segment: a program header, what is mapped. Section: a section header, what is linked.
package objfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unsafe"
)

// A FileOffset is a position in the file.
type FileOffset uint64

// An Address is an ELF virtual address, as the linker assigned it.
type Address uint64

// What Parse and the readers of a File refuse. Each error wraps one of these,
// and is an [*Error] when it can tell where in the file the cause stands.
var (
	ErrNotELF      = errors.New("not an ELF file")
	ErrUnsupported = errors.New("unsupported ELF file")
	ErrCorrupt     = errors.New("corrupt ELF file")
	ErrTooLarge    = errors.New("larger than the caller's limit")
	ErrCompressed  = errors.New("section is compressed (SHF_COMPRESSED)")
	ErrNoBits      = errors.New("section has no bytes in the file (SHT_NOBITS)")
	ErrNotMapped   = errors.New("address has no bytes in the file")
)

// An Error says what was refused, and where in the file.
type Error struct {
	Kind   error      // one of the sentinels above
	Offset FileOffset // of the structure, or of the bytes it points to
	Detail string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%v: at offset %#x: %s", e.Kind, uint64(e.Offset), e.Detail)
}

func (e *Error) Unwrap() error { return e.Kind }

func errorAt(kind error, off FileOffset, format string, args ...any) error {
	return &Error{Kind: kind, Offset: off, Detail: fmt.Sprintf(format, args...)}
}

// Bounds on what one file makes us allocate. Together they keep a File below 3 MiB,
// and below 10 KiB for the files that linkers make.
const (
	// maxSegments is the kernel's own limit: it refuses to execute a file whose
	// program headers take more than 64 KiB.
	maxSegments = 65536 / programHeaderSize
	// maxSections is far above what linked files have (about 40; a few hundred for
	// vmlinux). Only relocatable objects, which are refused, have a section per function.
	maxSections = 1 << 14
	// maxSectionNames bounds the section name table, about 300 bytes in practice.
	maxSectionNames = 1 << 20
	// maxSectionName bounds one name, so that 16384 sections which all name the start
	// of one endless string do not make us scan it 16384 times.
	maxSectionName = 256
)

// A File is a parsed ELF file. It is immutable and safe for concurrent use if its reader is.
type File struct {
	r           io.ReaderAt
	size        int64
	machine     Machine
	typ         Type
	entry       Address
	segments    []Segment
	sections    []Section
	sectionsErr error
	layout      Layout
}

// A Segment is one program header.
type Segment struct {
	Type, Flags uint32
	Off         FileOffset
	Addr        Address
	FileSize    uint64 // bytes taken from the file
	MemSize     uint64 // bytes in memory; what exceeds FileSize is zero
	Align       uint64
}

// A Section is one section header.
type Section struct {
	Name    string // "" when the name table does not hold it
	Type    uint32
	Flags   uint64
	Addr    Address
	Off     FileOffset
	Size    uint64
	Link    uint32
	Info    uint32
	EntSize uint64
}

// Parse reads the headers of the size bytes behind r. The File keeps r for later reads.
//
// Errors wrap [ErrNotELF], [ErrUnsupported], [ErrCorrupt] or what r returned.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size}
	var raw [fileHeaderSize]byte
	if err := f.readFileHeader(&raw); err != nil {
		return nil, err
	}
	h, err := decodeFileHeader(&raw)
	if err != nil {
		return nil, err
	}
	f.machine, f.typ, f.entry = h.machine, h.typ, h.entry
	if err := f.readSegments(h); err != nil {
		return nil, err
	}
	f.sections, f.sectionsErr = f.readSections(h)
	f.layout = newLayout(f.machine, f.segments)
	return f, nil
}

// Machine returns the architecture, EM_X86_64 or EM_AARCH64.
func (f *File) Machine() Machine { return f.machine }

// Type returns ET_EXEC for a file linked to fixed addresses, ET_DYN for a PIE or a library.
func (f *File) Type() Type { return f.typ }

// Entry returns e_entry, 0 where there is none.
func (f *File) Entry() Address { return f.entry }

// Size returns the file's size in bytes, as given to Parse.
func (f *File) Size() int64 { return f.size }

// Loaded returns the File without its sections, for keeping where only what is loaded is read: names of sections can be a megabyte.
func (f *File) Loaded() *File {
	loaded := *f
	loaded.sections = nil
	return &loaded
}

// Bytes returns the memory that the File holds, without its reader and the names of its sections.
func (f *File) Bytes() int {
	return int(unsafe.Sizeof(*f)) + f.layout.Bytes() + cap(f.segments)*int(unsafe.Sizeof(Segment{})) + cap(f.sections)*int(unsafe.Sizeof(Section{}))
}

// Segments returns the program headers in file order. The caller must not change them.
func (f *File) Segments() []Segment { return f.segments }

// Sections returns the section headers in file order, index 0 included, so that
// sh_link and st_shndx are indexes into it; nil if the file has none.
// The caller must not change them.
func (f *File) Sections() []Section { return f.sections }

// SectionsErr says why a file that claims section headers has none here; nil for a file
// that claims none and for a file whose section headers are fine.
func (f *File) SectionsErr() error { return f.sectionsErr }

// Section returns the first section of that name.
func (f *File) Section(name string) (Section, bool) {
	for _, s := range f.sections {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// SectionData reads a whole section of at most max bytes into memory of its own.
//
// Errors wrap [ErrNoBits], [ErrCompressed], [ErrTooLarge], [ErrCorrupt] (the section ends
// beyond the file) or what the reader returned.
func (f *File) SectionData(s Section, max int) ([]byte, error) {
	sr, err := f.SectionReader(s)
	if err != nil {
		return nil, err
	}
	if max < 0 || s.Size > uint64(max) {
		return nil, fmt.Errorf("section %q: %w", s.Name, errorAt(ErrTooLarge, s.Off, "%d bytes, limit %d", s.Size, max))
	}
	b := make([]byte, s.Size)
	if err := readFull(sr, b, 0); err != nil {
		return nil, fmt.Errorf("section %q: %w", s.Name, err)
	}
	return b, nil
}

// SectionReader returns a reader of the section's bytes, for sections read piece by piece.
// Its errors are those of [File.SectionData], except ErrTooLarge.
func (f *File) SectionReader(s Section) (*io.SectionReader, error) {
	switch {
	case s.Type == SHT_NOBITS:
		return nil, fmt.Errorf("section %q: %w", s.Name, ErrNoBits)
	case s.Flags&SHF_COMPRESSED != 0:
		return nil, fmt.Errorf("section %q: %w", s.Name, ErrCompressed)
	case !within(uint64(s.Off), s.Size, uint64(f.size)):
		return nil, fmt.Errorf("section %q: %w", s.Name,
			errorAt(ErrCorrupt, s.Off, "%d bytes end beyond the file's %d", s.Size, f.size))
	}
	return io.NewSectionReader(f.r, int64(s.Off), int64(s.Size)), nil
}

// ReadAtAddress reads len(p) bytes at an address through the PT_LOAD segments. The bytes
// are those of the file: nothing is relocated, and memory beyond p_filesz is not made up.
// Like an io.ReaderAt it returns an error, here wrapping [ErrNotMapped], with n < len(p).
func (f *File) ReadAtAddress(p []byte, a Address) (int, error) {
	for _, s := range f.segments {
		if s.Type != PT_LOAD || a < s.Addr || uint64(a-s.Addr) >= s.FileSize {
			continue
		}
		skip := uint64(a - s.Addr)
		n := min(uint64(len(p)), s.FileSize-skip)
		off := uint64(s.Off) + skip
		if !within(off, n, uint64(f.size)) {
			return 0, errorAt(ErrCorrupt, s.Off, "segment of %d bytes ends beyond the file's %d", s.FileSize, f.size)
		}
		if err := readFull(f.r, p[:n], int64(off)); err != nil {
			return 0, err
		}
		if n < uint64(len(p)) {
			return int(n), fmt.Errorf("address %#x: %w", uint64(a)+n, ErrNotMapped)
		}
		return int(n), nil
	}
	return 0, fmt.Errorf("address %#x: %w", uint64(a), ErrNotMapped)
}

// within reports whether [off, off+n) lies inside [0, size), without overflow.
func within(off, n, size uint64) bool { return off <= size && n <= size-off }

// overflows reports whether [start, start+n) leaves the 64-bit space.
func overflows(start, n uint64) bool { return n > math.MaxUint64-start }

// readFull fills p from off. The caller has checked the range against the file's size, so
// a reader that ends early means a file that shrank: ErrCorrupt, not io.EOF.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return errorAt(ErrCorrupt, FileOffset(off), "file ends after %d of %d bytes", n, len(p))
	default:
		return fmt.Errorf("read %d bytes at offset %#x: %w", len(p), off, err)
	}
}

var le = binary.LittleEndian
