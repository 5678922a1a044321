package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Samples that differ by their span alone are one row: a program that begins a span for each sample takes no more of the disk than another.
func TestSpansAreAddedUp(t *testing.T) {
	stack := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "main"}}}}}}
	p := &profile.Profile{Type: profile.TypeCPU, Period: 1, Start: time.Unix(1764000000, 0), Duration: 10 * time.Second}
	for i := range 1000 {
		p.Samples = append(p.Samples, profile.Sample{
			User: stack, Count: 1, Value: 1, Times: []time.Duration{time.Duration(i) * 10 * time.Millisecond},
			Labels: &profile.Labels{PID: 1 + i%2, Comm: "shop", TraceID: fmt.Sprintf("%032x", i+1), SpanID: fmt.Sprintf("%016x", i+1)},
		})
	}
	rows := newEncoder().encode(p, func(_ *profile.Sample, id int64) int64 { return id })
	if len(rows) != 2 || rows[0].Count != 500 || len(rows[1].Ticks) != 500 {
		t.Errorf("%d rows", len(rows))
	}
	r := NewReader(t.TempDir(), nil)
	filter, err := query.ParseFilter("trace_id=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Read(t.Context(), query.Query{Filter: filter}); !errors.Is(err, query.ErrNotKept) {
		t.Errorf("a trace of the history: %v", err)
	}
}
