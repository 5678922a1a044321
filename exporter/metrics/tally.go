package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

const (
	// maxNames bounds the series of CPU time by a name. Programs that rename
	// themselves would otherwise make as many as they like.
	maxNames = 200
	// otherName stands for all names beyond the bound.
	otherName = "other"
	// noName stands for processes whose name is empty: an empty label would be none.
	noName = "[unknown]"
)

// tally adds up CPU time by name: at most maxNames of them, and otherName. No sum goes down. A name that was not there for an hour makes room for another;
// its series ends.
type tally map[string]*named

type named struct {
	nanos int64
	idle  int // intervals since it was there
}

// forgetAfter is an hour of intervals.
const forgetAfter = 360

func newTally() tally { return tally{otherName: {}} }

// add admits the hottest of the new names as long as there is room.
func (t tally) add(cpu map[string]int64) {
	for _, n := range t {
		n.idle++
	}
	for _, name := range byHeat(cpu) {
		if t[name] == nil && len(t) > maxNames && !t.forget() { // one of them is otherName
			t[otherName].nanos += cpu[name]
			continue
		}
		n := t[name]
		if n == nil {
			n = &named{}
			t[name] = n
		}
		n.nanos += cpu[name]
		n.idle = 0
	}
}

// forget makes room.
func (t tally) forget() bool {
	oldest := ""
	for name, n := range t {
		if name != otherName && n.idle > forgetAfter && (oldest == "" || n.idle > t[oldest].idle) {
			oldest = name
		}
	}
	delete(t, oldest)
	return oldest != ""
}

func (t tally) sums() map[string]int64 {
	sums := make(map[string]int64, len(t))
	for name, n := range t {
		sums[name] = n.nanos
	}
	return sums
}

// byHeat sorts names, the hottest first.
func byHeat(cpu map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(cpu), func(a, b string) int {
		return cmp.Or(cmp.Compare(cpu[b], cpu[a]), cmp.Compare(a, b))
	})
}

const (
	// maxFunctions are shown: the hottest of the last minutes.
	maxFunctions = 50
	// maxKnownFunctions are added up, shown or not.
	maxKnownFunctions = 4096
	// keep is what an interval leaves of the heat before it: half is gone after six minutes.
	keep = 0.98
	// maxFunctionName bounds a label: names of C++ templates can be of any length.
	maxFunctionName = 200
)

// functionTally adds up CPU time by function. Which are shown changes slowly; a sum goes on where it was when its function is shown again, unless so many others were hotter
// that it was forgotten.
type functionTally map[string]*functionHeat

type functionHeat struct {
	nanos int64   // since the start
	heat  float64 // of the last minutes
}

func (t functionTally) add(cpu map[string]int64) {
	for _, f := range t {
		f.heat *= keep
	}
	for name, nanos := range cpu {
		f := t[name]
		if f == nil {
			f = &functionHeat{}
			t[name] = f
		}
		f.nanos += nanos
		f.heat += float64(nanos)
	}
	if len(t) > maxKnownFunctions {
		for _, name := range t.hottest()[maxKnownFunctions/2:] {
			delete(t, name)
		}
	}
}

func (t functionTally) hottest() []string {
	return slices.SortedFunc(maps.Keys(t), func(a, b string) int {
		return cmp.Or(cmp.Compare(t[b].heat, t[a].heat), cmp.Compare(a, b))
	})
}

// shown are the sums of the hottest.
func (t functionTally) shown() map[string]int64 {
	names := t.hottest()
	shown := make(map[string]int64)
	for _, name := range names[:min(len(names), maxFunctions)] {
		shown[name] = t[name].nanos
	}
	return shown
}

// labelText makes a name fit for a label: it is whatever bytes a program likes.
func labelText(name string, limit int) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "..."
	}
	return name
}
