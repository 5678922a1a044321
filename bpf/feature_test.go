package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Where the kernel is new enough each feature is there, and a second look says the same.
func TestFeatures(t *testing.T) {
	kernel, name, err := upstreamVersion(os.DirFS("/"))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range Features {
		s := info.Feature.Probe()
		since := plainVersion.FindString(info.Since)
		var first release
		if _, err := fmt.Sscanf(since, "%d.%d", &first[0], &first[1]); err != nil {
			t.Errorf("%s: since %q: %v", info.Feature, info.Since, err)
		}
		if kernel.atLeast(first) && s.Answer != Yes {
			t.Errorf("%s should be there on %s: %s, %v", info.Feature, name, s.Answer, s.Err)
		}
		if (s.Answer == Yes) != (s.Err == nil) {
			t.Errorf("%s: %s, %v", info.Feature, s.Answer, s.Err)
		}
		if again := info.Feature.Probe(); again != s {
			t.Errorf("%s: %v, then %v", info.Feature, s, again)
		}
		if info.Use == "" {
			t.Errorf("%+v", info)
		}
	}
	if s := Feature("no_such_feature").Probe(); s.Answer != Inconclusive || s.Err == nil {
		t.Errorf("no such feature: %v", s)
	}
}

// What a probe says is remembered only where it says something of the kernel.
func TestProbeRemembersConclusiveAnswers(t *testing.T) {
	const name Feature = "for_this_test"
	var outcome error
	Features = append(Features, FeatureInfo{Feature: name, probe: func(*btf.Cache) error { return outcome }})
	t.Cleanup(func() {
		Features = Features[:len(Features)-1]
		probed.Delete(name)
	})
	for _, c := range []struct {
		outcome error
		want    Answer
	}{
		{unix.EPERM, Inconclusive},
		{unix.ENOMEM, Inconclusive},
		{fmt.Errorf("no such helper: %w", ebpf.ErrNotSupported), No},
		{nil, No}, // it was remembered
	} {
		outcome = c.outcome
		if got := name.Probe(); got.Answer != c.want {
			t.Errorf("%v: %s, want %s", c.outcome, got.Answer, c.want)
		}
	}
	probed.Delete(name)
	if got := name.Probe(); got.Answer != Yes || got.Err != nil {
		t.Errorf("no error: %v", got)
	}
}

// Programs that the verifier does not know are not there; that it may not look at them says nothing.
func TestTryProgram(t *testing.T) {
	unknown := &ebpf.ProgramSpec{Type: ebpf.PerfEvent, Instructions: asm.Instructions{asm.BuiltinFunc(1 << 20).Call(), asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	if err := tryProgram(unknown, nil); !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("an unknown helper: %v", err)
	}
	nowhere := &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "no_such_tracepoint",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	if err := tryProgram(nowhere, nil); !errors.Is(err, ebpf.ErrNotSupported) {
		t.Errorf("an unknown tracepoint: %v", err)
	}
}

// The table of docs/kernels.md says the same.
func TestFeaturesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/kernels.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			rows++
		}
	}
	if rows != len(Features) {
		t.Errorf("%d rows, %d features", rows, len(Features))
	}
	for _, info := range Features {
		without := info.Fallback
		if without == "" {
			without = "nothing works"
		}
		if row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", info.Feature, info.Since, info.Use, without); !strings.Contains(string(text), row) {
			t.Errorf("no row %s", row)
		}
	}
}

