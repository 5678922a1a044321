package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, o Options) *Queue {
	t.Helper()
	q, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

func put(q *Queue, samples uint64, size int) {
	q.Put(Header{Samples: samples, Items: 1, Start: time.Unix(int64(samples), 0), End: time.Unix(int64(samples)+10, 0)}, bytes.Repeat([]byte{byte(samples)}, size))
}

func next(t *testing.T, q *Queue) *Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	b, err := q.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkSum(t *testing.T, q *Queue) {
	t.Helper()
	s := q.Stats()
	sum := s.Delivered + s.Partial + s.Pending
	for _, n := range s.Dropped {
		sum += n
	}
	if sum != s.Collected {
		t.Errorf("collected %d, but the rest adds up to %d: %+v", s.Collected, sum, s)
	}
}

func TestOrderAndRestart(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir})
	for i := range uint64(5) {
		put(q, i+1, 100)
	}
	q.Settle(next(t, q), Outcome{})
	q.Settle(next(t, q), Outcome{Dropped: DropRefused})
	q.Settle(next(t, q), Outcome{Partial: true})
	next(t, q) // under way as the agent ends
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	q = open(t, Options{Dir: dir})
	s := q.Stats()
	if s.Collected != 15 || s.Delivered != 1 || s.Dropped[DropRefused] != 2 || s.Partial != 3 || s.Pending != 9 || s.PendingBatches != 2 {
		t.Errorf("after a restart: %+v", s)
	}
	if !s.Last.Equal(time.Unix(15, 0)) {
		t.Errorf("the last batch ended at %v", s.Last)
	}
	put(q, 6, 100)
	for _, want := range []uint64{4, 5, 6} {
		b := next(t, q)
		if b.Samples != want || !bytes.Equal(b.Body, bytes.Repeat([]byte{byte(want)}, 100)) {
			t.Errorf("got batch %d (%d bytes), want %d", b.Samples, len(b.Body), want)
		}
		q.Settle(b, Outcome{})
	}
	checkSum(t, q)
	if files, _ := filepath.Glob(filepath.Join(dir, "*"+batchSuffix)); len(files) > 0 {
		t.Errorf("delivered batches are still there: %q", files)
	}
}

func TestFullDropsTheOldest(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), MaxBytes: 40 << 10})
	first := func() *Batch { put(q, 1, 5000); return next(t, q) }()
	for i := range uint64(9) {
		put(q, i+2, 5000)
	}
	s := q.Stats()
	if s.PendingBytes > 40<<10 || s.Dropped[DropFull] == 0 {
		t.Errorf("%+v", s)
	}
	checkSum(t, q)
	q.Settle(first, Outcome{}) // it was under way and was not dropped
	if got := q.Stats().Delivered; got != 1 {
		t.Errorf("%d samples delivered, want 1", got)
	}
	if b := next(t, q); b.Samples <= 2 {
		t.Errorf("batch %d is the oldest left", b.Samples)
	}
	checkSum(t, q)
}

func TestExpired(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), MaxAge: time.Second})
	put(q, 1, 10)
	time.Sleep(1100 * time.Millisecond)
	put(q, 2, 10)
	if b := next(t, q); b.Samples != 2 {
		t.Errorf("got batch %d", b.Samples)
	}
	if got := q.Stats().Dropped[DropExpired]; got != 1 {
		t.Errorf("%d samples expired, want 1", got)
	}
	checkSum(t, q)
}

func TestNextWaits(t *testing.T) {
	q := open(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	go func() { time.Sleep(20 * time.Millisecond); put(q, 7, 10) }()
	if b := next(t, q); b.Samples != 7 {
		t.Errorf("got batch %d", b.Samples)
	}
}

// In memory alone, the bound is that of memory.
func TestWithoutDirectory(t *testing.T) {
	q := open(t, Options{})
	for i := range uint64(20) {
		put(q, i+1, 1<<20)
	}
	s := q.Stats()
	if s.PendingBatches != 8 || s.PendingBytes > memoryBytes || s.Dropped[DropFull] == 0 {
		t.Errorf("%+v", s)
	}
	checkSum(t, q)
}

// A file that a crash of the machine, or somebody, has damaged is not sent, and does not stop the others.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":  func([]byte) []byte { return nil },
		"body":   func(b []byte) []byte { b[len(b)-20] ^= 1; return b },
		"header": func(b []byte) []byte { b[5] = 0xff; return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := open(t, Options{Dir: dir})
			put(q, 1, 1000)
			put(q, 2, 1000)
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			path := q.path(1)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			q = open(t, Options{Dir: dir})
			if b := next(t, q); b.Samples != 2 {
				t.Errorf("got batch %d", b.Samples)
			}
			if s := q.Stats(); s.Dropped[DropDamaged] != 1 || s.Collected != 3 {
				t.Errorf("%+v", s)
			}
			checkSum(t, q)
		})
	}
}

