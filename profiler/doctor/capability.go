package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities is a set as the kernel writes it: bit N is capability N.
type capabilities uint64

// parseCapabilities finds the effective set in /proc/PID/status:
//
//	CapEff:	000001ffffffffff
func parseCapabilities(status string) (capabilities, error) {
	for line := range strings.Lines(status) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("effective capabilities: %w", err)
		}
		return capabilities(bits), nil
	}
	return 0, fmt.Errorf("effective capabilities: no line CapEff")
}

func (c capabilities) has(capability uint) bool { return c&(1<<capability) != 0 }

// grant is the remedy for a missing capability: everything that the agent uses, at once. The running
// binary is named by its path, for it need not be in the PATH.
func (m *machine) grant() string {
	return "run it as root, or: sudo setcap " +
		"cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_syslog+ep " + shellWord(m.executable)
}

// shellWord quotes text for a shell where it needs that.
func shellWord(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@%"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// need is a capability, what stands in for it, and what is lost without it.
type need struct {
	capability uint
	name       string
	covers     map[uint]string // capabilities that the kernel takes in its place
	without    Status
	loss       string
}

func (n need) check(m *machine) Check {
	c := Check{ID: strings.ToLower(n.name), Title: n.name, Status: OK, Found: "held"}
	if m.caps.has(n.capability) {
		return c
	}
	for instead, name := range n.covers {
		if m.caps.has(instead) {
			c.Found = "covered by " + name
			return c
		}
	}
	c.Status, c.Found, c.Loss, c.Remedy = n.without, "not held", n.loss, m.grant()
	return c
}

var coveredByAdmin = map[uint]string{unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN"}

func capBPF(m *machine) Check {
	return need{
		unix.CAP_BPF, "CAP_BPF", coveredByAdmin, Fail,
		"everything: BPF programs and maps cannot be made",
	}.check(m)
}

func capPerfmon(m *machine) Check {
	return need{
		unix.CAP_PERFMON, "CAP_PERFMON", coveredByAdmin, Fail,
		"everything: no event may watch a whole CPU, and no program may read stacks",
	}.check(m)
}

// openMappings is the first kernel on which CAP_PERFMON may read the mappings of all processes.
var openMappings = version{6, 15}

func capSysPtrace(m *machine) Check {
	loss := "names of functions in processes of other users, and in containers (their mappings and files are closed to us), and what those say of their services"
	if m.kernel.atLeast(openMappings) && capPerfmon(m).Status == OK {
		loss = "names of functions in processes of other users, where they come from containers, deleted files or JITs (those are closed to us), and what those processes say of their services"
	}
	return need{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", nil, Warn, loss}.check(m)
}

func capSyslog(m *machine) Check {
	return need{
		unix.CAP_SYSLOG, "CAP_SYSLOG", nil, Warn,
		"names of kernel functions, unless kernel.kptr_restrict is 0 and kernel.perf_event_paranoid at most 1",
	}.check(m)
}

func capDACReadSearch(m *machine) Check {
	return need{
		unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", map[uint]string{unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE"}, Warn,
		"names of functions in programs that our user may not read",
	}.check(m)
}

func capCheckpointRestore(m *machine) Check {
	return need{
		unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", coveredByAdmin, Warn,
		"names of functions in programs and libraries that were deleted or replaced while they run (/proc/PID/map_files)",
	}.check(m)
}
