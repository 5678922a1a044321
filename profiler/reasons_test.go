package profiler

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// A provocation brings a reason about, on real processes.
type provocation struct {
	run func(t *testing.T, program string) sampled
	// least is the share of samples that must show the reason, 0: some.
	least float64
}

var provocations = map[bpf.Reason]provocation{
	bpf.ReasonRingFull:         {fullRing, 0},
	bpf.ReasonStackEvicted:     {smallStackMap, 0},
	bpf.ReasonUserUnreadable:   {noCallChains("burn"), 0.2},
	bpf.ReasonKernelUnreadable: {noCallChains("kernel"), 0.2},
	bpf.ReasonMaxDepth:         {workload("deep"), 0.9},
	bpf.ReasonUnmappedPC:       {workload("astray"), 0.9},
	bpf.ReasonFileUnreadable:   {workload("nonelf"), 0.9},
	bpf.ReasonNoSymbol:         {workload("jit"), 0.9},
}

// Each reason shows where a user looks for it, and nothing is missing from the account meanwhile.
func TestReasons(t *testing.T) {
	program := buildReasons(t)
	for r, p := range provocations {
		t.Run(r.String(), func(t *testing.T) {
			s := p.run(t, program)
			s.conserved(t)
			shown, of := s.shown(r), s.stats.Exported
			t.Logf("%d of %d samples", shown, of)
			if shown == 0 || of < 20 || float64(shown) < p.least*float64(of) {
				t.Errorf("%d of %d samples show %s: %v", shown, of, r, s.incomplete())
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		s := workload("burn")(t, program)
		for reason, n := range s.incomplete() {
			// libc's caller of main is a local function: without debug files it has no name.
			if reason != bpf.ReasonNoSymbol.String() && n > s.stats.Exported/20 {
				t.Errorf("%d of %d samples show %s", n, s.stats.Exported, reason)
			}
		}
	})
}

// shown is how often the profiles give the reason: for samples that were lost, or for what they lack.
func (s *sampled) shown(r bpf.Reason) uint64 {
	n := s.incomplete()[r.String()]
	for _, p := range s.profiles {
		for _, l := range p.Account.Lost {
			if l.Reason == r.String() {
				n += l.Count
			}
		}
	}
	return n
}

// workload samples a mode of reasons.c that needs nothing more.
func workload(mode string) func(*testing.T, string) sampled {
	return func(t *testing.T, program string) sampled {
		file := filepath.Join(t.TempDir(), "code")
		args := []string{mode}
		if mode == "nonelf" {
			args = append(args, file)
		}
		return sampleFor(t, Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, args...)}}}, time.Second)
	}
}

// heldUp is a reader that stands still five sixths of the time.
func heldUp(c Config) Config {
	c.Interval = 100 * time.Millisecond
	c.Sink = func(*profile.Profile) { time.Sleep(500 * time.Millisecond) }
	return c
}

// A ring of a few records overflows while the reader is held up.
func fullRing(t *testing.T, program string) sampled {
	return sampleFor(t, heldUp(Config{FrequencyHz: 4999, RingBytes: 4096,
		Target: Target{PIDs: []int{start(t, program, "burn")}}}), 1200*time.Millisecond)
}

// A table of 64 stacks cannot hold thousands: samples stay, stacks are lost and counted.
func smallStackMap(t *testing.T, program string) sampled {
	s := sampleFor(t, Config{FrequencyHz: 4999, StackEntries: 64,
		Target: Target{PIDs: []int{start(t, program, "stacks")}}}, time.Second)
	if shown, lost := s.shown(bpf.ReasonStackEvicted), s.stats.Naming.StacksLost; shown > lost {
		t.Errorf("%d samples without a stack, %d stacks lost", shown, lost)
	}
	return s
}

// noCallChains lets the sampler's program run from more events, for which the kernel walks no stack.
func noCallChains(mode string) func(*testing.T, string) sampled {
	return func(t *testing.T, program string) sampled {
		c := Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, mode)}}}
		s := sampleWhile(t, c, func(*Profiler) {
			onSample := ownProgram(t, "on_sample")
			cpus, err := perfevent.OnlineCPUs()
			if err != nil {
				t.Fatal(err)
			}
			for _, cpu := range cpus {
				e, err := perfevent.Open(unix.PerfEventAttr{
					Type:             unix.PERF_TYPE_SOFTWARE,
					Config:           unix.PERF_COUNT_SW_CPU_CLOCK,
					Sample:           499,
					Sample_type:      unix.PERF_SAMPLE_CALLCHAIN,
					Sample_max_stack: 8,
					Bits:             unix.PerfBitFreq | unix.PerfBitExcludeCallchainKernel | unix.PerfBitExcludeCallchainUser,
				}, cpu)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				if err := e.SetBPF(onSample.FD()); err != nil {
					t.Fatal(err)
				}
				if err := e.Enable(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		})
		for r, counted := range map[bpf.Reason]uint64{
			bpf.ReasonUserUnreadable:   s.stats.BPF.User.Unreadable,
			bpf.ReasonKernelUnreadable: s.stats.BPF.Kernel.Unreadable,
		} {
			if shown := s.shown(r); shown != counted {
				t.Errorf("%s: %d samples show it, %d were counted", r, shown, counted)
			}
		}
		return s
	}
}

// ownProgram opens what the running sampler of this process holds.
func ownProgram(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	for _, id := range ownIDs(t) {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := p.Info(); err == nil && info.Name == name {
			t.Cleanup(func() { _ = p.Close() })
			return p
		}
		_ = p.Close()
	}
	t.Fatalf("no program %s is open", name)
	return nil
}

// ownIDs are the ids of BPF programs behind this process's descriptors.
func ownIDs(t *testing.T) (ids []uint32) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the directory's own, closed by now
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "prog_id:"); ok {
				id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids
}
