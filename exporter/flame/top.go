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
func Top(profiles ...*profile.Profile) *Table {
	table := new(Table)
	frames := newFrames()
	var rows []Row
	var seen []int // by function: the last sample that it was found in, counted from 1
	number := 0
	for _, p := range profiles {
		table.Type = p.Type
		for i := range p.Samples {
			s := &p.Samples[i]
			number++
			table.Total.add(s)
			for depth, f := range frames.of(s) {
				for len(rows) <= int(f.function) {
					rows = append(rows, Row{Function: frames.functions[len(rows)], Kind: frames.kinds[len(rows)]})
					seen = append(seen, 0)
				}
				row := &rows[f.function]
				if depth == 0 {
					row.Self.add(s)
				}
				if seen[f.function] != number {
					seen[f.function] = number
					row.Total.add(s)
				}
			}
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		for _, order := range []int{a.Self.heavier(b.Self), a.Total.heavier(b.Total)} {
			if order != 0 {
				return order
			}
		}
		return a.Function.compare(b.Function)
	})
	table.Rows = rows
	return table
}
