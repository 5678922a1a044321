package store

import (
	"errors"
	"fmt"
	"io"
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
// which a copy makes sense at each moment: the stacks, then the rollups by the hour, then their twins by the minute,
// each by time. The files are complete and never change; they may be gone when they are opened.
func Compacted(dir, host string) ([]File, error) {
	files, err := list(dir, nil)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f file) bool { return f.host != host })
	h := arrange(files)
	ends := make(map[string]time.Time) // of the samples of each date
	for _, f := range h.minutes {
		date := f.start.Format(dateLayout)
		if f.end().After(ends[date]) {
			ends[date] = f.end()
		}
	}
	h.stacks = slices.DeleteFunc(h.stacks, func(f file) bool { return !f.start.Before(ends[f.start.Format(dateLayout)]) })
	var compacted []File
	for _, f := range slices.Concat(h.stacks, h.hours, h.minutes) {
		compacted = append(compacted, File{filepath.ToSlash(f.path()), f.bytes})
	}
	return compacted, nil
}

// CompactedDirs are the directories in which the files of Compacted are, relative to the data directory, with slashes.
func CompactedDirs(host string) []string {
	var dirs []string
	for _, f := range []file{
		{table: tableStacks, host: host}, {table: tableSamples, resolution: resolutionHour, host: host},
		{table: tableSamples, resolution: resolutionMinute, host: host},
	} {
		dirs = append(dirs, filepath.ToSlash(filepath.Dir(f.dir()))) // without the date
	}
	return dirs
}

// Merged says which of the paths, which are as in File, are hours that were compacted into days among the files, which are what Compacted gave.
// The name alone does not tell, because an hour may have been removed before, or have been written into another data directory of this
// host: the rollup of the day holds the hour. Of stacks there must be the day too.
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
		if day, ok := parseFilePath(f.Path); ok && day.span == spanDay && day.resolution == resolutionHour {
			in, err := mergedInto(dir, &day, paths)
			if err != nil {
				return nil, err
			}
			merged = append(merged, in...)
		}
	}
	return merged, nil
}

// mergedInto says of which of the hours a day's rollup has rows.
func mergedInto(dir string, day *file, paths []string) ([]string, error) {
	hours := make(map[time.Time][]string)
	for _, path := range paths {
		f, ok := parseFilePath(path)
		if ok && f.host == day.host && f.start.Truncate(24*time.Hour).Equal(day.start) && (f.table == tableStacks || f.generation <= day.generation) {
			hours[f.start] = append(hours[f.start], path)
		}
	}
	if len(hours) == 0 {
		return nil, nil
	}
	f, err := openChecked(filepath.Join(dir, day.path()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	type row struct {
		Time int64 `parquet:"time,timestamp(millisecond)"`
	}
	rows := parquet.NewGenericReader[row](f.File)
	defer rows.Close()
	var merged []string
	for buffer := make([]row, 1024); ; {
		n, err := rows.Read(buffer)
		for _, r := range buffer[:n] {
			hour := time.UnixMilli(r.Time).UTC().Truncate(time.Hour)
			merged = append(merged, hours[hour]...)
			delete(hours, hour)
		}
		if errors.Is(err, io.EOF) {
			return merged, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", day.path(), err)
		}
	}
}

// parseFilePath understands a File's path.
func parseFilePath(path string) (file, bool) {
	relative, err := filepath.Rel("v"+strconv.Itoa(Version), filepath.FromSlash(path))
	if err != nil {
		return file{}, false
	}
	return parsePath(relative)
}
