package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

const (
	// maxNames bounds the series of CPU time by process name. Programs that rename
	// themselves would otherwise make as many as they like.
	maxNames = 200
	// otherName stands for all names beyond the bound.
	otherName = "other"
	// noName stands for processes whose name is empty: an empty label would be none.
	noName = "[unknown]"
)

// profileCounts adds up what profiles tell. Safe for concurrent use.
type profileCounts struct {
	mu sync.Mutex
	profileTotals
}

// profileTotals are sums over all profiles so far; they never go down.
type profileTotals struct {
	cpuNanos   map[string]int64 // by process name, at most maxNames and otherName
	incomplete map[string]int64 // samples, by reason
}

func newProfileCounts() profileCounts {
	return profileCounts{profileTotals: profileTotals{
		cpuNanos:   map[string]int64{otherName: 0},
		incomplete: make(map[string]int64),
	}}
}

func (c *profileCounts) totals() profileTotals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return profileTotals{cpuNanos: maps.Clone(c.cpuNanos), incomplete: maps.Clone(c.incomplete)}
}

// add reads the profile first, and holds scrapes up only to add the sums.
func (c *profileCounts) add(p *profile.Profile) {
	var cpu map[string]int64
	if p.Type == profile.TypeCPU {
		cpu = cpuByName(p)
	}
	incomplete := incompleteByReason(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	for reason, n := range incomplete {
		c.incomplete[reason] += n
	}
	c.addCPU(cpu)
}

// addCPU admits the hottest of the new names as long as there is room.
func (c *profileCounts) addCPU(cpu map[string]int64) {
	byHeat := slices.SortedFunc(maps.Keys(cpu), func(a, b string) int {
		return cmp.Or(cmp.Compare(cpu[b], cpu[a]), cmp.Compare(a, b))
	})
	for _, name := range byHeat {
		nanos := cpu[name]
		if _, ok := c.cpuNanos[name]; !ok && len(c.cpuNanos) > maxNames { // one of them is otherName
			name = otherName
		}
		c.cpuNanos[name] += nanos
	}
}

func cpuByName(p *profile.Profile) map[string]int64 {
	cpu := make(map[string]int64)
	for i := range p.Samples {
		cpu[seriesName(p.Samples[i].Labels)] += p.Samples[i].Value
	}
	return cpu
}

// seriesName is the process's name as a label can have it. A name is any bytes that the process likes.
func seriesName(l *profile.Labels) string {
	name := l.Comm
	if kind, _, numbered := strings.Cut(name, "/"); numbered && l.Exe == "" {
		name = kind // a kernel thread: "kworker/3:1-events", one of hundreds
	}
	if name == "" {
		return noName
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

func incompleteByReason(p *profile.Profile) map[string]int64 {
	counts := make(map[string]int64)
	var reasons []string // of one sample, each once
	note := func(reason string) {
		if reason != "" && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	for i := range p.Samples {
		reasons = reasons[:0]
		for _, side := range []*profile.Stack{p.Samples[i].Kernel, p.Samples[i].User} {
			if side == nil {
				continue
			}
			note(side.Truncated)
			for _, l := range side.Locations {
				note(l.Unnamed)
			}
		}
		for _, reason := range reasons {
			counts[reason] += p.Samples[i].Count
		}
	}
	return counts
}
