// Package doctor tells what of a machine sampling needs is there, what is
// missing, what is lost without it, and the command that mends it.
//
// What can be tried is tried: a program is loaded, a map is made, an event is
// opened, and those trials alone decide whether sampling works. Settings
// (sysctls, capabilities, mounts) are read to explain a refusal and to tell
// what a working sampler will not see. Nothing is changed, no event is
// enabled, and no process is sampled.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/bpf"
)

// Status is the outcome of a check, or of all of them.
type Status string

// The outcomes, from the best to the worst.
const (
	// OK needs no action.
	OK Status = "ok"
	// Unknown could not be decided, such as a probe that ran out of memory.
	Unknown Status = "unknown"
	// Warn works with a loss.
	Warn Status = "warn"
	// Fail is something without which there are no samples, or none of use.
	Fail Status = "fail"
)

var severity = map[Status]int{OK: 0, Unknown: 1, Warn: 2, Fail: 3}

// Check is the outcome of one check. As JSON its field names are stable.
type Check struct {
	// ID is stable, such as "perf_event_paranoid".
	ID string `json:"id"`
	// Title is the thing's name for people, such as "CPU clock".
	Title  string `json:"title"`
	Status Status `json:"status"`
	// Found is what is there, in plain words.
	Found string `json:"found"`
	// Loss is what does not work; "" where nothing is lost.
	Loss string `json:"loss,omitempty"`
	// Remedy is the command or the change that mends it; "" where nothing is to mend.
	Remedy string `json:"remedy,omitempty"`
}

// Report is the outcome of all checks. As JSON its field names are stable, the
// checks come in a fixed order, and new ones may be added.
type Report struct {
	// Status is the worst of the checks.
	Status Status `json:"status"`
	// Kernel is the running kernel's release, such as "6.1.0-18-amd64".
	Kernel string `json:"kernel"`
	// Architecture is named as Go does: "amd64", "arm64".
	Architecture string  `json:"architecture"`
	Checks       []Check `json:"checks"`
}

// Options are what the agent will be started with, as far as it changes what can work.
type Options struct {
	// Without names features that are left alone even where the kernel has them.
	Without []bpf.Feature
	// KernelBTF is a file with the kernel's type information; "" for the kernel's own.
	KernelBTF string
}

// Run examines the machine it runs on, in about a second. It loads programs
// into the kernel and opens events, and closes them again. Once ctx is done the
// trials that are left are answered by Unknown.
func Run(ctx context.Context, o Options) Report {
	m := thisMachine()
	m.memlock = memlockLimit()
	m.options = o
	m.trials = try(ctx, o)
	return diagnose(m)
}

// thisMachine is the one that we run on, without trials and limits.
func thisMachine() *machine {
	m := &machine{
		files:        os.DirFS("/"),
		architecture: runtime.GOARCH,
		pageKiB:      uint64(os.Getpagesize()) >> 10,
	}
	var err error
	if m.executable, err = os.Executable(); err != nil {
		m.executable = "pilotlight" // without /proc
	}
	m.identify()
	return m
}

// diagnose decides all checks; it does nothing but read m.
func diagnose(m *machine) Report {
	r := Report{Status: OK, Kernel: m.release, Architecture: m.architecture}
	for _, check := range slices.Concat(checks, featureChecks()) {
		c := check(m)
		if severity[c.Status] > severity[r.Status] {
			r.Status = c.Status
		}
		r.Checks = append(r.Checks, c)
	}
	return r
}

// checks are in the order of the report: first what sampling stands on, then
// what names need, then limits, then what newer kernels add.
var checks = []func(*machine) Check{
	kernelVersion, kernelBTF,
	capBPF, capPerfmon, lockdown, paranoid, unprivilegedBPF, memlock,
	bpfProgram, bpfMap, bpfRing, samplerLoads, followsTargets,
	cpuClock, sideband, hardwareCycles,
	pidNamespace, capSysPtrace, capDACReadSearch, capCheckpointRestore, hidepid, mapFiles, otherProcesses,
	capSyslog, kernelSymbols,
	maxStack, mlockBudget, cgroups, debugFiles,
	usercopyLockup, mmap2BuildID,
}

// CanSample tells whether nothing that sampling needs is missing.
func (r *Report) CanSample() bool { return r.Status != Fail }

// WriteText writes the report for people: a line for each check, with what is
// lost and the remedy below those that are not fine, and a conclusion.
//
//	ok       BTF                  /sys/kernel/btf/vmlinux can be read
//	warn     kptr_restrict        2: the kernel hides all addresses
//	           lost: the names of kernel functions
//	           mend: sudo sysctl -w kernel.kptr_restrict=1
func (r *Report) WriteText(w io.Writer) error {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Title))
	}
	var b strings.Builder
	told := make(map[string]string) // remedy -> who said it first
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s %-*s  %s\n", c.Status, width, c.Title, c.Found)
		if c.Loss != "" {
			fmt.Fprintf(&b, "           lost: %s\n", c.Loss)
		}
		if first, again := told[c.Remedy]; again {
			fmt.Fprintf(&b, "           mend: as for %s\n", first)
		} else if c.Remedy != "" {
			fmt.Fprintf(&b, "           mend: %s\n", c.Remedy)
			told[c.Remedy] = c.Title
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.conclusion())
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// WriteJSON writes the report as one indented JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (r *Report) conclusion() string {
	count := make(map[Status]int)
	for _, c := range r.Checks {
		count[c.Status]++
	}
	var text string
	switch {
	case count[Fail] > 0:
		text = "Sampling cannot work here: see each \"fail\" above."
	case count[Warn] > 0:
		text = "Sampling works here; see each \"warn\" above for what is lost."
	default:
		text = "Sampling works here."
	}
	if count[Unknown] > 0 {
		text += fmt.Sprintf(" Undecided: %d.", count[Unknown])
	}
	return text
}
