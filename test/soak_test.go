// SPDX-License-Identifier: Apache-2.0

package test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/google/pprof/profile"

	"github.com/pilotlight/pilotlight/bpf"
)

// Bounds of what an agent holds while processes, mappings and files come and go under it.
const (
	// descriptorsGrowth: binaries that are new with every child stay open for 30 s, three a second; the others are the
	// events of the CPUs.
	descriptorsGrowth = 100
	// threadsMost: the collector's goroutines share a thread; file reads that block and the collector of garbage have theirs.
	threadsMost = 24
	// goroutinesGrowth are downloads that begin and end.
	goroutinesGrowth = 10
	// trackedMost is how many processes the agent may know beside those that run and those that were born within
	// trackedFor: a dead one is known for 2 s, and looked for once a second. It lets the host's processes come and go between
	// two looks.
	trackedMost = 100
	trackedFor  = 8 * time.Second
	// unreliable is the share of samples that a CPU time of a few seconds may be off beyond chance.
	unreliable = 0.02
)

// A soak runs agents, one after the other, over loads that never rest.
type soak struct {
	hz     int
	execs  int  // a second, of a program that ends at once
	fresh  int  // a second, of binaries that were never seen
	target bool // sample the loads alone, not the host
	// most is what an agent may hold of anonymous memory, growth how far the lowest of the last part of a life may be above
	// that of the first.
	most, growth int64
	// disturb is done to the machine once in every life but the short; it returns the CPU seconds that are not watched by it.
	disturb func() float64

	dir      string // the agents' data directory
	temp     string // the agents' TMPDIR
	address  string // that the first agent took and the next ones take
	burners  []*workload
	churn    *workload
	children []*workload
	births   []births // of the host, as the agent that lives told of them
	stopped  bool     // the agent was, in the profile that is checked
}

// births is a count of forks at a time.
type births struct {
	at    time.Time
	forks int
}

// TestSoak runs the agent for two minutes, or as many as PILOTLIGHT_SOAK_MINUTES says (`make soak MINUTES=10`), on
// processes, mappings and binaries that come and go; stops it, kills it and starts it again.
func TestSoak(t *testing.T) {
	length := 2 * time.Minute
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		length = 10 * time.Minute
	}
	if minutes := os.Getenv("PILOTLIGHT_SOAK_MINUTES"); minutes != "" {
		n, err := strconv.ParseFloat(minutes, 64)
		if err != nil || n <= 0 {
			t.Fatalf("PILOTLIGHT_SOAK_MINUTES=%s is no number of minutes", minutes)
		}
		length = time.Duration(n * float64(time.Minute))
	}
	// The caches are full after four minutes of mapchurn: 20 MB for two generations of stacks and names, the kernel's symbols
	// among them. Go's collector lets as much gather beside them, a download of 30 s of ever-new stacks takes 10 MB, and a stop
	// leaves what was in the rings; Go gives such memory back minutes later. A leak of 3 KiB a process is 40 MB more in the
	// long life of ten minutes.
	const most, growth = 96 << 20, 32 << 20
	s := &soak{most: most, growth: growth, hz: 499, execs: 100, fresh: 3, target: true, disturb: nothing}
	s.run(t, length)
}

// run lives three lives, and again every ten minutes: a long one that ends by kill -9, a short one that is killed while it is
// stopped, and one that ends by SIGTERM.
func (s *soak) run(t *testing.T, length time.Duration) {
	s.start(t)
	cycles := max(1, int(length/(10*time.Minute)))
	cycle := length / time.Duration(cycles)
	for range cycles {
		s.life(t, cycle*7/10, s.kill)
		s.shortLife(t, cycle*1/10)
		s.life(t, cycle*2/10, s.terminate)
		if t.Failed() {
			return
		}
	}
	for _, folder := range []string{s.dir, s.temp} {
		entries, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if folder != s.dir || e.Name() != "lock" && e.Name() != "v1" { // the history
				t.Errorf("the agents left %s behind", filepath.Join(folder, e.Name()))
			}
		}
	}
}

