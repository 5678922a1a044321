package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
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
	// PIDNamespace is the inode number of the pid namespace that is sampled, by whose numbers
	// processes are then known, here and in samples; 0 for the initial one.
	PIDNamespace uint32
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
	// StackEntries bounds stack_traces, at most MaxStackEntries; 0 means DefaultStackEntries.
	StackEntries uint32
	// CgroupLevel says how many levels below the root of the v2 hierarchy the cgroup
	// of CgroupID is; 0 where that is not known, or for v1.
	CgroupLevel uint32
	// Walks lets processes that PutProcess told of be walked by unwind tables. The programs then read the stacks of
	// processes by bpf_probe_read_user: see Walkable.
	Walks bool
	// CopyAll sends a copy of every stack beside its walk. For comparisons: it costs many times the rest.
	CopyAll bool
	// CopyBytes, a power of two, is the size of the ring of copies; 0 means DefaultCopyBytes. CopiesPerSecond bounds the stacks of one process that
	// are copied in a second because its code is not known yet; 0 means none.
	CopyBytes, CopiesPerSecond uint32
	// KernelBTF describes the running kernel; nil means /sys/kernel/btf/vmlinux. See ReadKernelTypes.
	KernelBTF *btf.Spec
	// Types are the running kernel's own, where several loads are to share them; nil means a cache for this load alone.
	Types *btf.Cache
	// Without names features that are left alone even where the kernel has them.
	Without []Feature
}

// use tells whether a feature is there and wanted. Where the probe could not
// decide, the fallback is the safe choice.
func (o *Options) use(f Feature) bool {
	return !slices.Contains(o.Without, f) && f.ProbeWith(o.Types).Answer == Yes
}

// KernelRange is a piece of the kernel's text.
type KernelRange struct{ Start, Size uint64 }

// ErrLockdown says that the kernel forbids what the programs need.
var ErrLockdown = errors.New("lockdown=confidentiality forbids programs to read the kernel's memory by a helper, and this kernel has no other way (or it was switched off, " +
	"or the pid namespace is not the host's): use a kernel 5.11 or newer in the host's pid namespace, or boot with lockdown=integrity")

// Sizes of maps where Options leave them open.
const (
	DefaultRingBytes    = 256 << 10
	DefaultCopyBytes    = 1 << 20
	DefaultStackEntries = 16384
	// MaxStackEntries take 350 MB, which the kernel allocates at once.
	MaxStackEntries = 1 << 20
	// targetEntries holds the descendants of targets: 16,384 live processes, 1.3 MB.
	targetEntries = 16384
	// exitedEntries holds processes of a pid namespace that exited and were not reaped, 1 MB.
	exitedEntries = 16384
)

// Programs are the loaded programs and their maps. Close frees them.
type Programs struct {
	cpu   CpuObjects
	links []link.Link // the programs that follow targets
	// exited is their map; nil where they are not loaded.
	exited *ebpf.Map
	arena  Arena

	processes sync.Mutex
	changes   uint32       // of processes
	counted   *ebpf.Memory // which tells the programs of them
}

// Try makes the smallest of maps. Who may not even do that learns it here, before the much that Load and its caller read.
func Try() error {
	err := tryMap()
	if errors.Is(err, unix.EPERM) { // which is also the kernel's word for a memlock limit that is used up; raised for nothing, it is so in a process that ends
		raiseMemlock()
		err = tryMap()
	}
	if err != nil {
		return fmt.Errorf("make a BPF map: %w", err)
	}
	return nil
}

// Load loads the programs. Where the verifier refuses one, the error holds its log.
func Load(o Options) (*Programs, error) {
	// Reading the kernel's types takes as long as the verifier: once for the probe, the sampler and the programs that follow targets.
	if o.Types == nil {
		o.Types = btf.NewCache()
	}
	// An agent that may not raise the limit must not even try where nothing needs it.
	if !o.use(MemcgAccounting) {
		raiseMemlock()
	}
	p, err := loadPrograms(o)
	switch {
	case errors.Is(err, unix.EPERM) && MemcgAccounting.Probe().Answer == No:
		return nil, fmt.Errorf("%w: %w", ErrMemlock, err)
	case errors.As(err, new(*ebpf.VerifierError)) && o.readsByHelper() && confidential(os.DirFS("/")):
		return nil, fmt.Errorf("%w: %w", ErrLockdown, err)
	}
	return p, err
}

// readsByHelper tells whether a program calls bpf_probe_read_kernel.
func (o *Options) readsByHelper() bool {
	return o.PIDNamespace != 0 || !o.use(CurrentTaskBTF) || o.Walks && !o.use(TaskPtRegs)
}

