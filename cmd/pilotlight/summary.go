package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/profiler/doctor"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// topFunctions are listed in the summary.
const topFunctions = 10

// summarize says what was recorded, what was lost and where the time went.
func summarize(w io.Writer, p *profile.Profile, path string) {
	a := &p.Account
	if a.Exported == 0 {
		fmt.Fprintf(w, "pilotlight: warning: no samples in %s: the target did not run on a CPU\n", p.Duration.Round(time.Millisecond))
	}
	fmt.Fprintf(w, "%s in %s, written to %s\n", plural(a.Taken, "sample"), p.Duration.Round(10*time.Millisecond), path)
	if a.Filtered > 0 {
		fmt.Fprintf(w, "not of the target: %d\n", a.Filtered)
	}
	var lost []string
	for _, l := range a.Lost {
		if l.Count > 0 {
			lost = append(lost, fmt.Sprintf("%d %s", l.Count, l.Reason))
		}
	}
	if len(lost) > 0 {
		fmt.Fprintf(w, "lost: %s\n", strings.Join(lost, ", "))
	}
	if a.Exported == 0 {
		return
	}
	c := p.Completeness()
	fmt.Fprintf(w, "lost: %d; whole stacks: %s; named frames: %s\n", a.Taken-a.Exported-a.Filtered,
		percent(c.Whole, c.Stacks), percent(c.Named, c.Frames))
	if len(c.Reasons) > 0 {
		reasons := make([]string, len(c.Reasons))
		for i, r := range c.Reasons {
			reasons[i] = fmt.Sprintf("%s %s", r.Reason, percent(r.Count, c.Stacks))
		}
		fmt.Fprintf(w, "incomplete: %s\n", strings.Join(reasons, ", "))
	}
	for _, f := range leaves(p) {
		fmt.Fprintf(w, "%7s  %s\n", percent(uint64(f.count), a.Exported), doctor.Printable(f.name))
	}
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

type leafCount struct {
	name  string
	count int64
}

// leaves are the functions in which most samples were taken.
func leaves(p *profile.Profile) []leafCount {
	counts := make(map[string]int64)
	for i := range p.Samples {
		if leaf := p.Samples[i].Leaf(); leaf != nil {
			counts[leaf.Lines[0].Function.Name] += p.Samples[i].Count
		}
	}
	var top []leafCount
	for name, count := range counts {
		top = append(top, leafCount{demangle.Simple(name), count})
	}
	slices.SortFunc(top, func(a, b leafCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
	})
	return top[:min(len(top), topFunctions)]
}
