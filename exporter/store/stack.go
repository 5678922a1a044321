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

// compareStacks orders samples by the functions of their stacks from the outermost one on, so that stacks with callers in common stand together.
func compareStacks(a, b *profile.Sample) int {
	for depth := 0; ; depth++ {
		x, y := fromOutside(a, depth), fromOutside(b, depth)
		switch {
		case x == y && x == nil:
			return 0
		case x == nil:
			return -1
		case y == nil:
			return 1
		case x != y:
			if c := compareLocations(x, y); c != 0 {
				return c
			}
		}
	}
}

// fromOutside gives the location at a depth of a sample's stack, the outermost first; nil below the innermost.
func fromOutside(s *profile.Sample, depth int) *profile.Location {
	for _, side := range []*profile.Stack{s.User, s.Kernel} {
		if side == nil {
			continue
		}
		if n := len(side.Locations); depth < n {
			return side.Locations[n-1-depth]
		}
		depth -= len(side.Locations)
	}
	return nil
}

func compareLocations(x, y *profile.Location) int {
	for i, j := len(x.Lines)-1, len(y.Lines)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		l, m := &x.Lines[i], &y.Lines[j]
		if c := cmp.Or(strings.Compare(l.Function.Name, m.Function.Name), cmp.Compare(l.Line, m.Line)); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x.Lines), len(y.Lines))
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
