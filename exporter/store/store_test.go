package store

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// clock is the time of a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// export has a store write a profile when that ends.
func (c *clock) export(s *Store, p *profile.Profile) {
	c.set(p.Start.Add(p.Duration))
	s.Export(p)
}

func plenty(string) (int64, error) { return 1 << 50, nil }

// openStore opens a store whose maintenance the test calls itself: settle.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Host == "" {
		o.Host = "here"
	}
	if o.free == nil {
		o.free = plenty
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// settle waits until the store has nothing to do.
func settle(t testing.TB, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		s.rouse()
		s.mu.Lock()
		idle := len(s.planned) == 0
		s.mu.Unlock()
		if idle && !hasWork(s) && s.retain(0) == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the store does not settle")
		}
	}
}

// content is all that the history says, in words, with its counts and values. Times are left out of what is said of minutes and hours.
type content map[string][2]int64

func (c content) add(stack, series string, count, value int64) {
	key := stack + " | " + series
	sum := c[key]
	c[key] = [2]int64{sum[0] + count, sum[1] + value}
}

func (c content) total() (count int64) {
	for _, v := range c {
		count += v[0]
	}
	return count
}

func describe(row *SampleRow) string {
	return fmt.Sprintf("%s/%s/%d lost=%q pid=%d/%d comm=%q thread=%q exe=%q cgroup=%q container=%q service=%q pod=%q unit=%q",
		row.Type, row.Unit, row.Period, row.LossReason, row.PID, row.TID, row.Comm, row.Thread, row.Exe, row.Cgroup, row.ContainerID, row.Service, row.PodUID, row.SystemdUnit)
}

// addProfile adds what a profile holds, by the words of the tables but not by what wrote them.
func (c content) addProfile(p *profile.Profile) {
	for i := range p.Samples {
		s := &p.Samples[i]
		var frames []string
		s.Walk(func(l *profile.Location) {
			for _, line := range l.Lines {
				frames = append(frames, fmt.Sprintf("%s:%d %s", line.Function.File, line.Line, l.Mapping.Path))
			}
		}, func(reason string) { frames = append(frames, reason) })
		row := SampleRow{Type: p.Type.Name, Unit: p.Type.Unit, Period: p.Period, PID: int32(s.Labels.PID), TID: int32(s.Labels.TID), Comm: s.Labels.Comm,
			Thread: s.Labels.Thread, Exe: s.Labels.Exe, Cgroup: s.Labels.Cgroup, ContainerID: s.Labels.ContainerID, Service: s.Labels.ServiceName(), PodUID: s.Labels.PodUID, SystemdUnit: s.Labels.Unit}
		c.add(strings.Join(frames, ";"), describe(&row), s.Count, s.Value)
	}
	for _, loss := range p.Account.Lost {
		if loss.Count > 0 {
			row := SampleRow{Type: p.Type.Name, Unit: p.Type.Unit, Period: p.Period, LossReason: loss.Reason}
			c.add("", describe(&row), int64(loss.Count), 0)
		}
	}
}

