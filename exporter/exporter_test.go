package exporter

import (
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

type function func(*profile.Profile)

func (f function) Export(p *profile.Profile) { f(p) }

func samples(n uint64) *profile.Profile {
	return &profile.Profile{Account: profile.Account{Exported: n}}
}

func newFanOut() *FanOut { return NewFanOut(slog.New(slog.DiscardHandler)) }

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// An exporter that hangs holds up nobody; it gets the newest when it goes on, and what it missed is counted.
func TestFanOutSlow(t *testing.T) {
	f := newFanOut()
	release, entered := make(chan struct{}), make(chan struct{}, 1000)
	var slow, fast []uint64
	var got atomic.Uint64
	f.Add("slow", function(func(p *profile.Profile) { entered <- struct{}{}; <-release; slow = append(slow, p.Account.Exported) }))
	f.Add("fast", function(func(p *profile.Profile) { fast = append(fast, p.Account.Exported); got.Add(1) }))
	const count = 50
	var sum uint64
	within(t, "Export", func() {
		for i := range uint64(count) {
			f.Export(samples(i + 1))
			sum += i + 1
			if i == 0 {
				<-entered // the first is on its way
			}
			for got.Load() <= i {
				runtime.Gosched() // the fast one keeps up
			}
		}
	})
	accounts := f.Accounts()
	var waits uint64 = 1 // the one under way
	for i := count - queueLength + 1; i <= count; i++ {
		waits += uint64(i)
	}
	if a := accounts[0]; a.Name != "slow" || a.Collected != sum || a.Delivered != 0 || a.Dropped != sum-waits {
		t.Errorf("%+v, want %d collected, %d dropped", a, sum, sum-waits)
	}
	close(release)
	within(t, "Close", f.Close)
	if want := []uint64{1, count - 5, count - 4, count - 3, count - 2, count - 1, count}; !slices.Equal(slow, want) {
		t.Errorf("the slow one got %v, want %v", slow, want)
	}
	if len(fast) != count || !slices.IsSorted(fast) {
		t.Errorf("the fast one got %v", fast)
	}
	for _, a := range f.Accounts() {
		if a.Collected != sum || a.Delivered+a.Dropped != sum {
			t.Errorf("after Close nothing is pending: %+v", a)
		}
	}
}

// Whatever the speeds, collected = delivered + dropped once all is over, and no more than that at any time.
func TestFanOutAccounts(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	f := newFanOut()
	const exporters = 5
	var delivered [exporters]atomic.Uint64
	for i := range exporters {
		f.Add(string(rune('a'+i)), function(func(p *profile.Profile) {
			if i > 0 {
				time.Sleep(time.Duration(rand.IntN(i*300)) * time.Microsecond)
			}
			delivered[i].Add(p.Account.Exported)
		}))
	}
	var sum atomic.Uint64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 200 {
				n := rand.Uint64N(1000)
				sum.Add(n)
				f.Export(samples(n))
				for _, a := range f.Accounts() {
					if a.Delivered+a.Dropped > a.Collected {
						t.Errorf("more went out than came in: %+v", a)
					}
				}
			}
		})
	}
	callers.Wait()
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(f.Close)
	}
	within(t, "Close", closers.Wait)
	for i, a := range f.Accounts() {
		if a.Collected != sum.Load() || a.Delivered+a.Dropped != sum.Load() || a.Delivered != delivered[i].Load() {
			t.Errorf("%+v, want %d collected, %d delivered", a, sum.Load(), delivered[i].Load())
		}
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

// Close waits for the last profile; what comes later is not taken.
func TestFanOutClose(t *testing.T) {
	f := newFanOut()
	var done atomic.Bool
	f.Add("x", function(func(*profile.Profile) { time.Sleep(50 * time.Millisecond); done.Store(true) }))
	f.Export(samples(3))
	within(t, "Close", f.Close)
	if !done.Load() {
		t.Error("Close did not wait")
	}
	f.Export(samples(4))
	f.Add("late", function(func(*profile.Profile) { t.Error("an exporter that was added after Close got something") }))
	f.Export(samples(5))
	within(t, "Close", f.Close)
	if a := f.Accounts(); len(a) != 1 || a[0] != (Account{"x", 3, 3, 0}) {
		t.Errorf("%+v", a)
	}
	within(t, "Close of one without exporters", newFanOut().Close)
}

// An exporter gets what came since it was added.
func TestFanOutAdd(t *testing.T) {
	f := newFanOut()
	f.Export(samples(1))
	f.Add("x", function(func(*profile.Profile) {}))
	f.Export(samples(2))
	f.Close()
	if a := f.Accounts(); len(a) != 1 || a[0] != (Account{"x", 2, 2, 0}) {
		t.Errorf("%+v", a)
	}
}
