// SPDX-License-Identifier: Apache-2.0

//go:build vm

// These tests sample the whole host, and change it. They run in machines of their own (test/vm) alone.

package test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
)

// hostHz is twice the default and a bit: these machines are slow, and taking a sample costs them a good part of a millisecond.
const hostHz = 199

// A window is a stretch of time in which the whole host was sampled, and what the kernel says of it.
type window struct {
	profile *profile.Profile
	seconds float64
	// busy are CPU seconds by CPU.
	busy []float64
	// ticks are runs of the program a second, by CPU, while the workloads ran undisturbed.
	ticks []float64
	// counted is what the sampler counted, by CPU.
	counted []bpf.Counters
	// burned are CPU seconds by process of the workloads.
	burned map[int]float64
}

// observe collects a profile of the whole host through a running agent. The workloads, which are stopped before and
// after, run for some seconds of its span, so that all that they burn is in it.
func observe(t *testing.T, a *agent, seconds int, loads ...*workload) window {
	t.Helper()
	return observeBy(t, cpuTimes, a, seconds, loads...)
}

// observeBy is observe with a clock of the CPUs' busy seconds other than /proc/stat.
func observeBy(t *testing.T, clock func(testing.TB) []float64, a *agent, seconds int, loads ...*workload) window {
	t.Helper()
	type collected struct {
		p   *profile.Profile
		err error
	}
	done := make(chan collected, 1)
	a.metrics(t) // once it answers, it has done with what was before
	go func() {
		// Stopping hundreds of processes takes seconds on a slow machine, and must be within the profile.
		p, err := a.collect(t, fmt.Sprintf("seconds=%d", 3*seconds+2))
		done <- collected{p, err}
	}()
	time.Sleep(500 * time.Millisecond)
	a.metrics(t) // asked later, answered later: the profile has begun
	w := window{burned: map[int]float64{}}
	counters := countersMap(t)
	defer counters.Close()
	burned := processTimes(t, loads)
	busy, counted, began := clock(t), countersByCPU(t, counters), time.Now()
	signalAll(t, syscall.SIGCONT, loads)
	// Signals to hundreds of processes keep interrupts off, and of the ticks due then the kernel gives one: ticks are counted between them.
	first, ticksBegan := countersByCPU(t, counters), time.Now()
	time.Sleep(time.Duration(seconds) * time.Second)
	last, ticking := countersByCPU(t, counters), time.Since(ticksBegan)
	w.ticks = ticksOf(first, last, ticking)
	signalAll(t, syscall.SIGSTOP, loads)
	w.counted, w.seconds = countersByCPU(t, counters), time.Since(began).Seconds()
	for cpu, after := range clock(t) {
		w.busy = append(w.busy, after-busy[cpu])
	}
	for cpu := range w.counted {
		c := &w.counted[cpu]
		c.Seen, c.Taken, c.Idle = c.Seen-counted[cpu].Seen, c.Taken-counted[cpu].Taken, c.Idle-counted[cpu].Idle
	}
	c := <-done
	if c.err != nil {
		t.Fatal(c.err)
	}
	w.profile = c.p
	for pid, after := range processTimes(t, loads) {
		w.burned[pid] = after - burned[pid]
	}
	return w
}

// ticksOf are runs of the program a second, by CPU.
func ticksOf(first, last []bpf.Counters, length time.Duration) (hz []float64) {
	for cpu := range last {
		hz = append(hz, float64(last[cpu].Seen-first[cpu].Seen)/length.Seconds())
	}
	return hz
}

// startStopped starts processes in a group of their own, and stops them.
func startStopped(t *testing.T, cmd *exec.Cmd) *workload {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	w := startCommand(t, cmd)
	signalAll(t, syscall.SIGSTOP, []*workload{w})
	t.Cleanup(func() { signalAll(t, syscall.SIGCONT, []*workload{w}) })
	return w
}

