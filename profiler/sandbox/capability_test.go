package sandbox

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestNeeded(t *testing.T) {
	const everything = capabilities(1<<41 - 1)
	six := lasting | setOf(unix.CAP_SYSLOG)
	yes := func(capabilities) bool { return true }
	with := func(numbers ...uint) func(capabilities) bool {
		return func(c capabilities) bool {
			for _, n := range numbers {
				if c.has(n) {
					return true
				}
			}
			return false
		}
	}
	tests := map[string]struct {
		held  capabilities
		event func(capabilities) bool
		want  capabilities
	}{
		"nothing":                   {0, yes, 0},
		"root":                      {everything, yes, lasting},
		"the six":                   {six, yes, lasting},
		"root, perf for admins":     {everything, with(unix.CAP_SYS_ADMIN), lasting | setOf(unix.CAP_SYS_ADMIN)},
		"perf for perfmon":          {everything, with(unix.CAP_PERFMON), lasting},
		"a missing one is no one's": {six &^ setOf(unix.CAP_SYS_PTRACE), yes, lasting &^ setOf(unix.CAP_SYS_PTRACE)},
		"SYS_ADMIN stands in": {
			setOf(unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE, unix.CAP_NET_ADMIN),
			with(unix.CAP_SYS_ADMIN),
			setOf(unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE),
		},
	}
	for name, test := range tests {
		if got := needed(test.held, test.event); got != test.want {
			t.Errorf("%s: %#x, want %#x", name, got, test.want)
		}
	}
}

// What the kernel reads is what was put in.
func TestCapabilitySets(t *testing.T) {
	want := sets{effective: setOf(unix.CAP_SYS_PTRACE), permitted: setOf(unix.CAP_SYS_PTRACE, unix.CAP_BPF), inheritable: setOf(unix.CAP_CHECKPOINT_RESTORE)}
	_, data := encode(want)
	if data[0].Effective != 1<<unix.CAP_SYS_PTRACE || data[1].Permitted != 1<<(unix.CAP_BPF-32) || data[1].Inheritable != 1<<(unix.CAP_CHECKPOINT_RESTORE-32) {
		t.Errorf("%+v became %+v", want, data)
	}
}
