package main

import (
	"runtime"
	"testing"
)

// A second CPU is taken as long as any answer is made, and given back then.
func TestBurst(t *testing.T) {
	cpus := runtime.NumCPU()
	more := min(2, cpus)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b := newBurst()
	expect := func(when string, want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%s: %d CPUs, not %d", when, got, want)
		}
	}
	first := b.take()
	expect("one answer", more)
	second := b.take()
	first()
	expect("another one", more)
	second()
	expect("none", 1)
	runtime.GOMAXPROCS(cpus)
	newBurst().take()()
	expect("a program that may take more", cpus)
}
