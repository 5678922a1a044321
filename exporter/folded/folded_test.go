package folded

import (
	"bytes"
	"errors"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

func location(kind profile.FrameKind, names ...string) *profile.Location {
	l := &profile.Location{Kind: kind}
	for _, name := range names {
		l.Lines = append(l.Lines, profile.Line{Function: &profile.Function{Name: name}})
	}
	return l
}

func stack(truncated string, locations ...*profile.Location) *profile.Stack {
	return &profile.Stack{Locations: locations, Truncated: truncated}
}

func folded(t *testing.T, samples ...profile.Sample) string {
	t.Helper()
	var out, again bytes.Buffer
	p := &profile.Profile{Type: profile.TypeCPU, Samples: samples}
	if err := Write(&out, p); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(samples)
	if err := Write(&again, p); err != nil || out.String() != again.String() {
		t.Errorf("the order of samples changes the text: %v\n%s%s", err, &out, &again)
	}
	return out.String()
}

func TestWrite(t *testing.T) {
	native := func(names ...string) *profile.Location { return location(profile.FrameNative, names...) }
	kernel := func(name string) *profile.Location { return location(profile.FrameKernel, name) }
	got := folded(t,
		profile.Sample{Kernel: stack("", kernel("vfs_read"), kernel("entry_SYSCALL_64")), User: stack("", native("read"), native("main")), Count: 40},
		profile.Sample{Kernel: stack("", kernel("vfs_read"), kernel("entry_SYSCALL_64")), User: stack("", native("read"), native("main")), Labels: &profile.Labels{PID: 2}, Count: 2},
		profile.Sample{User: stack("", native("inlined", "outer"), native("_ZN3geo4areaINS_6CircleELi7EEEdRKT_")), Count: 3},
		profile.Sample{User: stack("", native("_Z3foov"), location(pprof.KindLabel, "_Z3foov")), Count: 8},
		profile.Sample{User: stack("unmapped_pc", native("leaf")), Count: 4},
		profile.Sample{User: stack("stack_evicted"), Count: 5},
		profile.Sample{User: stack("", native("operator new;\n\x7f\xff\x00 x")), Count: 6},
		profile.Sample{Kernel: stack("", kernel("kthread")), Count: 7},
	)
	const want = "[truncated: stack evicted] 5\n" +
		"[truncated: unmapped pc];leaf 4\n" +
		"_Z3foov;foo 8\n" +
		"geo::area<geo::Circle, 7>;outer;inlined 3\n" +
		"kthread_[k] 7\n" +
		"main;read;entry_SYSCALL_64_[k];vfs_read_[k] 42\n" +
		"operator new:??\uFFFD? x 6\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := folded(t); got != "" {
		t.Errorf("an empty profile: %q", got)
	}
	if got := folded(t, profile.Sample{User: stack("", native(strings.Repeat("x", 1<<20))), Count: 1}); len(got) != 1<<20+3 {
		t.Errorf("a name of 1 MiB: %d bytes", len(got))
	}
}

type full struct{}

var errFull = errors.New("no space")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteFails(t *testing.T) {
	p := &profile.Profile{Samples: []profile.Sample{{User: stack("", location(profile.FrameNative, "f")), Count: 1}}}
	if err := Write(full{}, p); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

var line = regexp.MustCompile(`^(.*) (-?\d+)$`)

// FuzzWrite: whatever the names, each stack is one line with as many frames as it has, and no sample is lost.
func FuzzWrite(f *testing.F) {
	f.Add("main", "read", "", int64(1), int64(2))
	f.Add("a;b", "a\nb 5", "unmapped_pc", int64(1), int64(1))
	f.Add("", "\xff", "x;y", int64(1), int64(1))
	f.Add("\u2028\u0085", "\r", "", int64(1), int64(1))
	f.Fuzz(func(t *testing.T, a, b, truncated string, one, two int64) {
		if one < 0 || two < 0 || one > 1<<60 || two > 1<<60 {
			return
		}
		text := folded(t,
			profile.Sample{User: stack(truncated, location(profile.FrameNative, a), location(profile.FrameNative, b)), Count: one},
			profile.Sample{User: stack("", location(profile.FrameNative, b)), Kernel: stack("", location(profile.FrameKernel, a, b)), Count: two},
		)
		frames := []int{2, 3}
		if truncated != "" {
			frames[0]++
		}
		var sum int64
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		var got []int
		for _, l := range lines {
			m := line.FindStringSubmatch(l)
			if m == nil || strings.ContainsAny(l, "\r\t\x00") {
				t.Fatalf("%q", l)
			}
			n, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
			got = append(got, strings.Count(m[1], ";")+1)
		}
		slices.Sort(got)
		if sum != one+two || !slices.Equal(slices.Compact(got), slices.Compact(frames)) {
			t.Fatalf("%q: %d samples of %d, frames %v, want %v", text, sum, one+two, got, frames)
		}
	})
}

// Long names are there once, however many stacks have them: these are 4 GB of text.
func TestLongNames(t *testing.T) {
	long := location(profile.FrameNative, strings.Repeat("x", 1<<20))
	p := &profile.Profile{}
	for i := range 64 {
		s := stack("", location(profile.FrameNative, strconv.Itoa(i)))
		for range 64 {
			s.Locations = append(s.Locations, long)
		}
		p.Samples = append(p.Samples, profile.Sample{User: s, Count: 1})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var size counter
	if err := Write(&size, p); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if size < 4<<30 {
		t.Errorf("only %d bytes were written", size)
	}
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 64<<20 {
		t.Errorf("%d bytes were allocated", bytes)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
