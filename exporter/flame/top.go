package flame

import (
	"slices"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Table is the functions of profiles.
type Table struct {
	Type  profile.Type `json:"type"`
	Total Weight       `json:"total"` // of all samples
	Rows  []Row        `json:"rows"`  // the hottest first: by Self, then by Total
}

// Row is what a function took.
type Row struct {
	Function
	Kind Kind `json:"kind"`
	// Self is what was sampled in the function itself, Total also what was sampled in what it
	// called. A sample counts once, however often the function stands in its stack.
	Self  Weight `json:"self"`
	Total Weight `json:"total"`
}

// Top adds up the functions of profiles of one type.
func Top(profiles ...*profile.Profile) *Table { return NewStacks(profiles...).Top() }

// Top adds up the functions.
func (s *Stacks) Top() *Table {
	table := &Table{Type: s.Type, Total: s.Total()}
	rows := make([]Row, len(s.list))
	for i := range rows {
		rows[i] = Row{Function: s.list[i], Kind: s.kinds[i]}
	}
	seen := make([]int, len(rows)) // the last sample that a function was found in, counted from 1
	var buffer []Frame
	for i := range s.Samples {
		sample := &s.Samples[i]
		for depth, f := range s.of(sample, &buffer) {
			row := &rows[f.function()]
			if depth == 0 {
				row.Self.add(sample.Weight)
			}
			if seen[f.function()] != i+1 {
				seen[f.function()] = i + 1
				row.Total.add(sample.Weight)
			}
		}
	}
	// Not all that is numbered is in the samples that are left.
	for i := range rows {
		if seen[i] > 0 {
			table.Rows = append(table.Rows, rows[i])
		}
	}
	slices.SortFunc(table.Rows, func(a, b Row) int {
		for _, order := range []int{a.Self.heavier(b.Self), a.Total.heavier(b.Total)} {
			if order != 0 {
				return order
			}
		}
		return a.Function.compare(b.Function)
	})
	return table
}
