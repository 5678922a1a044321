package publish

import (
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/profiler/process"
)

// stuck is a file that does not answer until the test ends.
type stuck <-chan struct{}

func (s stuck) ReadAt([]byte, int64) (int, error) {
	<-s
	return 0, io.EOF
}

// zeros is a file that is no ELF file, and so is done at once.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// results waits for n of them, in the order that the compiler was done with them.
func results(t *testing.T, c *compiler, n int, most time.Duration) (r []result) {
	t.Helper()
	timeout := time.After(most)
	for len(r) < n {
		select {
		case <-c.finished:
			r = append(r, c.take()...)
		case <-timeout:
			t.Fatalf("%d of %d files were compiled within %v", len(r), n, most)
		}
	}
	return r
}

// While a file does not answer, the others are compiled all the same, after a moment, the smallest first.
func TestCompilerOrder(t *testing.T) {
	var calls atomic.Int32
	c := newCompiler(func() { calls.Add(1) })
	answer := make(chan struct{})
	defer c.close()
	defer close(answer)

	// It is the only one at first, so the compiler has it in hand when the others come.
	c.submit(job{file: 0, contents: process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1<<40)}})
	taken := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.waiting) == 0
	}
	for !taken() {
		time.Sleep(time.Millisecond)
	}
	sizes := rand.Perm(100)
	for i, size := range sizes {
		c.submit(job{file: uint32(1 + i), contents: process.Contents{SectionReader: io.NewSectionReader(zeros{}, 0, int64(1000+size))}})
	}
	begun := time.Now()
	done := results(t, c, len(sizes), 20*patience)
	t.Logf("%d files within %v of the one that does not answer", len(done), time.Since(begun))
	if !slices.IsSortedFunc(done, func(a, b result) int { return int(a.contents.Size() - b.contents.Size()) }) {
		t.Error("the files were not compiled by their size")
	}
	for _, r := range done {
		if r.file == 0 || r.err == nil || r.table != nil {
			t.Errorf("file %d: table %v, error %v", r.file, r.table, r.err)
		}
	}
	if n := calls.Load(); n < int32(len(sizes))-1 { // the last call may be still to come
		t.Errorf("ready was called %d times for %d files", n, len(sizes))
	}
}

// Of two files the one that more stacks wait for comes first, although it is larger.
func TestCompilerHeat(t *testing.T) {
	c := newCompiler(func() {})
	answer := make(chan struct{})
	defer c.close()
	defer close(answer)
	c.submit(job{file: 0, contents: process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1<<40)}})
	for waits := 1; waits > 0; time.Sleep(time.Millisecond) { // the compiler has it in hand then
		c.mu.Lock()
		waits = len(c.waiting)
		c.mu.Unlock()
	}
	for file, size := range []int64{1: 1000, 2: 2000, 3: 3000} {
		if file > 0 {
			c.submit(job{file: uint32(file), contents: process.Contents{SectionReader: io.NewSectionReader(zeros{}, 0, size)}})
		}
	}
	for range 2 {
		c.ask(3)
		c.ask(4) // nothing is known of it
	}
	var order []uint32
	for _, r := range results(t, c, 3, 20*patience) {
		order = append(order, r.file)
	}
	if !slices.Equal(order, []uint32{1, 3, 2}) && !slices.Equal(order, []uint32{3, 1, 2}) { // 1,000 bytes each
		t.Errorf("compiled in the order %v", order)
	}
}

// However many files of however many devices do not answer, a device holds the others up for a moment; then its files are refused, and
// taken again once those that hang returned.
func TestCompilerHangs(t *testing.T) {
	c := newCompiler(func() {})
	defer c.close()
	answer := make(chan struct{})
	const devices, each, good = 4, 20, 200
	for device := range uint64(devices) {
		for i := range each {
			c.submit(job{file: uint32(i), contents: process.Contents{
				SectionReader: io.NewSectionReader(stuck(answer), 0, 1), Device: 1 + device, // the smallest, so their turn comes first
			}})
		}
	}
	begun := time.Now()
	for i := range good {
		c.submit(job{file: uint32(1000 + i), contents: process.Contents{SectionReader: io.NewSectionReader(zeros{}, 0, 1000)}})
	}
	refused, compiled := 0, 0
	for _, r := range results(t, c, devices*(each-process.MaxHungDevice)+good, (devices*process.MaxHungDevice+10)*patience) {
		switch {
		case r.file >= 1000:
			compiled++
		case r.err == errHangs:
			refused++
		default:
			t.Errorf("file %d of device %d: %v", r.file, r.contents.Device, r.err)
		}
	}
	t.Logf("%d files within %v beside %d devices that do not answer; %d of their files were refused", compiled, time.Since(begun), devices, refused)
	if compiled != good || refused != devices*(each-process.MaxHungDevice) {
		t.Errorf("%d files were compiled of %d, %d refused", compiled, good, refused)
	}
	close(answer)
	results(t, c, devices*process.MaxHungDevice, 10*patience)
	c.submit(job{file: 1, contents: process.Contents{SectionReader: io.NewSectionReader(zeros{}, 0, 1), Device: 1}})
	if r := results(t, c, 1, 10*patience); r[0].err == errHangs {
		t.Error("a file is refused although all have answered")
	}
}

// However many files do not answer, the compiler can be closed.
func TestCompilerCloses(t *testing.T) {
	c := newCompiler(func() {})
	answer := make(chan struct{})
	defer close(answer)
	for i := range uint32(4) {
		c.submit(job{file: i, contents: process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1<<40), Device: uint64(i)}})
	}
	closed := make(chan struct{})
	go func() { c.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(5 * patience):
		t.Fatal("the compiler does not end while files do not answer")
	}
}
