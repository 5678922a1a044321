package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Bounds of a history that nothing else is said of.
const (
	DefaultMaxBytes = 2 << 30
	DefaultMaxAge   = 7 * 24 * time.Hour
	DefaultMinFree  = 1 << 30
)

// Options of a Store. Bounds that are 0 have their defaults.
type Options struct {
	// Dir is the data directory. The caller sees to it that there is no second Store of it: the agent holds its lock.
	Dir string
	// Host is the name of the partition, by default that of this host.
	Host string
	// MaxBytes bounds all files together, MaxAge how old one gets. MinFree bytes of the file system are left to others; none
	// where it is negative.
	MaxBytes int64
	MaxAge   time.Duration
	MinFree  int64
	Log      *slog.Logger // default: nothing is logged

	pause time.Duration               // for tests: of compaction after each file
	now   func() time.Time            // for tests
	free  func(string) (int64, error) // for tests: bytes free in the file system of a directory
}

// Why intervals are not in the history.
const (
	DropDiskFull = "disk_full" // the file system, or a quota, had no room
	DropDiskLow  = "disk_low"  // less than MinFree was left, and no older file to make room
	DropFailed   = "failed"    // another error of the file system
)

// DropReasons are all reasons that Stats counts by.
var DropReasons = []string{DropDiskFull, DropDiskLow, DropFailed}

// Stats are what a Store did since it was opened, and what there is.
type Stats struct {
	Intervals uint64 // written
	Samples   uint64 // in them: those exported and those lost by the profiler
	Written   uint64 // bytes, before and after compaction
	// Dropped are intervals that were not written, DroppedSamples what was in them, by DropReasons.
	Dropped, DroppedSamples map[string]uint64
	Compactions             uint64 // files made of others
	Failures                uint64 // compactions that failed, and were or will be tried again
	Removed                 uint64 // files, because of a bound
	Damaged                 uint64 // files set aside
	// Limited are samples whose stack is not kept: their date has as many as it may, or their program has.
	Limited uint64
	// WriteTime and CompactTime were spent on intervals and on everything else.
	WriteTime, CompactTime time.Duration
	Bytes                  int64 // of all files that are there
	Files                  int
}

// Store writes the history. Safe for concurrent use. Its owner calls Close.
type Store struct {
	options Options
	cancel  context.CancelFunc
	wake    chan struct{}
	done    chan struct{}

	mu      sync.Mutex // of all below
	closed  bool
	encoder *encoder
	samples *parquet.GenericWriter[SampleRow]
	files   []file // that are there, in no order
	// planned are what a compaction makes right now: new files must not be covered by them.
	planned []file
	// unlisted says that a directory could not be looked at: what seems to be left over may belong to what is in it.
	unlisted bool
	relistAt time.Time
	// postponed is until when compactions wait that could not read a file, pausedUntil until when all do: they could not write.
	postponed   map[work]time.Time
	pausedUntil time.Time
	// starved says that there is less free than others are to have, and nothing to remove.
	starved bool
	damaged []setAside
	// known are the stacks that the date has; "" is none.
	known     map[int64]struct{}
	knownDate string
	quota     *quota // of that date
	// covered is the time of intervals in which nothing was sampled, since the last one with samples.
	covered coverage
	// limitedDate is the last one of which it was said that it has as many stacks as it may.
	limitedDate string

	statsMu sync.Mutex
	stats   Stats
	said    map[string]bool // what was logged since it last went well
}

// setAside is a damaged file.
type setAside struct {
	path  string
	bytes int64
	when  time.Time
}

// Open opens the history for writing: what a crash left is tidied up, and damaged files are set aside, by the name
// that they get.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{
		options: o, cancel: cancel, wake: make(chan struct{}, 1), done: make(chan struct{}),
		encoder: newEncoder(), samples: newSampleWriter(fastCompression), said: make(map[string]bool), postponed: make(map[work]time.Time), covered: make(coverage),
		stats: Stats{Dropped: make(map[string]uint64), DroppedSamples: make(map[string]uint64)},
	}
	if err := s.open(); err != nil {
		cancel()
		return nil, fmt.Errorf("open the history in %s: %w", o.Dir, err)
	}
	go s.maintain(ctx)
	s.rouse()
	return s, nil
}

