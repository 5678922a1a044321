// Package exporter hands finished profiles to whatever takes them: metrics,
// the page, the history. A slow one never holds up another, nor the sampling.
package exporter

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Exporter takes the profile of each interval. It may take its time.
type Exporter interface {
	Export(*profile.Profile)
}

// queueLength is how many intervals one exporter may fall behind before its oldest is dropped.
const queueLength = 6

// FanOut gives each profile to all exporters, each on a goroutine of its own
// behind a short queue. Safe for concurrent use.
type FanOut struct {
	log    *slog.Logger
	mu     sync.Mutex
	queues []*queue
	closed bool
	wait   sync.WaitGroup
}

type queue struct {
	name      string
	profiles  chan *profile.Profile
	collected atomic.Uint64
	delivered atomic.Uint64
	dropped   atomic.Uint64
}

// Account says what became of the samples handed to one exporter:
// Collected = Delivered + Dropped + those that wait.
type Account struct {
	Name                          string
	Collected, Delivered, Dropped uint64
}

// NewFanOut makes a FanOut without exporters. Close it.
func NewFanOut(log *slog.Logger) *FanOut { return &FanOut{log: log} }

// Add adds an exporter; the profiles from now on are its.
func (f *FanOut) Add(name string, e Exporter) {
	q := &queue{name: name, profiles: make(chan *profile.Profile, queueLength)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.queues = append(f.queues, q)
	f.wait.Go(func() {
		for p := range q.profiles {
			e.Export(p)
			q.delivered.Add(p.Account.Exported)
		}
	})
}

// Export returns at once.
func (f *FanOut) Export(p *profile.Profile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for _, q := range f.queues {
		q.collected.Add(p.Account.Exported)
		for !q.offer(p) {
			q.dropOldest(f.log)
		}
	}
}

func (q *queue) offer(p *profile.Profile) bool {
	select {
	case q.profiles <- p:
		return true
	default:
		return false
	}
}

func (q *queue) dropOldest(log *slog.Logger) {
	select {
	case old := <-q.profiles:
		q.dropped.Add(old.Account.Exported)
		log.Warn("an exporter is too slow: its oldest profile was dropped", "exporter", q.name, "samples", old.Account.Exported)
	default: // it has just been taken
	}
}

// Accounts lists what each exporter got.
func (f *FanOut) Accounts() []Account {
	f.mu.Lock()
	defer f.mu.Unlock()
	accounts := make([]Account, len(f.queues))
	for i, q := range f.queues {
		accounts[i] = Account{q.name, q.collected.Load(), q.delivered.Load(), q.dropped.Load()}
	}
	return accounts
}

// Close waits until every exporter has taken what was handed to it. It may be called more than once.
func (f *FanOut) Close() {
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	if !closed {
		for _, q := range f.queues {
			close(q.profiles)
		}
	}
	f.mu.Unlock()
	f.wait.Wait()
}
