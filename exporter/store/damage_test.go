package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// While a store writes and compacts, a reader sees each sample that was acknowledged before it asked, and none twice.
func TestReadersMissNothingConcurrently(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-23T20:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time, MaxAge: 1000 * time.Hour})
	host := smallHost(4)
	var sent atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Fourteen hours, so that hours and a day are compacted while it goes on.
		for i := range 150 {
			p := host.Interval(start.Add(time.Duration(i)*6*time.Minute), 10*time.Second)
			c.export(s, p)
			sent.Add(p.Account.Exported)
			time.Sleep(5 * time.Millisecond)
		}
		c.set(c.time().Add(30 * time.Hour))
		settle(t, s)
	}()
	r := NewReader(dir, nil)
	rounds := 0
	for ended := false; !ended; rounds++ {
		select {
		case <-done:
			ended = true
		default:
		}
		before := sent.Load()
		p := mustRead(t, r, query.Query{}, "pid")
		after := sent.Load()
		// What is being written when it is asked may be in it already.
		if n := p.Account.Exported; n < before || n > after+2000 {
			t.Fatalf("round %d: %d samples, not %d to %d", rounds, n, before, after)
		}
		if ended && p.Account.Exported != after {
			t.Fatalf("in the end %d samples, not %d", p.Account.Exported, after)
		}
	}
	t.Logf("%d times", rounds)
	if rounds < 10 {
		t.Errorf("only %d times", rounds)
	}
}

// A file in which a byte is wrong, or that is cut, is named with the offset, and the other files answer.
func TestDamagedFilesAreLeftOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T14:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(5)
	var sent []*profile.Profile
	for i := range 12 {
		p := host.Interval(start.Add(time.Duration(i)*20*time.Minute), 10*time.Second)
		sent = append(sent, p)
		c.export(s, p)
	}
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := make(sumOf)
	var total uint64
	for _, p := range sent {
		want.add(p, everything)
		total += p.Account.Exported
	}
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(dir, nil)
	random := rand.New(rand.NewPCG(3, 4))
	said := 0
	for _, f := range files {
		path := filepath.Join(dir, f.path())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			damaged := append([]byte(nil), whole...)
			offset := random.IntN(len(whole))
			if i%3 == 0 {
				damaged = damaged[:offset]
			} else {
				damaged[offset] ^= 1 << random.IntN(8)
			}
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			p, answer, err := r.Read(context.Background(), query.Query{}, query.Labels...)
			if err != nil {
				t.Fatalf("%s at %d: %v", f.path(), offset, err)
			}
			var damage *DamageError
			for _, warning := range answer.Warnings {
				if errors.As(warning, &damage) && (damage.Path != path || damage.Offset > int64(len(whole))) {
					t.Errorf("%s at %d: %v", f.path(), offset, warning)
				}
			}
			if damage != nil {
				said++
				if p.Account.Exported > total || f.table == tableStacks && p.Account.Exported != total {
					t.Errorf("%s at %d: %d samples of %d", f.path(), offset, p.Account.Exported, total)
				}
				continue
			}
			// If nobody noticed, it was where nothing stands that this query reads.
			got := make(sumOf)
			got.add(p, everything)
			checkSum(t, f.path(), got, want)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said < 3*len(files) {
		t.Errorf("of %d damaged files only %d were said to be", 12*len(files), said)
	}
	got := make(sumOf)
	got.add(mustRead(t, r, query.Query{}, query.Labels...), everything)
	checkSum(t, "whole again", got, want)
}

// A directory and a file that cannot be opened are left out and said; the others answer.
func TestUnreadableIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	const nobody = 65534
	for _, path := range []string{dir, filepath.Dir(dir)} { // the test's own
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, start := clockAt(t, "2026-11-23T23:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(9)
	var sent []uint64
	for i := range 4 { // two before midnight, two after
		p := host.Interval(start.Add(time.Duration(i)*30*time.Minute), 10*time.Second)
		sent = append(sent, p.Account.Exported)
		c.export(s, p)
	}
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	intervals := arrange(files).intervals
	for _, f := range files {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, f.path()), 0o644), os.Chmod(filepath.Join(dir, f.dir()), 0o755), os.Chmod(filepath.Join(dir, filepath.Dir(f.dir())), 0o755))
	}
	for at := filepath.Join(dir, filepath.Dir(intervals[0].dir())); at != dir; at = filepath.Dir(at) {
		err = errors.Join(err, os.Chmod(at, 0o755))
	}
	err = errors.Join(err, os.Chmod(filepath.Join(dir, "v1", "stacks"), 0o755), // the first date's samples, and one of the second's
		os.Chmod(filepath.Join(dir, intervals[0].dir()), 0), os.Chmod(filepath.Join(dir, intervals[2].path()), 0), syscall.Setresuid(-1, nobody, -1))
	if err != nil {
		t.Fatal(err)
	}
	p, answer, readErr := NewReader(dir, nil).Read(t.Context(), query.Query{})
	// With a focus samples are read twice.
	_, twice, seriesErr := NewReader(dir, nil).Series(t.Context(), query.Query{Focus: regexp.MustCompile("main")}, time.Minute)
	if err := syscall.Setresuid(-1, 0, -1); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(readErr, seriesErr); err != nil {
		t.Fatal(err)
	}
	if len(twice.Warnings) != 2 {
		t.Errorf("with a focus: %v", twice.Warnings)
	}
	said := fmt.Sprint(answer.Warnings)
	if p.Account.Exported != sent[3] || len(answer.Warnings) != 2 || !strings.Contains(said, intervals[0].dir()) || !strings.Contains(said, intervals[2].path()) {
		t.Errorf("%d samples, not %d: %s", p.Account.Exported, sent[3], said)
	}
}

// A query that needs hours of intervals opens an hour's files at a time: it does not need as many descriptors as there are files.
func TestDescriptorsAreBounded(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T14:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	p := smallHost(9).Interval(start, 10*time.Second)
	s.Export(p)
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := arrange(files).intervals[0]
	for i := 1; i < 3*360; i++ { // the same file: none of its rows are of the time that the other names tell
		f := first
		f.start = start.Add(time.Duration(i) * 10 * time.Second)
		if err := os.Link(filepath.Join(dir, first.path()), filepath.Join(dir, f.path())); err != nil {
			t.Fatal(err)
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: maxOpenFiles + 100, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, NewReader(dir, nil), query.Query{}); got.Account.Exported != p.Account.Exported {
		t.Errorf("%d samples, not %d", got.Account.Exported, p.Account.Exported)
	}
}
