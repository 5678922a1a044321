package profiler

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/publish"
)

// The walk in BPF and the one in Go, which are written in two languages and look into the tables in two ways, find the same frames and
// the same end on every sample.
func TestWalksAgree(t *testing.T) {
	reasons := buildReasons(t)
	built := func(source string, compiler ...string) string {
		program := filepath.Join(t.TempDir(), "program")
		build := exec.Command(compiler[0], append(compiler[1:], "-o", program, source)...)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", build, err, out)
		}
		return program
	}
	frames := func(flags ...string) []string {
		return []string{built("unwind/testdata/frames.c", append([]string{"gcc", "-fomit-frame-pointer", "-pthread", "-DFOR_EVER", "-DROOM=8000" /* within a copy */}, flags...)...)}
	}
	deep := func(mode string, compiler ...string) []string {
		return []string{built("../test/workloads/deep.c", append(compiler, "-fomit-frame-pointer", "-pthread")...), mode}
	}
	for _, w := range []struct {
		name    string
		command []string
		least   int64   // stacks
		joined  float64 // the share of them, at least, whose outer frames are remembered
	}{
		{"frame pointers", []string{reasons, "burn"}, 200, 0.5},
		{"kernel", []string{reasons, "kernel"}, 200, 0.5},
		{"stacks", []string{reasons, "stacks"}, 200, 0.5},
		{"deep", []string{reasons, "deep"}, 200, 0.5},
		{"code in memory", []string{reasons, "jit"}, 200, 0},
		{"code in a file", []string{reasons, "memfd"}, 200, 0.5},
		{"forks", []string{reasons, "forks"}, 200, 0},
		{"gcc -O2", frames("-O2"), 200, 0.5},
		{"gcc -O3 -static", frames("-O3", "-static"), 200, 0.5},
		{"clang -O3", deep("chain", "clang-19", "-O3"), 200, 0.5},
		{"musl", deep("chain", "musl-gcc", "-O2", "-static"), 200, 0.5},
		{"threads", deep("threads", "gcc", "-O2"), 200, 0.5},
		{"vdso", deep("clocks", "gcc", "-O2"), 200, 0.5},
		{"system calls", deep("syscalls", "gcc", "-O2"), 200, 0.5},
		{"exceptions", []string{built("../test/workloads/throws.cpp", "g++", "-O2", "-fomit-frame-pointer")}, 200, 0.5},
		{"xz", []string{"sh", "-c", "exec xz -9 </dev/zero >/dev/null"}, 200, 0.5},
		// Without site: what that imports recurses deeper than a copy.
		{"python3", []string{"python3", "-I", "-S", "-c", "def f(n):\n return sum(map(lambda x: x*x, range(n)))\nwhile True: f(1000)"}, 200, 0.5},
		{"changing depth", []string{"python3", "-I", "-S", "-c", `
class A:
    def __init__(self, n): self.n = n
    def __neg__(self): return -A(self.n - 1) if self.n else sum(map(lambda x: x*x, range(200)))
s = 1
while True:
    s = s * 1103515245 + 12345 & 0x7fffffff
    -A(s >> 16 & 15)`}, 200, 0.5},
		{"go", []string{built("../test/workloads/gosplit", "go", "build"), "60"}, 200, 0.5},
	} {
		t.Run(w.name, func(t *testing.T) {
			d := time.Second
			if long() {
				d = 20 * time.Second
			}
			var deepest, differ, beyond int
			var compared atomic.Int64
			ends := make(map[bpf.Reason]int)
			c := Config{
				FrequencyHz: 997, Target: Target{PIDs: []int{start(t, w.command[0], w.command[1:]...)}, Children: true},
				CopyBytes: 16 << 20,
				Compare: func(c *collect.Comparison) {
					compared.Add(1)
					deepest = max(deepest, len(c.InBPF))
					ends[c.ReasonInBPF]++
					if c.Equal() {
						return
					}
					// A copy is of one stack. Go's run on others now and then, and a walk from there leads out of it.
					if w.name == "go" && c.ReasonInGo == bpf.ReasonStackUnreadable && slices.Equal(c.InGo, c.InBPF[:min(len(c.InBPF), len(c.InGo))]) {
						beyond++
						return
					}
					if differ++; differ <= 5 {
						t.Errorf("BPF: %v, %s\nGo:  %v, %s", hex(c.InBPF), c.ReasonInBPF, hex(c.InGo), c.ReasonInGo)
					}
				},
			}
			s := sampleWhile(t, c, func(*Profiler) {
				time.Sleep(d)
				for end := time.Now().Add(time.Minute); compared.Load() < w.least && time.Now().Before(end); {
					time.Sleep(50 * time.Millisecond) // on a busy machine
				}
			})
			s.conserved(t)
			user := s.stats.BPF.User
			t.Logf("%d of %d stacks compared, %d differ, %d as far as the copy goes; up to %d frames; ends: %v; %d were joined to remembered ones, %d walked in Go alone",
				compared.Load(), s.stats.Exported, differ, beyond, deepest, ends, user.Joined, user.Copied)
			if float64(user.Joined) < w.joined*float64(compared.Load()) {
				t.Errorf("the outer frames of %d stacks were remembered", user.Joined)
			}
			// Every sample is accounted for. A process is not known to whom the kernel dropped the record of it, as it does while others start and end all
			// the time: that is told, and then those few that the programs walked by the list of its parent cannot be walked a second time.
			// Nor is there a copy where there was no stack any more, of a process that was ending: its reason is in the profile.
			n, dropped, gone := compared.Load(), s.stats.Table.RecordsLost, int64(0)
			if w.name == "forks" {
				gone = max(0, int64(s.incomplete()[bpf.ReasonStackUnreadable.String()])-int64(ends[bpf.ReasonStackUnreadable]))
			}
			missing := int64(s.stats.Exported) - n - int64(user.Copied) - int64(user.None)
			missing -= min(max(0, missing), gone)
			if missing > 0 && dropped > 0 {
				t.Logf("%d of processes that are not known: the kernel dropped %d records", missing, dropped)
			}
			if n < w.least || beyond > int(n/50) || missing < 0 || missing > 0 && dropped == 0 || missing > n/10 || gone > n/50 {
				t.Errorf("%d stacks were compared, %d have none, %d are missing beside those that were gone; incomplete ones: %v; the kernel dropped %d records",
					n, user.None, missing, s.incomplete(), dropped)
			}
		})
	}
}

