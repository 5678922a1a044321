package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// olderRow is SampleRow as it was before it had columns for service, pod and unit.
type olderRow struct {
	Time        int64   `parquet:"time,timestamp(millisecond),dict"`
	Duration    int64   `parquet:"duration"`
	Type        string  `parquet:"type,dict"`
	Unit        string  `parquet:"unit,dict"`
	Period      int64   `parquet:"period"`
	StackID     int64   `parquet:"stack_id,dict"`
	LossReason  string  `parquet:"loss_reason,dict"`
	PID         int32   `parquet:"pid,dict"`
	TID         int32   `parquet:"tid,dict"`
	Comm        string  `parquet:"comm,dict"`
	Thread      string  `parquet:"thread,dict"`
	Exe         string  `parquet:"exe,dict"`
	Cgroup      string  `parquet:"cgroup,dict"`
	ContainerID string  `parquet:"container_id,dict"`
	Count       int64   `parquet:"count"`
	Value       int64   `parquet:"value,dict"`
	Ticks       []int32 `parquet:"ticks,list"`
}

// makeOlder writes files of a history again, as they were written before.
func makeOlder[Row any](t *testing.T, dir, table string, which func(*file) bool, options ...parquet.WriterOption) {
	t.Helper()
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.table != table || !which(&f) {
			continue
		}
		path := filepath.Join(dir, f.path())
		c, err := openChecked(path)
		if err != nil {
			t.Fatal(err)
		}
		covered, _ := c.Lookup(coverageKey)
		_ = c.Close()
		rows, err := readAll[Row](path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		d, err := newDraft(dir, &f)
		if err != nil {
			t.Fatal(err)
		}
		w := parquet.NewGenericWriter[Row](d, append(writerOptions(fastCompression, maxSampleRows), options...)...)
		w.SetKeyValueMetadata(coverageKey, covered)
		if _, err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := d.finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.publish(); err != nil {
			t.Fatal(err)
		}
		if c, err = openChecked(path); err != nil {
			t.Fatal(err)
		}
		columns := c.Metadata().RowGroups[0].Columns
		id, _ := c.Schema().Lookup("stack_id")
		dictionary := columns[id.ColumnIndex].MetaData.DictionaryPageOffset != 0
		if _ = c.Close(); !hasVersion2(columns) || table == tableSamples && !dictionary {
			t.Fatalf("%s is not as older files are", path)
		}
	}
}

// A history that an older version began is read and compacted with what comes after it, in the same hour and in the same day.
func TestOlderFiles(t *testing.T) {
	t.Parallel()
	t.Run("fewer columns", func(t *testing.T) {
		testOlderFiles(t, true, func(t *testing.T, dir string, which func(*file) bool) {
			makeOlder[olderRow](t, dir, tableSamples, which, parquet.DataPageVersion(2))
		})
	})
	t.Run("other encodings", func(t *testing.T) {
		testOlderFiles(t, false, func(t *testing.T, dir string, which func(*file) bool) {
			makeOlder[SampleRow](t, dir, tableSamples, which, parquet.DataPageVersion(2), parquet.StructTag(`parquet:"stack_id,dict"`, "StackID"))
			makeOlder[StackRow](t, dir, tableStacks, which, parquet.DataPageVersion(2))
		})
	})
}

