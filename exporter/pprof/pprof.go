// Package pprof writes profiles in the format of `go tool pprof`: gzipped
// profile.proto, with functions named so that they read well and so that a Go
// build accepts the file as default.pgo. It reads those of any tool.
package pprof

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// Write writes p, gzipped, with more comments than those on the account of samples.
func Write(w io.Writer, p *profile.Profile, more ...string) error {
	out := Convert(p)
	for _, comment := range more {
		out.Comments = append(out.Comments, Text(comment))
	}
	if err := out.Write(w); err != nil {
		return fmt.Errorf("write pprof profile: %w", err)
	}
	return nil
}

// Names of labels. Those of processes and threads are numbers.
const (
	LabelPID         = "pid"
	LabelTID         = "tid"
	LabelComm        = "comm"
	LabelThread      = "thread"
	LabelExe         = "exe"
	LabelCgroup      = "cgroup"
	LabelContainerID = "container_id"
	LabelPodUID      = "pod_uid"
	LabelUnit        = "unit"
	LabelService     = "service"
)

// Labels of what a sample was part of, as OpenTelemetry has it: by the ids of a link.
const (
	LabelTraceID = "trace_id"
	LabelSpanID  = "span_id"
)

// ownLabels are those that are not of what a process says of itself, whatever it says.
var ownLabels = []string{
	LabelPID, LabelTID, LabelComm, LabelThread, LabelExe, LabelCgroup, LabelContainerID, LabelPodUID, LabelUnit, LabelService, LabelTraceID, LabelSpanID,
}

// Convert gives p in the form of pprof's own library. Comments hold the
// account of samples: samples.taken=N, samples.exported=N,
// samples.lost.REASON=N, and more where they are not 0. Beside the values stand counts of samples, where the values are none themselves.
func Convert(p *profile.Profile) *pb.Profile {
	value := &pb.ValueType{Type: p.Type.Name, Unit: p.Type.Unit}
	types := []*pb.ValueType{{Type: profile.TypeSamples.Name, Unit: profile.TypeSamples.Unit}, value}
	if p.Type.Name == profile.TypeSamples.Name { // no two may have one name
		types = types[1:]
	}
	c := converter{
		out: &pb.Profile{
			SampleType:        types,
			DefaultSampleType: p.Type.Name,
			PeriodType:        value,
			Period:            p.Period,
			DurationNanos:     p.Duration.Nanoseconds(),
			Comments:          Comments(p),
		},
		mappings:  make(map[*profile.Mapping]*pb.Mapping),
		byFile:    make(map[profile.Mapping]*pb.Mapping),
		locations: make(map[*profile.Location]*pb.Location),
		byPlace:   make(map[place]*pb.Location),
		functions: make(map[functionKey]*pb.Function),
		reasons:   make(map[string]*pb.Location),
	}
	if !p.Start.IsZero() {
		c.out.TimeNanos = p.Start.UnixNano()
	}
	for i := range p.Samples {
		c.sample(&p.Samples[i])
	}
	OrderMappings(c.out)
	return c.out
}

// Comments are those that tell of the account of samples. By samples.taken a profile of our own is told from a foreign one, also where another tool wrote it
// again: go tool pprof keeps comments.
func Comments(p *profile.Profile) (lines []string) {
	a := &p.Account
	if !p.Foreign {
		lines = []string{fmt.Sprintf("samples.taken=%d", a.Taken), fmt.Sprintf("samples.exported=%d", a.Exported)}
	}
	if a.Filtered > 0 {
		lines = append(lines, fmt.Sprintf("samples.filtered=%d", a.Filtered))
	}
	for _, l := range a.Lost {
		lines = append(lines, fmt.Sprintf("samples.lost.%s=%d", l.Reason, l.Count))
	}
	return lines
}

type converter struct {
	out       *pb.Profile
	mappings  map[*profile.Mapping]*pb.Mapping
	byFile    map[profile.Mapping]*pb.Mapping
	locations map[*profile.Location]*pb.Location
	byPlace   map[place]*pb.Location
	functions map[functionKey]*pb.Function
	reasons   map[string]*pb.Location
}

// functionKey tells functions apart: a label can be called as one is.
type functionKey struct {
	profile.Function
	label bool
}

// place tells locations apart: pointers alone would list one twice that was
// forgotten and looked up again. A file that was replaced has the same
// addresses, so the lines count too: IDs of functions and numbers, two words each.
type place struct {
	mapping uint64
	address uint64
	lines   string
}

func (c *converter) sample(s *profile.Sample) {
	out := &pb.Sample{Value: []int64{s.Count, s.Value}[2-len(c.out.SampleType):]}
	s.Walk(
		func(l *profile.Location) { out.Location = append(out.Location, c.location(l)) },
		func(reason string) { out.Location = append(out.Location, c.reason(reason)) },
	)
	c.labels(out, s.Labels)
	c.out.Sample = append(c.out.Sample, out)
}

