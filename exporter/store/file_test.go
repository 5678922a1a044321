package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// clockAt is a clock that stands at a time, and that time.
func clockAt(t *testing.T, text string) (*clock, time.Time) {
	t.Helper()
	c, now := &clock{}, at(t, text)
	c.set(now)
	return c, now
}

func TestPaths(t *testing.T) {
	start := at(t, "2026-11-24T17:05:10Z")
	hour, day := start.Truncate(time.Hour), start.Truncate(24*time.Hour)
	for want, f := range map[string]file{
		"v1/samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z.parquet":      {table: tableSamples, resolution: resolutionInterval, host: "web1", start: start},
		"v1/samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z-3.parquet":    {table: tableSamples, resolution: resolutionInterval, host: "web1", start: start, generation: 3},
		"v1/samples/resolution=1m/host=a%2Fb%0A/date=2026-11-24/20261124T17.parquet":        {table: tableSamples, resolution: resolutionMinute, host: "a/b\n", start: hour, span: spanHour},
		"v1/samples/resolution=1h/host=web1.example.com/date=2026-11-24/20261124-1.parquet": {table: tableSamples, resolution: resolutionHour, host: "web1.example.com", start: day, span: spanDay, generation: 1},
		"v1/stacks/host=web1/date=2026-11-24/20261124T1705-2.parquet":                       {table: tableStacks, host: "web1", start: hour.Add(5 * time.Minute), span: spanPart, generation: 2},
		"v1/stacks/host=web1/date=2026-11-24/20261124T17.parquet":                           {table: tableStacks, host: "web1", start: hour, span: spanHour},
	} {
		if got := f.path(); got != want {
			t.Errorf("path %s, want %s", got, want)
		}
		if got, ok := parsePath(strings.TrimPrefix(want, "v1/")); !ok || got != f {
			t.Errorf("%s was taken for %+v, %v", want, got, ok)
		}
	}
	for _, path := range []string{
		"samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z.parquet.damaged",
		"samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z.parquet.tmp",
		"samples/resolution=10s/host=web1/date=2026-11-23/20261124T170510Z.parquet",
		"samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z-0.parquet",
		"samples/resolution=10s/host=web1/date=2026-11-24/20261124T170510Z-01.parquet",
		"samples/resolution=2s/host=web1/date=2026-11-24/20261124T170510Z.parquet",
		"samples/host=web1/date=2026-11-24/20261124T170510Z.parquet",
		"stacks/resolution=1m/host=web1/date=2026-11-24/20261124T170510Z.parquet",
		"stacks/host=web1/date=2026-11-24/other.parquet",
		"stacks/host=web1/date=2026-11-24/20261124T1703.parquet",
		"samples/resolution=1m/host=web1/date=2026-11-24/20261124T1705.parquet",
		"stacks",
	} {
		if f, ok := parsePath(path); ok {
			t.Errorf("%s was taken for %+v", path, f)
		}
	}
}

// Where no directory is, nothing is found, and nothing breaks.
func TestNoDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(t.TempDir(), versionDir(dir)); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"a link", "a file"} {
		files, err := list(dir, nil)
		h, aside, lookErr := NewReader(dir, nil).look()
		if len(files)+len(h.intervals)+len(aside) > 0 || err != nil || lookErr != nil {
			t.Errorf("%s: %v, %v, %v, %v, %v", what, files, err, h, aside, lookErr)
		}
		if err := errors.Join(os.Remove(versionDir(dir)), os.WriteFile(versionDir(dir), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// Each sample counts once, whatever a crash left of a compaction.
func TestArrange(t *testing.T) {
	for _, test := range []struct{ name, files, want string }{
		{"intervals", "10s/T170000Z 10s/T170010Z s/T170000Z", "intervals T170000Z T170010Z stacks T170000Z"},
		{"an hour compacted, nothing removed", "10s/T170000Z 10s/T170010Z 10s/T180000Z 1h/T17", "intervals T180000Z hours T17 superseded T170000Z T170010Z"},
		{"the clock was set back", "10s/T170000Z-1 1h/T17", "intervals T170000Z-1 hours T17"},
		{"and that was compacted", "10s/T170000Z-1 1h/T17 1h/T17-1", "hours T17 T17-1 superseded T170000Z-1"},
		{"a day compacted, nothing removed", "1h/T16 1h/T17-1 1h/-1", "hours -1 superseded T16 T17-1"},
		{"after that, an hour of a clock set back", "1h/ 1h/T16-1", "hours  T16-1"},
		{"an older version's hour, which is to become another one", "10s/T170000Z 1m/T17 1h/T17", "minutes T17 superseded T17 T170000Z"},
		{"whose day was not finished", "1m/T16 1h/T16 1h/", "minutes T16 superseded  T16"},
		{"a day that was made anew, and an hour of a clock set back", "1h/ 1m/T16-1", "minutes T16-1 hours "},
		{"of which one is made anew", "1h/T16 1m/T17 1h/T17", "minutes T17 hours T16 superseded T17"},
		{"and its day", "1m/ 1h/ 1m/T16-1 1h/T16-1", "minutes  T16-1 superseded  T16-1"},
		{"stacks compacted", "s/T170000Z s/T17 s/T180000Z", "stacks T17 T180000Z superseded T170000Z"},
		{"stacks do not cover samples", "s/T17 10s/T170000Z", "intervals T170000Z stacks T17"},
	} {
		var files []file
		for _, word := range strings.Fields(test.files) {
			kind, stamp, _ := strings.Cut(word, "/")
			f := file{table: tableSamples, resolution: kind, host: "h"}
			if kind == "s" {
				f.table, f.resolution = tableStacks, ""
			}
			if !f.parseName("20261124" + stamp + fileSuffix) {
				t.Fatalf("%s: bad name %q", test.name, word)
			}
			files = append(files, f)
		}
		slices.Reverse(files)
		h := arrange(files)
		var got []string
		for _, group := range []struct {
			name  string
			files []file
		}{{"intervals", h.intervals}, {"minutes", h.minutes}, {"hours", h.hours}, {"stacks", h.stacks}, {"superseded", h.superseded}} {
			if len(group.files) > 0 {
				got = append(got, group.name)
			}
			for _, f := range group.files {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(f.name(), "20261124"), fileSuffix))
			}
		}
		if g := strings.Join(got, " "); g != test.want {
			t.Errorf("%s: %q, want %q", test.name, g, test.want)
		}
	}
	// Files of another host cover nothing here.
	here, there := file{table: tableSamples, resolution: resolutionInterval, host: "a"}, file{table: tableSamples, resolution: resolutionMinute, host: "b"}
	here.start, there.start, there.span = at(t, "2026-11-24T17:05:10Z"), at(t, "2026-11-24T17:00:00Z"), spanHour
	if h := arrange([]file{here, there}); len(h.intervals) != 1 || len(h.minutes) != 1 {
		t.Error("a file of one host covers one of another: ", fmt.Sprint(h))
	}
}