func testOlderFiles(t *testing.T, fewer bool, makeOlder func(t *testing.T, dir string, which func(*file) bool)) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T12:00:00Z")
	want := make(sumOf)
	host := smallHost(1)
	older := func(p *profile.Profile) *profile.Profile {
		q := *p
		q.Samples = nil
		for _, s := range p.Samples {
			l := *s.Labels
			l.Service, l.PodUID, l.Unit = "", "", ""
			s.Labels = &l
			q.Samples = append(q.Samples, s)
		}
		return &q
	}
	service := ""
	export := func(s *Store, when time.Time, before bool) {
		p := host.Interval(when, 10*time.Second)
		c.export(s, p)
		for _, sample := range p.Samples {
			if !before && sample.Labels.Service != "" {
				service = sample.Labels.Service
			}
		}
		if before && fewer {
			p = older(p)
		}
		want.add(p, everything)
	}
	s := openStore(t, Options{Dir: dir, now: c.time})
	export(s, start, true)
	export(s, start.Add(time.Hour), true)
	export(s, start.Add(time.Hour+time.Minute), true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	makeOlder(t, dir, func(*file) bool { return true })
	s = openStore(t, Options{Dir: dir, now: c.time})
	export(s, start.Add(time.Hour+2*time.Minute), false)
	export(s, start.Add(2*time.Hour), false)
	check := func(stage string) {
		t.Helper()
		r := NewReader(dir, nil)
		// What an older file does not say is "", not the name of the program.
		got := make(sumOf)
		got.add(mustRead(t, r, query.Query{}, query.Labels...), everything)
		checkSum(t, stage, got, want)
		filter, err := query.ParseFilter(`service="` + service + `"`)
		if err != nil {
			t.Fatal(err)
		}
		expected, found := int64(0), int64(0)
		for _, sample := range mustRead(t, r, query.Query{}, query.Labels...).Samples {
			if sample.Labels.Service == service {
				expected += sample.Count
			}
		}
		for _, sample := range mustRead(t, r, query.Query{Filter: filter}, "service").Samples {
			found += sample.Count
		}
		if found != expected || found == 0 {
			t.Errorf("%s: %d samples of service %s, want %d", stage, found, service, expected)
		}
	}
	check("intervals")
	c.set(start.Add(6 * time.Hour))
	settle(t, s)
	check("hours")
	// The first hour is one of older files alone.
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.table == tableSamples && f.span != spanHour {
			t.Errorf("%s is not compacted", f.path())
		}
	}
	makeOlder(t, dir, func(f *file) bool { return f.start.Equal(start) })
	check("an older hour")
	c.set(start.Add(30 * time.Hour))
	settle(t, s)
	check("day")
	if h := arrange(s.files); len(h.hours) != 1 || len(h.minutes) > 0 || h.hours[0].span != spanDay {
		t.Errorf("%+v", h)
	}
}

// The hours of stacks become a day, also those that an older version wrote: there are so many that they take several pages.
func TestStacksAreJoined(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprint("older ", older), func(t *testing.T) { testStacksAreJoined(t, older) })
	}
}

func testStacksAreJoined(t *testing.T, older bool) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T12:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := busyhost.New(busyhost.Options{CPUs: 12, Processes: 10, Stacks: 5000, Frames: 40})
	want := make(sumOf)
	for i := range 2 {
		for j := range 2 {
			p := host.Interval(start.Add(time.Duration(i)*time.Hour+time.Duration(j)*time.Minute), 10*time.Second)
			want.add(p, everything)
			c.export(s, p)
		}
		host.NextHour()
	}
	c.set(start.Add(6 * time.Hour))
	settle(t, s)
	if older {
		makeOlder[StackRow](t, dir, tableStacks, func(*file) bool { return true }, parquet.DataPageVersion(2))
	}
	c.set(start.Add(30 * time.Hour))
	settle(t, s)
	if h := arrange(s.files); len(h.stacks) != 1 || h.stacks[0].span != spanDay {
		t.Fatalf("%+v", h.stacks)
	}
	got := make(sumOf)
	got.add(mustRead(t, NewReader(dir, nil), query.Query{}, query.Labels...), everything)
	checkSum(t, "the day", got, want)
}

// What an older version compacted has a file of minutes beside that of hours. It is read as it is, and becomes hours that tell their minutes.
func TestOlderMinutes(t *testing.T) {
	t.Parallel()
	for _, span := range []span{spanHour, spanDay} {
		t.Run(span.stamp(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)), func(t *testing.T) { testOlderMinutes(t, span) })
	}
}