// confidential tells whether the kernel is locked down as far as it goes:
//
//	none integrity [confidentiality]
func confidential(root fs.FS) bool {
	text, err := fs.ReadFile(root, "sys/kernel/security/lockdown")
	return err == nil && strings.Contains(string(text), "[confidentiality]")
}

func loadPrograms(o Options) (*Programs, error) {
	kernel := o.KernelBTF
	if kernel == nil {
		var err error
		if kernel, err = o.Types.Kernel(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoBTF, err)
		}
	}
	spec, err := sampler(o, kernel)
	if err != nil {
		return nil, err
	}
	p := new(Programs)
	if err := spec.LoadAndAssign(&p.cpu, &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}, Cache: o.Types}); err != nil {
		return nil, fmt.Errorf("load the CPU sampler: %w", err)
	}
	p.arena.outer = p.cpu.Arena
	if p.counted, err = p.cpu.ProcessChanges.Memory(); err != nil {
		return nil, errors.Join(fmt.Errorf("map what tells the CPU sampler of changes: %w", err), p.Close())
	}
	if !o.filtersTargets() {
		return p, nil
	}
	if err := p.followTargets(kernel, &o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for pid, children := range o.Targets {
		if err := p.AddTarget(pid, children); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

func (o *Options) filtersTargets() bool { return o.Targets != nil || o.TargetsMayCome }

// sampler is the object of the CPU sampler, configured.
func sampler(o Options, kernel *btf.Spec) (*ebpf.CollectionSpec, error) {
	spec, err := LoadCpu()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	var specs CpuSpecs
	if err := spec.Assign(&specs); err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	if !o.Walks {
		leaveOutUserReads(spec.Programs[CpuProgOnSample])
	}
	subsystem, level := int32(-1), uint32(0)
	if o.CgroupSubsystem != "" {
		if subsystem, err = cgroupSubsystem(kernel, o.CgroupSubsystem); err != nil {
			return nil, err
		}
	} else if o.CgroupID != 0 && o.use(AncestorCgroupID) {
		level = o.CgroupLevel
	}
	ring := or(o.RingBytes, DefaultRingBytes)
	specs.Samples.MaxEntries = ring
	copies := or(o.CopyBytes, DefaultCopyBytes)
	specs.Copies.MaxEntries = copies
	specs.StackTraces.MaxEntries = or(o.StackEntries, DefaultStackEntries)
	if o.filtersTargets() {
		specs.Targets.MaxEntries = targetEntries
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("how many CPUs there may be: %w", err)
	}
	specs.Remembered.MaxEntries = rememberedWalks(cpus)
	for _, v := range []struct {
		variable *ebpf.VariableSpec
		value    any
	}{
		{specs.StackSecret, o.Secret},
		{specs.ExcludeTgid, o.ExcludePID},
		{specs.PidNamespaceInode, o.PIDNamespace},
		{specs.FilterTargets, flag(o.filtersTargets())},
		{specs.FilterCgroup, o.CgroupID},
		{specs.CgroupSubsys, subsystem},
		{specs.CgroupLevel, level},
		{specs.SoftirqStart, o.Softirq.Start},
		{specs.SoftirqSize, o.Softirq.Size},
		{specs.MaxFrames, maxFrames()},
		{specs.RingWakeupBytes, ring / 2},
		{specs.TaskBtf, flag(o.use(CurrentTaskBTF))},
		{specs.TaskPtRegs, flag(o.use(CurrentTaskBTF) && o.use(TaskPtRegs))},
		{specs.Walks, flag(o.Walks)},
		{specs.RememberedWalks, specs.Remembered.MaxEntries},
		{specs.CopyAll, flag(o.CopyAll)},
		{specs.CopiesWakeupBytes, copies / 2},
		{specs.CopiesPerSecond, o.CopiesPerSecond},
	} {
		if err := v.variable.Set(v.value); err != nil {
			return nil, fmt.Errorf("configure the BPF object: %w", err)
		}
	}
	return spec, nil
}

// rememberedWalks is how many walks each CPU remembers: all together no more than 4,096, 8.8 MB, which 64 CPUs have. There may be far more than there are: of virtual
// machines that can be given more, hundreds.
func rememberedWalks(cpus int) uint32 {
	walks := uint32(CpuLimitLIMIT_REMEMBERED_WALKS)
	for walks > 8 && int(walks)*cpus > 4096 {
		walks /= 2
	}
	return walks
}

// leaveOutUserReads lets calls of bpf_probe_read_user fail at once: a kernel looks at functions that are not called as well, and does not
// allow the helper everywhere.
func leaveOutUserReads(program *ebpf.ProgramSpec) {
	for i := range program.Instructions {
		ins := &program.Instructions[i]
		if ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnProbeReadUser {
			failed := asm.Mov.Imm(asm.R0, -int32(unix.EFAULT))
			failed.Metadata = ins.Metadata
			*ins = failed
		}
	}
}

// followTargets loads and attaches the programs that keep the target set true.
func (p *Programs) followTargets(kernel *btf.Spec, o *Options) error {
	spec, err := LoadTargets()
	if err != nil {
		return fmt.Errorf("read the embedded BPF object: %w", err)
	}
	tracepointBTF := o.PIDNamespace == 0 && o.use(TracepointBTF)
	if o.PIDNamespace != 0 {
		spec.Maps[TargetsMapExited].MaxEntries = exitedEntries
		if err := spec.Variables[TargetsVarPidNamespaceInode].Set(o.PIDNamespace); err != nil {
			return fmt.Errorf("configure the BPF object: %w", err)
		}
	} else {
		delete(spec.Programs, TargetsProgOnExitRaw)
	}
	spec.Maps[TargetsMapTargets].MaxEntries = p.cpu.Targets.MaxEntries()
	for name, prog := range spec.Programs {
		if (prog.Type == ebpf.Tracing) != tracepointBTF {
			delete(spec.Programs, name)
		}
	}
	programs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs:        ebpf.ProgramOptions{KernelTypes: kernel},
		MapReplacements: map[string]*ebpf.Map{CpuMapTargets: p.cpu.Targets, CpuMapCounters: p.cpu.Counters},
		Cache:           o.Types,
	})
	if err != nil {
		return fmt.Errorf("load the programs that follow targets: %w", err)
	}
	defer programs.Close()
	p.exited = programs.DetachMap(TargetsMapExited)
	for name, prog := range programs.Programs {
		var l link.Link
		if tracepointBTF {
			l, err = link.AttachTracing(link.TracingOptions{Program: prog})
		} else {
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: spec.Programs[name].AttachTo, Program: prog})
		}
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

