package folded

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// shape is a sample's frames, innermost first, each with its kind, and what is missing.
func shape(s *profile.Sample) (frames []string) {
	s.Walk(
		func(l *profile.Location) {
			frames = append(frames, fmt.Sprintf("%s %s", l.Kind, l.Lines[0].Function.Name))
		},
		func(reason string) { frames = append(frames, "missing "+reason) },
	)
	return frames
}

func TestRead(t *testing.T) {
	p, err := Read(strings.NewReader("main;operator new (int);read;[truncated: no table];sys_[k];vfs_read_[k] 42\r\n" +
		"\n[truncated: unmapped pc];leaf  7\nswapper_[k] 1\n[truncated: stack evicted] 2\na;;b_[k];c 3\n 4"))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"kernel vfs_read", "kernel sys", "missing no_table", "native read", "native operator new (int)", "native main"},
		{"native leaf", "missing unmapped_pc"},
		{"kernel swapper"},
		{"missing stack_evicted"},
		{"native c", "kernel b", "native ", "native a"},
		{"native "},
	}
	for i := range p.Samples {
		if got := shape(&p.Samples[i]); !reflect.DeepEqual(got, want[i]) {
			t.Errorf("line %d: %q, want %q", i+1, got, want[i])
		}
	}
	if len(p.Samples) != len(want) || p.Account.Taken != 59 || p.Account.Exported != 59 || p.Samples[0].Count != 42 || p.Samples[0].Value != 42 || p.Type.Name != "samples" {
		t.Errorf("%d samples, %+v, %+v", len(p.Samples), p.Account, p.Samples[0])
	}
	if p, err := Read(strings.NewReader("")); err != nil || len(p.Samples) != 0 {
		t.Errorf("nothing: %v, %v", p, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a;b 1\nmain":                          "line 2: \"main\" has no number",
		"a;b 1.5":                              `line 1: "1.5" at its end is no number`,
		"a;b -1":                               "no number",
		"a;b 99999999999999999999":             "no number",
		"ok 1\n" + strings.Repeat("x", 17<<20): "line 2: it has more than 16 MiB",
		"\x1f\x8b\x08":                         "line 1",
	} {
		if p, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v, %v; want %s", text, p, err, want)
		}
	}
	stacks := strings.Repeat("a;b;c 1\n", 1<<18) // 2 MiB
	if _, err := read(strings.NewReader(stacks), 2<<20); err != nil {
		t.Errorf("as much as is allowed: %v", err)
	}
	if _, err := read(strings.NewReader(stacks+"\n"), 2<<20); err == nil || !strings.Contains(err.Error(), "more than 2 MiB") {
		t.Errorf("a byte more: %v", err)
	}
	broken := errors.New("broken disk")
	if _, err := Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// The innermost frames of stacks that are too deep are left.
func TestReadCutsStacks(t *testing.T) {
	text := fmt.Sprintf("%sleaf 1\n%sleaf 2\n%sk_[k] 3\n", strings.Repeat(";", 10_000_000), strings.Repeat(";", pprof.MaxFrames-1), strings.Repeat("k_[k];", pprof.MaxFrames))
	p, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"native leaf, missing max_depth", "native leaf, native ", "kernel k, missing max_depth"} {
		frames := shape(&p.Samples[i])
		if got := frames[0] + ", " + frames[len(frames)-1]; got != want || len(frames) != pprof.MaxFrames {
			t.Errorf("line %d: %d frames, %s", i+1, len(frames), got)
		}
	}
}

// FuzzRead: what is read is written as it was, sample by sample, but for the order of lines and for mangled names.
func FuzzRead(f *testing.F) {
	f.Add("main;read;vfs_read_[k] 42\n[truncated: no table];x 1")
	f.Add("a;[truncated: x_y];_[k] 3\n;; 4\n_Z3foov 1\n\xff\x1b[31m 5")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		var total int64
		for i := range p.Samples {
			s := &p.Samples[i]
			total += s.Count
			one := *p
			one.Samples = []profile.Sample{*s}
			var out bytes.Buffer
			if err := Write(&out, &one); err != nil {
				t.Fatal(err)
			}
			again, err := Read(&out)
			if err != nil || len(again.Samples) != 1 {
				t.Fatalf("%q: %v", shape(s), err)
			}
			if mangled(s) {
				continue
			}
			if got, want := shape(&again.Samples[0]), shape(s); !reflect.DeepEqual(got, want) || again.Samples[0].Count != s.Count {
				t.Fatalf("%q became %q", want, got)
			}
		}
		if uint64(total) != p.Account.Taken {
			t.Fatalf("%d samples, %d taken", total, p.Account.Taken)
		}
	})
}

func mangled(s *profile.Sample) (found bool) {
	s.Walk(func(l *profile.Location) {
		name := l.Lines[0].Function.Name
		found = found || clean(demangle.Simple(name)) != name
	}, nil)
	return found
}
