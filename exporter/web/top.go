package web

import (
	"cmp"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

const (
	// keepProfiles are shown together: a minute of 10 s intervals.
	keepProfiles = 6
	// keepSamples bounds them by size, 40 bytes and a share of a stack for each; the last one is always kept.
	keepSamples = 1 << 16
	// firstLookTime is how long the profile is that stands in until the first interval is over.
	firstLookTime = 2 * time.Second
	topCount      = 10
	// topCandidates are demangled; equal names among them become one. Demangling all would cost more than all the rest.
	topCandidates = 200
)

// recentProfiles are those of the last intervals, oldest first. Safe for concurrent use.
type recentProfiles struct {
	mu       sync.Mutex
	first    *profile.Profile // until there is another one
	profiles []*profile.Profile
	summed   *summary // of them; nil: to be made when somebody looks
}

// Export shows the profile of an interval on the page. It returns at once.
func (s *Server) Export(p *profile.Profile) { s.recent.add(p) }

func (r *recentProfiles) add(p *profile.Profile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first, r.summed = nil, nil
	r.profiles = append(r.profiles, p)
	samples := 0
	for i := len(r.profiles) - 1; i >= 0; i-- {
		samples += len(r.profiles[i].Samples)
		if last := len(r.profiles) - 1; i < last && (samples > keepSamples || last-i >= keepProfiles) {
			r.profiles = slices.Delete(r.profiles, 0, i+1)
			return
		}
	}
}

func (r *recentProfiles) setFirst(p *profile.Profile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.profiles) == 0 {
		r.first, r.summed = p, nil
	}
}

// summary is made once for each interval, and only if somebody looks.
func (r *recentProfiles) summary() summary {
	r.mu.Lock()
	profiles, summed := slices.Clone(r.profiles), r.summed
	if len(profiles) == 0 && r.first != nil {
		profiles = append(profiles, r.first)
	}
	r.mu.Unlock()
	if summed != nil {
		return *summed
	}
	s := summarize(profiles) // without the lock: Export must not wait for it
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(profiles, r.profiles) {
		r.summed = &s
	}
	return s
}

// firstLook collects a short profile, so that the page shows something before the first interval is over.
func (s *Server) firstLook() {
	p, err := s.options.Profiler.Collect(s.stopping, collect.Filter{}, firstLookTime)
	if err != nil {
		return // the page waits for the first interval instead
	}
	s.recent.setFirst(p)
}

// hot is a function among the hottest. Counts are samples.
type hot struct {
	Function string `json:"function"`
	File     string `json:"file"` // of the executable, without its directories
	Self     int64  `json:"self"`
	Total    int64  `json:"total"` // in it or below it
	// Percentages of all samples.
	SelfPercent  float64 `json:"selfPercent"`
	TotalPercent float64 `json:"totalPercent"`
}

// summary is what the hottest functions were taken from.
type summary struct {
	Seconds   float64 `json:"seconds"`
	Samples   int64   `json:"samples"`
	Functions []hot   `json:"functions"`
}

type symbol struct{ name, path string }

type weight struct{ self, total int64 }

// summarize finds the functions in which most samples were taken.
func summarize(profiles []*profile.Profile) summary {
	var s summary
	weights := make(map[symbol]*weight)
	var seen []symbol // of one sample: recursion counts once
	for _, p := range profiles {
		s.Seconds += p.Duration.Seconds()
		for i := range p.Samples {
			sample := &p.Samples[i]
			s.Samples += sample.Count
			seen = appendSymbols(seen[:0], sample)
			for i, symbol := range seen {
				w := weights[symbol]
				if w == nil {
					w = new(weight)
					weights[symbol] = w
				}
				if i == 0 {
					w.self += sample.Count
				}
				w.total += sample.Count
			}
		}
	}
	s.Functions = hottest(weights, s.Samples)
	return s
}

// appendSymbols appends the functions of a sample, each once, innermost first.
func appendSymbols(symbols []symbol, s *profile.Sample) []symbol {
	truncated := ""
	s.Walk(func(l *profile.Location) {
		file := ""
		if l.Mapping != nil {
			file = l.Mapping.Path
		}
		for _, line := range l.Lines {
			if symbol := (symbol{line.Function.Name, file}); !slices.Contains(symbols, symbol) {
				symbols = append(symbols, symbol)
			}
		}
	}, func(reason string) { truncated = reason })
	if len(symbols) == 0 && truncated != "" {
		symbols = append(symbols, symbol{name: pprof.Truncated(truncated)})
	}
	return symbols
}

// hottest orders by samples in the function itself, and names those that lead.
func hottest(weights map[symbol]*weight, samples int64) []hot {
	functions := make([]hot, 0, len(weights))
	for symbol, w := range weights {
		functions = append(functions, hot{Function: symbol.name, File: symbol.path, Self: w.self, Total: w.total})
	}
	slices.SortFunc(functions, byHeat)
	functions = functions[:min(len(functions), topCandidates)]

	named := make(map[symbol]int)
	merged := []hot{} // empty, but a list in JSON
	for _, f := range functions {
		f.Function, f.File = demangle.Simple(f.Function), path.Base(f.File)
		if f.File == "." {
			f.File = ""
		}
		i, known := named[symbol{f.Function, f.File}]
		if known { // such as two clones of one function
			merged[i].Self += f.Self
			merged[i].Total = min(merged[i].Total+f.Total, samples)
			continue
		}
		named[symbol{f.Function, f.File}] = len(merged)
		merged = append(merged, f)
	}
	slices.SortFunc(merged, byHeat)
	merged = merged[:min(len(merged), topCount)]
	for i := range merged {
		merged[i].SelfPercent = percent(merged[i].Self, samples)
		merged[i].TotalPercent = percent(merged[i].Total, samples)
	}
	return merged
}

func byHeat(a, b hot) int {
	return cmp.Or(cmp.Compare(b.Self, a.Self), cmp.Compare(b.Total, a.Total),
		cmp.Compare(a.Function, b.Function), cmp.Compare(a.File, b.File))
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
