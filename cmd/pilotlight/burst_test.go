package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// More is taken as long as any answer is made, and given back then.
func TestBurst(t *testing.T) {
	defer extent{runtime.GOMAXPROCS(0), 100}.use()
	cpus := min(2, runtime.NumCPU())
	b := newBurst(usualExtent, burstExtent)
	expect := func(when string, want extent) {
		t.Helper()
		garbage := debug.SetGCPercent(-1)
		debug.SetGCPercent(garbage)
		if got := (extent{runtime.GOMAXPROCS(0), garbage}); got != want {
			t.Errorf("%s: %+v, not %+v", when, got, want)
		}
	}
	expect("at first", extent{1, 50})
	first := b.take()
	expect("one answer", extent{cpus, 100})
	second := b.take()
	first()
	expect("another one", extent{cpus, 100})
	second()
	expect("none", extent{1, 50})

	// What the environment says stays.
	b = newBurst(extent{garbage: 50}, extent{garbage: 100})
	runtime.GOMAXPROCS(cpus)
	release := b.take()
	expect("an answer", extent{cpus, 100})
	release()
	expect("none", extent{cpus, 50})
}