func (o *Options) setDefaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.MinFree == 0 {
		o.MinFree = DefaultMinFree
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname()
	}
	if o.Host == "" {
		o.Host = "localhost"
	}
	o.Host = text(o.Host) // engines refuse a partition that is not UTF-8
	if o.now == nil {
		o.now = time.Now
	}
	if o.free == nil {
		o.free = freeBytes
	}
}

// freeBytes are those that a process without privileges may still write.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

func (s *Store) open() error {
	// Without room for it the first interval that finds room makes it.
	if err := makeDir(s.options.Dir, fmt.Sprintf("v%d", Version)); err != nil && dropReason(err) != DropDiskFull {
		return err
	}
	s.relist()
	var unreadable error
	var untold []file // hours that do not tell their minutes
	for _, f := range slices.Clone(s.files) {
		c, err := openChecked(filepath.Join(s.options.Dir, f.path()))
		if err == nil {
			if _, tells := c.Schema().Lookup("minutes", "list", "element"); !tells && f.resolution == resolutionHour && f.span == spanHour {
				untold = append(untold, f)
			}
			err = c.Close()
		}
		if err != nil && !s.setAsideIfDamaged(f, err) && unreadable == nil {
			unreadable = err
		}
	}
	s.complain("open all files of the history", unreadable)
	if !s.unlisted {
		s.complain("remove an hour that was not finished", s.removeUnfinished(untold))
	}
	s.complain("remove what other files hold too", s.removeSuperseded())
	return nil
}

// relist looks for what there is, and removes what was not finished.
func (s *Store) relist() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = nil
	files, err := list(s.options.Dir, func(path string, info fs.FileInfo) {
		switch name := filepath.Base(path); {
		case strings.HasPrefix(name, ".") && strings.HasSuffix(name, tempSuffix):
			s.complain("remove what was not finished", removeFile(path))
		case strings.HasSuffix(name, damagedSuffix):
			s.damaged = append(s.damaged, setAside{path, info.Size(), info.ModTime()})
		}
	})
	s.complain("look at all directories of the history", err)
	s.files, s.unlisted, s.known, s.knownDate = files, err != nil, nil, ""
}

// setAsideIfDamaged renames a file whose content an error is about, and says so. The caller holds mu, or is alone.
func (s *Store) setAsideIfDamaged(f file, err error) bool {
	var damage *DamageError
	if !errors.As(err, &damage) {
		return false
	}
	path := filepath.Join(s.options.Dir, f.path())
	aside := path + damagedSuffix
	if err := os.Rename(path, aside); err != nil {
		s.complain("set a damaged file aside", err)
		return false
	}
	s.options.Log.Error("a file of the history is damaged and was set aside", "file", path, "offset", damage.Offset, "err", damage.Err, "now", aside)
	s.damaged = append(s.damaged, setAside{aside, f.bytes, s.options.now()})
	s.forget(f)
	s.count(func(stats *Stats) { stats.Damaged++ })
	return true
}

// forget takes a file out of those that are there.
func (s *Store) forget(f file) {
	s.files = slices.DeleteFunc(s.files, func(other file) bool { return other.path() == f.path() })
	if f.table == tableStacks {
		s.known, s.knownDate = nil, ""
	}
}

// Export writes the profile of an interval. Errors are counted and logged, once until it goes well again.
func (s *Store) Export(p *profile.Profile) {
	begun := time.Now()
	samples := p.Account.Exported
	for _, loss := range p.Account.Lost {
		samples += loss.Count
	}
	err := s.write(p)
	reason := dropReason(err)
	s.complain("write an interval of the history", err)
	s.count(func(stats *Stats) {
		stats.WriteTime += time.Since(begun)
		if err != nil {
			stats.Dropped[reason]++
			stats.DroppedSamples[reason] += samples
			return
		}
		stats.Intervals++
		stats.Samples += samples
	})
	s.rouse()
}

// errDiskLow says that others need the space.
var errDiskLow = errors.New("less space is free than is to be left to others")

var errClosed = errors.New("the history is closed")

func dropReason(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return DropDiskFull
	case errors.Is(err, errDiskLow):
		return DropDiskLow
	}
	return DropFailed
}

