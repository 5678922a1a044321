package otlp

import (
	"encoding/binary"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// numbering gives what stacks are made of numbers that stay from one profile to the next, equal things the same: most stacks of an interval are those of the
// one before. What a message has of them is looked up in lists by these numbers, and nothing is hashed or demangled again. Not safe for concurrent use.
type numbering struct {
	text func(string) string // makes a string fit for messages

	functions  []numberedFunction
	byFunction map[numberedFunction]uint32
	ofFunction map[kindFunction]uint32

	locations  []numberedLocation
	byContent  map[string]uint32
	ofLocation map[*profile.Location]uint32
	mappings   map[*profile.Mapping]uint32 // for byContent alone

	ofStack map[*profile.Stack][]uint32
	frames  int // in ofStack
	room    chunk
	buffer  []byte
}

// chunk gives out room for numbers. Those of stacks that come one after the other stand beside one another, as they will be read.
type chunk struct{ free []uint32 }

func (c *chunk) take(n int) []uint32 {
	if n > len(c.free) {
		c.free = make([]uint32, max(n, 1<<12))
	}
	taken := c.free[:0:n]
	c.free = c.free[n:]
	return taken
}

type numberedFunction struct {
	name, system, file string
	startLine          int64
}

type numberedLocation struct {
	kind    profile.FrameKind
	mapping *profile.Mapping
	address uint64
	lines   []numberedLine
}

type numberedLine struct {
	function uint32
	line     int64
}

// Bounds of what is remembered: beyond them it begins anew with the next profile. The frames take 4 MiB.
const (
	maxNumbers = 1 << 16
	maxFrames  = 1 << 20
)

// begin makes room, before a profile.
func (n *numbering) begin() {
	if n.ofStack != nil && len(n.locations) <= maxNumbers && n.frames <= maxFrames {
		return
	}
	*n = numbering{
		text: n.text, byFunction: make(map[numberedFunction]uint32), ofFunction: make(map[kindFunction]uint32), byContent: make(map[string]uint32),
		ofLocation: make(map[*profile.Location]uint32), mappings: make(map[*profile.Mapping]uint32), ofStack: make(map[*profile.Stack][]uint32),
	}
}

// stack gives the numbers of a side's locations; the last one says why callers are missing, where they are.
func (n *numbering) stack(s *profile.Stack) []uint32 {
	if numbers, ok := n.ofStack[s]; ok {
		return numbers
	}
	numbers := n.room.take(len(s.Locations) + 1)
	for _, l := range s.Locations {
		number, ok := n.ofLocation[l]
		if !ok {
			number = n.location(l)
			n.ofLocation[l] = number
		}
		numbers = append(numbers, number)
	}
	if s.Truncated != "" {
		numbers = append(numbers, n.location(&profile.Location{Lines: []profile.Line{{Function: &profile.Function{Name: pprof.Truncated(s.Truncated)}}}}))
	}
	if n.frames < 2*maxFrames { // one profile may have more than that
		n.ofStack[s] = numbers
		n.frames += len(numbers)
	}
	return numbers
}

func (n *numbering) location(l *profile.Location) uint32 {
	out := numberedLocation{l.Kind, l.Mapping, l.Address, make([]numberedLine, len(l.Lines))}
	mapping, ok := n.mappings[l.Mapping]
	if !ok {
		mapping = uint32(len(n.mappings))
		n.mappings[l.Mapping] = mapping
	}
	n.buffer = binary.NativeEndian.AppendUint32(n.buffer[:0], mapping)
	n.buffer = binary.NativeEndian.AppendUint64(n.buffer, l.Address)
	for i, line := range l.Lines {
		key := kindFunction{line.Function, l.Kind == pprof.KindLabel}
		f, ok := n.ofFunction[key]
		if !ok {
			f = n.function(line.Function, l.Kind)
			n.ofFunction[key] = f
		}
		out.lines[i] = numberedLine{f, int64(line.Line)}
		n.buffer = binary.NativeEndian.AppendUint32(n.buffer, f)
		n.buffer = binary.NativeEndian.AppendUint64(n.buffer, uint64(line.Line))
	}
	n.buffer = append(n.buffer, l.Kind...)
	number, ok := n.byContent[string(n.buffer)]
	if !ok {
		number = uint32(len(n.locations))
		n.byContent[string(n.buffer)] = number
		n.locations = append(n.locations, out)
	}
	return number
}

// function has the name that is shown, and that of the linker; the value of a label has none of these.
func (n *numbering) function(f *profile.Function, kind profile.FrameKind) uint32 {
	out := numberedFunction{n.text(pprof.Name(f, kind)), n.text(f.Name), n.text(f.File), int64(f.StartLine)}
	if kind == pprof.KindLabel {
		out.system = ""
	}
	number, ok := n.byFunction[out]
	if !ok {
		number = uint32(len(n.functions))
		n.byFunction[out] = number
		n.functions = append(n.functions, out)
	}
	return number
}
