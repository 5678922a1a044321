package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/kallsyms"
)

// restricted is a machine with the rights that the agent asks for, without some of them.
func restricted(missing ...uint) *machine {
	m := healthy()
	var caps uint64
	if _, err := fmt.Sscanf(grantedCapabilities, "%x", &caps); err != nil {
		panic(err)
	}
	for _, c := range missing {
		caps &^= 1 << c
	}
	m.hold(fmt.Sprintf("%016x", caps))
	m.identify()
	return m
}

func TestLosses(t *testing.T) {
	refusedFile := trial{answer: no, err: unix.EPERM}
	for name, test := range map[string]struct {
		machine func() *machine
		kernel  error
		want    []string // ids
	}{
		"nothing": {func() *machine { return restricted() }, nil, nil},
		"a capability explains what it costs": {func() *machine {
			m := restricted(unix.CAP_SYS_PTRACE, unix.CAP_CHECKPOINT_RESTORE)
			m.trials.otherRoot, m.trials.mapFile = refusedFile, refusedFile
			return m
		}, nil, []string{"cap_sys_ptrace", "cap_checkpoint_restore"}},
		"a security module": {func() *machine {
			m := restricted()
			m.trials.otherRoot, m.trials.mapFile = refusedFile, refusedFile
			return m
		}, nil, []string{"other_processes", "map_files"}},
		"a pid namespace": {func() *machine {
			m := restricted()
			m.link("proc/self/ns/pid", "pid:[4026532178]")
			return m
		}, nil, []string{"pid_namespace"}},
		"no kernel names": {func() *machine { return restricted(unix.CAP_SYSLOG) }, kallsyms.ErrRestricted, []string{"kptr_restrict"}},
		"CAP_SYSLOG costs nothing where names are there": {func() *machine { return restricted(unix.CAP_SYSLOG) }, nil, nil},
		"what sampling stands on is not asked": {func() *machine {
			m := restricted(unix.CAP_BPF, unix.CAP_PERFMON)
			m.trials = trials{mapFile: done, otherRoot: done}
			return m
		}, nil, nil},
	} {
		var ids []string
		for _, c := range losses(test.machine(), test.kernel) {
			ids = append(ids, c.ID)
			if line := c.Line(); strings.Contains(line, "\n") || c.Loss == "" || c.Remedy == "" {
				t.Errorf("%s: %q is not a line with loss and remedy", name, line)
			}
		}
		if !slices.Equal(ids, test.want) {
			t.Errorf("%s: %q, want %q", name, ids, test.want)
		}
	}
}

func TestKernelNamesRemedy(t *testing.T) {
	m := restricted()
	for _, test := range []struct {
		err    error
		setup  func()
		remedy string
	}{
		{fs.ErrPermission, func() {}, "chmod a+r"},
		{kallsyms.ErrNoSymbols, func() {}, "CONFIG_KALLSYMS"},
		{kallsyms.ErrRestricted, func() {}, "security module"},
		{kallsyms.ErrRestricted, func() { m.write("proc/sys/kernel/kptr_restrict", "2") }, "kptr_restrict=1"},
	} {
		test.setup()
		if c := explainKernelSymbols(m, fmt.Errorf("kernel symbols: %w", test.err)); c.Status != Warn || !strings.Contains(c.Remedy, test.remedy) {
			t.Errorf("%v: %+v, want the remedy %q", test.err, c, test.remedy)
		}
	}
}

func TestRefusal(t *testing.T) {
	refusal := func(m *machine, err error) string { return refusal(m, fmt.Errorf("load: %w", err)) }
	confidential := restricted()
	confidential.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
	paranoid := restricted()
	paranoid.write("proc/sys/kernel/perf_event_paranoid", "4")
	paranoid.trials.cpuClock = refused
	for name, test := range map[string]struct {
		machine *machine
		err     error
		want    string // the beginning
	}{
		"both":                {restricted(unix.CAP_BPF, unix.CAP_PERFMON), unix.EPERM, "CAP_BPF and CAP_PERFMON are not held; "},
		"one":                 {restricted(unix.CAP_PERFMON), unix.EPERM, "CAP_PERFMON is not held; "},
		"lockdown":            {confidential, unix.EPERM, "kernel lockdown is confidentiality; "},
		"lockdown, otherwise": {confidential, unix.EINVAL, "kernel lockdown is confidentiality; "},
		"lockdown, no memory": {confidential, unix.ENOMEM, ""},
		"paranoid":            {paranoid, unix.EACCES, "perf_event_paranoid 4: "},
		"memlock":             {restricted(), fmt.Errorf("%w: %w", bpf.ErrMemlock, unix.EPERM), "the memlock limit is too low"},
		"memlock, it seems":   {restricted(unix.CAP_PERFMON), fmt.Errorf("%w: %w", bpf.ErrMemlock, unix.EPERM), "CAP_PERFMON is not held; "},
		"none of these":       {restricted(), unix.EPERM, "load: operation not permitted; run it as root"},
		"no matter of rights": {restricted(), unix.ENOMEM, ""},
		"nor this":            {restricted(unix.CAP_BPF), errors.New("no"), ""},
	} {
		got := refusal(test.machine, test.err)
		if !strings.HasPrefix(got, test.want) || test.want == "" && got != "" || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