// start starts what burns all the time: one process for every two CPUs, so that a ring overflows in seconds whatever
// the size of the machine, and one whose mappings change.
func (s *soak) start(t *testing.T) {
	s.dir, s.temp = t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", s.temp)
	for range max(1, runtime.NumCPU()/2) {
		s.burners = append(s.burners, start(t, build(t, "split")))
	}
	s.churn = start(t, build(t, "mapchurn"))
	t.Cleanup(func() { _ = os.Remove(fmt.Sprintf("/tmp/perf-%d.map", s.churn.pid())) })
}

// startAgent starts the next agent, and the parents of short-lived processes.
func (s *soak) startAgent(t *testing.T, life time.Duration) *agent {
	t.Helper()
	seconds := strconv.Itoa(int((life + 5*time.Minute).Seconds()))
	s.children = []*workload{
		start(t, build(t, "execs"), "program", strconv.Itoa(s.execs), seconds, build(t, "exits")),
		start(t, build(t, "execs"), "fresh", strconv.Itoa(s.fresh), seconds, t.TempDir()),
	}
	args := []string{"--data-dir", s.dir, "-F", strconv.Itoa(s.hz)}
	if s.address != "" {
		args = append(args, "--listen", s.address)
	}
	if s.target {
		var pids []string
		for _, l := range s.loads() {
			pids = append(pids, strconv.Itoa(l.pid()))
		}
		args = append(args, "--children", "-p", strings.Join(pids, ","))
	}
	resume := func() {}
	if !s.target { // beside them an emulated machine takes twice as long for it
		resume = s.rest()
	}
	began := time.Now()
	s.births = []births{{at: began}}
	a := startAgent(t, args...)
	t.Logf("an agent is ready %.2f s after its start", time.Since(began).Seconds())
	s.address = strings.TrimPrefix(a.url, "http://")
	resume()
	if !s.target {
		s.awaitKnown(t, a)
	}
	return a
}

// awaitKnown waits until an agent that has just started knows the code of the loads, which takes an emulated machine that they keep busy a second or more: what
// is watched is how it goes on.
func (s *soak) awaitKnown(t *testing.T, a *agent) {
	t.Helper()
	for began, profiles := time.Now(), 1; ; profiles++ {
		p, err := a.collect(t, "seconds=1")
		if err != nil {
			t.Fatal(err)
		}
		known := true
		for _, b := range s.burners {
			n := countCalls(p, b.pid())
			known = known && n.all > 0 && float64(n.byName["work"]) >= leastWork*float64(n.all)
		}
		if known {
			t.Logf("it knows its loads %.2f s after it was ready, in profile %d", time.Since(began).Seconds(), profiles)
			return
		}
		if profiles == 5 {
			t.Fatalf("it does not know its loads after %.2f s and %d profiles", time.Since(began).Seconds(), profiles)
		}
	}
}

// leastWork is the part of a burning process's samples that its functions are in.
const leastWork = 0.97

func (s *soak) loads() []*workload {
	return append(append([]*workload{s.churn}, s.burners...), s.children...)
}

// life watches an agent, stops it until its ring overflows, watches it again and compares; then it ends it.
func (s *soak) life(t *testing.T, length time.Duration, end func(*testing.T, *agent)) {
	a := s.startAgent(t, length)
	objects := a.bpfObjects(t)
	s.watch(t, a, length*4/10, nothing)
	early := s.watch(t, a, length*2/10, s.disturb)
	s.stopped = true
	s.watch(t, a, length*1/10, func() float64 { s.overflow(t, a, objects); return 0 })
	s.stopped = false
	late := s.watch(t, a, length*3/10, nothing)
	t.Logf("early: %v", early)
	t.Logf("late:  %v", late)
	s.checkGrowth(t, early, late)
	if s.target {
		objects.checkTargets(t)
	}
	end(t, a)
	objects.checkGone(t)
	s.stopChildren(t)
}

// shortLife kills an agent that is stopped.
func (s *soak) shortLife(t *testing.T, length time.Duration) {
	a := s.startAgent(t, length)
	objects := a.bpfObjects(t)
	s.watch(t, a, length/2, nothing)
	a.signal(t, syscall.SIGSTOP)
	time.Sleep(length / 4)
	s.kill(t, a)
	objects.checkGone(t)
	s.stopChildren(t)
}

