package symbolizer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Options say where the debug files of an image are. The zero value looks in the host's
// /usr/lib/debug, by build id and by link name.
type Options struct {
	// Path is where the image stands, in the name space of OpenDebug. A .gnu_debuglink is
	// relative to its directory. If empty, links are looked up in DebugDirs alone.
	Path string
	// DebugDirs are the roots of debug file trees, tried in order.
	// nil means /usr/lib/debug; an empty slice means none.
	DebugDirs []string
	// OpenDebug opens a candidate for the debug file, and returns its size; an error that wraps
	// [fs.ErrNotExist] is no problem, just the next candidate. Open calls Close on the Closer if it is not nil.
	// nil means regular files of the host.
	OpenDebug func(path string) (io.ReaderAt, int64, io.Closer, error)
}

const defaultDebugDir = "/usr/lib/debug"

// maxLinkedDebugFile bounds the debug files found by link, since their CRC makes us read
// them whole. Those found by build id are of any size: only their symbols are read.
const maxLinkedDebugFile = 256 << 20

func (o Options) debugDirs() []string {
	if o.DebugDirs == nil {
		return []string{defaultDebugDir}
	}
	return o.DebugDirs
}

// errMismatch is why a debug file that was found is not the one of the image.
var errMismatch = errors.New("debug file does not match")

// debugSymbols returns the symbols of the image's debug file, nil if none can be used.
func (m *Image) debugSymbols(f *objfile.File, o Options) *elfsym.Table {
	open := o.OpenDebug
	if open == nil {
		open = openRegular
	}
	for _, c := range debugCandidates(f, o) {
		t, err := m.tryDebugFile(open, c)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.problem(fmt.Errorf("debug file %s: %w", c.path, err))
		}
		if t != nil {
			return t
		}
	}
	return nil
}

// A debugCandidate is a path where the debug file may be, and how to know that it is.
type debugCandidate struct {
	path    string
	buildID string // to be found in it; if empty, the CRC decides
	crc     uint32
}

// debugCandidates lists where the debug file of f may be, as gdb does: by build id
//
//	DIR/.build-id/ab/cdef0123.debug
//
// which a forged id makes one of the files there, and nothing else; then by link name
//
//	/path/of/NAME   /path/of/.debug/NAME   DIR/path/of/NAME
func debugCandidates(f *objfile.File, o Options) []debugCandidate {
	var cs []debugCandidate
	dirs := o.debugDirs()
	if id := hex.EncodeToString(f.BuildID()); len(id) > 2 {
		for _, dir := range dirs {
			cs = append(cs, debugCandidate{path: path.Join(dir, ".build-id", id[:2], id[2:]+".debug"), buildID: id})
		}
	}
	name, crc, ok := f.DebugLink()
	if !ok {
		return cs
	}
	link := func(elem ...string) {
		if p := path.Join(elem...); p != o.Path { // a link to oneself leads nowhere
			cs = append(cs, debugCandidate{path: p, crc: crc})
		}
	}
	at := ""
	if o.Path != "" {
		at = path.Dir(o.Path)
		link(at, name)
		link(at, ".debug", name)
	}
	for _, dir := range dirs {
		link(dir, at, name)
	}
	return cs
}

// tryDebugFile returns the symbols of the file at c.path if it is the one looked for.
func (m *Image) tryDebugFile(open func(string) (io.ReaderAt, int64, io.Closer, error), c debugCandidate) (*elfsym.Table, error) {
	r, size, closer, err := open(c.path)
	if err != nil {
		return nil, err
	}
	if closer != nil {
		defer closer.Close()
	}
	if c.buildID == "" {
		if err := checkCRC(r, size, c.crc); err != nil {
			return nil, err
		}
	}
	f, err := objfile.Parse(r, size)
	if err != nil {
		return nil, err
	}
	// A link's file must not carry another build id either.
	if id := hex.EncodeToString(f.BuildID()); id != m.buildID && (c.buildID != "" || id != "") {
		return nil, fmt.Errorf("%w: build id %q, want %q", errMismatch, id, m.buildID)
	}
	return m.readSymbols(f), nil
}

func checkCRC(r io.ReaderAt, size int64, want uint32) error {
	if size > maxLinkedDebugFile {
		return fmt.Errorf("%w: %d bytes are more than the %d read for a CRC", errMismatch, size, maxLinkedDebugFile)
	}
	h := crc32.NewIEEE()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(r, 0, size), make([]byte, 256<<10)); err != nil {
		return err
	}
	if got := h.Sum32(); got != want {
		return fmt.Errorf("%w: CRC %#08x, want %#08x", errMismatch, got, want)
	}
	return nil
}
