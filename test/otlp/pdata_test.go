package otlp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	pb "github.com/google/pprof/profile"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pprofile"

	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/test/received"
)

func unmarshal(t *testing.T, data []byte) pprofile.Profiles {
	t.Helper()
	p, err := new(pprofile.ProtoUnmarshaler).UnmarshalProfiles(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// attributes are those of a map, as text with their types, and the error that came with it.
func attributes(m pcommon.Map, errs ...error) map[string]string {
	out := make(map[string]string)
	if err := errors.Join(errs...); err != nil {
		return map[string]string{"error": err.Error()}
	}
	for key, v := range m.All() {
		out[key] = fmt.Sprintf("%s %s", v.Type(), v.AsString())
	}
	return out
}

// frame is a line of a location, with what it refers to.
type frame struct {
	Name, System, File string
	Start, Line        int64
	Address            uint64
	Mapping            string
	Kind               string
}

// frames follows a stack through the dictionary.
func frames(t *testing.T, d pprofile.ProfilesDictionary, stack int32) (out []frame) {
	t.Helper()
	text := func(i int32) string { return d.StringTable().At(int(i)) }
	for _, i := range d.StackTable().At(int(stack)).LocationIndices().All() {
		l := d.LocationTable().At(int(i))
		m := d.MappingTable().At(int(l.MappingIndex()))
		kind := attributes(pprofile.FromAttributeIndices(d.AttributeTable(), l, d))["profile.frame.type"]
		for _, line := range l.Lines().All() {
			f := d.FunctionTable().At(int(line.FunctionIndex()))
			out = append(out, frame{text(f.NameStrindex()), text(f.SystemNameStrindex()), text(f.FilenameStrindex()), f.StartLine(), line.Line(), l.Address(), text(m.FilenameStrindex()), kind})
		}
	}
	return out
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, got, want)
	}
}

// pdata sees every field as it was.
func TestPdataReadsWhatIsWritten(t *testing.T) {
	var out bytes.Buffer
	if err := otlp.Write(&out, received.Example(), otlp.Options{Version: "v1.2.3", Timestamps: true}); err != nil {
		t.Fatal(err)
	}
	p := unmarshal(t, out.Bytes())
	d := p.Dictionary()
	text := func(i int32) string { return d.StringTable().At(int(i)) }
	typeOf := func(v pprofile.ValueType) string { return text(v.TypeStrindex()) + "/" + text(v.UnitStrindex()) }
	if n := p.ResourceProfiles().Len(); n != 2 {
		t.Fatalf("%d resources", n)
	}
	equal(t, "resource", attributes(p.ResourceProfiles().At(0).Resource().Attributes()), map[string]string{
		"service.name": "Str app", "service.instance.id": "Str 10", "process.pid": "Int 10", "process.title": "Str app", "process.executable.name": "Str app",
		"process.executable.path": "Str /usr/bin/app", "process.linux.cgroup": "Str /x.scope", "container.id": "Str 0123",
	})
	equal(t, "resource", attributes(p.ResourceProfiles().At(1).Resource().Attributes()), map[string]string{
		"service.name": "Str other", "service.instance.id": "Str 12", "process.pid": "Int 12", "process.title": "Str other",
	})
	scope := p.ResourceProfiles().At(0).ScopeProfiles().At(0)
	equal(t, "scope", [2]string{scope.Scope().Name(), scope.Scope().Version()}, [2]string{"github.com/pilotlight/pilotlight", "v1.2.3"})
	unnamed := frame{"[app+0x1ff0]", "[app+0x1ff0]", "", 0, 0, 0x401ff0, "/usr/bin/app", "Str native"}
	stacks := [][]frame{
		{
			{"vfs_read", "vfs_read", "", 0, 0, 0xffffffff81234567, "[kernel.kallsyms]", "Str kernel"},
			{"leaf", "leaf", "a.c", 10, 12, 0x401010, "/usr/bin/app", "Str native"},
			{"geo::area<geo::Circle, 7>", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "a.c", 20, 25, 0x401010, "/usr/bin/app", "Str native"},
			unnamed,
		},
		{unnamed, {Name: "[truncated: unmapped pc]", System: "[truncated: unmapped pc]"}},
	}
	times := [][]uint64{{uint64(received.Began.UnixNano()), uint64(received.Began.Add(10*time.Second - 1).UnixNano())}, {uint64(received.Began.Add(time.Second).UnixNano())}}
	values := []int64{2 * 10309278, 5}
	labels := []map[string]string{{"thread.name": "Str worker", "thread.id": "Int 11"}, {}}
	for i := range 2 {
		profiles := p.ResourceProfiles().At(i).ScopeProfiles().At(0).Profiles()
		if profiles.Len() != 2 {
			t.Fatalf("%d profiles", profiles.Len())
		}
		for n, of := range profiles.All() {
			equal(t, "type", typeOf(of.SampleType()), []string{"samples/count", "cpu/nanoseconds"}[n])
			equal(t, "period", fmt.Sprint(typeOf(of.PeriodType()), of.Period()), "cpu/nanoseconds10309278")
			equal(t, "time", fmt.Sprint(of.Time().AsTime(), of.DurationNano()), fmt.Sprint(received.Began, uint64(10*time.Second)))
			if of.Samples().Len() != 1 {
				t.Fatalf("%d samples", of.Samples().Len())
			}
			s := of.Samples().At(0)
			equal(t, "frames", frames(t, d, s.StackIndex()), stacks[i])
			equal(t, "attributes", attributes(pprofile.FromAttributeIndices(d.AttributeTable(), s, d)), labels[i])
			equal(t, "link", s.LinkIndex(), int32(0))
			if n == 0 {
				equal(t, "times", s.TimestampsUnixNano().AsRaw(), times[i])
				equal(t, "values", s.Values().Len(), 0)
			} else {
				equal(t, "values", s.Values().AsRaw(), []int64{values[i]})
				equal(t, "times", s.TimestampsUnixNano().Len(), 0)
			}
			about, err := pprofile.FromAttributeIndices(d.AttributeTable(), of, d)
			if err != nil {
				t.Fatal(err)
			}
			if comment, ok := about.Get("pprof.profile.comment"); ok != (i == 0 && n == 0) || ok &&
				!slices.Equal(comment.Slice().AsRaw(), []any{"samples.taken=4", "samples.exported=3", "samples.lost.ring_full=1"}) {
				t.Errorf("comments of profile %d of resource %d: %v", n, i, about.AsRaw())
			}
		}
	}
	for _, m := range d.MappingTable().All() {
		if text(m.FilenameStrindex()) != "/usr/bin/app" {
			continue
		}
		equal(t, "mapping", []uint64{m.MemoryStart(), m.MemoryLimit(), m.FileOffset()}, []uint64{0x401000, 0x402000, 0x1000})
		equal(t, "mapping", attributes(pprofile.FromAttributeIndices(d.AttributeTable(), m, d)), map[string]string{
			"process.executable.build_id.gnu": "Str abcdef0123", "process.executable.build_id.htlhash": "Str 00112233445566778899aabbccddeeff",
			"pprof.mapping.has_functions": "Bool true", "pprof.mapping.has_filenames": "Bool true", "pprof.mapping.has_line_numbers": "Bool true", "pprof.mapping.has_inline_frames": "Bool true",
		})
	}
}

