package otlp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/google/pprof/profile"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// example makes a profile of what sampling gives, with times; the same for the same seed.
func example(seed uint64) *profile.Profile {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	p := &profile.Profile{
		Type: profile.TypeCPU, Start: began, Duration: 10 * time.Second, Period: 10309278,
		Account: profile.Account{Taken: 5000, Exported: 4000, Filtered: uint64(r.IntN(3)), Lost: []profile.Loss{{Reason: "ring_full", Count: 900}, {Reason: "bad_record", Count: 0}}},
	}
	mappings := []*profile.Mapping{nil}
	for i := range 4 {
		mappings = append(mappings, &profile.Mapping{
			Path: fmt.Sprintf("/usr/lib/lib%d.so", i), BuildID: pick("", "abcdef0123", "aB/cD/eF"), EndsHash: pick("", "00112233445566778899aabbccddeeff"),
			Start: uint64(r.IntN(1 << 20)), Limit: 1<<21 + uint64(i), Offset: 0x1000 * uint64(i), HasFunctions: true, HasLines: r.IntN(2) == 0,
		})
	}
	kernel := &profile.Mapping{Path: "[kernel.kallsyms]", HasFunctions: true}
	var functions []*profile.Function
	for i := range 20 {
		functions = append(functions, &profile.Function{
			Name: fmt.Sprintf("%s%d", pick("work", "main.(*T).Run", "_ZN3geo4areaINS_6CircleELi7EEEdRKT_"), i), File: pick("", "/src/a.go", "/src/a.c"), StartLine: r.IntN(100),
		})
	}
	location := func(kind profile.FrameKind, m *profile.Mapping) *profile.Location {
		l := &profile.Location{Kind: kind, Mapping: m, Address: uint64(r.Int64())}
		if m != nil && r.IntN(5) == 0 {
			l.Unnamed = "no_symbol"
			l.Lines = []profile.Line{{Function: &profile.Function{Name: "[lib.so+0x10]"}}}
			return l
		}
		for range 1 + r.IntN(3) {
			l.Lines = append(l.Lines, profile.Line{Function: functions[r.IntN(len(functions))], Line: r.IntN(1000)})
		}
		return l
	}
	var user, system []*profile.Location
	for range 30 {
		kind := profile.FrameKind(pick("native", "go", "jit", "cpython"))
		user = append(user, location(kind, mappings[r.IntN(len(mappings))]))
		system = append(system, location(profile.FrameKernel, kernel))
	}
	stack := func(of []*profile.Location, truncated string) *profile.Stack {
		s := &profile.Stack{Truncated: truncated}
		for range 1 + r.IntN(6) {
			s.Locations = append(s.Locations, of[r.IntN(len(of))])
		}
		return s
	}
	resources := [][]profile.Attribute{
		nil, {{Key: "service.version", Value: "1.2"}, {Key: "team", Value: "a"}}, {{Key: "service.instance.id", Value: "mine"}, {Key: "service.version", Value: "1.3"}},
	}
	var labels []*profile.Labels
	for i := range 6 {
		labels = append(labels, &profile.Labels{
			PID: 10 + i/2, TID: i % 2 * (100 + i), Comm: fmt.Sprintf("app%d", i/2), Thread: pick("worker", ""), Exe: fmt.Sprintf("/usr/bin/app%d", i/2),
			Cgroup: "/x.scope", ContainerID: "0123", PodUID: pick("", "5f3a2b1c-9d8e-4f7a-b6c5-d4e3f2a1b0c9"), Unit: pick("", "x.scope"),
			Service: pick("", "checkout"), Resource: resources[r.IntN(len(resources))],
			// both, one and none
			TraceID: pick("0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319d", ""), SpanID: pick("b7ad6b7169203331", ""),
		})
	}
	labels = append(labels, &profile.Labels{PID: 2, Comm: "kthreadd"}, new(profile.Labels))
	for range 50 {
		s := profile.Sample{Labels: labels[r.IntN(len(labels))], Count: 1 + r.Int64N(4), User: stack(user, pick("", "", "unmapped_pc"))}
		if r.IntN(3) == 0 {
			s.Kernel = stack(system, pick("", "", "kernel_stack_failed"))
		}
		s.Value = s.Count * p.Period
		for range s.Count {
			s.Times = append(s.Times, time.Duration(r.Int64N(int64(p.Duration))))
		}
		p.Samples = append(p.Samples, s)
	}
	return p
}

// sampleText is all that a sample holds.
func sampleText(s *profile.Sample) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %v %+v", s.Count, s.Value, s.Times, *s.Labels)
	for _, side := range []*profile.Stack{s.Kernel, s.User} {
		fmt.Fprintf(&b, " | ")
		if side == nil {
			continue
		}
		fmt.Fprintf(&b, "%q %v", side.Truncated, side.Root)
		for _, l := range side.Locations {
			fmt.Fprintf(&b, " %s %#x %q", l.Kind, l.Address, l.Unnamed)
			if l.Mapping != nil {
				fmt.Fprintf(&b, " %+v", *l.Mapping)
			}
			for _, line := range l.Lines {
				fmt.Fprintf(&b, " %+v:%d", *line.Function, line.Line)
			}
		}
	}
	return b.String()
}

