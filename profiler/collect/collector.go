// Package collect makes profiles out of samples: it merges the sampler's
// records with what happened to processes, names the stacks, and adds the
// samples up in windows, any number at a time.
//
// The caller opens the sampler and the side-band; the Collector is the one
// goroutine that uses them, and answers requests between two rounds.
package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/publish"
	"github.com/pilotlight/pilotlight/profiler/recent"
	"github.com/pilotlight/pilotlight/profiler/sampler"
)

// Options of a Collector.
type Options struct {
	Type   profile.Type
	Period int64
	// Target leaves out samples that the kernel could not: processes by name.
	Target Filter
	// Relabel, if not nil, gives the labels that samples are to have in place of others: the same pointer where nothing changes, nil where they are
	// dropped. It changes nothing, and gives the same for the same.
	Relabel func(*profile.Labels) *profile.Labels
	// KeepLabel, if not nil, says which further labels of goroutines samples are to have, by key, and gives the same for the same; nil: all.
	KeepLabel func(key string) bool
	// PerThread keeps the samples of threads apart.
	PerThread bool
	// Interval is how often Sink gets a profile of everything; 0: never.
	Interval time.Duration
	Sink     func(*profile.Profile)
	// Times says that the profiles for Sink keep when each sample was taken.
	Times bool
	// Walks says that the BPF programs walk user stacks, and so have to be told of code.
	Walks bool
	// Compare is called with every stack that the BPF programs walked and copied as well; see bpf.Options.CopyAll.
	Compare func(*Comparison)
	Log     *slog.Logger
}

// Collector merges, names and adds up.
type Collector struct {
	options   Options
	sampler   *sampler.Sampler
	sideband  *process.Sideband
	poller    *perfevent.Poller
	processes *process.Table
	files     *process.Files
	publisher *publish.Publisher
	kernel    *KernelNames
	namer     *namer

	target       decider
	batch        []arrival       // of this round
	arrived      []arrival       // for the next one
	pending      []process.Event // later than the samples of the last round
	held         int             // of pending: those whose files were looked at
	opened       int             // files, since the last round
	urgent       bool            // some of pending replace code
	windows      map[*Window]struct{}
	strays       map[strayKey]*profile.Labels
	relabel      *relabeler
	spans        recent.Cache[spanKey, *profile.Labels]
	further      recent.Cache[string, string] // packed labels of goroutines
	spansDropped uint64                       // samples that lost their span in windows that are closed

	// fetched is when the last round began: naming takes time, and what is sampled meanwhile comes in the next.
	fetched  time.Time
	until    uint64    // the same by the clock of samples
	swept    time.Time // when dead targets were looked for
	read     uint64    // samples that came out of the ring
	filtered uint64    // of those, samples that Options.Target leaves out
	dropped  uint64    // of those, samples that Options.Relabel drops
	exported uint64    // handed to Sink
	counters bpf.Counters

	requests chan func()
	final    bool          // nothing is sampled after this round
	pause    time.Duration // after the next glance
	// coldPause is how long copied stacks wait at least.
	coldPause time.Duration
	rounds    uint64
	stopped   chan struct{} // closed when Run has ended; last is complete then
	last      Stats
}

// arrival is a sample, and the labels that came with it, packed.
type arrival struct {
	bpf.Sample
	labels string
}

type strayKey struct {
	pid, tid int
	thread   [16]byte
}

// Times of the loop.
const (
	// pollInterval is how often samples are fetched. Each fetch costs some 200 us, most of it the
	// scheduler's and cold caches'; what must not wait, files that are new, does not.
	pollInterval = 400 * time.Millisecond
	// After a look at the side-band the next one waits: a moment as long as files appear that
	// were never seen, so that a process of 20 ms is met while it lives, and
	// longer and longer while all is known, so that a storm of execs costs little.
	shortPause = 2 * time.Millisecond
	longPause  = 20 * time.Millisecond
	// shortestCold is how soon copied stacks are fetched, and replaced code is taken in: the sooner the code of a process is known in BPF, the fewer stacks
	// are copied, or walked by what was there. While there are new processes all the time, the rounds for them take one part in coldShare of the time.
	shortestCold = 10 * time.Millisecond
	coldShare    = 20
	// urgentPause bounds that where code was replaced of which no stacks are copied yet: what is walked meanwhile cannot be mended. From then on they are copied.
	urgentPause = 20 * time.Millisecond
	// housekeeping is how often CPUs, exited processes and idle files are looked at.
	housekeeping = time.Second
	// sweeping is how often the dead are looked for among the targets.
	sweeping = 5 * time.Second
)

