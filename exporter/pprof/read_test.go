package pprof

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	runtimepprof "runtime/pprof"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

func encode(t testing.TB, p *profile.Profile) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func plain(t testing.TB, p *pb.Profile) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := p.WriteUncompressed(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What Write wrote is read as it was.
func TestReadWhatWasWritten(t *testing.T) {
	want := example()
	// One whose kernel side is cut short too.
	want.Samples = append(want.Samples, profile.Sample{
		Kernel: &profile.Stack{Locations: want.Samples[0].Kernel.Locations, Truncated: "kernel_stack_failed"},
		User:   &profile.Stack{Truncated: "stack_evicted"}, Labels: &profile.Labels{PID: 20}, Count: 1, Value: 10,
	})
	got, err := Read(bytes.NewReader(encode(t, want)), "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range want.Samples { // nothing tells them from labels of any other kind
		want.Samples[i].Labels.Resource = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", Convert(got), Convert(want))
		for i := range want.Samples {
			if !reflect.DeepEqual(got.Samples[i], want.Samples[i]) {
				t.Errorf("sample %d", i)
			}
		}
	}
	if got.Samples[0].Kernel != got.Samples[5].Kernel {
		t.Error("equal stacks are two")
	}
}

func TestReadValues(t *testing.T) {
	var heap bytes.Buffer
	runtime.GC()
	if err := runtimepprof.WriteHeapProfile(&heap); err != nil {
		t.Fatal(err)
	}
	oracle, err := pb.ParseData(heap.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"alloc_objects", "alloc_space", "inuse_objects", "inuse_space"} {
		p, err := Read(bytes.NewReader(heap.Bytes()), name)
		if err != nil {
			t.Fatal(err)
		}
		var value, count, wantValue, wantCount int64
		for _, s := range p.Samples {
			value, count = value+s.Value, count+s.Count
		}
		for _, s := range oracle.Sample {
			wantValue, wantCount = wantValue+s.Value[i], wantCount+s.Value[i&^1]
		}
		if p.Type.Name != name || value != wantValue || count != wantCount || count == 0 && i < 2 {
			t.Errorf("%s: %v, %d of %d, want %d of %d", name, p.Type, value, count, wantValue, wantCount)
		}
	}
	if p, err := Read(bytes.NewReader(heap.Bytes()), ""); err != nil || p.Type != (profile.Type{Name: "inuse_space", Unit: "bytes"}) {
		t.Errorf("the default: %v, %v", p, err)
	}
	if _, err := Read(bytes.NewReader(heap.Bytes()), "cpu"); err == nil || !strings.Contains(err.Error(), `"cpu"`) || !strings.Contains(err.Error(), `"alloc_space"`) {
		t.Errorf("%v", err)
	}
}

// Profiles of other tools: addresses without functions, no count, no comments, other labels.
func TestReadForeign(t *testing.T) {
	lib := &pb.Mapping{ID: 1, Start: 0x1000, Limit: 0x2000, Offset: 0x500, File: "/lib/lib.so"}
	kernel := &pb.Mapping{ID: 2, File: "[kernel.kallsyms]_stext"}
	vdso := &pb.Mapping{ID: 3, File: "[vdso]"}
	odd := &pb.Function{ID: 1, Name: "geo::area(int)", SystemName: "_ZN3geo4areaEi"}
	raw := &pb.Function{ID: 2, SystemName: "only_raw"}
	script := &pb.Function{ID: 3, Name: "main.main", Filename: "/src/main.go", StartLine: -5}
	truncated := &pb.Function{ID: 4, Name: "[truncated: no table]"}
	locations := []*pb.Location{
		{ID: 1, Mapping: kernel, Address: 0xffff0000, Line: []pb.Line{{Function: raw}}},
		{ID: 2, Mapping: lib, Address: 0x1010},
		{ID: 3, Mapping: lib, Address: 0x1020, Line: []pb.Line{{Function: odd, Line: 7}}},
		{ID: 4, Mapping: vdso, Line: []pb.Line{{Function: raw}}},
		{ID: 5, Line: []pb.Line{{Function: script, Line: 1 << 40}}},
		{ID: 6, Line: []pb.Line{{Function: truncated}}},
	}
	in := &pb.Profile{
		SampleType: []*pb.ValueType{{Type: "cpu", Unit: "nanoseconds"}}, PeriodType: &pb.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10,
		Mapping: []*pb.Mapping{lib, kernel, vdso}, Location: locations, Function: []*pb.Function{odd, raw, script, truncated},
		Comments: []string{"by another tool", "samples.taken=many"},
		Sample: []*pb.Sample{
			{Value: []int64{30}, Location: locations[:5], Label: map[string][]string{"user": {"me"}, "comm": {"a", "b"}}, NumLabel: map[string][]int64{"pid": {-1}}},
			{Value: []int64{20}, Location: []*pb.Location{locations[4], locations[5], locations[4]}},
			{Value: []int64{10}},
		},
	}
	p, err := Read(bytes.NewReader(plain(t, in)), "")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Foreign || p.Account.Taken != 6 || p.Account.Exported != 6 || p.Period != 10 || !p.Start.IsZero() {
		t.Errorf("%+v, period %d, start %v", p.Account, p.Period, p.Start)
	}
	s := p.Samples[0]
	if s.Count != 3 || s.Value != 30 || s.Labels.Comm != "a" || s.Labels.PID != 0 {
		t.Errorf("%+v %+v", s, s.Labels)
	}
	var frames []string
	s.Walk(func(l *profile.Location) {
		f := l.Lines[0]
		frames = append(frames, fmt.Sprint(l.Kind, " ", f.Function.Name, " ", f.Function.StartLine, " ", l.Unnamed))
	}, nil)
	want := []string{"kernel only_raw 0 ", "native [lib.so+0x510] 0 no_symbol", "native geo::area(int) 0 ", "native only_raw 0 ", "go main.main 0 "}
	if !reflect.DeepEqual(frames, want) || len(s.Kernel.Locations) != 1 {
		t.Errorf("%q, want %q", frames, want)
	}
	// What is done to it is told, and it stays foreign.
	p.Account = profile.Account{Taken: 9, Exported: 6, Filtered: 1, Lost: []profile.Loss{{Reason: "ring_full", Count: 2}}}
	if again, err := Read(bytes.NewReader(encode(t, p)), ""); err != nil || !again.Foreign || !reflect.DeepEqual(again.Account, p.Account) {
		t.Errorf("%v: %+v", err, again)
	}
	// In the midst of a stack it is a name like others: nothing is lost.
	if s = p.Samples[1]; s.User.Truncated != "" || len(s.User.Locations) != 3 {
		t.Errorf("%+v", s.User)
	}
	if s = p.Samples[2]; s.User != nil || s.Kernel != nil || s.Count != 1 {
		t.Errorf("%+v", s)
	}
}

// One type of values is left, and nothing else is lost.
func TestSelect(t *testing.T) {
	p := Convert(example())
	want := p.Copy()
	if err := Select(p, "cycles"); err == nil || !strings.Contains(err.Error(), `"cycles"`) {
		t.Errorf("%v", err)
	}
	if err := Select(p, "samples"); err != nil || p.CheckValid() != nil {
		t.Fatal(err, p.CheckValid())
	}
	if len(p.SampleType) != 1 || p.SampleType[0].Type != "samples" || p.DefaultSampleType != "samples" {
		t.Errorf("%v, by default %s", p.SampleType, p.DefaultSampleType)
	}
	for i, s := range p.Sample {
		if w := want.Sample[i]; len(s.Value) != 1 || s.Value[0] != w.Value[0] || !reflect.DeepEqual(s.Label, w.Label) || !reflect.DeepEqual(s.NumLabel, w.NumLabel) {
			t.Errorf("sample %d: %v, want %v", i, s, w)
		}
	}
}

// What other formats say beyond pprof's is kept.
func TestConvertBackBeyond(t *testing.T) {
	want := example()
	for i := range want.Samples {
		s := &want.Samples[i]
		for n := range s.Count {
			s.Times = append(s.Times, time.Duration(n)*time.Millisecond)
		}
	}
	p := Convert(want)
	beyond := Beyond{Kinds: make(map[*pb.Location]profile.FrameKind), EndsHashes: make(map[*pb.Mapping]string)}
	for _, l := range p.Location {
		beyond.Kinds[l] = "v8js"
	}
	for _, m := range p.Mapping {
		beyond.EndsHashes[m] = m.File + "'s"
	}
	for i := range want.Samples {
		beyond.Times = append(beyond.Times, want.Samples[i].Times)
	}
	beyond.Times[1] = beyond.Times[1][1:] // one is missing
	got, err := ConvertBack(p, "", beyond)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Samples {
		s := &got.Samples[i]
		if i == 1 && s.Times != nil || i != 1 && !slices.Equal(s.Times, want.Samples[i].Times) {
			t.Errorf("sample %d at %v", i, s.Times)
		}
		s.Walk(func(l *profile.Location) {
			if l.Kind != "v8js" || l.Mapping != nil && l.Mapping.EndsHash != l.Mapping.Path+"'s" {
				t.Errorf("sample %d: %+v %+v", i, l, l.Mapping)
			}
		}, nil)
	}
}

func TestReadRefuses(t *testing.T) {
	gzipped := func(data []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write(data)
		_ = w.Close()
		return out.Bytes()
	}
	good := encode(t, example())
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "empty"},
		{"nothing, zipped", gzipped(nil), "empty"},
		{"text", []byte("main;f 1\n"), "no profile.proto"},
		{"cut", good[:len(good)/2], "EOF"},
		{"a bomb", bytes.Repeat(gzipped(make([]byte, 1<<20)), MaxBytes>>20+1), "larger than 256 MiB"},
		{"20 million empty samples", gzipped(bytes.Repeat([]byte{2<<3 | 2, 0}, 20<<20)), "of memory"},
		{"samples of many locations", gzipped(bytes.Repeat(append([]byte{2<<3 | 2, 0x84, 0x80, 0x40, 1<<3 | 2, 0x80, 0x80, 0x40}, make([]byte, 1<<20)...), 100)), "of memory"},
		{"no types", plain(t, &pb.Profile{Period: 1}), "no types"},
		{"a length beyond the end", []byte{2<<3 | 2, 0x7f}, "no profile.proto"},
	} {
		if p, err := Read(bytes.NewReader(test.data), ""); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "read pprof profile: ") {
			t.Errorf("%s: %v, %v; want %q", test.name, p, err, test.want)
		}
	}
	broken := errors.New("broken disk")
	if _, err := Read(iotest.ErrReader(broken), ""); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// The innermost frames of stacks that are too deep are left, also where a single location makes them so.
