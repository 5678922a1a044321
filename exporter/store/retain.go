package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maintain looks after the files whenever an interval was written.
func (s *Store) maintain(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.relistLater()
		s.complain("keep the history within its bounds", s.retain(0))
		s.compact(ctx)
		if ctx.Err() == nil {
			s.complain("keep the history within its bounds", s.retain(0))
		}
		s.measure()
	}
}

// relistLater looks again where a directory could not be looked at.
func (s *Store) relistLater() {
	s.mu.Lock()
	now := s.options.now()
	again := s.unlisted && !now.Before(s.relistAt)
	if again {
		s.relistAt = now.Add(retryAfter)
	}
	s.mu.Unlock()
	if again {
		s.relist()
	}
}

// pause lets others run: compaction is in no hurry.
func (s *Store) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(s.options.pause):
	}
}

func (s *Store) measure() {
	s.mu.Lock()
	files, bytes := len(s.files), s.bytes()
	s.mu.Unlock()
	s.count(func(stats *Stats) { stats.Files, stats.Bytes = files, bytes })
}

// bytes are those of all files. The caller holds mu.
func (s *Store) bytes() int64 {
	sum := size(s.files)
	for _, d := range s.damaged {
		sum += d.bytes
	}
	return sum
}

// checkFree fails with errDiskLow where others need the space.
func (s *Store) checkFree() error {
	free, err := s.options.free(s.options.Dir)
	if err != nil {
		return err
	}
	if free < s.options.MinFree {
		return fmt.Errorf("%w: %d MB of %d MB", errDiskLow, free>>20, s.options.MinFree>>20)
	}
	return nil
}

// retain removes the oldest files, whole ones, until all bounds hold and there is room for as many bytes more. What is younger than an hour does not go because others need the space: then
// nothing more is written. Files that were set aside go first.
func (s *Store) retain(room int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.options.now().Add(-s.options.MaxAge)
	if err := s.retainDamaged(oldest); err != nil {
		return err
	}
	h := arrange(s.files)
	samples := slices.Concat(h.hours, h.minutes, h.intervals)
	slices.SortFunc(samples, func(a, b file) int { return a.end().Compare(b.end()) })
	s.starved = false
	var errs []error // a file that cannot be removed does not keep others from being
	for i := range samples {
		f := &samples[i]
		low := s.checkFree()
		if low != nil && !errors.Is(low, errDiskLow) {
			return low
		}
		switch {
		case f.end().Before(oldest), s.bytes()+room > s.options.MaxBytes, low != nil && f.end().Before(s.options.now().Add(-time.Hour)):
		default:
			s.starved = low != nil
			return errors.Join(append(errs, s.retainStacks())...)
		}
		if err := s.removeWithTwin(f, h.superseded); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.retainStacks(); err != nil {
			errs = append(errs, err)
		}
	}
	s.starved = s.checkFree() != nil
	return errors.Join(append(errs, s.retainStacks())...)
}

// removeWithTwin removes a file because of a bound; before it what repeats it, and would count without it.
func (s *Store) removeWithTwin(f *file, superseded []file) error {
	if f.resolution == resolutionMinute {
		for i := range superseded {
			if twin := &superseded[i]; twin.resolution == resolutionHour && twinKey(twin) == twinKey(f) {
				if err := s.removeOne(*twin); err != nil {
					return err
				}
			}
		}
	}
	return s.removeOne(*f)
}

// removeOne removes a file because of a bound.
func (s *Store) removeOne(f file) error {
	path := filepath.Join(s.options.Dir, f.path())
	if err := removeFile(path); err != nil {
		return err
	}
	s.forget(f)
	s.options.Log.Debug("removed from the history, by its bounds", "file", path)
	s.count(func(stats *Stats) { stats.Removed++ })
	_ = os.Remove(filepath.Dir(path)) // the last one of its date
	return nil
}

// retainStacks removes the stacks of dates that have no samples.
func (s *Store) retainStacks() error {
	type date struct{ host, date string }
	used := make(map[date]bool)
	for i := range s.files {
		if f := &s.files[i]; f.table == tableSamples {
			used[date{f.host, f.start.Format(dateLayout)}] = true
		}
	}
	for _, f := range slices.Clone(s.files) {
		if s.unlisted && f.end().Add(s.options.MaxAge).After(s.options.now()) {
			continue // their samples may be there
		}
		if f.table == tableStacks && !used[date{f.host, f.start.Format(dateLayout)}] {
			if err := s.removeOne(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxDamagedShare is the part of MaxBytes that files which were set aside may take.
const maxDamagedShare = 16

// retainDamaged bounds what was set aside, by age and bytes.
func (s *Store) retainDamaged(oldest time.Time) error {
	slices.SortFunc(s.damaged, func(a, b setAside) int { return a.when.Compare(b.when) })
	var sum int64
	for _, d := range s.damaged {
		sum += d.bytes
	}
	for len(s.damaged) > 0 && (sum > s.options.MaxBytes/maxDamagedShare || s.damaged[0].when.Before(oldest)) {
		d := s.damaged[0]
		if err := removeFile(d.path); err != nil {
			return err
		}
		s.options.Log.Warn("a damaged file that was set aside is removed, by the bounds of the history", "file", d.path)
		s.count(func(stats *Stats) { stats.Removed++ })
		_ = os.Remove(filepath.Dir(d.path))
		sum -= d.bytes
		s.damaged = s.damaged[1:]
	}
	return nil
}

// removeUnfinished removes hours that an older version wrote for long spans and was ended before it wrote their minutes: the intervals are there still, and tell more.
func (s *Store) removeUnfinished(untold []file) error {
	for _, f := range untold {
		same := func(other file) bool {
			return other.table == f.table && other.host == f.host && other.generation <= f.generation && other.start.Truncate(time.Hour).Equal(f.start)
		}
		minutes := slices.ContainsFunc(s.files, func(o file) bool { return same(o) && o.resolution == resolutionMinute })
		if minutes || !slices.ContainsFunc(s.files, func(o file) bool { return same(o) && o.resolution == resolutionInterval }) {
			continue
		}
		if err := removeFile(filepath.Join(s.options.Dir, f.path())); err != nil {
			return err
		}
		s.drop(f)
	}
	return nil
}

// removeSuperseded ends what a crash left of a compaction: it removes what another file holds too.
func (s *Store) removeSuperseded() error {
	if s.unlisted {
		return nil // what seems to cover it may be covered itself
	}
	h := arrange(s.files)
	for _, f := range h.superseded {
		if f.resolution == resolutionHour && slices.ContainsFunc(h.minutes, func(m file) bool { return twinKey(&m) == twinKey(&f) }) {
			continue // the hour that is made of the minutes takes its place; if they are damaged, it is all that there is
		}
		if err := removeFile(filepath.Join(s.options.Dir, f.path())); err != nil {
			return err
		}
		s.drop(f)
	}
	return nil
}
