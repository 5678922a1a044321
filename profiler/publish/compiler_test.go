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
	c.submit(job{0, process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1<<40)}})
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
		c.submit(job{uint32(1 + i), process.Contents{SectionReader: io.NewSectionReader(zeros{}, 0, int64(1000+size))}})
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

// However many files do not answer, the compiler can be closed.
func TestCompilerCloses(t *testing.T) {
	c := newCompiler(func() {})
	answer := make(chan struct{})
	defer close(answer)
	for i := range maxBeside + 2 {
		c.submit(job{uint32(i), process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1<<40)}})
	}
	// The compiler waits for one more place than there are.
	for left := maxBeside + 2; left > 1; time.Sleep(patience / 10) {
		c.mu.Lock()
		left = len(c.waiting)
		c.mu.Unlock()
	}
	closed := make(chan struct{})
	go func() { c.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(5 * patience):
		t.Fatal("the compiler does not end while files do not answer")
	}
}