// startLoad starts workloads/load.c, stopped.
func startLoad(t *testing.T, args ...string) *workload {
	t.Helper()
	return startStopped(t, exec.Command(build(t, "load"), args...))
}

func signalAll(t testing.TB, s syscall.Signal, loads []*workload) {
	t.Helper()
	for _, l := range loads {
		if err := syscall.Kill(-l.pid(), s); err != nil {
			t.Fatalf("%v to process group %d: %v", s, l.pid(), err)
		}
	}
}

// userHz is the unit of times under /proc, the same on all architectures.
const userHz = 100

// cpuTimes reads what each CPU worked, in seconds:
//
//	cpu0 USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST GUESTNICE
func cpuTimes(t testing.TB) (seconds []float64) {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(stat)) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], "cpu") || f[0] == "cpu" {
			continue
		}
		var ticks int
		for _, i := range []int{1, 2, 3, 6, 7} {
			n, err := strconv.Atoi(f[i])
			if err != nil {
				t.Fatal(err)
			}
			ticks += n
		}
		seconds = append(seconds, float64(ticks)/userHz)
	}
	return seconds
}

// processTimes reads utime and stime of every process in the workloads' groups, in seconds, from lines such as
//
//	7 (a name) S PARENT GROUP 7 0 -1 4194560 90 0 0 0 UTIME STIME ...
func processTimes(t testing.TB, loads []*workload) map[int]float64 {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[int]float64)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		stat := string(text)
		pid, err1 := strconv.Atoi(strings.Split(path, "/")[2])
		f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		group, err2 := strconv.Atoi(f[2])
		user, err3 := strconv.Atoi(f[11])
		system, err4 := strconv.Atoi(f[12])
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatalf("%s: %q: %v", path, stat, err)
		}
		if slices.ContainsFunc(loads, func(l *workload) bool { return l.pid() == group }) {
			times[pid] = float64(user+system) / userHz
		}
	}
	return times
}

// countersMap finds the running sampler's counters, as bpftool would.
func countersMap(t testing.TB) *ebpf.Map {
	t.Helper()
	var id ebpf.MapID
	for {
		next, err := ebpf.MapGetNextID(id)
		if err != nil {
			t.Fatalf("no map of counters: %v", err)
		}
		id = next
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue // it is gone
		}
		if info, err := m.Info(); err == nil && info.Name == "counters" {
			return m
		}
		_ = m.Close()
	}
}

func countersByCPU(t testing.TB, m *ebpf.Map) (counters []bpf.Counters) {
	t.Helper()
	if err := m.Lookup(uint32(0), &counters); err != nil {
		t.Fatal(err)
	}
	return counters
}

// fitsTime says whether a count of samples fits CPU seconds within a share of them or four standard deviations,
// and what the kernel's own unit of time leaves open.
func fitsTime(samples uint64, seconds, share float64) bool {
	const tick = 1.0 / userHz * hostHz
	want := seconds * hostHz
	// A tick is missing at the beginning and one at the end.
	return math.Abs(float64(samples)-want) <= max(share*want, 4*math.Sqrt(want+2*tick))+2*tick
}

// inTime says that a CPU's runs a second are those of the frequency.
func inTime(hz float64) bool { return math.Abs(hz-hostHz) <= 0.02*hostHz }

// checkCPUs compares the runs of the program with the frequency, and each CPU's samples with its busy time.
func (w window) checkCPUs(t *testing.T) {
	t.Helper()
	for cpu, hz := range w.ticks {
		if !inTime(hz) {
			t.Errorf("CPU %d: %.1f runs a second at %d Hz", cpu, hz, hostHz)
		}
	}
	for cpu, c := range w.counted {
		if !fitsTime(c.Taken, w.busy[cpu], 0.02) {
			t.Errorf("CPU %d: %d samples where %.2f busy seconds give %.0f", cpu, c.Taken, w.busy[cpu], w.busy[cpu]*hostHz)
		}
		t.Logf("CPU %d: %d samples in %.2f busy seconds (%.1f %%), %d runs in %.2f s (%.1f %%)", cpu, c.Taken, w.busy[cpu],
			100*float64(c.Taken)/(w.busy[cpu]*hostHz), c.Seen, w.seconds, 100*float64(c.Seen)/(w.seconds*hostHz))
		// The counters are read while a sample may be half counted.
		if diff := int64(c.Seen) - int64(c.Taken+c.Idle); diff < -1 || diff > 1 {
			t.Errorf("CPU %d: %d runs, but %d samples and %d idle", cpu, c.Seen, c.Taken, c.Idle)
		}
	}
}

