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
