package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/durable"
)

// The tables.
const (
	tableSamples = "samples"
	tableStacks  = "stacks"
)

// The resolutions of the table samples.
const (
	resolutionInterval = "10s"
	resolutionMinute   = "1m"
	resolutionHour     = "1h"
)

// span is how much time the name of a file stands for.
type span int

const (
	spanInterval span = iota
	spanPart          // of an hour, partLength; of the table stacks alone
	spanHour
	spanDay
)

const partLength = 5 * time.Minute

// stamps are how spans begin in names of files.
var stamps = [...]string{spanInterval: "20060102T150405Z", spanPart: "20060102T1504", spanHour: "20060102T15", spanDay: "20060102"}

// stamp is how the span that holds a time begins in the name of its file.
func (s span) stamp(t time.Time) string {
	if s == spanPart {
		t = t.Truncate(partLength)
	}
	return t.Format(stamps[s])
}

const (
	dateLayout    = "2006-01-02"
	fileSuffix    = ".parquet"
	tempSuffix    = ".tmp"     // a file that is not finished
	damagedSuffix = ".damaged" // one that was set aside
)

// file is one file of the layout, as its path tells.
type file struct {
	table      string
	resolution string // of samples; "" of stacks
	host       string
	start      time.Time // of the span, UTC
	span       span
	// generation tells files of one span apart: a clock that was set back brings intervals into an hour
	// that has been compacted already, and their generation is above its.
	generation int
	bytes      int64
}

// dir is the partition, relative to the data directory.
func (f *file) dir() string {
	parts := []string{"v" + strconv.Itoa(Version), f.table}
	if f.table == tableSamples {
		parts = append(parts, "resolution="+f.resolution)
	}
	return filepath.Join(append(parts, "host="+url.PathEscape(f.host), "date="+f.start.Format(dateLayout))...)
}

func (f *file) name() string {
	name := f.span.stamp(f.start)
	if f.generation > 0 {
		name += "-" + strconv.Itoa(f.generation)
	}
	return name + fileSuffix
}

func (f *file) path() string { return filepath.Join(f.dir(), f.name()) }

// parseName understands what name gives.
func (f *file) parseName(name string) bool {
	stem, ok := strings.CutSuffix(name, fileSuffix)
	if !ok {
		return false
	}
	stamp, generation, numbered := strings.Cut(stem, "-")
	if numbered {
		n, err := strconv.Atoi(generation)
		if err != nil || n <= 0 {
			return false
		}
		f.generation = n
	}
	for s, layout := range stamps {
		if len(stamp) != len(layout) {
			continue
		}
		if start, err := time.Parse(layout, stamp); err == nil {
			f.start, f.span = start, span(s)
			return f.name() == name
		}
	}
	return false
}

// end is where the time ends that the name stands for; an interval's is not known by its name.
func (f *file) end() time.Time {
	switch f.span {
	case spanPart:
		return f.start.Add(partLength)
	case spanHour:
		return f.start.Add(time.Hour)
	case spanDay:
		return f.start.AddDate(0, 0, 1)
	}
	return f.start
}

// history is what the files of a data directory hold, sorted by time. Intervals, hours and minutes together hold
// each sample once.
type history struct {
	intervals, hours, stacks []file
	// minutes are of an older version, and become hours: they have a row for each minute, and a twin of resolution 1h without its Minutes.
	minutes []file
	// superseded hold what another one holds too: a compaction has not come to removing them, or not to its end.
	superseded []file
}