func sampleTexts(p *profile.Profile) []string {
	texts := make([]string, len(p.Samples))
	for i := range p.Samples {
		texts[i] = sampleText(&p.Samples[i])
	}
	slices.Sort(texts)
	return texts
}

func encoded(t testing.TB, p *profile.Profile, o Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, p, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compare(t *testing.T, got, want *profile.Profile) {
	t.Helper()
	if got.Type != want.Type || got.Period != want.Period || !got.Start.Equal(want.Start) || got.Duration != want.Duration {
		t.Errorf("%v, %d, %v for %v; want %v, %d, %v for %v", got.Type, got.Period, got.Start, got.Duration, want.Type, want.Period, want.Start, want.Duration)
	}
	if !reflect.DeepEqual(got.Account, want.Account) {
		t.Errorf("account %+v, want %+v", got.Account, want.Account)
	}
	g, w := sampleTexts(got), sampleTexts(want)
	if len(g) != len(w) {
		t.Fatalf("%d samples, want %d", len(g), len(w))
	}
	for i := range w {
		if g[i] != w[i] {
			t.Fatalf("sample %d:\n%s\nwant\n%s", i, g[i], w[i])
		}
	}
}

// What Write wrote is read as it was, with times and without.
func TestReadWhatWasWritten(t *testing.T) {
	for seed := range uint64(50) {
		for _, timestamps := range []bool{true, false} {
			want := example(seed)
			got, err := Read(bytes.NewReader(encoded(t, want, Options{Timestamps: timestamps})), "")
			if err != nil {
				t.Fatal(err)
			}
			for i := range want.Samples {
				if !timestamps {
					want.Samples[i].Times = nil
				}
			}
			compare(t, got, want)
			if t.Failed() {
				t.Fatalf("seed %d, timestamps %v", seed, timestamps)
			}
		}
	}
}

// Values that are not the count times the period are kept beside it, for any type.
func TestReadValues(t *testing.T) {
	for _, change := range []func(*profile.Profile){
		func(p *profile.Profile) { p.Samples[0].Value++ },
		func(p *profile.Profile) { p.Period = 0 },
		func(p *profile.Profile) {
			p.Type, p.Period = profile.Type{Name: "inuse_space", Unit: "bytes"}, 524288
			p.Samples[1].Value = -5
		},
	} {
		want := example(1)
		change(want)
		got, err := Read(bytes.NewReader(encoded(t, want, Options{Timestamps: true})), "")
		if err != nil {
			t.Fatal(err)
		}
		compare(t, got, want)
	}
	counted := example(2)
	counted.Type, counted.Period = profile.TypeSamples, 1
	for i := range counted.Samples {
		counted.Samples[i].Value = counted.Samples[i].Count
	}
	got, err := Read(bytes.NewReader(encoded(t, counted, Options{Timestamps: true})), "")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, got, counted)
	empty := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 10, Account: profile.Account{Taken: 3, Lost: []profile.Loss{{Reason: "ring_full", Count: 3}}}}
	if got, err = Read(bytes.NewReader(encoded(t, empty, Options{})), ""); err != nil {
		t.Fatal(err)
	}
	compare(t, got, empty)
}

// What record writes as OTLP becomes by conversion what it would have written as pprof.
func TestPprofOfWhatWasWritten(t *testing.T) {
	p := example(3)
	for i := range p.Samples {
		p.Samples[i].Times = nil
		p.Samples[i].Labels = &profile.Labels{PID: 1 + i/20, Comm: "app", Exe: "/usr/bin/app", Thread: "t", Service: "shop", Unit: "shop.service",
			Resource: []profile.Attribute{{Key: "service.version", Value: "1"}}} // in order of processes
	}
	for _, s := range p.Samples {
		for _, side := range []*profile.Stack{s.Kernel, s.User} {
			if side != nil {
				for _, l := range side.Locations {
					if l.Mapping != nil {
						l.Mapping.EndsHash = ""
					}
				}
			}
		}
	}
	d, err := Parse(bytes.NewReader(encoded(t, p, Options{})))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Pprof("")
	if err != nil {
		t.Fatal(err)
	}
	samePprof(t, got, pprof.Convert(p))
}

func samePprof(t *testing.T, got, want *pb.Profile) {
	t.Helper()
	g, w := canonical(t, got), canonical(t, want)
	for i := range min(len(g.Samples), len(w.Samples)) {
		if !reflect.DeepEqual(g.Samples[i], w.Samples[i]) {
			t.Fatalf("sample %d:\n%+v\nwant\n%+v", i, g.Samples[i], w.Samples[i])
		}
	}
	if !reflect.DeepEqual(g, w) {
		t.Fatalf("%d samples of %d, %q %q %q %q\nwant %q %q %q %q", len(g.Samples), len(w.Samples), g.Types, g.About, g.Comments, g.Mappings, w.Types, w.About, w.Comments, w.Mappings)
	}
}