func (s *Store) write(p *profile.Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.starved {
		if err := s.checkFree(); err != nil {
			return err
		}
	}
	start := p.Start.UTC()
	s.learn(start)
	// The stacks first: no sample is ever without its stack.
	stacks := &stackFile{store: s, file: file{table: tableStacks, start: start}, fresh: make(map[int64]*profile.Sample)}
	defer stacks.discard()
	rows := s.encoder.encode(p, stacks.place)
	if err := stacks.publish(); err != nil {
		return err
	}
	s.covered[p.Start.UnixMilli()] += p.Duration.Milliseconds()
	if len(rows) == 0 {
		if s.covered = s.covered.byMinute(); len(s.covered) > maxCovered {
			clear(s.covered)
		}
		return nil // the next interval says that this was sampled
	}
	if err := s.writeSamples(start, rows); err != nil {
		delete(s.covered, p.Start.UnixMilli())
		return err
	}
	clear(s.covered)
	s.count(func(stats *Stats) { stats.Limited += stacks.limited })
	return nil
}

func (s *Store) writeSamples(start time.Time, rows []SampleRow) error {
	f := file{table: tableSamples, resolution: resolutionInterval, start: start}
	d, err := s.newInterval(&f)
	if err != nil {
		return err
	}
	defer d.discard()
	s.samples.Reset(d)
	s.samples.SetKeyValueMetadata(coverageKey, s.covered.String())
	if _, err := s.samples.Write(rows); err != nil {
		return err
	}
	return s.publishInterval(&f, d, s.samples)
}

// stackFile is the file of an interval's new stacks.
type stackFile struct {
	store *Store
	file  file
	fresh map[int64]*profile.Sample // one that has the stack, by its ID
	// charges are given back if it is not published.
	charges []charge
	limited uint64 // samples whose stack there was no room for
}

// place gives the ID by which the stack of a sample is in the history: its own, or that of the one in the place of those
// that there is no room for.
func (f *stackFile) place(s *profile.Sample, id int64) int64 {
	if id == 0 || f.holds(id) {
		return id
	}
	c, ok := f.store.quota.take(s.Labels, f.store.encoder.stacks.encode(s))
	if ok {
		f.charges = append(f.charges, c)
		f.fresh[id] = s
		return id
	}
	f.limited += uint64(s.Count)
	f.store.sayLimited(f.file.start, s.Labels)
	if id = f.store.encoder.stacks.id(limited); !f.holds(id) {
		f.fresh[id] = limited
	}
	return id
}

func (f *stackFile) holds(id int64) bool {
	if _, ok := f.store.known[id]; ok {
		return true
	}
	_, ok := f.fresh[id]
	return ok
}

// sayLimited says once for each date whose stacks are the first that are not kept.
func (s *Store) sayLimited(start time.Time, l *profile.Labels) {
	date := start.Format(dateLayout)
	if s.limitedDate == date {
		return
	}
	s.limitedDate = date
	if l == nil {
		l = new(profile.Labels)
	}
	s.options.Log.Warn("new stacks are not kept in the history, which has as many as it may of this date or this program; their samples are, with "+
		"[truncated: history full], and are counted", "date", date, "cgroup", l.Cgroup, "exe", l.Exe, "pid", l.PID)
}

// stackBatch is how many stacks are written at once.
const stackBatch = 64

// publish writes the stacks, and makes them known to the date. Those with callers in common stand together, which readers are quicker with.
func (f *stackFile) publish() error {
	if len(f.fresh) == 0 {
		return nil
	}
	d, err := f.store.newInterval(&f.file)
	if err != nil {
		return err
	}
	defer d.discard()
	// The writer is not kept: it would hold the names of the day's first interval, in which all stacks are new.
	w := newStackWriter(fastCompression, parquet.PageBufferSize(intervalStackPage))
	w.Reset(d)
	ids := slices.SortedFunc(maps.Keys(f.fresh), func(a, b int64) int { return cmp.Or(compareStacks(f.fresh[a], f.fresh[b]), cmp.Compare(a, b)) })
	batch := make([]StackRow, stackBatch)
	for part := range slices.Chunk(ids, stackBatch) {
		for i, id := range part {
			row, frames := f.store.encoder.stacks.encode(f.fresh[id]), batch[i].Frames
			batch[i] = StackRow{StackID: id, Whole: row.Whole, Frames: append(frames[:0], row.Frames...)}
		}
		if _, err := w.Write(batch[:len(part)]); err != nil {
			return err
		}
	}
	if err := f.store.publishInterval(&f.file, d, w); err != nil {
		return err
	}
	for id := range f.fresh {
		f.store.known[id] = struct{}{}
	}
	f.charges = nil
	return nil
}