// Code that was made at run time is left by the frame pointer, whatever it lies in: anonymous memory, a file without a name, or with one.
func TestCodeMadeAtRunTime(t *testing.T) {
	program := buildReasons(t)
	file := filepath.Join("/dev/shm", fmt.Sprint("pilotlight-test-", os.Getpid()))
	t.Cleanup(func() { _ = os.Remove(file) })
	for _, args := range [][]string{{"jit"}, {"memfd"}, {"nonelf", file}} {
		t.Run(args[0], func(t *testing.T) {
			c := Config{FrequencyHz: 997, Target: Target{PIDs: []int{start(t, program, args...)}}}
			s := sampleWhile(t, c, enough(t, 0))
			s.conserved(t)
			var whole, samples uint64
			for _, p := range s.profiles {
				for i := range p.Samples {
					sample := &p.Samples[i]
					samples += uint64(sample.Count)
					// The two functions, which nothing names, and their caller.
					if l := sample.User.Locations; sample.Whole() && len(l) > 3 && l[1].Unnamed != "" && l[2].Lines[0].Function.Name == "run" {
						whole += uint64(sample.Count)
					}
				}
			}
			t.Logf("%d of %d stacks lead through the code to the root", whole, samples)
			if samples < 300 || whole < samples*9/10 {
				t.Errorf("%d of %d stacks lead through the code to the root: %v", whole, samples, s.incomplete())
			}
		})
	}
}

