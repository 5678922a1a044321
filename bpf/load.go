package bpf

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Options say what the programs sample and how large their maps are. The zero
// value takes every task of the host into maps of the default sizes.
type Options struct {
	// Secret seeds the keys of stacks. Draw it anew at each start.
	Secret uint64
	// ExcludePID is a process that is left out, 0 for none.
	ExcludePID uint32
	// Targets, when not nil, are the wanted processes; the value says whether
	// their descendants are wanted too.
	Targets map[uint32]bool
	// TargetsMayCome keeps room for AddTarget where Targets is still empty.
	TargetsMayCome bool
	// CgroupID is the wanted cgroup, the inode number of its directory; 0 for all.
	CgroupID uint64
	// CgroupSubsystem names the cgroup v1 controller whose hierarchy CgroupID
	// belongs to and samples are marked with; "" for cgroup v2.
	CgroupSubsystem string
	// Softirq is the kernel function that runs softirqs; where it is on the
	// stack of an idle CPU, that CPU works. Without it (zero), idle tasks never count.
	Softirq KernelRange
	// RingBytes, a power of two, is the size of the ring; 0 means DefaultRingBytes.
	RingBytes uint32
	// StackEntries bounds stack_traces; 0 means DefaultStackEntries.
	StackEntries uint32
	// KernelBTF describes the running kernel; nil means /sys/kernel/btf/vmlinux.
	KernelBTF *btf.Spec
}

// KernelRange is a piece of the kernel's text.
type KernelRange struct{ Start, Size uint64 }

// ErrNoBTF says that the running kernel's type information cannot be had, by
// which the programs find the fields of its structures.
var ErrNoBTF = errors.New("the kernel's type information (BTF, /sys/kernel/btf/vmlinux) cannot be read")

// Sizes of maps where Options leave them open.
const (
	DefaultRingBytes    = 256 << 10
	DefaultStackEntries = 16384
	// targetEntries holds the descendants of targets: 16,384 live processes, 1.3 MB.
	targetEntries = 16384
)

// Programs are the loaded programs and their maps. Close frees them.
type Programs struct {
	cpu     CpuObjects
	targets *TargetsPrograms
	links   []link.Link
}

// Load loads the programs. Where the verifier refuses one, the error holds its log.
func Load(o Options) (*Programs, error) {
	// Before 5.11 maps count against this limit. Where it may not be raised it may still do; a failure shows below.
	_ = rlimit.RemoveMemlock()
	spec, err := LoadCpu()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	var specs CpuSpecs
	if err := spec.Assign(&specs); err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	kernel := o.KernelBTF
	if kernel == nil {
		if kernel, err = btf.LoadKernelSpec(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoBTF, err)
		}
	}
	subsystem := int32(-1)
	if o.CgroupSubsystem != "" {
		if subsystem, err = cgroupSubsystem(kernel, o.CgroupSubsystem); err != nil {
			return nil, err
		}
	}
	p := new(Programs)
	filter := o.Targets != nil || o.TargetsMayCome
	ring := or(o.RingBytes, DefaultRingBytes)
	specs.Samples.MaxEntries = ring
	specs.StackTraces.MaxEntries = or(o.StackEntries, DefaultStackEntries)
	if filter {
		specs.Targets.MaxEntries = targetEntries
	}
	for _, v := range []struct {
		variable *ebpf.VariableSpec
		value    any
	}{
		{specs.StackSecret, o.Secret},
		{specs.ExcludeTgid, o.ExcludePID},
		{specs.FilterTargets, flag(filter)},
		{specs.FilterCgroup, o.CgroupID},
		{specs.CgroupSubsys, subsystem},
		{specs.SoftirqStart, o.Softirq.Start},
		{specs.SoftirqSize, o.Softirq.Size},
		{specs.MaxFrames, maxFrames()},
		{specs.RingWakeupBytes, ring / 2},
	} {
		if err := v.variable.Set(v.value); err != nil {
			return nil, fmt.Errorf("configure the BPF object: %w", err)
		}
	}
	if err := spec.LoadAndAssign(&p.cpu, &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}}); err != nil {
		return nil, fmt.Errorf("load the CPU sampler: %w", err)
	}
	if !filter {
		return p, nil
	}
	if err := p.followTargets(kernel); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for pid, children := range o.Targets {
		if err := p.AddTarget(pid, children); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// followTargets loads and attaches the programs that keep the target set true.
func (p *Programs) followTargets(kernel *btf.Spec) error {
	spec, err := LoadTargets()
	if err != nil {
		return fmt.Errorf("read the embedded BPF object: %w", err)
	}
	spec.Maps[TargetsMapTargets].MaxEntries = p.cpu.Targets.MaxEntries()
	p.targets = new(TargetsPrograms)
	err = spec.LoadAndAssign(p.targets, &ebpf.CollectionOptions{
		Programs:        ebpf.ProgramOptions{KernelTypes: kernel},
		MapReplacements: map[string]*ebpf.Map{CpuMapTargets: p.cpu.Targets, CpuMapCounters: p.cpu.Counters},
	})
	if err != nil {
		return fmt.Errorf("load the programs that follow targets: %w", err)
	}
	for _, prog := range []*ebpf.Program{p.targets.OnFork, p.targets.OnFree} {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %s: %w", prog, err)
		}
		p.links = append(p.links, l)
	}
	return nil
}

