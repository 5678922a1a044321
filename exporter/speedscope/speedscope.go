// Package speedscope writes profiles as speedscope reads them: a JSON file of its own format, for
// https://www.speedscope.app, the copy that the agent serves at /speedscope/, and other viewers.
package speedscope

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// file is https://www.speedscope.app/file-format-schema.json, as far as it is used.
type file struct {
	Schema   string    `json:"$schema"`
	Exporter string    `json:"exporter"`
	Name     string    `json:"name"`
	Shared   shared    `json:"shared"`
	Profiles []sampled `json:"profiles"`
}

type shared struct {
	Frames []frame `json:"frames"`
}

type frame struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

type sampled struct {
	Type       string  `json:"type"`
	Name       string  `json:"name"`
	Unit       string  `json:"unit"`
	StartValue int64   `json:"startValue"`
	EndValue   int64   `json:"endValue"`
	Samples    [][]int `json:"samples"` // frames, the outermost first
	Weights    []int64 `json:"weights"`
}

// units are those that speedscope knows; all else is "none".
var units = []string{"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}

// Write writes the stacks one after another, not in the order of time: what was the same is added up.
// Frames are told apart by name, file and the line on which their function begins.
func Write(w io.Writer, p *profile.Profile) error {
	name := p.Type.Name
	if !p.Start.IsZero() {
		name += " " + p.Start.UTC().Format("2006-01-02T15:04:05Z")
	}
	out := sampled{Type: "sampled", Name: name, Unit: "none", Samples: [][]int{}, Weights: []int64{}}
	if slices.Contains(units, p.Type.Unit) {
		out.Unit = p.Type.Unit
	}
	f := frames{index: make(map[frame]int), list: []frame{}}
	for i := range p.Samples {
		s := &p.Samples[i]
		stack := []int{}
		s.Walk(func(l *profile.Location) {
			for _, line := range l.Lines {
				stack = append(stack, f.number(frame{text(demangle.Simple(line.Function.Name)), text(line.Function.File), line.Function.StartLine}))
			}
		}, func(reason string) {
			stack = append(stack, f.number(frame{Name: text(pprof.Truncated(reason))}))
		})
		slices.Reverse(stack)
		out.Samples = append(out.Samples, stack)
		out.Weights = append(out.Weights, s.Value)
		out.EndValue += s.Value
	}
	buffered := bufio.NewWriter(w)
	err := json.NewEncoder(buffered).Encode(file{
		Schema: "https://www.speedscope.app/file-format-schema.json", Exporter: "pilotlight", Name: name,
		Shared: shared{f.list}, Profiles: []sampled{out},
	})
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return fmt.Errorf("write speedscope profile: %w", err)
	}
	return nil
}

type frames struct {
	index map[frame]int
	list  []frame
}

func (f *frames) number(of frame) int {
	n, ok := f.index[of]
	if !ok {
		n = len(f.list)
		f.index[of] = n
		f.list = append(f.list, of)
	}
	return n
}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
