package pprof

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

var began = time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)

func function(name string) []profile.Line {
	return []profile.Line{{Function: &profile.Function{Name: name}}}
}

// example has every field that a profile can have.
func example() *profile.Profile {
	app := &profile.Mapping{Path: "/usr/bin/app", BuildID: "abcdef0123", Start: 0x401000, Limit: 0x402000, Offset: 0x1000, HasFunctions: true}
	golang := &profile.Mapping{Path: "/usr/bin/gopher", Start: 0x400000, Limit: 0x500000, HasFunctions: true, HasLines: true}
	kernel := &profile.Mapping{Path: "[kernel.kallsyms]", HasFunctions: true}
	work := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401010, Lines: function("_ZN3geo4areaINS_6CircleELi7EEEdRKT_")}
	main := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401100, Lines: function("main")}
	unnamed := &profile.Location{Kind: profile.FrameNative, Mapping: app, Address: 0x401ff0, Lines: function("[app+0x1ff0]"), Unnamed: "no_symbol"}
	inlined := &profile.Location{Kind: profile.FrameGo, Mapping: golang, Address: 0x400123, Lines: []profile.Line{
		{Function: &profile.Function{Name: "main.leaf", File: "/src/main.go", StartLine: 10}, Line: 12},
		{Function: &profile.Function{Name: "main.(*T).Run", File: "/src/main.go", StartLine: 20}, Line: 25},
	}}
	jit := &profile.Location{Kind: profile.FrameJIT, Address: 0x7f0000001000, Lines: function("LazyCompile:~x")}
	read := &profile.Location{Kind: profile.FrameKernel, Mapping: kernel, Address: 0xffffffff81234567, Lines: function("vfs_read")}
	return &profile.Profile{
		Type: profile.TypeCPU, Start: began, Duration: 10 * time.Second, Period: 10309278,
		Samples: []profile.Sample{
			{Kernel: &profile.Stack{Locations: []*profile.Location{read}}, User: &profile.Stack{Locations: []*profile.Location{work, main}},
				Labels: &profile.Labels{PID: 10, TID: 11, Comm: "app", Thread: "worker", Exe: "/usr/bin/app", Cgroup: "/x.scope", ContainerID: "0123", PodUID: "uid", Unit: "x.scope", Service: "shop",
					TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", SpanID: "00f067aa0ba902b7",
					// What a process says of itself takes the place of nothing that is known of it.
					Resource: []profile.Attribute{{Key: "comm", Value: "other"}, {Key: "pid", Value: "1"}, {Key: "service.version", Value: "1.2"}, {Key: "trace_id", Value: "mine"}}}, Count: 3, Value: 30},
			{User: &profile.Stack{Locations: []*profile.Location{unnamed, main}, Truncated: "unmapped_pc"},
				Labels: &profile.Labels{PID: 10, Comm: "app"}, Count: 2, Value: 20},
			{User: &profile.Stack{Locations: []*profile.Location{inlined}}, Labels: &profile.Labels{PID: 12, Comm: "gopher"}, Count: 70, Value: 700},
			{User: &profile.Stack{Locations: []*profile.Location{jit}}, Labels: &profile.Labels{PID: 13, Comm: "node"}, Count: 1, Value: 10},
			{User: &profile.Stack{Truncated: "stack_evicted"}, Labels: &profile.Labels{PID: 14, Comm: "lost"}, Count: 1, Value: 10},
			{Kernel: &profile.Stack{Locations: []*profile.Location{read}}, Labels: &profile.Labels{PID: 2, Comm: "kthreadd"}, Count: 1, Value: 10},
		},
		Account: profile.Account{Taken: 85, Exported: 78, Filtered: 2, Lost: []profile.Loss{{Reason: "ring_full", Count: 5}, {Reason: "bad_record"}}},
	}
}

