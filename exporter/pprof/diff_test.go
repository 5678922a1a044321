package pprof

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	pb "github.com/google/pprof/profile"
)

// A file of differences is to go tool pprof what it makes of the two itself with -diff_base.
func TestWriteDiff(t *testing.T) {
	before, after := example(), example()
	after.Samples = after.Samples[1:]
	for i := range after.Samples {
		after.Samples[i].Count += int64(3 * i)
		after.Samples[i].Value += int64(3*i) * after.Period
	}
	dir := t.TempDir()
	write := func(name string, write func(io.Writer) error) string {
		t.Helper()
		var b bytes.Buffer
		path := filepath.Join(dir, name)
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	diff := func(scale float64) func(io.Writer) error {
		return func(w io.Writer) error { return WriteDiff(w, before, after, scale) }
	}
	a := write("a", func(w io.Writer) error { return Write(w, before) })
	b := write("b", func(w io.Writer) error { return Write(w, after) })
	top := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", append([]string{"tool", "pprof", "-symbolize=none", "-top", "-sample_index=samples"}, args...)...)
		cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go tool pprof %v: %v", args, err)
		}
		return regexp.MustCompile(`(?s)Showing nodes.*`).FindString(string(out))
	}
	if got, want := top(write("diff", diff(1))), top("-diff_base", a, b); got != want || len(got) < 100 {
		t.Errorf("the file of differences:\n%s\ngo tool pprof -diff_base:\n%s", got, want)
	}
	p, err := pb.ParseData(must(os.ReadFile(write("doubled", diff(2)))))
	if err != nil {
		t.Fatal(err)
	}
	var marked, sum int64
	for _, s := range p.Sample {
		if sum += s.Value[0]; s.DiffBaseSample() {
			marked += s.Value[0]
		}
	}
	var of [2]int64
	for i := range before.Samples {
		of[0] += before.Samples[i].Count
	}
	for i := range after.Samples {
		of[1] += after.Samples[i].Count
	}
	if marked != -2*of[0] || sum != of[1]-2*of[0] {
		t.Errorf("twice %d samples before and %d after are %d and %d in sum", of[0], of[1], marked, sum)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