// withLinks is a pprof profile with labels of all kinds, and the ids of a span.
func withLinks() *pb.Profile {
	f := &pb.Function{ID: 1, Name: "f"}
	l := &pb.Location{ID: 1, Address: 5, Line: []pb.Line{{Function: f, Line: 6, Column: 7}}}
	return &pb.Profile{
		SampleType: []*pb.ValueType{{Type: "alloc_objects", Unit: "count"}, {Type: "alloc_space", Unit: "bytes"}}, PeriodType: &pb.ValueType{Type: "space", Unit: "bytes"}, Period: 512,
		Function: []*pb.Function{f}, Location: []*pb.Location{l}, Comments: []string{"by a tool"}, DefaultSampleType: "alloc_space",
		Sample: []*pb.Sample{{Location: []*pb.Location{l}, Value: []int64{3, -4}, Label: map[string][]string{
			"tenant": {"a"}, "many": {"b", "c"}, "trace_id": {"0123456789abcdef0123456789abcdef"}, "span_id": {"0123456789abcdef"},
		}, NumLabel: map[string][]int64{"size": {8}}, NumUnit: map[string][]string{"size": {"bytes"}}}},
	}
}

// Links, labels and units of a pprof profile are what pdata sees.
func TestPdataReadsWhatCameFromPprof(t *testing.T) {
	data, err := otlp.FromPprof(withLinks())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := data.Write(&out); err != nil {
		t.Fatal(err)
	}
	p := unmarshal(t, out.Bytes())
	d := p.Dictionary()
	profiles := p.ResourceProfiles().At(0).ScopeProfiles().At(0).Profiles()
	equal(t, "profiles", profiles.Len(), 2)
	for i, of := range profiles.All() {
		s := of.Samples().At(0)
		equal(t, "values", s.Values().AsRaw(), [][]int64{{3}, {-4}}[i])
		equal(t, "attributes", attributes(pprofile.FromAttributeIndices(d.AttributeTable(), s, d)), map[string]string{"tenant": "Str a", "many": `Slice ["b","c"]`, "size": "Int 8"})
		link := d.LinkTable().At(int(s.LinkIndex()))
		trace, span := link.TraceID(), link.SpanID()
		equal(t, "link", hex.EncodeToString(trace[:])+" "+hex.EncodeToString(span[:]), "0123456789abcdef0123456789abcdef 0123456789abcdef")
	}
	units := make(map[string]string)
	for _, a := range d.AttributeTable().All() {
		if a.UnitStrindex() != 0 {
			units[d.StringTable().At(int(a.KeyStrindex()))] = d.StringTable().At(int(a.UnitStrindex()))
		}
	}
	equal(t, "units", units, map[string]string{"size": "bytes"})
	line := d.LocationTable().At(1).Lines().At(0)
	equal(t, "line", []int64{line.Line(), line.Column()}, []int64{6, 7})
	if link := d.LinkTable().At(0); !link.TraceID().IsEmpty() || !link.SpanID().IsEmpty() {
		t.Error("the link at index 0 has ids")
	}
}

// What pdata makes of it again, with references to the dictionary in its attributes, means what it did.
func TestReadsWhatPdataWrites(t *testing.T) {
	var out bytes.Buffer
	want := received.Example()
	if err := otlp.Write(&out, want, otlp.Options{Timestamps: true}); err != nil {
		t.Fatal(err)
	}
	passed, err := new(pprofile.ProtoMarshaler).MarshalProfiles(unmarshal(t, out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(passed, out.Bytes()) {
		t.Error("pdata wrote no references: this tests nothing")
	}
	got, err := otlp.Read(bytes.NewReader(passed), "")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}

	data, err := otlp.FromPprof(withLinks())
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := data.Write(&out); err != nil {
		t.Fatal(err)
	}
	if passed, err = new(pprofile.ProtoMarshaler).MarshalProfiles(unmarshal(t, out.Bytes())); err != nil {
		t.Fatal(err)
	}
	if data, err = otlp.Parse(bytes.NewReader(passed)); err != nil {
		t.Fatal(err)
	}
	back, err := data.Pprof("")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "pprof", back.String(), withLinks().String())
}