// What no batch could be made of counts, over a restart too, and is nothing that anyone waits for.
func TestLose(t *testing.T) {
	for _, dir := range []string{t.TempDir(), ""} {
		q := open(t, Options{Dir: dir})
		put(q, 1, 10)
		q.Lose(Header{Samples: 5})
		put(q, 2, 10)
		for want := range uint64(2) {
			b := next(t, q)
			if b.Samples != want+1 {
				t.Errorf("got batch %d", b.Samples)
			}
			q.Settle(b, Outcome{})
		}
		checkSum(t, q)
		if dir != "" {
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			q = open(t, Options{Dir: dir})
		}
		if s := q.Stats(); s.Dropped[DropUnmade] != 5 || s.Collected != 8 || s.Delivered != 3 || s.PendingBatches != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestDamagedAccount(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Options{Dir: dir})
	for i := range uint64(3) {
		put(q, i+1, 10)
	}
	q.Settle(next(t, q), Outcome{})
	if err := errors.Join(q.Close(), os.WriteFile(filepath.Join(dir, accountName), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	q = open(t, Options{Dir: dir})
	if s := q.Stats(); s.Collected != 6 || s.Pending != 5 || s.Delivered != 1 {
		t.Errorf("%+v", s)
	}
}

// A file system of a few pages: what it refuses waits in memory, goes out as everything else, and is on disk again once there is room.
func TestFullDisk(t *testing.T) {
	dir := tinyFileSystem(t, 256<<10)
	var log bytes.Buffer
	q := open(t, Options{Dir: filepath.Join(dir, "queue"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range uint64(40) {
		put(q, i+1, 10_000)
	}
	s := q.Stats()
	if s.PendingBatches != 40 || q.memory == 0 {
		t.Fatalf("%d bytes in memory, %+v", q.memory, s)
	}
	if n := strings.Count(log.String(), "waits in memory"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	var got []uint64
	for range 40 {
		b := next(t, q)
		got = append(got, b.Samples)
		q.Settle(b, Outcome{})
	}
	if !slices.IsSorted(got) || len(got) != 40 {
		t.Errorf("delivered %d", got)
	}
	put(q, 41, 10_000)
	if q.memory != 0 || !strings.Contains(log.String(), "on disk again") {
		t.Errorf("%d bytes are still in memory:\n%s", q.memory, log.String())
	}
	checkSum(t, q)
}

// However the writing and the removal of files end, every sample is where the account says: the process is
// "killed" by forgetting the queue at random moments, that is by opening copies of its directory.
func TestAccountAtEveryMoment(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	q := open(t, Options{Dir: dir, MaxBytes: 60 << 10})
	var collected uint64
	for i := range uint64(300) {
		if random.IntN(5) < 3 {
			put(q, i+1, random.IntN(6000))
			collected += i + 1
		} else if b, _ := q.oldest(); b != nil {
			q.Settle(b, []Outcome{{}, {}, {Partial: true}, {Dropped: DropRefused}}[random.IntN(4)])
		}
		if random.IntN(10) > 0 {
			continue
		}
		want := q.Stats()
		copied := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		other := open(t, Options{Dir: copied})
		got := other.Stats()
		if got.Collected != collected || got.Delivered != want.Delivered || got.Pending != want.Pending || got.Partial != want.Partial {
			t.Fatalf("step %d: after a kill\n%+v, before\n%+v", i, got, want)
		}
		checkSum(t, other)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	good, err := encodeBatch(&stored{Header: Header{Samples: 3, Encoding: "gzip"}, Put: time.Unix(1, 0)}, []byte("body"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, body, err := decodeBatch(data)
		if err != nil {
			return
		}
		again, err := encodeBatch(s, body)
		if err != nil {
			return // a header that is longer in our words
		}
		s2, body2, err := decodeBatch(again)
		if err != nil || !bytes.Equal(body, body2) || s2.Samples != s.Samples || s2.Encoding != s.Encoding {
			t.Errorf("reads back as %+v, %q, %v", s2, body2, err)
		}
	})
}

// tinyFileSystem mounts one of so many bytes, which takes root.
func tinyFileSystem(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("pilotlight-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a small file system (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A moment without descriptors says nothing of the batches: they are there once it is over.
func TestNoDescriptors(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir()})
	for i := range uint64(5) {
		put(q, i+1, 100)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	b, again := q.oldest()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if b != nil || !again {
		t.Fatalf("got %v, %t", b, again)
	}
	for i := range uint64(5) {
		if b := next(t, q); b.Samples != i+1 {
			t.Errorf("got batch %d", b.Samples)
		} else {
			q.Settle(b, Outcome{})
		}
	}
	checkSum(t, q)
}

// What waited in memory goes to disk once there is room, and survives a kill then.
func TestMemoryGoesToDisk(t *testing.T) {
	dir := tinyFileSystem(t, 256<<10)
	path := filepath.Join(dir, "queue")
	q := open(t, Options{Dir: path})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("there is room for more than there is")
	}
	for i := range uint64(6) {
		put(q, i+1, 5000)
	}
	if q.memory == 0 {
		t.Fatal("nothing waits in memory")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		put(q, i+7, 5000)
	}
	if q.memory != 0 {
		t.Errorf("%d bytes are still in memory", q.memory)
	}
	other := open(t, Options{Dir: path}) // as after a kill
	if s := other.Stats(); s.Pending != 45 || s.Collected != 45 {
		t.Errorf("%+v", s)
	}
}

// Thousands that expire together take one look at the disk, and readers of the counts do not wait for it.
func TestManyExpire(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), MaxAge: time.Hour})
	for i := range uint64(300) {
		put(q, i+1, 10)
	}
	for _, e := range q.entries {
		e.Put = e.Put.Add(-2 * time.Hour)
	}
	put(q, 301, 10)
	if b := next(t, q); b.Samples != 301 {
		t.Errorf("got batch %d", b.Samples)
	}
	if s := q.Stats(); s.Dropped[DropExpired] != 300*301/2 {
		t.Errorf("%+v", s)
	}
	checkSum(t, q)
}
