package collect

import (
	"encoding/binary"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// A window that deep stacks, each another one, have filled goes on counting samples; what is new in it has a reason in place of its stack.
func TestWindowFull(t *testing.T) {
	w := &Window{builder: profile.NewBuilder(profile.Type{}, 1, time.Now())}
	location := &profile.Location{Lines: []profile.Line{{Function: &profile.Function{Name: "f"}}}}
	labels := &profile.Labels{PID: 1}
	locations := make([]*profile.Location, bpf.MaxStackFrames)
	for i := range locations {
		locations[i] = location
	}
	first := &profile.Stack{Locations: locations}
	const samples = int64(3 * maxWindowFrames / bpf.MaxStackFrames)
	for i := range samples {
		stack := first
		if i%2 == 0 {
			stack = &profile.Stack{Locations: locations}
		}
		w.add(nil, &bpf.Sample{TimeNs: 1, Value: 1}, nil, stack, labels, labels)
	}
	p := w.build(time.Now(), lossCounts{})
	var counted, frames, known, full int64
	for i := range p.Samples {
		s := &p.Samples[i]
		counted += s.Count
		frames += int64(len(s.User.Locations))
		switch {
		case s.Kernel != nil:
			t.Fatal("a kernel stack came from nowhere")
		case s.User == first:
			known = s.Count
		case s.User.Truncated == bpf.ReasonStackMapFull.String():
			full += s.Count
		}
	}
	if counted != samples || p.Account.Exported != uint64(samples) {
		t.Errorf("%d samples of %d", counted, samples)
	}
	if frames > int64(maxWindowFrames+bpf.MaxStackFrames) || frames < maxWindowFrames/2 {
		t.Errorf("%d frames are held", frames)
	}
	if known != samples/2 {
		t.Errorf("%d samples have the stack that was there from the beginning", known)
	}
	if full < samples/8 {
		t.Errorf("%d samples have no room", full)
	}
}

// A full window does not grow by threads that are named anew for each sample. Each counts for its process.
func TestWindowLabels(t *testing.T) {
	w := &Window{builder: profile.NewBuilder(profile.Type{}, 1, time.Now()), frames: maxWindowFrames + 1}
	const samples, processes = 1000, 2
	for i := range samples {
		l := &profile.Labels{PID: 1 + i%processes, TID: i, Comm: "renames", Thread: strconv.Itoa(i)}
		w.add(nil, &bpf.Sample{TimeNs: 1, Value: 1}, nil, &profile.Stack{}, l, l)
	}
	p := w.build(time.Now(), lossCounts{})
	if len(p.Samples) != processes {
		t.Errorf("%d samples differ", len(p.Samples))
	}
	for _, s := range p.Samples {
		if l := *s.Labels; s.Count != samples/processes || l.Comm != "renames" || l.TID != 0 || l.Thread != "" {
			t.Errorf("%d samples have labels %+v", s.Count, l)
		}
	}
}

// A program that begins a span for each sample does not make a window grow without end. What has no room is added up without its span, and counted.
func TestWindowSpans(t *testing.T) {
	w := &Window{builder: profile.NewBuilder(profile.Type{}, 1, time.Now())}
	c := Collector{spans: newSpanCache()}
	labels, stack := &profile.Labels{PID: 1}, &profile.Stack{}
	const samples = maxWindowSpans + 1000
	for i := range uint32(samples) {
		s := &bpf.Sample{TimeNs: 1, Value: 1}
		binary.BigEndian.PutUint32(s.SpanId[:], i+1)
		s.TraceId[0] = 1
		w.add(nil, s, nil, stack, labels, c.ofSpan(labels, s, ""))
	}
	w.add(nil, &bpf.Sample{TimeNs: 1, Value: 1}, nil, stack, labels, c.ofSpan(labels, new(bpf.Sample), ""))
	p := w.build(time.Now(), lossCounts{})
	if len(p.Samples) != maxWindowSpans+1 || w.spansDropped != 1000 || p.Account.Exported != samples+1 {
		t.Errorf("%d samples differ, of %d, and %d lost their span", len(p.Samples), p.Account.Exported, w.spansDropped)
	}
	for _, s := range p.Samples {
		if s.Labels == labels != (s.Count == 1001) || s.Labels != labels && (s.Labels.TraceID != "01"+strings.Repeat("0", 30) || s.Labels.PID != 1) {
			t.Fatalf("%d samples of %+v", s.Count, s.Labels)
		}
	}
	if n := c.spans.Len(); n > 2*maxSpanBytes/spanBytes {
		t.Errorf("labels of %d spans are remembered", n)
	}
}
