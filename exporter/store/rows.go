package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Tick is the step in which the times of samples are kept.
const Tick = 10 * time.Millisecond

// encoder makes rows of profiles. Not safe for concurrent use.
type encoder struct {
	stacks *stackEncoder
	order  []sampleRef
	labels map[*profile.Labels]*labels
	rows   []SampleRow
	// timeless says that the times of samples are not kept.
	timeless bool
}

// sampleRef is a sample by what its row is sorted by.
type sampleRef struct {
	stack  int64
	labels *labels
	sample *profile.Sample
}

// labels are those of a row.
type labels struct {
	pid, tid                                                      int32
	comm, thread, exe, cgroup, containerID, service, podUID, unit string
}

func newEncoder() *encoder { return &encoder{stacks: newStackEncoder()} }

// encode gives the rows of a profile; they are valid until the next call. The ID of each sample's stack is shown to place, which
// gives the one that the row is to have.
func (e *encoder) encode(p *profile.Profile, place func(*profile.Sample, int64) int64) []SampleRow {
	e.order, e.rows = e.order[:0], e.rows[:0]
	e.labels = make(map[*profile.Labels]*labels)
	for i := range p.Samples {
		s := &p.Samples[i]
		e.order = append(e.order, sampleRef{place(s, e.stacks.id(s)), e.label(s.Labels), s})
	}
	slices.SortFunc(e.order, func(a, b sampleRef) int { return cmp.Or(cmp.Compare(a.stack, b.stack), a.labels.compare(b.labels)) })
	e.timeless = p.Duration > longestInterval
	blank := SampleRow{
		Time: p.Start.UnixMilli(), Duration: p.Duration.Nanoseconds(), Type: text(p.Type.Name), Unit: text(p.Type.Unit), Period: p.Period,
	}
	e.lost(&p.Account, blank)
	first := len(e.rows)
	for i := range e.order {
		ref := &e.order[i]
		last := len(e.rows) - 1
		if last >= first && e.rows[last].StackID == ref.stack && i > 0 && e.order[i-1].labels.compare(ref.labels) == 0 {
			e.add(&e.rows[last], ref.sample)
			continue
		}
		row := blank
		row.StackID = ref.stack
		row.label(ref.labels)
		e.rows = append(e.rows, row)
		e.add(&e.rows[last+1], ref.sample)
	}
	return e.rows
}

// lost makes a row for each reason that samples were lost by. Nobody knows what they were worth: their value is 0.
func (e *encoder) lost(a *profile.Account, blank SampleRow) {
	for _, loss := range a.Lost {
		if loss.Count == 0 {
			continue
		}
		row := blank
		row.LossReason, row.Count = text(loss.Reason), int64(loss.Count)
		e.rows = append(e.rows, row)
	}
}

// add adds a sample to its row.
func (e *encoder) add(row *SampleRow, s *profile.Sample) {
	row.Count += s.Count
	row.Value += s.Value
	if row.Ticks == nil {
		row.Ticks = make([]int32, 0, len(s.Times))
	}
	if e.timeless {
		return
	}
	for _, at := range s.Times {
		row.Ticks = append(row.Ticks, int32(at/Tick))
	}
	slices.Sort(row.Ticks)
}

func (e *encoder) label(l *profile.Labels) *labels {
	if known := e.labels[l]; known != nil {
		return known
	}
	out := new(labels)
	if l != nil {
		*out = labels{int32(l.PID), int32(l.TID), text(l.Comm), text(l.Thread), text(l.Exe), text(l.Cgroup), text(l.ContainerID), text(l.ServiceName()), text(l.PodUID), text(l.Unit)}
	}
	e.labels[l] = out
	return out
}

func (l *labels) compare(other *labels) int {
	if l == other {
		return 0
	}
	return cmp.Or(
		cmp.Compare(l.pid, other.pid), cmp.Compare(l.tid, other.tid), cmp.Compare(l.comm, other.comm), cmp.Compare(l.thread, other.thread),
		cmp.Compare(l.exe, other.exe), cmp.Compare(l.cgroup, other.cgroup), cmp.Compare(l.containerID, other.containerID),
		cmp.Compare(l.service, other.service), cmp.Compare(l.podUID, other.podUID), cmp.Compare(l.unit, other.unit))
}

func (r *SampleRow) label(l *labels) {
	r.PID, r.TID, r.Comm, r.Thread, r.Exe, r.Cgroup, r.ContainerID = l.pid, l.tid, l.comm, l.thread, l.exe, l.cgroup, l.containerID
	r.Service, r.PodUID, r.SystemdUnit = l.service, l.podUID, l.unit
}
