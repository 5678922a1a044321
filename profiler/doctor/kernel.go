package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
)

// floors are the oldest kernels that the programs were tried on. They may run on older ones, so the trial overrules them.
var floors = map[string]version{"amd64": {5, 10}, "arm64": {6, 1}}

func kernelVersion(m *machine) Check {
	c := Check{ID: "kernel", Title: "kernel", Status: OK}
	floor, supported := floors[m.architecture]
	switch {
	case !supported:
		c.Status, c.Found = Fail, m.release+" on "+m.architecture
		c.Loss, c.Remedy = "everything: the programs exist for amd64 and arm64", "use an amd64 or arm64 machine"
	case m.kernel == version{}:
		c.Status, c.Found = Unknown, fmt.Sprintf("release %q was not understood; at least %s is needed", m.release, floor)
	case !m.kernel.atLeast(floor):
		c.Status, c.Found = Fail, fmt.Sprintf("%s on %s, older than %s", m.release, m.architecture, floor)
		c.Loss = "everything: the kernel lacks what the programs use"
		c.Remedy = fmt.Sprintf("install a kernel %s or newer", floor)
		if m.trials.sampler.answer == yes {
			c.Status = Warn
			c.Loss = fmt.Sprintf("nothing that was tried, but kernels before %s are not tested", floor)
		}
	default:
		c.Found = fmt.Sprintf("%s on %s (needed: %s)", m.release, m.architecture, floor)
	}
	return c
}

const vmlinuxBTF = "/sys/kernel/btf/vmlinux"

func kernelBTF(m *machine) Check {
	c := Check{ID: "btf", Title: "BTF"}
	_, err := fs.Stat(m.files, vmlinuxBTF[1:])
	present := err == nil
	switch t, file := m.trials.btf, m.options.KernelBTF; {
	case file != "" && t.answer == yes:
		c.Status, c.Found = OK, "the kernel's type information was read from "+file+", and agrees with the kernel"
	case file != "" && notPermitted(t.err):
		c.Status, c.Found = Unknown, reason(t.err)
	case file != "" && t.answer == no:
		c.Status, c.Found = Fail, reason(t.err)
		c.Loss = "everything: the programs cannot be fitted to this kernel"
		c.Remedy = "give the BTF of this very kernel: its vmlinux with debug information, or nothing where there is a " + vmlinuxBTF
	case t.answer == yes && present:
		c.Status, c.Found = OK, "the kernel's type information is readable ("+vmlinuxBTF+")"
	case t.answer == yes:
		c.Status, c.Found = OK, "read from the kernel's debug file, there is no "+vmlinuxBTF
	case t.answer == inconclusive:
		c.Status, c.Found = Unknown, reason(t.err)
	case present:
		c.Status, c.Found = Fail, vmlinuxBTF+": "+reason(t.err)
		c.Loss = "everything: the programs cannot be fitted to this kernel"
		c.Remedy = "sudo mount -o remount,ro /sys, run as root; if it stays so, report this kernel's release"
	default:
		c.Status, c.Found = Fail, "there is no "+vmlinuxBTF
		c.Loss = "everything: the programs cannot be fitted to this kernel"
		c.Remedy = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of the large distributions are); " +
			"in a container mount the host's /sys; or give the types of this kernel in a file, --btf FILE"
	}
	return c
}

const lockdownRemedy = "use a kernel 5.11 or newer in the host's pid namespace, where programs need no helper for it, " +
	"or boot with lockdown=integrity (or without lockdown=); it cannot be lowered while the kernel runs"

// lockdown reads the mode in brackets:
//
//	none [integrity] confidentiality
func lockdown(m *machine) Check {
	c := Check{ID: "lockdown", Title: "kernel lockdown", Status: OK}
	text, err := m.read("sys/kernel/security/lockdown")
	if err != nil {
		c.Found = "none: this kernel has no lockdown, or securityfs is not mounted"
		return c
	}
	_, rest, _ := strings.Cut(text, "[")
	mode, _, ok := strings.Cut(rest, "]")
	switch {
	case !ok:
		c.Status, c.Found = Unknown, fmt.Sprintf("%q was not understood", text)
	case mode == "confidentiality" && m.trials.sampler.answer == inconclusive:
		c.Status, c.Found = Unknown, mode+"; whether the sampler works under it is not known"
	case mode == "confidentiality" && m.trials.sampler.answer == no:
		c.Status, c.Found = Fail, mode
		c.Loss = "everything: programs may not read the kernel's memory"
		c.Remedy = lockdownRemedy
	case mode == "confidentiality":
		c.Status, c.Found = Warn, mode
		c.Loss = "callers in code without frame pointers, because stacks are not walked by unwind tables here"
		c.Remedy = "boot with lockdown=integrity (or without lockdown=)"
	default:
		c.Found = mode
	}
	return c
}

