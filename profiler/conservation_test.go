package profiler

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// buildReasons compiles testdata/reasons.c, and what more gcc is given for the same program.
func buildReasons(t *testing.T, more ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "reasons")
	out, err := exec.Command("gcc", append([]string{"-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-Wall", "-Wextra", "-Werror",
		"-o", program, "testdata/reasons.c"}, more...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("compile reasons.c: %v\n%s", err, out)
	}
	return program
}

// start runs a workload that dies with the test.
func start(t *testing.T, program string, args ...string) int {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// long says that the lengths of an issue are wanted, not those of an everyday run.
func long() bool { return os.Getenv("PILOTLIGHT_LONG") != "" }

// sampled is what a finished run has to show.
type sampled struct {
	stats    collect.Stats
	runs     uint64 // the kernel's count
	foreign  uint64 // records in the ring that the test put there
	profiles []*profile.Profile
}

// sampleFor profiles for a time, stops, and takes all counts.
func sampleFor(t *testing.T, c Config, d time.Duration) sampled {
	t.Helper()
	return sampleWhile(t, c, func(*Profiler) { time.Sleep(d) })
}

// sampleWhile profiles while work runs.
func sampleWhile(t *testing.T, c Config, work func(*Profiler)) sampled {
	t.Helper()
	statistics, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatalf("BPF statistics (these tests need root): %v", err)
	}
	defer statistics.Close()
	var s sampled
	sink := c.Sink
	c.Sink = func(p *profile.Profile) {
		s.profiles = append(s.profiles, p)
		if sink != nil {
			sink(p)
		}
	}
	if c.Interval == 0 {
		c.Interval = math.MaxInt64
	}
	p, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	work(p)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if s.stats, err = p.Stats(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.runs, err = p.sampler.RunCount(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sampled) incomplete() map[string]uint64 {
	reasons := make(map[string]uint64)
	for _, p := range s.profiles {
		for _, r := range p.Completeness().Reasons {
			reasons[r.Reason] += r.Count
		}
	}
	return reasons
}

// conserved checks every equation of the account. All terms are counted in
// different places: by the kernel, by the BPF program, by the reader of the ring,
// by the windows, and in the samples of the profiles.
func (s *sampled) conserved(t *testing.T) {
	t.Helper()
	b := &s.stats.BPF
	equal := func(what string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d\n%+v", what, got, want, s.stats)
		}
	}
	equal("runs by the kernel's count = seen", s.runs, b.Seen)
	equal("seen = filtered + idle + taken", b.Seen, b.FilteredTarget+b.FilteredCgroup+b.FilteredSelf+b.FilteredNamespace+b.Idle+b.Taken)
	equal("taken = submitted + lost to a full ring", b.Taken, b.Submitted+b.LostRingFull)
	equal("submitted = read + bad records", b.Submitted+s.foreign, s.stats.Read+s.stats.BadRecords)
	equal("read = filtered + relabeled + exported", s.stats.Read, s.stats.Filtered+s.stats.Relabeled+s.stats.Exported)
	for side, c := range map[string]bpf.StackCounters{"user": b.User, "kernel": b.Kernel} {
		equal("taken = what became of the "+side+" stacks", b.Taken, c.Fresh+c.Known+c.None+c.Unreadable+c.MapFull+c.Copied)
	}
	var exported, counted, lost uint64
	for _, p := range s.profiles {
		exported += p.Account.Exported
		for i := range p.Samples {
			counted += uint64(p.Samples[i].Count)
		}
		for _, l := range p.Account.Lost {
			lost += l.Count
		}
	}
	equal("exported = in the profiles' accounts", s.stats.Exported, exported)
	equal("exported = in the profiles' samples", s.stats.Exported, counted)
	equal("lost = in the profiles' accounts", b.LostRingFull+s.stats.BadRecords, lost)
	t.Logf("fired about %d, seen %d, taken %d, exported %d, lost %d", s.stats.Fired, b.Seen, b.Taken, exported, lost)
}

func TestConservation(t *testing.T) {
	program := buildReasons(t)
	span := 5 * time.Second
	if long() {
		span = 30 * time.Second
	}
	s := sampleFor(t, Config{FrequencyHz: 997, Interval: time.Second,
		Target: Target{PIDs: []int{start(t, program, "burn"), start(t, program, "stacks")}}}, span)
	s.conserved(t)
	if s.stats.BPF.LostRingFull != 0 {
		t.Errorf("%d samples lost for no reason", s.stats.BPF.LostRingFull)
	}
	// The kernel skips a program only while a task is inside bpf(), which these are not; what else
	// is missing are ticks that the machine itself missed. The estimate cannot be below what ran.
	if slack := uint64(4); s.stats.Fired+slack < s.stats.BPF.Seen {
		t.Errorf("fired about %d, but %d were seen", s.stats.Fired, s.stats.BPF.Seen)
	}
}

// Processes that die under the sampler: all their samples are there, by descendants.
func TestConservationDyingProcesses(t *testing.T) {
	program := buildReasons(t)
	s := sampleFor(t, Config{FrequencyHz: 997, Target: Target{PIDs: []int{start(t, program, "forks")}, Children: true}}, 3*time.Second)
	s.conserved(t)
	var pids []int
	for _, p := range s.profiles {
		for _, sample := range p.Samples {
			if !slices.Contains(pids, sample.Labels.PID) {
				pids = append(pids, sample.Labels.PID)
			}
		}
	}
	if s.stats.BPF.TargetAdded < 100 || len(pids) < 100 {
		t.Errorf("%d descendants followed, %d sampled", s.stats.BPF.TargetAdded, len(pids))
	}
	if unknown := s.incomplete()[bpf.ReasonProcessUnknown.String()]; unknown > 0 {
		t.Errorf("%d samples of processes that nothing is known of", unknown)
	}
}