// messages encodes p with bounds, and makes sure that they hold and that every message is sound by itself.
func messages(t *testing.T, p *profile.Profile, o Options) []*Data {
	t.Helper()
	e, err := NewEncoder(o)
	if err != nil {
		t.Fatal(err)
	}
	var all []*Data
	if err := e.Encode(p, func(message Message) error {
		if size := len(message.Data); o.MaxBytes > 0 && size > o.MaxBytes {
			t.Errorf("message %d has %d bytes", len(all), size)
		}
		d, err := Parse(bytes.NewReader(message.Data))
		if err != nil {
			return err
		}
		m := d.message
		if again, err := proto.Marshal(m); err != nil || !bytes.Equal(again, message.Data) {
			t.Errorf("message %d, of %d bytes, is another as protobuf writes it, of %d: %v", len(all), len(message.Data), len(again), err)
		}
		samples, taken, profiles := 0, uint64(0), uint64(0)
		for _, r := range m.ResourceProfiles {
			of := r.ScopeProfiles[0].Profiles
			profiles += uint64(len(of))
			for _, p := range of {
				samples += len(p.Samples)
			}
			for _, s := range of[0].Samples {
				taken += uint64(len(s.TimestampsUnixNano))
				for _, v := range s.Values {
					taken += uint64(v)
				}
			}
		}
		if o.MaxSamples > 0 && samples > o.MaxSamples {
			t.Errorf("message %d has %d samples", len(all), samples)
		}
		if taken != message.Samples || profiles != message.Profiles {
			t.Errorf("message %d says %d samples and %d profiles, and has %d and %d", len(all), message.Samples, message.Profiles, taken, profiles)
		}
		receivable(t, m)
		all = append(all, d)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// receivable makes sure of what receivers were seen to ask for.
func receivable(t *testing.T, m *profilespb.ProfilesData) {
	t.Helper()
	d := m.Dictionary
	if len(d.LinkTable) == 0 || len(d.LinkTable[0].TraceId)+len(d.LinkTable[0].SpanId) != 0 {
		t.Error("link_table[0] is not empty")
	}
	references := 0
	visit(m.ProtoReflect(), func(f protoreflect.FieldDescriptor) {
		if f.Name() == "string_value_strindex" || f.Name() == "key_strindex" && f.ContainingMessage().Name() == "KeyValue" {
			references++
		}
	})
	if references > 0 {
		t.Errorf("%d attributes refer to the dictionary", references)
	}
	for i, l := range d.LocationTable[1:] {
		if len(l.Lines) == 0 {
			t.Errorf("location %d has no name", i+1)
		}
		for _, line := range l.Lines {
			if d.StringTable[d.FunctionTable[line.FunctionIndex].NameStrindex] == "" {
				t.Errorf("location %d has an empty name", i+1)
			}
		}
	}
	for i, mapping := range d.MappingTable[1:] {
		if d.StringTable[mapping.FilenameStrindex] == "" {
			t.Errorf("mapping %d has no file", i+1)
		}
	}
	processes := make(map[string]bool)
	for _, r := range m.ResourceProfiles {
		id := r.Resource.String()
		if attributeOf(r.Resource.Attributes, keyServiceName).GetStringValue() == "" || processes[id] {
			t.Errorf("resource %s has no service.name, or is there twice", id)
		}
		processes[id] = true
		for _, s := range r.ScopeProfiles {
			if s.Scope.GetName() == "" {
				t.Error("a scope has no name")
			}
			for _, p := range s.Profiles {
				if p.PeriodType.GetTypeStrindex() == 0 || p.SampleType.GetTypeStrindex() == 0 || p.TimeUnixNano == 0 {
					t.Errorf("a profile has no type, or none of the period, or no time: %v %v", p.SampleType, p.PeriodType)
				}
				for _, sample := range p.Samples {
					if len(sample.Values) != 1 && (len(sample.Values) != 0 || len(sample.TimestampsUnixNano) == 0) {
						t.Errorf("a sample has %d values and %d timestamps", len(sample.Values), len(sample.TimestampsUnixNano))
					}
					if sample.StackIndex == 0 {
						t.Error("a sample has no stack")
					}
				}
			}
		}
	}
}

func visit(m protoreflect.Message, field func(protoreflect.FieldDescriptor)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		field(f)
		switch {
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				visit(v.List().Get(i).Message(), field)
			}
		case f.Message() != nil:
			visit(v.Message(), field)
		}
		return true
	})
}