// SweepTargets takes out processes that are there no more. The programs do that themselves, but now and then the kernel does
// not let them: they run in the middle of anything. It returns how many it took.
func (p *Programs) SweepTargets(exists func(pid uint32) bool) (int, error) {
	var dead []uint32
	var pid uint32
	var t Target
	all := p.cpu.Targets.Iterate()
	for all.Next(&pid, &t) {
		if !exists(pid) {
			dead = append(dead, pid)
		}
	}
	// Where it changes too much under the iteration, the next sweep sees the rest.
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return 0, fmt.Errorf("look through the targets: %w", err)
	}
	swept := 0
	for _, pid := range dead {
		switch err := p.cpu.Targets.Delete(pid); {
		case err == nil:
			swept++
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return swept, fmt.Errorf("remove process %d from the targets: %w", pid, err)
		}
	}
	return swept, nil
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

// Copies is the map of the ring of copies.
func (p *Programs) Copies() *ebpf.Map { return p.cpu.Copies }

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
	c.FilteredNamespace += o.FilteredNamespace
	c.Idle += o.Idle
	c.Taken += o.Taken
	c.Submitted += o.Submitted
	c.LostRingFull += o.LostRingFull
	c.User.add(&o.User)
	c.Kernel.add(&o.Kernel)
	c.Span.Taken += o.Span.Taken
	c.Span.None += o.Span.None
	c.Span.Unreadable += o.Span.Unreadable
	c.Span.Refused += o.Span.Refused
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
	c.Copied += o.Copied
	c.Joined += o.Joined
}

// MapBytes is the memory that the kernel holds for all maps.
func (p *Programs) MapBytes() (uint64, error) {
	var sum uint64
	for _, m := range []*ebpf.Map{p.cpu.Counters, p.cpu.Samples, p.cpu.Scratch, p.cpu.StackTraces, p.cpu.Targets, p.cpu.CgroupMatches, p.cpu.Processes, p.cpu.Arena, p.cpu.Copies, p.cpu.CopyBudgets, p.cpu.Remembered, p.cpu.ProcessChanges, p.exited} {
		if m == nil {
			continue
		}
		info, err := m.Info()
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", m, err)
		}
		bytes, ok := info.Memlock()
		if !ok { // kernels before 6.4 say 0 for a ring: it is its data and a page for each of the two positions
			bytes = uint64(m.MaxEntries()) + 2*uint64(os.Getpagesize())
		}
		sum += bytes
	}
	return sum + p.arena.bytes(), nil
}

// Close detaches and frees everything. It may be called more than once.
func (p *Programs) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	return errors.Join(append(errs, p.arena.close(), p.exited.Close(), p.cpu.Close())...)
}

// maxFrames is the deepest stack that the kernel walks: its setting, if that is
// lower than what a record holds.
func maxFrames() uint32 {
	text, err := os.ReadFile("/proc/sys/kernel/perf_event_max_stack")
	if err != nil {
		return uint32(MaxKernelWalkFrames)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return uint32(MaxKernelWalkFrames)
	}
	return uint32(min(n, MaxKernelWalkFrames))
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