// readAll reads a file's rows one by one.
func readAll[T any](path string) (rows []T, err error) {
	f, err := openChecked(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := parquet.NewGenericReader[T](f.File)
	defer r.Close()
	rows = make([]T, r.NumRows())
	n, err := r.Read(rows)
	if err == io.EOF {
		err = nil
	}
	return rows[:n], err
}

// read reads a whole history from its files; coarse: hours as they are, not minute by minute.
func read(t testing.TB, dir string, coarse bool) content {
	t.Helper()
	c := make(content)
	visit(t, dir, coarse, func(stack string, row *SampleRow) { c.add(stack, describe(row), row.Count, row.Value) })
	return c
}

// visit calls back for each row of a history, with its stack in words.
func visit(t testing.TB, dir string, coarse bool, row func(stack string, row *SampleRow)) {
	t.Helper()
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := arrange(files)
	stacks := make(map[string]map[int64]string) // by date: each is complete in itself
	for _, f := range h.stacks {
		date := f.start.Format(dateLayout)
		if stacks[date] == nil {
			stacks[date] = make(map[int64]string)
		}
		addStacks(t, filepath.Join(dir, f.path()), stacks[date])
	}
	for _, f := range slices.Concat(h.hours, h.minutes, h.intervals) {
		rows, err := readAll[SampleRow](filepath.Join(dir, f.path()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			if f.resolution == resolutionInterval && rows[i].LossReason == "" && int64(len(rows[i].Ticks)) != rows[i].Count {
				t.Errorf("%s: %d times of %d samples", f.path(), len(rows[i].Ticks), rows[i].Count)
			}
			stack, ok := stacks[f.start.Format(dateLayout)][rows[i].StackID]
			if !ok && rows[i].StackID != 0 {
				t.Fatalf("%s: stack %x is not among those of its date", f.path(), rows[i].StackID)
			}
			if coarse || len(rows[i].Minutes) == 0 {
				row(stack, &rows[i])
				continue
			}
			if len(rows[i].Minutes) != minutesPerHour || rows[i].Duration != int64(time.Hour) {
				t.Errorf("%s: %d minutes of %v", f.path(), len(rows[i].Minutes), time.Duration(rows[i].Duration))
			}
			sum := int64(0)
			for minute, n := range rows[i].Minutes {
				of := rows[i]
				of.Time += int64(minute) * time.Minute.Milliseconds()
				of.Count, of.Value = int64(n), rows[i].Value/rows[i].Count*int64(n)
				if n > 0 {
					row(stack, &of)
				}
				sum += int64(n)
			}
			if sum != rows[i].Count || rows[i].Value%rows[i].Count != 0 {
				t.Errorf("%s: minutes of %d samples in a row of %d, worth %d", f.path(), sum, rows[i].Count, rows[i].Value)
			}
		}
	}
}

// addStacks reads the stacks of a file, in words.
func addStacks(t testing.TB, path string, stacks map[int64]string) {
	t.Helper()
	rows, err := readAll[StackRow](path)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var frames []string
		for _, frame := range row.Frames {
			if frame.Kind == kindTruncated {
				frames = append(frames, frame.Missing)
				continue
			}
			frames = append(frames, fmt.Sprintf("%s:%d %s", frame.File, frame.Line, frame.Module))
		}
		if _, twice := stacks[row.StackID]; twice {
			t.Errorf("stack %x stands twice in a date, the second time in %s", row.StackID, path)
		}
		stacks[row.StackID] = strings.Join(frames, ";")
	}
}

func same(t testing.TB, what string, got, want content) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	wrong := 0
	for key, v := range want {
		if got[key] != v {
			if wrong++; wrong < 4 {
				t.Logf("%.300s: %v, want %v", key, got[key], v)
			}
		}
	}
	t.Errorf("%s: %d samples in %d rows, want %d in %d; %d of those differ", what, got.total(), len(got), want.total(), len(want), wrong)
}

func smallHost(seed uint64) *busyhost.Host {
	return busyhost.New(busyhost.Options{Seed: seed, CPUs: 2, Processes: 20, Stacks: 300, Frames: 12})
}

// What the history says is the sum of what was sent, at each resolution, before and after each compaction, and after it was opened again.
func TestSumsAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-23T21:58:07.345Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host, want := smallHost(1), make(content)
	// Five hours in steps of ten minutes, the last interval of an hour across its end, and a step of 100 minutes back at midnight.
	when := start
	for i := range 60 {
		if i == 30 {
			when = when.Add(-100 * time.Minute)
		}
		p := host.Interval(when, 10*time.Second)
		want.addProfile(p)
		c.set(when.Add(10 * time.Second))
		s.Export(p)
		if i%13 == 5 {
			settle(t, s)
			same(t, fmt.Sprint("after interval ", i), read(t, dir, false), want)
			same(t, fmt.Sprint("after interval ", i, ", coarse"), read(t, dir, true), want)
		}
		if i%20 == 10 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, Options{Dir: dir, now: c.time})
			host.NextHour()
		}
		when = when.Add(5*time.Minute - 3*time.Second)
	}
	c.set(when.Add(48 * time.Hour))
	settle(t, s)
	same(t, "in the end", read(t, dir, false), want)
	same(t, "in the end, coarse", read(t, dir, true), want)
	var names []string
	files, err := list(dir, func(path string, _ fs.FileInfo) { names = append(names, path) })
	if err != nil || len(names) > 0 {
		t.Errorf("left over: %v, %v", names, err)
	}
	for _, f := range files {
		names = append(names, strings.TrimPrefix(f.path(), "v1/"))
		if f.span == spanInterval {
			t.Errorf("%s was not compacted", f.path())
		}
	}
	if len(files) > 9 {
		t.Errorf("%d files are left of two days: %s", len(files), strings.Join(names, " "))
	}
	if stats := s.Stats(); stats.Damaged != 0 || stats.Dropped[DropFailed] != 0 {
		t.Errorf("%+v", stats)
	}
}
