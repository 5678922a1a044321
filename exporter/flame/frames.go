package flame

import (
	"path"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// frames finds the frames of samples of profiles. Each name is demangled once, and each location looked at once.
type frames struct {
	*Functions
	locations map[*profile.Location][]Frame
	truncated map[string]Frame
	names     map[string]string // linkage name to name
	modules   map[*profile.Mapping]string
	stack     []Frame
}

func newFrames(functions *Functions) *frames {
	return &frames{
		Functions: functions,
		locations: make(map[*profile.Location][]Frame),
		truncated: make(map[string]Frame),
		names:     make(map[string]string),
		modules:   make(map[*profile.Mapping]string),
	}
}

// of gives the frames of a sample, innermost first. They are valid until the next call.
func (f *frames) of(s *profile.Sample) []Frame {
	f.stack = f.stack[:0]
	s.Walk(
		func(l *profile.Location) { f.stack = append(f.stack, f.location(l)...) },
		func(reason string) { f.stack = append(f.stack, f.reason(reason)) },
	)
	return f.stack
}

func (f *frames) location(l *profile.Location) []Frame {
	if known, ok := f.locations[l]; ok {
		return known
	}
	kind := Kind(l.Kind)
	if l.Unnamed != "" {
		kind = KindUnknown
	}
	of := make([]Frame, len(l.Lines))
	for i, line := range l.Lines {
		function := Function{Name: line.Function.Name, Module: f.module(l.Mapping)}
		if kind != KindLabel { // the value of a label is no linkage name
			function.Name = f.name(line.Function.Name)
		}
		if of[i] = f.frame(function, kind); i < len(l.Lines)-1 {
			of[i] |= Inlined
		}
	}
	f.locations[l] = of
	return of
}

func (f *frames) reason(reason string) Frame {
	if known, ok := f.truncated[reason]; ok {
		return known
	}
	of := f.frame(Function{Name: pprof.Truncated(reason)}, KindTruncated)
	f.truncated[reason] = of
	return of
}

func (f *frames) name(linkage string) string {
	name, ok := f.names[linkage]
	if !ok {
		name = demangle.Simple(linkage)
		f.names[linkage] = name
	}
	return name
}

func (f *frames) module(m *profile.Mapping) string {
	if m == nil || m.Path == "" {
		return ""
	}
	name, ok := f.modules[m]
	if !ok {
		name = path.Base(m.Path)
		f.modules[m] = name
	}
	return name
}
