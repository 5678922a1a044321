package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("pilotlight-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a small file system (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// leave fills the disk up to a number of free pages.
func leave(t *testing.T, dir string, pages int64) {
	t.Helper()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if size := (int64(disk.Bfree) - pages) * disk.Bsize; size > 0 {
		if err := os.WriteFile(filler, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func unfill(t *testing.T, dir string) {
	t.Helper()
	if err := removeFile(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
}

// A disk that is full, whatever write finds it so, costs the interval and is counted; the next one is written as soon as there is room, and
// nothing that was acknowledged is lost. The same in compaction.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "size=8m")
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	var log bytes.Buffer
	s := openStore(t, Options{Dir: dir, now: c.time, free: freeBytes, MinFree: -1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	want := make(content)
	var dropped, droppedSamples uint64
	fullAt := 0
	for pages := int64(0); ; pages++ {
		host := busyhost.New(busyhost.Options{Seed: uint64(pages), CPUs: 1, Processes: 10, Stacks: 120, Frames: 10}) // all stacks are new
		leave(t, dir, pages)
		p := host.Interval(when, 10*time.Second)
		c.set(when.Add(10 * time.Second))
		when = when.Add(10 * time.Second)
		before := s.Stats().Intervals
		s.Export(p)
		written := s.Stats().Intervals > before
		if written {
			want.addProfile(p)
		} else {
			dropped++
			droppedSamples += p.Account.Taken
		}
		unfill(t, dir)
		again := host.Interval(when, 10*time.Second)
		when = when.Add(10 * time.Second)
		c.set(when)
		s.Export(again)
		want.addProfile(again)
		same(t, fmt.Sprintf("after %d pages were left", pages), read(t, dir, false), want)
		if t.Failed() {
			return
		}
		if written {
			break
		}
		fullAt++
	}
	stats := s.Stats()
	if stats.Dropped[DropDiskFull] != dropped || stats.DroppedSamples[DropDiskFull] != droppedSamples || fullAt < 5 || stats.Dropped[DropFailed] != 0 {
		t.Errorf("%d intervals were dropped at %d places, of %d samples: %+v", dropped, fullAt, droppedSamples, stats)
	}
	if n := strings.Count(log.String(), "no space left"); n == 0 || n > 2*int(dropped) {
		t.Errorf("it was said %d times:\n%s", n, log.String())
	}
	t.Logf("an interval was refused with 0 to %d pages left", fullAt-1)

	// Compaction: stacks and samples of the hour.
	compactions := stats.Compactions
	c.set(at(t, "2026-11-24T03:00:00Z"))
	for pages := int64(0); hasWork(s); pages += 2 {
		leave(t, dir, pages)
		s.compact(t.Context())
		if hasWork(s) {
			t.Fatal("what failed is tried again at once")
		}
		c.set(c.time().Add(retryAfter))
		same(t, fmt.Sprintf("compaction with %d pages left", pages), read(t, dir, false), want)
		unfill(t, dir)
		if t.Failed() {
			return
		}
	}
	same(t, "after compaction, coarse", read(t, dir, true), want)
	refused := s.Stats().Failures
	if refused < 5 || s.Stats().Compactions != compactions+2 {
		t.Errorf("compaction was refused %d times; %+v", refused, s.Stats())
	}
	t.Logf("compaction was refused %d times", refused)
}

func hasWork(s *Store) bool {
	_, run := s.due()
	return run != nil
}

// A disk that is full when the history is opened for the first time is one that is full: the history begins when there is room.
func TestDiskFullAtFirst(t *testing.T) {
	dir := smallDisk(t, "size=1m,nr_inodes=2")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Dir: dir, free: freeBytes, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	host := smallHost(1)
	s.Export(host.Interval(time.Now(), 10*time.Second))
	if stats := s.Stats(); stats.Dropped[DropDiskFull] != 1 || stats.Intervals != 0 {
		t.Errorf("full: %+v", stats)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	p, want := host.Interval(time.Now(), 10*time.Second), make(content)
	want.addProfile(p)
	s.Export(p)
	same(t, "with room", read(t, dir, false), want)
}

// become makes this process one without root's privileges until the test ends, and gives it a directory.
func become(t *testing.T, dir string) {
	t.Helper()
	const nobody = 65534
	if err := errors.Join(os.Chown(dir, nobody, nobody), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setresuid(-1, nobody, -1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setresuid(-1, 0, -1); err != nil {
			t.Fatal(err)
		}
	})
}

// A file that cannot be opened keeps its hour from being compacted, and a directory what is in it; nothing else, and nothing that belongs to them goes.
// Both are tried again after a while, said once, and compacted when they can be.
func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	become(t, dir)
	c, when := clockAt(t, "2026-11-23T22:00:03Z")
	o := Options{Dir: dir, now: c.time}
	s := openStore(t, o)
	host, want := smallHost(1), make(content)
	for i := range 7 * 6 { // seven hours, the first two of another date
		p := host.Interval(when, 10*time.Second)
		s.Export(p)
		want.addProfile(p)
		when = when.Add(10 * time.Minute)
		c.set(when)
		if i == 6*6-1 {
			settle(t, s) // hours 22 to 02
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	hours, bad := filepath.Join(dir, "v1/samples/resolution=1h/host=here/date=2026-11-23"), arrange(s.files).intervals[2]
	shut := func(mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.Chmod(filepath.Join(dir, bad.path()), mode&0o600), os.Chmod(hours, mode)); err != nil {
			t.Fatal(err)
		}
	}
	shut(0)
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	c.set(when.Add(-time.Hour)) // nothing is due when it is opened
	s = openStore(t, o)
	c.set(when.Add(2 * time.Hour)) // hours 03 and 04 are due
	for range 3 {
		settle(t, s)
	}
	h := arrange(s.files)
	if stats := s.Stats(); stats.Failures != 1 || !hasHour(h.hours, "20261124T04") || len(h.intervals) != 6 {
		t.Errorf("with an unreadable file and directory: %d intervals are left, %+v\n%s", len(h.intervals), stats, log.String())
	}
	c.set(c.time().Add(retryAfter))
	settle(t, s)
	if stats := s.Stats(); stats.Failures != 2 || stats.Removed != 0 || stats.Damaged != 0 {
		t.Errorf("after a while: %+v", stats)
	}
	for _, path := range []string{hours, bad.path()} {
		if n := strings.Count(log.String(), path+": permission denied"); n == 0 || n > 2 { // as it is opened, as it is compacted
			t.Errorf("%s is said %d times:\n%s", path, n, log.String())
		}
	}
	shut(0o750)
	c.set(c.time().Add(retryAfter))
	s.relistLater()
	settle(t, s)
	h = arrange(s.files)
	if len(h.intervals) != 0 || !hasHour(h.hours, "20261124T03") || !strings.Contains(log.String(), "again") {
		t.Errorf("readable again: %d intervals are left\n%s", len(h.intervals), log.String())
	}
	same(t, "readable again", read(t, dir, false), want)
	same(t, "readable again, coarse", read(t, dir, true), want)
}

func hasHour(files []file, stamp string) bool {
	return slices.ContainsFunc(files, func(f file) bool { return spanHour.stamp(f.start) == stamp })
}

// A disk without room for more files is a full one.
func TestNoInodes(t *testing.T) {
	dir := smallDisk(t, "size=8m,nr_inodes=40")
	s := openStore(t, Options{Dir: dir, free: freeBytes, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	host := smallHost(1)
	start := time.Now()
	for i := range 60 {
		s.Export(host.Interval(start.Add(time.Duration(i)*10*time.Second), 10*time.Second))
	}
	if stats := s.Stats(); stats.Intervals < 10 || stats.Dropped[DropDiskFull] < 10 || stats.Dropped[DropFailed] != 0 {
		t.Errorf("%+v", stats)
	}
}

// Where others need the space, what is older than an hour goes, the oldest first; then nothing is written, and it goes on when there is room.
func TestDiskLow(t *testing.T) {
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	var free atomic.Int64
	free.Store(100)
	s := openStore(t, Options{Dir: dir, now: c.time, MinFree: 50, free: func(string) (int64, error) { return free.Load(), nil }, Log: slog.New(slog.DiscardHandler)})
	host := smallHost(1)
	for range 18 { // three hours
		s.Export(host.Interval(when, 10*time.Second))
		when = when.Add(10 * time.Minute)
		c.set(when)
	}
	settle(t, s)
	free.Store(49)
	if err := s.retain(0); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	s.Export(host.Interval(when, 10*time.Second))
	oldest := when
	for _, f := range arrange(s.files).intervals {
		oldest = minTime(oldest, f.start)
	}
	if h := arrange(s.files); len(h.hours) > 0 || oldest.Before(when.Add(-time.Hour)) || len(h.intervals) < 5 {
		t.Errorf("%d files of hours, %d intervals since %v", len(h.hours), len(h.intervals), oldest)
	}
	stats := s.Stats()
	if stats.Dropped[DropDiskLow] != 1 || stats.Intervals != before.Intervals || stats.Removed == 0 {
		t.Errorf("%+v", stats)
	}
	free.Store(100)
	s.Export(host.Interval(when, 10*time.Second))
	if stats := s.Stats(); stats.Dropped[DropDiskLow] != 1 || stats.Intervals != before.Intervals+1 {
		t.Errorf("with room again: %+v", stats)
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// The oldest goes when the history would take more bytes than it may, with its stacks.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-22T00:00:03Z")
	const maxBytes = 600 << 10
	s := openStore(t, Options{Dir: dir, now: c.time, MaxBytes: maxBytes})
	host, newest := smallHost(1), make(content)
	dates := make(map[string]bool) // that have stacks
	for i := range 6 * 60 {        // two and a half days
		p := host.Interval(when, 10*time.Second)
		s.Export(p)
		if i >= 6*60-6 {
			newest.addProfile(p)
		}
		when = when.Add(10 * time.Minute)
		c.set(when)
		if i%6 == 0 {
			settle(t, s)
			var bytes int64
			before := len(dates)
			clear(dates)
			if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && !entry.IsDir() {
					info, _ := entry.Info()
					bytes += info.Size()
					if strings.Contains(path, "/stacks/") {
						dates[filepath.Dir(path)] = true
					}
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			least := int64(maxBytes / 2)
			if len(dates) < before { // with the last samples of a date went its stacks, a third of all
				least = maxBytes / 3
			}
			if bytes > maxBytes || i > 100 && bytes < least {
				t.Fatalf("after %d intervals the history takes %d bytes", i, bytes)
			}
		}
	}
	settle(t, s)
	h := arrange(s.files)
	if len(h.hours) == 0 || s.Stats().Removed == 0 {
		t.Errorf("%d files of hours, %d removed", len(h.hours), s.Stats().Removed)
	}
	clear(dates)
	for _, f := range append(h.hours, h.intervals...) {
		dates[f.start.Format(dateLayout)] = true
	}
	for _, f := range h.stacks {
		if !dates[f.start.Format(dateLayout)] {
			t.Errorf("%s is there without samples", f.path())
		}
	}
	got := read(t, dir, false)
	for key, v := range newest {
		if got[key][0] < v[0] {
			t.Fatalf("%.100s: %d samples, %d of them are of the last hour", key, got[key][0], v[0])
		}
	}
}

// compactedHours has files of each kind but of days: intervals of less than three hours, most of which have been compacted.
func compactedHours(t *testing.T) (s *Store, dir string) {
	dir = t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	s = openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(1)
	for range 40 {
		s.Export(host.Interval(when, 10*time.Second))
		when = when.Add(4 * time.Minute)
		c.set(when)
	}
	settle(t, s)
	return s, dir
}

// A bit that flipped anywhere, and an end that is missing, is an error with file and offset.
func TestDamageIsSeen(t *testing.T) {
	t.Parallel()
	s, dir := compactedHours(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	places := int64(120)
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		places = 4000
	}
	kinds := make(map[string]bool)
	for _, f := range s.files {
		kind := fmt.Sprint(f.table, f.resolution, f.span)
		if kinds[kind] {
			continue
		}
		kinds[kind] = true
		path := filepath.Join(dir, f.path())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		step := max(int64(len(whole))/places, 1)
		for at := int64(0); at < int64(len(whole)); at += step {
			damaged := bytes.Clone(whole)
			damaged[at] ^= 1 << (at % 8)
			checkDamage(t, path, damaged, f.table, fmt.Sprintf("bit %d of byte %d flipped", at%8, at))
			checkDamage(t, path, whole[:at], f.table, fmt.Sprintf("cut off at %d", at))
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := readWhole(path, f.table); err != nil {
			t.Fatal(err)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("only these kinds of files were tried: %v", kinds)
	}
}

func readWhole(path, table string) (err error) {
	if table == tableStacks {
		_, err = readAll[StackRow](path)
	} else {
		_, err = readAll[SampleRow](path)
	}
	return err
}

func checkDamage(t *testing.T, path string, content []byte, table, what string) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	err := readWhole(path, table)
	var damage *DamageError
	if !errors.As(err, &damage) {
		t.Errorf("%s, %s: %v", path, what, err)
		return
	}
	if damage.Path != path || damage.Offset < 0 || damage.Offset > int64(len(content)) || !strings.Contains(err.Error(), fmt.Sprintf("damaged at offset %d", damage.Offset)) {
		t.Errorf("%s: %v", what, err)
	}
}

// Damaged files are set aside, counted and said: those that cannot be opened when the store is, the others when they are compacted. The rest
// is there to the sample.
func TestDamagedFilesAreSetAside(t *testing.T) {
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host, want := smallHost(1), make(content)
	var profiles []content
	for i := range 6 {
		p := host.Interval(when, 10*time.Second)
		s.Export(p)
		profiles = append(profiles, make(content))
		profiles[i].addProfile(p)
		when = when.Add(10 * time.Minute)
		c.set(when)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	intervals := arrange(s.files).intervals
	flip := func(f file, offset int64) string {
		path := filepath.Join(dir, f.path())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole[(offset+int64(len(whole)))%int64(len(whole))] ^= 4
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	footer := flip(intervals[1], -20)
	for i, p := range profiles {
		if i == 1 || i == 3 {
			continue
		}
		for key, v := range p {
			want[key] = [2]int64{want[key][0] + v[0], want[key][1] + v[1]}
		}
	}
	var log bytes.Buffer
	s = openStore(t, Options{Dir: dir, now: c.time, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if stats := s.Stats(); stats.Damaged != 1 {
		t.Errorf("opened: %+v", stats)
	}
	data := flip(intervals[3], 300)
	c.set(when.Add(2 * time.Hour))
	settle(t, s)
	if stats := s.Stats(); stats.Damaged != 2 {
		t.Errorf("compacted: %+v", stats)
	}
	same(t, "without the two", read(t, dir, false), want)
	same(t, "without the two, coarse", read(t, dir, true), want)
	for _, path := range []string{footer, data} {
		if _, err := os.Stat(path + damagedSuffix); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), path) || !strings.Contains(log.String(), "offset=") {
			t.Errorf("nothing is said of %s:\n%s", path, log.String())
		}
	}
	// They do not stay for ever.
	c.set(when.Add(DefaultMaxAge + 24*time.Hour))
	settle(t, s)
	for _, path := range []string{footer, data} {
		if _, err := os.Stat(path + damagedSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there still: %v", path, err)
		}
	}
	if !strings.Contains(log.String(), "set aside is removed") {
		t.Error("their removal was not said")
	}
}

// Stacks that are lost by damage are written again with the next samples that have them.
func TestDamagedStacks(t *testing.T) {
	dir := t.TempDir()
	c, when := clockAt(t, "2026-11-24T00:00:03Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(1)
	s.Export(host.Interval(when, 10*time.Second))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h := arrange(s.files)
	if err := os.Truncate(filepath.Join(dir, h.stacks[0].path()), 100); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, h.intervals[0].path())); err != nil { // it would miss its stacks
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir, now: c.time, Log: slog.New(slog.DiscardHandler)})
	p, want := host.Interval(when.Add(time.Minute), 10*time.Second), make(content)
	want.addProfile(p)
	s.Export(p)
	same(t, "after the stacks were damaged", read(t, dir, false), want)
}