func (s *soak) stopChildren(t *testing.T) {
	t.Helper()
	for _, c := range s.children {
		c.stop()
		parseFamily(t, c.lastLine())
	}
}

func (a *agent) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

func (s *soak) kill(t *testing.T, a *agent) {
	t.Helper()
	a.signal(t, syscall.SIGKILL)
	<-a.ended
	_ = a.cmd.Wait()
	if code := exitCode(a.cmd.ProcessState); code != 128+int(syscall.SIGKILL) {
		t.Errorf("the agent ended with %d before it was killed", code)
	}
}

// terminate ends an agent by SIGTERM in the middle of work. A download that runs by then is given what there is: it shows the
// last numbers, and they add up to the sample.
func (s *soak) terminate(t *testing.T, a *agent) {
	t.Helper()
	if s.target {
		s.checkExact(t, a)
	}
	before, stolen := a.currentMetrics(t), stolenSeconds(t)
	done := a.startDownload(t, 600)
	for deadline := time.Now().Add(hang); a.metrics(t)["pilotlight_profiles_open"] < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) { // that of the interval is always open
			t.Fatal("the download does not begin")
		}
	}
	after := a.currentMetrics(t)
	time.Sleep(2 * time.Second)
	asked := time.Now()
	last := a.currentMetrics(t)
	resume := func() {}
	if !s.target { // an emulated machine that is busy writes no profile in the 3 s that clients get
		resume = s.rest()
	}
	code, took := a.terminate(t)
	since := time.Since(asked)
	resume()
	if code != 0 || took > 5*time.Second {
		t.Errorf("exit %d %.1f s after SIGTERM", code, took.Seconds())
	}
	d := <-done
	if d.p == nil {
		t.Fatalf("the download that ran at SIGTERM: %v", d.err)
	}
	s.checkProfile(t, d.p, stolenSeconds(t)-stolen)
	taken, _, _ := comments(t, d.p)
	const name = "pilotlight_samples_taken_total"
	most := last[name] - before[name] + float64(s.hz*runtime.NumCPU())*since.Seconds()
	if least := last[name] - after[name]; float64(taken) < least || float64(taken) > most {
		t.Errorf("the download that ended with the agent has %d samples, not %.0f to %.0f as the metrics say", taken, least, most)
	}
}

// currentMetrics asks until the agent does not answer with its last counts for want of newer ones, which it counts too.
func (a *agent) currentMetrics(t *testing.T) map[string]float64 {
	t.Helper()
	const failures = "pilotlight_stats_failures_total"
	metrics := a.metrics(t)
	for deadline := time.Now().Add(hang); ; {
		again := a.metrics(t)
		if again[failures] == metrics[failures] {
			return again
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent gives no counts")
		}
		metrics = again
	}
}

// A download is what came of one; nothing where its test has failed already.
type download struct {
	p   *profile.Profile
	err error
}

func (a *agent) startDownload(t *testing.T, seconds int) <-chan download {
	done := make(chan download, 1)
	go func() {
		defer close(done)
		p, err := a.collect(t, fmt.Sprintf("seconds=%d", seconds))
		done <- download{p, err}
	}()
	return done
}

