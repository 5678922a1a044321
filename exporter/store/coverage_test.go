package store

import (
	"errors"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// The duration of an answer is the time that was sampled, idle or not, and not that in which no agent ran, whatever became of the files.
func TestDurationIsWhatWasSampled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T01:10:07.5Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(1)
	// Eight minutes of each of ten hours, of which nothing happens in two; and one interval of the next day.
	when := start
	for range 10 {
		for i := range 48 {
			p := host.Interval(when.Add(time.Duration(i)*10*time.Second), 10*time.Second)
			if i >= 30 && i < 42 {
				p = &profile.Profile{Type: p.Type, Start: p.Start, Duration: p.Duration, Period: p.Period}
			}
			s.Export(p)
		}
		when = when.Add(time.Hour)
		c.set(when)
	}
	s.Export(host.Interval(start.Add(24*time.Hour), 10*time.Second))
	r := NewReader(dir, nil)
	check := func(what string) {
		t.Helper()
		hour := start.Truncate(time.Hour)
		for _, x := range []struct {
			q    query.Query
			want time.Duration
		}{
			{query.Query{}, 80*time.Minute + 10*time.Second},
			{query.Query{From: hour, To: hour.Add(time.Hour)}, 8 * time.Minute},
			{query.Query{From: hour.Add(-time.Hour), To: hour.Add(8 * time.Hour)}, 64 * time.Minute},
			{query.Query{From: hour.Add(time.Hour), To: hour.Add(time.Hour + 14*time.Minute)}, 4 * time.Minute}, // 23 intervals begin in these minutes
		} {
			// Of a minute's samples the minute is known, not the second: an interval more or less at either end.
			if d := mustRead(t, r, x.q, "pid").Duration; d < x.want-20*time.Second || d > x.want+20*time.Second {
				t.Errorf("%s: %s to %s: %s, not %s", what, x.q.From, x.q.To, d, x.want)
			}
		}
	}
	check("intervals")
	settle(t, s)
	check("hours")
	c.set(start.Add(30 * time.Hour))
	settle(t, s)
	if h := arrange(s.files); len(h.hours) != 2 || h.hours[0].span != spanDay {
		t.Fatalf("%d files of hours", len(h.hours))
	}
	check("a day")

	// Of a range that begins and ends within an hour three pieces of the day are read: the hours between as they are, and the two at the ends minute by minute.
	from, to := start.Truncate(time.Hour).Add(13*time.Minute), start.Truncate(time.Hour).Add(8*time.Hour+13*time.Minute)
	if p, answer, err := r.Read(t.Context(), query.Query{From: from, To: to}, "pid"); err != nil || answer.Files < 4 || p.Duration < 64*time.Minute-20*time.Second ||
		p.Duration > 64*time.Minute+20*time.Second {
		t.Errorf("%s to %s: %v of %+v, not 64 min: %v", from, to, p.Duration, answer, err)
	}
}

// What is merged from files of which one does not say what it covers does not say it either: its duration is that of its spans.
func TestCoverageOfOlderFilesIsNotMadeUp(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T01:10:00Z")
	older := file{table: tableSamples, resolution: resolutionInterval, host: "here", start: start}
	d, err := newDraft(dir, &older)
	if err != nil {
		t.Fatal(err)
	}
	w := newSampleWriter(compression)
	w.Reset(d)
	row := SampleRow{Time: start.UnixMilli(), Duration: int64(10 * time.Second), Type: "cpu", Unit: "nanoseconds", Period: 1, Count: 1, Value: 1}
	if _, err := w.Write([]SampleRow{row}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), d.finish()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.publish(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(1)
	for _, after := range []time.Duration{10 * time.Second, time.Hour} {
		s.Export(host.Interval(start.Add(after), 10*time.Second))
	}
	for _, after := range []time.Duration{0, 4 * time.Hour, 30 * time.Hour} {
		c.set(start.Add(after))
		settle(t, s)
		if d := mustRead(t, NewReader(dir, nil), query.Query{}, "pid").Duration; d < time.Hour {
			t.Errorf("after %s: %s, of files of which one does not say what was sampled", after, d)
		}
	}
}