// arrange says which of the files count. It is the one rule of readers and writers, and what makes a crash
// harmless at any moment: compaction writes a file for a longer span and only then removes those that it was
// made of, so a file does not count where one of a longer span covers it whose
// generation is not lower.
//
// Of what an older version wrote the files of resolution 1m count, those of their time at 1h do not: each repeats what the one of minutes of the same name holds,
// or what such a one was to hold that was not written any more.
func arrange(files []file) history {
	type place struct{ table, host, stamp string }
	at := func(f *file, s span) place { return place{f.table, f.host, s.stamp(f.start)} }
	newest := make(map[place]int)        // of the compacted files that count: generation + 1
	newestMinutes := make(map[place]int) // of those at 1m: nothing else covers minutes
	twins := make(map[string]bool)       // of files at 1m
	oldest := make(map[place]int)        // of those at 1m within a longer span: generation
	for i := range files {
		if f := &files[i]; f.resolution == resolutionMinute {
			twins[twinKey(f)] = true
			newestMinutes[at(f, f.span)] = max(newestMinutes[at(f, f.span)], f.generation+1)
			for s := f.span + 1; s <= spanDay; s++ {
				if g, ok := oldest[at(f, s)]; !ok || f.generation < g {
					oldest[at(f, s)] = f.generation
				}
			}
		}
	}
	repeats := func(f *file) bool {
		g, some := oldest[at(f, f.span)] // what was not finished is of the highest generation in it
		return f.resolution == resolutionHour && (twins[twinKey(f)] || some && g <= f.generation)
	}
	for i := range files {
		if f := &files[i]; f.span > spanInterval && !repeats(f) {
			newest[at(f, f.span)] = max(newest[at(f, f.span)], f.generation+1)
		}
	}
	var h history
	for i := range files {
		f := &files[i]
		covered, by := repeats(f), newest
		if f.resolution == resolutionMinute {
			by = newestMinutes
		}
		for s := f.span + 1; s <= spanDay; s++ {
			covered = covered || by[at(f, s)] > f.generation
		}
		switch {
		case covered:
			h.superseded = append(h.superseded, *f)
		case f.table == tableStacks:
			h.stacks = append(h.stacks, *f)
		case f.resolution == resolutionInterval:
			h.intervals = append(h.intervals, *f)
		case f.resolution == resolutionMinute:
			h.minutes = append(h.minutes, *f)
		case f.resolution == resolutionHour:
			h.hours = append(h.hours, *f)
		}
	}
	for _, list := range [][]file{h.intervals, h.minutes, h.hours, h.stacks, h.superseded} {
		slices.SortFunc(list, byStart)
	}
	return h
}

func twinKey(f *file) string { return f.host + "/" + f.name() }

func byStart(a, b file) int {
	return cmp.Or(a.start.Compare(b.start), cmp.Compare(b.span, a.span), cmp.Compare(a.generation, b.generation),
		cmp.Compare(a.host, b.host), cmp.Compare(a.resolution, b.resolution))
}

// list finds the files in a data directory, those of all hosts; other calls visit with what is not one, such as files that were
// not finished. A directory that is not there is empty. Of what cannot be looked at an error tells; the rest is found all the same.
func list(dir string, other func(path string, info fs.FileInfo)) (files []file, err error) {
	root := versionDir(dir)
	err = walk(dir, func(path string, entry fs.DirEntry) error {
		f, ok := parsePath(path)
		info, err := entry.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has just been removed
		case err != nil:
			return err
		case ok && info.Mode().IsRegular():
			f.bytes = info.Size()
			files = append(files, f)
		case other != nil:
			other(filepath.Join(root, path), info)
		}
		return nil
	})
	return files, err
}

// paths are those of the regular files in a data directory, below that of the version.
func paths(dir string) (found []string, err error) {
	err = walk(dir, func(path string, entry fs.DirEntry) error {
		if entry.Type().IsRegular() {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

func versionDir(dir string) string { return filepath.Join(dir, "v"+strconv.Itoa(Version)) }

// walk visits what is in a data directory and no directory, by its path below that of the version. It goes on after errors.
func walk(dir string, visit func(path string, entry fs.DirEntry) error) error {
	var errs []error
	root := versionDir(dir)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it has just been removed
		case err != nil:
			errs = append(errs, err)
			return nil
		case entry.IsDir() || path == root: // the root may be no directory
			return nil
		}
		if err := visit(path[len(root)+1:], entry); err != nil {
			errs = append(errs, err)
		}
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("list the history in %s: %w", dir, err)
	}
	return nil
}

// parsePath understands a path below the version's directory.
func parsePath(path string) (file, bool) {
	parts := strings.Split(filepath.ToSlash(path), "/")
	f := file{table: parts[0]}
	parts = parts[1:]
	switch {
	case f.table == tableSamples && len(parts) == 4:
		f.resolution = strings.TrimPrefix(parts[0], "resolution=")
		if !slices.Contains([]string{resolutionInterval, resolutionMinute, resolutionHour}, f.resolution) {
			return f, false
		}
		parts = parts[1:]
	case f.table == tableStacks && len(parts) == 3:
	default:
		return f, false
	}
	host, err := url.PathUnescape(strings.TrimPrefix(parts[0], "host="))
	f.host = host
	if err != nil || !f.parseName(parts[2]) || f.span == spanPart && f.table != tableStacks {
		return f, false
	}
	return f, filepath.Join("v"+strconv.Itoa(Version), path) == f.path()
}

// makeDir makes the directories of a partition durable, each in its parent.
func makeDir(dir, partition string) error {
	at := dir
	for _, part := range strings.Split(filepath.ToSlash(partition), "/") {
		parent := at
		at = filepath.Join(at, part)
		err := os.Mkdir(at, 0o750)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := durable.SyncDir(parent); err != nil {
			return err
		}
	}
	return nil
}
