package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// stackFiles are those that count of an hour: how many intervals, and of the whole hour.
func stackFiles(s *Store, hour time.Time) (intervals, hours int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range arrange(s.files).stacks {
		switch {
		case !f.start.Truncate(time.Hour).Equal(hour):
		case f.span == spanInterval:
			intervals++
		default:
			hours++
		}
	}
	return intervals, hours
}

// Stacks do not wait for the end of their hour where each interval brings new ones, and are one file when it is over: whatever a crash left of the others, and
// after the clock went back into it.
func TestStacksGather(t *testing.T) {
	dir := t.TempDir()
	c, hour := clockAt(t, "2026-11-24T17:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	want := make(content)
	export := func(seed uint64, when time.Time) {
		p := busyhost.New(busyhost.Options{Seed: seed, CPUs: 1, Processes: 3, Stacks: 20, Frames: 6}).Interval(when, 10*time.Second)
		want.addProfile(p)
		c.export(s, p)
		settle(t, s)
	}
	const intervals = 3*gatheredStacks + 5
	earlier := make(map[string][]byte) // by path
	for i := range intervals {
		export(uint64(i), hour.Add(time.Duration(i)*10*time.Second))
		if n, _ := stackFiles(s, hour); n >= gatheredStacks {
			t.Fatalf("%d intervals' files of stacks after interval %d", n, i)
		}
	}
	if n, hours := stackFiles(s, hour); n != 5 || hours != 3 {
		t.Fatalf("the stacks are in %d files of intervals and %d of more, want 5 and 3", n, hours)
	}
	same(t, "while the hour is under way", read(t, dir, false), want)
	for _, f := range slices.Clone(s.files) {
		if f.table == tableStacks {
			content, err := os.ReadFile(filepath.Join(dir, f.path()))
			if err != nil {
				t.Fatal(err)
			}
			earlier[filepath.Join(dir, f.path())] = content
		}
	}
	checkOne := func(when string) {
		settle(t, s)
		if n, hours := stackFiles(s, hour); n != 0 || hours != 1 {
			t.Errorf("%s: the stacks are in %d files of intervals and %d of more, want one of the hour", when, n, hours)
		}
		same(t, when, read(t, dir, false), want)
	}
	c.set(hour.Add(time.Hour + 2*time.Minute))
	checkOne("after the hour")

	// A crash came before they were removed.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path, content := range earlier {
		if err := os.WriteFile(path, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, Options{Dir: dir, now: c.time})
	checkOne("after a crash")
	for path := range earlier {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}

	// The clock goes back into the hour.
	for i := range gatheredStacks + 2 {
		export(uint64(1000+i), hour.Add(time.Duration(i)*10*time.Second))
	}
	same(t, "after the clock went back", read(t, dir, false), want)
	c.set(hour.Add(time.Hour + 2*time.Minute))
	checkOne("after the hour was over twice")

	c.set(hour.Add(48 * time.Hour))
	settle(t, s)
	same(t, "in the end", read(t, dir, false), want)
	files, err := list(dir, nil)
	if err != nil || len(files) != 3 {
		t.Error(fmt.Sprint("left: ", files), err)
	}
}

// A file that cannot be removed costs one that holds the same, not one more with each try.
func TestStacksThatStay(t *testing.T) {
	dir := t.TempDir()
	c, hour := clockAt(t, "2026-11-24T17:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	for i := range gatheredStacks + 3 {
		c.export(s, busyhost.New(busyhost.Options{Seed: uint64(i), CPUs: 1, Processes: 3, Stacks: 20, Frames: 6}).Interval(hour.Add(time.Duration(i)*10*time.Second), 10*time.Second))
		settle(t, s)
	}
	path := filepath.Join(dir, (&file{table: tableStacks, host: "here", start: hour, span: spanHour}).path())
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount (root?): %v", err)
	}
	unmounted := false
	unmount := func() {
		if !unmounted {
			_ = unix.Unmount(path, unix.MNT_DETACH)
		}
		unmounted = true
	}
	defer unmount()
	for minutes := 62; minutes < 90; minutes += 6 {
		c.set(hour.Add(time.Duration(minutes) * time.Minute))
		settle(t, s)
	}
	if n, hours := stackFiles(s, hour); n != 0 || hours != 2 {
		t.Errorf("the stacks are in %d files of intervals and %d of more, want the one that stays and another one", n, hours)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	unmount()
	s = openStore(t, Options{Dir: dir, now: c.time})
	settle(t, s)
	if n, hours := stackFiles(s, hour); n != 0 || hours != 1 {
		t.Errorf("opened again: the stacks are in %d files of intervals and %d of more, want one of the hour", n, hours)
	}
}