// together adds messages up as one profile, by what is said of samples without their times.
func together(t *testing.T, all []*Data) (values map[string]int64, counts, times int64, account profile.Account) {
	t.Helper()
	values = make(map[string]int64)
	for i, d := range all {
		p, err := d.Profile("")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			account = p.Account
		}
		for _, s := range p.Samples {
			counts += s.Count
			times += int64(len(s.Times))
			value := s.Value
			s.Count, s.Value, s.Times = 0, 0, nil
			values[sampleText(&s)] += value
		}
	}
	return values, counts, times, account
}

// However narrow the bounds, the messages together are the profile.
func TestSplit(t *testing.T) {
	for _, test := range []struct {
		name   string
		o      Options
		valued bool
	}{
		{"bytes", Options{MaxBytes: minMaxBytes}, false},
		{"samples", Options{MaxSamples: 7}, false},
		{"both, values and times", Options{MaxBytes: minMaxBytes, MaxSamples: 31, Timestamps: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := example(4)
			for seed := range uint64(40) {
				p.Samples = append(p.Samples, example(seed+5).Samples...)
			}
			if test.valued {
				p.Samples[0].Value++
			}
			whole, wholeCounts, _, wholeAccount := together(t, messages(t, p, Options{Timestamps: true}))
			all := messages(t, p, test.o)
			if len(all) < 3 {
				t.Errorf("%d messages", len(all))
			}
			values, counts, _, account := together(t, all)
			if !reflect.DeepEqual(values, whole) || counts != wholeCounts {
				t.Errorf("%d stacks and %d samples, want %d and %d", len(values), counts, len(whole), wholeCounts)
			}
			if !reflect.DeepEqual(account, wholeAccount) {
				t.Errorf("account %+v, want %+v", account, wholeAccount)
			}
			// Receivers that know a profile by its labels and time take none for another.
			type identity struct {
				instance string
				time     uint64
				of       profile.Type
			}
			known := make(map[identity]int)
			for i, d := range all {
				for _, r := range d.message.ResourceProfiles {
					instance := attributeOf(r.Resource.Attributes, keyInstanceID).GetStringValue()
					for _, p := range r.ScopeProfiles[0].Profiles {
						id := identity{instance, p.TimeUnixNano, d.typeOf(p.SampleType)}
						if other, ok := known[id]; ok {
							t.Errorf("messages %d and %d have %+v", other, i, id)
						}
						known[id] = i
					}
				}
				begin, end := all[0].message, d.message
				if got, want := end.ResourceProfiles[0].ScopeProfiles[0].Profiles[0], begin.ResourceProfiles[0].ScopeProfiles[0].Profiles[0]; got.TimeUnixNano+got.DurationNano != want.TimeUnixNano+want.DurationNano {
					t.Errorf("message %d ends at another time", i)
				}
			}
			for i, d := range all[1:] {
				if p, err := d.Profile(""); err != nil || p.Account.Taken != p.Account.Exported || len(p.Account.Lost) > 0 {
					t.Errorf("message %d tells of the account again: %+v", i+1, p.Account)
				}
			}
		})
	}
}

