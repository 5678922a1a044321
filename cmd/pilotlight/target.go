package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/sampler"
)

// samplingFlags are the flags that record and agent share.
type samplingFlags struct {
	pids        []string
	children    bool
	cgroup      string
	container   string
	comm        string
	event       string
	frequency   int
	excludeSelf bool
	perThread   bool
	ringBytes   uint32
	stacks      uint32
	goLabels    goLabels
	kernel      kernelFlags
}

func (f *samplingFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&f.pids, "pid", "p", nil, "sample these `PID`s (all their threads)")
	flags.BoolVar(&f.children, "children", false, "with --pid: their descendants too, present and future")
	flags.StringVar(&f.cgroup, "cgroup", "", "sample the cgroup at this `PATH` (v1 or v2) and those below it")
	flags.StringVar(&f.container, "container", "", "sample the container of this `ID`")
	flags.StringVar(&f.comm, "comm", "", "sample processes whose name matches this `REGEX`")
	flags.StringVarP(&f.event, "event", "e", string(sampler.CPUClock), "what drives the sampling: cpu (the CPU clock), cycles (needs a PMU)")
	flags.IntVarP(&f.frequency, "frequency", "F", profiler.DefaultFrequencyHz, "samples a second of each busy CPU, `HZ`")
	flags.BoolVar(&f.excludeSelf, "exclude-self", false, "leave pilotlight itself out")
	flags.BoolVar(&f.perThread, "per-thread", false, "keep threads apart, by a tid label")
	flags.Var(&f.goLabels, "go-labels", "labels of runtime/pprof that samples of Go programs have, beside trace_id and span_id: all, none, or `KEYS` with commas")
	flags.Uint32Var(&f.ringBytes, "ring-bytes", 0, "size of the ring buffer of samples, a power of two, at least a page (default: fits CPUs and frequency)")
	f.kernel.add(flags)
	flags.Uint32Var(&f.stacks, "stack-entries", 0,
		fmt.Sprintf("bound of the kernel side's table of stacks, at most %d (default %d)", bpf.MaxStackEntries, bpf.DefaultStackEntries))
}

// check refuses a target that was given but is empty: it would mean the whole host.
func (f *samplingFlags) check(flags *pflag.FlagSet) error {
	for _, name := range []string{"pid", "cgroup", "container", "comm"} {
		given := flags.Lookup(name)
		if given.Changed && strings.Trim(given.Value.String(), "[]") == "" {
			return fmt.Errorf("--%s is empty: leave it out to sample the whole host", name)
		}
	}
	return nil
}

// config turns the flags into a Config; errors are those of the command line.
func (f *samplingFlags) config() (profiler.Config, error) {
	c := profiler.Config{
		Event: sampler.Event(f.event), FrequencyHz: f.frequency, ExcludeSelf: f.excludeSelf, PerThread: f.perThread,
		RingBytes: f.ringBytes, StackEntries: f.stacks,
		KernelBTF: f.kernel.btf,
		KeepLabel: f.goLabels.keep(),
		Target:    profiler.Target{Children: f.children, Cgroup: f.cgroup, Container: f.container},
	}
	var err error
	if c.Without, err = bpf.ParseFeatures(f.kernel.without); err != nil {
		return c, err
	}
	if c.Event != sampler.CPUClock && c.Event != sampler.Cycles {
		return c, fmt.Errorf("event %q: want %s or %s", f.event, sampler.CPUClock, sampler.Cycles)
	}
	if f.frequency < 1 || f.frequency > sampler.MaxFrequencyHz {
		return c, fmt.Errorf("frequency %d: want 1 to %d samples a second", f.frequency, sampler.MaxFrequencyHz)
	}
	if page := uint32(os.Getpagesize()); f.ringBytes != 0 && (f.ringBytes < page || f.ringBytes&(f.ringBytes-1) != 0) {
		return c, fmt.Errorf("ring-bytes %d: want a power of two, at least %d", f.ringBytes, page)
	}
	if f.stacks > bpf.MaxStackEntries {
		return c, fmt.Errorf("stack-entries %d: want at most %d", f.stacks, bpf.MaxStackEntries)
	}
	for _, text := range f.pids {
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || pid < 1 {
			return c, fmt.Errorf("pid %q: want a process number", text)
		}
		c.Target.PIDs = append(c.Target.PIDs, pid)
	}
	if f.children && len(f.pids) == 0 {
		return c, errors.New("--children goes with --pid")
	}
	if f.cgroup != "" && f.container != "" {
		return c, errors.New("--cgroup and --container exclude one another: a container is a cgroup")
	}
	if f.comm != "" {
		comm, err := regexp.Compile(f.comm)
		if err != nil {
			return c, fmt.Errorf("comm %q: %w", f.comm, err)
		}
		c.Target.Comm = comm
	}
	return c, nil
}

// set says whether a target was given.
func (f *samplingFlags) set() bool {
	return len(f.pids) > 0 || f.cgroup != "" || f.container != "" || f.comm != ""
}

// String is the target in words.
func (f *samplingFlags) String() string {
	var parts []string
	if len(f.pids) > 0 {
		parts = append(parts, "pid "+strings.Join(f.pids, ","))
	}
	if f.children {
		parts = append(parts, "with children")
	}
	for _, p := range []struct{ name, value string }{{"cgroup", f.cgroup}, {"container", f.container}, {"comm", f.comm}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if len(parts) > 0 {
		return strings.Join(parts, ", ")
	}
	if namespace, err := process.PIDNamespace(os.DirFS("/")); err == nil && namespace != 0 {
		return "the whole pid namespace"
	}
	return "the whole host"
}
