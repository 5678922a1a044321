package pclntab

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// What Open refuses.
var (
	ErrNone        = errors.New("no Go pclntab")
	ErrUnsupported = errors.New("unsupported Go pclntab")
	ErrCorrupt     = errors.New("corrupt Go pclntab")
)

// A Table names the code addresses of one Go binary. It is safe for concurrent use; look-ups in the same Table
// wait for one another, as they share its cache.
type Table struct {
	header    header
	index     functabIndex
	text      objfile.Address // start of the Go code
	gofunc    objfile.Address // what inline trees count from; 0: inlined calls cannot be expanded
	wrapperID uint8           // funcID of compiler-made wrappers; 0: not known, none is left out

	mu     sync.Mutex
	blocks blocks
	name   []byte // scratch
}

// A Line is one function at an address.
type Line struct {
	Function  string // as [runtime.Func.Name] gives it: "main.(*T).Method", "pkg.Generic[...]"
	File      string // as compiled in, or "" if not known
	Line      int    // 0 if not known
	StartLine int    // of the func keyword, 0 if not known (before Go 1.20, and in generated code)
	Inlined   bool   // into the function of the next Line

	// Wrapper is set for method wrappers and for the closures of defer and go statements, which the compiler made up.
	// A traceback and a profile of the runtime do not show such a frame, unless it called panic.
	Wrapper bool
}

// Open finds the table of a binary. It keeps f, and holds on to memory as [Table.Bytes] says, at most 120 KB.
//
// Errors wrap [ErrNone] (not a Go binary), [ErrUnsupported] (older than Go 1.18, or more than one text section)
// or [ErrCorrupt].
func Open(f *objfile.File) (*Table, error) {
	headers, err := findHeaders(f)
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		t, openErr := newTable(f, h)
		if openErr == nil {
			return t, nil
		}
		if err == nil {
			err = openErr
		}
	}
	return nil, err
}

func newTable(f *objfile.File, h header) (*Table, error) {
	index, err := newFunctabIndex(f, h)
	if err != nil {
		return nil, err
	}
	t := &Table{header: h, index: index}
	t.blocks.f = f
	t.blocks.regions[0], _ = fileRegion(f, h.addr)

	md, ok := findModuledata(f, h, index.entries[0], index.end)
	if !ok {
		md.text, ok = headerTextStart(f, h)
	}
	if !ok {
		return nil, fmt.Errorf("%w: no moduledata that agrees with the table at %#x", ErrUnsupported, uint64(h.addr))
	}
	if md.text > math.MaxUint64-objfile.Address(index.end) {
		return nil, fmt.Errorf("%w: text at %#x", ErrCorrupt, uint64(md.text))
	}
	t.text = md.text
	if region, ok := fileRegion(f, md.gofunc); ok && md.gofunc != 0 {
		t.gofunc = md.gofunc
		t.blocks.regions[1] = region
	}
	t.probe()
	return t, nil
}

// Bytes returns the memory the Table holds: the index of functions, the cached blocks and itself. The cache
// fills with use.
func (t *Table) Bytes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(unsafe.Sizeof(*t)) + 4*cap(t.index.entries) + t.blocks.bytes() + cap(t.name)
}

// Lookup returns the functions at a, innermost first; the last is the physical one. For a return address the caller
// passes the address less one. It returns false if a is not in a Go function or the table is broken there.
//
// Wrappers are left out as [runtime/pprof] leaves them out: where they only surround an inlined call.
// A wrapper that is alone at its address is returned and marked.
//
// Where an inline tree cannot be read, the physical function stands alone, and an address in a call
// inlined into it has no line, because the one in the table is not of that function.
func (t *Table) Lookup(a objfile.Address) ([]Line, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn, pc, ok := t.function(a)
	if !ok {
		return nil, false
	}
	s := t.stepper()
	lines, ok := t.expand(s, fn, pc)
	if !ok {
		lines, ok = t.physical(s, fn, pc)
	}
	return lines, ok
}

// Names reports whether a is in a Go function that has a name. It costs a fraction of Lookup.
func (t *Table) Names(a objfile.Address) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn, _, ok := t.function(a)
	if !ok {
		return false
	}
	_, ok = t.symbolName(fn.name)
	return ok
}