// A function stands twice, and nothing refers to the first of both: Parca takes the entry before. Nor was a sample taken before its profile began, which Parca refuses.
// test/parca shows both with Parca itself.
func TestReadByParca(t *testing.T) {
	p := example(8)
	for i := range p.Samples {
		s := &p.Samples[i]
		s.Count, s.Times = 2, []time.Duration{0, p.Duration - 1}
	}
	all := messages(t, p, Options{Timestamps: true, MaxSamples: 7})
	fromPprof, err := FromPprof(random(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 3 {
		t.Errorf("%d messages", len(all))
	}
	for i, d := range append(all, fromPprof) {
		table := d.message.Dictionary.FunctionTable
		if len(table) < 3 || len(table)%2 != 1 {
			t.Fatalf("message %d has %d functions", i, len(table))
		}
		for n := 2; n < len(table); n += 2 {
			if !proto.Equal(table[n-1], table[n]) {
				t.Errorf("message %d: functions %v, %v", i, table[n-1], table[n])
			}
		}
		for _, l := range d.message.Dictionary.LocationTable {
			for _, line := range l.Lines {
				if line.FunctionIndex%2 != 0 {
					t.Errorf("message %d: a line refers to function %d", i, line.FunctionIndex)
				}
			}
		}
		for _, r := range d.message.ResourceProfiles {
			for _, p := range r.ScopeProfiles[0].Profiles {
				for _, s := range p.Samples {
					for _, at := range s.TimestampsUnixNano {
						if at < p.TimeUnixNano || at >= p.TimeUnixNano+p.DurationNano {
							t.Errorf("message %d: a sample at %d in a profile of %d for %d", i, at, p.TimeUnixNano, p.DurationNano)
						}
					}
				}
			}
		}
	}
}

// A sample with more times than a message holds keeps its stack in each.
func TestSplitTimes(t *testing.T) {
	p := example(6)
	s := p.Samples[0]
	s.Count = 600_000
	s.Value = s.Count*p.Period + 3
	s.Times = make([]time.Duration, s.Count)
	for i := range s.Times {
		s.Times[i] = time.Duration(i) * time.Microsecond
	}
	p.Samples = append(p.Samples[1:], s)
	all := messages(t, p, Options{Timestamps: true, MaxBytes: ReceiversMaxBytes, MaxSamples: ReceiversMaxSamples})
	values, counts, times, _ := together(t, all)
	var want int64
	for _, s := range p.Samples {
		want += s.Count
	}
	if counts != want || times != want || len(all) < 2 {
		t.Errorf("%d samples at %d times, want %d; %d messages", counts, times, want, len(all))
	}
	value := s.Value
	s.Count, s.Value, s.Times = 0, 0, nil
	if values[sampleText(&s)] != value {
		t.Errorf("%d, want %d", values[sampleText(&s)], value)
	}
}

// Stacks and names that no message holds are cut, and say so; the sample stays.
func TestSplitHuge(t *testing.T) {
	deep := &profile.Stack{}
	for i := range 5000 {
		f := &profile.Function{Name: fmt.Sprintf("f%d_%s", i, strings.Repeat("x", 100))}
		deep.Locations = append(deep.Locations, &profile.Location{Kind: profile.FrameNative, Address: uint64(i), Lines: []profile.Line{{Function: f}}})
	}
	long := &profile.Location{Kind: profile.FrameNative, Address: 1, Lines: []profile.Line{{Function: &profile.Function{Name: "é" + strings.Repeat("é", 1<<20)}}}}
	wide := &profile.Location{Kind: profile.FrameNative, Address: 2}
	for i := range 2000 {
		wide.Lines = append(wide.Lines, profile.Line{Function: &profile.Function{Name: fmt.Sprintf("%d%s", i, strings.Repeat("y", 1000))}})
	}
	exe := "/" + strings.Repeat("z", 1<<20)
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 1}
	for _, s := range []profile.Sample{
		{User: deep}, {Kernel: deep}, {Kernel: deep, User: deep},
		{User: &profile.Stack{Locations: []*profile.Location{long}}, Labels: &profile.Labels{Exe: exe, Comm: exe, Cgroup: exe, ContainerID: exe, Thread: exe}},
		{User: &profile.Stack{Locations: []*profile.Location{wide}}},
	} {
		s.Count, s.Value = 1, 1
		p.Samples = append(p.Samples, s)
	}
	all := messages(t, p, Options{MaxBytes: minMaxBytes})
	total := 0
	for _, d := range all {
		got, err := d.Profile("")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got.Samples {
			total++
			l := s.Leaf()
			switch {
			case l == nil && s.User.Truncated == pprof.TooDeep: // the wide one
			case l == nil:
				t.Error("a sample has no frames, and does not say why")
			case strings.HasPrefix(l.Lines[0].Function.Name, "é"):
				if n := l.Lines[0].Function.Name; len(n) > minMaxBytes/64 || !strings.HasSuffix(n, "é...") {
					t.Errorf("%d bytes: %q", len(n), n[len(n)-10:])
				}
			case depth(&s) < 100 || s.User.Truncated != pprof.TooDeep || l.Address != 0:
				t.Errorf("%d frames, %q, leaf %#x", depth(&s), s.User.Truncated, l.Address)
			}
		}
	}
	if total != len(p.Samples) {
		t.Errorf("%d samples of %d", total, len(p.Samples))
	}
}

func TestEncoderRefuses(t *testing.T) {
	attributes := func(n, length int) map[string]string {
		m := make(map[string]string)
		for i := range n {
			m[fmt.Sprint("attribute", i)] = strings.Repeat("x", length)
		}
		return m
	}
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{MaxBytes: 1}, "messages of 1 bytes"},
		{Options{MaxSamples: 1}, "messages of 1 samples"},
		{Options{Resource: attributes(18, 1)}, "18 resource attributes: receivers take 30 labels of a sample, of which 14"},
		{Options{Resource: attributes(2, minMaxBytes/8), MaxBytes: minMaxBytes}, "bytes"},
		{Options{Resource: map[string]string{"a": "\xff"}}, "UTF-8"},
	} {
		if _, err := NewEncoder(test.o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
	all := messages(t, example(1), Options{Version: "v1", Resource: map[string]string{"host.name": "h", keyServiceName: "mine", "deployment.environment.name": "test"}})
	for _, r := range all[0].message.ResourceProfiles {
		if attributeOf(r.Resource.Attributes, "host.name").GetStringValue() != "h" || attributeOf(r.Resource.Attributes, keyServiceName).GetStringValue() == "mine" {
			t.Errorf("%v", r.Resource)
		}
		if s := r.ScopeProfiles[0].Scope; s.Version != "v1" || s.Name != scopeName {
			t.Errorf("%v", s)
		}
	}
	bounded := &profile.Profile{Samples: example(1).Samples}
	if err := Write(new(bytes.Buffer), bounded, Options{MaxSamples: 10}); err == nil {
		t.Error("a file of several messages was written")
	}
}

// What stands in a message is what the conventions say.
func TestAttributes(t *testing.T) {
	m := &profile.Mapping{Path: "/usr/bin/app", BuildID: "ab12", EndsHash: "00ff", HasLines: true}
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 7, Samples: []profile.Sample{{
		User: &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameGo, Mapping: m, Address: 5, Lines: []profile.Line{{Function: &profile.Function{Name: "main.main"}}}}}},
		Labels: &profile.Labels{PID: 10, TID: 11, Comm: "comm", Thread: "thread", Exe: "/usr/bin/app", Cgroup: "/c", ContainerID: "id", PodUID: "uid", Unit: "x.service",
			Service: "shop", Resource: []profile.Attribute{{Key: "container.id", Value: "another"}, {Key: "service.instance.id", Value: "mine"}, {Key: "team", Value: "a"}},
			TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7",
			Further: []profile.Attribute{{Key: "http.route", Value: "/items"}, {Key: "http.route", Value: "again"}, {Key: "container.id", Value: "forged"}, {Key: "comm", Value: "forged"}, {Key: "empty"}},
		}, Count: 1, Value: 7,
	}}}
	d := messages(t, p, Options{})[0].message
	got := make(map[string]string)
	add := func(key string, v *commonpb.AnyValue) {
		if v.GetIntValue() != 0 {
			got[key] = fmt.Sprint(v.GetIntValue())
		} else if got[key] = v.GetStringValue(); v.GetBoolValue() {
			got[key] = "true"
		}
	}
	for _, a := range d.ResourceProfiles[0].Resource.Attributes {
		add(a.Key, a.Value)
	}
	table := func(indices []int32) {
		for _, i := range indices {
			add(d.Dictionary.StringTable[d.Dictionary.AttributeTable[i].KeyStrindex], d.Dictionary.AttributeTable[i].Value)
		}
	}
	table(d.ResourceProfiles[0].ScopeProfiles[0].Profiles[0].Samples[0].AttributeIndices)
	table(d.Dictionary.LocationTable[1].AttributeIndices)
	table(d.Dictionary.MappingTable[1].AttributeIndices)
	want := map[string]string{
		"service.name": "shop", "service.instance.id": "mine", "team": "a", "k8s.pod.uid": "uid", "systemd.unit.name": "x.service", "process.pid": "10", "process.title": "comm", "process.executable.name": "app", "process.executable.path": "/usr/bin/app",
		"process.linux.cgroup": "/c", "container.id": "id", "thread.name": "thread", "thread.id": "11", "profile.frame.type": "go", "http.route": "/items",
		"process.executable.build_id.gnu": "ab12", "process.executable.build_id.htlhash": "00ff",
		"pprof.mapping.has_functions": "true", "pprof.mapping.has_filenames": "true", "pprof.mapping.has_line_numbers": "true", "pprof.mapping.has_inline_frames": "true",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	link := d.Dictionary.LinkTable[d.ResourceProfiles[0].ScopeProfiles[0].Profiles[0].Samples[0].LinkIndex]
	if fmt.Sprintf("%x %x", link.TraceId, link.SpanId) != "4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7" {
		t.Errorf("the link is %v", link)
	}
}

