package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pilotlight/pilotlight/bpf"
)

// Losses are the checks that tell what a sampler that runs will not show. They read
// settings and open a file or two, nothing more; kernelNames is what the
// sampler said of /proc/kallsyms, nil for success.
func Losses(kernelNames error) []Check {
	m := thisMachine()
	m.trials.sampler = conclude(nil) // it runs
	m.trials.mapFile = conclude(openMapFile())
	m.trials.otherRoot = conclude(openOtherRoot())
	return losses(m, kernelNames)
}

// losses says each loss once: a capability that is missing explains what was refused for want of it.
func losses(m *machine, kernelNames error) []Check {
	var lost []Check
	for _, causes := range [][]func(*machine) Check{
		{pidNamespace},
		{capSysPtrace, otherProcesses},
		{hidepid},
		{capDACReadSearch},
		{capCheckpointRestore, mapFiles},
		{func(m *machine) Check { return explainKernelSymbols(m, kernelNames) }},
		{maxStack},
		{usercopyLockup, lockdown},
		{cgroups},
	} {
		for _, check := range causes {
			if c := check(m); c.Status == Warn || c.Status == Fail {
				lost = append(lost, c)
				break
			}
		}
	}
	return lost
}

// Line is a check that is not fine in one line: what is lost, why, and the remedy.
func (c Check) Line() string {
	return fmt.Sprintf("%s: %s %s; %s", c.Loss, c.Title, c.Found, c.Remedy)
}

// Refusal explains in one line why the sampler could not be opened: what is
// missing and the remedy. "" where err is no matter of rights. Nothing is loaded for it.
func Refusal(err error) string {
	m := thisMachine()
	m.trials.cpuClock = conclude(openCPUClock())
	return refusal(m, err)
}

func refusal(m *machine, err error) string {
	m.trials.sampler = conclude(err)
	refused := errors.Is(err, os.ErrPermission)
	var missing []string
	for _, check := range []func(*machine) Check{capBPF, capPerfmon} {
		if c := check(m); c.Status == Fail {
			missing = append(missing, c.Title)
		}
	}
	switch {
	case refused && len(missing) == 1:
		return missing[0] + " is not held; " + m.grant()
	case refused && len(missing) > 1:
		return strings.Join(missing, " and ") + " are not held; " + m.grant()
	}
	// Without a capability the kernel refuses in the same way; hence after those.
	if errors.Is(err, bpf.ErrMemlock) {
		return bpf.ErrMemlock.Error()
	}
	// Lockdown takes functions from programs, which the verifier reports in other words than a refusal.
	if c := lockdown(m); c.Status == Fail {
		return fmt.Sprintf("%s is %s; %s", c.Title, c.Found, c.Remedy)
	}
	if !refused {
		return ""
	}
	if c := paranoid(m); c.Status == Warn {
		return fmt.Sprintf("%s %s; %s", c.Title, c.Found, c.Remedy)
	}
	return reason(err) + "; " + m.remedy(err)
}
