package otlp

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	pb "github.com/google/pprof/profile"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

// FromPprof makes a message of a pprof profile that is valid, with all that it holds. Each type of values is a profile of one scope,
// with all samples in the same order; the scope's attribute pprof.scope.sample_type_order marks what came from pprof. Labels are attributes of
// the same names; trace_id and span_id, in lower-case hexadecimal, are a link. One resource stands for all.
//
// Samples, mappings and what they refer to keep their order. Strings that are not UTF-8 are made so.
func FromPprof(p *pb.Profile) (*Data, error) {
	if len(p.SampleType) == 0 {
		return nil, errors.New("make OTLP profile: it has no types of values")
	}
	if len(p.SampleType) > maxColumns {
		return nil, fmt.Errorf("make OTLP profile: it has more than %d types of values: choose one", maxColumns)
	}
	const sample = 192 // with its value
	if memory := budget(maxMemory); memory.spend(sample*len(p.SampleType)*len(p.Sample)) != nil {
		return nil, fmt.Errorf("make OTLP profile: %w", errTooMuch)
	}
	f := fromPprof{
		dictionary: newDictionary(),
		mappings:   make(map[*pb.Mapping]int32), functions: make(map[*pb.Function]int32), locations: make(map[*pb.Location]int32),
	}
	for _, m := range p.Mapping { // the first is the main program's
		f.mapping(m)
	}
	profiles := make([]*profilespb.Profile, len(p.SampleType))
	order := make([]*commonpb.AnyValue, len(profiles))
	for i, t := range p.SampleType {
		profiles[i] = &profilespb.Profile{
			SampleType: f.valueType(t.Type, t.Unit), Period: p.Period,
			TimeUnixNano: uint64(p.TimeNanos), DurationNano: uint64(p.DurationNanos),
			Samples: make([]*profilespb.Sample, len(p.Sample)),
		}
		if t := p.PeriodType; t != nil && *t != (pb.ValueType{}) {
			profiles[i].PeriodType = f.valueType(t.Type, t.Unit)
		}
		order[i] = intValue(int64(i))
	}
	profiles[0].AttributeIndices = f.about(p)
	for i, s := range p.Sample {
		stack := f.stack(s.Location)
		attributes, link := f.labels(s)
		for j, v := range s.Value {
			profiles[j].Samples[i] = &profilespb.Sample{StackIndex: stack, AttributeIndices: attributes, LinkIndex: link, Values: []int64{v}}
		}
	}
	service := ""
	if len(p.Mapping) > 0 {
		service = pprof.Text(path.Base(p.Mapping[0].File))
	}
	scope := &commonpb.InstrumentationScope{Name: scopeName, Attributes: []*commonpb.KeyValue{keyValue(keySampleTypeOrder, arrayValue(order...))}}
	if p.DefaultSampleType != "" {
		scope.Attributes = append(scope.Attributes, keyValue(keyDefaultSampleType, stringValue(pprof.Text(p.DefaultSampleType))))
	}
	return &Data{&profilespb.ProfilesData{
		ResourceProfiles: []*profilespb.ResourceProfiles{{
			Resource:      &resourcepb.Resource{Attributes: []*commonpb.KeyValue{keyValue(keyServiceName, stringValue(serviceName("", service)))}},
			ScopeProfiles: []*profilespb.ScopeProfiles{{Scope: scope, Profiles: profiles}},
		}},
		Dictionary: f.dictionary.message(),
	}}, nil
}

type fromPprof struct {
	*dictionary
	mappings  map[*pb.Mapping]int32
	functions map[*pb.Function]int32
	locations map[*pb.Location]int32
}

// about are the attributes of what is said of the whole profile.
func (f *fromPprof) about(p *pb.Profile) []int32 {
	var list []int32
	if len(p.Comments) > 0 {
		list = append(list, f.attribute(keyComment, comments(p.Comments), ""))
	}
	return f.texts(list, [2]string{keyDocURL, pprof.Text(p.DocURL)}, [2]string{keyDropFrames, pprof.Text(p.DropFrames)}, [2]string{keyKeepFrames, pprof.Text(p.KeepFrames)})
}

func (f *fromPprof) stack(locations []*pb.Location) int32 {
	indices := make([]int32, len(locations))
	for i, l := range locations {
		indices[i] = f.location(l)
	}
	return f.dictionary.stack(indices)
}