// A program's labels take what receivers leave of names, and no more.
func TestFurtherLabelsAreBounded(t *testing.T) {
	o := Options{MaxSamples: 10, MaxBytes: ReceiversMaxBytes, Resource: make(map[string]string)}
	for i := range 12 {
		o.Resource[fmt.Sprintf("extra%d", i)] = "x"
	}
	labels := &profile.Labels{PID: 1, Comm: "a"}
	for i := range 8 {
		labels.Further = append(labels.Further, profile.Attribute{Key: fmt.Sprintf("label%d", i), Value: "x"})
	}
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 7, Samples: []profile.Sample{{User: &profile.Stack{Truncated: "no_rule"}, Labels: labels, Count: 1, Value: 7}}}
	s := messages(t, p, o)[0].message.ResourceProfiles[0].ScopeProfiles[0].Profiles[0].Samples[0]
	e, err := NewEncoder(o)
	if err != nil {
		t.Fatal(err)
	}
	if want := e.left(); len(s.AttributeIndices) != want || want >= 8 {
		t.Errorf("%d attributes, of %d names", len(s.AttributeIndices), len(e.names))
	}
}

// For receivers keys are such as all of them take, and no two of them the same to Pyroscope; in a file they are as they were said.
func TestKeysForReceivers(t *testing.T) {
	l := &profile.Labels{PID: 1, Comm: "a", Exe: "/" + strings.Repeat("x", 4000), Thread: "t",
		Resource: []profile.Attribute{{Key: "my-team", Value: "1"}, {Key: "my_team", Value: "2"}, {Key: "service_name", Value: "3"}, {Key: "__delta__", Value: "4"}, {Key: "9é", Value: "5"}, {Key: "thread_name", Value: "6"},
			{Key: "trace_id", Value: "7"}, {Key: "span_id", Value: "8"}, {Key: "pprof.profile.comment", Value: "9"}},
		Further: []profile.Attribute{{Key: "user/id", Value: "1"}, {Key: "user.id", Value: "2"}, {Key: "my.team", Value: "3"}, {Key: "thread_id", Value: "4"}, {Key: "__otel__", Value: "5"}},
	}
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 7, Samples: []profile.Sample{{User: &profile.Stack{Truncated: "no_rule"}, Labels: l, Count: 1, Value: 7}}}
	keys := func(o Options) (resource, sample []string, dropped uint32) {
		o.Resource = map[string]string{"host-name": "h", "host_name": "i"}
		d := messages(t, p, o)[0].message
		r := d.ResourceProfiles[0]
		for _, a := range r.Resource.Attributes {
			if !strings.HasPrefix(a.Key, "process.") && !strings.HasPrefix(a.Key, "service.") {
				resource = append(resource, a.Key+"="+a.Value.GetStringValue())
			}
			if n := len(a.Value.GetStringValue()); o.MaxBytes != 0 && n > 2048 {
				t.Errorf("%s of %d bytes", a.Key, n)
			}
		}
		for _, i := range r.ScopeProfiles[0].Profiles[0].Samples[0].AttributeIndices {
			a := d.Dictionary.AttributeTable[i]
			sample = append(sample, d.Dictionary.StringTable[a.KeyStrindex]+"="+a.Value.GetStringValue())
		}
		return resource, sample, r.Resource.DroppedAttributesCount
	}
	for _, test := range []struct {
		o                Options
		resource, sample []string
		dropped          uint32
	}{
		{Options{}, []string{"my-team=1", "my_team=2", "service_name=3", "__delta__=4", "9é=5", "thread_name=6", "host-name=h", "host_name=i"},
			[]string{"thread.name=t", "user/id=1", "user.id=2", "my.team=3", "thread_id=4", "__otel__=5"}, 3},
		{Options{MaxBytes: ReceiversMaxBytes, MaxSamples: ReceiversMaxSamples}, []string{"my_team=1", "_9_=5", "host_name=h"}, []string{"thread.name=t", "user_id=1"}, 7},
	} {
		if resource, sample, dropped := keys(test.o); !slices.Equal(resource, test.resource) || !slices.Equal(sample, test.sample) || dropped != test.dropped {
			t.Errorf("%+v: %q, %q, %d dropped; want %q, %q, %d", test.o, resource, sample, dropped, test.resource, test.sample, test.dropped)
		}
	}
}

