package profiler

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hierarchy is a mounted cgroup hierarchy.
type hierarchy struct{ dir, kind, options string }

func hierarchies(t *testing.T) (found []hierarchy) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup" || f[2] == "cgroup2" {
			found = append(found, hierarchy{f[1], f[2], f[3]})
		}
	}
	if len(found) == 0 {
		t.Fatal("no cgroup hierarchy is mounted")
	}
	return found
}

func makeCgroup(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("these tests need root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Rmdir(dir) })
}

// Every mounted hierarchy: the id is that of the directory, v1 comes with a controller, a named one without is refused with a remedy.
func TestTargetCgroup(t *testing.T) {
	for _, h := range hierarchies(t) {
		t.Run(filepath.Base(h.dir), func(t *testing.T) {
			dir := filepath.Join(h.dir, fmt.Sprint("pilotlight-test-", os.Getpid()))
			makeCgroup(t, dir)
			var stat unix.Stat_t
			if err := unix.Stat(dir, &stat); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(t.TempDir(), "link") // as cpu -> cpu,cpuacct
			if err := os.Symlink(h.dir, link); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{dir, dir + "/", filepath.Join(link, filepath.Base(dir))} {
				target := Target{Cgroup: path}
				err := target.check()
				if strings.Contains(h.options, "name=") {
					if !errors.Is(err, ErrNoTarget) || !strings.Contains(err.Error(), "hierarchy") {
						t.Errorf("%s: a named hierarchy: %v", path, err)
					}
					continue
				}
				if err != nil || target.cgroupID != stat.Ino {
					t.Errorf("%s: id %d, want %d, %v", path, target.cgroupID, stat.Ino, err)
				}
				if (target.cgroupLevel == 1) != (h.kind == "cgroup2") || target.cgroupLevel > 1 {
					t.Errorf("%s (%s): %d levels below the root", path, h.kind, target.cgroupLevel)
				}
				if known := strings.Contains(","+h.options+",", ","+target.cgroupSubsystem+","); known != (h.kind == "cgroup") || (target.cgroupSubsystem == "") != (h.kind == "cgroup2") {
					t.Errorf("%s (%s): controller %q", path, h.options, target.cgroupSubsystem)
				}
			}
		})
	}
}

func TestTargetCgroupRefused(t *testing.T) {
	file := filepath.Join(hierarchies(t)[0].dir, "cgroup.procs")
	for name, dir := range map[string]string{
		"missing": "/sys/fs/cgroup/no such cgroup", "not a cgroup": t.TempDir(), "a file of a cgroup": file, "a file": "/etc/passwd", "proc": "/proc/self",
	} {
		target := Target{Cgroup: dir}
		if err := target.check(); !errors.Is(err, ErrNoTarget) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTargetPID(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "60")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("this process has %d threads, %v", len(tasks), err)
	}
	tid := os.Getpid()
	for _, task := range tasks {
		if n, err := strconv.Atoi(task.Name()); err != nil {
			t.Fatal(err)
		} else if n != os.Getpid() {
			tid = n
		}
	}
	for name, c := range map[string]struct {
		pids []int
		want string // of the error, "" for none
	}{
		"self":               {[]int{os.Getpid()}, ""},
		"init and a child":   {[]int{1, sleeper.Process.Pid}, ""},
		"a kernel thread":    {[]int{2}, ""},
		"gone":               {[]int{ended.Process.Pid}, fmt.Sprintf("there is no process %d", ended.Process.Pid)},
		"one of two is gone": {[]int{os.Getpid(), ended.Process.Pid}, "there is no process"},
		"beyond all numbers": {[]int{1 << 30}, "there is no process 1073741824"},
		"a thread":           {[]int{tid}, fmt.Sprintf("%d is a thread of process %d", tid, os.Getpid())},
		"zero":               {[]int{0}, "0 is not the number of a process"},
		"a process group":    {[]int{-1}, "-1 is not the number of a process"},
	} {
		target := Target{PIDs: c.pids}
		err := target.check()
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrNoTarget) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A container is found by its id or the beginning of one; the cgroup of its monitor is not it.
func TestTargetContainer(t *testing.T) {
	var root string
	for _, h := range hierarchies(t) {
		if !strings.Contains(h.options, "name=") && strings.HasPrefix(h.dir, "/sys/fs/cgroup") {
			root = h.dir
		}
	}
	id := fmt.Sprintf("fe%062x", os.Getpid()) // after conmon in the order of names
	monitor, scope := filepath.Join(root, "libpod-conmon-"+id+".scope"), filepath.Join(root, "libpod-"+id+".scope")
	makeCgroup(t, monitor)
	makeCgroup(t, scope)
	join := func(dir string) {
		cmd := exec.Command("cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	join(monitor)
	for _, given := range []string{id, id[:60], id[:63]} {
		target := Target{Container: given}
		if err := target.check(); err != nil || target.Cgroup != scope || target.cgroupID == 0 {
			t.Errorf("%q: %q, %v", given, target.Cgroup, err)
		}
	}
	for _, given := range []string{id[:7], "no such container", id + "0", ".."} {
		target := Target{Container: given}
		if err := target.check(); !errors.Is(err, ErrNoTarget) {
			t.Errorf("%q: %v", given, err)
		}
	}
}

// The targets of the kernel's own list of what is mounted: controllerOf understands every line of it.
func TestControllerOfMountinfo(t *testing.T) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		before, after, ok := strings.Cut(scanner.Text(), " - cgroup ")
		if !ok || strings.Contains(after, "name=") {
			continue
		}
		seen++
		dir := strings.Fields(before)[4]
		controller, err := controllerOf(dir)
		if err != nil || !strings.Contains(after, controller) {
			t.Errorf("%s: %q, %v", dir, controller, err)
		}
	}
	if _, err := controllerOf("/proc"); !errors.Is(err, ErrNoTarget) {
		t.Errorf("/proc: %v", err)
	}
	t.Logf("%d hierarchies of cgroup v1", seen)
}
