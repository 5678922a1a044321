package otlp

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	runtimepprof "runtime/pprof"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	pb "github.com/google/pprof/profile"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// random makes a pprof profile that holds whatever the format can; the same for the same seed.
func random(seed uint64) *pb.Profile {
	r := rand.New(rand.NewPCG(seed, 2))
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	number := func() int64 { return pickOf[int64](r, 1, -1, 7, math.MaxInt64, math.MinInt64, r.Int64()) }
	p := &pb.Profile{
		DocURL: pick("", "https://example.com"), DropFrames: pick("", "malloc"), KeepFrames: pick("", "main"),
		TimeNanos: pickOf(r, 0, began.UnixNano(), -5), DurationNanos: pickOf(r, 0, int64(1e9), -5), Period: pickOf(r, 0, int64(10), -1),
		PeriodType: &pb.ValueType{Type: pick("", "cpu", "space"), Unit: pick("", "nanoseconds", "bytes")},
	}
	for range r.IntN(4) {
		p.Comments = append(p.Comments, pick("samples.taken=5", "samples.taken=6", "by a tool", "", "é=1"))
	}
	for range 1 + r.IntN(4) {
		p.SampleType = append(p.SampleType, &pb.ValueType{Type: pick("samples", "cpu", "alloc", ""), Unit: pick("count", "nanoseconds", "")})
	}
	p.DefaultSampleType = pick("", "cpu", "other")
	for i := range r.IntN(5) {
		p.Mapping = append(p.Mapping, &pb.Mapping{
			ID: uint64(i + 1), Start: r.Uint64(), Limit: r.Uint64(), Offset: r.Uint64(), File: pick("", "/bin/a", "[kernel.kallsyms]_stext", "[vdso]"),
			BuildID: pick("", "abcd", "a/b/c"), HasFunctions: r.IntN(2) == 0, HasFilenames: r.IntN(2) == 0, HasLineNumbers: r.IntN(2) == 0, HasInlineFrames: r.IntN(2) == 0,
		})
	}
	for i := range 1 + r.IntN(6) {
		p.Function = append(p.Function, &pb.Function{
			ID: uint64(i + 1), Name: pick("", "f", "geo::area"), SystemName: pick("", "f", "_Z1f"), Filename: pick("", "a.go"), StartLine: number(),
		})
	}
	for i := range 1 + r.IntN(8) {
		l := &pb.Location{ID: uint64(i + 1), Address: pickOf(r, 0, r.Uint64()), IsFolded: r.IntN(4) == 0}
		if len(p.Mapping) > 0 && r.IntN(3) > 0 {
			l.Mapping = p.Mapping[r.IntN(len(p.Mapping))]
		}
		for range r.IntN(4) {
			l.Line = append(l.Line, pb.Line{Function: p.Function[r.IntN(len(p.Function))], Line: number(), Column: number()})
		}
		p.Location = append(p.Location, l)
	}
	for range r.IntN(20) {
		s := &pb.Sample{Label: make(map[string][]string), NumLabel: make(map[string][]int64), NumUnit: make(map[string][]string)}
		for range p.SampleType {
			s.Value = append(s.Value, pickOf(r, 0, number()))
		}
		for range r.IntN(5) {
			s.Location = append(s.Location, p.Location[r.IntN(len(p.Location))])
		}
		for range r.IntN(6) {
			key := pick("comm", "thread.name", "service.name", "process.pid", "a", "b")
			s.Label[key] = append(s.Label[key], pick("x", "y", "é"))
		}
		for range r.IntN(6) {
			key := pick("pid", "bytes", "a", "trace_id")
			s.NumLabel[key] = append(s.NumLabel[key], number())
			s.NumUnit[key] = append(s.NumUnit[key], pick("", "", "bytes", "seconds"))
		}
		if r.IntN(2) == 0 {
			s.Label["trace_id"] = []string{pick("0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789abcdef", strings.Repeat("0", 32), "12")}
			s.Label["span_id"] = []string{pick("0123456789abcdef", "000000000000000f", "0000000000000000", "zz")}
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

func pickOf[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// Whatever a pprof profile holds is there after it was OTLP, written and read.
func TestPprofRoundTrip(t *testing.T) {
	links := 0
	for seed := range uint64(3000) {
		want := random(seed)
		d, err := FromPprof(want)
		if err != nil {
			t.Fatal(err)
		}
		links += len(d.message.Dictionary.LinkTable) - 1
		var out bytes.Buffer
		if err := d.Write(&out); err != nil {
			t.Fatal(err)
		}
		back, err := Parse(&out)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := back.Pprof("")
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		samePprof(t, got, want)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if links == 0 {
		t.Error("there were no links")
	}
}

// What Go's own profiler writes too, by the bytes.
func TestPprofOfGo(t *testing.T) {
	heap := heapProfile(t)
	d, err := FromPprof(heap)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Pprof("")
	if err != nil {
		t.Fatal(err)
	}
	samePprof(t, got, heap)
	for _, name := range []string{"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"} {
		p, err := d.Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := pprof.ConvertBack(heap, name, pprof.Beyond{})
		if err != nil {
			t.Fatal(err)
		}
		compare(t, p, want)
	}
}

func heapProfile(t *testing.T) *pb.Profile {
	t.Helper()
	runtime.GC()
	var heap bytes.Buffer
	if err := runtimepprof.WriteHeapProfile(&heap); err != nil {
		t.Fatal(err)
	}
	p, err := pprof.Parse(&heap)
	if err != nil || len(p.Sample) == 0 {
		t.Fatal(err)
	}
	return p
}

// foreign makes a message that holds what the format can, with values where they are used, and the same with references to the dictionary.
func foreign(seed uint64) (plain, referring *profilespb.ProfilesData) {
	r := rand.New(rand.NewPCG(seed, 3))
	d := newDictionary()
	var value func(depth int) *commonpb.AnyValue
	value = func(depth int) *commonpb.AnyValue {
		switch r.IntN(8 - 2*min(depth, 1)) {
		case 0:
			return intValue(r.Int64())
		case 1:
			return boolValue(true)
		case 2:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: r.Float64()}}
		case 3:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{1, 2, 0xff}}}
		case 6:
			return arrayValue(value(depth+1), value(depth+1))
		case 7:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{keyValue("k", value(depth+1))}}}}
		}
		return stringValue(fmt.Sprint("text", r.IntN(5)))
	}
	attributes := func() []int32 {
		var list []int32
		for i := range r.IntN(4) {
			list = append(list, d.attribute(fmt.Sprint("attribute", i), value(0), pickOf(r, "", "bytes")))
		}
		return list
	}
	pairs := func() (list []*commonpb.KeyValue) {
		for i := range r.IntN(4) {
			list = append(list, keyValue(fmt.Sprint("key", i), value(0)))
		}
		return list
	}
	stacks := []int32{0}
	for range 5 {
		s := new(profilespb.Stack)
		for range 1 + r.IntN(4) {
			f := d.internMessage(tableFunctions, &profilespb.Function{NameStrindex: d.string(fmt.Sprint("f", r.IntN(4))), FilenameStrindex: d.string("a.py"), StartLine: 3})
			m := d.internMessage(tableMappings, &profilespb.Mapping{MemoryStart: 1, MemoryLimit: 9, FilenameStrindex: d.string("/lib"), AttributeIndices: attributes()})
			l := &profilespb.Location{MappingIndex: m, Address: r.Uint64(), AttributeIndices: attributes()}
			for range r.IntN(3) {
				l.Lines = append(l.Lines, &profilespb.Line{FunctionIndex: f, Line: 7, Column: 8})
			}
			s.LocationIndices = append(s.LocationIndices, d.internMessage(tableLocations, l))
		}
		stacks = append(stacks, d.stack(s.LocationIndices))
	}
	links := []int32{0, d.link("0123456789abcdef0123456789abcdef", "0123456789abcdef"), d.link("1123456789abcdef0123456789abcdef", "1123456789abcdef")}
	plain = new(profilespb.ProfilesData)
	for range 1 + r.IntN(3) {
		rp := &profilespb.ResourceProfiles{SchemaUrl: "https://example.com/1", Resource: &resourcepb.Resource{
			Attributes: pairs(), DroppedAttributesCount: 3, EntityRefs: []*commonpb.EntityRef{{Type: "host", IdKeys: []string{"key0"}}},
		}}
		for range 1 + r.IntN(3) {
			sp := &profilespb.ScopeProfiles{SchemaUrl: "https://example.com/2", Scope: &commonpb.InstrumentationScope{Name: "scope", Version: "1", Attributes: pairs()}}
			for range r.IntN(4) {
				p := &profilespb.Profile{
					SampleType: d.valueType(pickOf(r, "samples", "wall"), "count"), PeriodType: d.valueType("cpu", "nanoseconds"), Period: 10,
					TimeUnixNano: uint64(began.UnixNano()) + uint64(r.IntN(2)), DurationNano: 1e9, ProfileId: []byte("0123456789abcdef"), DroppedAttributesCount: 1,
					OriginalPayloadFormat: "jfr", OriginalPayload: []byte{0xff, 0}, AttributeIndices: attributes(),
				}
				for range r.IntN(6) {
					s := &profilespb.Sample{StackIndex: pickOf(r, stacks...), AttributeIndices: attributes(), LinkIndex: pickOf(r, links...)}
					n := 1 + r.IntN(3)
					for range n {
						s.Values = append(s.Values, r.Int64N(100))
						s.TimestampsUnixNano = append(s.TimestampsUnixNano, p.TimeUnixNano+uint64(r.IntN(1e9)))
					}
					switch r.IntN(3) {
					case 0:
						s.Values = nil
					case 1:
						s.TimestampsUnixNano = nil
					}
					p.Samples = append(p.Samples, s)
				}
				sp.Profiles = append(sp.Profiles, p)
			}
			rp.ScopeProfiles = append(rp.ScopeProfiles, sp)
		}
		plain.ResourceProfiles = append(plain.ResourceProfiles, rp)
	}
	var refer func(v *commonpb.AnyValue)
	references := func(list []*commonpb.KeyValue) {
		for _, a := range list {
			a.KeyStrindex, a.Key = d.string(a.Key), ""
			refer(a.Value)
		}
	}
	refer = func(v *commonpb.AnyValue) {
		switch of := v.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			v.Value = &commonpb.AnyValue_StringValueStrindex{StringValueStrindex: d.string(of.StringValue)}
		case *commonpb.AnyValue_ArrayValue:
			for _, e := range of.ArrayValue.Values {
				refer(e)
			}
		case *commonpb.AnyValue_KvlistValue:
			references(of.KvlistValue.Values)
		}
	}
	plain.Dictionary = d.message()
	referring = proto.Clone(plain).(*profilespb.ProfilesData)
	for _, rp := range referring.ResourceProfiles {
		references(rp.Resource.Attributes)
		for _, sp := range rp.ScopeProfiles {
			references(sp.Scope.Attributes)
		}
	}
	for _, a := range referring.Dictionary.AttributeTable[1:] {
		refer(a.Value)
	}
	plain.Dictionary.StringTable = d.message().StringTable
	referring.Dictionary.StringTable = d.message().StringTable
	// What a version to come may add is kept.
	plain.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "more"))
	referring.ProtoReflect().SetUnknown(plain.ProtoReflect().GetUnknown())
	return plain, referring
}

