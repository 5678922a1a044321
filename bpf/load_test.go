package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// kernelTypes are shared by the loads of these tests: there are a hundred, and an emulated machine reads them for half a second.
var kernelTypes = btf.NewCache()

// load loads the programs for one test, and fails where descriptors are left after Close.
func load(t *testing.T, o Options) *Programs {
	t.Helper()
	o.Types = kernelTypes
	before := descriptors(t)
	p, err := Load(o)
	if err != nil {
		t.Fatalf("load (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if left := newDescriptors(t, before); len(left) > 0 {
			t.Errorf("left open: %v", left)
		}
	})
	return p
}

// descriptors are the open BPF and other descriptors of this process.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := make(map[string]string)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(target, "/proc/") {
			open[e.Name()] = target
		}
	}
	return open
}

// newDescriptors are those that were opened since; what the Go runtime opens once does not count.
func newDescriptors(t *testing.T, before map[string]string) (left []string) {
	t.Helper()
	for fd, target := range descriptors(t) {
		if before[fd] != target && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" && target != "anon_inode:[pidfd]" {
			left = append(left, fd+": "+target)
		}
	}
	return left
}

// cgroup makes a cgroup that this process is not in, and gives its id.
func cgroup(t *testing.T, parent string) uint64 {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "pilotlight-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}

// cgroupMounts finds a mounted cgroup v2 hierarchy and one of v1 with its controller, "" where there is none.
func cgroupMounts(t *testing.T) (v2, v1, controller string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case f[2] == "cgroup2":
			v2 = f[1]
		case f[2] == "cgroup" && strings.HasSuffix(f[1], "/cpu"):
			v1, controller = f[1], "cpu"
		}
	}
	if v2 == "" && v1 == "" {
		t.Fatal("no cgroup hierarchy is mounted")
	}
	return v2, v1, controller
}

// pidNamespace is that of this process; the programs find its numbers like those of any other.
func pidNamespace(t *testing.T) uint32 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &stat); err != nil {
		t.Fatal(err)
	}
	return uint32(stat.Ino)
}

// Every combination of options passes the verifier of this kernel.
func TestLoad(t *testing.T) {
	v2, v1, controller := cgroupMounts(t)
	cgroups := map[string]Options{"all": {}, "pid namespace": {PIDNamespace: pidNamespace(t)}}
	if v2 != "" {
		cgroups["v2"] = Options{CgroupID: cgroup(t, v2)}
		cgroups["v2 in a pid namespace"] = Options{CgroupID: cgroup(t, v2), PIDNamespace: pidNamespace(t)}
	}
	if v1 != "" {
		cgroups["v1"] = Options{CgroupID: cgroup(t, v1), CgroupSubsystem: controller}
		cgroups["v1 in a pid namespace"] = Options{CgroupID: cgroup(t, v1), CgroupSubsystem: controller, PIDNamespace: pidNamespace(t)}
		cgroups["v1 marked"] = Options{CgroupSubsystem: controller}
	}
	for name, base := range cgroups {
		for _, targets := range []map[uint32]bool{nil, {}, {uint32(os.Getpid()): true, 1: false}} {
			for _, softirq := range []KernelRange{{}, {0xffffffff81000000, 0x400}} {
				for _, exclude := range []uint32{0, uint32(os.Getpid())} {
					o := base
					o.Secret, o.Targets, o.Softirq, o.ExcludePID = 1<<63, targets, softirq, exclude
					o.TargetsMayCome = len(targets) == 0 && exclude != 0
					o.Walks = softirq.Size > 0
					if exclude != 0 {
						o.Without = []Feature{TaskPtRegs}
					}
					t.Run(fmt.Sprintf("%s %d targets softirq %t exclude %t", name, len(targets), softirq.Size > 0, exclude > 0), func(t *testing.T) {
						p := load(t, o)
						for pid := range targets {
							if !p.HasTarget(pid) {
								t.Errorf("process %d is not among the targets", pid)
							}
						}
						if p.HasTarget(1 << 30) {
							t.Error("a process that nobody asked for is among the targets")
						}
						if c, err := p.Counters(); err != nil || c != (Counters{TargetAdded: c.TargetAdded}) {
							t.Errorf("counters before the first sample: %+v, %v", c, err)
						}
						if bytes, err := p.MapBytes(); err != nil || bytes < DefaultRingBytes || bytes > 16<<20 {
							t.Errorf("maps of %d bytes, %v", bytes, err)
						}
					})
				}
			}
		}
	}
}

func TestLoadFails(t *testing.T) {
	before := descriptors(t)
	for _, o := range []Options{
		{CgroupSubsystem: "no_such_controller"},
		{RingBytes: 12345}, // no power of two
		{RingBytes: 12345, TargetsMayCome: true},
	} {
		p, err := Load(o)
		if err == nil {
			_ = p.Close()
			t.Errorf("%+v was taken", o)
		}
	}
	if left := newDescriptors(t, before); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
}

// The set of targets follows forks and exits by itself, by either kind of tracepoint program, and by the numbers of a pid namespace.
func TestTargets(t *testing.T) {
	t.Run("tp_btf", func(t *testing.T) { testTargets(t, Options{TargetsMayCome: true}) })
	t.Run("raw_tp", func(t *testing.T) { testTargets(t, Options{TargetsMayCome: true, Without: []Feature{TracepointBTF}}) })
	t.Run("pid namespace", func(t *testing.T) { testTargets(t, Options{TargetsMayCome: true, PIDNamespace: pidNamespace(t)}) })
}

func testTargets(t *testing.T, o Options) {
	p := load(t, o)
	for _, children := range []bool{true, false} {
		before, err := p.Counters()
		if err != nil {
			t.Fatal(err)
		}
		// The shell waits for a line, so that it is a target before it forks.
		shell := exec.Command("sh", "-c", "read line; sleep 60 & echo $!; read line; kill $!; wait")
		shell.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err := shell.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := shell.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := shell.Start(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(shell.Process.Pid)
		if err := p.AddTarget(pid, children); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in)
		var child uint32
		if _, err := fmt.Fscan(out, &child); err != nil {
			t.Fatal(err)
		}
		if !p.HasTarget(pid) || p.HasTarget(child) != children {
			t.Errorf("children %t: parent wanted %t, child wanted %t", children, p.HasTarget(pid), p.HasTarget(child))
		}
		after, err := p.Counters()
		if added := after.TargetAdded - before.TargetAdded; err != nil || (added == 1) != children {
			t.Errorf("children %t: %d descendants counted, %v", children, added, err)
		}
		fmt.Fprintln(in)
		if err := shell.Wait(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(5 * time.Second)
		for p.HasTarget(pid) || p.HasTarget(child) {
			if time.Now().After(deadline) {
				t.Fatal("the dead stay among the targets")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// The dead that the programs could not take out go by a sweep, the living stay.
func TestSweepTargets(t *testing.T) {
	p := load(t, Options{TargetsMayCome: true})
	self, dead := uint32(os.Getpid()), uint32(1<<22) // pids end below
	for _, pid := range []uint32{self, dead} {
		if err := p.AddTarget(pid, false); err != nil {
			t.Fatal(err)
		}
	}
	swept, err := p.SweepTargets(func(pid uint32) bool { return pid == self })
	if err != nil || swept != 1 || !p.HasTarget(self) || p.HasTarget(dead) {
		t.Errorf("%d swept, %v; self wanted %t, dead wanted %t", swept, err, p.HasTarget(self), p.HasTarget(dead))
	}
}
