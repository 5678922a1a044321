package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// stackFiles are how many files of an hour's stacks count, by their span.
func stackFiles(s *Store, hour time.Time) (n [spanDay + 1]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range arrange(s.files).stacks {
		if f.start.Truncate(time.Hour).Equal(hour) {
			n[f.span]++
		}
	}
	return n
}

// Where each interval brings new stacks, these do not wait for the end of their hour, and are one file when it is over: whatever a crash left of the others, and after the
// clock went back into it.
func TestPartsOfHours(t *testing.T) {
	t.Parallel()
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
	perPart := int(partLength / (10 * time.Second))
	for i := range 2*perPart + 9 {
		export(uint64(i), hour.Add(time.Duration(i)*10*time.Second))
		if n := stackFiles(s, hour); n[spanInterval] >= perPart+7 {
			t.Fatalf("%d intervals' files of stacks after interval %d", n[spanInterval], i)
		}
	}
	if n := stackFiles(s, hour); n != [...]int{9, 2, 0, 0} {
		t.Fatalf("the stacks are in %v files, want 9 of intervals and 2 of parts", n)
	}
	same(t, "while the hour is under way", read(t, dir, false), want)

	earlier := make(map[string][]byte) // by path
	for _, f := range slices.Clone(s.files) {
		if f.table == tableStacks {
			path := filepath.Join(dir, f.path())
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			earlier[path] = content
		}
	}
	checkOne := func(when string) {
		settle(t, s)
		if n := stackFiles(s, hour); n != [...]int{0, 0, 1, 0} {
			t.Errorf("%s: the stacks are in %v files, want one of the hour", when, n)
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
	same(t, "after a crash, before the start", read(t, dir, false), want)
	s = openStore(t, Options{Dir: dir, now: c.time})
	checkOne("after a crash")
	for path := range earlier {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}

	// The clock goes back into the hour, and into one of its parts twice.
	for i := range perPart + 9 {
		export(uint64(1000+i), hour.Add(time.Duration(i)*10*time.Second))
	}
	export(2000, hour)
	same(t, "after the clock went back", read(t, dir, false), want)
	c.set(hour.Add(48 * time.Hour))
	settle(t, s)
	same(t, "in the end", read(t, dir, false), want)
	if files, err := list(dir, nil); err != nil || len(files) != 2 {
		t.Errorf("left: %v, %v", files, err)
	}
}
