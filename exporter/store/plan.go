package store

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// timeRange is a range of milliseconds since 1970: from is in, to is not.
type timeRange struct{ from, to int64 }

func rangeOf(from, to time.Time) timeRange {
	r := timeRange{math.MinInt64, math.MaxInt64}
	if !from.IsZero() {
		r.from = ceilMilli(from)
	}
	if !to.IsZero() {
		r.to = ceilMilli(to)
	}
	return r
}

// ceilMilli: of times within one millisecond rows know that it is this one.
func ceilMilli(t time.Time) int64 { return t.Add(time.Millisecond - time.Nanosecond).UnixMilli() }

func (r timeRange) and(other timeRange) timeRange {
	return timeRange{max(r.from, other.from), min(r.to, other.to)}
}

func (r timeRange) empty() bool { return r.from >= r.to }

func (r timeRange) has(t int64) bool { return t >= r.from && t < r.to }

// hours are the whole ones of the range.
func (r timeRange) hours() timeRange {
	const hour = int64(time.Hour / time.Millisecond)
	return timeRange{(r.from + hour - 1) / hour * hour, r.to / hour * hour}
}

// overlap is how much of a span is in the range, in milliseconds.
func (r timeRange) overlap(from, length int64) int64 {
	return max(0, min(r.to, from+length)-max(r.from, from))
}

// longestInterval is how far back an interval is looked for whose samples may be in a range. The agent's are of 10 s. One that was starved, or stopped, for
// longer writes an interval without the times of samples, which counts where it begins.
const longestInterval = time.Minute

// times are those that the samples of a file can have, but for the longest intervals.
func (f *file) times() timeRange {
	start := f.start.UnixMilli()
	if f.span == spanInterval {
		return timeRange{start, start + 1000 + longestInterval.Milliseconds()}
	}
	return timeRange{start, f.end().UnixMilli()}
}

// piece is a file of the table samples, and which of its rows are to be read.
type piece struct {
	file  file
	times timeRange
	// byMinute says that the rows of hours are to be read minute by minute.
	byMinute bool
}

// exact says that the file has the times of samples.
func (p *piece) exact() bool { return p.file.span == spanInterval }

// begins is when a row begins that is read of the file: one of an interval may have samples in the time that is wanted and begin before it.
func (p *piece) begins() timeRange {
	if start := p.file.start.UnixMilli(); p.exact() {
		return timeRange{start, start + 1000} // the name has no fractions of its second
	}
	return p.times
}

// covers is how much of what the file's coverage says of a span counts here, in milliseconds. Of a file without the times of samples a span counts where it
// begins, as its rows do.
func (p *piece) covers(wanted timeRange, at, length int64) int64 {
	switch {
	case p.exact() && length <= longestInterval.Milliseconds():
		return wanted.overlap(at, length)
	case wanted.has(at) && (p.exact() || p.covered().has(at)):
		return length
	}
	return 0
}

// covered are the times of which the coverage of a file without the times of samples counts here. Each moment is in one piece of the file; what its footer
// says of before it, when nothing was sampled that could have had a file, is in the first one.
func (p *piece) covered() timeRange {
	covered, all := p.times, p.file.times()
	if covered.from == all.from {
		covered.from = math.MinInt64
	}
	if covered.to == all.to {
		covered.to = math.MaxInt64
	}
	return covered
}

// unit is what is read of a host's history at one point of time: an hour, or a day that has been compacted.
// Its files are opened together before one is read. Where one has vanished, a compaction has put what it held into another one, and
// all of the unit is looked for again.
type unit struct {
	host   string
	times  timeRange // in which its files begin
	pieces []piece
}