// checkProcesses compares the samples of every process that burned something with what the kernel says it burned.
func (w window) checkProcesses(t *testing.T) {
	t.Helper()
	samples := map[int]uint64{}
	for _, s := range w.profile.Sample {
		samples[labelPID(s)] += uint64(s.Value[0])
	}
	var compared, off int
	for pid, seconds := range w.burned {
		compared++
		if !fitsTime(samples[pid], seconds, 0.03) {
			off++
			t.Logf("process %d: %d samples where %.2f CPU seconds give %.0f", pid, samples[pid], seconds, seconds*hostHz)
		}
	}
	var all, burned float64
	for pid, seconds := range w.burned {
		all, burned = all+float64(samples[pid]), burned+seconds
	}
	// /proc cuts each process's time down to ticks, by half of one on average.
	want, cut := burned*hostHz, float64(compared)*hostHz/userHz/2
	if slack := max(0.03*want, 4*math.Sqrt(want+cut)); all < want-slack || all > want+slack+cut {
		t.Errorf("all processes: %.0f samples where %.2f CPU seconds give %.0f", all, burned, want)
	}
	t.Logf("%d processes compared with /proc/PID/stat: %.0f samples in %.2f CPU seconds (%.1f %%)", compared, all, burned, 100*all/(burned*hostHz))
	if off > 0 {
		t.Errorf("%d of %d processes have other numbers of samples than /proc/PID/stat gives", off, compared)
	}
}

// pin binds a process's first thread to a CPU.
func pin(t testing.TB, pid, cpu int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(pid, &set); err != nil {
		t.Fatal(err)
	}
}

// One agent samples the whole host through all that can happen to it.
func TestVMWholeHost(t *testing.T) {
	// Half a minute's ring: what 500 processes bring takes a CPU of 250 MIPS seconds.
	a := startAgent(t, "-F", strconv.Itoa(hostHz), "--ring-bytes", strconv.Itoa(2<<20))
	l := startLoad(t, "1", "1", "20")
	for range 5 { // until it has read what runs here, which takes its time on a slow machine
		if share, _ := namedShare(observe(t, a, 2, l).profile); share > 0.99 {
			break
		}
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *agent)
	}{
		{"Idle", testIdle},
		{"Busy", testBusy},
		{"ManyProcesses", testManyProcesses},
		{"Stopped", testStopped},
		{"ClockSteps", testClockSteps},
		{"Namespaces", testNamespaces},
		{"Softirq", testSoftirq},
		{"Hotplug", testHotplug},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, a) })
	}
	// What went through it all is accounted for.
	values := a.metrics(t)
	taken, exported := values["pilotlight_samples_taken_total"], values["pilotlight_samples_exported_total"]
	var lost float64
	for name, n := range values {
		if strings.HasPrefix(name, lostPrefix) {
			lost += n
		}
	}
	t.Logf("%.0f samples taken, %.0f exported by the last interval, %.0f lost", taken, exported, lost)
	if exported == 0 || exported+lost > taken || lost > 0 {
		t.Errorf("%.0f samples taken, %.0f exported, %.0f lost", taken, exported, lost)
	}
}

// undisturbed takes windows until in one no CPU's ticks are missing. A CPU of the emulator that sleeps is now and then woken late where the host is
// busy, and of the ticks in between the kernel gives one. A program that does not run for every tick has no such window.
func undisturbed(take func() window) (w window) {
	for range 5 {
		w = take()
		if !slices.ContainsFunc(w.ticks, func(hz float64) bool { return !inTime(hz) }) {
			break
		}
	}
	return w
}