// Of processes that are named, the tables are there before the first sample.
func TestPrepared(t *testing.T) {
	pid := start(t, buildReasons(t), "burn")
	maps := fmt.Sprintf("/proc/%d/maps", pid)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(maps); err != nil || time.Now().After(end) {
			t.Fatalf("no C library was mapped: %v", err)
		} else if strings.Contains(string(text), "/libc.so") {
			break
		}
	}
	var publisher *publish.Publisher
	s := sampleWhile(t, Config{FrequencyHz: 1, Target: Target{PIDs: []int{pid}}}, func(p *Profiler) { publisher = p.publisher })
	t.Logf("%d tables were compiled, %d samples taken", publisher.Stats.Compiled, s.stats.BPF.Taken)
	if publisher.Stats.Compiled < 4 { // the program, libc, the loader and the vdso
		t.Errorf("%d tables were compiled", publisher.Stats.Compiled)
	}
}

// mapCount lets processes have so many mappings until the test ends.
func mapCount(t *testing.T, most int) {
	t.Helper()
	const setting = "/proc/sys/vm/max_map_count"
	text, err := os.ReadFile(setting)
	if err != nil {
		t.Fatal(err)
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if before >= most {
		return
	}
	if err := os.WriteFile(setting, strconv.AppendInt(nil, int64(most), 10), 0); err != nil {
		t.Fatalf("let processes have %d mappings: %v", most, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(setting, text, 0); err != nil {
			t.Error(err)
		}
	})
}

// A process with as many executable mappings as are kept, which are published all, has whole stacks.
func TestManyMappings(t *testing.T) {
	const mappings = 65528 // with those of its program, its libraries and the vdso at most as many as are kept
	program := buildReasons(t, fmt.Sprintf("-DCROWD=%d", mappings))
	mapCount(t, 2*mappings+1000) // each has a gap behind it, a mapping of its own
	pid := start(t, program, "crowd")
	total := 0
	for total < 2*mappings {
		time.Sleep(50 * time.Millisecond)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			t.Fatal(err)
		}
		total = bytes.Count(text, []byte("\n"))
	}
	var publisher *publish.Publisher
	c := Config{FrequencyHz: 997, Target: Target{PIDs: []int{pid}}}
	s := sampleWhile(t, c, func(p *Profiler) {
		publisher = p.publisher
		waitFor(t, p, func(c *bpf.Counters) bool { return c.Taken >= 4000 })
	})
	s.conserved(t)
	var visits, whole uint64
	for _, p := range s.profiles {
		for i := range p.Samples {
			sample := &p.Samples[i]
			if !calls(sample.User, "visit", "burn") {
				continue
			}
			visits += uint64(sample.Count)
			if sample.Whole() {
				whole += uint64(sample.Count)
			}
		}
	}
	t.Logf("%d of %d samples from %d executable mappings, of %d, are whole; %d stacks were copied; %d bytes of maps; %+v",
		whole, visits, mappings, total, s.stats.BPF.User.Copied, s.stats.MapBytes, publisher.Stats)
	if visits < 300 || whole < visits {
		t.Errorf("%d of %d samples from the mappings are whole: %v", whole, visits, s.incomplete())
	}
	// Whose code is published is not copied: what is left of them are from before, when there was another mapping with each sample.
	if copied := s.stats.BPF.User.Copied; copied > s.stats.Exported-visits+visits/10 {
		t.Errorf("%d of %d stacks were copied", copied, s.stats.Exported)
	}
	if publisher.Stats.ArenaBytes < mappings*uint64(unsafe.Sizeof(bpf.CodeRange{})) {
		t.Errorf("%d bytes of the arena are in use: not %d mappings", publisher.Stats.ArenaBytes, mappings)
	}
}

// calls says whether one function calls the other in a stack.
func calls(s *profile.Stack, caller, callee string) bool {
	if s == nil {
		return false
	}
	for i, l := range s.Locations[:max(1, len(s.Locations))-1] {
		if l.Lines[0].Function.Name == callee && s.Locations[i+1].Lines[0].Function.Name == caller {
			return true
		}
	}
	return false
}

func hex(frames []bpf.Frame) (text []string) {
	for _, f := range frames {
		text = append(text, fmt.Sprintf("%#x", uint64(f)))
	}
	return text
}