func TestParseFeatures(t *testing.T) {
	got, err := ParseFeatures([]string{"tp_btf", " memcg_accounting"})
	if err != nil || !slices.Equal(got, []Feature{TracepointBTF, MemcgAccounting}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParseFeatures(nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for _, name := range []string{"no_such_feature", "", "ringbuf"} { // the last: no way without
		if _, err := ParseFeatures([]string{"tp_btf", name}); err == nil || !strings.Contains(err.Error(), "bpf_get_current_task_btf") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// fallbackSets are the features of this kernel switched off one by one, and all at once.
func fallbackSets() [][]Feature {
	var all []Feature
	var sets [][]Feature
	for _, info := range Features {
		if info.Fallback != "" && info.Feature.Probe().Answer != No {
			all = append(all, info.Feature)
			sets = append(sets, []Feature{info.Feature})
		}
	}
	return append(sets, all)
}

// The programs load whatever is switched off, with every kind of filter.
func TestLoadWithout(t *testing.T) {
	keepMemlock(t)
	raiseMemlock() // the probes need it on kernels before 5.11
	v2, v1, controller := cgroupMounts(t)
	options := map[string]Options{"targets": {TargetsMayCome: true}, "pid namespace": {TargetsMayCome: true, PIDNamespace: pidNamespace(t)}}
	if v2 != "" {
		options["v2"] = Options{CgroupID: cgroup(t, v2), CgroupLevel: 1}
	}
	if v1 != "" {
		options["v1"] = Options{CgroupID: cgroup(t, v1), CgroupSubsystem: controller}
	}
	for name, o := range options {
		for _, o.Without = range fallbackSets() {
			t.Run(fmt.Sprint(name, o.Without), func(t *testing.T) { load(t, o) })
		}
	}
}

// configured is the sampler's object as Load would load it.
func configured(t *testing.T, o Options) (*ebpf.CollectionSpec, *btf.Spec) {
	t.Helper()
	kernel, err := kernelTypes.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := sampler(o, kernel)
	if err != nil {
		t.Fatal(err)
	}
	return spec, kernel
}

// loadsOnKernelWithout loads the sampler as a kernel would take it that does not know some helpers.
func loadsOnKernelWithout(t *testing.T, o Options, helpers ...asm.BuiltinFunc) error {
	t.Helper()
	spec, kernel := configured(t, o)
	replaced := 0
	for _, prog := range spec.Programs {
		for i, ins := range prog.Instructions {
			if ins.IsBuiltinCall() && slices.Contains(helpers, asm.BuiltinFunc(ins.Constant)) {
				prog.Instructions[i].Constant = 1 << 20 // none has this number
				replaced++
			}
		}
	}
	if replaced == 0 {
		t.Fatalf("the program calls none of %v", helpers)
	}
	// For the log of a refusal the program is verified again, several times where the log is long: a minute on an emulated 5.10.
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel, LogDisabled: true}})
	if err == nil {
		c.Close()
	}
	return err
}

// An old kernel does not know the new helpers: it must never get to see their calls. And
// with them no call of bpf_probe_read_kernel is left, which lockdown=confidentiality refuses.
func TestVerifierDropsTheOtherWay(t *testing.T) {
	keepMemlock(t)
	raiseMemlock() // kernels before 5.11 need it
	plainLoads := CurrentTaskBTF.Probe().Answer == Yes
	v2, v1, controller := cgroupMounts(t)
	newHelpers := []asm.BuiltinFunc{asm.FnGetCurrentTaskBtf, asm.FnGetCurrentAncestorCgroupId}
	options := map[string]Options{"all": {}, "targets": {TargetsMayCome: true}}
	if v2 != "" {
		options["v2"] = Options{CgroupID: cgroup(t, v2), CgroupLevel: 1}
		options["v2 of unknown level"] = Options{CgroupID: cgroup(t, v2)}
	}
	if v1 != "" {
		options["v1"] = Options{CgroupID: cgroup(t, v1), CgroupSubsystem: controller}
	}
	for name, o := range options {
		t.Run(name, func(t *testing.T) {
			if err := loadsOnKernelWithout(t, o, asm.FnProbeReadKernel); (err == nil) != plainLoads {
				t.Errorf("the kernel allows plain loads: %t; without bpf_probe_read_kernel: %v", plainLoads, err)
			}
			if err := loadsOnKernelWithout(t, o, newHelpers...); (err == nil) == plainLoads {
				t.Errorf("the kernel allows plain loads: %t; without the new helpers: %v", plainLoads, err)
			}
			inNamespace := o
			inNamespace.PIDNamespace = pidNamespace(t)
			if err := loadsOnKernelWithout(t, inNamespace, asm.FnProbeReadKernel); err == nil {
				t.Error("bpf_probe_read_kernel is not called for the numbers of a pid namespace")
			}
			o.Without = []Feature{CurrentTaskBTF, AncestorCgroupID}
			if err := loadsOnKernelWithout(t, o, newHelpers...); err != nil {
				t.Errorf("it calls new helpers: %v", err)
			}
			if err := loadsOnKernelWithout(t, o, asm.FnProbeReadKernel); err == nil {
				t.Error("bpf_probe_read_kernel is not called at all")
			}
		})
	}
}

// Of the programs that follow targets, those for kernels with BTF read without a helper.
func TestFollowingReadsWithoutHelper(t *testing.T) {
	spec, err := LoadTargets()
	if err != nil {
		t.Fatal(err)
	}
	for name, prog := range spec.Programs {
		reads := slices.ContainsFunc(prog.Instructions, func(ins asm.Instruction) bool {
			return ins.IsBuiltinCall() && asm.BuiltinFunc(ins.Constant) == asm.FnProbeReadKernel
		})
		if reads != (prog.Type == ebpf.RawTracepoint) {
			t.Errorf("%s, of type %s, reads by a helper: %t", name, prog.Type, reads)
		}
	}
}
