package publish

import (
	"cmp"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// compiler makes unwind tables on a goroutine of its own, the smallest file first.
type compiler struct {
	ready func() // called when a result waits

	mu      sync.Mutex
	waiting []job
	results []result
	wake    chan struct{}
	// finished has something when a result came.
	finished chan struct{}
	closing  chan struct{} // closed by close
	once     sync.Once
	stopped  chan struct{}
}

type job struct {
	file     uint32
	contents process.Contents
}

// result of a job; the table is nil where there is none.
type result struct {
	job
	table *unwind.Table
	err   error
}

const (
	// patience is how long one file may hold up the others: a file server that does not answer, or a library of 100 MB. It goes on
	// beside them then.
	patience = time.Second
	// maxBeside bounds the files that go on beside others, and so the memory.
	maxBeside = 8
	// maxWaiting bounds the files that wait, and so descriptors.
	maxWaiting = 256
	// small files follow one another at once; after one that takes longer the compiler rests as long as it took: a guest takes half a core at most.
	small = 20 * time.Millisecond
)

func newCompiler(ready func()) *compiler {
	c := &compiler{ready: ready, wake: make(chan struct{}, 1), finished: make(chan struct{}, 1), closing: make(chan struct{}), stopped: make(chan struct{})}
	go c.run()
	return c
}

func (c *compiler) submit(j job) {
	c.mu.Lock()
	i, _ := slices.BinarySearchFunc(c.waiting, j, func(a, b job) int { return -cmp.Compare(a.contents.Size(), b.contents.Size()) })
	c.waiting = slices.Insert(c.waiting, i, j)
	c.mu.Unlock()
	signal(c.wake)
}

// full says that no more should be submitted: each file is kept open until its turn comes.
func (c *compiler) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) >= maxWaiting
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take gives what was done since the last call.
func (c *compiler) take() []result {
	c.mu.Lock()
	defer c.mu.Unlock()
	results := c.results
	c.results = nil
	return results
}

// done says that take would give something.
func (c *compiler) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.results) > 0
}

// next gives the smallest job; false once the compiler is closed.
func (c *compiler) next() (job, bool) {
	for {
		select {
		case <-c.wake:
		case <-c.closing:
			return job{}, false
		}
		c.mu.Lock()
		n := len(c.waiting)
		if n == 0 {
			c.mu.Unlock()
			continue
		}
		j := c.waiting[n-1]
		c.waiting = c.waiting[:n-1]
		c.mu.Unlock()
		if n > 1 {
			signal(c.wake)
		}
		return j, true
	}
}

func (c *compiler) run() {
	defer close(c.stopped)
	beside := make(chan struct{}, maxBeside)
	for {
		j, ok := c.next()
		if !ok {
			return
		}
		begun := time.Now()
		done := make(chan struct{})
		select {
		case beside <- struct{}{}:
		case <-c.closing:
			return
		}
		go func() {
			defer func() { <-beside }()
			table, err := compile(j.contents.SectionReader)
			c.mu.Lock()
			c.results = append(c.results, result{j, table, err})
			c.mu.Unlock()
			signal(c.finished)
			close(done)
			c.ready()
		}()
		timer := time.NewTimer(patience)
		select {
		case <-done:
			if took := time.Since(begun); took > small {
				timer.Reset(took)
				select {
				case <-timer.C:
				case <-c.closing:
				}
			}
		case <-timer.C:
		case <-c.closing:
		}
		timer.Stop()
	}
}

func compile(contents *io.SectionReader) (*unwind.Table, error) {
	f, err := objfile.Parse(contents, contents.Size())
	if err != nil {
		return nil, err
	}
	return unwind.Compile(f)
}

// close ends the compiler; what is under way ends by itself. It may be called more than once.
func (c *compiler) close() {
	c.once.Do(func() { close(c.closing) })
	<-c.stopped
}
