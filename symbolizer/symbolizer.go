// Package symbolizer answers "this file, this offset: what name?" for native code, out of
// whatever the file and the host know about it.
//
// The caller supplies the bytes of one executable or library (an io.ReaderAt and a size) and
// where debug files are; it gets an [Image], which turns file offsets into frames. Nothing here
// knows of processes, mappings or samples: a file offset is all an Image asks for, so one
// Image serves every process that maps the file, wherever address randomisation put it.
//
// Names come, in this order, from
//
//   - the Go pclntab, stripped or not, with files, lines and inlined calls;
//   - .symtab, the symbol table of a file that was not stripped;
//   - a separate debug file, by build id or else by .gnu_debuglink, if there is no .symtab;
//   - .dynsym, what is left of a stripped library.
//
// The first source that knows an address names it; what none knows has no name, rather
// than that of its neighbour. [Image.FunctionStart] says which function it belongs to all the same, out of the table that
// the file's own exceptions are unwound by. Names are raw linkage names, to be demangled by who reads them.
//
// Whoever runs a process on the host controls the bytes of its files, and the links from them
// to debug files: what they cost is bounded in each package, and a source that
// lies is left out and reported by [Image.Problems].
package symbolizer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/pilotlight/pilotlight/symbolizer/callframe"
	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
	"github.com/pilotlight/pilotlight/symbolizer/pclntab"
)

// A Frame is one function at an address. Calls inlined there are frames of their own.
type Frame struct {
	Function  string // raw linkage name; Go's as package runtime gives it
	File      string // "" if not known
	Line      int    // 0 if not known
	StartLine int    // of the function, 0 if not known
	Inlined   bool   // into the function of the next frame
	Wrapper   bool   // made up by the Go compiler: a traceback does not show it as a caller
}

// Kind says what kind of code an image is known to hold. A Go binary with cgo has both.
type Kind uint8

const (
	KindGo     Kind = 1 << iota // it has a Go pclntab
	KindNative                  // it has symbols of code that the Go pclntab does not know
)

