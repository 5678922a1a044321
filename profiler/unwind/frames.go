package unwind

import (
	"fmt"
	"slices"

	"github.com/pilotlight/pilotlight/symbolizer/callframe"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A section of call frame information.
type section struct {
	name  string
	debug bool
	in    callframe.Cursor
	cies  map[int]*cie // by position
	// open: the section's end is not known, but that of what it lies in. A zero length ends it.
	open bool
}

type cie struct {
	callframe.CIE
	section *section
	initial state
}

// A function is a stretch of code, and what tells of its frame. There are many.
type function struct {
	start    objfile.FileOffset
	addr     objfile.Address // of start
	cie      *cie            // of an FDE
	length   uint32          // in bytes
	from, to uint32          // its instructions, of an FDE; its stacks, of a Go function; its rule
	kind     functionKind
}

func (f *function) end() objfile.FileOffset { return f.start + objfile.FileOffset(f.length) }

type functionKind uint8

const (
	fde functionKind = iota
	goFunction
	ruled // of one rule, by its instructions
)

// functions adds each FDE whose code is in the file, and returns why the section was not read to its end.
func (s *section) functions(c *compiler) error {
	// Entries have some 50 bytes.
	c.functions = slices.Grow(c.functions, s.in.End/40)
	for in := s.in; !in.Empty(); {
		at := in.Pos
		entry := callframe.ReadEntry(&in, s.debug)
		switch {
		case entry.Cut:
			return s.damage(at, "entry of %d bytes", entry.Length)
		case entry.Length == 0:
			if s.open {
				return nil
			} // else the end of what one input file brought
		case entry.IsCIE:
		case entry.Failed:
			return s.damage(at, "entry without an id")
		default:
			if err := s.function(c, entry.Cursor, s.cieAt(c, entry.CIE)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *section) damage(at int, format string, args ...any) error {
	return fmt.Errorf("%s+%#x: %w: %s", s.name, at, objfile.ErrCorrupt, fmt.Sprintf(format, args...))
}

// cieAt reads the CIE at a position; nil is none that can be used.
func (s *section) cieAt(c *compiler, at uint64) *cie {
	if at >= uint64(s.in.End) {
		return nil
	}
	pos := int(at)
	known, ok := s.cies[pos]
	if !ok && len(s.cies) < maxCIEs {
		known = s.readCIE(c, pos)
		s.cies[pos] = known
	}
	return known
}

func (s *section) readCIE(c *compiler, pos int) *cie {
	in := s.in.Sub(pos, s.in.End)
	entry := callframe.ReadEntry(&in, s.debug)
	if entry.Cut || entry.Failed || !entry.IsCIE || entry.Length > maxCIE { // they may overlap, and each is read
		return nil
	}
	common, ok := callframe.ReadCIE(entry.Cursor)
	if !ok {
		return nil
	}
	k := &cie{CIE: common, section: s}
	m := interpreter{roles: c.roles, cie: k, in: k.Instructions}
	if !m.run(nil) {
		return nil
	}
	k.initial = m.state
	return k
}

// function adds the function of an FDE. What is not in the file, such as a function that the linker dropped, is left out.
func (s *section) function(c *compiler, entry callframe.Cursor, k *cie) error {
	if k == nil {
		c.stats.Broken++
		return nil
	}
	f, ok := k.ReadFDE(entry)
	if !ok {
		c.stats.Broken++
		return nil
	}
	off, room, ok := c.place(f.Start)
	if !ok || f.Length == 0 {
		return nil
	}
	if len(c.functions) >= maxFunctions {
		return tooLarge("more than %d functions", maxFunctions)
	}
	c.functions = append(c.functions, function{
		start: off, length: uint32(min(f.Length, room, maxSpan)), addr: f.Start, cie: k,
		from: uint32(f.Instructions.Pos), to: uint32(f.Instructions.End),
	})
	return nil
}
