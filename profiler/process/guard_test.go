package process

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever waits for work goes on with other things, as long as it takes.
func TestGuardMeanwhile(t *testing.T) {
	g := &guard{patience: 10 * time.Second}
	defer g.close()
	release := make(chan struct{})
	calls := 0
	g.meanwhile = func() {
		if calls++; calls == 3 {
			close(release)
		}
	}
	begun := time.Now()
	if err := g.do(1, func() { <-release }); err != nil || calls < 3 || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %v and %d calls", err, time.Since(begun), calls)
	}
}

// Work that hangs costs patience and no more, a few times; then nothing, until something returns. Other devices go on.
func TestGuard(t *testing.T) {
	const patience = 20 * time.Millisecond
	goroutines := runtime.NumGoroutine()
	g := newGuard()
	g.patience = time.Minute
	ran := 0
	for range 1000 {
		if g.do(1, func() { ran++ }) != nil {
			t.Fatal("work that ends at once was given up")
		}
	}
	if ran != 1000 {
		t.Fatalf("%d of 1000 ran", ran)
	}
	g.patience = patience
	release := make(chan struct{})
	var started atomic.Int32
	const good = 0
	for i := range 3 * MaxHung {
		device := uint64(1 + i/3) // three on each: one is refused
		begun := time.Now()
		err := g.do(device, func() { started.Add(1); <-release })
		took := time.Since(begun)
		refused := i%3 == MaxHungDevice || int(started.Load()) == MaxHung
		if refused && err != errRefused && err != errHung || !refused && err != errHung {
			t.Fatalf("hung work %d, on device %d: %v", i, device, err)
		}
		if took > patience+time.Second || err == errRefused && took > patience {
			t.Errorf("hung work %d: blocked for %v", i, took)
		}
		if started.Load() < MaxHung && g.do(good, func() { ran++ }) != nil {
			t.Errorf("with %d left behind, work on another device is refused", started.Load())
		}
	}
	if n := started.Load(); n != MaxHung {
		t.Errorf("%d goroutines were left behind, want %d", n, MaxHung)
	}
	if g.do(good, func() {}) == nil {
		t.Error("work was taken while too much hangs")
	}
	close(release)
	deadline := time.Now().Add(5 * time.Second)
	for here, all := g.hanging(1); here+all > 0; here, all = g.hanging(1) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not recover: %d hang, %d on a device", all, here)
		}
		time.Sleep(time.Millisecond)
	}
	if err := g.do(1, func() { ran++ }); err != nil || len(g.hungOn) > 0 {
		t.Errorf("after all returned: %v, %v", err, g.hungOn)
	}
	g.close()
	g.close()
	for runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
		time.Sleep(time.Millisecond)
	}
}

// Files of one device that hang do not hurry those of another, and processes that hang leave the files their bound.
func TestGuardPatience(t *testing.T) {
	g := newGuard()
	defer g.close()
	release := make(chan struct{})
	defer close(release)
	g.patience = 10 * time.Millisecond
	for range 2 * maxHungProcesses {
		_ = g.do(ofProcesses, func() { <-release })
	}
	if _, all := g.hanging(ofProcesses); all != 0 {
		t.Errorf("%d processes that hang count as files", all)
	}
	_ = g.do(1, func() { <-release })
	g.patience = 3 * time.Second
	slow := g.patience/impatience + g.patience/impatience/impatience + 200*time.Millisecond
	if err := g.do(2, func() { time.Sleep(slow) }); err != nil {
		t.Errorf("a slow file of another device: %v", err)
	}
}

// Work that computes is left behind like work that waits, but leaves the patience for others as it is.
func TestGuardComputing(t *testing.T) {
	g := newGuard()
	defer g.close()
	g.patience = 100 * time.Millisecond
	ended := make(chan struct{})
	err := g.do(1, func() {
		defer close(ended)
		var sum uint64
		for began := time.Now(); time.Since(began) < 10*g.patience; {
			for i := range uint64(100000) {
				sum += i
			}
		}
	})
	if err != errSlow {
		t.Errorf("computing: %v", err)
	}
	if err := g.do(1, func() { time.Sleep(g.patience / 2) }); err != nil {
		t.Errorf("beside it: %v", err)
	}
	<-ended
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Read as a file of a dead file system is: in a system call that does not return.
	fd := int(r.Fd())
	if err := g.do(1, func() { _, _ = unix.Read(fd, make([]byte, 1)) }); err != errHung {
		t.Errorf("reading what never comes: %v", err)
	}
	if err := errors.Join(w.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}