func testOlderMinutes(t *testing.T, to span) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T12:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(1)
	sent := make(sumOf)
	for i := range 12 {
		p := host.Interval(start.Add(time.Duration(i)*14*time.Minute), 10*time.Second)
		if i == 3 {
			p.Samples[0].Value++ // it is not worth its count
		}
		sent.add(p, everything)
		c.export(s, p)
	}
	c.set(start.Add(6 * time.Hour))
	if to == spanDay {
		c.set(start.Add(30 * time.Hour))
	}
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(dir, nil)
	series := func() *Series {
		t.Helper()
		got, _, err := r.Series(t.Context(), query.Query{}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	minutes, steps := readByMinute(t, dir), series()
	if len(minutes) != 12 {
		t.Fatalf("%d minutes, want 12", len(minutes))
	}
	check := func(stage string) {
		t.Helper()
		got := readByMinute(t, dir)
		for minute, want := range minutes {
			same(t, fmt.Sprint(stage, ", minute ", time.UnixMilli(minute).UTC()), got[minute], want)
		}
		if len(got) != len(minutes) {
			t.Errorf("%s: %d minutes, want %d", stage, len(got), len(minutes))
		}
		sums := make(sumOf)
		sums.add(mustRead(t, r, query.Query{}, query.Labels...), everything)
		checkSum(t, stage, sums, sent)
		if now := series(); !reflect.DeepEqual(now, steps) {
			t.Errorf("%s: %+v, want %+v", stage, now, steps)
		}
		if d := mustRead(t, r, query.Query{}).Duration; d != 2*time.Minute {
			t.Errorf("%s: %s were sampled", stage, d)
		}
	}
	check("as it is written now")
	made := arrange(s.files).hours
	for _, f := range made {
		makeMinutes(t, dir, f)
	}
	check("as it was written before")
	if to == spanHour { // it was ended before it wrote a day's minutes
		unfinished := made[0]
		unfinished.span, unfinished.start = spanDay, made[0].start.Truncate(24*time.Hour)
		if err := os.Link(filepath.Join(dir, made[0].path()), filepath.Join(dir, unfinished.path())); err != nil {
			t.Fatal(err)
		}
		check("with a day that is not finished")
	}
	s = openStore(t, Options{Dir: dir, now: c.time})
	settle(t, s)
	h := arrange(s.files)
	if len(h.minutes) > 0 || len(h.hours) != len(made) || h.hours[0].span != to {
		t.Errorf("%+v", h)
	}
	check("made anew")
}

// An older version that was ended before it wrote the minutes of an hour left its intervals.
func TestUnfinishedOlderHour(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T12:10:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	c.export(s, smallHost(1).Interval(start, 10*time.Second))
	interval := filepath.Join(dir, arrange(s.files).intervals[0].path())
	content, err := os.ReadFile(interval)
	if err != nil {
		t.Fatal(err)
	}
	c.set(start.Add(6 * time.Hour))
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := readByMinute(t, dir)
	hour := arrange(s.files).hours[0]
	makeMinutes(t, dir, hour)
	minutes := hour
	minutes.resolution = resolutionMinute
	if err := errors.Join(os.Remove(filepath.Join(dir, minutes.path())), os.WriteFile(interval, content, 0o640)); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir, now: c.time})
	settle(t, s)
	if h := arrange(s.files); len(h.hours) != 1 || len(h.intervals) > 0 {
		t.Errorf("%+v", h)
	}
	minute := start.UnixMilli()
	if got := readByMinute(t, dir); len(got) != 1 {
		t.Errorf("%d minutes", len(got))
	} else {
		same(t, "the minute", got[minute], want[minute])
	}
}

// Where the minutes of an older version are damaged, what it made of them for long spans counts.
func TestDamagedOlderMinutes(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T12:00:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	p := smallHost(1).Interval(start, 10*time.Second)
	c.export(s, p)
	c.set(start.Add(6 * time.Hour))
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	hour := arrange(s.files).hours[0]
	makeMinutes(t, dir, hour)
	minutes := hour
	minutes.resolution = resolutionMinute
	path := filepath.Join(dir, minutes.path())
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[100] ^= 1
	if err := os.WriteFile(path, content, 0o640); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir, now: c.time})
	settle(t, s)
	if _, err := os.Stat(path + damagedSuffix); err != nil {
		t.Error(err)
	}
	got, _, err := NewReader(dir, nil).Read(t.Context(), query.Query{}, "pid")
	if err != nil || got.Account.Exported != p.Account.Exported {
		t.Errorf("%d samples, want %d: %v", got.Account.Exported, p.Account.Exported, err)
	}
}

// makeMinutes makes of a file of hours what an older version had instead: a file of minutes, and one of hours that do not tell them.
func makeMinutes(t *testing.T, dir string, f file) {
	t.Helper()
	path := filepath.Join(dir, f.path())
	rows, err := readAll[SampleRow](path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openChecked(path)
	if err != nil {
		t.Fatal(err)
	}
	covered, _ := c.Lookup(coverageKey)
	_ = c.Close()
	older := f
	older.resolution = resolutionMinute
	d, err := newDraft(dir, &older)
	if err != nil {
		t.Fatal(err)
	}
	w := newSampleWriter(compression)
	w.Reset(d)
	w.SetKeyValueMetadata(coverageKey, covered)
	hour := func(i int) int64 { return rows[i].Time / time.Hour.Milliseconds() }
	for i, row := range rows {
		if i > 0 && hour(i) != hour(i-1) { // a row group is of one hour
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		of := []SampleRow{row}
		if len(row.Minutes) > 0 {
			of = of[:0]
		}
		for minute, n := range row.Minutes {
			if n == 0 {
				continue
			}
			m := row
			m.Time += int64(minute) * time.Minute.Milliseconds()
			m.Duration, m.Minutes = time.Minute.Nanoseconds(), nil
			m.Count, m.Value = int64(n), row.Value/row.Count*int64(n)
			of = append(of, m)
		}
		if _, err := w.Write(of); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), d.finish()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.publish(); err != nil {
		t.Fatal(err)
	}
	makeOlder[olderRow](t, dir, tableSamples, func(other *file) bool { return other.path() == f.path() }, parquet.DataPageVersion(2))
}
