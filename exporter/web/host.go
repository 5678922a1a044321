package web

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/container"
)

// host looks up on this machine what a query names, so that a mistyped one is
// refused at once and not answered with an empty profile half a minute later.
type host struct {
	proc string // "/proc"
}

// resolve completes the query; its errors are refusals. All are 400, the contract's answer to a bad
// filter: a 404 would say that the page does not exist, which is what an agent without this endpoint says.
func (h host) resolve(q *liveQuery) error {
	for _, pid := range q.filter.PIDs {
		if err := h.checkPID(pid); err != nil {
			return err
		}
	}
	if q.cgroup != "" {
		var err error
		if q.filter.Cgroup, err = h.cgroup(q.cgroup); err != nil {
			return err
		}
	}
	if id := q.filter.ContainerID; id != "" && !h.anyProcess(func(cgroups []string) bool {
		return strings.HasPrefix(container.ID(cgroups), id)
	}) {
		return badRequest("container=%s: no running process is in a container of that id", query.Quote(id))
	}
	return nil
}

func (h host) checkPID(pid int) error {
	status, err := os.ReadFile(filepath.Join(h.proc, strconv.Itoa(pid), "status"))
	if errors.Is(err, fs.ErrNotExist) {
		return badRequest("pid=%d: there is no such process", pid)
	}
	for line := range strings.Lines(string(status)) { // of a process that is hidden from us, none
		tgid, ok := strings.CutPrefix(line, "Tgid:")
		if tgid = strings.TrimSpace(tgid); ok && tgid != strconv.Itoa(pid) {
			return badRequest("pid=%d is a thread of process %s: give the process", pid, tgid)
		}
	}
	return nil
}

// pastCgroup is cgroup for one that may be gone: its path below the root of the hierarchy, "" for the root.
func (h host) pastCgroup(given string) string {
	clean := path.Clean("/" + given)
	mounts, _ := h.cgroupMounts() // without them it is taken for such a path already
	for _, m := range mounts {
		if rest, ok := strings.CutPrefix(clean, m.point); ok && (rest == "" || rest[0] == '/') {
			return strings.TrimSuffix(path.Join(m.root, rest), "/")
		}
	}
	return strings.TrimSuffix(clean, "/")
}

// cgroup turns a directory of a cgroup, or its path below the root of the hierarchy, into that path.
// It is "" for the root, which every process is below.
func (h host) cgroup(given string) (string, error) {
	mounts, err := h.cgroupMounts()
	if err != nil {
		return "", fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	clean := path.Clean("/" + given)
	directory := clean
	if strings.HasPrefix(clean, "/sys/fs/cgroup/") {
		// Controllers of cgroup v1 are often links: cpu -> cpu,cpuacct. No other path is looked at:
		// it might lead to a file system that hangs.
		if target, err := filepath.EvalSymlinks(clean); err == nil {
			directory = target
		}
	}
	for _, m := range mounts {
		if rest, ok := strings.CutPrefix(directory, m.point); ok && (rest == "" || rest[0] == '/') {
			if !isDirectory(directory) {
				return "", badRequest("cgroup=%s: there is no such cgroup", query.Quote(given))
			}
			return strings.TrimSuffix(path.Join(m.root, rest), "/"), nil
		}
	}
	if clean == "/" {
		return "", nil
	}
	for _, m := range mounts {
		rest, ok := strings.CutPrefix(clean, strings.TrimSuffix(m.root, "/"))
		if ok && isDirectory(path.Join(m.point, rest)) {
			return clean, nil
		}
	}
	// A container that watches its host may not see the host's hierarchies, but it sees what processes are in.
	if h.anyProcess(func(cgroups []string) bool {
		for _, c := range cgroups {
			if c == clean || strings.HasPrefix(c, clean+"/") {
				return true
			}
		}
		return false
	}) {
		return clean, nil
	}
	return "", badRequest("cgroup=%s: there is no such cgroup: give a directory such as /sys/fs/cgroup/system.slice, "+
		"or a path as in /proc/PID/cgroup", query.Quote(given))
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// cgroupMount is a place where a hierarchy can be seen: root is the cgroup whose directory is point.
type cgroupMount struct{ root, point string }

// cgroupMounts lists them, a mount inside another one before it:
//
//	36 25 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:15 - cgroup2 cgroup2 rw
func (h host) cgroupMounts() ([]cgroupMount, error) {
	text, err := os.ReadFile(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return nil, err
	}
	var mounts []cgroupMount
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || !strings.HasPrefix(after, "cgroup") {
			continue
		}
		m := cgroupMount{root: unescape.Replace(fields[3]), point: unescape.Replace(fields[4])}
		i := 0
		for i < len(mounts) && len(mounts[i].point) >= len(m.point) {
			i++
		}
		mounts = append(mounts[:i], append([]cgroupMount{m}, mounts[i:]...)...)
	}
	return mounts, nil
}

// unescape undoes what mountinfo does to paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// anyProcess tells whether a running process has cgroups that match. It reads one small file for each process.
func (h host) anyProcess(match func(cgroups []string) bool) bool {
	entries, err := os.ReadDir(h.proc)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if name := e.Name(); name[0] < '0' || name[0] > '9' {
			continue
		}
		text, err := os.ReadFile(filepath.Join(h.proc, e.Name(), "cgroup"))
		if err == nil && match(container.Cgroups(string(text))) {
			return true
		}
	}
	return false
}