// function finds the function that holds a, and gives a as an offset from the start of the text.
func (t *Table) function(a objfile.Address) (fn function, pc uint32, ok bool) {
	if a < t.text || a-t.text >= objfile.Address(t.index.end) {
		return function{}, 0, false
	}
	pc = uint32(a - t.text)
	i, ok := t.index.find(&t.blocks, &t.header, pc)
	if !ok {
		return function{}, 0, false
	}
	fn, ok = readFunction(&t.blocks, &t.header, i)
	return fn, pc, ok && pc >= fn.entry && pc < fn.end
}

func (t *Table) stepper() *stepper {
	return &stepper{blocks: &t.blocks, pctab: t.header.pctab, quantum: t.header.quantum, budget: maxSteps}
}

// expand follows the inlined calls at pc out to fn.
func (t *Table) expand(s *stepper, fn function, pc uint32) ([]Line, bool) {
	lines := make([]Line, 0, 2)
	for depth := 0; depth < maxInlineDepth; depth++ {
		i, ok := s.value(fn.inlineIndex, fn.entry, pc)
		if !ok {
			return nil, false
		}
		name, startLine, funcID := fn.name, fn.startLine, fn.funcID
		var call inlinedCall
		if i >= 0 {
			if call, ok = t.readInlinedCall(fn, i); !ok {
				return nil, false
			}
			name, startLine, funcID = call.name, call.startLine, call.funcID
		}
		line, ok := t.line(name, startLine, funcID)
		if !ok {
			return nil, false
		}
		line.File, line.Line = t.position(s, fn, pc)
		line.Inlined = i >= 0
		lines = append(lines, line)
		if i < 0 {
			return dropWrappers(lines), true
		}
		pc = fn.entry + call.parentPC
	}
	return nil, false
}

// physical is expand for a broken or missing inline tree.
func (t *Table) physical(s *stepper, fn function, pc uint32) ([]Line, bool) {
	line, ok := t.line(fn.name, fn.startLine, fn.funcID)
	if !ok {
		return nil, false
	}
	if i, ok := s.value(fn.inlineIndex, fn.entry, pc); ok && i < 0 {
		line.File, line.Line = t.position(s, fn, pc)
	} else {
		line.File, _ = t.position(s, fn, fn.entry)
	}
	return []Line{line}, true
}

// dropWrappers leaves out wrappers unless nothing would be left. The runtime keeps those that call a function of the panic
// family; none of these is ever inlined, so here there are none to keep.
func dropWrappers(lines []Line) []Line {
	kept := lines[:0]
	for i, line := range lines {
		if line.Wrapper && (len(kept) > 0 || i < len(lines)-1) {
			continue
		}
		kept = append(kept, line)
	}
	kept[len(kept)-1].Inlined = false
	return kept
}

func (t *Table) line(name uint32, startLine int32, funcID uint8) (Line, bool) {
	symbol, ok := t.symbolName(name)
	return Line{
		Function:  printedName(symbol),
		StartLine: int(startLine),
		Wrapper:   t.wrapperID != 0 && funcID == t.wrapperID,
	}, ok
}

// symbolName returns the name at an offset of funcnametab, valid until the next call.
func (t *Table) symbolName(off uint32) ([]byte, bool) {
	var ok bool
	t.name, ok = t.blocks.appendString(t.name[:0], t.header.funcnametab, off)
	return t.name, ok && len(t.name) > 0
}

// printedName writes [...] for type arguments, which the symbol gives in full: "pkg.Max[go.shape.int]".
func printedName(symbol []byte) string {
	first, last := bytes.IndexByte(symbol, '['), bytes.LastIndexByte(symbol, ']')
	if first < 0 || last < first {
		return string(symbol)
	}
	return string(symbol[:first]) + "[...]" + string(symbol[last+1:])
}

// position returns the file and line at pc of fn, "" and 0 if the tables do not tell.
func (t *Table) position(s *stepper, fn function, pc uint32) (string, int) {
	file, ok := s.value(fn.pcfile, fn.entry, pc)
	if !ok || file < 0 {
		return "", 0
	}
	line, ok := s.value(fn.pcln, fn.entry, pc)
	if !ok || line < 0 {
		return "", 0
	}
	i := uint64(fn.cu) + uint64(file)
	if (i+1)*4 > t.header.cutab.size() {
		return "", 0
	}
	off, ok := t.blocks.uint32(t.header.cutab.start + objfile.Address(i*4))
	if !ok {
		return "", 0
	}
	t.name, ok = t.blocks.appendString(t.name[:0], t.header.filetab, off)
	if !ok {
		return "", 0
	}
	return string(t.name), int(line)
}
