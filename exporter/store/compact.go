package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// settled is how old the end of an hour is when its intervals are compacted, and their sample times go.
const settled = time.Hour

// settledStacks is the same for stacks, of an hour or a part of it, which have nothing that goes: the last interval is written by then.
const settledStacks = time.Minute

// retryAfter is how long a compaction waits that failed.
const retryAfter = 5 * time.Minute

// work names a compaction by its first file's table, resolution and host, and what it makes.
type work struct {
	table, resolution, host, stamp string
	span                           span
}

func workOf(f *file, to span) work {
	return work{f.table, f.resolution, f.host, to.stamp(f.start), to}
}

// compact does what is due, one thing after another. What fails waits: it alone where a file cannot be read, everything where nothing can be written.
func (s *Store) compact(ctx context.Context) {
	for ctx.Err() == nil {
		w, run := s.due()
		if run == nil {
			return
		}
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOutdated) {
			s.rouse()
			return
		}
		doing := strings.TrimSpace(strings.Join([]string{"compact", w.table, w.resolution, "of", w.host, w.stamp}, " "))
		s.complain(doing, err)
		if err == nil {
			continue
		}
		s.count(func(stats *Stats) { stats.Failures++ })
		s.mu.Lock()
		until := s.options.now().Add(retryAfter)
		if errors.As(err, new(*inputError)) {
			s.postponed[w] = until
		} else {
			s.pausedUntil = until
		}
		s.mu.Unlock()
	}
}

// errOutdated says that files have come, or were set aside, since the work was chosen.
var errOutdated = errors.New("the files have changed")

// due gives the first thing to do, nil where there is none.
func (s *Store) due() (work, func(context.Context) error) {
	now := s.options.now()
	s.mu.Lock()
	h := arrange(s.files)
	paused := now.Before(s.pausedUntil)
	maps.DeleteFunc(s.postponed, func(_ work, until time.Time) bool { return !now.Before(until) })
	postponed, unlisted := maps.Clone(s.postponed), s.unlisted
	s.mu.Unlock()
	if paused {
		return work{}, nil
	}
	ready := func(files []file, is, to span) (of []file) {
		for i := range files {
			if _, waits := postponed[workOf(&files[i], to)]; files[i].span == is && !waits {
				of = append(of, files[i])
			}
		}
		return of
	}
	// A query reads each file of an hour under way, with names that are in the others too: what is put together is found sooner.
	loose := append(ready(h.stacks, spanPart, spanHour), ready(h.stacks, spanInterval, spanHour)...)
	if unlisted {
		loose = nil // what is not listed would be covered
	}
	if hour := firstHour(loose, now.Add(-settledStacks)); hour != nil {
		return workOf(&hour[0], spanHour), func(ctx context.Context) error { return s.compactStacks(ctx, hour, spanHour) }
	}
	if part := firstPart(ready(loose, spanInterval, spanPart), now.Add(-settledStacks)); part != nil {
		return workOf(&part[0], spanPart), func(ctx context.Context) error { return s.compactStacks(ctx, part, spanPart) }
	}
	if hour := firstHour(ready(h.intervals, spanInterval, spanHour), now.Add(-settled)); hour != nil {
		return workOf(&hour[0], spanHour), func(ctx context.Context) error { return s.compactSamples(ctx, hour, spanHour) }
	}
	if older := append(ready(h.minutes, spanHour, spanHour), ready(h.minutes, spanDay, spanDay)...); len(older) > 0 {
		newest := slices.MaxFunc(older, byStart) // the oldest would go if there were no room for the result
		return workOf(&newest, newest.span), func(ctx context.Context) error { return s.compactSamples(ctx, []file{newest}, newest.span) }
	}
	// A day is over for us when no interval of it is left, and nothing that is to become an hour.
	open := make(map[work]bool)
	for _, f := range slices.Concat(h.intervals, h.minutes) {
		open[work{host: f.host, stamp: spanDay.stamp(f.start)}] = true
	}
	over := func(files []file) []file {
		return slices.DeleteFunc(files, func(f file) bool { return open[work{host: f.host, stamp: spanDay.stamp(f.start)}] })
	}
	if day := s.firstDay(over(ready(h.hours, spanHour, spanDay)), now.Add(-settled)); day != nil {
		return workOf(&day[0], spanDay), func(ctx context.Context) error { return s.joinDay(ctx, day) }
	}
	for i := range h.stacks {
		if f := &h.stacks[i]; f.span < spanHour {
			open[work{host: f.host, stamp: spanDay.stamp(f.start)}] = true
		}
	}
	if day := s.firstDay(over(ready(h.stacks, spanHour, spanDay)), now.Add(-settled)); day != nil {
		return workOf(&day[0], spanDay), func(ctx context.Context) error { return s.joinDay(ctx, day) }
	}
	return work{}, nil
}

