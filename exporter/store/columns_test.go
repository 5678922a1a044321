package store

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// logColumns logs what each column of a kind of file takes.
func logColumns(t testing.TB, dir string, want func(*file) bool) {
	bytes := make(map[string]int64)
	var names []string
	var rows int64
	files, err := list(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want(&f) {
			continue
		}
		c, err := openChecked(filepath.Join(dir, f.path()))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range c.Metadata().RowGroups {
			rows += g.NumRows
			for i, column := range g.Columns {
				name := strings.Join(c.Schema().Columns()[i], ".")
				if bytes[name] == 0 {
					names = append(names, name)
				}
				bytes[name] += column.MetaData.TotalCompressedSize
			}
		}
		_ = c.Close()
	}
	for _, name := range names {
		t.Logf("%-14s %10d bytes, %.3f a row", name, bytes[name], float64(bytes[name])/float64(rows))
	}
	t.Logf("%d rows", rows)
}

// The IDs of an interval's stacks stand in it without a dictionary, those of compacted files with one.
func TestDictionaryOfStackIDs(t *testing.T) {
	for name, w := range map[string]*parquet.GenericWriter[SampleRow]{"an interval": newIntervalWriter(), "a compacted file": newSampleWriter(compression)} {
		id, ok := w.Schema().Lookup("stack_id")
		if !ok || (id.Node.Encoding() != nil) != (name == "a compacted file") {
			t.Errorf("%s: %v, %v", name, ok, id.Node.Encoding())
		}
	}
}
