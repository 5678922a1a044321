package doctor

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
)

func cpuClock(m *machine) Check {
	return m.needed("cpu_clock", "CPU clock", m.trials.cpuClock, "the event that drives sampling can be opened")
}

func sideband(m *machine) Check {
	c := m.needed("sideband", "process events", m.trials.sideband, "the kernel reports mmap, exec, fork and exit (perf side-band)")
	if c.Status == Fail {
		c.Loss = "everything: without them no process is known"
	}
	return c
}

// hardwareCycles never fails: the CPU clock works without a PMU.
func hardwareCycles(m *machine) Check {
	c := Check{ID: "pmu", Title: "PMU", Status: OK, Found: "hardware cycles can be counted (-e cycles)"}
	switch t := m.trials.cycles; {
	case t.answer == yes:
	case t.answer == inconclusive:
		c.Status, c.Found = Unknown, reason(t.err)
	case notPermitted(t.err):
		c.Status, c.Found, c.Remedy = Unknown, reason(t.err), m.remedy(t.err)
	default:
		c.Status, c.Found = Warn, "none, as on many virtual machines"
		c.Loss = "-e cycles; and time with interrupts off is seen only where they are switched on again"
		c.Remedy = "nothing needs it; a hypervisor may pass it through (QEMU and KVM: -cpu host,pmu=on)"
	}
	return c
}

// paranoid explains kernel.perf_event_paranoid. With CAP_PERFMON the kernel's own levels
// (-1 to 2) forbid nothing; Debian (3) and Ubuntu (4) added levels at which
// CAP_SYS_ADMIN is demanded.
func paranoid(m *machine) Check {
	const name = "kernel.perf_event_paranoid"
	c := Check{ID: "perf_event_paranoid", Title: "perf_event_paranoid", Status: OK}
	level, err := m.sysctl(name)
	if errors.Is(err, fs.ErrNotExist) {
		c.Status, c.Found = Fail, "there is no such setting: the kernel has no perf events"
		c.Loss, c.Remedy = "everything: nothing drives the sampling", "use a kernel with CONFIG_PERF_EVENTS=y"
		return c
	}
	if err != nil {
		c.Status, c.Found = Unknown, reason(err)
		return c
	}
	c.Found = fmt.Sprint(level)
	switch opened := m.trials.cpuClock.answer == yes; {
	case level > 2 && !m.caps.has(unix.CAP_SYS_ADMIN):
		if opened {
			c.Found += ": a distribution's own level, which does not stop us"
			return c
		}
		c.Status = Warn
		c.Found += ": a distribution's own level, which demands CAP_SYS_ADMIN"
		c.Loss, c.Remedy = "all events, even with CAP_PERFMON", "run it as root, or: sudo sysctl -w "+name+"=2"
	case level > 0 && capPerfmon(m).Status != OK && !opened:
		c.Status = Warn
		c.Found += ": watching a whole CPU is for the privileged"
		c.Loss, c.Remedy = "all events, without CAP_PERFMON", m.grant()
	case level > 0:
		c.Found += ": does not bind the privileged"
	default:
		c.Found += ": everyone may watch a whole CPU"
	}
	return c
}

func maxStack(m *machine) Check {
	const name, want = "kernel.perf_event_max_stack", int64(bpf.MaxKernelWalkFrames)
	c := Check{ID: "perf_event_max_stack", Title: "perf_event_max_stack", Status: OK}
	n, err := m.sysctl(name)
	switch {
	case err != nil:
		c.Status, c.Found = Unknown, reason(err)
	case n < want:
		c.Status, c.Found = Warn, fmt.Sprintf("%d, the usual is %d", n, want)
		c.Loss = fmt.Sprintf("the outer frames of kernel stacks deeper than %d, and of user stacks that are not walked by unwind tables", n)
		c.Remedy = fmt.Sprintf("sudo sysctl -w %s=%d", name, want)
	default:
		c.Found = fmt.Sprintf("%d frames (used: %d)", n, want)
	}
	return c
}

// sidebandPages is the size of a side-band ring with its page of positions.
const sidebandPages = 1 + 16

// mlockBudget: the kernel lets each user lock perf_event_mlock_kb of rings for
// each CPU, and beyond it what the memlock limit allows.
func mlockBudget(m *machine) Check {
	const name = "kernel.perf_event_mlock_kb"
	want := int64(sidebandPages * m.pageKiB)
	c := Check{ID: "perf_event_mlock_kb", Title: "perf_event_mlock_kb", Status: OK}
	n, err := m.sysctl(name)
	switch {
	case err != nil:
		c.Status, c.Found = Unknown, reason(err)
	case n >= want:
		c.Found = fmt.Sprintf("%d KiB for each CPU (used: %d)", n, want)
	case m.caps.has(unix.CAP_IPC_LOCK):
		c.Found = fmt.Sprintf("%d KiB for each CPU (used: %d); CAP_IPC_LOCK lifts it", n, want)
	case m.trials.sideband.answer == yes:
		c.Found = fmt.Sprintf("%d KiB for each CPU (used: %d); the memlock limit makes up for it", n, want)
	default:
		c.Status, c.Found = Warn, fmt.Sprintf("%d KiB for each CPU, less than %d", n, want)
		c.Loss = "the rings in which the kernel reports processes"
		c.Remedy = fmt.Sprintf("sudo sysctl -w %s=%d", name, want)
	}
	return c
}
