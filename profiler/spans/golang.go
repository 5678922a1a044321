package spans

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// goLayout is where the runtime of a release, and those after it, keeps things. It is the same for both architectures.
type goLayout struct {
	minor           int // of the first such release: go1.minor
	m, curg, labels uint16
	slice           bool // labels are a slice, no map
}

// goLayouts are from the DWARF of programs that these releases built; see TestGoLayouts. The newest holds for what comes after, until
// that is here as well: a wrong place has no ids in it that look like any.
var goLayouts = []goLayout{
	{26, 48, 184, 352, true},
	{25, 48, 184, 344, true},
	{24, 48, 192, 352, true},
	{23, 48, 192, 352, false},
	{21, 48, 192, 344, false},
	{18, 48, 192, 360, false},
}

// setter is the function by which labels are set. The linker leaves it out of programs that set none.
const setter = "runtime/pprof.runtime_setProfLabel"

// findGo says where a Go program has its labels; ErrNone where it is none, or sets none.
func findGo(f *objfile.File, goroutine *int32) (Source, error) {
	version, err := goVersion(f)
	if err != nil {
		return Source{}, err
	}
	if sets, err := setsLabels(f); err != nil || !sets {
		return Source{}, errors.Join(err, ErrNone)
	}
	if !isProgram(f) {
		return Source{}, errors.New("labels of a Go library: only the loader knows where it keeps the g")
	}
	for _, l := range goLayouts {
		if version < l.minor {
			continue
		}
		s := Source{Kind: bpf.SpanSourceGo, M: l.m, Curg: l.curg, Labels: l.labels}
		if !l.slice {
			s.Flags |= bpf.SpanGoMap
		}
		return placeG(f, s, goroutine)
	}
	return Source{}, fmt.Errorf("labels of Go 1.%d: want 1.18 or newer", version)
}

// buildInfo is what begins the section, then follows the size of pointers (no more of use) and flags:
//
//	"\xff Go buildinf:" 08 02 ... at 32: length of the version as varint, "go1.26.8"
const buildInfo = "\xff Go buildinf:"

// goVersion gives the N of Go 1.N; ErrNone where the file is no Go program.
func goVersion(f *objfile.File) (minor int, err error) {
	s, ok := f.Section(".go.buildinfo")
	if !ok {
		return 0, ErrNone
	}
	r, err := f.SectionReader(s)
	if err != nil {
		return 0, err
	}
	head := make([]byte, 128)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	if head = head[:n]; len(head) < 33 || string(head[:len(buildInfo)]) != buildInfo || head[15]&2 == 0 {
		return 0, fmt.Errorf("%s: %w: not as Go 1.18 and newer write it", s.Name, objfile.ErrCorrupt)
	}
	length, size := binary.Uvarint(head[32:])
	if head = head[32+max(size, 0):]; size <= 0 || length > uint64(len(head)) {
		return 0, fmt.Errorf("%s: %w: the version has no end", s.Name, objfile.ErrCorrupt)
	}
	return parseVersion(string(head[:length]))
}

// parseVersion reads the N out of "go1.26.8", "go1.21rc2", "go1.24-custom X:..." or "devel go1.27-c4f2..."
func parseVersion(version string) (minor int, err error) {
	_, rest, ok := strings.Cut(version, "go1.")
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	if minor, err = strconv.Atoi(rest[:digits]); !ok || err != nil {
		return 0, fmt.Errorf("version %q of Go: its layout is not known", version)
	}
	return minor, nil
}

// setsLabels looks for the name of the function among those of the program.
func setsLabels(f *objfile.File) (bool, error) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab", ".data.rel.ro"} { // GNU ld folds it into the last one
		s, ok := f.Section(name)
		if !ok {
			continue
		}
		r, err := f.SectionReader(s)
		if err != nil {
			return false, err
		}
		if found, err := holds(r, []byte("\x00"+setter+"\x00")); err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// maxNames bounds what is read for the names of functions, which stand first in their section.
const maxNames = 64 << 20

// holds says whether a text is in what r reads.
func holds(r *io.SectionReader, text []byte) (bool, error) {
	const piece = 256 << 10
	buffer := make([]byte, piece+len(text))
	for at := int64(0); at < min(r.Size(), maxNames); at += piece {
		n, err := r.ReadAt(buffer, at)
		if err != nil && err != io.EOF {
			return false, err
		}
		if bytes.Contains(buffer[:n], text) {
			return true, nil
		}
	}
	return false, nil
}

// placeG says where a thread's g is named.
//
// On x86-64 it is a thread-local variable, which lies 8 bytes below the thread pointer where there are no others; where C is linked in,
// the symbol or the code tells. On arm64 it is in a register. Where C is linked in, that is C's meanwhile, and the g is
// in a thread-local variable as well.
func placeG(f *objfile.File, s Source, goroutine *int32) (Source, error) {
	block, hasBlock := tlsSegment(f)
	others := hasBlock && block.MemSize > 8
	if f.Machine() == objfile.EM_AARCH64 && !others && !needsLibraries(f) {
		s.Kind = bpf.SpanSourceGoRegister
		return s, nil
	}
	if goroutine != nil {
		s.Offset = int64(*goroutine)
		return s, nil
	}
	if !hasBlock && f.Machine() == objfile.EM_X86_64 {
		s.Offset = -8
		return s, nil
	}
	if !others {
		s.Offset = staticOffset(f.Machine(), block, 0)
		return s, nil
	}
	name := "runtime.tlsg"
	if f.Machine() == objfile.EM_AARCH64 {
		name = "runtime.tls_g"
	}
	_, value, err := findSymbol(f, objfile.SHT_SYMTAB, name)
	if errors.Is(err, ErrNone) {
		return Source{}, errors.New("labels of a Go program with thread-local variables of C and without symbols: it is not known where it keeps the g")
	}
	s.Offset = staticOffset(f.Machine(), block, value)
	return s, err
}

func needsLibraries(f *objfile.File) (needs bool) {
	dynamic(f, func(tag, _ uint64) { needs = needs || tag == dtNeeded })
	return needs
}
