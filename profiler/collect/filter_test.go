package collect

import (
	"log/slog"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// family is a table in which 10 is the parent of 11, and that of 12; 20 is a stranger, and this process has the
// number and cgroups it has.
func family(t *testing.T) *process.Table {
	t.Helper()
	files := process.NewFiles()
	t.Cleanup(files.Close)
	table := process.NewTable(files, slog.New(slog.DiscardHandler))
	const first = 1 << 30 // no process of the host has such numbers
	for _, pair := range [][2]int{{10, 1}, {11, 10}, {12, 11}, {20, 1}} {
		table.Apply(&process.Event{Kind: process.EventFork, Time: 1, PID: first + pair[0], TID: first + pair[0], ParentPID: first + pair[1]})
	}
	return table
}

func TestFilter(t *testing.T) {
	const first = 1 << 30
	const container = "0123456789abcdef"
	table := family(t)
	labels := func(pid int) *profile.Labels {
		return &profile.Labels{PID: first + pid, Comm: "nginx", Thread: "worker", ContainerID: container, Cgroups: []string{"/other", "/sys.slice/nginx"}}
	}
	for name, c := range map[string]struct {
		filter Filter
		pid    int
		want   bool
	}{
		"nothing asked":                 {Filter{}, 12, true},
		"children of nobody":            {Filter{Children: true}, 12, true},
		"pid":                           {Filter{PIDs: []int{first + 10}}, 10, true},
		"pid of another":                {Filter{PIDs: []int{first + 10}}, 20, false},
		"one of two pids":               {Filter{PIDs: []int{5, first + 20}}, 20, true},
		"child, not asked for":          {Filter{PIDs: []int{first + 10}}, 11, false},
		"child":                         {Filter{PIDs: []int{first + 10}, Children: true}, 11, true},
		"grandchild":                    {Filter{PIDs: []int{first + 10}, Children: true}, 12, true},
		"parent of the wanted":          {Filter{PIDs: []int{first + 11}, Children: true}, 10, false},
		"stranger":                      {Filter{PIDs: []int{first + 10}, Children: true}, 20, false},
		"unknown process":               {Filter{PIDs: []int{first + 10}, Children: true}, 99, false},
		"comm":                          {Filter{Comm: regexp.MustCompile("^ngi")}, 10, true},
		"comm of another":               {Filter{Comm: regexp.MustCompile("^redis")}, 10, false},
		"comm is not the thread's":      {Filter{Comm: regexp.MustCompile("worker")}, 10, false},
		"container":                     {Filter{ContainerID: container}, 10, true},
		"container by its beginning":    {Filter{ContainerID: container[:4]}, 10, true},
		"another container":             {Filter{ContainerID: "1" + container}, 10, false},
		"container by its end":          {Filter{ContainerID: container[4:]}, 10, false},
		"both hold":                     {Filter{PIDs: []int{first + 10}, Comm: regexp.MustCompile("nginx")}, 10, true},
		"pid holds, comm does not":      {Filter{PIDs: []int{first + 10}, Comm: regexp.MustCompile("redis")}, 10, false},
		"comm holds, pid does not":      {Filter{PIDs: []int{first + 20}, Comm: regexp.MustCompile("nginx")}, 10, false},
		"pid holds, container does not": {Filter{PIDs: []int{first + 10}, ContainerID: "x"}, 10, false},
		"cgroup":                        {Filter{Cgroup: "/sys.slice"}, 10, true},
		"another cgroup":                {Filter{Cgroup: "/sys"}, 10, false},
	} {
		l := labels(c.pid)
		if got := c.filter.match(table, l); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		d := decider{filter: c.filter}
		for range 2 { // the second answer is remembered
			if d.pass(table, l) != c.want {
				t.Errorf("%s: decided otherwise", name)
			}
		}
	}
}

// The cgroups are those of the running process.
func TestFilterCgroup(t *testing.T) {
	table := family(t)
	p := table.At(os.Getpid(), 1)
	if p == nil {
		t.Fatal("this process is not known")
	}
	l := table.Labels(p, [16]byte{'x'}, 0, 1)
	cgroups := l.Cgroups
	if len(cgroups) == 0 {
		t.Fatal("this process is in no cgroup but the root")
	}
	for _, c := range cgroups {
		for _, filter := range []string{c, strings.TrimPrefix(c, "/"), c + "/", path.Dir(c), "/"} {
			if !(&Filter{Cgroup: filter}).match(table, l) {
				t.Errorf("%q is not matched by %q", c, filter)
			}
		}
		for _, filter := range []string{c + "/below", c + "x", c[:len(c)-1] + "#"} {
			if (&Filter{Cgroup: filter}).match(table, l) {
				t.Errorf("%q is matched by %q", c, filter)
			}
		}
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a/b", true}, {"/a/b", "/a", true}, {"/a/b", "a", true}, {"/a/b", "/a/", true}, {"/a/b", "/", true}, {"/a/b", "", true},
		{"/a/b", "/a/b/c", false}, {"/ab", "/a", false}, {"/a", "/ab", false}, {"/a/b", "/b", false}, {"/a/b", "//a//./b", true}, {"/a", "/b/../a", true},
	} {
		if got := below(c.path, c.dir); got != c.want {
			t.Errorf("%q below %q: %t", c.path, c.dir, got)
		}
	}
}

// A decider remembers, and not without end.
func TestDeciderBound(t *testing.T) {
	table := family(t)
	d := decider{filter: Filter{Comm: regexp.MustCompile("^a")}}
	for i := range 3 * maxAnswers {
		l := &profile.Labels{PID: i, Comm: "b"}
		if i%2 == 0 {
			l.Comm = "a"
		}
		if d.pass(table, l) != (i%2 == 0) {
			t.Fatalf("%+v", l)
		}
		if len(d.answers) > maxAnswers {
			t.Fatalf("%d answers are kept", len(d.answers))
		}
	}
}
