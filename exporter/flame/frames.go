package flame

import (
	"path"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// frame is one function of a stack.
type frame struct {
	function int32 // index in frames.functions
	inlined  bool  // into the next frame
}

// frames numbers the functions of profiles. Each name is demangled once, and each location looked at once.
type frames struct {
	functions []Function
	kinds     []Kind // of the functions: that of the first frame
	index     map[Function]int32
	locations map[*profile.Location][]frame
	truncated map[string]frame
	names     map[string]string // linkage name to name
	modules   map[*profile.Mapping]string
	stack     []frame
}

func newFrames() *frames {
	return &frames{
		index:     make(map[Function]int32),
		locations: make(map[*profile.Location][]frame),
		truncated: make(map[string]frame),
		names:     make(map[string]string),
		modules:   make(map[*profile.Mapping]string),
	}
}

// of gives the frames of a sample, innermost first. They are valid until the next call.
func (f *frames) of(s *profile.Sample) []frame {
	f.stack = f.stack[:0]
	s.Walk(
		func(l *profile.Location) { f.stack = append(f.stack, f.location(l)...) },
		func(reason string) { f.stack = append(f.stack, f.reason(reason)) },
	)
	return f.stack
}

func (f *frames) location(l *profile.Location) []frame {
	if known, ok := f.locations[l]; ok {
		return known
	}
	kind := Kind(l.Kind)
	if l.Unnamed != "" {
		kind = KindUnknown
	}
	of := make([]frame, len(l.Lines))
	for i, line := range l.Lines {
		function := Function{Name: line.Function.Name, Module: f.module(l.Mapping)}
		if kind != KindLabel { // the value of a label is no linkage name
			function.Name = f.name(line.Function.Name)
		}
		of[i] = frame{f.number(function, kind), i < len(l.Lines)-1}
	}
	f.locations[l] = of
	return of
}

func (f *frames) reason(reason string) frame {
	if known, ok := f.truncated[reason]; ok {
		return known
	}
	of := frame{function: f.number(Function{Name: pprof.Truncated(reason)}, KindTruncated)}
	f.truncated[reason] = of
	return of
}

func (f *frames) number(function Function, kind Kind) int32 {
	n, ok := f.index[function]
	if !ok {
		n = int32(len(f.functions))
		f.index[function] = n
		f.functions = append(f.functions, function)
		f.kinds = append(f.kinds, kind)
	}
	return n
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