// canonicalSample is a sample with all that it refers to.
type canonicalSample struct {
	Values []int64
	Stack  []string
	Label  map[string][]string
	Number map[string][]int64
	Unit   map[string][]string
}

// canonicalProfile is what two pprof profiles that mean the same have alike: they are written and read for it.
type canonicalProfile struct {
	Types    []string
	About    string
	Comments []string
	Mappings []string
	Samples  []canonicalSample
}

func canonical(t *testing.T, p *pb.Profile) canonicalProfile {
	t.Helper()
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.WriteUncompressed(&b); err != nil {
		t.Fatal(err)
	}
	p, err := pprof.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	c := canonicalProfile{Comments: p.Comments}
	for _, v := range p.SampleType {
		c.Types = append(c.Types, v.Type+"/"+v.Unit)
	}
	c.About = fmt.Sprintf("%q %q %q %q %d %d %q %q %d", p.DefaultSampleType, p.DocURL, p.DropFrames, p.KeepFrames, p.TimeNanos, p.DurationNanos, p.PeriodType.Type, p.PeriodType.Unit, p.Period)
	mapping := func(m *pb.Mapping) string {
		if m == nil {
			return "none"
		}
		return fmt.Sprintf("%#x %#x %#x %q %q %v %v %v %v", m.Start, m.Limit, m.Offset, m.File, m.BuildID, m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames)
	}
	for _, m := range p.Mapping {
		c.Mappings = append(c.Mappings, mapping(m))
	}
	for _, s := range p.Sample {
		out := canonicalSample{Values: s.Value, Label: s.Label, Number: s.NumLabel, Unit: s.NumUnit}
		for _, l := range s.Location {
			text := fmt.Sprintf("%#x %v %s", l.Address, l.IsFolded, mapping(l.Mapping))
			for _, line := range l.Line {
				f := line.Function
				text += fmt.Sprintf(" %q %q %q %d:%d:%d", f.Name, f.SystemName, f.Filename, f.StartLine, line.Line, line.Column)
			}
			out.Stack = append(out.Stack, text)
		}
		c.Samples = append(c.Samples, out)
	}
	return c
}

