package flame

import (
	"cmp"
	"maps"
	"slices"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Place is where functions of one name come from.
type Place struct {
	Path      string `json:"path"` // of the executable or library; "" where unknown
	BuildID   string `json:"buildId"`
	File      string `json:"file"`      // of the source; "" where unknown
	StartLine int    `json:"startLine"` // 0: unknown
	// Lines are those on which samples of the function itself were taken, in their order; empty where none is known.
	Lines []LineWeight `json:"lines"`
}

// LineWeight is what was sampled on a line of source.
type LineWeight struct {
	Line int    `json:"line"`
	Self Weight `json:"self"`
}

// Places are all places of the functions of a name, by path and file.
func Places(p *profile.Profile, name string) []Place {
	frames := newFrames(new(Functions))
	type key struct {
		path, buildID, file string
		start               int
	}
	places := make(map[key]map[int]Weight)
	for i := range p.Samples {
		s := &p.Samples[i]
		innermost := true
		s.Walk(func(l *profile.Location) {
			for j, f := range frames.location(l) {
				leaf := innermost
				innermost = false
				if frames.list[f.function()].Name != name {
					continue
				}
				line := l.Lines[j]
				at := key{file: line.Function.File, start: line.Function.StartLine}
				if l.Mapping != nil {
					at.path, at.buildID = l.Mapping.Path, l.Mapping.BuildID
				}
				if places[at] == nil {
					places[at] = make(map[int]Weight)
				}
				if leaf && line.Line > 0 {
					w := places[at][line.Line]
					w.add(Weight{s.Count, s.Value})
					places[at][line.Line] = w
				}
			}
		}, func(string) { innermost = false })
	}
	list := make([]Place, 0, len(places))
	for at, lines := range places {
		place := Place{at.path, at.buildID, at.file, at.start, []LineWeight{}}
		for _, n := range slices.Sorted(maps.Keys(lines)) {
			place.Lines = append(place.Lines, LineWeight{n, lines[n]})
		}
		list = append(list, place)
	}
	slices.SortFunc(list, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.BuildID, b.BuildID), cmp.Compare(a.File, b.File), cmp.Compare(a.StartLine, b.StartLine))
	})
	return list
}
