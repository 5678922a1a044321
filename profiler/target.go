package profiler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/container"
)

// Target is what is sampled; the zero value is the whole host, or the pid namespace
// that we are in, whose numbers PIDs are. The kernel does
// the filtering for processes and cgroups; names of processes are matched afterwards.
type Target struct {
	// PIDs are the wanted processes, with all their threads.
	PIDs []int
	// Children takes the descendants of PIDs too, those that exist and those to come.
	Children bool
	// Cgroup is the directory of a cgroup, v1 or v2; cgroups below it count.
	Cgroup string
	// Container is a container's id, or the beginning of one: its cgroup is looked for.
	Container string
	// Comm must match the name of the process.
	Comm *regexp.Regexp

	cgroupID        uint64
	cgroupSubsystem string
	cgroupLevel     uint32
}

// HasPIDs says whether processes are the target.
func (t *Target) HasPIDs() bool { return len(t.PIDs) > 0 }

// ErrNoTarget says that the target does not exist.
var ErrNoTarget = errors.New("no such target")

// check looks whether the target exists, and finds its cgroup.
func (t *Target) check() error {
	for _, pid := range t.PIDs {
		if err := checkPID(pid); err != nil {
			return err
		}
	}
	if t.Container != "" {
		dir, err := findContainer(t.Container)
		if err != nil {
			return err
		}
		t.Cgroup = dir
	}
	if t.Cgroup == "" {
		return nil
	}
	return t.findCgroup()
}

func checkPID(pid int) error {
	if pid <= 0 {
		return fmt.Errorf("%w: %d is not the number of a process", ErrNoTarget, pid)
	}
	err := unix.Kill(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: there is no process %d", ErrNoTarget, pid)
	}
	status, readErr := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if readErr != nil {
		return nil // hidden from us, but it exists
	}
	for line := range strings.Lines(string(status)) {
		if tgid, ok := strings.CutPrefix(line, "Tgid:"); ok && strings.TrimSpace(tgid) != strconv.Itoa(pid) {
			return fmt.Errorf("%w: %d is a thread of process %s; give the process", ErrNoTarget, pid, strings.TrimSpace(tgid))
		}
	}
	return nil
}

// findCgroup gets the id that the kernel knows the cgroup by, its directory's
// inode number, and for cgroup v1 the controller whose hierarchy it is in.
func (t *Target) findCgroup() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(t.Cgroup, &fs); err != nil {
		return fmt.Errorf("%w: cgroup %s: %w", ErrNoTarget, t.Cgroup, err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(t.Cgroup, &stat); err != nil {
		return fmt.Errorf("%w: cgroup %s: %w", ErrNoTarget, t.Cgroup, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%w: cgroup %s: not a directory", ErrNoTarget, t.Cgroup)
	}
	t.cgroupID = stat.Ino
	switch fs.Type {
	case unix.CGROUP2_SUPER_MAGIC:
		t.cgroupLevel = cgroupLevel(t.Cgroup)
		return nil
	case unix.CGROUP_SUPER_MAGIC:
		var err error
		t.cgroupSubsystem, err = controllerOf(t.Cgroup)
		return err
	}
	return fmt.Errorf("%w: %s is not a cgroup; cgroups are directories such as /sys/fs/cgroup/system.slice", ErrNoTarget, t.Cgroup)
}

// cgroupLevel counts the levels from a cgroup v2 directory up to the root of the
// hierarchy, whose inode number is 1; 0 where the root cannot be seen, as in a cgroup namespace.
func cgroupLevel(dir string) uint32 {
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	var stat unix.Stat_t
	if err != nil || unix.Stat(path, &stat) != nil {
		return 0
	}
	fs, level := stat.Dev, uint32(0)
	for ; stat.Ino != 1; level++ {
		path = filepath.Dir(path)
		if unix.Stat(path, &stat) != nil || stat.Dev != fs {
			return 0
		}
	}
	return level
}

// controllerOf finds a controller of the cgroup v1 hierarchy that holds dir:
//
//	36 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct
func controllerOf(dir string) (string, error) {
	// Where controllers share a hierarchy, each has a link to it: cpu -> cpu,cpuacct.
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("cgroup %s: %w", dir, err)
	}
	dir = path
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cgroup %s: %w", dir, err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - cgroup ")
		fields := strings.Fields(before)
		if after == "" || len(fields) < 5 || !inside(dir, fields[4]) {
			continue
		}
		options := strings.Split(strings.TrimSpace(after[strings.LastIndexByte(after, ' ')+1:]), ",")
		for _, controller := range []string{"cpu", "cpuacct", "memory", "pids", "freezer", "devices", "cpuset", "blkio", "net_cls", "perf_event"} {
			if slices.Contains(options, controller) {
				return controller, nil
			}
		}
		return "", fmt.Errorf("%w: the cgroup v1 hierarchy at %s has no controller, so the kernel side cannot filter by it; "+
			"give the same group below another hierarchy, such as /sys/fs/cgroup/cpu", ErrNoTarget, fields[4])
	}
	return "", fmt.Errorf("%w: no cgroup v1 hierarchy is mounted above %s", ErrNoTarget, dir)
}

func inside(dir, mount string) bool { return dir == mount || strings.HasPrefix(dir, mount+"/") }

// findContainer looks for the cgroup of a container by its name, below /sys/fs/cgroup.
func findContainer(id string) (string, error) {
	const root = "/sys/fs/cgroup"
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went while we looked
		}
		if len(id) >= 8 && strings.HasPrefix(container.NamedID(d.Name()), id) {
			found = append(found, path)
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look for container %s: %w", id, err)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%w: no cgroup below %s is named after container %s (give at least 8 digits of its id)", ErrNoTarget, root, id)
	}
	// On hybrid hosts the container is in every hierarchy; one with processes will do.
	for _, dir := range found {
		if procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(procs) > 0 {
			return dir, nil
		}
	}
	return found[0], nil
}