// An idle host has nothing to show but those who look.
func testIdle(t *testing.T, a *agent) {
	w := undisturbed(func() window { return observe(t, a, 5) })
	w.checkCPUs(t)
	for cpu, c := range w.counted {
		if share := float64(c.Taken) / float64(c.Seen); share > 0.1 {
			t.Errorf("CPU %d is busy for %.1f %% of the time\n%s", cpu, 100*share, hottest(w.profile))
		}
	}
}

// hottest are the functions that most samples of a profile passed through, by process.
func hottest(p *profile.Profile) string {
	samples := make(map[string]int64)
	for _, s := range p.Sample {
		seen := make(map[string]bool)
		for _, f := range frames(s) {
			if key := label(s, "comm") + " " + f.name; !seen[key] {
				seen[key] = true
				samples[key] += s.Value[0]
			}
		}
	}
	var lines []string
	for _, key := range slices.SortedFunc(maps.Keys(samples), func(a, b string) int { return cmp.Compare(samples[b], samples[a]) }) {
		lines = append(lines, fmt.Sprintf("%6d %s", samples[key], key))
	}
	return strings.Join(lines[:min(len(lines), 40)], "\n")
}

// One CPU is busy all the time, then the other for a third of it. Not both at once: the emulator runs its CPUs in turns that
// end with the next timer, so that wake-ups and samples on one CPU coincide while another is busy.
func testBusy(t *testing.T, a *agent) {
	for cpu, percent := range []string{"100", "33"} {
		l := startLoad(t, "1", "1", percent)
		pin(t, l.pid(), cpu)
		w := undisturbed(func() window { return observe(t, a, 5, l) })
		w.checkCPUs(t)
		w.checkProcesses(t)
		// A CPU that is always busy is sampled at every tick of the clock: no chance is in it.
		if taken := float64(w.counted[cpu].Taken); percent == "100" && math.Abs(taken-w.seconds*hostHz) > 0.02*w.seconds*hostHz {
			t.Errorf("a busy CPU: %.0f samples in %.2f s", taken, w.seconds)
		}
		mine := count(w.profile, ofProcess(l.pid()))
		burning := count(w.profile, func(s *profile.Sample) bool { return ofProcess(l.pid())(s) && innermost(exactly("burn_load"))(s) })
		if mine < hostHz || float64(burning) < 0.9*float64(mine) {
			t.Errorf("at %s %%: %d samples, %d of them in burn_load", percent, mine, burning)
		}
	}
}

// Five hundred processes with two thousand threads share the CPUs.
func testManyProcesses(t *testing.T, a *agent) {
	l := startLoad(t, "500", "4", "0.02")
	w := undisturbed(func() window { return observe(t, a, 5, l) })
	w.checkCPUs(t)
	w.checkProcesses(t)
	if len(w.burned) != 500 {
		t.Errorf("%d processes", len(w.burned))
	}
	checkNamed(t, w.profile)
}

// A stopped process costs nothing and shows nothing; it goes on where it was.
func testStopped(t *testing.T, a *agent) {
	l := startLoad(t, "1", "1", "100")
	for _, stopped := range []bool{false, true, false} {
		loads := []*workload{l}
		if stopped {
			loads = nil
		}
		w := observe(t, a, 2, loads...)
		w.checkProcesses(t)
		if n := count(w.profile, ofProcess(l.pid())); (n == 0) != stopped {
			t.Errorf("stopped %t: %d samples", stopped, n)
		}
	}
}

func ofProcess(pid int) func(*profile.Sample) bool {
	return func(s *profile.Sample) bool { return labelPID(s) == pid }
}

