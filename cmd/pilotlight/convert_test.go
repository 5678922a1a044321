package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	runtimepprof "runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/otlp"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// place writes a file and gives its path.
func place(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// heap is a profile of four types of values, and labels.
func heap(t *testing.T) *pb.Profile {
	t.Helper()
	runtime.GC()
	var out bytes.Buffer
	if err := runtimepprof.WriteHeapProfile(&out); err != nil {
		t.Fatal(err)
	}
	p, err := pb.ParseData(out.Bytes())
	if err != nil || len(p.Sample) == 0 {
		t.Fatalf("%d samples, %v", len(p.Sample), err)
	}
	p.Sample[0].Label = map[string][]string{"tenant": {"a", "b"}}
	return p
}

// converted gives what convert writes.
func converted(t *testing.T, f convertFlags, in, out string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), out)
	if err := convert(&f, []string{in, path}); err != nil {
		t.Fatalf("%s to %s: %v", filepath.Base(in), out, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if zipped := bytes.HasPrefix(content, []byte{0x1f, 0x8b}); zipped != (strings.HasSuffix(out, ".gz") || formatOf(out) == "pprof") {
		t.Errorf("%s: zipped %v", out, zipped)
	}
	return content
}

func unzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// From pprof to OTLP and back every byte is the same, zipped on the way or not, and the same from OTLP to OTLP.
func TestConvertThereAndBack(t *testing.T) {
	var written bytes.Buffer
	if err := heap(t).Write(&written); err != nil {
		t.Fatal(err)
	}
	// Written once by this way, so that strings and IDs stand in its order.
	there := converted(t, convertFlags{}, place(t, "a.pb.gz", written.Bytes()), "a.otlp.pb")
	want := unzipped(t, converted(t, convertFlags{}, place(t, "a.otlp.pb", there), "a.pb.gz"))
	for _, name := range []string{"b.otlp.pb", "b.otlp.pb.gz", "b.otlp", "B.OTLP.PB"} {
		data := converted(t, convertFlags{}, place(t, "b.pb", want), name)
		if got := unzipped(t, converted(t, convertFlags{}, place(t, name, data), "c.pb.gz")); !bytes.Equal(got, want) {
			t.Errorf("by %s: another profile", name)
		}
		if got := converted(t, convertFlags{}, place(t, name, data), "d.otlp.pb"); !bytes.Equal(got, there) {
			t.Errorf("by %s: another message", name)
		}
	}
	parsed, err := pb.ParseData(want)
	if err != nil || !slices.Equal(parsed.Sample[0].Label["tenant"], []string{"a", "b"}) || len(parsed.SampleType) != 4 {
		t.Errorf("%v, %v", parsed.Sample[0], err)
	}
}

// One type is left with all labels, whichever way.
func TestConvertType(t *testing.T) {
	var written bytes.Buffer
	in := heap(t)
	if err := in.Write(&written); err != nil {
		t.Fatal(err)
	}
	asPprof := place(t, "a.pb.gz", written.Bytes())
	asOTLP := place(t, "a.otlp.pb", converted(t, convertFlags{}, asPprof, "a.otlp.pb"))
	f := convertFlags{sampleType: "alloc_space"}
	for _, from := range []string{asPprof, asOTLP} {
		for _, to := range []string{"b.pb.gz", "b.otlp.pb"} {
			b := place(t, to, converted(t, f, from, to))
			p, err := pb.ParseData(converted(t, convertFlags{}, b, "c.pb.gz"))
			if err != nil {
				t.Fatal(err)
			}
			if len(p.SampleType) != 1 || p.SampleType[0].Type != "alloc_space" || !slices.Equal(p.Sample[0].Label["tenant"], []string{"a", "b"}) {
				t.Errorf("%s to %s: %v %v", filepath.Base(from), to, p.SampleType, p.Sample[0])
			}
			for i, s := range p.Sample {
				if s.Value[0] != in.Sample[i].Value[1] {
					t.Fatalf("%s to %s: sample %d has %d, want %d", filepath.Base(from), to, i, s.Value[0], in.Sample[i].Value[1])
				}
			}
		}
		var texts [2][]byte
		for i, to := range []string{"b.folded", "b.speedscope.json"} {
			texts[i] = converted(t, f, from, to)
		}
		var written, wanted int64
		for line := range strings.Lines(string(texts[0])) {
			n, err := strconv.ParseInt(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			written += n
		}
		for _, s := range in.Sample {
			wanted += s.Value[1]
		}
		if written != wanted {
			t.Errorf("folded text has %d of alloc_space, want %d", written, wanted)
		}
		if !bytes.Contains(texts[0], []byte("runtime")) || !bytes.Contains(texts[1], []byte(`"name":"alloc_space`)) {
			t.Errorf("%.200s %.200s", texts[0], texts[1])
		}
	}
}

// Where nothing counts samples, folded text has the values.
func TestConvertUncounted(t *testing.T) {
	f := &pb.Function{ID: 1, Name: "wait"}
	l := &pb.Location{ID: 1, Line: []pb.Line{{Function: f}}}
	in := &pb.Profile{
		SampleType: []*pb.ValueType{{Type: "off_cpu", Unit: "nanoseconds"}}, Function: []*pb.Function{f}, Location: []*pb.Location{l},
		Sample: []*pb.Sample{{Location: []*pb.Location{l}, Value: []int64{7000}}, {Location: []*pb.Location{l}, Value: []int64{500}}},
	}
	var written bytes.Buffer
	if err := in.Write(&written); err != nil {
		t.Fatal(err)
	}
	asPprof := place(t, "a.pb.gz", written.Bytes())
	asOTLP := place(t, "a.otlp.pb", converted(t, convertFlags{}, asPprof, "a.otlp.pb"))
	for _, from := range []string{asPprof, asOTLP} {
		if got := string(converted(t, convertFlags{}, from, "a.folded")); got != "wait 7500\n" {
			t.Errorf("%s: %q", filepath.Base(from), got)
		}
	}
}

// Folded text has the same stacks and numbers, whatever it was between.
func TestConvertFolded(t *testing.T) {
	const want = "kthread_[k] 3\nmain;work 40\nmain;work;read;vfs_read_[k] 2\n"
	in := place(t, "a.txt", []byte(want))
	for _, between := range []string{"b.pb", "b.otlp", "b.otlp.pb.gz", "b.folded", "b.collapsed.gz"} {
		b := place(t, between, converted(t, convertFlags{}, in, between))
		if got := converted(t, convertFlags{}, b, "c.folded"); string(got) != want {
			t.Errorf("by %s: %q", between, got)
		}
		if p, err := readProfile(b, ""); err != nil || !p.Foreign {
			t.Errorf("%s: %v, %+v is not foreign", between, err, p)
		}
	}
	tool := exec.Command("go", "tool", "pprof", "-raw", place(t, "b.pb", converted(t, convertFlags{}, in, "b.pb")))
	tool.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	if out, err := tool.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("samples/count[dflt]\n")) {
		t.Errorf("go tool pprof: %v %s", err, out)
	}
	if html := converted(t, convertFlags{}, in, "b.html"); !bytes.Contains(html, []byte("vfs_read")) {
		t.Error("HTML without the functions")
	}
}

// What record writes as OTLP is read by all that takes files, with the times.
func TestConvertRecorded(t *testing.T) {
	l := &profile.Location{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "main"}}}}
	p := &profile.Profile{Type: profile.TypeCPU, Start: time.Unix(1e9, 0), Duration: time.Second, Period: 10, Account: profile.Account{Taken: 3, Exported: 2, Lost: []profile.Loss{{Reason: "ring_full", Count: 1}}}, Samples: []profile.Sample{
		{User: &profile.Stack{Locations: []*profile.Location{l}}, Labels: &profile.Labels{PID: 7, Comm: "app"}, Count: 2, Value: 20, Times: []time.Duration{1, 2}},
	}}
	for _, name := range []string{"profile.otlp.pb", "profile.otlp.pb.gz"} {
		path := filepath.Join(t.TempDir(), name)
		f := recordFlags{format: "otlp", output: path, timestamps: true}
		write, err := f.check(nil)
		if err != nil {
			t.Fatal(err)
		}
		out, err := openOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.write(p, write); err != nil {
			t.Fatal(err)
		}
		got, err := readProfile(path, "")
		if err != nil {
			t.Fatal(err)
		}
		if s := got.Samples[0]; got.Foreign || s.Value != 20 || !slices.Equal(s.Times, []time.Duration{1, 2}) || s.Labels.Comm != "app" || got.Account.Lost[0].Count != 1 {
			t.Errorf("%+v %+v", s, got.Account)
		}
		if again := converted(t, convertFlags{}, path, "b.otlp.pb"); name == "profile.otlp.pb" {
			if content, err := os.ReadFile(path); err != nil || !bytes.Equal(again, content) {
				t.Errorf("converted to itself it is another: %v", err)
			}
		}
	}
	if _, err := (&recordFlags{format: "pprof", output: "x", timestamps: true}).check(nil); err == nil || !strings.Contains(err.Error(), "--format otlp") {
		t.Errorf("%v", err)
	}
}

