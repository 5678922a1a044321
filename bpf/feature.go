package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Feature is something of BPF that one kernel has and another lacks, by the
// name that the kernel's sources give it.
type Feature string

// The features that are used.
const (
	RingBuffer       Feature = "ringbuf"
	TracepointBTF    Feature = "tp_btf"
	CurrentTaskBTF   Feature = "bpf_get_current_task_btf"
	MemcgAccounting  Feature = "memcg_accounting"
	AncestorCgroupID Feature = "bpf_get_current_ancestor_cgroup_id"
	TaskPtRegs       Feature = "bpf_task_pt_regs"
)

// FeatureInfo says what a feature is for.
type FeatureInfo struct {
	Feature Feature
	// Since is the first kernel that has it, as a rule: distributions put features into older ones.
	Since string
	// Use is what it serves.
	Use string
	// Fallback is what is done without it and what that costs; "" where there is no other way.
	Fallback string

	// probe reads the kernel's types, where it needs them, through a cache; nil means one of its own.
	probe func(types *btf.Cache) error
}

// Features are all of them, the oldest first. docs/kernels.md shows the same table.
var Features = []FeatureInfo{
	{
		Feature: TracepointBTF, Since: "5.5", Use: "following forks and exits of targets",
		Fallback: "raw tracepoints, which lockdown=confidentiality forbids",
		probe:    probeTracepointBTF,
	},
	{
		Feature: RingBuffer, Since: "5.8", Use: "the way of samples to user space",
		probe: func(*btf.Cache) error { return features.HaveMapType(ebpf.RingBuf) },
	},
	{
		Feature: CurrentTaskBTF, Since: "5.11", Use: "reading the running task by plain loads",
		Fallback: "bpf_probe_read_kernel, which takes longer and which lockdown=confidentiality forbids",
		probe:    probeCurrentTaskBTF,
	},
	{
		Feature: MemcgAccounting, Since: "5.11", Use: "BPF memory that counts against the cgroup",
		Fallback: "a raised memlock limit, which takes CAP_SYS_RESOURCE",
		probe:    probeMemcgAccounting,
	},
	{
		Feature: AncestorCgroupID, Since: "5.14", Use: "the filter of a cgroup v2 target",
		Fallback: "a walk up the cgroups, whose answers are remembered in a map: a look-up for each sample",
		probe:    helper(asm.FnGetCurrentAncestorCgroupId),
	},
	{
		Feature: TaskPtRegs, Since: "5.15", Use: "user registers of a task that is in the kernel",
		Fallback: "reading them from the end of its kernel stack by bpf_probe_read_kernel, which lockdown=confidentiality forbids",
		probe:    helper(asm.FnTaskPtRegs),
	},
}

// Info finds what there is to say of a feature; nil where it is none of Features.
func (f Feature) Info() *FeatureInfo {
	i := slices.IndexFunc(Features, func(info FeatureInfo) bool { return info.Feature == f })
	if i < 0 {
		return nil
	}
	return &Features[i]
}

// ParseFeatures reads names of features that can be done without.
func ParseFeatures(names []string) ([]Feature, error) {
	var parsed []Feature
	for _, name := range names {
		f := Feature(strings.TrimSpace(name))
		if info := f.Info(); info == nil || info.Fallback == "" {
			return nil, fmt.Errorf("feature %q: nothing of this name has a fallback; want one or more of %s", name, strings.Join(fallbackNames(), ", "))
		}
		parsed = append(parsed, f)
	}
	return parsed, nil
}

func fallbackNames() (names []string) {
	for _, info := range Features {
		if info.Fallback != "" {
			names = append(names, string(info.Feature))
		}
	}
	return names
}

// Support is the outcome of a probe.
type Support struct {
	Answer Answer
	// Err is why not, or what the probe failed of; nil for Yes.
	Err error
}

// probed holds the conclusive answers.
var probed sync.Map // Feature -> Support

// Probe tries the feature on the running kernel. Conclusive answers are
// remembered; a probe that was refused, or for which memory was lacking, says nothing about
// the kernel and is made anew. Safe for concurrent use.
func (f Feature) Probe() Support { return f.ProbeWith(nil) }

// ProbeWith is Probe for callers that need the kernel's types for other things as well.
func (f Feature) ProbeWith(types *btf.Cache) Support {
	if s, ok := probed.Load(f); ok {
		return s.(Support)
	}
	info := f.Info()
	if info == nil {
		return Support{Err: fmt.Errorf("feature %q: there is no such feature", f)}
	}
	s := Support{Answer: Yes, Err: info.probe(types)}
	if errors.Is(s.Err, ebpf.ErrNotSupported) {
		s.Answer = No
	} else if s.Err != nil {
		s.Answer = Inconclusive
	}
	if s.Answer != Inconclusive {
		probed.Store(f, s)
	}
	return s
}

func helper(f asm.BuiltinFunc) func(*btf.Cache) error {
	return func(*btf.Cache) error { return features.HaveProgramHelper(ebpf.PerfEvent, f) }
}

// tryProgram loads a program. The verifier's EINVAL is what it says to things that it does not know.
func tryProgram(spec *ebpf.ProgramSpec, types *btf.Cache) error {
	spec.License = "Dual BSD/GPL"
	c, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"try": spec}}, ebpf.CollectionOptions{Cache: types})
	switch {
	case err == nil:
		c.Close()
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, btf.ErrNotFound):
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	return err
}

// probeTracepointBTF fails where the kernel has no BTF of its own: it names the tracepoint by a BTF id.
func probeTracepointBTF(types *btf.Cache) error {
	return tryProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_fork",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	}, types)
}

// probeCurrentTaskBTF also loads from the task: it is the load, not the call, that a kernel without BTF refuses.
func probeCurrentTaskBTF(types *btf.Cache) error {
	return tryProgram(&ebpf.ProgramSpec{Type: ebpf.PerfEvent, Instructions: asm.Instructions{
		asm.FnGetCurrentTaskBtf.Call(),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word), // thread_info.flags
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}}, types)
}
