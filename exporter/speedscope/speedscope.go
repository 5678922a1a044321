// Package speedscope writes profiles as speedscope reads them: a JSON file of its own format, for
// https://www.speedscope.app, the copy that the agent serves at /speedscope/, and other viewers.
package speedscope

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// frame is one of https://www.speedscope.app/file-format-schema.json, as far as it is used.
type frame struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// units are those that speedscope knows; all else is "none".
var units = []string{"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}

// Write writes the stacks one after another, not in the order of time: what was the same is added up.
// Frames are told apart by name, file and the line on which their function begins.
//
// The samples are gone through twice, as what they are in the file would take more memory than the profile.
func Write(w io.Writer, p *profile.Profile) error {
	name, unit := p.Type.Name, "none"
	if !p.Start.IsZero() {
		name += " " + p.Start.UTC().Format("2006-01-02T15:04:05Z")
	}
	if slices.Contains(units, p.Type.Unit) {
		unit = p.Type.Unit
	}
	f := frames{index: make(map[frame]int), functions: make(map[*profile.Function]int)}
	var end int64
	for i := range p.Samples {
		f.stack(&p.Samples[i])
		end += p.Samples[i].Value
	}
	out := bufio.NewWriter(w) // it keeps its first error
	out.WriteString(`{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"pilotlight","name":`)
	writeJSON(out, name)
	out.WriteString(`,"shared":{"frames":[`)
	for i, of := range f.list {
		comma(out, i)
		writeJSON(out, of)
	}
	out.WriteString(`]},"profiles":[{"type":"sampled","name":`)
	writeJSON(out, name)
	fmt.Fprintf(out, `,"unit":"%s","startValue":0,"endValue":%d,"samples":[`, unit, end)
	for i := range p.Samples {
		comma(out, i)
		out.WriteByte('[')
		stack := f.stack(&p.Samples[i])
		for j, n := range slices.Backward(stack) { // the outermost first
			comma(out, len(stack)-1-j)
			out.Write(strconv.AppendInt(out.AvailableBuffer(), int64(n), 10))
		}
		out.WriteByte(']')
	}
	out.WriteString(`],"weights":[`)
	for i := range p.Samples {
		comma(out, i)
		out.Write(strconv.AppendInt(out.AvailableBuffer(), p.Samples[i].Value, 10))
	}
	out.WriteString("]}]}\n")
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write speedscope profile: %w", err)
	}
	return nil
}

// comma separates what is no first element from the one before it.
func comma(out *bufio.Writer, i int) {
	if i > 0 {
		out.WriteByte(',')
	}
}

// writeJSON writes text, or a frame.
func writeJSON(out *bufio.Writer, v any) {
	text, _ := json.Marshal(v) // these have nothing that JSON has not
	out.Write(text)
}

type frames struct {
	index     map[frame]int
	list      []frame
	functions map[*profile.Function]int // those known, as names are long to demangle; a label has a function of its own
	buffer    []int
}

// stack gives the numbers of a sample's frames, innermost first. They are valid until the next call.
func (f *frames) stack(s *profile.Sample) []int {
	f.buffer = f.buffer[:0]
	s.Walk(func(l *profile.Location) {
		for _, line := range l.Lines {
			n, ok := f.functions[line.Function]
			if !ok {
				n = f.number(frame{text(pprof.Name(line.Function, l.Kind)), text(line.Function.File), line.Function.StartLine})
				f.functions[line.Function] = n
			}
			f.buffer = append(f.buffer, n)
		}
	}, func(reason string) { f.buffer = append(f.buffer, f.number(frame{Name: text(pprof.Truncated(reason))})) })
	return f.buffer
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
