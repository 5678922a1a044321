package main

import (
	"runtime"
	"sync"
)

// burst lets the program take a second CPU while an answer is made: somebody waits for it, and the CPU time is the same. All else makes do with one.
type burst struct {
	usual, most int // CPUs

	mu    sync.Mutex
	takes int // that are not released
}

// burstCPUs is how many CPUs the making of answers may take.
const burstCPUs = 2

// newBurst takes what the program may use now for the usual.
func newBurst() *burst {
	usual := runtime.GOMAXPROCS(0)
	return &burst{usual: usual, most: max(usual, min(burstCPUs, runtime.NumCPU()))}
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
	switch { // each stops the program for a moment
	case b.most == b.usual:
	case before == 0:
		runtime.GOMAXPROCS(b.most)
	case b.takes == 0:
		runtime.GOMAXPROCS(b.usual)
	}
}
