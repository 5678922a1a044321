package objfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
)

const (
	// maxNotes bounds the bytes read in search of one note, over all note segments and
	// sections. A file has some hundred bytes of them.
	maxNotes = 64 << 10
	// maxBuildID bounds a build id. Linkers make 8, 16 or 20 bytes; --build-id=0x...
	// takes any length.
	maxBuildID = 64
	// maxGoBuildID bounds Go's, four base64 hashes and three slashes: 83 bytes.
	maxGoBuildID = 256
	// maxDebugLink is a file name (NAME_MAX is 255), its padding and a CRC.
	maxDebugLink = 256 + 3 + 4

	noteGNUBuildID = 3 // NT_GNU_BUILD_ID of owner "GNU"
	noteGoBuildID  = 4 // of owner "Go"
)

// BuildID returns the GNU build id, nil if there is none that can be read.
//
// It is a hint of identity and no proof: whoever makes the file chooses it.
func (f *File) BuildID() []byte {
	id := f.note("GNU\x00", noteGNUBuildID)
	if len(id) == 0 || len(id) > maxBuildID {
		return nil
	}
	return bytes.Clone(id)
}

// GoBuildID returns the id that the Go linker wrote ("actionID/.../contentID"), "" if none.
func (f *File) GoBuildID() string {
	id := f.note("Go\x00\x00", noteGoBuildID)
	if len(id) > maxGoBuildID {
		return ""
	}
	return string(id)
}

// EndsHash identifies the size bytes behind r by their ends, as OpenTelemetry's process.executable.build_id.htlhash does: the
// first half of the SHA-256 of
//
//	first 4096 bytes | last 4096 bytes | size as 64 bits, big-endian
//
// In a file that is shorter both are the whole file.
func EndsHash(r io.ReaderAt, size int64) ([]byte, error) {
	const end = 4096
	part := make([]byte, min(end, size))
	h := sha256.New()
	for _, off := range []int64{0, size - int64(len(part))} {
		if err := readFull(r, part, off); err != nil {
			return nil, err
		}
		h.Write(part)
	}
	_ = binary.Write(h, binary.BigEndian, size) // a hash refuses nothing
	return h.Sum(nil)[:sha256.Size/2], nil
}

// DebugLink returns what section .gnu_debuglink says: the name of the file that holds the
// debug information, and the CRC-32 (IEEE) of that whole file. The name is free of slashes,
// and neither "." nor "..".
//
//	6c 69 62 78 2e 64 65 62 75 67 00 00  "libx.debug", zeros up to a multiple of 4
//	ef be ad de                          CRC-32
func (f *File) DebugLink() (name string, crc uint32, ok bool) {
	s, found := f.Section(".gnu_debuglink")
	if !found {
		return "", 0, false
	}
	b, err := f.SectionData(s, maxDebugLink)
	if err != nil {
		return "", 0, false
	}
	n := bytes.IndexByte(b, 0)
	at := (n + 1 + 3) &^ 3
	if n <= 0 || at+4 > len(b) {
		return "", 0, false
	}
	name = string(b[:n])
	if name == "." || name == ".." || bytes.IndexByte(b[:n], '/') >= 0 {
		return "", 0, false
	}
	return name, le.Uint32(b[at:]), true
}

// note finds a note by owner and type: in the segments, as the kernel does for the build
// ids of its own records, then in the sections, which debug files keep in order when their
// program headers are those of the file they came from.
func (f *File) note(owner string, typ uint32) []byte {
	budget := uint64(maxNotes)
	for _, s := range f.segments {
		if s.Type != PT_NOTE || s.FileSize > budget {
			continue
		}
		budget -= s.FileSize
		b, err := f.readTable("notes", s.Off, s.FileSize)
		if err != nil {
			continue
		}
		if d := findNote(b, s.Align, owner, typ); d != nil {
			return d
		}
	}
	for _, s := range f.sections {
		if s.Type != SHT_NOTE || s.Size > budget {
			continue
		}
		budget -= s.Size
		b, err := f.SectionData(s, maxNotes)
		if err != nil {
			continue
		}
		if d := findNote(b, 4, owner, typ); d != nil {
			return d
		}
	}
	return nil
}

// findNote walks notes:
//
//	namesz:4 descsz:4 type:4 | owner, padded | desc, padded
//
// Padding is to 4 bytes, or to 8 in a segment aligned to 8 (.note.gnu.property).
func findNote(b []byte, align uint64, owner string, typ uint32) []byte {
	const header = 12
	if align != 8 {
		align = 4
	}
	pad := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(b) >= header {
		nameSize, descSize := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		descAt := pad(header + nameSize)
		end := descAt + descSize // sums of 32-bit numbers: no overflow
		if end > uint64(len(b)) {
			return nil
		}
		if le.Uint32(b[8:]) == typ && string(b[header:header+nameSize]) == owner {
			return b[descAt:end]
		}
		b = b[min(pad(end), uint64(len(b))):]
	}
	return nil
}
