package store

import (
	"path/filepath"
	"strings"
	"testing"
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

// The IDs of stacks stand in files without a dictionary, and the levels of lists are compressed.
func TestEncodings(t *testing.T) {
	s, dir := compactedHours(t)
	seen := make(map[string]bool)
	for _, f := range s.files {
		c, err := openChecked(filepath.Join(dir, f.path()))
		if err != nil {
			t.Fatal(err)
		}
		id, _ := c.Schema().Lookup("stack_id")
		dictionary := c.Metadata().RowGroups[0].Columns[id.ColumnIndex].MetaData.DictionaryPageOffset != 0
		if seen[f.resolution] = true; dictionary {
			t.Errorf("%s has a dictionary of stack IDs", f.path())
		}
		if hasVersion2(c.Metadata().RowGroups[0].Columns) {
			t.Errorf("%s has pages of version 2", f.path())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v were looked at", seen)
	}
}