// Receivers take so many names of labels: where messages are bounded, attributes that a process says of itself make room for those of the host, those that say least first.
func TestAttributesDropped(t *testing.T) {
	l := &profile.Labels{PID: 1, Comm: "c", Exe: "/c", Service: "shop"}
	for i := range 15 {
		l.Resource = append(l.Resource, profile.Attribute{Key: fmt.Sprintf("a%02d", i), Value: "x"})
	}
	l.Resource[3].Key, l.Resource[14].Key = "telemetry.sdk.name", "service.version"
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 1, Samples: []profile.Sample{{User: &profile.Stack{Truncated: "unmapped_pc"}, Labels: l, Count: 1, Value: 1}}}
	host := map[string]string{"host.name": "h", "os.type": "linux", "service.version": "the host's"}
	for _, test := range []struct {
		o       Options
		dropped uint32
		said    int
	}{
		{Options{}, 0, 15},
		{Options{Resource: host}, 0, 15},
		{Options{Resource: host, MaxBytes: ReceiversMaxBytes, MaxSamples: ReceiversMaxSamples}, 4, 11},
		{Options{MaxBytes: ReceiversMaxBytes, MaxSamples: ReceiversMaxSamples}, 2, 13},
	} {
		r := messages(t, p, test.o)[0].message.ResourceProfiles[0].Resource
		said := 0
		for _, a := range r.Attributes {
			if strings.HasPrefix(a.Key, "a") || a.Key == "telemetry.sdk.name" || a.Key == "service.version" {
				said++
			}
		}
		if r.DroppedAttributesCount != test.dropped || said != test.said || attributeOf(r.Attributes, "service.version").GetStringValue() != "x" {
			t.Errorf("%d attributes of the process, %d dropped, want %d, %d: %v", said, r.DroppedAttributesCount, test.said, test.dropped, r)
		}
		if test.dropped > 0 && attributeOf(r.Attributes, "telemetry.sdk.name") != nil {
			t.Errorf("the name of an SDK is kept before %v", r)
		}
	}
}

// By service there is one resource for all processes of it, and which of them it was stands at the samples.
func TestByService(t *testing.T) {
	stack := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "f"}}}}}}
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: time.Second, Period: 7}
	for pid := range 6 {
		l := &profile.Labels{PID: pid + 1, Comm: "worker", Exe: "/bin/worker", ContainerID: fmt.Sprint("container", pid/2), Resource: []profile.Attribute{
			{Key: "service.instance.id", Value: fmt.Sprint(pid)}, {Key: "service.version", Value: "1.2"}, {Key: "k8s.pod.name", Value: fmt.Sprint("pod", pid/2)},
		}}
		if pid < 4 {
			l.Service = "shop"
		}
		p.Samples = append(p.Samples, profile.Sample{User: stack, Labels: l, Count: 1, Value: 7})
	}
	list := messages(t, p, Options{ByService: true})
	if len(list) != 1 || len(list[0].message.ResourceProfiles) != 2 {
		t.Fatalf("%d messages, %d resources", len(list), len(list[0].message.ResourceProfiles))
	}
	d := list[0].message.Dictionary
	for i, want := range []struct {
		service string
		pids    []int64
	}{{"shop", []int64{1, 2, 3, 4}}, {"worker", []int64{5, 6}}} {
		r := list[0].message.ResourceProfiles[i]
		if got := attributeOf(r.Resource.Attributes, "service.name").GetStringValue(); got != want.service {
			t.Errorf("service %q, want %q", got, want.service)
		}
		if attributeOf(r.Resource.Attributes, "service.version").GetStringValue() != "1.2" || attributeOf(r.Resource.Attributes, "k8s.pod.name") != nil || attributeOf(r.Resource.Attributes, "process.pid") != nil {
			t.Errorf("resource %v", r.Resource)
		}
		var pids []int64
		for _, s := range r.ScopeProfiles[0].Profiles[0].Samples {
			for _, a := range s.AttributeIndices {
				if d.StringTable[d.AttributeTable[a].KeyStrindex] == "process.pid" {
					pids = append(pids, d.AttributeTable[a].Value.GetIntValue())
				}
			}
		}
		if !reflect.DeepEqual(pids, want.pids) {
			t.Errorf("processes %v of %s, want %v", pids, want.service, want.pids)
		}
	}
	// Read back, each sample is of its process again.
	var text bytes.Buffer
	if err := list[0].Write(&text); err != nil {
		t.Fatal(err)
	}
	again, err := Read(&text, "")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range again.Samples {
		if l := s.Labels; l.PID != i+1 || l.Comm != "worker" || l.Exe != "/bin/worker" || l.ContainerID != fmt.Sprint("container", i/2) {
			t.Errorf("sample %d is of %+v", i, l)
		}
	}
}