func wire(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Whatever a message holds is there once it was read and written, with references in their places.
func TestOTLPRoundTrip(t *testing.T) {
	for seed := range uint64(500) {
		plain, referring := foreign(seed)
		for _, m := range []*profilespb.ProfilesData{plain, referring} {
			d, err := Parse(bytes.NewReader(wire(t, m)))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := d.Write(&out); err != nil {
				t.Fatal(err)
			}
			got := new(profilespb.ProfilesData)
			if err := proto.Unmarshal(out.Bytes(), got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, plain) {
				t.Fatalf("seed %d:\n%v\nwant\n%v", seed, got, plain)
			}
		}
	}
}

// Selecting a type takes away other types, and nothing else.
func TestSelect(t *testing.T) {
	for seed := range uint64(500) {
		p := random(seed)
		name := p.SampleType[rand.New(rand.NewPCG(seed, 1)).IntN(len(p.SampleType))].Type
		if name == "" {
			continue
		}
		d, err := FromPprof(p)
		if err != nil {
			t.Fatal(err)
		}
		before := proto.Clone(d.message)
		selected, err := d.Select(name)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(d.message, before) {
			t.Fatalf("seed %d: what is selected from is changed", seed)
		}
		got, err := selected.Pprof("")
		if err != nil {
			t.Fatal(err)
		}
		if err := pprof.Select(p, name); err != nil {
			t.Fatal(err)
		}
		samePprof(t, got, p)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	// Samples that are only counted give values of a type by their period: they stay.
	d, err := Parse(bytes.NewReader(encoded(t, example(1), Options{Timestamps: true})))
	if err != nil {
		t.Fatal(err)
	}
	if selected, err := d.Select("cpu"); err != nil || !proto.Equal(selected.message, d.message) {
		t.Errorf("%v: another message", err)
	}
	if _, err := d.Select("wall"); err == nil || !strings.Contains(err.Error(), `"wall": it has ["samples" "cpu"]`) {
		t.Errorf("%v", err)
	}
}

// Profiles with many attributes take time by their number, not by its square: four times as many would take sixteen times as long.
func TestSelectMany(t *testing.T) {
	took := func(attributes int) time.Duration {
		d := newDictionary()
		var all []*profilespb.Profile
		for i, name := range []string{"one", "two"} {
			p := &profilespb.Profile{SampleType: d.valueType(name, ""), Samples: []*profilespb.Sample{{Values: []int64{1}}}}
			for n := range attributes {
				p.AttributeIndices = append(p.AttributeIndices, d.attribute(keyComment, intValue(int64(2*n+i+1)), ""))
			}
			all = append(all, p)
		}
		data, err := Parse(bytes.NewReader(wire(t, build(resourceOf(all...))(d))))
		if err != nil {
			t.Fatal(err)
		}
		var least time.Duration
		for range 5 { // the least is that which nobody disturbed
			begun := time.Now()
			selected, err := data.Select("two")
			took := time.Since(begun)
			if err != nil {
				t.Fatal(err)
			}
			kept := selected.message.ResourceProfiles[0].ScopeProfiles[0].Profiles
			if len(kept) != 1 || len(kept[0].AttributeIndices) != 2*attributes {
				t.Fatalf("%d profiles", len(kept))
			}
			if least == 0 || took < least {
				least = took
			}
		}
		return least
	}
	// Four times as many take four times as long, or six where caches are small; with the square it is sixteen times or more. A machine that is busy with
	// something else can disturb any measurement: the best of some counts.
	least := math.Inf(1)
	for range 5 {
		few, many := took(20_000), took(80_000)
		least = min(least, float64(many)/float64(few))
		t.Logf("20,000 attributes take %v, 80,000 %v", few, many)
		if least <= 12 {
			return
		}
	}
	t.Errorf("four times as many attributes take %.1f times as long", least)
}

// build makes a message of profiles in scopes of their own.
func build(resources ...*profilespb.ResourceProfiles) func(d *dictionary) *profilespb.ProfilesData {
	return func(d *dictionary) *profilespb.ProfilesData {
		return &profilespb.ProfilesData{ResourceProfiles: resources, Dictionary: d.message()}
	}
}

func resourceOf(profiles ...*profilespb.Profile) *profilespb.ResourceProfiles {
	return &profilespb.ResourceProfiles{ScopeProfiles: []*profilespb.ScopeProfiles{{Profiles: profiles}}}
}

// Intervals are added up with their accounts; those with other periods are not.
func TestIntervals(t *testing.T) {
	d := newDictionary()
	stack := d.stack([]int32{d.internMessage(tableLocations, &profilespb.Location{Address: 5})})
	interval := func(at time.Duration, period, count int64, said ...string) *profilespb.Profile {
		return &profilespb.Profile{
			SampleType: d.valueType("samples", "count"), PeriodType: d.valueType("cpu", "nanoseconds"), Period: period,
			TimeUnixNano: uint64(began.Add(at).UnixNano()), DurationNano: uint64(10 * time.Second), AttributeIndices: []int32{d.attribute(keyComment, comments(said), "")},
			Samples: []*profilespb.Sample{{StackIndex: stack, Values: []int64{count}, TimestampsUnixNano: []uint64{uint64(began.Add(at + time.Second).UnixNano())}}},
		}
	}
	one := interval(0, 10, 1, "samples.taken=10", "samples.exported=8", "samples.lost.ring_full=2", "by a tool")
	two := interval(10*time.Second, 10, 1, "samples.taken=20", "samples.exported=15", "samples.lost.bad_record=5", "by a tool")
	read := func(m *profilespb.ProfilesData, sampleType string) (*profile.Profile, error) {
		return Read(bytes.NewReader(wire(t, m)), sampleType)
	}
	for _, m := range []*profilespb.ProfilesData{build(resourceOf(one, two))(d), build(resourceOf(one), resourceOf(two))(d)} {
		p, err := read(m, "")
		if err != nil {
			t.Fatal(err)
		}
		account := profile.Account{Taken: 30, Exported: 23, Lost: []profile.Loss{{Reason: "ring_full", Count: 2}, {Reason: "bad_record", Count: 5}}}
		if !reflect.DeepEqual(p.Account, account) || !p.Start.Equal(began) || p.Duration != 20*time.Second || p.Period != 10 || p.Type != profile.TypeCPU {
			t.Errorf("%+v", p)
		}
		if len(p.Samples) != 2 || p.Samples[1].Value != 10 || !slices.Equal(p.Samples[1].Times, []time.Duration{11 * time.Second}) {
			t.Errorf("%+v", p.Samples)
		}
		parsed, err := Parse(bytes.NewReader(wire(t, m)))
		if err != nil {
			t.Fatal(err)
		}
		asPprof, err := parsed.Pprof("")
		want := []string{"samples.taken=30", "samples.exported=23", "samples.lost.ring_full=2", "by a tool", "samples.lost.bad_record=5"}
		if err != nil || !slices.Equal(asPprof.Comments, want) {
			t.Errorf("%q, %v", asPprof.Comments, err)
		}
	}
	other := build(resourceOf(one), resourceOf(interval(0, 20, 1)))(d)
	if _, err := read(other, ""); err == nil || !strings.Contains(err.Error(), "differing periods, 10 nanoseconds of \"cpu\" and 20 nanoseconds") {
		t.Errorf("%v", err)
	}
	// Another type of values may have another period; it has to be chosen.
	memory := interval(0, 524288, 100)
	memory.SampleType, memory.PeriodType = d.valueType("alloc_space", "bytes"), d.valueType("space", "bytes")
	mixed := build(resourceOf(one), resourceOf(memory))(d)
	if _, err := read(mixed, ""); err == nil || !strings.Contains(err.Error(), `type "cpu" and of "alloc_space": choose one`) {
		t.Errorf("%v", err)
	}
	if p, err := read(mixed, "alloc_space"); err != nil || len(p.Samples) != 1 || p.Samples[0].Value != 100 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := read(mixed, "cpu"); err != nil || len(p.Samples) != 1 || p.Samples[0].Value != 10 || p.Samples[0].Count != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

// What other tools write becomes labels: those of the sample before those of its profile, scope and resource.
func TestForeignLabels(t *testing.T) {
	d := newDictionary()
	text := func(key, value string) int32 { return d.attribute(key, stringValue(value), "") }
	p := &profilespb.Profile{
		SampleType: d.valueType("samples", "count"), PeriodType: d.valueType("cpu", "nanoseconds"), Period: 10, AttributeIndices: []int32{text("a", "profile"), text("b", "profile")},
		Samples: []*profilespb.Sample{{
			Values: []int64{3}, LinkIndex: d.link("0123456789abcdef0123456789abcdef", "0123456789abcdef"),
			AttributeIndices: []int32{
				text("a", "sample"), text(keyThreadName, "worker"), d.attribute(keyThreadID, intValue(7), ""), d.attribute("size", intValue(4), "bytes"),
				d.attribute("ratio", &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}}, ""), d.attribute("list", arrayValue(stringValue("x"), intValue(1), arrayValue(intValue(2))), ""),
				d.attribute("raw", &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{1, 2}}}, ""), d.attribute("yes", boolValue(true), ""),
				d.attribute("empty", nil, ""), d.attribute("object", &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{keyValue("k", stringValue("v"))}}}}, ""),
			},
		}, {Values: []int64{2}, AttributeIndices: []int32{text(labelTraceID, "mine")}, LinkIndex: d.internMessage(tableLinks, &profilespb.Link{TraceId: make([]byte, 16), SpanId: []byte{0, 0, 0, 0, 0, 0, 0, 1}})}},
	}
	r := resourceOf(p)
	r.ScopeProfiles[0].Scope = &commonpb.InstrumentationScope{Name: "tool", Attributes: []*commonpb.KeyValue{keyValue("b", stringValue("scope")), keyValue("c", stringValue("scope"))}}
	r.Resource = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		keyValue("c", stringValue("resource")), keyValue("d", stringValue("resource")), keyValue(keyPID, intValue(10)), keyValue(keyExecutableName, stringValue("python3")),
		keyValue(keyContainerID, stringValue("0123")), keyValue(keyServiceName, stringValue("shop")),
	}}
	data, err := Parse(bytes.NewReader(wire(t, build(r)(d))))
	if err != nil {
		t.Fatal(err)
	}
	out, err := data.Pprof("")
	if err != nil {
		t.Fatal(err)
	}
	s := out.Sample[0]
	texts := map[string][]string{
		"a": {"sample"}, "b": {"profile"}, "c": {"scope"}, "d": {"resource"}, "thread": {"worker"}, "comm": {"python3"}, "container_id": {"0123"}, "service": {"shop"},
		"ratio": {"0.5"}, "list": {"x", "[2]"}, "raw": {"AQI="}, "yes": {"true"}, "object": {`{"k":"v"}`},
		"trace_id": {"0123456789abcdef0123456789abcdef"}, "span_id": {"0123456789abcdef"},
	}
	numbers := map[string][]int64{"pid": {10}, "tid": {7}, "size": {4}, "list": {1}}
	if !reflect.DeepEqual(s.Label, texts) || !reflect.DeepEqual(s.NumLabel, numbers) || !reflect.DeepEqual(s.NumUnit, map[string][]string{"size": {"bytes"}}) {
		t.Errorf("%v\n%v\n%v", s.Label, s.NumLabel, s.NumUnit)
	}
	if !slices.Equal(s.Value, []int64{3, 30}) || out.DefaultSampleType != "cpu" {
		t.Errorf("%v, by default %s", s.Value, out.DefaultSampleType)
	}
	// An id of zeros is none.
	if s := out.Sample[1]; !slices.Equal(s.Label["trace_id"], []string{"mine"}) || !slices.Equal(s.Label["span_id"], []string{"0000000000000001"}) {
		t.Errorf("%v", s.Label)
	}
	got, err := data.Profile("")
	if err != nil {
		t.Fatal(err)
	}
	resource := []profile.Attribute{{Key: "c", Value: "scope"}, {Key: "d", Value: "resource"}}
	if l := *got.Samples[0].Labels; !reflect.DeepEqual(l, profile.Labels{
		PID: 10, TID: 7, Comm: "python3", Thread: "worker", ContainerID: "0123", Service: "shop", Resource: resource,
		TraceID: "0123456789abcdef0123456789abcdef", SpanID: "0123456789abcdef",
	}) {
		t.Errorf("%+v", l)
	}
}

