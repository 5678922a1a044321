package flame

import (
	"regexp"
	"slices"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Select keeps the samples with a function that focus matches and none that ignore matches,
// leaves functions that hide matches out of the stacks, and groups by a label: its value becomes the outermost
// frame. nil and "" do nothing. The patterns see names as they are shown, with those of inlined functions and
// of frames that say what is missing. A sample whose functions are all hidden stays, without frames.
//
// The account stays that of all samples: what was left out is neither lost nor filtered by the sampling.
func Select(p *profile.Profile, focus, ignore, hide *regexp.Regexp, by string) *profile.Profile {
	if focus == nil && ignore == nil && hide == nil && by == "" {
		return p
	}
	s := selection{
		frames: newFrames(new(Functions)), patterns: patterns{focus, ignore, hide}, by: by,
		locations: make(map[*profile.Location]*profile.Location),
		stacks:    make(map[stackKey]*profile.Stack),
		groups:    make(map[string]*profile.Location),
		missing:   make(map[string]*profile.Location),
	}
	out := *p
	out.Samples = nil
	for i := range p.Samples {
		if s.wants(&p.Samples[i]) {
			out.Samples = append(out.Samples, s.sample(p.Samples[i]))
		}
	}
	return &out
}

type selection struct {
	patterns
	frames  *frames
	matches []match // by function
	by      string

	locations map[*profile.Location]*profile.Location // what is left of them; nil: nothing
	stacks    map[stackKey]*profile.Stack
	groups    map[string]*profile.Location // by value of the label
	missing   map[string]*profile.Location // by reason
}

// patterns are of functions; nil: none.
type patterns struct{ focus, ignore, hide *regexp.Regexp }

// match says which of them match.
type match struct{ focus, ignore, hide bool }

func (p *patterns) match(name string) match {
	return match{
		focus:  p.focus != nil && p.focus.MatchString(name),
		ignore: p.ignore != nil && p.ignore.MatchString(name),
		hide:   p.hide != nil && p.hide.MatchString(name),
	}
}

// stackKey tells stacks apart that are made of one: by the group they are put into.
type stackKey struct {
	stack *profile.Stack
	group string
	outer bool // whether the group stands on it
}

func (s *selection) match(f Frame) match {
	for len(s.matches) <= int(f.function()) {
		s.matches = append(s.matches, s.patterns.match(s.frames.list[len(s.matches)].Name))
	}
	return s.matches[f.function()]
}

func (s *selection) wants(sample *profile.Sample) bool {
	focused := s.focus == nil
	for _, f := range s.frames.of(sample) {
		m := s.match(f)
		if m.ignore {
			return false
		}
		focused = focused || m.focus
	}
	return focused
}

func (s *selection) sample(sample profile.Sample) profile.Sample {
	if s.hide == nil && s.by == "" {
		return sample
	}
	group := ""
	if s.by != "" {
		group = query.Label(sample.Labels, s.by)
	}
	userOutermost := sample.User != nil || sample.Kernel == nil
	sample.Kernel = s.stack(sample.Kernel, group, !userOutermost)
	sample.User = s.stack(sample.User, group, userOutermost)
	return sample
}

// stack is what is left of a stack; outer says that the group becomes its outermost frame.
func (s *selection) stack(stack *profile.Stack, group string, outer bool) *profile.Stack {
	outer = outer && s.by != ""
	if stack == nil && !outer {
		return nil
	}
	key := stackKey{stack, group, outer}
	if known := s.stacks[key]; known != nil {
		return known
	}
	out := new(profile.Stack)
	if stack != nil {
		*out = profile.Stack{Truncated: stack.Truncated, Root: stack.Root}
		for _, l := range stack.Locations {
			if l = s.location(l); l != nil {
				out.Locations = append(out.Locations, l)
			}
		}
		if out.Truncated != "" && s.match(s.frames.reason(out.Truncated)).hide {
			out.Truncated = ""
		}
	}
	if outer {
		// The group stands outside of everything, so what is missing has to be a frame of its own.
		if out.Truncated != "" {
			out.Locations = append(out.Locations, synthetic(s.missing, out.Truncated, pprof.Truncated(out.Truncated), KindTruncated))
			out.Truncated = ""
		}
		name := group
		if name == "" {
			name = "[no " + s.by + "]"
		}
		out.Locations = append(out.Locations, synthetic(s.groups, group, name, KindLabel))
	}
	s.stacks[key] = out
	return out
}

func (s *selection) location(l *profile.Location) *profile.Location {
	if known, ok := s.locations[l]; ok {
		return known
	}
	of := s.frames.location(l)
	out := l
	if slices.ContainsFunc(of, func(f Frame) bool { return s.match(f).hide }) {
		out = nil
		var lines []profile.Line
		for i, f := range of {
			if !s.match(f).hide {
				lines = append(lines, l.Lines[i])
			}
		}
		if len(lines) > 0 {
			left := *l
			left.Lines = lines
			out = &left
		}
	}
	s.locations[l] = out
	return out
}

// synthetic is a frame that is no code, one for each key.
func synthetic(known map[string]*profile.Location, key, name string, kind Kind) *profile.Location {
	l := known[key]
	if l == nil {
		l = &profile.Location{Kind: profile.FrameKind(kind), Lines: []profile.Line{{Function: &profile.Function{Name: name}}}}
		known[key] = l
	}
	return l
}