// plan says which files hold the rows of a time. With coarse, whole hours are read as they are, others minute by minute.
func (h *history) plan(times timeRange, coarse bool) []unit {
	type key struct {
		host  string
		start int64
	}
	days := make(map[key]bool) // that have been compacted
	for _, f := range slices.Concat(h.hours, h.minutes) {
		if f.span == spanDay {
			days[key{f.host, f.start.UnixMilli()}] = true
		}
	}
	units := make(map[key]*unit)
	add := func(f *file, pieces ...piece) {
		pieces = slices.DeleteFunc(pieces, func(p piece) bool { return p.times.empty() })
		if len(pieces) == 0 {
			return
		}
		day, hour := f.start.Truncate(24*time.Hour), f.start.Truncate(time.Hour)
		k, span := key{f.host, hour.UnixMilli()}, time.Hour
		if whole := (key{f.host, day.UnixMilli()}); days[whole] {
			k, span = whole, 24*time.Hour
		}
		u := units[k]
		if u == nil {
			u = &unit{host: f.host, times: timeRange{k.start, k.start + span.Milliseconds()}}
			units[k] = u
		}
		u.pieces = append(u.pieces, pieces...)
	}
	for i := range h.intervals {
		f := &h.intervals[i]
		if !times.and(f.times()).empty() {
			add(f, piece{file: *f, times: times})
		}
	}
	for i := range h.minutes {
		f := &h.minutes[i]
		add(f, piece{file: *f, times: times.and(f.times())})
	}
	for i := range h.hours {
		f := &h.hours[i]
		wanted := times.and(f.times())
		whole := wanted.hours()
		if !coarse || whole.empty() {
			add(f, piece{*f, wanted, true})
			continue
		}
		add(f, piece{*f, whole, false}, piece{*f, timeRange{wanted.from, whole.from}, true}, piece{*f, timeRange{whole.to, wanted.to}, true})
	}
	plan := make([]unit, 0, len(units))
	for _, u := range units {
		plan = append(plan, *u)
	}
	slices.SortFunc(plan, func(a, b unit) int {
		if a.times.from != b.times.from {
			return int(a.times.from/1000 - b.times.from/1000)
		}
		return strings.Compare(a.host, b.host)
	})
	return plan
}

// replan says which files hold by now what a unit was to be read for, a part of the time that plan was made for.
func (h *history) replan(u unit, times timeRange, coarse bool) []unit {
	var again []unit
	for _, other := range h.plan(times, coarse) {
		if other.host != u.host {
			continue
		}
		pieces := slices.DeleteFunc(other.pieces, func(p piece) bool { return p.exact() && !u.times.has(p.file.start.UnixMilli()) })
		for i := range pieces {
			if p := &pieces[i]; !p.exact() {
				p.times = p.times.and(u.times)
			}
		}
		if pieces = slices.DeleteFunc(pieces, func(p piece) bool { return p.times.empty() }); len(pieces) > 0 {
			again = append(again, unit{other.host, u.times, pieces})
		}
	}
	return again
}

// look lists what there is. While one directory is read files may be put into it and others taken out, so that neither
// is seen; a second look sees what replaced those. Damaged files that were set aside are told. Of what cannot be looked at the error tells: the rest is there.
func (r *Reader) look() (history, []string, error) {
	first, _ := paths(r.dir) // what stands in the way of the first look stands in that of the second
	all, err := paths(r.dir)
	second := len(all)
	seen := make(map[string]bool, second)
	for _, path := range all {
		seen[path] = true
	}
	for _, path := range first {
		if !seen[path] {
			all = append(all, path)
		}
	}
	var files []file
	var aside []string
	for i, path := range all {
		if f, ok := parsePath(path); ok {
			files = append(files, f)
		} else if i < second && strings.HasSuffix(path, damagedSuffix) {
			aside = append(aside, filepath.Join(versionDir(r.dir), path))
		}
	}
	return arrange(files), aside, err
}

// asideTimes are those of the rows that a file set aside held; false where they are not known.
func (r *Reader) asideTimes(path string) (timeRange, bool) {
	relative, err := filepath.Rel(versionDir(r.dir), strings.TrimSuffix(path, damagedSuffix))
	if err != nil {
		return timeRange{}, false
	}
	f, ok := parsePath(relative)
	return f.times(), ok && f.table == tableSamples
}
