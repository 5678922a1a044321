package process

import (
	"bytes"
	"errors"
	"runtime"
	"sync/atomic"
	"time"
)

// guard runs work on files that may hang (FUSE, a network file system that
// lost its server) so that it never stops the caller for longer than patience.
// Work that hangs, or is slow, is left behind on its goroutine; maxHung of each are the
// most, after which everything is refused until one returns. One goroutine uses a guard.
type guard struct {
	patience time.Duration
	hung     atomic.Int32
	slow     atomic.Int32
	worker   []byte // how a trace of the goroutine that works begins
	work     chan func()
	done     chan struct{}
	// meanwhile, if not nil, is called again and again while the caller waits.
	meanwhile func()
}

const (
	guardPatience = 2 * time.Second
	maxHung       = 8
	// impatience divides the patience while other work hangs: whoever stops the
	// agent waits for what is still asked for.
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

func newGuard() *guard { return &guard{patience: guardPatience} }

// do runs work; nil says that it ended in time. Work that did not must not
// touch what the caller goes on to use: it hands over its result as the last thing it does.
func (g *guard) do(work func()) error {
	hung := g.hung.Load()
	if hung >= maxHung || g.slow.Load() >= maxHung {
		return errRefused
	}
	if g.work == nil {
		g.start()
	}
	limit := g.patience
	if hung > 0 {
		limit /= impatience
	}
	g.work <- work
	// A machine that was suspended wakes up with both at once: the work has a little time after that.
	if g.await(limit) || g.await(limit/impatience) {
		return nil
	}
	if g.computes() {
		g.abandon(&g.slow)
		return errSlow
	}
	g.abandon(&g.hung)
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
func (g *guard) abandon(count *atomic.Int32) {
	count.Add(1)
	work, done := g.work, g.done
	g.work = nil
	close(work)
	go func() {
		<-done
		count.Add(-1)
	}()
}

// close ends the goroutine.
func (g *guard) close() {
	if g.work != nil {
		close(g.work)
		g.work = nil
	}
}