// maxStrays bounds the labels of processes that nothing is known of.
const maxStrays = 4096

// New makes a Collector; processes must have been scanned already.
func New(o Options, s *sampler.Sampler, sb *process.Sideband, poller *perfevent.Poller,
	processes *process.Table, files *process.Files, publisher *publish.Publisher, kernel *KernelNames) *Collector {
	c := &Collector{
		options: o, sampler: s, sideband: sb, poller: poller, processes: processes, files: files, publisher: publisher, kernel: kernel,
		namer:    newNamer(processes, files, publisher, kernel),
		target:   decider{filter: o.Target},
		windows:  make(map[*Window]struct{}),
		strays:   make(map[strayKey]*profile.Labels),
		relabel:  newRelabeler(o.Relabel),
		spans:    newSpanCache(),
		further:  newFurtherCache(),
		requests: make(chan func(), maxRequests),
		pause:    shortPause, coldPause: shortestCold,
		stopped: make(chan struct{}),
	}
	c.namer.source, c.namer.compare = s, o.Compare
	return c
}

// Run, called once, collects until ctx ends, then stops the sampler, fetches what is left and
// hands the last interval over. It returns early only when the sampler or the poller fails.
func (c *Collector) Run(ctx context.Context) error {
	defer close(c.stopped)
	defer context.AfterFunc(ctx, c.poller.Interrupt)()
	c.files.Meanwhile(c.meanwhile)
	c.publisher.Meanwhile(c.meanwhile)
	c.kernel.meanwhile = c.meanwhile
	defer c.files.Meanwhile(nil) // files are closed later than the rings

	var whole *Window
	if c.options.Interval > 0 {
		whole = c.openWhole()
	}
	now := time.Now()
	poll, keep := now.Add(pollInterval), now.Add(housekeeping)
	interval := now.Add(c.options.Interval)
	for {
		next := poll
		if urgent := c.fetched.Add(urgentPause); c.urgent && urgent.Before(poll) { // what told of it will not wake us again
			next = urgent
		}
		woken, err := c.poller.Wait(time.Until(next), c.sideband.Waiting)
		if ctx.Err() != nil {
			return c.finish(whole)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("wait for samples: %w", err), c.finish(whole))
		}
		c.answer()
		if c.publisher.Compiled() {
			c.publisher.Update()
		}
		now := time.Now()
		switch {
		case now.Before(poll):
			if woken || c.urgent {
				time.Sleep(c.glance())
			}
			continue
		case whole != nil && !now.Before(interval):
			c.round()
			c.handOver(whole)
			whole = c.openWhole()
			interval = now.Add(c.options.Interval)
		default:
			c.round()
		}
		poll = now.Add(pollInterval)
		if !now.Before(keep) {
			c.housekeep()
			keep = now.Add(housekeeping)
		}
	}
}

// answer runs the requests that wait.
func (c *Collector) answer() {
	for {
		select {
		case request := <-c.requests:
			request()
		default:
			return
		}
	}
}

func (c *Collector) finish(whole *Window) error {
	err := c.sampler.Stop()
	c.final, c.kernel.settled = true, true // what is done for later takes its time, and somebody waits for the end
	c.round()
	if whole != nil {
		c.handOver(whole)
	}
	c.updateCounters()
	c.answer()
	for w := range c.windows {
		w.result = c.close(w)
	}
	c.last = c.measure()
	return err
}

func (c *Collector) handOver(w *Window) {
	p := c.close(w)
	c.exported += p.Account.Exported
	c.options.Sink(p)
}

