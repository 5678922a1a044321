package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
)

// File is a file of the history for who copies it.
type File struct {
	Path  string // relative to the data directory, with slashes
	Bytes int64
}

// Host is the partition that the Store writes.
func (s *Store) Host() string { return s.options.Host }

// Compacted lists the files of a host that compaction has made and that count, with the stacks to which they refer, in an order in
// which a copy makes sense at each moment: the stacks, then the samples, each by time. What an older version made of minutes comes once it has become hours. The files are
// complete and never change; they may be gone when they are opened.
func Compacted(dir, host string) ([]File, error) {
	files, err := list(dir, nil)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f file) bool { return f.host != host })
	h := arrange(files)
	ends := make(map[string]time.Time) // of the samples of each date
	for _, f := range h.hours {
		date := f.start.Format(dateLayout)
		if f.end().After(ends[date]) {
			ends[date] = f.end()
		}
	}
	h.stacks = slices.DeleteFunc(h.stacks, func(f file) bool { return f.span < spanHour || !f.start.Before(ends[f.start.Format(dateLayout)]) })
	var compacted []File
	for _, f := range slices.Concat(h.stacks, h.hours) {
		compacted = append(compacted, File{filepath.ToSlash(f.path()), f.bytes})
	}
	return compacted, nil
}

// CompactedDirs are the directories in which the files of Compacted are, relative to the data directory, with slashes.
func CompactedDirs(host string) []string {
	var dirs []string
	for _, f := range []file{{table: tableStacks, host: host}, {table: tableSamples, resolution: resolutionHour, host: host}} {
		dirs = append(dirs, filepath.ToSlash(filepath.Dir(f.dir()))) // without the date
	}
	return dirs
}

// Verify compares all of a file, which is as in File, with its checksums. What is wrong with its content is a DamageError.
func Verify(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := &checkedFile{file: f}
	if _, _, err := c.openSums(); err != nil {
		return err
	}
	return c.checkAll()
}

// Merged says which of the paths, which are as in File, are hours that were compacted into days among the files, which are some of those that Compacted gave.
// The name alone does not tell, because an hour may have been removed before, or have been written into another data directory of this
// host: the day of the same resolution holds the hour. Of stacks there must be the day too, and the samples that refer to them in one. A
// day that is damaged holds nothing.
func Merged(dir string, files []File, paths []string) ([]string, error) {
	there := make(map[string]bool)
	stackDays := make(map[string]bool)
	for _, f := range files {
		there[f.Path] = true
		if day, ok := parseFilePath(f.Path); ok && day.table == tableStacks && day.span == spanDay {
			stackDays[day.dir()] = true
		}
	}
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		f, ok := parseFilePath(path)
		return !ok || there[path] || f.span != spanHour || f.table == tableStacks && !stackDays[f.dir()]
	})
	var merged []string
	for _, f := range files {
		day, ok := parseFilePath(f.Path)
		if !ok || day.span != spanDay || day.table != tableSamples {
			continue
		}
		held, err := heldHours(dir, &day)
		if errors.As(err, new(*DamageError)) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			hour, _ := parseFilePath(path)
			same := hour.resolution == day.resolution && hour.generation <= day.generation || hour.table == tableStacks && day.resolution == resolutionHour
			if same && hour.host == day.host && held[hour.start] {
				merged = append(merged, path)
			}
		}
	}
	return merged, nil
}

// heldHours are those of which a day of samples has row groups: each is of one hour.
func heldHours(dir string, day *file) (held map[time.Time]bool, err error) {
	f, err := openChecked(filepath.Join(dir, day.path()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at, ok := f.Schema().Lookup("time")
	if !ok {
		return nil, f.damage(0, errFormat)
	}
	held = make(map[time.Time]bool)
	for _, g := range f.RowGroups() {
		chunk, ok := g.ColumnChunks()[at.ColumnIndex].(*parquet.FileColumnChunk)
		if !ok {
			continue
		}
		if low, high, ok := chunk.Bounds(); ok {
			hour := time.UnixMilli(low.Int64()).UTC().Truncate(time.Hour)
			if time.UnixMilli(high.Int64()).Before(hour.Add(time.Hour)) {
				held[hour] = true
			}
		}
	}
	return held, nil
}

// parseFilePath understands a File's path.
func parseFilePath(path string) (file, bool) {
	relative, err := filepath.Rel("v"+strconv.Itoa(Version), filepath.FromSlash(path))
	if err != nil {
		return file{}, false
	}
	return parsePath(relative)
}
