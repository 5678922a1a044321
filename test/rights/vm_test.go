//go:build vm

// These tests change the whole machine. They run in machines of their own (test/vm) alone.

package rights

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An event is opened on a CPU that comes online, with what rights are left.
func TestCPUComesOnline(t *testing.T) {
	switches, err := filepath.Glob("/sys/devices/system/cpu/cpu[1-9]*/online")
	if err != nil || len(switches) == 0 {
		t.Fatal("no CPU of this machine can be taken offline")
	}
	last := switches[len(switches)-1]
	set := func(state string) {
		if err := os.WriteFile(last, []byte(state), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("0")
	t.Cleanup(func() { set("1") })
	pid := startBurner(t)
	a := room{Capabilities: without()}.start(t, "-p", strconv.Itoa(pid))
	set("1")
	var cpu int
	if _, err := fmt.Sscanf(last, "/sys/devices/system/cpu/cpu%d/online", &cpu); err != nil {
		t.Fatal(err)
	}
	var only unix.CPUSet
	only.Set(cpu)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if err := unix.SchedSetaffinity(tid, &only); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(1500 * time.Millisecond) // CPUs are looked at once a second
	if all, _ := samples(a.profile(t, 1), burning); all < 5 {
		t.Errorf("%d samples on CPU %d, which came online", all, cpu)
	}
	a.stop(t)
	if strings.Contains(a.all(), "cannot follow") {
		t.Error(a.all())
	}
}

// The kernels of some distributions demand CAP_SYS_ADMIN for perf events at levels above 2: then it is said to those who do not
// hold it, and kept by those who do. On others the level makes no difference.
func TestParanoidLevels(t *testing.T) {
	const file = "/proc/sys/kernel/perf_event_paranoid"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			t.Error(err)
		}
	})
	pid := strconv.Itoa(startBurner(t))
	for _, level := range []string{"2", "3", "4"} {
		t.Run(level, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(level), 0); err != nil {
				t.Fatal(err)
			}
			perfmon := room{Capabilities: []uint{unix.CAP_PERFMON}}.run(t, "perf") == nil
			t.Logf("CAP_PERFMON is enough: %v", perfmon)
			if !perfmon && level == "2" {
				t.Error("the kernel's own levels do not bind CAP_PERFMON")
			}
			held := without()
			if !perfmon {
				said := room{Capabilities: held}.fails(t, 1, "record", "-p", pid, "-d", "300ms", "-o", "/dev/null")
				for _, want := range []string{"perf_event_paranoid " + level + ": ", "sudo sysctl -w kernel.perf_event_paranoid=2"} {
					if !strings.Contains(said, want) {
						t.Errorf("no %q in %q", want, said)
					}
				}
				held = append(held, unix.CAP_SYS_ADMIN)
			}
			if testing.Short() && level != "3" { // what holds beyond the message is the same at every level
				return
			}
			a := room{Capabilities: held}.start(t, "-p", pid)
			checkLosses(t, a.losses())
			checkConfined(t, a, held)
			a.stop(t)
			a = room{Root: true}.start(t, "-p", pid)
			checkLosses(t, a.losses())
			checkConfined(t, a, held)
			if all, _ := samples(a.profile(t, 1), burning); all == 0 {
				t.Error("no samples")
			}
			a.stop(t)
		})
	}
}

// run runs this program in a room, in another role.
func (r room) run(t *testing.T, as string) error {
	t.Helper()
	r.Command, r.Role = []string{self}, as
	return r.launcher(t).Run()
}
