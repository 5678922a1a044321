package flame

import (
	"regexp"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Frame is a function of Stacks, by its number there, and whether it was inlined into the next frame.
type Frame uint32

// Inlined is the bit of a Frame that says so.
const Inlined Frame = 1

// Numbered is the frame of the function that is added as the nth, from 0 on, and was not inlined.
func Numbered(n int) Frame { return Frame(n) << 1 }

// Number is that of the function.
func (f Frame) Number() int { return int(f >> 1) }

func (f Frame) function() int32 { return int32(f.Number()) }
func (f Frame) inlined() bool   { return f&Inlined != 0 }

// Functions are numbered, each once. Either Add makes them, or what makes Stacks of a profile. The zero value has none. Not safe for concurrent use.
type Functions struct {
	list  []Function
	kinds []Kind // where frames of one function are of several kinds, the first of these in the order of their names
	index map[Function]Frame
}

// NewFunctions has room for so many.
func NewFunctions(n int) Functions {
	return Functions{list: make([]Function, 0, n), kinds: make([]Kind, 0, n)}
}

// Add adds a function that is not there yet, with the first kind of its frames.
func (f *Functions) Add(function Function, kind Kind) Frame {
	f.list = append(f.list, function)
	f.kinds = append(f.kinds, kind)
	return Numbered(len(f.list) - 1)
}

// frame is that of a function, which is added if it is not there.
func (f *Functions) frame(function Function, kind Kind) Frame {
	n, ok := f.index[function]
	if !ok {
		if f.index == nil {
			f.index = make(map[Function]Frame)
		}
		n = f.Add(function, kind)
		f.index[function] = n
	}
	if first := &f.kinds[n.Number()]; kind < *first {
		*first = kind
	}
	return n
}

// Stacks are samples in the form that trees and tables are made of: four bytes a frame. They are not changed by what is made of them.
type Stacks struct {
	Functions
	Type    profile.Type
	Samples []StackSample
	// Grouped says that samples have groups.
	Grouped bool

	// Where two profiles are compared, the first so many samples are those before. They count as factor says beside those after.
	compared bool
	before   int
	factor   float64
}

// weights of a node are those of all samples, but where two profiles are compared: there before is apart.
type weights struct {
	Weight
	before Weight
}

func (w *weights) sum(of *weights) {
	w.Weight.add(of.Weight)
	w.before.add(of.before)
}

// add adds a sample.
func (s *Stacks) add(w *weights, sample int32) {
	if int(sample) < s.before {
		w.before.add(s.Samples[sample].Weight)
	} else {
		w.Weight.add(s.Samples[sample].Weight)
	}
}

// weigh is what a node is ordered by.
func (s *Stacks) weigh(w *weights) int64 { return weigh(w.Value, w.before.Value, s.factor) }

func weigh(value, before int64, factor float64) int64 { return value + int64(factor*float64(before)) }

// sides are the stacks before and after.
func (s *Stacks) sides() (before, after *Stacks) {
	a, b := *s, *s
	a.Samples, a.before, a.compared = s.Samples[:s.before], 0, false
	b.Samples, b.before, b.compared = s.Samples[s.before:], 0, false
	return &a, &b
}

// StackSample is all samples with the same stack, of one group.
type StackSample struct {
	Frames []Frame // innermost first; they may be shared
	// Group is the function that stands on top of them all, where samples are grouped.
	Group Frame
	Weight
}

// NewStacks takes what there is to be seen out of profiles of one type.
func NewStacks(profiles ...*profile.Profile) *Stacks {
	s := new(Stacks)
	frames := newFrames(&s.Functions)
	var slab []Frame
	for _, p := range profiles {
		s.Type = p.Type
		for i := range p.Samples {
			of := frames.of(&p.Samples[i])
			slab = Room(slab, len(of))
			slab = append(slab, of...)
			s.Samples = append(s.Samples, StackSample{Frames: slab[len(slab)-len(of) : len(slab) : len(slab)],
				Weight: Weight{p.Samples[i].Count, p.Samples[i].Value}})
		}
	}
	return s
}

// Room gives a slice to which n frames more can be appended without what is there being copied: the same one or, where it is full, a new one.
func Room(slab []Frame, n int) []Frame {
	const frames = 64 << 10
	if cap(slab)-len(slab) < n {
		return make([]Frame, 0, max(frames, n))
	}
	return slab
}

// Total is the weight of all samples.
func (s *Stacks) Total() (w Weight) {
	for i := range s.Samples {
		w.add(s.Samples[i].Weight)
	}
	return w
}

// at is the function of a sample at a depth, from the outermost on; -1 where it ends.
func (s *Stacks) at(sample int32, depth int) int32 {
	of := &s.Samples[sample]
	if s.Grouped {
		if depth == 0 {
			return of.Group.function()
		}
		depth--
	}
	if depth >= len(of.Frames) {
		return -1
	}
	return of.Frames[len(of.Frames)-1-depth].function()
}

// inlined says whether the frame at that depth was.
func (s *Stacks) inlined(of *StackSample, depth int) bool {
	if s.Grouped {
		depth--
	}
	return depth >= 0 && of.Frames[len(of.Frames)-1-depth].inlined()
}

// of gives the frames of a sample, innermost first, with its group; buffer has room for them.
func (s *Stacks) of(sample *StackSample, buffer *[]Frame) []Frame {
	if !s.Grouped {
		return sample.Frames
	}
	*buffer = append(append((*buffer)[:0], sample.Frames...), sample.Group)
	return *buffer
}

// Select is [Select] but for the label.
func (s *Stacks) Select(focus, ignore, hide *regexp.Regexp) *Stacks {
	if focus == nil && ignore == nil && hide == nil {
		return s
	}
	out := *s
	out.Samples = nil
	patterns := patterns{focus: focus, ignore: ignore, hide: hide}
	matches := make([]match, len(s.list))
	for i := range s.list {
		matches[i] = patterns.match(s.list[i].Name)
	}
	var slab []Frame
	for _, sample := range s.Samples {
		focused, ignored, hidden := focus == nil, false, false
		for _, f := range sample.Frames {
			m := matches[f.function()]
			focused, ignored, hidden = focused || m.focus, ignored || m.ignore, hidden || m.hide
		}
		if !focused || ignored {
			continue
		}
		if hidden {
			slab = Room(slab, len(sample.Frames))
			from := len(slab)
			for _, f := range sample.Frames {
				switch {
				case !matches[f.function()].hide:
					slab = append(slab, f)
				case !f.inlined() && len(slab) > from:
					slab[len(slab)-1] &^= Inlined // into what is hidden
				}
			}
			sample.Frames = slab[from:len(slab):len(slab)]
		}
		out.Samples = append(out.Samples, sample)
	}
	return &out
}
