package web

import (
	"slices"
	"sync"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/collect"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

const (
	// keepProfiles are shown together: a minute of 10 s intervals.
	keepProfiles = 6
	// keepSamples bounds them by size, 40 bytes and a share of a stack for each; the last one is always kept.
	keepSamples = 1 << 16
	// firstLookTime is how long the profile is that stands in until the first interval is over.
	firstLookTime = 2 * time.Second
	topCount      = 10
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

// memory is what is shown, for queries.
func (r *recentProfiles) memory() memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.profiles) == 0 && r.first != nil {
		return memory{r.first}
	}
	return slices.Clone(r.profiles)
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

// summarize finds the functions in which most samples were taken.
func summarize(profiles []*profile.Profile) summary {
	table := flame.Top(profiles...)
	s := summary{Samples: table.Total.Samples, Functions: []hot{}} // a list in JSON, if an empty one
	for _, p := range profiles {
		s.Seconds += p.Duration.Seconds()
	}
	for _, r := range table.Rows[:min(len(table.Rows), topCount)] {
		s.Functions = append(s.Functions, hot{
			Function: r.Name, File: r.Module, Self: r.Self.Samples, Total: r.Total.Samples,
			SelfPercent: percent(r.Self.Samples, s.Samples), TotalPercent: percent(r.Total.Samples, s.Samples),
		})
	}
	return s
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
