package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/doctor"
	"github.com/pilotlight/pilotlight/profiler/profile"
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
	rows := flame.Top(p).Rows
	for _, r := range rows[:min(len(rows), topFunctions)] {
		if r.Self.Samples > 0 {
			fmt.Fprintf(w, "%7s  %s\n", percent(uint64(r.Self.Samples), a.Exported), doctor.Printable(r.Name))
		}
	}
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
