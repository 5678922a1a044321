// Package flame makes of a profile what people look at: the tree of a flame
// graph, the table of the hottest functions, who calls a function and whom it calls, and
// how two profiles differ, with what chance alone would explain.
//
// It works on Stacks, which are made of profiles, wherever these came from (the sampling under way, or a file of another tool), or of the history
// without one. Neither is changed. Nothing is left out of the sums: a stack that is cut short has a frame that says
// why, [truncated: REASON], and counts as a pprof file of the same profile counts in `go tool pprof`.
//
// Names are those of the profiled programs, demangled but otherwise as they are: whoever shows them has to escape them.
package flame

import (
	"cmp"

	"github.com/pilotlight/pilotlight/exporter/pprof"
)

// Function is what frames are told apart by: equal ones are one row of a table and one child of a node.
type Function struct {
	Name   string `json:"name"`             // demangled
	Module string `json:"module,omitempty"` // file name of the executable or library, without its directories; "" where unknown
}

func (f Function) compare(g Function) int {
	return cmp.Or(cmp.Compare(f.Name, g.Name), cmp.Compare(f.Module, g.Module))
}

// Kind is what sort of code a function is: one of the profile's kinds of frames, or one of those below.
type Kind string

// Kinds beyond those of the profile.
const (
	KindUnknown   Kind = "unknown"             // code without a name, such as [libc.so.6+0x29d90]
	KindTruncated Kind = "truncated"           // stands where callers are missing
	KindLabel     Kind = Kind(pprof.KindLabel) // no code, but the label that samples are grouped by
)

// Weight is how much of a profile something is.
type Weight struct {
	Samples int64 `json:"samples"`
	Value   int64 `json:"value"` // in the unit of the profile's type
}

func (w *Weight) add(v Weight) {
	w.Samples += v.Samples
	w.Value += v.Value
}

// heavier orders the heavier first.
func (w Weight) heavier(v Weight) int {
	return cmp.Or(cmp.Compare(v.Value, w.Value), cmp.Compare(v.Samples, w.Samples))
}