// openWhole begins the profile of an interval.
func (c *Collector) openWhole() *Window {
	if c.fetched.IsZero() {
		c.fetched, c.until = clocks()
	}
	w := c.open(Filter{}, 0)
	if c.options.Times {
		w.begin = c.until
	}
	return w
}

func (c *Collector) open(f Filter, from uint64) *Window {
	if from != 0 {
		c.updateCounters() // what was lost until now is not this window's; intervals follow one another without a gap
	}
	w := c.newWindow(f, from)
	c.windows[w] = struct{}{}
	return w
}

func (c *Collector) close(w *Window) *profile.Profile {
	delete(c.windows, w)
	c.spansDropped += w.spansDropped
	return w.build(c.fetched, c.lost())
}

// lost are the samples lost until now, by reason.
func (c *Collector) lost() (lost lossCounts) {
	lost[bpf.ReasonRingFull] = c.counters.LostRingFull
	lost[bpf.ReasonBadRecord] = c.sampler.BadRecords()
	return lost
}

// round brings in everything that waits. The samples are fetched first, then
// the side-band, so that no sample is seen before what its process did
// earlier; events later than this round's samples wait for the next.
func (c *Collector) round() {
	var until uint64
	c.fetched, until = clocks()
	c.opened, c.urgent = 0, false
	c.gather()
	c.batch, c.arrived = c.arrived, c.batch[:0]
	c.sampler.Copies(c.namer.keepCopy)
	if len(c.pending) == 0 {
		c.pause = shortPause
	}
	c.look()
	if !slices.IsSortedFunc(c.pending, process.ByTime) {
		slices.SortStableFunc(c.pending, process.ByTime)
	}
	process.NamePrograms(c.pending)
	c.updateCounters()
	if !slices.IsSortedFunc(c.batch, byTime) {
		slices.SortStableFunc(c.batch, byTime)
	}
	begun := time.Now()
	looked, applied := begun, 0
	apply := func(upTo uint64) {
		for applied < len(c.pending) && c.pending[applied].Time <= upTo {
			c.apply(&c.pending[applied])
			applied++
		}
	}
	for i := range c.batch {
		apply(c.batch[i].TimeNs)
		c.sample(&c.batch[i].Sample, c.batch[i].labels)
		// Naming new code takes time, in which short-lived processes come and go.
		if now := time.Now(); now.Sub(looked) > shortPause {
			c.look()
			looked = now
		}
	}
	apply(until)
	if !c.final {
		c.processes.Refresh(until)
		c.publisher.Update()
	}
	c.namer.forgetCopies(c.until)
	c.until = until
	c.pending, c.held = append(c.pending[:0], c.pending[applied:]...), max(0, c.held-applied)
	c.namer.stats.NameNanos += uint64(time.Since(begun))
	c.coldPause = min(max(shortestCold, coldShare*time.Since(c.fetched)), pollInterval)
	if cap(c.batch) > maxBatch {
		c.batch = nil
	}
	c.rounds++
}

// glance is what a wake-up is for: files that were never seen are opened while
// their process lives. What else happened waits for the round. It returns the
// pause until the next look.
func (c *Collector) glance() time.Duration {
	c.pause = min(2*c.pause, longPause)
	if c.look() {
		c.pause = shortPause
	}
	// Files that were opened stay so until they are too many: what was sampled in them is named before.
	since := time.Since(c.fetched)
	cold := c.sampler.CopiesWait() && since >= c.coldPause || c.urgent && since >= min(c.coldPause, urgentPause)
	if cold || c.sampler.HalfFull() || len(c.pending) > maxPending || c.opened > process.MaxOpen/2 {
		c.round()
	}
	return c.pause
}

