package process

import (
	"cmp"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/perfevent"
)

// Sideband receives the kernel's records about processes: a dummy perf event
// on each CPU carries them. One goroutine uses it at a time.
type Sideband struct {
	cpus   map[int]*sidebandCPU
	names  *interner
	events []Event
	left   []Event // of CPUs that went offline, for the next Drain
	poller *perfevent.Poller
}

type sidebandCPU struct {
	event *perfevent.Event
	ring  *perfevent.Ring
}

// sidebandOrder makes rings of 64 KiB a CPU: some 500 records, ten execs a
// millisecond for the 5 ms until the reader comes.
const sidebandOrder = 4

// OpenSideband starts receiving on all online CPUs; the poller is woken by
// each record.
func OpenSideband(poller *perfevent.Poller) (*Sideband, error) {
	s := &Sideband{cpus: make(map[int]*sidebandCPU), names: newInterner(), poller: poller}
	online, err := perfevent.OnlineCPUs()
	if err != nil {
		return nil, err
	}
	if err := s.FollowCPUs(online); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// FollowCPUs opens and closes events as CPUs come and go; call it once a second.
func (s *Sideband) FollowCPUs(online []int) error {
	for cpu, c := range s.cpus {
		if !slices.Contains(online, cpu) {
			s.retire(cpu, c)
		}
	}
	for _, cpu := range online {
		if s.cpus[cpu] != nil {
			continue
		}
		c, err := s.open(cpu)
		if errors.Is(err, unix.ENODEV) && len(s.cpus) > 0 {
			continue // it went offline again
		}
		if err != nil {
			return err
		}
		s.cpus[cpu] = c
	}
	return nil
}

// Reopen opens the event of a CPU anew; see sampler.FollowCPUs.
func (s *Sideband) Reopen(cpu int, online []int) error {
	if c := s.cpus[cpu]; c != nil {
		s.retire(cpu, c)
	}
	return s.FollowCPUs(online)
}

func (s *Sideband) retire(cpu int, c *sidebandCPU) {
	s.left = s.appendEvents(s.left, c)
	_ = c.close() // its CPU is gone, and so is the event
	delete(s.cpus, cpu)
}

func (s *Sideband) open(cpu int) (*sidebandCPU, error) {
	event, err := perfevent.Open(unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_SOFTWARE,
		Config:      unix.PERF_COUNT_SW_DUMMY,
		Sample_type: unix.PERF_SAMPLE_TIME,
		Bits: unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitTask |
			unix.PerfBitSampleIDAll | unix.PerfBitUseClockID | unix.PerfBitWatermark | perfBitNamespaces | perfBitKsymbol | perfBitCgroup,
		Clockid: unix.CLOCK_MONOTONIC,
		Wakeup:  1, // byte: each record wakes us. Without a watermark only samples would, and there are none
	}, cpu)
	if err != nil {
		return nil, err
	}
	c := &sidebandCPU{event: event}
	if c.ring, err = perfevent.NewRing(event, sidebandOrder); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := errors.Join(s.poller.Add(event.FD()), event.Enable()); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// Bits of perf_event_attr that golang.org/x/sys/unix does not name.
const (
	perfBitNamespaces = 1 << 28 // 4.12
	perfBitKsymbol    = 1 << 29 // 5.1
	perfBitCgroup     = 1 << 32 // 5.7
)

// Drain gives what happened since the last call, in order of time on each CPU
// but not across them. The slice is valid until the next call.
func (s *Sideband) Drain() []Event {
	s.events = append(s.events[:0], s.left...)
	s.left = nil
	for _, c := range s.cpus {
		s.events = s.appendEvents(s.events, c)
	}
	return s.events
}

// Waiting says that Drain would give something.
func (s *Sideband) Waiting() bool {
	for _, c := range s.cpus {
		if c.ring.Waiting() {
			return true
		}
	}
	return false
}

// ByTime orders events.
func ByTime(a, b Event) int { return cmp.Compare(a.Time, b.Time) }

func (s *Sideband) appendEvents(events []Event, c *sidebandCPU) []Event {
	c.ring.Drain(func(r perfevent.Record) {
		if e, ok := decode(r, s.names); ok {
			events = append(events, e)
		}
	})
	return events
}

// Close stops receiving. It may be called more than once.
func (s *Sideband) Close() error {
	var errs []error
	for cpu, c := range s.cpus {
		errs = append(errs, c.close())
		delete(s.cpus, cpu)
	}
	return errors.Join(errs...)
}

func (c *sidebandCPU) close() error {
	var err error
	if c.ring != nil {
		err = c.ring.Close()
	}
	return errors.Join(err, c.event.Close())
}
