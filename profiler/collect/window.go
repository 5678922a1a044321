package collect

import (
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Window collects the samples of one span of time that pass a filter. Any
// number of them are open beside one another. It belongs to its Collector.
type Window struct {
	decider      decider
	builder      *profile.Builder
	from         uint64 // CLOCK_MONOTONIC ns: samples before it are not ours; 0: all that come
	begin        uint64 // CLOCK_MONOTONIC ns of the profile's start; 0: the times of samples are not kept
	taken        uint64 // samples that came out of the ring in this span
	exported     uint64
	filtered     uint64
	frames       int    // of the samples that differ
	spans        int    // of them, those that are of a span
	spansDropped uint64 // samples that lost their span
	// beyond are the labels of samples that there was no room for, by process.
	beyond map[int]*profile.Labels
	lost   lossCounts
	result *profile.Profile // where sampling ended before the window was closed
}

// lossCounts are what was lost of samples, by reason.
type lossCounts [bpf.ReasonCount]uint64

func (c *Collector) newWindow(f Filter, from uint64) *Window {
	begin := time.Now()
	if from == 0 && !c.fetched.IsZero() {
		begin = c.fetched // where the window before it ended
	}
	return &Window{
		decider: decider{filter: f},
		builder: profile.NewBuilder(c.options.Type, c.options.Period, begin),
		from:    from,
		lost:    c.lost(),
	}
}

// add adds a sample. Span are its labels with those of the span that it is of; they are equal to labels where it is of none.
func (w *Window) add(t *process.Table, s *bpf.Sample, kernel, user *profile.Stack, labels, span *profile.Labels) {
	if s.TimeNs < w.from {
		return
	}
	w.taken++
	if !w.decider.pass(t, labels) {
		w.filtered++
		return
	}
	w.exported++
	if span != labels {
		labels = w.ofSpan(kernel, user, labels, span)
	}
	if !w.builder.Holds(kernel, user, labels) {
		if w.frames > maxWindowFrames {
			kernel, user, labels = full(kernel), full(user), w.ofProcess(labels)
		}
		w.frames += sampleFrames + depth(kernel) + depth(user)
	}
	if w.begin == 0 {
		w.builder.Add(kernel, user, labels, int64(s.Value))
		return
	}
	// A sample may have been taken a moment before the window was opened, and come after. The clock that tells
	// is not set, whatever happens to that of the day.
	w.builder.AddAt(kernel, user, labels, int64(s.Value), time.Duration(max(s.TimeNs, w.begin)-w.begin))
}

// drop counts a sample that no profile is to have.
func (w *Window) drop(s *bpf.Sample) {
	if s.TimeNs < w.from {
		return
	}
	w.taken++
	w.filtered++
}

// maxWindowFrames bounds the frames of distinct stacks in one window: 64 MB, or 200,000 stacks of forty frames. What is
// sampled beyond that, and is new, loses its stack, and which thread it was: threads may be named anew for each sample.
const maxWindowFrames = 8 << 20

// maxWindowSpans bounds the samples of one window that differ by their span: 20 MB of them. A program that begins a span each millisecond has a new one for
// nearly each sample; what comes beyond that is added up without its span.
const maxWindowSpans = 65536

// ofSpan gives the labels that a sample of a span is added up by.
func (w *Window) ofSpan(kernel, user *profile.Stack, labels, span *profile.Labels) *profile.Labels {
	if w.builder.Holds(kernel, user, span) {
		return span
	}
	if w.spans >= maxWindowSpans || w.frames > maxWindowFrames {
		w.spansDropped++
		return labels
	}
	w.spans++
	return span
}

// sampleFrames is what a sample takes beside its frames, in frames.
const sampleFrames = 20

// ofProcess gives labels that do not tell of a thread: those that the process had first, one pointer for each.
func (w *Window) ofProcess(labels *profile.Labels) *profile.Labels {
	l := w.beyond[labels.PID]
	if l == nil {
		if w.beyond == nil {
			w.beyond = make(map[int]*profile.Labels)
		}
		l = new(profile.Labels)
		*l = *labels
		l.TID, l.Thread = 0, ""
		w.beyond[labels.PID] = l
	}
	return l
}

// full stands for a stack that there is no room for.
func full(s *profile.Stack) *profile.Stack {
	if s == nil {
		return nil
	}
	return missing[bpf.ReasonStackMapFull]
}

func depth(s *profile.Stack) int {
	if s == nil {
		return 0
	}
	return len(s.Locations)
}

// build ends the window at the time up to which samples came; lost is the count by now.
func (w *Window) build(end time.Time, lost lossCounts) *profile.Profile {
	account := profile.Account{Taken: w.taken, Exported: w.exported, Filtered: w.filtered}
	for _, reason := range bpf.SampleReasons {
		n := lost[reason] - w.lost[reason]
		account.Taken += n
		account.Lost = append(account.Lost, profile.Loss{Reason: reason.String(), Count: n})
	}
	return w.builder.Build(end, account)
}