// written writes, checks and reads again.
func written(t *testing.T, p *profile.Profile) *pb.Profile {
	t.Helper()
	converted := Convert(p)
	if err := converted.CheckValid(); err != nil {
		t.Fatal(err)
	}
	var out, again bytes.Buffer
	if err := Write(&out, p); err != nil {
		t.Fatal(err)
	}
	if err := Write(&again, p); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("two conversions differ: %v", err)
	}
	if !bytes.HasPrefix(out.Bytes(), []byte{0x1f, 0x8b}) {
		t.Error("not gzipped")
	}
	parsed, err := pb.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	if parsed.String() != converted.String() {
		t.Errorf("read again it is another profile:\n%s\nwritten:\n%s", parsed, converted)
	}
	for i, s := range converted.Sample {
		if !slices.Equal(s.Value, parsed.Sample[i].Value) || !reflect.DeepEqual(stackOf(s), stackOf(parsed.Sample[i])) {
			t.Errorf("sample %d: %v", i, stackOf(parsed.Sample[i]))
		}
	}
	return parsed
}

func stackOf(s *pb.Sample) (names []string) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			names = append(names, line.Function.Name)
		}
	}
	return names
}

func TestContract(t *testing.T) {
	p := written(t, example())
	equal := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	var types []string
	for _, v := range append(slices.Clone(p.SampleType), p.PeriodType) {
		types = append(types, v.Type+"/"+v.Unit)
	}
	equal("types", types, []string{"samples/count", "cpu/nanoseconds", "cpu/nanoseconds"})
	equal("default", p.DefaultSampleType, "cpu")
	equal("period", p.Period, int64(10309278))
	equal("start", p.TimeNanos, began.UnixNano())
	equal("duration", p.DurationNanos, int64(10*time.Second))
	equal("comments", p.Comments, []string{"samples.taken=85", "samples.exported=78", "samples.filtered=2", "samples.lost.ring_full=5", "samples.lost.bad_record=0"})

	var stacks [][]string
	for _, s := range p.Sample {
		stacks = append(stacks, stackOf(s))
	}
	equal("stacks", stacks, [][]string{
		{"vfs_read", "geo::area<geo::Circle, 7>", "main"},
		{"[app+0x1ff0]", "main", "[truncated: unmapped pc]"},
		{"main.leaf", "main.(*T).Run"},
		{"LazyCompile:~x"},
		{"[truncated: stack evicted]"},
		{"vfs_read"},
	})
	equal("values", []any{p.Sample[0].Value, p.Sample[2].Value}, []any{[]int64{3, 30}, []int64{70, 700}})
	equal("labels", p.Sample[0].Label, map[string][]string{"comm": {"app"}, "thread": {"worker"}, "exe": {"/usr/bin/app"}, "cgroup": {"/x.scope"}, "container_id": {"0123"},
		"pod_uid": {"uid"}, "unit": {"x.scope"}, "service": {"shop"}, "service.version": {"1.2"},
		"trace_id": {"4bf92f3577b34da6a3ce929d0e0e4736"}, "span_id": {"00f067aa0ba902b7"}})
	equal("numeric labels", p.Sample[0].NumLabel, map[string][]int64{"pid": {10}, "tid": {11}})
	equal("labels of little", p.Sample[1].Label, map[string][]string{"comm": {"app"}})
	equal("numeric labels without threads", p.Sample[1].NumLabel, map[string][]int64{"pid": {10}})

	area := p.Sample[0].Location[1]
	equal("raw name", area.Line[0].Function.SystemName, "_ZN3geo4areaINS_6CircleELi7EEEdRKT_")
	equal("address", area.Address, uint64(0x401010))
	m := area.Mapping
	equal("mapping", []any{m.File, m.BuildID, m.Start, m.Limit, m.Offset, m.HasFunctions, m.HasLineNumbers}, []any{"/usr/bin/app", "abcdef0123", uint64(0x401000), uint64(0x402000), uint64(0x1000), true, false})
	leaf := p.Sample[2].Location[0]
	equal("lines", []any{leaf.Line[0].Line, leaf.Line[1].Line}, []any{int64(12), int64(25)})
	equal("file and start", []any{leaf.Line[1].Function.Filename, leaf.Line[1].Function.StartLine}, []any{"/src/main.go", int64(20)})
	equal("mapping with lines", []bool{leaf.Mapping.HasFilenames, leaf.Mapping.HasLineNumbers, leaf.Mapping.HasInlineFrames}, []bool{true, true, true})
	if p.Sample[3].Location[0].Mapping != nil {
		t.Error("JIT code has a mapping")
	}
	// The program that most samples hit is the main one, and the kernel never is.
	var files []string
	for _, m := range p.Mapping {
		files = append(files, m.File)
	}
	equal("mappings", files, []string{"/usr/bin/gopher", "/usr/bin/app", "[kernel.kallsyms]"})
	// A frame is listed once, whoever uses it.
	equal("locations", len(p.Location), 8)

	cycles := example()
	cycles.Type = profile.TypeCycles
	if p := written(t, cycles); p.SampleType[1].Type != "cycles" || p.PeriodType.Unit != "count" || p.DefaultSampleType != "cycles" {
		t.Errorf("cycles: %v", p)
	}
	if p := written(t, &profile.Profile{Type: profile.TypeCPU, Start: began}); len(p.Sample) != 0 || len(p.Comments) != 2 {
		t.Errorf("empty: %v", p)
	}
}

