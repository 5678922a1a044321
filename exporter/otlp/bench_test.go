package otlp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// BenchmarkEncode makes the messages of an interval of 10,000 stacks of 40 frames, of 100 processes.
func BenchmarkEncode(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	m := &profile.Mapping{Path: "/usr/bin/app", BuildID: "abcdef", HasFunctions: true}
	var locations []*profile.Location
	for i := range 5000 {
		f := &profile.Function{Name: fmt.Sprintf("_ZN3app6Server%04d6handleEv", i)}
		locations = append(locations, &profile.Location{Kind: profile.FrameNative, Mapping: m, Address: uint64(i) * 64, Lines: []profile.Line{{Function: f}}})
	}
	var labels []*profile.Labels // equal ones are one pointer, as in any profile
	for pid := range 100 {
		labels = append(labels, &profile.Labels{PID: pid + 1, Comm: "app", Exe: "/usr/bin/app"})
	}
	p := &profile.Profile{Type: profile.TypeCPU, Start: began, Duration: 10 * time.Second, Period: 10309278}
	for i := range 10_000 {
		s := &profile.Stack{}
		for range 40 {
			s.Locations = append(s.Locations, locations[r.IntN(len(locations))])
		}
		p.Samples = append(p.Samples, profile.Sample{User: s, Labels: labels[i%100], Count: 2, Value: 2 * p.Period})
	}
	e, err := NewEncoder(Options{MaxBytes: ReceiversMaxBytes, MaxSamples: ReceiversMaxSamples})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = 0
		if err := e.Encode(p, func(m Message) error {
			size += len(m.Data)
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)/float64(len(p.Samples)), "B/stack")
}
