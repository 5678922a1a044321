package publish

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/spans"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// compiler makes unwind tables on a goroutine of its own, the smallest file first, and the hottest.
type compiler struct {
	ready func() // called when a result waits

	mu      sync.Mutex
	waiting []job
	under   []*reading // files under way
	results []result
	wake    chan struct{}
	// finished has something when a result came; freed likewise, for the compiler itself.
	finished, freed chan struct{}
	closing         chan struct{} // closed by close
	once            sync.Once
	stopped         chan struct{}
}

type job struct {
	file     uint32
	contents process.Contents
	asked    int64 // stacks that wait for it
}

// cost is what decides whose turn it is.
func (j *job) cost() int64 { return j.contents.Size() / (1 + j.asked) }

// result of a job; the table is nil where there is none.
type result struct {
	job
	table *unwind.Table
	err   error
	spans *source // nil: the file has none
}

// source is where a file's threads keep the ids of spans, and how it lies in the address space.
type source struct {
	spans.Source
	layout objfile.Layout
}

// reading is a file under way. It tells whether the file answers.
type reading struct {
	process.Contents
	since atomic.Int64 // Unix ns when the read began that is under way; 0: none is
}

// ReadAt is called on one goroutine.
func (r *reading) ReadAt(b []byte, at int64) (int, error) {
	r.since.Store(time.Now().UnixNano())
	defer r.since.Store(0)
	return r.Contents.ReadAt(b, at)
}

// hangs says that one read takes long: others of the device would, too.
func (r *reading) hangs() bool {
	since := r.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) > patience/2
}

// errHangs says that a file was not begun, because others of its device do not answer.
var errHangs = errors.New("the device does not answer")

const (
	// patience is how long one file may hold up the others: a file server that does not answer, or a library of 100 MB. It goes on
	// beside them then.
	patience = time.Second
	// maxBeside bounds the files that are computed beside others, and so the memory.
	maxBeside = 3
	// maxWaiting bounds the files that wait, and so descriptors.
	maxWaiting = 256
	// small files follow one another at once; after one that takes longer the compiler rests as long as it took: a guest takes half a core at most.
	small = 20 * time.Millisecond
)

func newCompiler(ready func()) *compiler {
	c := &compiler{
		ready: ready, wake: make(chan struct{}, 1), finished: make(chan struct{}, 1), freed: make(chan struct{}, 1),
		closing: make(chan struct{}), stopped: make(chan struct{}),
	}
	go c.run()
	return c
}

func (c *compiler) submit(j job) {
	c.mu.Lock()
	c.waiting = append(c.waiting, j)
	c.mu.Unlock()
	signal(c.wake)
}

// ask says that a stack waits for a file's table.
func (c *compiler) ask(file uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.IndexFunc(c.waiting, func(j job) bool { return j.file == file }); i >= 0 {
		c.waiting[i].asked++
	}
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

// next gives the job whose turn it is, once there is one; false once the compiler is closed.
func (c *compiler) next() (job, bool) {
	for {
		select {
		case <-c.wake:
		case <-c.closing:
			return job{}, false
		}
		j, refused, ok := c.pick()
		if !ok {
			continue
		}
		signal(c.wake) // there may be more
		if !refused {
			return j, true
		}
		c.finish(result{job: j, err: errHangs})
	}
}

// pick takes the job out that costs least; refused says that its device hangs.
func (c *compiler) pick() (j job, refused, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		return job{}, false, false
	}
	least := 0
	for i := range c.waiting {
		if c.waiting[i].cost() < c.waiting[least].cost() {
			least = i
		}
	}
	j = c.waiting[least]
	c.waiting = slices.Delete(c.waiting, least, least+1)
	here, all := 0, 0
	for _, r := range c.under {
		if r.hangs() {
			all++
			if r.Device == j.contents.Device {
				here++
			}
		}
	}
	return j, here >= process.MaxHungDevice || all >= process.MaxHung, true
}

// crowded says that no more should be begun beside what is computed.
func (c *compiler) crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, r := range c.under {
		if !r.hangs() {
			n++
		}
	}
	return n >= maxBeside
}

func (c *compiler) finish(r result) {
	c.mu.Lock()
	c.results = append(c.results, r)
	c.mu.Unlock()
	signal(c.finished)
	c.ready()
}

func (c *compiler) run() {
	defer close(c.stopped)
	for {
		j, ok := c.next()
		if !ok {
			return
		}
		begun := time.Now()
		select {
		case <-c.begin(j):
			if took := time.Since(begun); took > small && !c.pause(took) {
				return
			}
			continue
		case <-time.After(patience):
		case <-c.closing:
			return
		}
		for c.crowded() {
			select {
			case <-c.freed:
			case <-time.After(patience / 4): // one of them may hang by now
			case <-c.closing:
				return
			}
		}
	}
}

// pause returns false where the compiler was closed meanwhile.
func (c *compiler) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.closing:
		return false
	}
}

// begin compiles a file on a goroutine; the channel is closed when that is done.
func (c *compiler) begin(j job) <-chan struct{} {
	r := &reading{Contents: j.contents}
	c.mu.Lock()
	c.under = append(c.under, r)
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		table, spans, err := compile(r, j.contents.Size())
		c.mu.Lock()
		c.under = slices.DeleteFunc(c.under, func(o *reading) bool { return o == r })
		c.mu.Unlock()
		c.finish(result{j, table, err, spans})
		signal(c.freed)
		close(done)
	}()
	return done
}

// compile makes the table of a file, and looks what it has to do with spans; why it has nothing is nobody's concern.
func compile(contents io.ReaderAt, size int64) (*unwind.Table, *source, error) {
	f, err := objfile.Parse(contents, size)
	if err != nil {
		return nil, nil, err
	}
	table, err := unwind.Compile(f)
	var goroutine *int32
	if err == nil {
		goroutine = table.Goroutine()
	}
	s, none := spans.Find(f, goroutine)
	if none != nil {
		return table, nil, err
	}
	return table, &source{s, f.Layout()}, err
}

// close ends the compiler, and gives back what was not begun or not taken; what is under way ends by itself. It is called on the goroutine that uses
// the files, and may be called more than once.
func (c *compiler) close() {
	c.once.Do(func() { close(c.closing) })
	<-c.stopped
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.waiting {
		c.waiting[i].contents.Release()
	}
	for i := range c.results {
		c.results[i].contents.Release()
	}
	c.waiting, c.results = nil, nil
}
