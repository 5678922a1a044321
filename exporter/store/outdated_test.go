package store

import (
	"slices"
	"testing"
	"time"
)

// A file that is written between the choice of what to compact and its beginning would be covered by what it is no part of.
func TestPlanSeesWhatHasCome(t *testing.T) {
	hour := at(t, "2026-11-24T17:00:00Z")
	interval := func(second int) file {
		return file{table: tableStacks, host: "h", start: hour.Add(time.Duration(second) * time.Second)}
	}
	from := []file{interval(0), interval(10)}
	made := target(from, "", spanHour)
	s := &Store{files: slices.Clone(from)}
	if !s.plan(from, made) || len(s.planned) != 1 {
		t.Error("what is all there is not planned")
	}
	late := interval(20)
	if late.generation = s.nextGeneration(late); late.generation != 1 {
		t.Errorf("a file that comes after the plan has generation %d: it is covered", late.generation)
	}
	s = &Store{files: append(slices.Clone(from), interval(20))}
	if s.plan(from, made) || s.planned != nil {
		t.Error("what has come before the plan is covered")
	}
}

// A day is not made of an older version's where it would not count, because an hour of that is left.
func TestWhatIsMadeCounts(t *testing.T) {
	day := file{table: tableSamples, resolution: resolutionMinute, host: "h", start: at(t, "2026-11-24T00:00:00Z"), span: spanDay}
	left := day
	left.start, left.span = day.start.Add(16*time.Hour), spanHour
	made := target([]file{day}, resolutionHour, spanDay)
	twin := made
	for _, test := range []struct {
		files []file
		want  bool
	}{{[]file{day, twin}, true}, {[]file{day, twin, left}, false}} {
		s := &Store{files: test.files}
		if got := s.counts([]file{day}, made); got != test.want {
			t.Errorf("beside %v it counts: %v", test.files, got)
		}
	}
}