// look opens the files that were never seen and that events tell of, if there are any: here, where records come in, and not on another
// goroutine, so that a file is known before anybody asks for a sample in it. The rings are emptied in between. Where events come
// faster than files can be opened, those that samples ask for must do.
func (c *Collector) look() (found bool) {
	c.meanwhile()
	gathered := time.Now()
	for ; c.held < len(c.pending); c.held++ {
		c.urgent = c.urgent || c.publisher.WalksAlone(c.pending[c.held].PID) && c.processes.Replaces(&c.pending[c.held])
		if len(c.pending) > maxPending || !c.processes.Hold(&c.pending[c.held]) {
			continue
		}
		found = true
		c.opened++
		if now := time.Now(); now.Sub(gathered) > gatherPause {
			c.meanwhile()
			gathered = now
		}
	}
	return found
}

// gather takes what waits out of the rings, so that they have room for more: the samples first, as said of round.
func (c *Collector) gather() {
	c.sampler.Drain(func(s *bpf.Sample, labels []byte) { c.arrived = append(c.arrived, arrival{*s, c.packed(labels)}) })
	c.pending = append(c.pending, c.sideband.Drain()...)
}

// meanwhile is called while a round or a file takes its time. What there is no room for waits in the rings, whose ends are counted.
func (c *Collector) meanwhile() {
	if len(c.arrived) < maxArrived && len(c.pending) < 2*maxPending {
		c.gather()
	}
}

// gatherPause is how long files are opened, or the kernel's names read, before the rings are looked at again. A ring of the side-band takes 7 ms of a process that
// does nothing but map files.
const gatherPause = time.Millisecond

// maxPending events (3 MB) wait for a round at most.
const maxPending = 16384

// maxBatch samples (2 MB) are kept room for between rounds; maxArrived (8 MB) wait for one.
const (
	maxBatch   = 16384
	maxArrived = 65536
)

func byTime(a, b arrival) int { return cmp.Compare(a.TimeNs, b.TimeNs) }

func (c *Collector) updateCounters() {
	counters, err := c.sampler.Counters()
	if err != nil {
		c.options.Log.Warn("cannot read the BPF counters", "err", err)
		return
	}
	c.counters = counters
}

func (c *Collector) apply(e *process.Event) {
	switch e.Kind {
	case process.EventKsymbol:
		c.kernel.ksymbol(e.Address, e.Size, e.Name, e.Gone)
		c.namer.forgetKernel()
	case process.EventLost:
		c.options.Log.Warn("the kernel dropped records about processes; their mappings are read again", "records", e.ID)
		c.processes.Apply(e)
	default:
		c.processes.Apply(e)
	}
}

func (c *Collector) sample(s *bpf.Sample, further string) {
	c.read++
	p := c.processes.At(int(s.Pid), s.TimeNs)
	labels := c.labels(p, s)
	if !c.target.pass(c.processes, labels) {
		c.filtered++
		return
	}
	if labels = c.relabel.labels(labels); labels == nil {
		c.dropped++
		for w := range c.windows {
			w.drop(s)
		}
		return
	}
	if c.options.Walks && p != nil {
		c.publisher.Want(p, s.ExecId)
		// Whoever forks one does it again, and what is known of the parent serves its children from their first sample on.
		if parent := c.processes.ForkedFrom(p); parent != nil && !c.publisher.Keep(parent) {
			c.publisher.Want(parent, s.ExecId)
		}
	}
	kernel, user := c.namer.kernelStack(s), c.namer.userStack(p, s)
	span := c.ofSpan(labels, s, further)
	for w := range c.windows {
		w.add(c.processes, s, kernel, user, labels, span)
	}
}

func (c *Collector) labels(p *process.Process, s *bpf.Sample) *profile.Labels {
	var thread [16]byte
	for i, b := range s.Comm {
		thread[i] = byte(b)
	}
	tid := 0
	if c.options.PerThread {
		tid = int(s.Tid)
	}
	if p != nil {
		c.processes.Identify(p, s.TimeNs)
		return c.processes.Labels(p, thread, tid, s.CgroupId)
	}
	key := strayKey{int(s.Pid), tid, thread}
	if l := c.strays[key]; l != nil {
		return l
	}
	if len(c.strays) >= maxStrays {
		clear(c.strays)
	}
	name := unix.ByteSliceToString(thread[:])
	l := &profile.Labels{PID: int(s.Pid), TID: tid, Comm: name, Thread: name}
	c.strays[key] = l
	return l
}

