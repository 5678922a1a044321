package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/recent"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// kindTruncated is the kind of the frame that stands where callers are missing.
const kindTruncated = "truncated"

// stackPair is what a sample has of a stack.
type stackPair struct{ kernel, user *profile.Stack }

// maxPairFrames bounds the frames, 8 bytes each, of the pairs whose ID is known without looking at them: twice as many at most are
// kept in memory. A busy host shows 20,000 stacks of 40 frames an hour.
const maxPairFrames = 1 << 20

// maxNames bounds the functions whose names are known in their readable form: twice as many at most.
const maxNames = 32 << 10

// stackEncoder tells the IDs of stacks. Not safe for concurrent use.
type stackEncoder struct {
	ids   recent.Cache[stackPair, int64]
	names recent.Cache[*profile.Function, string] // demangled
	row   StackRow
	bytes []byte
}

func newStackEncoder() *stackEncoder {
	return &stackEncoder{ids: recent.New(maxPairFrames, frames), names: recent.New[*profile.Function, string](maxNames, nil)}
}

// frames is what a pair takes of maxPairFrames, with its entry.
func frames(pair stackPair, _ int64) int {
	n := 8
	for _, side := range []*profile.Stack{pair.kernel, pair.user} {
		if side != nil {
			n += len(side.Locations)
		}
	}
	return n
}

// id gives the ID of a sample's stack, 0 of one without frames.
func (e *stackEncoder) id(s *profile.Sample) int64 {
	pair := stackPair{s.Kernel, s.User}
	if id, ok := e.ids.Get(pair); ok {
		return id
	}
	id := e.hash(e.encode(s))
	e.ids.Put(pair, id)
	return id
}

// encode gives the row of a sample's stack, but for its ID; it is valid until the next call.
func (e *stackEncoder) encode(s *profile.Sample) *StackRow {
	e.row.Frames = e.row.Frames[:0]
	s.Walk(e.location, func(reason string) {
		e.row.Frames = append(e.row.Frames, FrameRow{
			Function: "[truncated: " + strings.ReplaceAll(reason, "_", " ") + "]", Kind: kindTruncated, Missing: reason,
		})
	})
	e.row.Whole = s.Whole()
	return &e.row
}

func (e *stackEncoder) location(l *profile.Location) {
	for i, line := range l.Lines {
		raw := text(line.Function.Name)
		f := FrameRow{
			Function:  e.name(line.Function),
			File:      text(line.Function.File),
			Line:      int32(line.Line),
			StartLine: int32(line.Function.StartLine),
			Kind:      string(l.Kind),
			Inlined:   i < len(l.Lines)-1,
			Missing:   l.Unnamed,
		}
		if raw != f.Function {
			f.LinkageName = raw
		}
		if l.Mapping != nil {
			f.Module, f.BuildID = text(l.Mapping.Path), text(l.Mapping.BuildID)
		}
		e.row.Frames = append(e.row.Frames, f)
	}
}

func (e *stackEncoder) name(f *profile.Function) string {
	if name, ok := e.names.Get(f); ok {
		return name
	}
	name := text(demangle.Simple(f.Name))
	e.names.Put(f, name)
	return name
}

// hash is over the columns in their order: strings with their lengths before them, numbers as varints.
func (e *stackEncoder) hash(row *StackRow) int64 {
	if len(row.Frames) == 0 && !row.Whole {
		return 0
	}
	b := appendBool(e.bytes[:0], row.Whole)
	for i := range row.Frames {
		f := &row.Frames[i]
		b = appendString(b, f.Function)
		b = appendString(b, f.LinkageName)
		b = appendString(b, f.File)
		b = binary.AppendVarint(b, int64(f.Line))
		b = binary.AppendVarint(b, int64(f.StartLine))
		b = appendString(b, f.Kind)
		b = appendString(b, f.Module)
		b = appendString(b, f.BuildID)
		b = appendBool(b, f.Inlined)
		b = appendString(b, f.Missing)
	}
	e.bytes = b
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// compareStacks orders samples by their stacks from the outermost function on, so that each stands beside one with which it has the most callers in common.
func compareStacks(a, b *profile.Sample) int {
	for depth := 0; ; depth++ {
		l, reason := fromOutside(a, depth)
		m, other := fromOutside(b, depth)
		switch {
		case l != m && l != nil && m != nil:
			if c := compareLocations(l, m); c != 0 {
				return c
			}
		case l != m || reason != other: // the end, then reasons, then locations
			return cmp.Or(cmp.Compare(rank(l), rank(m)), strings.Compare(reason, other))
		case l == nil && reason == "":
			return 0
		}
	}
}

func rank(l *profile.Location) int {
	if l == nil {
		return 0
	}
	return 1
}

// fromOutside gives what is at a depth of a sample's stack, the outermost first: a location, or the reason why callers are missing; neither beyond the innermost.
func fromOutside(s *profile.Sample, depth int) (*profile.Location, string) {
	for _, side := range []*profile.Stack{s.User, s.Kernel} {
		if side == nil {
			continue
		}
		if side.Truncated != "" {
			if depth == 0 {
				return nil, side.Truncated
			}
			depth--
		}
		if n := len(side.Locations); depth < n {
			return side.Locations[n-1-depth], ""
		}
		depth -= len(side.Locations)
	}
	return nil, ""
}

// compareLocations compares all that a location's frames have, those of the outermost function before the inlined ones.
func compareLocations(x, y *profile.Location) int {
	for i, j := len(x.Lines)-1, len(y.Lines)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		l, m := &x.Lines[i], &y.Lines[j]
		f, g := l.Function, m.Function
		if c := cmp.Or(strings.Compare(f.Name, g.Name), compareCode(x, y), strings.Compare(f.File, g.File), cmp.Compare(f.StartLine, g.StartLine), cmp.Compare(l.Line, m.Line)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x.Lines), len(y.Lines))
}

func compareCode(x, y *profile.Location) int {
	if c := cmp.Or(cmp.Compare(x.Kind, y.Kind), strings.Compare(x.Unnamed, y.Unnamed)); c != 0 || x.Mapping == y.Mapping {
		return c
	}
	var m, n profile.Mapping
	if x.Mapping != nil {
		m = *x.Mapping
	}
	if y.Mapping != nil {
		n = *y.Mapping
	}
	return cmp.Or(strings.Compare(m.Path, n.Path), strings.Compare(m.BuildID, n.BuildID))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// text makes what came from the host fit for a string of Parquet, which must be UTF-8, as pprof's must.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
