// Package sampler takes samples of running tasks: it loads the BPF programs,
// runs them from a perf event on every online CPU, follows CPUs that come and
// go, and hands over records and stacks as the kernel wrote them.
//
// The caller drains the ring often enough (twice a second at most rates) and
// gives the samples their meaning. One goroutine uses a Sampler at a time.
package sampler

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
)

// Event says what drives the sampling.
type Event string

// Events.
const (
	// CPUClock is the kernel's high-resolution timer: it works everywhere.
	CPUClock Event = "cpu"
	// Cycles is the PMU's cycle counter, where the machine has one.
	Cycles Event = "cycles"
)

// MaxFrequencyHz is the highest rate taken: beyond it the sampling itself would be what is seen.
const MaxFrequencyHz = 10000

// Options for Open. Frequency is in samples a second of busy CPU.
type Options struct {
	Event       Event
	FrequencyHz int
	// RingBytes and the other fields of Options.BPF that are zero get sizes
	// that fit the machine.
	BPF bpf.Options
}

// Sampler is an open sampler.
type Sampler struct {
	options  Options
	programs *bpf.Programs
	ring     *bpf.Ring
	copies   *bpf.Ring
	stacks   *bpf.StackTraces
	events   map[int]*cpuEvent
	// counted is what the events of CPUs that went offline had counted.
	counted uint64
	enabled bool
}

// cpuEvent is the event of one CPU, and what its clock said at the last look.
type cpuEvent struct {
	*perfevent.Event
	count uint64
}

// ErrNoPMU says that the machine has no hardware counter for the event.
var ErrNoPMU = errors.New("this machine has no hardware performance counters (PMU)")

// Try makes a map and opens the event of one CPU, for nothing but to learn whether it may: in a millisecond, where Open and what its
// options need take a tenth of a second.
func Try(event Event, frequencyHz int) error {
	if err := bpf.Try(); err != nil {
		return err
	}
	cpus, err := perfevent.OnlineCPUs()
	if err != nil {
		return err
	}
	e, err := openEvent(event, frequencyHz, cpus[0])
	if err != nil {
		return err
	}
	return e.Close()
}