func (f *fromPprof) location(l *pb.Location) int32 {
	if i, ok := f.locations[l]; ok {
		return i
	}
	out := locationParts{address: l.Address, attributes: f.flags(nil, flag{keyIsFolded, l.IsFolded})}
	if l.Mapping != nil {
		out.mapping = f.mapping(l.Mapping)
	}
	for _, line := range l.Line {
		out.lines = append(out.lines, lineParts{f.function(line.Function), line.Line, line.Column})
	}
	f.encodeLocation(out)
	i := f.intern(tableLocations)
	f.locations[l] = i
	return i
}

func (f *fromPprof) function(of *pb.Function) int32 {
	if i, ok := f.functions[of]; ok {
		return i
	}
	f.encodeFunction(functionParts{
		name: f.string(pprof.Text(of.Name)), system: f.string(pprof.Text(of.SystemName)), file: f.string(pprof.Text(of.Filename)), startLine: of.StartLine,
	})
	i, ok := f.tables[tableFunctions].index[string(f.buffer)]
	if !ok {
		i = f.addFunction()
		f.tables[tableFunctions].index[string(f.buffer)] = i
	}
	f.functions[of] = i
	return i
}

func (f *fromPprof) mapping(m *pb.Mapping) int32 {
	if i, ok := f.mappings[m]; ok {
		return i
	}
	id := pprof.Text(m.BuildID)
	i := f.internMessage(tableMappings, &profilespb.Mapping{
		MemoryStart: m.Start, MemoryLimit: m.Limit, FileOffset: m.Offset, FilenameStrindex: f.string(pprof.Text(m.File)),
		AttributeIndices: f.flags(f.texts(nil, [2]string{keyOfBuildID(id), id}), flag{keyHasFunctions, m.HasFunctions}, flag{keyHasFilenames, m.HasFilenames},
			flag{keyHasLineNumbers, m.HasLineNumbers}, flag{keyHasInlineFrames, m.HasInlineFrames}),
	})
	f.mappings[m] = i
	return i
}

// labels gives the attributes of a sample, in order of their keys, and its link.
func (f *fromPprof) labels(s *pb.Sample) (list []int32, link int32) {
	if trace, span := s.Label[labelTraceID], s.Label[labelSpanID]; len(trace) == 1 && len(span) == 1 &&
		len(s.NumLabel[labelTraceID]) == 0 && len(s.NumLabel[labelSpanID]) == 0 {
		link = f.link(trace[0], span[0])
	}
	var keys []string
	keys = slices.AppendSeq(keys, maps.Keys(s.Label))
	keys = slices.AppendSeq(keys, maps.Keys(s.NumLabel))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if link != 0 && (key == labelTraceID || key == labelSpanID) {
			continue
		}
		if value, unit := labelValue(s.Label[key], s.NumLabel[key], s.NumUnit[key]); value != nil {
			list = append(list, f.attribute(pprof.Text(key), value, unit))
		}
	}
	return list, link
}

// keyOfNumber and keyOfUnit are those of a list that stands for a number with a unit, where the numbers of one label have several:
//
//	{"value": 4, "unit": "bytes"}
const (
	keyOfNumber = "value"
	keyOfUnit   = "unit"
)

// labelValue is what a label is as an attribute: its one value, or all of them in an array, the texts first; nil where there are none.
func labelValue(texts []string, numbers []int64, units []string) (value *commonpb.AnyValue, unit string) {
	unitOf := func(i int) string {
		if i < len(units) {
			return pprof.Text(units[i])
		}
		return ""
	}
	mixed := false
	for i := range numbers {
		mixed = mixed || unitOf(i) != unitOf(0)
	}
	var values []*commonpb.AnyValue
	for _, t := range texts {
		values = append(values, stringValue(pprof.Text(t)))
	}
	for i, n := range numbers {
		v := intValue(n)
		if mixed {
			v = &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{
				keyValue(keyOfNumber, v), keyValue(keyOfUnit, stringValue(unitOf(i))),
			}}}}
		}
		values = append(values, v)
	}
	if len(numbers) > 0 && !mixed {
		unit = unitOf(0)
	}
	switch len(values) {
	case 0:
		return nil, ""
	case 1:
		return values[0], unit
	}
	return arrayValue(values...), unit
}
