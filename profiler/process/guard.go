package process

import (
	"sync/atomic"
	"time"
)

// guard runs work on files that may hang (FUSE, a network file system that
// lost its server) so that it never stops the caller for longer than patience.
// Work that hangs is left behind on its goroutine; maxHung of them are the
// most, after which everything is refused until one returns.
type guard struct {
	patience time.Duration
	hung     atomic.Int32
	work     chan func()
	done     chan struct{}
}

const (
	guardPatience = 2 * time.Second
	maxHung       = 8
)

func newGuard() *guard { return &guard{patience: guardPatience} }

// do runs work and says whether it ended in time. Work that did not must not
// touch what the caller goes on to use: it hands over its result as the last thing it does.
func (g *guard) do(work func()) bool {
	if g.hung.Load() >= maxHung {
		return false
	}
	if g.work == nil {
		g.start()
	}
	g.work <- work
	patience := time.NewTimer(g.patience)
	defer patience.Stop()
	select {
	case <-g.done:
		return true
	case <-patience.C:
		g.abandon()
		return false
	}
}

func (g *guard) start() {
	work, done := make(chan func()), make(chan struct{}, 1)
	g.work, g.done = work, done
	go func() {
		for f := range work {
			f()
			done <- struct{}{}
		}
	}()
}

// abandon leaves the goroutine to itself; it ends when its work returns.
func (g *guard) abandon() {
	g.hung.Add(1)
	work, done := g.work, g.done
	g.work = nil
	close(work)
	go func() {
		<-done
		g.hung.Add(-1)
	}()
}

// close ends the goroutine.
func (g *guard) close() {
	if g.work != nil {
		close(g.work)
		g.work = nil
	}
}