func (c *converter) labels(out *pb.Sample, l *profile.Labels) {
	out.NumLabel = map[string][]int64{LabelPID: {int64(l.PID)}}
	if l.TID != 0 {
		out.NumLabel[LabelTID] = []int64{int64(l.TID)}
	}
	out.Label = make(map[string][]string)
	for _, label := range []struct{ key, value string }{
		{LabelComm, l.Comm}, {LabelThread, l.Thread}, {LabelExe, l.Exe}, {LabelCgroup, l.Cgroup}, {LabelContainerID, l.ContainerID},
		{LabelPodUID, l.PodUID}, {LabelUnit, l.Unit}, {LabelService, l.Service}, {LabelTraceID, l.TraceID}, {LabelSpanID, l.SpanID},
	} {
		if label.value != "" {
			out.Label[label.key] = []string{Text(label.value)}
		}
	}
	for _, said := range [][]profile.Attribute{l.Resource, l.Further} { // what is said of the sample stands before what is said of its process
		for _, a := range said {
			if key := Text(a.Key); !Reserved(key) && a.Value != "" {
				out.Label[key] = []string{Text(a.Value)}
			}
		}
	}
}

// Reserved says whether a label has a meaning of its own: what a program calls so is left out.
func Reserved(key string) bool {
	return slices.Contains(ownLabels, key)
}

func (c *converter) location(l *profile.Location) *pb.Location {
	if known := c.locations[l]; known != nil {
		return known
	}
	m := c.mapping(l.Mapping)
	at := place{address: l.Address}
	if m != nil {
		at.mapping = m.ID
	}
	lines := make([]pb.Line, len(l.Lines))
	var key []byte
	for i, line := range l.Lines {
		lines[i] = pb.Line{Function: c.function(line.Function, l.Kind), Line: int64(line.Line)}
		key = binary.NativeEndian.AppendUint64(key, lines[i].Function.ID)
		key = binary.NativeEndian.AppendUint64(key, uint64(line.Line))
	}
	at.lines = string(key)
	out := c.byPlace[at]
	if out == nil {
		out = c.newLocation(m, l.Address)
		out.Line = lines
		c.byPlace[at] = out
	}
	c.locations[l] = out
	return out
}

func (c *converter) newLocation(m *pb.Mapping, address uint64) *pb.Location {
	l := &pb.Location{ID: uint64(len(c.out.Location) + 1), Mapping: m, Address: address}
	c.out.Location = append(c.out.Location, l)
	return l
}

// reason is the frame that stands where callers are missing, such as "[truncated: unmapped pc]".
func (c *converter) reason(reason string) *pb.Location {
	if l := c.reasons[reason]; l != nil {
		return l
	}
	l := c.newLocation(nil, 0)
	l.Line = []pb.Line{{Function: c.function(&profile.Function{Name: Truncated(reason)}, "")}}
	c.reasons[reason] = l
	return l
}

// Truncated is the name of the frame that says why callers are missing.
func Truncated(reason string) string {
	return "[truncated: " + strings.ReplaceAll(reason, "_", " ") + "]"
}

// KindLabel is the kind of a location that is no code, but the label that samples are grouped by.
const KindLabel profile.FrameKind = "label"

// Name is what a function is shown as: demangled, but for the value of a label, which is no linkage name.
func Name(f *profile.Function, kind profile.FrameKind) string {
	if kind == KindLabel {
		return f.Name
	}
	return demangle.Simple(f.Name)
}

func (c *converter) function(f *profile.Function, kind profile.FrameKind) *pb.Function {
	key := functionKey{*f, kind == KindLabel}
	if known := c.functions[key]; known != nil {
		return known
	}
	out := &pb.Function{
		ID:         uint64(len(c.out.Function) + 1),
		Name:       Text(Name(f, kind)),
		SystemName: Text(f.Name),
		Filename:   Text(f.File),
		StartLine:  int64(f.StartLine),
	}
	if key.label {
		out.SystemName = "" // or else pprof demangles what equals it
	}
	c.out.Function = append(c.out.Function, out)
	c.functions[key] = out
	return out
}

func (c *converter) mapping(m *profile.Mapping) *pb.Mapping {
	if m == nil {
		return nil
	}
	if known := c.mappings[m]; known != nil {
		return known
	}
	out := c.byFile[*m]
	if out == nil {
		out = &pb.Mapping{
			ID:    uint64(len(c.out.Mapping) + 1),
			Start: m.Start, Limit: m.Limit, Offset: m.Offset,
			File:    Text(m.Path),
			BuildID: m.BuildID,
			// Every frame has a name by now, if only "[file+0xoffset]": pprof
			// must not look for others on the machine that reads the profile.
			HasFunctions:    true,
			HasFilenames:    m.HasLines,
			HasLineNumbers:  m.HasLines,
			HasInlineFrames: m.HasLines,
		}
		c.out.Mapping = append(c.out.Mapping, out)
		c.byFile[*m] = out
	}
	c.mappings[m] = out
	return out
}

// OrderMappings puts the file first whose code most samples were in, by their first value: pprof takes the
// first mapping for the main program.
func OrderMappings(p *pb.Profile) {
	weights := make(map[*pb.Mapping]int64)
	for _, s := range p.Sample {
		if len(s.Location) > 0 && s.Location[0].Mapping != nil {
			weights[s.Location[0].Mapping] += s.Value[0]
		}
	}
	slices.SortStableFunc(p.Mapping, func(a, b *pb.Mapping) int {
		aKernel, bKernel := strings.HasPrefix(a.File, "["), strings.HasPrefix(b.File, "[")
		if aKernel != bKernel {
			if aKernel {
				return 1
			}
			return -1
		}
		return cmp.Compare(weights[b], weights[a])
	})
	for i, m := range p.Mapping {
		m.ID = uint64(i + 1)
	}
}

// Text makes what came from anywhere fit for a protobuf string, which must be UTF-8.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