// What is equal is one, and what only looks alike is not.
func TestMerging(t *testing.T) {
	one, two := example(), example() // equal contents under different pointers
	before := written(t, one)
	one.Samples = append(one.Samples, two.Samples...)
	p := written(t, one)
	if len(p.Location) != len(before.Location) || len(p.Function) != len(before.Function) || len(p.Mapping) != len(before.Mapping) {
		t.Errorf("%d locations, %d functions, %d mappings; before %d, %d, %d", len(p.Location), len(p.Function), len(p.Mapping),
			len(before.Location), len(before.Function), len(before.Mapping))
	}

	at := func(change func(*profile.Location, *profile.Mapping)) profile.Sample {
		m := profile.Mapping{Path: "/bin/x", BuildID: "01"}
		l := profile.Location{Kind: profile.FrameNative, Mapping: &m, Address: 0x10, Lines: []profile.Line{
			{Function: &profile.Function{Name: "inlined", File: "a.c", StartLine: 1}, Line: 2}, {Function: &profile.Function{Name: "outer", File: "a.c", StartLine: 5}, Line: 6}}}
		change(&l, &m)
		return profile.Sample{User: &profile.Stack{Locations: []*profile.Location{&l}}, Labels: &profile.Labels{PID: 1, Comm: "x"}, Count: 1, Value: 1}
	}
	same := at(func(*profile.Location, *profile.Mapping) {})
	for name, change := range map[string]func(*profile.Location, *profile.Mapping){
		"address":       func(l *profile.Location, _ *profile.Mapping) { l.Address = 0x11 },
		"function":      func(l *profile.Location, _ *profile.Mapping) { l.Lines[0].Function.Name = "other" },
		"caller":        func(l *profile.Location, _ *profile.Mapping) { l.Lines[1].Function.Name = "other" },
		"line":          func(l *profile.Location, _ *profile.Mapping) { l.Lines[0].Line = 3 },
		"caller's line": func(l *profile.Location, _ *profile.Mapping) { l.Lines[1].Line = 7 },
		"start line":    func(l *profile.Location, _ *profile.Mapping) { l.Lines[0].Function.StartLine = 0 },
		"source":        func(l *profile.Location, _ *profile.Mapping) { l.Lines[0].Function.File = "b.c" },
		"not inlined":   func(l *profile.Location, _ *profile.Mapping) { l.Lines = l.Lines[:1] },
		"no mapping":    func(l *profile.Location, _ *profile.Mapping) { l.Mapping = nil },
		"path":          func(_ *profile.Location, m *profile.Mapping) { m.Path = "/bin/y" },
		"build id":      func(_ *profile.Location, m *profile.Mapping) { m.BuildID = "02" },
	} {
		p := written(t, &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{same, at(change), same}})
		if len(p.Location) != 2 || p.Sample[0].Location[0] != p.Sample[2].Location[0] || p.Sample[0].Location[0] == p.Sample[1].Location[0] {
			t.Errorf("another %s: %d locations", name, len(p.Location))
		}
	}
}

