package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/sampler"
)

// answer is what a trial found out; the zero value is inconclusive.
type answer = bpf.Answer

const (
	inconclusive = bpf.Inconclusive
	no           = bpf.No
	yes          = bpf.Yes
)

// trial is something that was tried on the running kernel.
type trial struct {
	answer answer
	err    error // nil for yes
}

// trials are all that was tried.
type trials struct {
	btf, program, array, ring, sampler, follow trial
	cpuClock, sideband, cycles                 trial
	mapFile, otherRoot                         trial
	buildID                                    trial
	features                                   map[bpf.Feature]bpf.Support
}

// conclude reads an outcome. Want of memory, descriptors or time says nothing
// about the machine.
func conclude(err error) trial {
	if err == nil {
		return trial{answer: yes}
	}
	for _, passing := range []error{
		unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.EINTR, unix.EBUSY, unix.ENOSPC, unix.ETIMEDOUT,
		context.Canceled, context.DeadlineExceeded, errNoSubject,
	} {
		if errors.Is(err, passing) {
			return trial{answer: inconclusive, err: err}
		}
	}
	return trial{answer: no, err: err}
}

// errNoSubject says that there was nothing to try it on.
var errNoSubject = errors.New("nothing to try it on")

// try tries everything, one after the other.
func try(ctx context.Context, o Options) trials {
	attempt := func(f func() error) trial {
		if err := ctx.Err(); err != nil {
			return conclude(err)
		}
		return conclude(f())
	}
	kernel := btf.NewCache()
	// First, because it needs a memlock limit that nothing else uses.
	probes := make(map[bpf.Feature]bpf.Support)
	for _, info := range bpf.Features {
		if ctx.Err() == nil {
			probes[info.Feature] = info.Feature.ProbeWith(kernel)
		}
	}
	load := bpf.Options{RingBytes: uint32(os.Getpagesize()), StackEntries: 16, Types: kernel, Without: o.Without} // small, to keep the trials cheap
	load.PIDNamespace, _ = process.PIDNamespace(os.DirFS("/"))
	types := attempt(func() (err error) { load.KernelBTF, err = kernelTypes(o.KernelBTF, kernel); return err })
	return trials{
		features:  probes,
		btf:       types,
		program:   attempt(loadProgram),
		array:     attempt(makeMap),
		ring:      attempt(func() error { return bpf.RingBuffer.Probe().Err }),
		sampler:   attempt(func() error { return attachSampler(load) }),
		follow:    attempt(func() error { return followTargets(load) }),
		cpuClock:  attempt(openCPUClock),
		sideband:  attempt(openSideband),
		cycles:    attempt(openCycles),
		buildID:   attempt(openBuildID),
		mapFile:   attempt(openMapFile),
		otherRoot: attempt(openOtherRoot),
	}
}

func loadProgram() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.PerfEvent,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		return err
	}
	return p.Close()
}

func makeMap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	return m.Close()
}

// kernelTypes reads the kernel's type information from the file, or the kernel's own.
func kernelTypes(file string, kernel *btf.Cache) (*btf.Spec, error) {
	if file != "" {
		return bpf.ReadKernelTypes(file)
	}
	return kernel.Kernel()
}

// attachSampler loads the real sampler and attaches it to events that stay
// disabled: what the verifier and this kernel's types make of it is known in no
// other way.
func attachSampler(o bpf.Options) error {
	s, err := sampler.Open(sampler.Options{Event: sampler.CPUClock, FrequencyHz: 1, BPF: o})
	if err != nil {
		return err
	}
	return s.Close()
}

// followTargets loads and attaches the programs that follow targets, with no
// target to follow.
func followTargets(o bpf.Options) error {
	o.TargetsMayCome = true
	p, err := bpf.Load(o)
	if err != nil {
		return err
	}
	return p.Close()
}

func openCPUClock() error {
	return openEvent(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK})
}

func openCycles() error {
	return openEvent(unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES})
}

// openBuildID asks for build ids in the records of mappings (attr.build_id, bit 34).
func openBuildID() error {
	return openEvent(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Bits: unix.PerfBitMmap2 | 1<<34})
}

// openEvent opens a sampling event on the first CPU and leaves it disabled.
func openEvent(attr unix.PerfEventAttr) error {
	cpus, err := perfevent.OnlineCPUs()
	if err != nil {
		return err
	}
	attr.Sample, attr.Bits = 1, attr.Bits|unix.PerfBitFreq
	attr.Sample_type = unix.PERF_SAMPLE_RAW
	e, err := perfevent.Open(attr, cpus[0])
	if err != nil {
		return err
	}
	return e.Close()
}

// openSideband opens what the agent will: the dummy event on every CPU with
// the mmap2, comm and task records, and its rings.
func openSideband() error {
	poller, err := perfevent.NewPoller()
	if err != nil {
		return err
	}
	defer poller.Close()
	s, err := process.OpenSideband(poller)
	if err != nil {
		return err
	}
	return s.Close()
}

// openMapFile opens the first file that is mapped into ourselves, through the
// kernel's link to it: no more rights than the agent's own are needed, so it is
// the link itself that is tried.
func openMapFile() error {
	const dir = "/proc/self/map_files"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: %w", dir, errNoSubject)
	}
	f, err := os.Open(dir + "/" + entries[0].Name())
	if err != nil {
		return err
	}
	return f.Close()
}

// openOtherRoot looks through the root links of processes that are not ours. One that
// can be seen through is enough: some may be closed to everyone, such as an init that a
// sandbox keeps to itself.
func openOtherRoot() error {
	pids, err := otherProcessIDs()
	if err != nil {
		return err
	}
	first := fmt.Errorf("no other process: %w", errNoSubject)
	found := false
	for _, pid := range pids[:min(len(pids), maxOthers)] {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/root/.")
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist): // it ended, or is a kernel thread on its way out
		case !found:
			first, found = err, true
		}
	}
	return first
}

// maxOthers bounds how many processes are tried.
const maxOthers = 64

func otherProcessIDs() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}
