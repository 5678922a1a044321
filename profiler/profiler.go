// Package profiler is the whole of sampling as one object: a Config goes in,
// named profiles come out. It wires the sampler, the side-band, the table of
// processes and the collector, and owns them all.
//
// The caller says what to sample (the host, processes, a cgroup) and takes
// profiles by Collect, as many at once as it likes, or one of everything each
// interval by Config.Sink. It needs the rights that `pilotlight doctor` lists.
package profiler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/doctor"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/profiler/publish"
	"github.com/pilotlight/pilotlight/profiler/sampler"
)

// DefaultFrequencyHz is prime, so that it does not beat with what a program
// does at round intervals.
const DefaultFrequencyHz = 97

// Config says what to sample and how. The zero value samples the whole host at DefaultFrequencyHz.
type Config struct {
	Event       sampler.Event // default CPUClock
	FrequencyHz int
	Target      Target
	// ExcludeSelf leaves out this process.
	ExcludeSelf bool
	// Relabel, if not nil, changes the labels of samples or drops them; see collect.Options.
	Relabel func(*profile.Labels) *profile.Labels
	// KeepLabel, if not nil, says which further labels of goroutines samples have, by key; nil: all. See collect.Options.
	KeepLabel func(key string) bool
	// PerThread keeps the samples of threads apart, by a tid label.
	PerThread bool
	// Interval and Sink: every so often Sink gets a profile of everything. It is
	// called on the sampling goroutine and must return at once.
	Interval time.Duration
	Sink     func(*profile.Profile)
	// SampleTimes says that the profiles for Sink keep when each sample was taken.
	SampleTimes bool
	// Compare, if not nil, is called with both walks of every user stack, those of the BPF programs and ours. For tests: it costs many times
	// what sampling costs otherwise.
	Compare func(*collect.Comparison)
	// Opened, if not nil, is called once all that takes rights is open, and before anything
	// of another process is looked at: the place to give rights up.
	Opened func()
	// Without names features of the kernel that are left alone although they are there.
	Without []bpf.Feature
	// KernelBTF is a file with the kernel's type information, for kernels that do not show it; see bpf.ReadKernelTypes.
	KernelBTF string
	// RingBytes, CopyBytes (powers of two) and StackEntries override the sizes of BPF maps; 0 fits them to the machine.
	RingBytes, CopyBytes, StackEntries uint32
	Log                                *slog.Logger // default: nothing is logged
}

// Profiler samples from Start to Close. Its methods are safe for concurrent use.
type Profiler struct {
	config    Config
	sampler   *sampler.Sampler
	sideband  *process.Sideband
	poller    *perfevent.Poller
	files     *process.Files
	publisher *publish.Publisher
	collector *collect.Collector
	kernel    *collect.KernelNames
	cancel    context.CancelFunc
	done      chan struct{}
	err       error
	started   time.Time
	// kernelProblem is what kernel could not do at the start.
	kernelProblem error
}

// Start opens everything and begins to sample. Errors name what is missing and the remedy.
func Start(config Config) (*Profiler, error) {
	if config.Event == "" {
		config.Event = sampler.CPUClock
	}
	if config.FrequencyHz == 0 {
		config.FrequencyHz = DefaultFrequencyHz
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	p := &Profiler{config: config, done: make(chan struct{})}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.release())
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.done)
		p.err = p.collector.Run(ctx)
	}()
	return p, nil
}

func (p *Profiler) open() (err error) {
	if err := p.config.Target.check(); err != nil {
		return err
	}
	namespace, err := process.PIDNamespace(os.DirFS("/"))
	if errors.Is(err, process.ErrForeignProc) {
		return fmt.Errorf("%w; mount its own on /proc, or run in the host's (--pid=host, hostPID: true)", err)
	}
	if err != nil {
		return err
	}
	if p.poller, err = perfevent.NewPoller(); err != nil {
		return err
	}
	if err := sampler.Try(p.config.Event, p.config.FrequencyHz); err != nil {
		return p.explain(err)
	}
	softirq := new(softirqFinder)
	p.kernel = collect.NewKernelNames(softirq)
	p.kernelProblem = p.kernel.Problem()
	options := p.samplerOptions(softirq.found(), namespace)
	if p.config.KernelBTF != "" {
		options.BPF.KernelBTF, err = bpf.ReadKernelTypes(p.config.KernelBTF)
		if errors.As(err, new(*fs.PathError)) {
			return err
		}
		if err != nil {
			return p.explain(err)
		}
	}
	if p.sampler, err = sampler.Open(options); err != nil {
		return p.explain(err)
	}
	for _, fd := range p.sampler.WakeFDs() {
		if err := p.poller.Add(fd); err != nil {
			return err
		}
	}
	if p.sideband, err = process.OpenSideband(p.poller); err != nil {
		return p.explain(err)
	}
	if p.config.Opened != nil {
		p.config.Opened()
	}
	p.files = process.NewFiles()
	processes := process.NewTable(p.files, p.config.Log)
	if p.config.Target.HasPIDs() {
		processes.Wanted = func(pid int) bool { return p.sampler.HasTarget(uint32(pid)) }
	}
	if err := processes.Scan(); err != nil {
		return err
	}
	children, err := p.addChildren(processes)
	if err != nil {
		return err
	}
	p.publisher = publish.New(p.sampler.Programs(), processes, p.files, p.poller.Interrupt, p.config.Log)
	if options.BPF.Walks {
		p.publisher.Prepare(slices.Concat(p.config.Target.PIDs, children))
	}
	p.collector = collect.New(collect.Options{
		Type:      valueType(p.config.Event),
		Period:    int64(p.sampler.Period()),
		Target:    collect.Filter{Comm: p.config.Target.Comm},
		Relabel:   p.config.Relabel,
		KeepLabel: p.config.KeepLabel,
		PerThread: p.config.PerThread,
		Interval:  p.config.Interval,
		Sink:      p.config.Sink,
		Times:     p.config.SampleTimes,
		Compare:   p.config.Compare,
		Walks:     options.BPF.Walks,
		Log:       p.config.Log,
	}, p.sampler, p.sideband, p.poller, processes, p.files, p.publisher, p.kernel)
	p.started = time.Now()
	return p.sampler.Start()
}