// Names come from whoever made the files on the host.
func TestHostileNames(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for _, name := range []string{"", "\xff\xfe", "a\x00b", "line\nbreak", "semi;colon", "\u202e", huge, "_Z" + huge, strings.Repeat("\xff", 1000), "[truncated: x]"} {
		m := &profile.Mapping{Path: name}
		l := &profile.Location{Mapping: m, Address: 1, Lines: []profile.Line{{Function: &profile.Function{Name: name, File: name, StartLine: -1}, Line: -5}}}
		p := written(t, &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{{
			User: &profile.Stack{Locations: []*profile.Location{l}, Truncated: name}, Count: 1, Value: 1,
			Labels: &profile.Labels{PID: -1, Comm: name, Thread: name, Exe: name, Cgroup: name, ContainerID: name},
		}}})
		for _, f := range p.Function {
			if !utf8.ValidString(f.Name) || !utf8.ValidString(f.SystemName) || !utf8.ValidString(f.Filename) {
				t.Errorf("%.20q is not UTF-8", f.Name)
			}
		}
		if utf8.ValidString(name) && (p.Function[0].SystemName != name || p.Mapping[0].File != name) {
			t.Errorf("%.20q became %.20q", name, p.Function[0].SystemName)
		}
		for key, values := range p.Sample[0].Label {
			if !utf8.ValidString(values[0]) || values[0] == "" {
				t.Errorf("label %s: %.20q", key, values)
			}
		}
	}
}

// The value of a label stays what it is, to go tool pprof too, also beside a function whose name is as it.
func TestLabelsAreNotDemangled(t *testing.T) {
	at := func(kind profile.FrameKind) *profile.Location {
		return &profile.Location{Kind: kind, Lines: function("_Z3foov")}
	}
	p := written(t, &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{{
		User: &profile.Stack{Locations: []*profile.Location{at(profile.FrameNative), at(KindLabel)}}, Labels: &profile.Labels{PID: 1}, Count: 1, Value: 1,
	}}})
	if got, of := stackOf(p.Sample[0]), p.Function; !slices.Equal(got, []string{"foo", "_Z3foov"}) || of[0].SystemName != "_Z3foov" || of[1].SystemName != "" {
		t.Errorf("%q, %v", got, of)
	}
}