// discard gives back what was charged for stacks that were not published.
func (f *stackFile) discard() {
	for _, c := range f.charges {
		f.store.quota.giveBack(c)
	}
}

// newInterval begins a file for the span that begins at f's start. The caller holds mu.
func (s *Store) newInterval(f *file) (*draft, error) {
	f.host, f.start = s.options.Host, f.start.Truncate(time.Second)
	f.generation = s.nextGeneration(*f)
	return newDraft(s.options.Dir, f)
}

// publishInterval ends a file of newInterval. The caller holds mu.
func (s *Store) publishInterval(f *file, d *draft, w io.Closer) (err error) {
	if err := errors.Join(w.Close(), d.finish()); err != nil {
		return err
	}
	if f.bytes, err = d.publish(); err != nil {
		return err
	}
	s.files = append(s.files, *f)
	s.count(func(stats *Stats) { stats.Written += uint64(f.bytes) })
	return nil
}

// nextGeneration is the lowest that makes an interval count: no compacted file covers it, and its name is free.
func (s *Store) nextGeneration(f file) (generation int) {
	for _, list := range [][]file{s.files, s.planned} {
		for i := range list {
			other := &list[i]
			if other.table == f.table && other.host == f.host && other.generation >= generation && other.span.stamp(other.start) == other.span.stamp(f.start) {
				generation = other.generation + 1
			}
		}
	}
	return generation
}

// learn reads which stacks a date has already. The caller holds mu.
func (s *Store) learn(start time.Time) {
	date := start.Format(dateLayout)
	if s.knownDate == date {
		return
	}
	known, quota := make(map[int64]struct{}), newQuota(s.options.MaxBytes)
	var unreadable error
	for _, f := range arrange(s.files).stacks {
		if f.host != s.options.Host || f.start.Format(dateLayout) != date {
			continue
		}
		// What is in a file that cannot be read is written again.
		if err := readStackIDs(filepath.Join(s.options.Dir, f.path()), known); err != nil && !s.setAsideIfDamaged(f, err) && !errors.Is(err, fs.ErrNotExist) {
			unreadable = err
		}
		quota.used += f.bytes
	}
	s.complain("read all stacks of the date", unreadable)
	quota.used = max(quota.used, minStackCost*int64(len(known)))
	s.known, s.knownDate, s.quota = known, date, quota
}

// Stats gives what was counted until now.
func (s *Store) Stats() Stats {
	s.statsMu.Lock()
	defer s.statsMu.Unlock()
	stats := s.stats
	stats.Dropped, stats.DroppedSamples = make(map[string]uint64), make(map[string]uint64)
	for _, reason := range DropReasons {
		stats.Dropped[reason], stats.DroppedSamples[reason] = s.stats.Dropped[reason], s.stats.DroppedSamples[reason]
	}
	return stats
}

func (s *Store) count(f func(*Stats)) {
	s.statsMu.Lock()
	defer s.statsMu.Unlock()
	f(&s.stats)
}

// complain logs an error of doing something, once until it was done without.
func (s *Store) complain(doing string, err error) {
	s.statsMu.Lock()
	said := s.said[doing]
	if s.said[doing] = true; err == nil {
		delete(s.said, doing)
	}
	s.statsMu.Unlock()
	switch {
	case err != nil && !said:
		s.options.Log.Error("cannot "+doing+"; it is tried again, and counted", "err", err)
	case err == nil && said:
		s.options.Log.Info("can " + doing + " again")
	}
}

// rouse has the files looked after.
func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends writing; a compaction under way is left for the next time. It may be called more than once.
func (s *Store) Close() error {
	s.cancel()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
