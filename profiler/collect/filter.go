package collect

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Filter says which samples a profile is of. The zero value takes all; every
// field that is set must hold.
type Filter struct {
	// PIDs are wanted processes; Children takes their descendants too.
	PIDs     []int
	Children bool
	// Comm must match the name of the process.
	Comm *regexp.Regexp
	// Cgroup is a path below a cgroup hierarchy's root; cgroups below it count.
	Cgroup string
	// ContainerID is a container's id or the beginning of one.
	ContainerID string
}

// Empty says that the filter takes everything.
func (f *Filter) Empty() bool {
	return len(f.PIDs) == 0 && f.Comm == nil && f.Cgroup == "" && f.ContainerID == ""
}

func (f *Filter) match(t *process.Table, l *profile.Labels) bool {
	if len(f.PIDs) > 0 && !slices.Contains(f.PIDs, l.PID) && !(f.Children && t.DescendsFrom(l.PID, f.PIDs)) {
		return false
	}
	if f.Comm != nil && !f.Comm.MatchString(l.Comm) {
		return false
	}
	if f.ContainerID != "" && !strings.HasPrefix(l.ContainerID, f.ContainerID) {
		return false
	}
	if f.Cgroup == "" {
		return true
	}
	return slices.ContainsFunc(l.Cgroups, func(c string) bool { return below(c, f.Cgroup) })
}

// decider remembers a filter's answers: what it looks at is in the labels.
type decider struct {
	filter  Filter
	answers map[*profile.Labels]bool
}

// maxAnswers bounds what a decider remembers; it then begins anew.
const maxAnswers = 16384

func (d *decider) pass(t *process.Table, l *profile.Labels) bool {
	if d.filter.Empty() {
		return true
	}
	answer, ok := d.answers[l]
	if !ok {
		if d.answers == nil || len(d.answers) >= maxAnswers {
			d.answers = make(map[*profile.Labels]bool)
		}
		answer = d.filter.match(t, l)
		d.answers[l] = answer
	}
	return answer
}

// below tells whether a path is dir or lies in it.
func below(p, dir string) bool {
	dir = path.Clean("/" + dir)
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}