// Equal samples of a profile are told apart, and find their values in the other profiles of the scope.
func TestJoin(t *testing.T) {
	d := newDictionary()
	profileOf := func(name string, values map[int32]int64, order ...int32) *profilespb.Profile {
		p := &profilespb.Profile{SampleType: d.valueType(name, "bytes"), PeriodType: d.valueType("space", "bytes"), Period: 1}
		for _, link := range order {
			p.Samples = append(p.Samples, &profilespb.Sample{LinkIndex: link, Values: []int64{values[link]}})
		}
		return p
	}
	a, b, c := d.link(strings.Repeat("a", 32), strings.Repeat("a", 16)), d.link(strings.Repeat("b", 32), strings.Repeat("b", 16)), d.link(strings.Repeat("c", 32), strings.Repeat("c", 16))
	m := build(resourceOf(
		profileOf("one", map[int32]int64{a: 1, b: 2}, a, a, b),
		profileOf("two", map[int32]int64{a: 10, b: 20, c: 30}, c, b, a, a, a)))(d)
	data, err := Parse(bytes.NewReader(wire(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := data.Pprof("")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range p.Sample {
		got = append(got, fmt.Sprint(s.Label["trace_id"][0][:1], s.Value))
	}
	slices.Sort(got)
	if want := []string{"a[0 10]", "a[1 10]", "a[1 10]", "b[2 20]", "c[0 30]"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func zipped(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

func TestReadZipped(t *testing.T) {
	want := example(1)
	got, err := Read(bytes.NewReader(zipped(encoded(t, want, Options{Timestamps: true}))), "")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, want)
}

// Entries that stand at index 0 as others write them are the empty ones.
func TestFirstEntries(t *testing.T) {
	want := build(resourceOf())(newDictionary())
	m := proto.Clone(want).(*profilespb.ProfilesData)
	m.Dictionary.LinkTable[0] = &profilespb.Link{TraceId: make([]byte, 16), SpanId: make([]byte, 8)}
	m.Dictionary.AttributeTable[0].Value = new(commonpb.AnyValue)
	m.Dictionary.StackTable = nil
	for _, message := range []*profilespb.ProfilesData{m, build(resourceOf())(new(dictionary))} {
		d, err := Parse(bytes.NewReader(wire(t, message)))
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(d.message, want) {
			t.Errorf("%v, want %v", d.message, want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	d := newDictionary()
	counted := func(change func(*profilespb.Profile)) []byte {
		p := &profilespb.Profile{SampleType: d.valueType("samples", "count"), PeriodType: d.valueType("cpu", "nanoseconds"), Period: 10, Samples: []*profilespb.Sample{{Values: []int64{1}}}}
		change(p)
		return wire(t, build(resourceOf(p))(d))
	}
	table := func(change func(*profilespb.ProfilesDictionary)) []byte {
		m := build()(newDictionary())
		change(m.Dictionary)
		return wire(t, m)
	}
	sample := func(change func(*profilespb.Sample)) []byte {
		return counted(func(p *profilespb.Profile) { change(p.Samples[0]) })
	}
	good := encoded(t, example(1), Options{})
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "empty"},
		{"text", []byte("main;f 1\n"), "no ProfilesData"},
		{"cut", good[:len(good)-3], "no ProfilesData"},
		{"cut zip", zipped(good)[:100], "EOF"},
		{"no profiles", table(func(*profilespb.ProfilesDictionary) {}), "no profiles"},
		{"no string before others", table(func(d *profilespb.ProfilesDictionary) { d.StringTable = []string{"a"} }), "string_table[0]"},
		{"no empty attribute", table(func(d *profilespb.ProfilesDictionary) { d.AttributeTable[0].Value = boolValue(false) }), "attribute_table[0]"},
		{"no empty mapping", table(func(d *profilespb.ProfilesDictionary) { d.MappingTable[0].MemoryStart = 1 }), "mapping_table[0]"},
		{"string", table(func(d *profilespb.ProfilesDictionary) {
			d.FunctionTable = append(d.FunctionTable, &profilespb.Function{NameStrindex: 9})
		}), "index 9 leads out of string_table, which has 1"},
		{"location", table(func(d *profilespb.ProfilesDictionary) {
			d.StackTable = append(d.StackTable, &profilespb.Stack{LocationIndices: []int32{-1}})
		}), "index -1 leads out of location_table"},
		{"function", table(func(d *profilespb.ProfilesDictionary) {
			d.LocationTable = append(d.LocationTable, &profilespb.Location{Lines: []*profilespb.Line{{FunctionIndex: 1}}})
		}), "function_table"},
		{"mapping", table(func(d *profilespb.ProfilesDictionary) {
			d.LocationTable = append(d.LocationTable, &profilespb.Location{MappingIndex: 1})
		}), "mapping_table"},
		{"attribute", table(func(d *profilespb.ProfilesDictionary) {
			d.MappingTable = append(d.MappingTable, &profilespb.Mapping{AttributeIndices: []int32{1}})
		}), "attribute_table"},
		{"reference", table(func(d *profilespb.ProfilesDictionary) {
			d.AttributeTable = append(d.AttributeTable, &profilespb.KeyValueAndUnit{Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValueStrindex{StringValueStrindex: 4}}})
		}), "string_table"},
		{"stack", sample(func(s *profilespb.Sample) { s.StackIndex = 7 }), "stack_table"},
		{"link", sample(func(s *profilespb.Sample) { s.LinkIndex = 7 }), "link_table"},
		{"sample's attribute", sample(func(s *profilespb.Sample) { s.AttributeIndices = []int32{0, 7} }), "attribute_table"},
		{"lost values", sample(func(s *profilespb.Sample) { s.Values = nil }), "neither values nor timestamps"},
		{"values and times", sample(func(s *profilespb.Sample) { s.TimestampsUnixNano = []uint64{1, 2} }), "1 values and 2 timestamps"},
		{"sum", sample(func(s *profilespb.Sample) { s.Values = []int64{math.MaxInt64, 1} }), "64 bits"},
		{"value by the period", sample(func(s *profilespb.Sample) { s.Values = []int64{math.MaxInt64} }), "64 bits"},
		{"type", counted(func(p *profilespb.Profile) { p.SampleType = d.valueType(strings.Repeat("x", 2000), "") }), "more than 1024 bytes"},
	} {
		if p, err := Read(bytes.NewReader(test.data), ""); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "read OTLP profile: ") {
			t.Errorf("%s: %v, %v; want %q", test.name, p, err, test.want)
		}
	}
	broken := errors.New("broken disk")
	if _, err := Read(iotest.ErrReader(broken), ""); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := FromPprof(new(pb.Profile)); err == nil {
		t.Error("a profile without types was converted")
	}
}

// nested is a message of field, in itself so many times.
func nested(field protowire.Number, inner []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
}

// Small files that ask for much memory or time are refused before they get it.
func TestReadBounds(t *testing.T) {
	deep := []byte{}
	for range 20000 {
		deep = nested(5, nested(1, deep)) // an array in an array
		if len(deep) > 1<<20 {
			break
		}
	}
	megabyte := strings.Repeat("x", 1<<20)
	indices := make([]int32, 1<<20)
	for i := range indices {
		indices[i] = 1
	}
	base := func() (*dictionary, *profilespb.Profile) {
		d := newDictionary()
		return d, &profilespb.Profile{SampleType: d.valueType("samples", "count"), PeriodType: d.valueType("cpu", "nanoseconds"), Period: 1}
	}
	samples := func(p *profilespb.Profile, n int, s *profilespb.Sample) {
		for range n {
			p.Samples = append(p.Samples, s)
		}
	}
	tests := map[string]func() []byte{
		"values in values": func() []byte { return nested(2, nested(6, nested(2, deep))) },
		"empty samples":    func() []byte { return nested(1, nested(2, nested(2, bytes.Repeat([]byte{2<<3 | 2, 0}, 20<<20)))) },
		"strings by reference": func() []byte {
			d, p := base()
			values := make([]*commonpb.AnyValue, 100_000)
			for i := range values {
				values[i] = &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValueStrindex{StringValueStrindex: d.string(megabyte)}}
			}
			p.AttributeIndices = []int32{d.attribute("a", arrayValue(values...), "")}
			return wire(t, build(resourceOf(p))(d))
		},
		"long stacks in many samples": func() []byte {
			d, p := base()
			d.internMessage(tableLocations, &profilespb.Location{Address: 1})
			s := d.stack(indices)
			samples(p, 100_000, &profilespb.Sample{StackIndex: s, Values: []int64{1}})
			return wire(t, build(resourceOf(p))(d))
		},
		"many attributes in many samples": func() []byte {
			d, p := base()
			d.attribute("a", stringValue("x"), "")
			samples(p, 100, &profilespb.Sample{AttributeIndices: indices[:1<<20-1], Values: []int64{1}})
			for i, s := range p.Samples { // another list each
				p.Samples[i] = &profilespb.Sample{AttributeIndices: s.AttributeIndices[i:], Values: s.Values}
			}
			return wire(t, build(resourceOf(p))(d))
		},
		"long labels in many samples": func() []byte {
			d, p := base()
			samples(p, 100_000, &profilespb.Sample{AttributeIndices: []int32{d.attribute("comm", stringValue(megabyte), "")}, Values: []int64{1}})
			return wire(t, build(resourceOf(p))(d))
		},
		"a long comment, often": func() []byte {
			d, p := base()
			comment := d.attribute(keyComment, stringValue("="+megabyte), "")
			for range 1 << 20 {
				p.AttributeIndices = append(p.AttributeIndices, comment)
			}
			return wire(t, build(resourceOf(p), resourceOf(p))(d))
		},
		"a long id in many samples": func() []byte {
			d, p := base()
			link := d.internMessage(tableLinks, &profilespb.Link{TraceId: bytes.Repeat([]byte{1}, 10<<20), SpanId: make([]byte, 8)})
			for i := range 1000 {
				p.Samples = append(p.Samples, &profilespb.Sample{AttributeIndices: []int32{d.attribute("a", intValue(int64(i)), "")}, LinkIndex: link, Values: []int64{1}})
			}
			return wire(t, build(resourceOf(p))(d))
		},
		"long names of many functions": func() []byte {
			d, p := base()
			l := new(profilespb.Location)
			for i := range 50_000 {
				l.Lines = append(l.Lines, &profilespb.Line{FunctionIndex: d.internMessage(tableFunctions, &profilespb.Function{NameStrindex: d.string(megabyte), StartLine: int64(i)})})
			}
			s := d.stack([]int32{d.internMessage(tableLocations, l)})
			samples(p, 1, &profilespb.Sample{StackIndex: s, Values: []int64{1}})
			return wire(t, build(resourceOf(p))(d))
		},
		"many comments in many profiles": func() []byte {
			d, p := base()
			p.AttributeIndices = []int32{d.attribute(keyComment, comments(slices.Repeat([]string{"x"}, 100_000)), "")}
			return wire(t, build(resourceOf(slices.Repeat([]*profilespb.Profile{p}, 100_000)...))(d))
		},
		"many attributes of a resource of many scopes": func() []byte {
			d, p := base()
			samples(p, 1, &profilespb.Sample{Values: []int64{1}})
			r := &profilespb.ResourceProfiles{Resource: new(resourcepb.Resource)}
			for i := range 200_000 {
				r.Resource.Attributes = append(r.Resource.Attributes, keyValue(fmt.Sprint(i), intValue(1)))
			}
			for range 200_000 {
				r.ScopeProfiles = append(r.ScopeProfiles, &profilespb.ScopeProfiles{Profiles: []*profilespb.Profile{p}})
			}
			return wire(t, build(r)(d))
		},
		"many types": func() []byte {
			d, p := base()
			var all []*profilespb.Profile
			for i := range 100_000 {
				all = append(all, &profilespb.Profile{SampleType: d.valueType(fmt.Sprint(i), ""), PeriodType: p.PeriodType, Period: 1, Samples: []*profilespb.Sample{{Values: []int64{1}}}})
			}
			return wire(t, build(resourceOf(all...))(d))
		},
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			data := data()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begun := time.Now()
			d, err := Parse(bytes.NewReader(data))
			if err == nil {
				_, err = d.Pprof("")
			}
			took := time.Since(begun)
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%d KiB: %v after %v and %d MiB", len(data)>>10, err, took.Round(time.Millisecond), allocated)
			if err == nil || allocated > 3*maxMemory>>20 {
				t.Errorf("%d bytes are read: %v, %d MiB", len(data), err, allocated)
			}
		})
	}
}

// FuzzRead: what is read can be written again as either format, and then says the same.
func FuzzRead(f *testing.F) {
	f.Add(encoded(f, example(1), Options{Timestamps: true}))
	for seed := range uint64(5) {
		plain, referring := foreign(seed)
		f.Add(wire(f, plain))
		f.Add(wire(f, referring))
		d, err := FromPprof(random(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire(f, d.message))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := d.Write(&again); err != nil {
			t.Fatal(err)
		}
		if back, err := Parse(&again); err != nil && again.Len() > 0 || err == nil && !proto.Equal(back.message, d.message) {
			t.Fatalf("read again it is another message: %v", err)
		}
		p, err := d.Pprof("")
		if err == nil {
			if err := p.CheckValid(); err != nil {
				t.Fatal(err)
			}
		}
		read, err := d.Profile("")
		runtime.ReadMemStats(&after)
		// A byte of a file is a sample or a reference to another byte, at most.
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4*maxMemory {
			t.Fatalf("%d bytes took %d MiB", len(data), allocated>>20)
		}
		if err != nil {
			return
		}
		var count, value int64
		for _, s := range read.Samples {
			count, value = count+s.Count, value+s.Value
		}
		var out bytes.Buffer
		if err := Write(&out, read, Options{Timestamps: true}); err != nil {
			t.Fatal(err)
		}
		back, err := Read(&out, read.Type.Name)
		if err != nil {
			if strings.Contains(err.Error(), "64 bits") {
				return // its count times its period
			}
			t.Fatal(err)
		}
		for _, s := range back.Samples {
			count, value = count-s.Count, value-s.Value
		}
		if value != 0 || count != 0 && read.Type != profile.TypeSamples {
			t.Fatalf("read again it has %d samples less, %d of value", count, value)
		}
	})
}