// The wall clock may be set while a profile is made: its length and its samples do not change.
func testClockSteps(t *testing.T, a *agent) {
	l := start(t, build(t, "load"), "1", "1", "100")
	counters := countersMap(t)
	defer counters.Close()
	for _, step := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		var p *profile.Profile
		stepped := false
		undisturbed(func() window {
			if stepped { // taken again: the clock is set back first
				if err := stepClock(-step); err != nil {
					t.Fatal(err)
				}
			}
			stepped = true
			done := make(chan error, 1)
			first, began := countersByCPU(t, counters), time.Now()
			go func() {
				time.Sleep(time.Second)
				done <- stepClock(step)
			}()
			var err error
			p, err = a.collect(t, "seconds=3")
			if err = errors.Join(err, <-done); err != nil {
				t.Fatal(err)
			}
			return window{ticks: ticksOf(first, countersByCPU(t, counters), time.Since(began))}
		})
		length := time.Duration(p.DurationNanos)
		if n := count(p, ofProcess(l.pid())); length < 3*time.Second || length > 5*time.Second || !fitsTime(uint64(n), length.Seconds(), 0.02) {
			t.Errorf("clock stepped by %v: a profile of %v with %d samples of a busy process", step, length, n)
		}
		if age := time.Since(time.Unix(0, p.TimeNanos)); age.Abs() > 2*time.Hour+time.Minute {
			t.Errorf("clock stepped by %v: the profile began %v ago", step, age)
		}
	}
}

func stepClock(step time.Duration) error {
	now := unix.NsecToTimeval(time.Now().Add(step).UnixNano())
	return unix.Settimeofday(&now)
}

// A CPU that goes offline and comes back is sampled again.
func testHotplug(t *testing.T, a *agent) {
	const control = "/sys/devices/system/cpu/cpu1/online"
	online := func(on string) {
		t.Helper()
		if err := os.WriteFile(control, []byte(on), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { online("1") })
	l := startLoad(t, "1", "2", "100")
	for i, busy := range []float64{2, 1, 2, 2} {
		switch i {
		case 1:
			online("0")
		case 2:
			online("1")
		case 3: // gone and back before anyone looks
			online("0")
			online("1")
		}
		if busy == 2 { // else the scheduler leaves both threads on one CPU, now and then for a second
			tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", l.pid()))
			if err != nil || len(tasks) != 2 {
				t.Fatalf("%v: %v", tasks, err)
			}
			for cpu, task := range tasks {
				tid, err := strconv.Atoi(filepath.Base(task))
				if err != nil {
					t.Fatal(err)
				}
				pin(t, tid, cpu)
			}
		}
		time.Sleep(2500 * time.Millisecond) // CPUs are looked at once a second
		w := observe(t, a, 3, l)
		n := count(w.profile, ofProcess(l.pid()))
		others := count(w.profile, func(s *profile.Sample) bool { return !ofProcess(l.pid())(s) })
		t.Logf("%.0f CPUs: %d samples in %.2f s, %d of others", busy, n, w.seconds, others)
		// What else the machine does takes from both threads; that they ran on as many CPUs as there are is what the samples are held against.
		if burned := w.burned[l.pid()]; burned < 0.6*busy*w.seconds || burned > 1.1*busy*w.seconds {
			t.Errorf("step %d, %.0f CPUs online: the load had %.2f CPU seconds in %.2f s", i, busy, burned, w.seconds)
		} else if math.Abs(float64(n)-burned*hostHz) > 0.1*burned*hostHz {
			t.Errorf("step %d, %.0f CPUs online: %d samples where %.2f CPU seconds give %.0f", i, busy, n, burned, burned*hostHz)
		}
		w.checkProcesses(t)
	}
}

// Processes in namespaces of their own are named by the host's numbers and their own files.
func testNamespaces(t *testing.T, a *agent) {
	private := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(private, 0o755); err != nil {
		t.Fatal(err)
	}
	// The program stands on a file system that only its mount namespace has.
	script := fmt.Sprintf("mount -t tmpfs private %s && cp %s %s/inside && exec %[1]s/inside 1 1 50", private, build(t, "load"), private)
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWCGROUP, Unshareflags: syscall.CLONE_NEWNS,
	}
	inside := startStopped(t, cmd)
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // the first process of a pid namespace need not heed SIGTERM
	w := observe(t, a, 3, inside)
	w.checkProcesses(t)
	mine := count(w.profile, ofProcess(inside.pid()))
	named := count(w.profile, func(s *profile.Sample) bool {
		return ofProcess(inside.pid())(s) && innermost(exactly("burn_load"))(s) && label(s, "comm") == "inside"
	})
	if mine < hostHz || float64(named) < 0.95*float64(mine) {
		t.Errorf("%d samples of the process in its own namespaces, %d named", mine, named)
	}
}