func (p *Profiler) samplerOptions(softirq bpf.KernelRange, pidNamespace uint32) sampler.Options {
	o := sampler.Options{Event: p.config.Event, FrequencyHz: p.config.FrequencyHz, BPF: bpf.Options{
		PIDNamespace:    pidNamespace,
		Walks:           bpf.Walkable(os.DirFS("/")),
		Softirq:         softirq,
		CgroupID:        p.config.Target.cgroupID,
		CgroupSubsystem: p.config.Target.cgroupSubsystem,
		CgroupLevel:     p.config.Target.cgroupLevel,
		Without:         p.config.Without,
		RingBytes:       p.config.RingBytes,
		CopyBytes:       p.config.CopyBytes,
		CopyAll:         p.config.Compare != nil,
		StackEntries:    p.config.StackEntries,
	}}
	if p.config.ExcludeSelf {
		o.BPF.ExcludePID = uint32(os.Getpid())
	}
	if p.config.Target.HasPIDs() {
		o.BPF.Targets = make(map[uint32]bool)
		for _, pid := range p.config.Target.PIDs {
			o.BPF.Targets[uint32(pid)] = p.config.Target.Children
		}
	}
	return o
}

// addChildren puts the descendants that the targets already have among the
// targets, and returns them. The programs that follow forks run by now, so a child that is born
// meanwhile is found by one or the other.
func (p *Profiler) addChildren(processes *process.Table) (children []int, err error) {
	if !p.config.Target.Children {
		return nil, nil
	}
	for _, pid := range p.config.Target.PIDs {
		for _, child := range processes.Descendants(pid) {
			if err := p.sampler.AddTarget(uint32(child), true); err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	return children, nil
}

func valueType(e sampler.Event) profile.Type {
	if e == sampler.Cycles {
		return profile.TypeCycles
	}
	return profile.TypeCPU
}

// Collect makes a profile of the samples that pass the filter, from now until
// the duration is over, ctx ends or the profiler stops. What was collected by then is returned.
func (p *Profiler) Collect(ctx context.Context, f collect.Filter, d time.Duration) (*profile.Profile, error) {
	return p.collector.Collect(ctx, f, d)
}

// Stats gives what was counted until now.
func (p *Profiler) Stats(ctx context.Context) (collect.Stats, error) { return p.collector.Stats(ctx) }

// HasTargets tells whether any of the wanted processes is left; only for targets that are processes.
func (p *Profiler) HasTargets() bool { return p.sampler.HasTargets() }

// Started is when sampling began.
func (p *Profiler) Started() time.Time { return p.started }

// KernelNames says why kernel functions had no names at the start; nil where they have.
func (p *Profiler) KernelNames() error { return p.kernelProblem }

// Done is closed when sampling has ended, by Close or by a failure that Close returns.
func (p *Profiler) Done() <-chan struct{} { return p.done }

// Stop ends sampling: the last interval goes to Sink, and every Collect that
// is under way returns what it has. Stats and Close can still be called.
func (p *Profiler) Stop() error {
	p.cancel()
	<-p.done
	return p.err
}

// Close stops and frees everything. It may be called more than once.
func (p *Profiler) Close() error {
	err := p.Stop()
	return errors.Join(err, p.release())
}

func (p *Profiler) release() error {
	var closers []io.Closer
	if p.sampler != nil {
		closers = append(closers, p.sampler)
	}
	if p.sideband != nil {
		closers = append(closers, p.sideband)
	}
	if p.poller != nil {
		closers = append(closers, p.poller)
	}
	var errs []error
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	if p.publisher != nil {
		p.publisher.Close()
	}
	if p.files != nil {
		p.files.Close()
	}
	if p.kernel != nil {
		p.kernel.Close()
	}
	p.sampler, p.sideband, p.poller, p.publisher, p.files = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// ErrNotPermitted says that this process may not sample.
var ErrNotPermitted = errors.New("not permitted to sample")

// explain puts what is missing and the remedy in the place of what the kernel says.
func (p *Profiler) explain(err error) error {
	switch {
	case errors.Is(err, bpf.ErrLockdown):
		p.config.Log.Debug("not loaded", "err", err)
		return bpf.ErrLockdown
	case errors.Is(err, bpf.ErrNoBTF):
		return fmt.Errorf("%w; a kernel with CONFIG_DEBUG_INFO_BTF=y is needed, as all current distributions have, or its types in a file, --btf FILE", err)
	}
	if why := doctor.Refusal(err); why != "" {
		p.config.Log.Debug("not permitted", "err", err)
		return fmt.Errorf("%w: %s", ErrNotPermitted, why)
	}
	return err
}
