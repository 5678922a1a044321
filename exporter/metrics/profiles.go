package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/pilotlight/pilotlight/profiler/profile"
)

// profileCounts adds up what profiles tell. Safe for concurrent use.
type profileCounts struct {
	adding sync.Mutex // of groups, which scrapes do not wait for
	groups *groups

	mu sync.Mutex
	// cpu is CPU time by what samples are of, in the words of cpuBreakdowns.
	cpu       map[string]tally
	functions functionTally
	byGroup   map[string]int64
	// incomplete are samples, by reason.
	incomplete map[string]int64
}

// profileTotals are sums over all profiles so far; they never go down.
type profileTotals struct {
	cpu                map[string]map[string]int64
	functions, byGroup map[string]int64
	incomplete         map[string]int64
}

type cpuBreakdown struct {
	name, label string
	// of is "" for samples of none, which are left out.
	of func(*profile.Labels) string
}

// cpuBreakdowns are the names that CPU time is added up by: each is a metric, pilotlight.NAME.cpu.
var cpuBreakdowns = []cpuBreakdown{
	{"process", "comm", seriesName},
	{"service", "service", func(l *profile.Labels) string { return cmp.Or(l.ServiceName(), noName) }},
	{"container", "container_id", func(l *profile.Labels) string { return l.ContainerID }},
	{"pod", "pod_uid", func(l *profile.Labels) string { return l.PodUID }},
	{"unit", "unit", func(l *profile.Labels) string { return l.Unit }},
}

func newProfileCounts(g *groups) *profileCounts {
	c := &profileCounts{groups: g, cpu: make(map[string]tally), functions: make(functionTally), byGroup: make(map[string]int64), incomplete: make(map[string]int64)}
	for _, series := range cpuBreakdowns {
		c.cpu[series.name] = newTally()
	}
	for _, name := range g.names {
		c.byGroup[name] = 0
	}
	return c
}

func (c *profileCounts) totals() profileTotals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := profileTotals{cpu: make(map[string]map[string]int64), functions: c.functions.shown(), byGroup: maps.Clone(c.byGroup), incomplete: maps.Clone(c.incomplete)}
	for name, of := range c.cpu {
		t.cpu[name] = of.sums()
	}
	return t
}

// add reads the profile first, and holds scrapes up only to add the sums.
func (c *profileCounts) add(p *profile.Profile) {
	incomplete := incompleteByReason(p)
	cpu := make(map[string]map[string]int64)
	var self, byGroup map[string]int64
	if p.Type == profile.TypeCPU {
		c.adding.Lock()
		defer c.adding.Unlock()
		self, byGroup = c.groups.functionCPU(p)
		for _, series := range cpuBreakdowns {
			cpu[series.name] = cpuBy(p, series.of)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for reason, n := range incomplete {
		c.incomplete[reason] += n
	}
	for name, nanos := range cpu {
		c.cpu[name].add(nanos)
	}
	if p.Type == profile.TypeCPU {
		c.functions.add(self)
	}
	for name, nanos := range byGroup {
		c.byGroup[name] += nanos
	}
}

func cpuBy(p *profile.Profile, name func(*profile.Labels) string) map[string]int64 {
	cpu := make(map[string]int64)
	names := make(map[*profile.Labels]string)
	for i := range p.Samples {
		l := p.Samples[i].Labels
		of, ok := names[l]
		if !ok {
			of = labelText(name(l), maxFunctionName)
			names[l] = of
		}
		if of != "" {
			cpu[of] += p.Samples[i].Value
		}
	}
	return cpu
}

// seriesName is the process's name as a label can have it.
func seriesName(l *profile.Labels) string {
	name := l.Comm
	if kind, _, numbered := strings.Cut(name, "/"); numbered && l.Exe == "" {
		name = kind // a kernel thread: "kworker/3:1-events", one of hundreds
	}
	return cmp.Or(name, noName)
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