// Open loads the programs and opens an event on every online CPU. Nothing runs before Start.
func Open(o Options) (*Sampler, error) {
	cpus, err := perfevent.OnlineCPUs()
	if err != nil {
		return nil, err
	}
	var secret [8]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, fmt.Errorf("draw the secret of stack keys: %w", err)
	}
	o.BPF.Secret = binary.NativeEndian.Uint64(secret[:])
	if o.BPF.RingBytes == 0 {
		o.BPF.RingBytes = ringBytes(len(cpus), o.FrequencyHz)
	}
	if o.BPF.CopyBytes == 0 {
		o.BPF.CopyBytes = copyBytes(len(cpus))
	}
	if o.BPF.CopiesPerSecond == 0 {
		o.BPF.CopiesPerSecond = uint32(max(2*o.FrequencyHz, minCopies))
	}
	programs, err := bpf.Load(o.BPF)
	if err != nil {
		return nil, err
	}
	o.BPF.KernelBTF = nil // many megabytes that nothing needs any more
	s := &Sampler{options: o, programs: programs, events: make(map[int]*cpuEvent)}
	if s.ring, err = bpf.NewRing(programs.Samples()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.copies, err = bpf.NewRing(programs.Copies()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.stacks, err = bpf.NewStackTraces(programs.StackTraces(), o.BPF.Secret); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if _, err := s.FollowCPUs(cpus); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ringBytes holds two seconds of samples of all CPUs, ten times what gathers
// between two reads: a power of two from 256 KiB to 16 MiB.
func ringBytes(cpus, hz int) uint32 {
	const record, seconds, most = 104 + 8, 2, 16 << 20
	want := uint64(cpus) * uint64(hz) * record * seconds
	if want <= bpf.DefaultRingBytes {
		return bpf.DefaultRingBytes
	}
	return min(uint32(1)<<bits.Len64(want-1), most)
}

// minCopies are the stacks of one process that may be copied in a second at any rate; at higher rates it is two CPUs' samples.
const minCopies = 400

// copyBytes holds what two CPUs sample between two reads at 97 Hz, when all of it is copied, and as much for each two more.
func copyBytes(cpus int) uint32 {
	const perCPU, most = 512 << 10, 16 << 20
	return uint32(1) << bits.Len(uint(min(max(cpus*perCPU, bpf.DefaultCopyBytes), most))-1)
}

// FollowCPUs opens events on CPUs that are online and closes those of CPUs
// that went; call it once a second with what perfevent.OnlineCPUs says. A CPU that went and came back in between has an event that the
// kernel never runs again: its clock stands still, it is opened anew, and the CPU is returned.
func (s *Sampler) FollowCPUs(online []int) (revived []int, err error) {
	for cpu, e := range s.events {
		switch {
		case !slices.Contains(online, cpu):
			s.retire(cpu, e)
		case s.enabled && !e.advances():
			s.retire(cpu, e)
			revived = append(revived, cpu)
		}
	}
	for _, cpu := range online {
		if s.events[cpu] != nil {
			continue
		}
		e, err := s.open(cpu)
		if errors.Is(err, unix.ENODEV) && len(s.events) > 0 {
			continue // it went offline again
		}
		if err != nil {
			return revived, err
		}
		s.events[cpu] = &cpuEvent{Event: e}
	}
	return revived, nil
}

// advances says whether the event's clock went on since the last call.
func (e *cpuEvent) advances() bool {
	count, err := e.Count()
	if err != nil || count == e.count {
		return false
	}
	e.count = count
	return true
}

func (s *Sampler) open(cpu int) (*perfevent.Event, error) {
	e, err := openEvent(s.options.Event, s.options.FrequencyHz, cpu)
	if err != nil {
		return nil, err
	}
	if err := e.SetBPF(s.programs.OnSample().FD()); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if s.enabled {
		if err := e.Enable(); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	return e, nil
}

func openEvent(event Event, frequencyHz, cpu int) (*perfevent.Event, error) {
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_SOFTWARE,
		Config:      unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample:      uint64(frequencyHz),
		Sample_type: unix.PERF_SAMPLE_RAW,
		Bits:        unix.PerfBitFreq,
	}
	if event == Cycles {
		attr.Type, attr.Config = unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES
	}
	e, err := perfevent.Open(attr, cpu)
	if event == Cycles && errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("%w: use the CPU clock, -e cpu", ErrNoPMU)
	}
	return e, err
}

func (s *Sampler) retire(cpu int, e *cpuEvent) {
	if n, err := e.Count(); err == nil {
		s.counted += n
	}
	_ = e.Close() // its CPU is gone, and so is the event
	delete(s.events, cpu)
}

// Start starts sampling.
func (s *Sampler) Start() error {
	s.enabled = true
	for _, e := range s.events {
		if err := e.Enable(); err != nil {
			return err
		}
	}
	return nil
}

// Stop stops sampling; what is in the ring can still be drained. A program
// that is running on another CPU has ended when Stop returns.
func (s *Sampler) Stop() error {
	s.enabled = false
	var errs []error
	for _, e := range s.events {
		errs = append(errs, e.Disable())
	}
	return errors.Join(errs...)
}

// WakeFDs become readable when a ring is half full; that of copied stacks also with a process's 2nd, 4th, 8th, ... copy of a second.
func (s *Sampler) WakeFDs() []int { return []int{s.programs.Samples().FD(), s.programs.Copies().FD()} }

// HalfFull says that the rings should be drained now.
func (s *Sampler) HalfFull() bool {
	return s.ring.Pending() >= uint64(s.options.BPF.RingBytes)/2 || s.copies.Pending() >= uint64(s.options.BPF.CopyBytes)/2
}

// CopiesWait says that copied stacks can be drained.
func (s *Sampler) CopiesWait() bool { return s.copies.Pending() > 0 }

// Drain calls visit with every sample that waits, and the labels that go with it; both are valid during the call only.
func (s *Sampler) Drain(visit func(s *bpf.Sample, labels []byte)) int {
	return s.ring.LabelledSamples(visit)
}

// Copies calls visit with every stack that was copied, once Drain gave its sample.
func (s *Sampler) Copies(visit func(bpf.CopiedStack)) { s.copies.Copies(visit) }

// BadRecords counts records of the ring that were not samples.
func (s *Sampler) BadRecords() uint64 { return s.ring.BadRecords }

// BadCopies counts records of the ring of copies that were no stacks.
func (s *Sampler) BadCopies() uint64 { return s.copies.BadRecords }

// AppendStack appends the frames of the stack under key; see bpf.StackTraces.
func (s *Sampler) AppendStack(frames []bpf.Frame, key uint64) ([]bpf.Frame, error) {
	return s.stacks.Append(frames, key)
}

// Programs are the BPF programs, for who tells them of code.
func (s *Sampler) Programs() *bpf.Programs { return s.programs }

// AddTarget adds a process to the wanted ones; the sampler must have been opened with targets.
func (s *Sampler) AddTarget(pid uint32, children bool) error {
	return s.programs.AddTarget(pid, children)
}

// SweepTargets takes processes that are there no more out of the wanted ones; call it every few seconds.
func (s *Sampler) SweepTargets(exists func(pid uint32) bool) (int, error) {
	return s.programs.SweepTargets(exists)
}

// HasTarget tells whether the process is (still) among the wanted ones.
func (s *Sampler) HasTarget(pid uint32) bool { return s.programs.HasTarget(pid) }

// HasTargets tells whether any wanted process is left.
func (s *Sampler) HasTargets() bool { return s.programs.HasTargets() }

// Counters are the counts of the BPF programs since Open, over all CPUs.
func (s *Sampler) Counters() (bpf.Counters, error) { return s.programs.Counters() }

// RunCount is the kernel's own count of the program's runs, kept while BPF
// statistics are enabled (ebpf.EnableStats, kernel.bpf_stats_enabled).
func (s *Sampler) RunCount() (uint64, error) {
	stats, err := s.programs.OnSample().Stats()
	if err != nil {
		return 0, fmt.Errorf("run count of the CPU sampler: %w", err)
	}
	return stats.RunCount, nil
}

// MapBytes is the memory of the BPF maps.
func (s *Sampler) MapBytes() (uint64, error) { return s.programs.MapBytes() }

// Period is what one sample stands for: nanoseconds of the CPU clock. 0 for
// cycles, where the kernel adapts it.
func (s *Sampler) Period() time.Duration {
	if s.options.Event != CPUClock {
		return 0
	}
	return time.Second / time.Duration(s.options.FrequencyHz)
}

// Fired estimates how often the events fired, from their own clocks: the
// kernel does not count, and skips the program in silence while the task is
// inside a bpf() call. Only for the CPU clock, whose period is fixed; else 0.
func (s *Sampler) Fired() (uint64, error) {
	period := uint64(s.Period())
	if period == 0 {
		return 0, nil
	}
	sum := s.counted
	for _, e := range s.events {
		n, err := e.Count()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum / period, nil
}

// Close stops sampling and frees everything. It may be called more than once.
func (s *Sampler) Close() error {
	var errs []error
	for cpu, e := range s.events {
		errs = append(errs, e.Close())
		delete(s.events, cpu)
	}
	if s.ring != nil {
		errs = append(errs, s.ring.Close())
		s.ring = nil
	}
	if s.copies != nil {
		errs = append(errs, s.copies.Close())
		s.copies = nil
	}
	return errors.Join(append(errs, s.programs.Close())...)
}