// rest stops the loads until the function that it returns is called.
func (s *soak) rest() (end func()) {
	signal := func(signal syscall.Signal) {
		for _, l := range s.loads() {
			_ = l.cmd.Process.Signal(signal)
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// checkExact lets the loads rest until nothing is on its way: what was taken is exported or lost then.
func (s *soak) checkExact(t *testing.T, a *agent) {
	t.Helper()
	defer s.rest()()
	var n account
	for range 60 { // an interval is 10 s
		if n = accountOf(a.metrics(t)); n.taken == n.exported+n.lost {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Logf("at rest: %.0f samples taken, %.0f exported, %.0f lost", n.taken, n.exported, n.lost)
	if n.taken != n.exported+n.lost || n.taken == 0 || n.lost == 0 {
		t.Errorf("at rest: %.0f samples taken, %.0f exported, %.0f lost", n.taken, n.exported, n.lost)
	}
}

// account is what /metrics say of samples.
type account struct{ taken, exported, lost float64 }

func accountOf(metrics map[string]float64) account {
	n := account{taken: metrics["pilotlight_samples_taken_total"], exported: metrics["pilotlight_samples_exported_total"]}
	for name, value := range metrics {
		if strings.HasPrefix(name, lostPrefix) {
			n.lost += value
		}
	}
	return n
}

// overflow stops the agent until its ring has overflown. The kernel counts what finds no room, and so does the agent after it.
func (s *soak) overflow(t *testing.T, a *agent, objects bpfObjects) {
	t.Helper()
	reason := fmt.Sprintf("%s%q}", lostPrefix, bpf.ReasonRingFull)
	a.signal(t, syscall.SIGSTOP)
	defer a.signal(t, syscall.SIGCONT)
	before := objects.ringFull(t)
	var lost uint64
	began := time.Now()
	for lost < uint64(s.hz) && time.Since(began) < hang {
		time.Sleep(100 * time.Millisecond)
		lost = objects.ringFull(t) - before
	}
	stopped := time.Since(began)
	a.signal(t, syscall.SIGCONT)
	told := a.metrics(t)[reason]
	for deadline := time.Now().Add(hang); told < float64(before+lost) && time.Now().Before(deadline); told = a.metrics(t)[reason] {
		time.Sleep(100 * time.Millisecond) // an agent that wakes up late shows its last counts, and says so
	}
	t.Logf("stopped for %.1f s: %d samples find no room, %.0f are told of", stopped.Seconds(), lost, told)
	if lost == 0 || told < float64(before+lost) {
		t.Errorf("%d samples found no room in the ring of an agent that was stopped for %.1f s; it tells of %.0f", lost, stopped.Seconds(), told)
	}
}

// A footprint is what an agent holds over a while: the least of its anonymous memory, because Go's heap swings by its
// garbage, and the most of all else.
type footprint struct {
	anonymous, anonymousMost                        int64
	descriptors, threads, goroutines, tracked, kids int
}

func (f footprint) String() string {
	return fmt.Sprintf("anonymous memory %.1f to %.1f MB, %d descriptors, %d threads, %d goroutines, %d processes tracked beside those that run or were born lately",
		float64(f.anonymous)/1e6, float64(f.anonymousMost)/1e6, f.descriptors, f.threads, f.goroutines, f.tracked)
}

func (s *soak) checkGrowth(t *testing.T, early, late footprint) {
	t.Helper()
	if grown := late.anonymous - early.anonymous; grown > s.growth || late.anonymousMost > s.most {
		t.Errorf("anonymous memory grew by %.1f MB to %.1f at most", float64(grown)/1e6, float64(late.anonymousMost)/1e6)
	}
	if late.descriptors > early.descriptors+descriptorsGrowth {
		t.Errorf("%d descriptors after %d", late.descriptors, early.descriptors)
	}
	if late.threads > threadsMost {
		t.Errorf("%d threads", late.threads)
	}
	if late.goroutines > early.goroutines+goroutinesGrowth {
		t.Errorf("%d goroutines after %d", late.goroutines, early.goroutines)
	}
	if late.tracked > trackedMost {
		t.Errorf("%d processes tracked beside those that run or were born lately", late.tracked)
	}
	if late.kids > 0 {
		t.Errorf("the agent has %d children", late.kids)
	}
}

// bornLately is how many processes were born until now that the agent may still know.
func (s *soak) bornLately(forks int) int {
	now := time.Now()
	s.births = append(s.births, births{now, forks})
	for len(s.births) > 1 && now.Sub(s.births[1].at) > trackedFor {
		s.births = s.births[1:]
	}
	return forks - s.births[0].forks
}

// look adds what an agent holds now.
func (s *soak) look(t *testing.T, a *agent, f *footprint) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", a.pid())
	threads, err := os.ReadDir(proc + "/task")
	if err != nil {
		t.Fatal(err)
	}
	var kids int
	for _, thread := range threads {
		children, _ := os.ReadFile(filepath.Join(proc, "task", thread.Name(), "children")) // or the thread has ended
		kids += len(strings.Fields(string(children)))
	}
	running, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	metrics := a.metrics(t)
	anonymous := a.anonymousBytes(t)
	if f.anonymous == 0 || anonymous < f.anonymous {
		f.anonymous = anonymous
	}
	f.anonymousMost = max(f.anonymousMost, anonymous)
	f.descriptors = max(f.descriptors, a.descriptors(t))
	f.threads = max(f.threads, len(threads))
	f.goroutines = max(f.goroutines, int(metrics["pilotlight_agent_goroutines"]))
	born := s.bornLately(int(metrics["pilotlight_sideband_forks_total"]))
	f.tracked = max(f.tracked, int(metrics["pilotlight_processes_tracked"])-len(running)-born)
	f.kids = max(f.kids, kids)
	if refused := metrics["pilotlight_targets_refused_total"]; refused > 0 {
		t.Errorf("%.0f processes found no room among the targets", refused)
	}
}

func nothing() float64 { return 0 }

// recordsLost counts what the kernel could not tell of processes and mappings: the names of those are incomplete then.
const recordsLost = "pilotlight_sideband_records_lost_total"

// longestWatch is short enough for a profile to tell when something went wrong.
const longestWatch = 30 * time.Second

// watch looks at an agent twice a second while profiles are downloaded from it, and checks those. Meanwhile happens once, a third
// into it.
func (s *soak) watch(t *testing.T, a *agent, length time.Duration, meanwhile func() float64) (f footprint) {
	t.Helper()
	for rest := length; rest > 0; rest -= longestWatch {
		seconds := int(math.Ceil(min(rest, longestWatch).Seconds()))
		stolen, records := stolenSeconds(t), a.metrics(t)[recordsLost]
		done := a.startDownload(t, seconds)
		time.Sleep(time.Duration(seconds) * time.Second / 3)
		missed := meanwhile()
		meanwhile = nothing
		var d download
		for over := false; !over; {
			s.look(t, a, &f)
			select {
			case d = <-done:
				over = true
			case <-time.After(500 * time.Millisecond):
			}
		}
		if d.p == nil {
			t.Fatalf("a download of %d s: %v", seconds, d.err)
		}
		s.checkProfile(t, d.p, missed+stolenSeconds(t)-stolen)
		if a.metrics(t)[recordsLost] == records {
			s.checkChurn(t, d.p)
		}
		s.checkMetrics(t, a)
	}
	return f
}

// checkMetrics: what is neither exported nor lost is of the interval under way, which may begin with a full ring. Each CPU may
// be between two of its counts.
func (s *soak) checkMetrics(t *testing.T, a *agent) {
	t.Helper()
	const interval, ring = 10, 4
	metrics := a.metrics(t)
	n := accountOf(metrics)
	if rest := n.taken - n.exported - n.lost; rest < 0 || rest > float64((interval+ring)*s.hz*runtime.NumCPU()) {
		t.Errorf("%.0f samples taken, %.0f exported, %.0f lost: %.0f are on their way", n.taken, n.exported, n.lost, rest)
	}
	seen, filtered, idle := metrics["pilotlight_samples_seen_total"], metrics["pilotlight_samples_filtered_total"], metrics["pilotlight_samples_idle_total"]
	if math.Abs(seen-filtered-idle-n.taken) > float64(runtime.NumCPU()) {
		t.Errorf("%.0f samples seen, %.0f filtered, %.0f idle, %.0f taken", seen, filtered, idle, n.taken)
	}
}

// checkProfile holds the samples of the burning processes against the CPU time that they know of, and against their names. In
// the missed seconds of CPU time none are taken: a hypervisor gave the CPU to others, or it was not watched yet.
func (s *soak) checkProfile(t *testing.T, p *profile.Profile, missed float64) {
	t.Helper()
	checkConservation(t, p)
	_, exported, lostBy := comments(t, p)
	lost := lostBy[bpf.ReasonRingFull.String()]
	begin := monotonic(t, p.TimeNanos)
	t.Logf("%.1f s: %d samples and %d lost, %.1f CPU seconds missed", float64(p.DurationNanos)/1e9, exported, lost, missed)
	for _, b := range s.burners {
		b.awaitReport(begin + p.DurationNanos)
		n := countCalls(p, b.pid())
		want := float64(b.burned(t, begin, begin+p.DurationNanos).Total) / 1e9 * float64(s.hz)
		chance := 4*math.Sqrt(want) + unreliable*want
		t.Logf("%d samples of a process whose CPU time gives %.0f", n.all, want)
		if most, least := want+chance, want-chance-float64(lost)-missed*float64(s.hz); float64(n.all) > most || float64(n.all) < least {
			t.Errorf("%d samples of a process whose CPU time gives %.0f to %.0f", n.all, least, most)
		}
		if named := n.byName["work"]; float64(named) < leastWork*float64(n.all) {
			t.Errorf("%d of %d samples of a burning process are in its functions", named, n.all)
		}
	}
}

// checkChurn wants names for code that comes and goes. The agent reads a JIT's map once a second; one that was stopped may
// come back to a map that was written anew.
func (s *soak) checkChurn(t *testing.T, p *profile.Profile) {
	t.Helper()
	n := countCalls(p, s.churn.pid()).byName
	share := func(name, caller string) float64 { return float64(n[name]) / float64(max(1, n[caller])) }
	mapped, jit := share("mapped_burn", "burn_mapped"), share("jit_burn_", "burn_jit")
	what := fmt.Sprintf("named: %.1f %% of the %d calls into files just mapped, %.1f %% of the %d into code just made",
		100*mapped, n["burn_mapped"], 100*jit, n["burn_jit"])
	t.Log(what)
	if mapped < 0.95 || jit < 0.5 && !s.stopped {
		t.Error(what)
	}
}

// calls are the samples of one process: all, and those that a function is in, by its name, but for those that map memory. The numbers
// at the ends of names are left out.
type calls struct {
	all    int64
	byName map[string]int64
}

func countCalls(p *profile.Profile, pid int) calls {
	c := calls{byName: map[string]int64{}}
	for _, s := range p.Sample {
		if labelPID(s) != pid {
			continue
		}
		c.all += s.Value[0]
		seen := map[string]bool{}
		for _, f := range user(frames(s)) {
			seen[strings.TrimRight(f.name, "0123456789")] = true
		}
		if seen["mmap"] || seen["__mmap"] || seen["munmap"] || seen["__munmap"] {
			continue // who maps and unmaps code is not in it
		}
		for name := range seen {
			c.byName[name] += s.Value[0]
		}
	}
	return c
}

// awaitReport waits until the workload has told of a moment, which may take long on a busy machine.
func (w *workload) awaitReport(at int64) {
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		w.mu.Lock()
		told := len(w.reports) > 0 && w.reports[len(w.reports)-1].Monotonic >= at
		w.mu.Unlock()
		if told {
			return
		}
	}
}

// stolenSeconds is the CPU time that a hypervisor gave to others, of all CPUs:
//
//	cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL GUEST GUESTNICE
func stolenSeconds(t testing.TB) float64 {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(stat), "\n")
	ticks, err := strconv.Atoi(strings.Fields(first)[8])
	if err != nil {
		t.Fatalf("/proc/stat: %q: %v", first, err)
	}
	return float64(ticks) / 100
}

// bpfObjects are what an agent has in the kernel, by id: others on this machine have theirs. A program in use by a perf event, and
// whatever is pinned or linked, lives on under its id; so all ids gone is all gone.
type bpfObjects struct {
	programs map[ebpf.ProgramID]string
	maps     map[ebpf.MapID]string
	links    map[link.ID]string
	types    map[btf.ID]string
}

// bpfObjects finds what the agent's descriptors stand for, and what its programs use. A line of fdinfo is
//
//	map_id:	17
func (a *agent) bpfObjects(t testing.TB) bpfObjects {
	t.Helper()
	o := bpfObjects{map[ebpf.ProgramID]string{}, map[ebpf.MapID]string{}, map[link.ID]string{}, map[btf.ID]string{}}
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", a.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		info, _ := os.ReadFile(path) // or it was closed meanwhile
		for line := range strings.Lines(string(info)) {
			key, value, _ := strings.Cut(line, ":")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				continue
			}
			switch key {
			case "prog_id":
				o.addProgram(t, ebpf.ProgramID(id))
			case "map_id":
				o.maps[ebpf.MapID(id)] = mapName(t, ebpf.MapID(id))
			case "link_id":
				o.links[link.ID(id)] = "link"
			}
		}
	}
	t.Logf("the agent has %d programs, %d maps, %d links and %d sets of types", len(o.programs), len(o.maps), len(o.links), len(o.types))
	if len(o.programs) == 0 || len(o.maps) == 0 || len(o.types) == 0 {
		t.Errorf("programs %v, maps %v, types %v of the agent: some are missing", o.programs, o.maps, o.types)
	}
	return o
}

