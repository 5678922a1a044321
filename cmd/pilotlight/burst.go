package main

import (
	"runtime"
	"runtime/debug"
	"sync"
)

// burst lets the program take a second CPU, and more memory before it collects garbage, while an answer is made: somebody waits for it, and takes no more CPU time.
// All else makes do with one, and with little.
type burst struct {
	usual, most extent

	mu    sync.Mutex
	takes int // that are not released
}

// extent is what the program may take: CPUs, and garbage in percent of what it needs; 0 of either leaves it as it is.
type extent struct{ cpus, garbage int }

// use has the program take so much. Each stops it for a moment.
func (e extent) use() {
	if e.cpus > 0 {
		runtime.GOMAXPROCS(e.cpus)
	}
	if e.garbage > 0 {
		debug.SetGCPercent(e.garbage)
	}
}

// The usual, and what the making of answers may take: a CPU more, and Go's own default of garbage, by which what a query takes of memory is bounded and measured.
var (
	usualExtent = extent{cpus: 1, garbage: 50}
	burstExtent = extent{cpus: 2, garbage: 100}
)

// newBurst begins with the usual. Of a CPU that the machine does not have nothing is taken.
func newBurst(usual, most extent) *burst {
	usual.use()
	most.cpus = min(most.cpus, runtime.NumCPU())
	return &burst{usual: usual, most: most}
}

// take begins a burst, which ends when all that was taken has been released.
func (b *burst) take() (release func()) {
	b.set(1)
	return func() { b.set(-1) }
}

func (b *burst) set(more int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.takes
	b.takes += more
	switch {
	case before == 0:
		b.most.use()
	case b.takes == 0:
		b.usual.use()
	}
}