func (c *Collector) housekeep() {
	if err := c.followCPUs(); err != nil {
		c.options.Log.Warn("cannot follow CPUs that came online", "err", err)
	}
	c.processes.Expire(monotonic())
	c.files.Expire(time.Now())
	if now := time.Now(); now.Sub(c.swept) > sweeping {
		c.swept = now
		if _, err := c.sampler.SweepTargets(func(pid uint32) bool { return c.processes.Exists(int(pid)) }); err != nil {
			c.options.Log.Warn("cannot take dead processes out of the targets", "err", err)
		}
	}
}

func (c *Collector) followCPUs() error {
	online, err := perfevent.OnlineCPUs()
	if err != nil {
		return err
	}
	revived, err := c.sampler.FollowCPUs(online)
	err = errors.Join(err, c.sideband.FollowCPUs(online))
	for _, cpu := range revived {
		err = errors.Join(err, c.sideband.Reopen(cpu, online))
	}
	return err
}

// errStopped answers requests that come after the end.
var errStopped = errors.New("the profiler has stopped")

// do runs f on the Collector's goroutine.
func (c *Collector) do(ctx context.Context, f func()) error {
	const waiting, runs, abandoned = 0, 1, 2
	var state atomic.Int32
	done := make(chan struct{})
	request := func() {
		if state.CompareAndSwap(waiting, runs) {
			f()
			close(done)
		}
	}
	select {
	case c.requests <- request:
	case <-c.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	c.poller.Interrupt()
	select {
	case <-done:
		return nil
	case <-c.stopped:
		if state.CompareAndSwap(waiting, abandoned) {
			return errStopped
		}
	case <-ctx.Done():
		if state.CompareAndSwap(waiting, abandoned) {
			return ctx.Err()
		}
	}
	<-done // it has begun
	return nil
}

// maxRequests wait for the Collector's goroutine; more wait outside.
const maxRequests = 64

// ErrNotOfTarget says that a filter names a process that is not sampled.
var ErrNotOfTarget = errors.New("not, or no longer, of the target")

// checkTarget refuses a process that no samples can come of: descendants of the targets are among them
// from their first instruction on. What a process outside has for descendants may be inside.
func (c *Collector) checkTarget(f *Filter) error {
	if c.processes.Wanted == nil || f.Children {
		return nil
	}
	for _, pid := range f.PIDs {
		if !c.processes.Wanted(pid) {
			return fmt.Errorf("process %d is %w", pid, ErrNotOfTarget)
		}
	}
	return nil
}

// Collect makes a profile of the samples that pass the filter, from now until
// duration is over or ctx ends, whichever is first. What was collected until
// then is returned in either case. It is refused at once with ErrNotOfTarget where the filter's
// processes are not sampled.
func (c *Collector) Collect(ctx context.Context, f Filter, duration time.Duration) (*profile.Profile, error) {
	var w *Window
	var refused error
	if err := c.do(ctx, func() {
		if refused = c.checkTarget(&f); refused == nil {
			w = c.open(f, monotonic())
		}
	}); err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-c.stopped:
		return w.result, nil
	}
	var p *profile.Profile
	err := c.do(context.WithoutCancel(ctx), func() { c.round(); p = c.close(w) })
	if errors.Is(err, errStopped) {
		return w.result, nil
	}
	return p, err
}

// clocks reads the clock of the day and that of samples in the same moment: where the CPU did something else in between it reads again, because
// the times of a whole interval's samples would be off by that.
func clocks() (day time.Time, nanos uint64) {
	const apart, tries = 5000, 10
	best := uint64(math.MaxUint64)
	for range tries {
		before := monotonic()
		now := time.Now()
		if took := monotonic() - before; took < best {
			best, day, nanos = took, now, before+took/2
		}
		if best <= apart {
			break
		}
	}
	return day, nanos
}

func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for a clock that exists
	return uint64(ts.Nano())
}