func (o bpfObjects) addProgram(t testing.TB, id ebpf.ProgramID) {
	t.Helper()
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	o.programs[id] = info.Name
	maps, _ := info.MapIDs()
	for _, id := range maps {
		o.maps[id] = mapName(t, id)
	}
	if id, ok := info.BTFID(); ok {
		o.types[id] = "types of " + info.Name
	}
}

func mapName(t testing.TB, id ebpf.MapID) string {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

// open opens one of the agent's maps by its name.
func (o bpfObjects) open(t testing.TB, name string) *ebpf.Map {
	t.Helper()
	for id, n := range o.maps {
		if n != name {
			continue
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	t.Fatalf("the agent has no map %s", name)
	return nil
}

// ringFull is what the kernel counted of samples that found no room.
func (o bpfObjects) ringFull(t testing.TB) (n uint64) {
	t.Helper()
	m := o.open(t, bpf.CpuMapCounters)
	defer m.Close()
	var counters []bpf.Counters
	if err := m.Lookup(uint32(0), &counters); err != nil {
		t.Fatal(err)
	}
	for _, c := range counters {
		n += c.LostRingFull
	}
	return n
}

// targets are the processes that are wanted.
func (o bpfObjects) targets(t testing.TB) map[uint32]bpf.Target {
	t.Helper()
	m := o.open(t, bpf.CpuMapTargets)
	defer m.Close()
	pids := map[uint32]bpf.Target{}
	var pid uint32
	var target bpf.Target
	all := m.Iterate()
	for all.Next(&pid, &target) {
		pids[pid] = target
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		t.Fatal(err)
	}
	return pids
}

// checkTargets: the dead are not wanted any more. Their entries go when the kernel frees the last of them, which on a busy machine
// is a second late.
func (o bpfObjects) checkTargets(t testing.TB) {
	t.Helper()
	wanted := o.targets(t)
	if len(wanted) == 0 {
		t.Error("no process is wanted of the kernel")
	}
	all := len(wanted)
	for pid := range wanted {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			delete(wanted, pid)
		}
	}
	dead := len(wanted)
	for deadline := time.Now().Add(10 * time.Second); len(wanted) > 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		now := o.targets(t)
		for pid := range wanted {
			if _, still := now[pid]; !still {
				delete(wanted, pid)
			}
		}
	}
	t.Logf("%d processes were wanted of the kernel, %d of them dead, %d for long", all, dead, len(wanted))
	if len(wanted) > 0 {
		t.Errorf("dead processes are still wanted of the kernel: %+v", wanted)
	}
}

// checkGone waits for the kernel to free all of it: some of that it does a moment later.
func (o bpfObjects) checkGone(t testing.TB) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if left = o.left(); len(left) == 0 {
			return
		}
	}
	t.Errorf("the agent left in the kernel: %v", left)
}

func (o bpfObjects) left() (left []string) {
	there := func(name string, open func() (io.Closer, error)) {
		c, err := open()
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		left = append(left, name)
		if err == nil {
			_ = c.Close()
		}
	}
	for id, name := range o.programs {
		there("program "+name, func() (io.Closer, error) { return ebpf.NewProgramFromID(id) })
	}
	for id, name := range o.maps {
		there("map "+name, func() (io.Closer, error) { return ebpf.NewMapFromID(id) })
	}
	for id, name := range o.links {
		there(name, func() (io.Closer, error) { return link.NewFromID(id) })
	}
	for id, name := range o.types {
		there(name, func() (io.Closer, error) { return btf.NewHandleFromID(id) })
	}
	return left
}
