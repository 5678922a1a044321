package jit

import "slices"

// flatten cuts entries, which may overlap in any way, into sorted disjoint segments: each address belongs to the last
// entry that covers it. It takes O(n log n).
//
// The ends of all entries divide the address space into cells. The entries paint their cells from the last entry to the
// first, and a cell keeps its first paint:
//
//	entries   1: |---------------|         cells   0   1   2   3
//	          2:     |-------|             3 paints        2   3
//	          3:         |-----------|     2 paints    1   (2 has paint)
//	bounds       0   1   2   3   4         1 paints 0
//
// next jumps over cells that have paint, so that each cell is visited once.
func flatten(entries []entry) []segment {
	bounds := make([]uint64, 0, 2*len(entries))
	for _, e := range entries {
		bounds = append(bounds, e.start, e.end)
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)

	const unpainted = -1
	painter := make([]int32, len(bounds)) // by cell; the last bound begins no cell
	next := make([]int32, len(bounds))    // by cell: itself while unpainted, else a cell further on
	for i := range bounds {
		painter[i], next[i] = unpainted, int32(i)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		first, _ := slices.BinarySearch(bounds, entries[i].start)
		for c := unpaintedFrom(next, int32(first)); bounds[c] < entries[i].end; c = unpaintedFrom(next, c) {
			painter[c] = int32(i)
			next[c] = c + 1
		}
	}

	segments := make([]segment, 0, len(entries))
	for c, p := range painter {
		if p == unpainted {
			continue
		}
		if c > 0 && painter[c-1] == p {
			segments[len(segments)-1].end = bounds[c+1]
			continue
		}
		s := entries[p]
		s.start, s.end = bounds[c], bounds[c+1]
		segments = append(segments, s)
	}
	return segments
}

// unpaintedFrom returns the first unpainted cell at c or after, and shortens the way to it for the next time. The last
// bound is never painted, so there is one.
func unpaintedFrom(next []int32, c int32) int32 {
	for next[c] != c {
		next[c] = next[next[c]]
		c = next[c]
	}
	return c
}

// overlay returns old with fresh on top: where both cover an address, fresh has it. Both are sorted and disjoint, and so
// is the result. old is left as it is. It takes O(len(old) + len(fresh)).
func overlay(old, fresh []segment) []segment {
	// Exact where code is only added; fresh segments that split old ones make it grow.
	out := make([]segment, 0, len(old)+len(fresh))
	var rest segment // of the old segment in work; empty if start == end
	pop := func() {
		rest = segment{}
		if len(old) > 0 {
			rest, old = old[0], old[1:]
		}
	}
	pop()
	for _, f := range fresh {
		for rest.start < rest.end && rest.end <= f.start {
			out = append(out, rest)
			pop()
		}
		if rest.start < rest.end && rest.start < f.start {
			before := rest
			before.end = f.start
			out = append(out, before)
		}
		out = append(out, f)
		for rest.start < rest.end && rest.end <= f.end {
			pop()
		}
		if rest.start < rest.end {
			rest.start = max(rest.start, f.end)
		}
	}
	if rest.start < rest.end {
		out = append(append(out, rest), old...)
	}
	return out
}
