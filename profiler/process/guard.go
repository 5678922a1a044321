package process

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// guard runs work on files that may hang (FUSE, a network file system that
// lost its server) so that it never stops the caller for longer than patience.
// Work that hangs, or is slow, is left behind on its goroutine. Of a device (a file system) that has MaxHungDevice
// left behind all else is refused until one returns, and of all with MaxHung that hang or maxSlow that are slow. One goroutine uses a guard.
type guard struct {
	patience time.Duration
	slow     atomic.Int32
	mu       sync.Mutex
	hungOn   map[uint64]int // by device
	hung     int            // of devices, not of processes
	worker   []byte         // how a trace of the goroutine that works begins
	work     chan func()
	done     chan struct{}
	// meanwhile, if not nil, is called again and again while the caller waits.
	meanwhile func()
}

const (
	guardPatience = 2 * time.Second
	// MaxHungDevice is how many files of one device may hang: the others of it will as well, and those of other devices must not suffer.
	MaxHungDevice = 2
	// MaxHung bounds the files of all devices that hang, and so the threads that the kernel holds.
	MaxHung = 32
	// ofProcesses stands for what is read of processes themselves, each of which may hang by itself; maxHungProcesses of them may, beside MaxHung.
	ofProcesses      = ^uint64(0)
	maxHungProcesses = 8
	maxSlow          = 8
	// impatience divides the patience while other work of the same device hangs: it will do the same.
	impatience = 10
	// meanwhilePause is how often guard.meanwhile is called.
	meanwhilePause = 5 * time.Millisecond
)

var (
	// errHung says that work took longer than the guard's patience; it goes on by itself.
	errHung = errors.New("the file does not answer")
	// errSlow says the same of work that only lacks CPU time: other work is not worse off.
	errSlow = errors.New("the file takes long to read")
	// errRefused says that work was not begun, because too much of it hangs.
	errRefused = errors.New("too many files do not answer")
)

func newGuard() *guard { return &guard{patience: guardPatience, hungOn: make(map[uint64]int)} }

// hanging says how much work was left behind, of a device and of all.
func (g *guard) hanging(device uint64) (here, all int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hungOn[device], g.hung
}

// hang counts work that hangs, or that returned.
func (g *guard) hang(device uint64, by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if device != ofProcesses {
		g.hung += by
	}
	if g.hungOn[device] += by; g.hungOn[device] == 0 {
		delete(g.hungOn, device)
	}
}

// do runs work on a file of a device; nil says that it ended in time. Work that did not must not
// touch what the caller goes on to use: it hands over its result as the last thing it does.
func (g *guard) do(device uint64, work func()) error {
	here, all := g.hanging(device)
	refused := here >= MaxHungDevice || all >= MaxHung
	if device == ofProcesses {
		refused = here >= maxHungProcesses
	}
	if refused || g.slow.Load() >= maxSlow {
		return errRefused
	}
	if g.work == nil {
		g.start()
	}
	limit := g.patience
	if here > 0 {
		limit /= impatience
	}
	g.work <- work
	// A machine that was suspended wakes up with both at once: the work has a little time after that.
	if g.await(limit) || g.await(limit/impatience) {
		return nil
	}
	if g.computes() {
		g.abandon(func(by int) { g.slow.Add(int32(by)) })
		return errSlow
	}
	g.abandon(func(by int) { g.hang(device, by) })
	return errHung
}

// await waits for the work, and says whether it is done.
func (g *guard) await(limit time.Duration) bool {
	end := time.Now().Add(limit)
	timer := time.NewTimer(min(limit, meanwhilePause))
	defer timer.Stop()
	for {
		select {
		case <-g.done:
			return true
		case now := <-timer.C:
			if g.meanwhile != nil {
				g.meanwhile()
			}
			if !now.Before(end) {
				return false
			}
			timer.Reset(min(end.Sub(now), meanwhilePause))
		}
	}
}

// computes says whether the worker runs or could run, rather than wait for the kernel. Looking costs
// some milliseconds, after seconds of waiting.
func (g *guard) computes() bool {
	trace := make([]byte, 1<<20)
	trace = trace[:runtime.Stack(trace, true)]
	_, state, found := bytes.Cut(trace, g.worker)
	if !found {
		return false
	}
	for _, s := range []string{"running", "runnable", "GC assist"} {
		if bytes.HasPrefix(state, []byte(s)) {
			return true
		}
	}
	return false
}

func (g *guard) start() {
	work, done := make(chan func()), make(chan struct{}, 1)
	g.work, g.done = work, done
	named := make(chan []byte)
	go func() {
		named <- traceHead()
		for f := range work {
			f()
			done <- struct{}{}
		}
	}()
	g.worker = <-named
}

// traceHead is how a trace of this goroutine begins, up to its state:
//
//	goroutine 42 [runnable, 2 minutes]:
func traceHead() []byte {
	trace := make([]byte, 64)
	head, _, _ := bytes.Cut(trace[:runtime.Stack(trace, false)], []byte("["))
	return append(head, '[')
}

// abandon leaves the goroutine to itself, and counts it until its work returns.
func (g *guard) abandon(count func(by int)) {
	count(1)
	work, done := g.work, g.done
	g.work = nil
	close(work)
	go func() {
		<-done
		count(-1)
	}()
}

// close ends the goroutine.
func (g *guard) close() {
	if g.work != nil {
		close(g.work)
		g.work = nil
	}
}