// Packets that another CPU hands over are softirq work: of an idle CPU first, and of its ksoftirqd when there are many.
func testSoftirq(t *testing.T, a *agent) {
	const steering = "/sys/class/net/lo/queues/rx-0/rps_cpus"
	if err := os.WriteFile(steering, []byte("2"), 0); err != nil { // CPU 1 takes what arrives
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(steering, []byte("0"), 0) })
	l := startStopped(t, exec.Command(build(t, "packets")))
	pin(t, l.pid(), 0)
	clock := startBusyClock(t)
	var seconds float64
	w := undisturbed(func() window {
		before := clock.idleSoftirqs(t)
		defer func() { seconds = clock.idleSoftirqs(t) - before }()
		return observeBy(t, clock.busy, a, 5, l)
	})
	w.checkCPUs(t)
	idle := count(w.profile, ofProcess(0))
	kernel := count(w.profile, func(s *profile.Sample) bool { return strings.HasPrefix(label(s, "comm"), "ksoftirqd") })
	t.Logf("%d samples of idle CPUs in softirqs, where %.2f s give %.0f; %d of ksoftirqd", idle, seconds, seconds*hostHz, kernel)
	if seconds < 0.5 || !fitsTime(uint64(idle), seconds, 0.02) || kernel == 0 {
		t.Errorf("%d samples of idle CPUs in softirqs, where %.2f s give %.0f; %d of ksoftirqd", idle, seconds, seconds*hostHz, kernel)
	}
}

// A cgroup is a target in whatever hierarchies a host has, with those below it, and without those beside it.
func TestVMCgroups(t *testing.T) {
	const v2, v1 = "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu"
	mount := func(point, fsType, data string) {
		if err := unix.Mount(fsType, point, fsType, 0, data); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func(point string) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	l, other := start(t, build(t, "load"), "1", "1", "30"), start(t, build(t, "load"), "1", "1", "30")
	check := func(t *testing.T, root string) {
		wanted := filepath.Join(root, "wanted")
		below := filepath.Join(wanted, "below")
		for _, folder := range []string{below, filepath.Join(root, "beside")} {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		move := func(folder string, pid int) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		move(filepath.Join(root, "beside"), other.pid())
		move(below, l.pid())
		r := record(t, "--cgroup", wanted, "-F", "499", "-d", "1s")
		if mine, all := count(r.profile, ofProcess(l.pid())), count(r.profile, every); mine != all || mine < 100 {
			t.Errorf("%s: %d samples of the process in it, %d in all", wanted, mine, all)
		}
		for _, pid := range []int{l.pid(), other.pid()} {
			move(root, pid)
		}
		for _, folder := range []string{below, wanted, filepath.Join(root, "beside")} {
			if err := os.Remove(folder); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("hybrid v2", func(t *testing.T) { check(t, v2) })
	t.Run("hybrid v1", func(t *testing.T) { check(t, v1) })
	t.Run("v2", func(t *testing.T) {
		unmount(v1)
		defer mount(v1, "cgroup", "cpu")
		check(t, v2)
	})
	t.Run("v1", func(t *testing.T) {
		unmount(v2)
		defer mount(v2, "cgroup2", "")
		check(t, v1)
	})
}