func TestReadCutsStacks(t *testing.T) {
	f := &pb.Function{ID: 1, Name: "f"}
	one := &pb.Location{ID: 1, Address: 1, Line: []pb.Line{{Function: f}}}
	two := &pb.Location{ID: 2, Address: 2, Line: []pb.Line{{Function: f}, {Function: f}}}
	wide := &pb.Location{ID: 3, Address: 3, Line: slices.Repeat([]pb.Line{{Function: f}}, MaxFrames+1)}
	in := &pb.Profile{
		SampleType: []*pb.ValueType{{Type: "samples", Unit: "count"}}, PeriodType: &pb.ValueType{}, Location: []*pb.Location{one, two, wide}, Function: []*pb.Function{f},
	}
	tests := []struct {
		stack []*pb.Location
		want  int // locations
		cut   bool
	}{
		{slices.Repeat([]*pb.Location{one}, 10_000_000), MaxFrames - 1, true},
		{slices.Repeat([]*pb.Location{one}, MaxFrames), MaxFrames, false},
		{slices.Repeat([]*pb.Location{one}, MaxFrames+1), MaxFrames - 1, true},
		{slices.Repeat([]*pb.Location{two}, MaxFrames/2), MaxFrames / 2, false},
		{slices.Repeat([]*pb.Location{two}, MaxFrames), MaxFrames/2 - 1, true},
		{[]*pb.Location{one, wide}, 1, true},
		{[]*pb.Location{wide}, 0, true},
	}
	for _, test := range tests {
		in.Sample = append(in.Sample, &pb.Sample{Value: []int64{1}, Location: test.stack})
	}
	p, err := Read(bytes.NewReader(plain(t, in)), "")
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		if s := p.Samples[i].User; len(s.Locations) != test.want || s.Truncated == TooDeep != test.cut {
			t.Errorf("%d: %d locations, %q", i, len(s.Locations), s.Truncated)
		}
	}
	again, err := Read(bytes.NewReader(encode(t, p)), "")
	if err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("written and read again it is another profile: %v", err)
	}
}

// FuzzRead: whatever is read, writing and reading it again changes nothing, and pprof accepts what is written.
func FuzzRead(f *testing.F) {
	f.Add(encode(f, example()))
	f.Add(plain(f, Convert(example())))
	hostile := example()
	for i := range hostile.Samples {
		hostile.Samples[i].Labels.Comm = "\x1b[31m\xff;\n\""
		hostile.Samples[i].Walk(func(l *profile.Location) { l.Lines[0].Function.Name += "\x00\xff" }, nil)
	}
	hostile.Start = time.Time{}
	f.Add(plain(f, Convert(hostile)))
	linkage := Convert(example())
	for _, function := range linkage.Function {
		function.Name = "" // what is shown is the linkage name then, of a reason too
	}
	f.Add(plain(f, linkage))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		p, err := Read(bytes.NewReader(data), "")
		if err != nil {
			return
		}
		if err := Convert(p).CheckValid(); err != nil {
			t.Fatal(err)
		}
		again, err := Read(bytes.NewReader(encode(t, p)), "")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("read again it is another profile:\n%s\n%s\n%+v\n%+v", Convert(p), Convert(again), p, again)
		}
	})
}