// The main program is that with most samples on top, however they are spread over stacks; files with equal counts keep their order.
func TestMappingOrder(t *testing.T) {
	p := &profile.Profile{Type: profile.TypeCPU}
	add := func(path string, count int64) {
		l := &profile.Location{Mapping: &profile.Mapping{Path: path}, Address: uint64(len(p.Samples)), Lines: function("f")}
		p.Samples = append(p.Samples, profile.Sample{User: &profile.Stack{Locations: []*profile.Location{l}}, Labels: &profile.Labels{PID: 1}, Count: count, Value: count})
	}
	add("[kernel.kallsyms]", 1000)
	add("/a", 5)
	add("/b", 4)
	add("[module]", 2000)
	add("/c", 5)
	add("/b", 4)
	var got []string
	for i, m := range written(t, p).Mapping {
		got = append(got, m.File)
		if m.ID != uint64(i+1) {
			t.Errorf("%s has ID %d", m.File, m.ID)
		}
	}
	if want := []string{"/b", "/a", "/c", "[module]", "[kernel.kallsyms]"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// go tool pprof says the same as the profile.
func TestGoToolPprof(t *testing.T) {
	file := filepath.Join(t.TempDir(), "profile.pb.gz")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	p := example()
	if err := Write(f, p); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	pprof := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", append(append([]string{"tool", "pprof", "-symbolize=none"}, args...), file)...)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go tool pprof %v: %v\n%s", args, err, &stderr)
		}
		if strings.Contains(stderr.String(), "warning") {
			t.Errorf("go tool pprof %v warns: %s", args, &stderr)
		}
		return string(out)
	}
	// By the profile itself: samples on top, and anywhere on the stack.
	flat, cum := make(map[string]int64), make(map[string]int64)
	for i := range p.Samples {
		names := stackOf(Convert(p).Sample[i])
		flat[names[0]] += p.Samples[i].Count
		for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
			cum[name] += p.Samples[i].Count
		}
	}
	line := regexp.MustCompile(`(?m)^ +(\d+) +[\d.]+% +[\d.]+% +(\d+) +[\d.]+%  (.*?)(?: \(inline\))?$`)
	top := pprof("-top", "-sample_index=samples", "-nodefraction=0")
	rows := line.FindAllStringSubmatch(top, -1)
	if len(rows) != len(cum) {
		t.Errorf("%d functions, want %d:\n%s", len(rows), len(cum), top)
	}
	for _, row := range rows {
		if row[1] != strconv.FormatInt(flat[row[3]], 10) || row[2] != strconv.FormatInt(cum[row[3]], 10) {
			t.Errorf("%s: flat %s, cum %s; want %d, %d", row[3], row[1], row[2], flat[row[3]], cum[row[3]])
		}
	}
	if byDefault := pprof("-top"); !strings.Contains(byDefault, "Type: cpu") || !strings.Contains(byDefault, "Duration: 10s") {
		t.Errorf("%s", byDefault)
	}
	if tags := pprof("-tags"); !strings.Contains(tags, "container_id") || !strings.Contains(tags, "worker") {
		t.Errorf("%s", tags)
	}
	raw := pprof("-raw")
	for _, want := range []string{"PeriodType: cpu nanoseconds", "Period: 10309278", "Duration: 10s", "samples/count cpu/nanoseconds[dflt]",
		"samples.taken=85", "samples.lost.ring_full=5", "/usr/bin/app abcdef0123", "[truncated: unmapped pc]", "main.(*T).Run /src/main.go:25", "container_id:[0123]", "pid:[10]"} {
		if !strings.Contains(raw, want) {
			t.Errorf("-raw does not say %q:\n%s", want, raw)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^ +\d+ +\d+: `).FindAllString(raw, -1)); n != len(p.Samples) {
		t.Errorf("-raw lists %d samples, want %d", n, len(p.Samples))
	}
}

// FuzzConvert makes a valid profile of whatever names, addresses and counts there are.
func FuzzConvert(f *testing.F) {
	f.Add("main", "/bin/x", "unmapped_pc", "comm", uint64(1), int64(2), 3)
	f.Add("\xff", "[", "", "", uint64(0), int64(-1), -1)
	f.Fuzz(func(t *testing.T, name, path, truncated, comm string, address uint64, count int64, line int) {
		l := &profile.Location{Mapping: &profile.Mapping{Path: path, Start: address}, Address: address,
			Lines: []profile.Line{{Function: &profile.Function{Name: name, File: path, StartLine: line}, Line: line}}}
		pid := max(line, 1) // the format has no numeric label of 0: the idle task goes without
		p := &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{
			{User: &profile.Stack{Locations: []*profile.Location{l, l}, Truncated: truncated}, Labels: &profile.Labels{PID: pid, Comm: comm}, Count: count, Value: count},
			{Kernel: &profile.Stack{Locations: []*profile.Location{l}}, Labels: &profile.Labels{PID: 1}, Count: 1},
		}}
		parsed := written(t, p)
		names := stackOf(parsed.Sample[0])
		if want := 2 + min(1, len(truncated)); len(names) != want || truncated != "" && !strings.HasPrefix(names[2], "[truncated: ") {
			t.Fatalf("%q", names)
		}
	})
}

// A program's own labels stand beside the profiler's, and never in the place of one.
func TestFurtherLabels(t *testing.T) {
	p := &profile.Profile{Type: profile.TypeCPU, Samples: []profile.Sample{{User: new(profile.Stack), Count: 1, Value: 1, Labels: &profile.Labels{PID: 10, Comm: "app", Further: []profile.Attribute{
		{Key: "http.route", Value: "/items"}, {Key: "comm", Value: "forged"}, {Key: "pid", Value: "forged"}, {Key: "exe", Value: "forged"}, {Key: "empty"}, {Key: "\xff", Value: "\xfe"},
	}}}}}
	if got, want := Convert(p).Sample[0].Label, map[string][]string{"comm": {"app"}, "http.route": {"/items"}, "\uFFFD": {"\uFFFD"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
