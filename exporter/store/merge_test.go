package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// An hour with more rows than a merger holds is compacted in pieces, and each row keeps its labels.
func TestMergeBeyondItsBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T14:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: 10 * time.Second, Period: 10}
	stack := &profile.Stack{Locations: []*profile.Location{{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: "f"}}}}}}
	for i := range maxMerged + 3000 {
		p.Samples = append(p.Samples, profile.Sample{User: stack, Labels: &profile.Labels{PID: 1 + i, Comm: fmt.Sprint("c", i%5000)}, Count: 1, Value: int64(10 + i%2)})
	}
	s.Export(p)
	c.set(start.Add(3 * time.Hour))
	settle(t, s)
	if h := arrange(s.files); len(h.intervals) > 0 || len(h.hours) != 1 {
		t.Fatalf("%+v", h)
	}
	got, want := make(sumOf), make(sumOf)
	got.add(mustRead(t, NewReader(dir, nil), query.Query{}, query.Labels...), everything)
	want.add(p, everything)
	checkSum(t, "compacted", got, want)
}