func (k Kind) String() string {
	switch k {
	case 0:
		return "unknown"
	case KindGo:
		return "go"
	case KindNative:
		return "native"
	case KindGo | KindNative:
		return "go+native"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// An Image holds the names of one executable or library. It is immutable and safe for
// concurrent use if its reader is.
type Image struct {
	layout   objfile.Layout
	buildID  string
	endsHash string
	goTable  *pclntab.Table
	symbols  []*elfsym.Table  // the better first
	starts   *callframe.Index // nil: the file has none
	kind     Kind
	problems []error
}

// Open reads the names of the size bytes behind r, and of the debug file they lead to.
//
// It fails only if r holds no ELF file of this architecture's family, with the errors of
// [objfile.Parse]. A file without names is an Image without names; sources that were there
// but could not be used are in [Image.Problems].
//
// A Go binary is read again at each look-up, and code without a name too, so r must stay readable as long as the Image is
// used; the caller closes it. Debug files are closed before Open returns.
func Open(r io.ReaderAt, size int64, o Options) (*Image, error) {
	f, err := objfile.Parse(r, size)
	if err != nil {
		return nil, err
	}
	m := &Image{layout: f.Layout(), buildID: hex.EncodeToString(f.BuildID())}
	m.problem(f.SectionsErr())
	hash, err := objfile.EndsHash(r, size)
	m.problem(err)
	m.endsHash = hex.EncodeToString(hash)

	m.goTable, err = pclntab.Open(f)
	if err != nil {
		m.goTable = nil
		if !errors.Is(err, pclntab.ErrNone) {
			m.problem(err)
		}
	}
	own := m.readSymbols(f)
	if own == nil || !own.FromSymtab() {
		// A Go binary needs no debug file: stripping leaves the pclntab.
		if m.goTable == nil {
			m.addSymbols(m.debugSymbols(f, o))
		}
	}
	m.addSymbols(own)
	m.starts, err = callframe.NewIndex(f)
	if err != nil && !errors.Is(err, callframe.ErrNone) {
		m.problem(err)
	}
	if m.goTable != nil {
		m.kind |= KindGo
	}
	return m, nil
}

// Lookup returns the frames at a file offset, innermost first: the function that holds it, after
// the calls inlined there. It returns false if nothing names the offset.
//
// A return address belongs to the call before it, so look up one byte less.
func (m *Image) Lookup(off objfile.FileOffset) ([]Frame, bool) {
	a, ok := m.layout.AddressOf(off)
	if !ok {
		return nil, false
	}
	if m.goTable != nil {
		if lines, ok := m.goTable.Lookup(a); ok && len(lines) > 0 {
			return goFrames(lines), true
		}
	}
	for _, t := range m.symbols {
		if s, ok := t.Lookup(a); ok {
			return []Frame{{Function: s.Name}}, true
		}
	}
	return nil, false
}

// FunctionStart returns the offset at which the function that holds an offset starts. It needs no name: stripped files tell it too, but not of
// all that was written by hand, of stubs all together, and of what a compiler moved out of a function as of another one. It returns false where nothing tells
// it. The error is that of the file's reader.
func (m *Image) FunctionStart(off objfile.FileOffset) (objfile.FileOffset, bool, error) {
	a, ok := m.layout.AddressOf(off)
	if !ok || m.starts == nil {
		return 0, false, nil
	}
	start, length, err := m.starts.Lookup(a)
	if err != nil || length == 0 {
		return 0, false, err
	}
	at := off - objfile.FileOffset(a-start) // in the same segment
	back, ok := m.layout.AddressOf(at)
	return at, ok && back == start, nil
}

func goFrames(lines []pclntab.Line) []Frame {
	frames := make([]Frame, len(lines))
	for i, l := range lines {
		frames[i] = Frame{Function: l.Function, File: l.File, Line: l.Line, StartLine: l.StartLine, Inlined: l.Inlined, Wrapper: l.Wrapper}
	}
	return frames
}

// BuildID returns the GNU build id in hexadecimal, "" if there is none. It is a hint: whoever
// made the file chose it.
func (m *Image) BuildID() string { return m.buildID }

// EndsHash returns that of [objfile.EndsHash] in hexadecimal, "" if the file could not be read. Every file has one, also where there is
// no build id.
func (m *Image) EndsHash() string { return m.endsHash }

// Kind returns what kind of code the image is known to hold; 0 if it has no names.
func (m *Image) Kind() Kind { return m.kind }

// HasSymbols reports whether anything in the image has a name.
func (m *Image) HasSymbols() bool { return m.kind != 0 }

// Problems returns why sources of names that are there were not used, or not whole: damaged tables,
// symbols beyond the bounds, debug files that do not match. The caller must not change them.
func (m *Image) Problems() []error { return m.problems }

// Bytes returns the memory that the image holds, without its reader.
func (m *Image) Bytes() int {
	n := int(unsafe.Sizeof(*m)) + m.layout.Bytes() + len(m.buildID) + len(m.endsHash) + cap(m.symbols)*int(unsafe.Sizeof(m.symbols[0]))
	if m.goTable != nil {
		n += m.goTable.Bytes()
	}
	for _, t := range m.symbols {
		n += t.Bytes()
	}
	if m.starts != nil {
		n += m.starts.Bytes()
	}
	return n
}

// readSymbols builds the symbol index of f, which may be the file itself or its debug file.
func (m *Image) readSymbols(f *objfile.File) *elfsym.Table {
	t, err := elfsym.Build(f)
	if err != nil {
		if !errors.Is(err, elfsym.ErrNone) {
			m.problem(err)
		}
		return nil
	}
	m.problem(t.Damage())
	if n := t.Dropped(); n > 0 {
		m.problem(fmt.Errorf("%d symbols beyond the bounds left out", n))
	}
	return t
}

// addSymbols makes t, if not nil, the next source of names. The symbols of a Go binary
// repeat its pclntab, and need memory only if there is something else among them.
func (m *Image) addSymbols(t *elfsym.Table) {
	if t == nil || m.goTable != nil && !m.knowsMoreThanGo(t) {
		return
	}
	m.symbols = append(m.symbols, t)
	m.kind |= KindNative
}

func (m *Image) problem(err error) {
	if err != nil {
		m.problems = append(m.problems, err)
	}
}
