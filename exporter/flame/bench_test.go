package flame

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// large is 20,000 stacks of 40 frames that make a tree of more than 200,000 nodes, of functions of C++ with real-looking names.
func large() *profile.Profile {
	r := rand.New(rand.NewPCG(1, 2))
	locations := make([]*profile.Location, 5000)
	module := &profile.Mapping{Path: "/usr/lib/libgeo.so.1"}
	for i := range locations {
		name := fmt.Sprintf("_ZN3geo9transform12Transform%04dINS_6CircleELi%dEE5applyERKT_", i, i%10)
		locations[i] = &profile.Location{Kind: profile.FrameNative, Mapping: module, Address: uint64(i), Lines: []profile.Line{{Function: &profile.Function{Name: name}}}}
	}
	labels := &profile.Labels{PID: 1}
	p := profileOf()
	stack := make([]*profile.Location, 40)
	for range 20000 {
		// The outer frames stay as they were, as those of a real program do.
		for i := range 5 + r.IntN(18) {
			stack[i] = locations[r.IntN(len(locations))]
		}
		for i := range stack {
			if stack[i] == nil {
				stack[i] = locations[i]
			}
		}
		s := &profile.Stack{Locations: append([]*profile.Location(nil), stack...)}
		p.Samples = append(p.Samples, profile.Sample{User: s, Labels: labels, Count: 1, Value: 10})
	}
	return p
}

func BenchmarkTree(b *testing.B) {
	p := large()
	b.ReportAllocs()
	nodes := 0
	for b.Loop() {
		nodes = NewTree(p).Nodes
	}
	if nodes < 200_000 {
		b.Fatalf("%d nodes", nodes)
	}
	b.ReportMetric(float64(nodes), "nodes")
}

func BenchmarkTop(b *testing.B) {
	p := large()
	b.ReportAllocs()
	for b.Loop() {
		Top(p)
	}
}

func BenchmarkDiffTree(b *testing.B) {
	p, q := large(), large()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := DiffTree(p, q, ByShare, 2000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	p, q := large(), large()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Diff(p, q, ByShare); err != nil {
			b.Fatal(err)
		}
	}
}