// firstHour gives the files of the first hour that ends before a time, nil where there are none.
func firstHour(files []file, before time.Time) []file {
	return firstSpan(files, func(f *file) time.Time { return f.start.Truncate(time.Hour) },
		func(start time.Time) bool { return !start.Add(time.Hour).After(before) })
}

// firstPart gives the files of the first part of an hour under way that ends before a time and has more than one.
func firstPart(files []file, before time.Time) []file {
	start := func(f *file) time.Time { return f.start.Truncate(partLength) }
	files = slices.DeleteFunc(files, func(f file) bool { return !f.start.Truncate(time.Hour).Add(time.Hour).After(before) }) // the hour is postponed
	for len(files) > 0 {
		part := firstSpan(files, start, func(start time.Time) bool { return !start.Add(partLength).After(before) })
		if len(part) != 1 {
			return part
		}
		files = slices.DeleteFunc(files, func(f file) bool { return f.path() == part[0].path() })
	}
	return nil
}

// firstDay gives the hours of the first day that ends before a time and has more than one file.
func (s *Store) firstDay(files []file, before time.Time) []file {
	start := func(f *file) time.Time { return f.start.Truncate(24 * time.Hour) }
	for len(files) > 0 {
		day := firstSpan(files, start, func(start time.Time) bool { return !start.AddDate(0, 0, 1).After(before) })
		if day == nil || len(day) > 1 && size(day) < s.options.MaxBytes/8 {
			return day // a larger one could not be dropped without losing much of the history
		}
		files = slices.DeleteFunc(files, func(f file) bool { return f.host == day[0].host && start(&f).Equal(start(&day[0])) })
	}
	return nil
}

func firstSpan(files []file, start func(*file) time.Time, over func(time.Time) bool) (group []file) {
	for i := range files {
		f := &files[i]
		if len(group) == 0 && over(start(f)) || len(group) > 0 && f.host == group[0].host && start(f).Equal(start(&group[0])) {
			group = append(group, *f)
		}
	}
	return group
}

func size(files []file) (sum int64) {
	for i := range files {
		sum += files[i].bytes
	}
	return sum
}

// target is the file that others become.
func target(from []file, resolution string, to span) file {
	f := file{table: from[0].table, resolution: resolution, host: from[0].host, span: to}
	f.start, _ = time.Parse(stamps[to], to.stamp(from[0].start))
	for i := range from {
		f.generation = max(f.generation, from[i].generation)
	}
	return f
}

// compactSamples makes the intervals of an hour a file of resolution 1h, or what an older version made of them, or of the hours of a day.
func (s *Store) compactSamples(ctx context.Context, from []file, to span) error {
	made := target(from, resolutionHour, to)
	return s.replace(ctx, from, made, func(ctx context.Context, from []file, d *draft) error {
		w := newSampleWriter(compression)
		w.Reset(d)
		m := newMerger(&made, w)
		for i := range from {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := m.add(filepath.Join(s.options.Dir, from[i].path())); m.failed != nil {
				return m.failed
			} else if err != nil {
				return &inputError{from[i], err}
			}
			s.pause(ctx)
		}
		if err := m.flush(); err != nil {
			return err
		}
		if !m.uncovered {
			w.SetKeyValueMetadata(coverageKey, m.covered.byMinute().String())
		}
		return w.Close()
	})
}