func TestConvertRefuses(t *testing.T) {
	text := place(t, "a.folded", []byte("main 1\n"))
	var difference bytes.Buffer
	p, err := folded.Read(strings.NewReader("main 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.WriteDiff(&difference, p, p, 2); err != nil {
		t.Fatal(err)
	}
	var message bytes.Buffer
	if err := otlp.Write(&message, p, otlp.Options{}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.otlp.pb")
	for _, test := range []struct {
		flags   convertFlags
		in, out string
		want    string
		usage   bool
	}{
		{convertFlags{}, text, "out.svg", "out.svg tells no format: give one of folded, html, otlp, pprof, speedscope", true},
		{convertFlags{}, text, "-", "by --format", true},
		{convertFlags{}, text, "", "want a file name", true},
		{convertFlags{format: "svg"}, text, out, `format "svg"`, true},
		{convertFlags{}, "missing.pb", out, "missing.pb: no such file", false},
		{convertFlags{}, place(t, "empty.pb", nil), out, "empty.pb: read pprof profile: it is empty", false},
		{convertFlags{}, place(t, "bad.folded", []byte("no number\n")), out, "bad.folded: read folded stacks: line 1", false},
		{convertFlags{}, place(t, "bad.pb", []byte{0x0a, 2, 8, 1, 0xff}), out, "bad.pb: read pprof profile: it is no profile.proto", false},
		{convertFlags{}, place(t, "bad.otlp", message.Bytes()[:message.Len()-1]), out, "bad.otlp: read OTLP profile: it is no ProfilesData", false},
		{convertFlags{}, place(t, "bad.gz", []byte{0x1f, 0x8b, 0}), out, "bad.gz: read gzipped file", false},
		{convertFlags{}, place(t, "a.json", []byte(`{"resourceProfiles":[]}`)), out, "it is JSON", false},
		{convertFlags{sampleType: "cpu"}, text, out, `no values of type "cpu": folded text counts samples`, false},
		{convertFlags{sampleType: "cpu"}, place(t, "a.otlp", message.Bytes()), out, `no values of type "cpu": it has ["samples"]`, false},
		{convertFlags{format: "folded"}, place(t, "d.pb.gz", difference.Bytes()), out, "negative samples", false},
		{convertFlags{}, text, filepath.Join(t.TempDir(), "no", "out.pb"), "no such file or directory", false},
	} {
		err := convert(&test.flags, []string{test.in, test.out})
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.As(err, new(failure)) == test.usage {
			t.Errorf("%s to %s: %v, want %q, of usage %v", filepath.Base(test.in), filepath.Base(test.out), err, test.want, test.usage)
		}
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Errorf("a file was written all the same: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := convert(new(convertFlags), []string{text}); err == nil {
		t.Error("one file is enough")
	}
}
