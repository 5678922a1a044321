package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/symbolizer/kallsyms"
)

func pidNamespace(m *machine) Check {
	c := Check{ID: "pid_namespace", Title: "pid namespace", Status: OK, Found: "the host's"}
	inode, err := process.PIDNamespace(m.files)
	switch {
	case errors.Is(err, process.ErrForeignProc):
		c.Status, c.Found = Fail, reason(err)
		c.Loss = "everything: samples would go to the wrong processes"
		c.Remedy = "mount /proc of this namespace, or " + hostPIDs
	case err != nil:
		c.Status, c.Found = Unknown, reason(err)
	case inode != 0:
		c.Status, c.Found = Warn, fmt.Sprintf("one of our own, pid:[%d]", inode)
		c.Loss = "processes outside of this pid namespace"
		c.Remedy = hostPIDs
	}
	return c
}

const hostPIDs = "give the agent the host's: docker run --pid=host, or hostPID: true in the pod"

func hidepid(m *machine) Check {
	c := Check{ID: "hidepid", Title: "hidepid", Status: OK, Found: "off: /proc shows every process"}
	text, err := m.read("proc/self/mountinfo")
	if err != nil {
		c.Status, c.Found = Unknown, reason(err)
		return c
	}
	mode := "" // the last mount on /proc is the one that is seen
	for _, mt := range parseMounts(text) {
		if mt.point == "/proc" && mt.fsType == "proc" {
			mode = hidepidMode(mt.options)
		}
	}
	switch {
	case mode == "":
	case m.caps.has(unix.CAP_SYS_PTRACE):
		c.Found = mode + ": does not bind CAP_SYS_PTRACE"
	default:
		c.Status, c.Found = Warn, mode+": /proc hides the processes of other users"
		c.Loss = "names of functions in their programs"
		c.Remedy = "hold CAP_SYS_PTRACE, or: sudo mount -o remount,hidepid=0 /proc"
	}
	return c
}

// hidepidMode gives the mode by its name since 5.8, "" where nothing is hidden.
func hidepidMode(options []string) string {
	for _, o := range options {
		switch mode, _ := strings.CutPrefix(o, "hidepid="); mode {
		case "1", "noaccess":
			return "noaccess"
		case "2", "invisible":
			return "invisible"
		case "4", "ptraceable":
			return "ptraceable"
		}
	}
	return ""
}

func mapFiles(m *machine) Check {
	c := Check{ID: "map_files", Title: "map_files", Status: OK, Found: "mapped files can be opened, deleted and replaced ones too"}
	switch t := m.trials.mapFile; t.answer {
	case inconclusive:
		c.Status, c.Found = Unknown, reason(t.err)
	case no:
		c.Status, c.Found = Warn, reason(t.err)
		c.Loss = "names of functions in programs and libraries that were deleted or replaced while they run"
		c.Remedy = m.grant()
		if capCheckpointRestore(m).Status == OK {
			c.Remedy = "a security module refuses although the capability is there: allow the agent to read /proc/PID/map_files"
		}
	}
	return c
}

func otherProcesses(m *machine) Check {
	c := Check{ID: "other_processes", Title: "other processes", Status: OK, Found: "their files can be reached (/proc/PID/root)"}
	switch t := m.trials.otherRoot; t.answer {
	case inconclusive:
		c.Status, c.Found = Unknown, reason(t.err)
	case no:
		c.Status, c.Found = Warn, reason(t.err)
		c.Loss = "names of functions in their programs"
		c.Remedy = m.grant()
		if capSysPtrace(m).Status == OK {
			c.Remedy = "a security module refuses although CAP_SYS_PTRACE is held: run the agent outside of any Landlock or AppArmor confinement"
		}
	}
	return c
}

// kernelSymbols looks at what /proc/kallsyms shows, whatever the settings say.
func kernelSymbols(m *machine) Check {
	count, err := countKernelSymbols(m.files)
	c := explainKernelSymbols(m, err)
	if c.Status == OK {
		c.Found = fmt.Sprintf("%s: /proc/kallsyms shows %d functions", c.Found, count)
	}
	return c
}

// explainKernelSymbols says what came of reading /proc/kallsyms.
func explainKernelSymbols(m *machine, err error) Check {
	c := Check{ID: "kptr_restrict", Title: "kptr_restrict"}
	setting, settingErr := m.sysctl("kernel.kptr_restrict")
	if settingErr != nil {
		c.Found = "not known"
	} else {
		c.Found = fmt.Sprint(setting)
	}
	switch {
	case err == nil:
		c.Status = OK
		return c
	case errors.Is(err, kallsyms.ErrRestricted):
		c.Found += ": the kernel hides all addresses in /proc/kallsyms"
	default:
		c.Found += ": " + reason(err)
	}
	c.Status, c.Loss = Warn, "names of kernel functions"
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, kallsyms.ErrNoSymbols):
		c.Remedy = "use a kernel with CONFIG_KALLSYMS=y, and in a container do not mask /proc/kallsyms"
	case errors.Is(err, fs.ErrPermission):
		c.Remedy = "sudo chmod a+r /proc/kallsyms; in a container or a unit do not mask it"
	case setting >= 2:
		c.Remedy = "sudo sysctl -w kernel.kptr_restrict=1, and hold CAP_SYSLOG (root does)"
	case m.caps.has(unix.CAP_SYSLOG):
		c.Remedy = "a security module refuses although CAP_SYSLOG is held: allow the agent to read /proc/kallsyms"
	default:
		c.Remedy = m.grant()
	}
	return c
}

func countKernelSymbols(files fs.FS) (int, error) {
	f, err := files.Open("proc/kallsyms")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	table, err := kallsyms.Read(f)
	if err != nil {
		return 0, err
	}
	return table.Len(), nil
}

func cgroups(m *machine) Check {
	c := Check{ID: "cgroup", Title: "cgroups", Status: OK}
	text, err := m.read("proc/self/mountinfo")
	if err != nil {
		c.Status, c.Found = Unknown, reason(err)
		return c
	}
	var v1 int
	var v2 string
	for _, mt := range parseMounts(text) {
		switch mt.fsType {
		case "cgroup":
			v1++
		case "cgroup2":
			v2 = mt.point
		}
	}
	switch {
	case v1 > 0 && v2 != "":
		c.Found = fmt.Sprintf("hybrid: version 2 at %s, and %d hierarchies of version 1", v2, v1)
	case v1 > 0:
		c.Found = fmt.Sprintf("version 1, %d hierarchies", v1)
	case v2 != "":
		c.Found = "version 2 at " + v2
	default:
		c.Status, c.Found = Warn, "none mounted"
		c.Loss, c.Remedy = "--cgroup, --container", "sudo mount -t cgroup2 none /sys/fs/cgroup; in a container mount the host's /sys/fs/cgroup"
	}
	return c
}

// debugFiles is for information: most files name their functions themselves.
func debugFiles(m *machine) Check {
	c := Check{ID: "debug_files", Title: "debug files", Status: OK}
	if entries, err := fs.ReadDir(m.files, "usr/lib/debug/.build-id"); err == nil && len(entries) > 0 {
		c.Found = "some under /usr/lib/debug are known by build id"
	} else {
		c.Found = "none under /usr/lib/debug; local functions of stripped libraries have no names (Debian: libc6-dbg names libc's)"
	}
	return c
}
