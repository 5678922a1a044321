package unwind

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A section of call frame information. .eh_frame and .debug_frame are lists of entries that differ in how they refer to each other:
//
//	.eh_frame                                       .debug_frame
//	length u32 (or ~0 u32, length u64)              the same
//	id u32: 0 in a CIE, in an FDE how far           id u32 (u64 where the length is): ~0 in a CIE,
//	        before this field its CIE stands                in an FDE the offset of its CIE
//
// A CIE, common to many functions:
//
//	version u8, augmentation (NUL-terminated), in version 4 size of addresses u8, of segments u8,
//	code alignment uleb, data alignment sleb, column of the return address (u8 in version 1, uleb later),
//	with z in the augmentation the length of what belongs to it, uleb, and for each of its letters:
//	    R encoding of the FDEs' addresses u8    L encoding u8    P encoding u8, pointer    S, B, G nothing
//	instructions
//
// An FDE, one function:
//
//	start, length (both encoded as the CIE says), with z the length of more, uleb, and that, instructions
type section struct {
	name  string
	debug bool
	in    cursor
	cies  map[int]*cie // by position
	// open: the section's end is not known, but that of what it lies in. A zero length ends it.
	open bool
}

type cie struct {
	section      *section
	codeAlign    uint64
	dataAlign    int64
	returnColumn uint64
	encoding     uint8
	augmented    bool // begins with z
	signal       bool
	initial      state
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

// functions calls add for each FDE whose code is in the file, and returns why the section was not read to its end.
func (s *section) functions(c *compiler) error {
	// Entries have some 50 bytes.
	c.functions = slices.Grow(c.functions, s.in.end/40)
	for in := s.in; !in.empty(); {
		at := in.pos
		length, wide := uint64(in.uint32()), false
		if length == 0xffffffff {
			length, wide = in.uint64(), true
		}
		if length == 0 && !in.failed {
			if s.open {
				return nil
			}
			continue // the end of what one input file brought
		}
		if in.failed || length > uint64(in.end-in.pos) {
			return s.damage(at, "entry of %d bytes", length)
		}
		entry := in.sub(in.pos, in.pos+int(length))
		in.pos = entry.end
		cieAt, isCIE := s.reference(&entry, wide)
		switch {
		case isCIE:
		case entry.failed:
			return s.damage(at, "entry without an id")
		default:
			if err := s.function(c, entry, s.cieAt(c, cieAt)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *section) damage(at int, format string, args ...any) error {
	return fmt.Errorf("%s+%#x: %w: %s", s.name, at, objfile.ErrCorrupt, fmt.Sprintf(format, args...))
}

// reference reads an entry's id: whether it is a CIE, or else where that of this function stands.
func (s *section) reference(entry *cursor, wide bool) (cieAt uint64, isCIE bool) {
	at := uint64(entry.pos)
	id := uint64(entry.uint32())
	if !s.debug {
		return at - id, id == 0 // a difference that wraps points beyond the section
	}
	if wide {
		id |= uint64(entry.uint32()) << 32
		return id, id == ^uint64(0)
	}
	return id, id == 0xffffffff
}

// cieAt reads the CIE at a position; nil is none that can be used.
func (s *section) cieAt(c *compiler, at uint64) *cie {
	if at >= uint64(s.in.end) {
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
	in := s.in.sub(pos, s.in.end)
	length, wide := uint64(in.uint32()), false
	if length == 0xffffffff {
		length, wide = in.uint64(), true
	}
	if in.failed || length > uint64(in.end-in.pos) {
		return nil
	}
	if length > maxCIE { // they may overlap, and each is read
		return nil
	}
	in.end = in.pos + int(length)
	if _, isCIE := s.reference(&in, wide); !isCIE {
		return nil
	}
	k := &cie{section: s}
	version := in.uint8()
	augmentation := in.cstring()
	if version == 4 {
		if addressBytes, segmentBytes := in.uint8(), in.uint8(); addressBytes != 8 || segmentBytes != 0 {
			return nil
		}
	}
	k.codeAlign, k.dataAlign = in.uleb(), in.sleb()
	if version == 1 {
		k.returnColumn = uint64(in.uint8())
	} else {
		k.returnColumn = in.uleb()
	}
	if !k.augment(&in, augmentation) || in.failed || version == 0 || version == 2 || version > 4 {
		return nil
	}
	m := interpreter{roles: c.roles, cie: k, in: in}
	if !m.run(nil) {
		return nil
	}
	k.initial = m.state
	return k
}

// augment reads what the letters of the augmentation stand for.
func (k *cie) augment(in *cursor, augmentation string) bool {
	letters, augmented := strings.CutPrefix(augmentation, "z")
	if !augmented {
		return augmentation == ""
	}
	k.augmented = true
	length := in.uleb()
	if in.failed || length > uint64(in.end-in.pos) {
		return false
	}
	more := in.sub(in.pos, in.pos+int(length))
	in.pos = more.end
	for _, letter := range letters {
		switch letter {
		case 'R':
			k.encoding = more.uint8()
		case 'L':
			more.uint8()
		case 'P':
			// The personality routine; its encoding may be one that we do not use.
			if encoding := more.uint8(); encoding&peApplication != peAligned {
				more.value(encoding)
			} else {
				return false
			}
		case 'S':
			k.signal = true
		case 'B', 'G': // arm64: return addresses signed by key B; tagged stacks
		default:
			return false // what follows is not known
		}
	}
	return !more.failed
}

// function adds the function of an FDE. What is not in the file, such as a function that the linker dropped, is left out.
func (s *section) function(c *compiler, entry cursor, k *cie) error {
	if k == nil {
		c.stats.Broken++
		return nil
	}
	start := entry.pointer(k.encoding)
	length := entry.value(k.encoding & peFormat)
	if k.augmented {
		entry.take(entry.uleb())
	}
	if entry.failed {
		c.stats.Broken++
		return nil
	}
	off, room, ok := c.place(start)
	if !ok || length == 0 {
		return nil
	}
	if len(c.functions) >= maxFunctions {
		return tooLarge("more than %d functions", maxFunctions)
	}
	c.functions = append(c.functions, function{
		start: off, length: uint32(min(length, room, maxSpan)), addr: start, cie: k, from: uint32(entry.pos), to: uint32(entry.end),
	})
	return nil
}