// compactStacks makes the stacks of an hour, or of a part of it, one file.
func (s *Store) compactStacks(ctx context.Context, from []file, to span) error {
	return s.replace(ctx, from, target(from, "", to), func(ctx context.Context, from []file, d *draft) error {
		w := newStackWriter(compression)
		w.Reset(d)
		seen := make(map[int64]struct{})
		for i := range from {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := copyStacks(w, filepath.Join(s.options.Dir, from[i].path()), seen); err != nil {
				return &inputError{from[i], err}
			}
			s.pause(ctx)
		}
		return w.Close()
	})
}

// copyStacks writes the stacks of a file that were not seen yet.
func copyStacks(w *parquet.GenericWriter[StackRow], path string, seen map[int64]struct{}) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(f.asDamage(err), f.Close()) }()
	id, ok := f.Schema().Lookup("stack_id")
	if !ok || id.ColumnIndex != 0 {
		return errFormat
	}
	for _, g := range f.RowGroups() {
		if err := copyRows(w, g, seen); err != nil {
			return err
		}
	}
	return nil
}

func copyRows(w *parquet.GenericWriter[StackRow], g parquet.RowGroup, seen map[int64]struct{}) (err error) {
	rows := g.Rows()
	defer func() { err = errors.Join(err, rows.Close()) }()
	buffer := make([]parquet.Row, 64)
	for {
		n, err := rows.ReadRows(buffer)
		fresh := buffer[:0:0]
		for _, row := range buffer[:n] {
			if _, ok := seen[row[0].Int64()]; !ok {
				seen[row[0].Int64()] = struct{}{}
				fresh = append(fresh, row)
			}
		}
		if _, err := w.WriteRows(fresh); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// joinDay makes the hours of a day one file. Row groups are copied as they are.
func (s *Store) joinDay(ctx context.Context, from []file) error {
	return s.replace(ctx, from, target(from, from[0].resolution, spanDay), s.join)
}

func (s *Store) join(ctx context.Context, from []file, d *draft) error {
	w := parquet.NewWriter(d, append(writerOptions(compression, 1<<40), schemaOf(from[0].table))...)
	var open []*checkedFile
	covered, uncovered := make(coverage), from[0].table != tableSamples
	defer func() {
		for _, f := range open {
			_ = f.Close() // it was only read
		}
	}()
	for i := range from {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f, err := openChecked(filepath.Join(s.options.Dir, from[i].path()))
		if err != nil {
			return &inputError{from[i], err}
		}
		open = append(open, f)
		uncovered = !covered.add(f) || uncovered
		for group := range f.RowGroups() {
			if err := copyGroup(w, f, group); err != nil {
				return &inputError{from[i], f.asDamage(err)}
			}
		}
		s.pause(ctx)
	}
	if !uncovered {
		w.SetKeyValueMetadata(coverageKey, covered.String())
	}
	return w.Close()
}

// groupWriter is a parquet.Writer, of which the library says only what it would rather have one use for rows.
type groupWriter interface {
	parquet.RowGroupWriter
	Schema() *parquet.Schema
	Write(row any) error
	Flush() error
}

// copyGroup copies a row group as it is, or row by row where it is of an older file, which has fewer columns or pages of version 2: the library would make pages that begin
// within a row of the latter.
func copyGroup(w groupWriter, f *checkedFile, index int) error {
	g := f.RowGroups()[index]
	switch {
	case parquet.EqualNodes(w.Schema(), g.Schema()) && !hasVersion2(f.Metadata().RowGroups[index].Columns):
		_, err := w.WriteRowGroup(g)
		return err
	case parquet.EqualNodes(w.Schema(), schemaOf(tableStacks)):
		return copyRowByRow[StackRow](w, g, stackBatch)
	}
	return copyRowByRow[SampleRow](w, g, batchRows)
}

// hasVersion2 says whether there are pages of version 2.
func hasVersion2(columns []format.ColumnChunk) bool {
	return slices.ContainsFunc(columns, func(c format.ColumnChunk) bool {
		return slices.ContainsFunc(c.MetaData.EncodingStats, func(s format.PageEncodingStats) bool { return s.PageType == format.DataPageV2 })
	})
}

func copyRowByRow[Row any](w groupWriter, g parquet.RowGroup, batch int) error {
	r := parquet.NewGenericRowGroupReader[Row](g)
	defer r.Close() // it was only read
	for rows := make([]Row, batch); ; {
		clear(rows)
		n, err := r.Read(rows)
		for i := range rows[:n] {
			if err := w.Write(&rows[i]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func schemaOf(table string) *parquet.Schema {
	if table == tableStacks {
		return parquet.SchemaOf(new(StackRow))
	}
	return parquet.SchemaOf(new(SampleRow))
}

// inputError says which file could not be read.
type inputError struct {
	file file
	err  error
}

func (e *inputError) Error() string { return e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// replace makes a file of others by fill, and then removes those. A damaged file is set aside, and the others are tried again without it.
func (s *Store) replace(ctx context.Context, from []file, made file, fill func(context.Context, []file, *draft) error) error {
	begun := time.Now()
	defer func() { s.count(func(stats *Stats) { stats.CompactTime += time.Since(begun) }) }()
	// Until they are gone there are both, what was and what becomes of it.
	if err := s.retain(size(from)); err != nil {
		return err
	}
	if !s.counts(from, made) {
		return fmt.Errorf("%s would not count: something of its time is in the way", made.path())
	}
	if !s.plan(from, made) {
		return errOutdated
	}
	defer func() {
		s.mu.Lock()
		s.planned = nil
		s.mu.Unlock()
	}()
	for {
		bad, err := s.tryReplace(ctx, from, made, fill)
		if errors.Is(err, fs.ErrNotExist) {
			s.relist() // somebody else removed it
			return errOutdated
		}
		if bad == nil {
			return err
		}
		s.mu.Lock()
		aside := s.setAsideIfDamaged(*bad, err)
		s.mu.Unlock()
		if !aside {
			return &inputError{*bad, err}
		}
		from = slices.DeleteFunc(slices.Clone(from), func(f file) bool { return f.path() == bad.path() })
		if len(from) == 0 {
			return nil
		}
	}
}

// counts says whether a file will count once those that it is made of are removed.
func (s *Store) counts(from []file, made file) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := slices.DeleteFunc(slices.Clone(s.files), func(f file) bool {
		return f.path() == made.path() || slices.ContainsFunc(from, func(other file) bool { return other.path() == f.path() })
	})
	return !slices.ContainsFunc(arrange(append(there, made)).superseded, func(f file) bool { return f.path() == made.path() })
}

// plan has intervals from now on named so that the file to be made does not cover them. It says no where that would cover a
// file that was written since from was chosen.
func (s *Store) plan(from []file, made file) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expected := append(arrange(s.files).superseded, made) // as long as its twin is there it is one itself
	expected = append(expected, from...)
	for _, f := range arrange(append(slices.Clone(s.files), made)).superseded {
		if !slices.ContainsFunc(expected, func(other file) bool { return other.path() == f.path() }) {
			return false
		}
	}
	s.planned = []file{made}
	return true
}

func (s *Store) tryReplace(ctx context.Context, from []file, made file, fill func(context.Context, []file, *draft) error) (bad *file, err error) {
	d, err := newDraft(s.options.Dir, &made)
	if err != nil {
		return nil, err
	}
	defer d.discard()
	if err := fill(ctx, from, d); err != nil {
		var input *inputError
		if errors.As(err, &input) {
			return &input.file, input.err
		}
		return nil, err
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if made.bytes, err = d.publish(); err != nil {
		return nil, err
	}
	s.drop(made) // of the same name, as an older version made it
	s.files = append(s.files, made)
	s.count(func(stats *Stats) { stats.Compactions++; stats.Written += uint64(made.bytes) })
	for i := range from {
		if err := removeFile(filepath.Join(s.options.Dir, from[i].path())); err != nil {
			return nil, err
		}
		s.drop(from[i])
	}
	return nil, nil
}

// drop takes a file out of those that are there; what it held is in another one.
func (s *Store) drop(f file) {
	s.files = slices.DeleteFunc(s.files, func(other file) bool { return other.path() == f.path() })
}