func unprivilegedBPF(m *machine) Check {
	const name = "kernel.unprivileged_bpf_disabled"
	c := Check{ID: "unprivileged_bpf_disabled", Title: "unprivileged_bpf_disabled", Status: OK}
	n, err := m.sysctl(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Found = "this kernel has no such setting"
	case err != nil:
		c.Status, c.Found = Unknown, reason(err)
	case n == 0:
		c.Found = "0: unprivileged users may load some programs; the agent does not need that"
	default:
		c.Found = fmt.Sprintf("%d: BPF is for the privileged only, as it should be", n)
	}
	return c
}

// memlockNeed is above what the maps and rings of a large machine take.
const memlockNeed = 256 << 20

func memlock(m *machine) Check {
	c := Check{ID: "memlock", Title: "memlock limit", Status: OK, Found: "unlimited"}
	if m.memlock != unlimited {
		c.Found = fmt.Sprintf("%d KiB", m.memlock>>10)
	}
	switch accounting := m.trials.features[bpf.MemcgAccounting].Answer; {
	case m.memlock >= memlockNeed:
	case accounting == inconclusive:
		c.Status, c.Found = Unknown, c.Found+"; whether this kernel uses it for BPF is not known"
	case accounting == yes:
		c.Found += "; this kernel does not use it for BPF"
	case m.caps.has(unix.CAP_SYS_RESOURCE):
		c.Found += "; CAP_SYS_RESOURCE is held, so that it can be raised"
	default:
		c.Status = Warn
		c.Loss = "BPF maps of full size: this kernel counts them against the limit"
		c.Remedy = "ulimit -l unlimited before the start, or LimitMEMLOCK=infinity in the systemd unit"
	}
	return c
}

func bpfProgram(m *machine) Check {
	return m.needed("bpf_program", "BPF program", m.trials.program, "one of type perf_event can be loaded")
}

func bpfMap(m *machine) Check {
	return m.needed("bpf_map", "BPF map", m.trials.array, "an array can be made")
}

func bpfRing(m *machine) Check {
	return m.needed("bpf_ring", "BPF ring buffer", m.trials.ring, "one can be made")
}

func samplerLoads(m *machine) Check {
	return m.needed("sampler", "sampler", m.trials.sampler, "it passes the verifier and can be attached to an event on every CPU")
}

func followsTargets(m *machine) Check {
	c := m.needed("follow_targets", "following targets", m.trials.follow, "programs on tracepoints can be loaded and attached")
	if c.Status == Fail && m.trials.sampler.answer == yes {
		c.Status, c.Loss = Warn, "-p/--pid, --children and record -- CMD; the whole host, --cgroup and --container work"
	}
	return c
}

// needed is a check that a trial alone decides, and without which nothing works.
func (m *machine) needed(id, title string, t trial, found string) Check {
	c := Check{ID: id, Title: title, Status: OK, Found: found}
	switch t.answer {
	case inconclusive:
		c.Status, c.Found = Unknown, reason(t.err)
	case no:
		c.Status, c.Found, c.Loss, c.Remedy = Fail, reason(t.err), "everything: sampling needs this", m.remedy(t.err)
	}
	return c
}

// remedy says what to do about a refused bpf() or perf_event_open().
func (m *machine) remedy(err error) string {
	privileged := capBPF(m).Status == OK && capPerfmon(m).Status == OK
	refused := notPermitted(err)
	var rejected *ebpf.VerifierError
	switch {
	case errors.Is(err, bpf.ErrLockdown):
		return lockdownRemedy
	case errors.As(err, &rejected) && !refused:
		return "report the kernel's release and this output"
	case refused && !privileged:
		return m.grant()
	case refused && memlock(m).Status == Warn:
		return memlock(m).Remedy
	case refused && !m.caps.has(unix.CAP_SYS_ADMIN):
		return "run it as root: this kernel or its security module wants CAP_SYS_ADMIN"
	case refused:
		return "a seccomp filter or a security module refuses although the capabilities are there; " +
			"in a container allow bpf and perf_event_open (docker run --privileged, or --security-opt seccomp=unconfined)"
	default:
		return "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS and CONFIG_PERF_EVENTS"
	}
}

// notPermitted says that it is rights that were lacking.
func notPermitted(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// memlockHint is what cilium/ebpf appends to a refusal; the check of the memlock
// limit knows whether it applies.
const memlockHint = " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"

// reason is an error on one line.
func reason(err error) string {
	if err == nil {
		return "not tried"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimSuffix(line, memlockHint)
}
