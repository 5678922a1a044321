package terminal

import (
	"cmp"
	"regexp"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// keepProfiles is how many of the last profiles are shown together.
const keepProfiles = 10

// window holds the last profiles.
type window struct {
	profiles []*profile.Profile
}

func (w *window) add(p *profile.Profile) {
	w.profiles = append(w.profiles, p)
	if extra := len(w.profiles) - keepProfiles; extra > 0 {
		w.profiles = slices.Delete(w.profiles, 0, extra)
	}
}

// sum is what the profiles have together.
func (w *window) sum() *profile.Profile {
	all := new(profile.Profile)
	lost := make(map[string]uint64)
	for _, p := range w.profiles {
		all.Type, all.Period = p.Type, p.Period
		all.Duration += p.Duration
		all.Samples = append(all.Samples, p.Samples...)
		all.Account.Taken += p.Account.Taken
		all.Account.Exported += p.Account.Exported
		for _, l := range p.Account.Lost {
			lost[l.Reason] += l.Count
		}
	}
	for reason, n := range lost {
		all.Account.Lost = append(all.Account.Lost, profile.Loss{Reason: reason, Count: n})
	}
	return all
}

// process is what one process took.
type process struct {
	pid     int
	comm    string
	weight  flame.Weight
	hottest string // function
}

// processes are those of a profile, the busiest first.
func processes(p *profile.Profile) []process {
	index := make(map[int]int)
	var list []process
	samples := make(map[int][]profile.Sample)
	for _, s := range p.Samples {
		pid, comm := 0, ""
		if s.Labels != nil {
			pid, comm = s.Labels.PID, s.Labels.Comm
		}
		i, ok := index[pid]
		if !ok {
			i = len(list)
			index[pid] = i
			list = append(list, process{pid: pid})
		}
		list[i].comm = comm // the latest: an exec changes it
		list[i].weight.Samples += s.Count
		list[i].weight.Value += s.Value
		samples[pid] = append(samples[pid], s)
	}
	slices.SortFunc(list, func(a, b process) int {
		return cmp.Or(cmp.Compare(b.weight.Value, a.weight.Value), cmp.Compare(a.pid, b.pid))
	})
	for i := range list {
		if i == maxHottest {
			break
		}
		if rows := flame.Top(&profile.Profile{Samples: samples[list[i].pid]}).Rows; len(rows) > 0 {
			list[i].hottest = rows[0].Name
		}
	}
	return list
}

// maxHottest is for how many processes the hottest function is looked for: more than a screen has rows.
const maxHottest = 200

// ofProcess keeps the samples of one process.
func ofProcess(p *profile.Profile, pid int) *profile.Profile {
	out := *p
	out.Samples = nil
	for _, s := range p.Samples {
		if s.Labels != nil && s.Labels.PID == pid {
			out.Samples = append(out.Samples, s)
		}
	}
	return &out
}

// matching keeps the rows whose name, as it is shown, matches; nil keeps all.
func matching[T any](rows []T, pattern *regexp.Regexp, name func(*T) string) []T {
	if pattern == nil {
		return rows
	}
	var out []T
	for i := range rows {
		if pattern.MatchString(name(&rows[i])) {
			out = append(out, rows[i])
		}
	}
	return out
}

// cpus is how much of a profile's time a weight is: 1 is one CPU. Other types have no such measure, and there it is the share of all.
func cpus(p *profile.Profile, w, all flame.Weight) float64 {
	if p.Type == profile.TypeCPU && p.Duration >= time.Millisecond {
		return float64(w.Value) / float64(p.Duration.Nanoseconds())
	}
	return partOf(w, all)
}

func partOf(w, all flame.Weight) float64 {
	if all.Value == 0 {
		return 0
	}
	return float64(w.Value) / float64(all.Value)
}