// AddTarget adds a wanted process.
func (p *Programs) AddTarget(pid uint32, children bool) error {
	if err := p.cpu.Targets.Put(pid, Target{Children: flag(children)}); err != nil {
		return fmt.Errorf("add process %d to the targets: %w", pid, err)
	}
	return nil
}

// HasTarget tells whether a process is still wanted; it leaves the set when it is gone.
func (p *Programs) HasTarget(pid uint32) bool {
	var t Target
	return p.cpu.Targets.Lookup(pid, &t) == nil
}

// HasTargets tells whether any wanted process is left.
func (p *Programs) HasTargets() bool {
	var pid uint32
	return p.cpu.Targets.NextKey(nil, &pid) == nil
}

// OnSample is the perf_event program.
func (p *Programs) OnSample() *ebpf.Program { return p.cpu.OnSample }

// Samples is the ring buffer's map.
func (p *Programs) Samples() *ebpf.Map { return p.cpu.Samples }

// StackTraces is the map of stacks.
func (p *Programs) StackTraces() *ebpf.Map { return p.cpu.StackTraces }

// Counters sums up what all CPUs counted since the load.
func (p *Programs) Counters() (Counters, error) {
	var perCPU []Counters
	if err := p.cpu.Counters.Lookup(uint32(0), &perCPU); err != nil {
		return Counters{}, fmt.Errorf("read the BPF counters: %w", err)
	}
	var sum Counters
	for i := range perCPU {
		sum.add(&perCPU[i])
	}
	return sum, nil
}

func (c *Counters) add(o *Counters) {
	c.Seen += o.Seen
	c.FilteredTarget += o.FilteredTarget
	c.FilteredCgroup += o.FilteredCgroup
	c.FilteredSelf += o.FilteredSelf
	c.Idle += o.Idle
	c.Taken += o.Taken
	c.Submitted += o.Submitted
	c.LostRingFull += o.LostRingFull
	c.User.add(&o.User)
	c.Kernel.add(&o.Kernel)
	c.TargetAdded += o.TargetAdded
	c.TargetMapFull += o.TargetMapFull
	c.RunTimeNs += o.RunTimeNs
}

func (c *StackCounters) add(o *StackCounters) {
	c.Fresh += o.Fresh
	c.Known += o.Known
	c.None += o.None
	c.Unreadable += o.Unreadable
	c.MapFull += o.MapFull
	c.Truncated += o.Truncated
}

// MapBytes is the memory that the kernel holds for all maps.
func (p *Programs) MapBytes() (uint64, error) {
	var sum uint64
	for _, m := range []*ebpf.Map{p.cpu.Counters, p.cpu.Samples, p.cpu.Scratch, p.cpu.StackTraces, p.cpu.Targets, p.cpu.CgroupMatches} {
		info, err := m.Info()
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", m, err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			return 0, fmt.Errorf("size of %s: the kernel does not say", m)
		}
		sum += bytes
	}
	return sum, nil
}

// Close detaches and frees everything. It may be called more than once.
func (p *Programs) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	if p.targets != nil {
		errs = append(errs, p.targets.Close())
		p.targets = nil
	}
	return errors.Join(append(errs, p.cpu.Close())...)
}

// maxFrames is the deepest stack that the kernel walks: its setting, if that is
// lower than what a record holds.
func maxFrames() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/perf_event_max_stack")
	if err != nil {
		return uint32(MaxStackFrames)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return uint32(MaxStackFrames)
	}
	return uint32(min(n, MaxStackFrames))
}

// cgroupSubsystem finds a controller's index in the running kernel, where it
// depends on the configuration.
func cgroupSubsystem(kernel *btf.Spec, name string) (int32, error) {
	var enum *btf.Enum
	if err := kernel.TypeByName("cgroup_subsys_id", &enum); err != nil {
		return 0, fmt.Errorf("cgroup controllers in the kernel's BTF: %w", err)
	}
	for _, v := range enum.Values {
		if v.Name == name+"_cgrp_id" {
			return int32(v.Value), nil
		}
	}
	return 0, fmt.Errorf("the kernel has no cgroup controller %q", name)
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func or(v, otherwise uint32) uint32 {
	if v != 0 {
		return v
	}
	return otherwise
}
