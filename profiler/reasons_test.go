package profiler

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// A provocation brings a reason about, on real processes.
type provocation struct {
	run func(t *testing.T, program string) sampled
	// least is the share of samples that must show the reason, 0: some.
	least float64
}

var provocations = map[bpf.Reason]provocation{
	bpf.ReasonRingFull:         {fullRing, 0},
	bpf.ReasonBadRecord:        {badRecords, 0},
	bpf.ReasonStackMapFull:     {fullStackMap, 0},
	bpf.ReasonStackEvicted:     {smallStackMap, 0},
	bpf.ReasonUserUnreadable:   {kernelWalk(noCallChains("burn")), 0.2},
	bpf.ReasonKernelUnreadable: {noCallChains("kernel"), 0.2},
	bpf.ReasonMaxDepth:         {workload("abyss"), 0.5}, // before, stacks are copied, of which only the inner frames are there
	bpf.ReasonUnmappedPC:       {workload("astray"), 0.9},
	bpf.ReasonNoTable:          {untold, 0.9},
	bpf.ReasonTablePending:     {largeTable, 0.1},
	bpf.ReasonNoRule:           {workload("bare"), 0.9},
	bpf.ReasonUnknownRegister:  {workload("based"), 0.9}, // stacks that are copied are walked with rbx as it is
	bpf.ReasonStackUnreadable:  {workload("lost"), 0.9},
	bpf.ReasonNotAdvancing:     {workload("back"), 0.9},
	bpf.ReasonCompatTask:       {workload("compat"), 0.9},
	bpf.ReasonColdLimited:      {smallCopyRing, 0.2},
	bpf.ReasonStaleMapping:     {heldSamples, 0},
	bpf.ReasonProcessUnknown:   {lostRecords, 0},
	bpf.ReasonFileGone:         {removedFile, 0},
	bpf.ReasonFileUnreadable:   {workload("nonelf"), 0.9},
	bpf.ReasonNoSymbol:         {workload("jit"), 0.9},
}

// Every reason there is shows where a user looks for it, and nothing is missing from the account meanwhile.
func TestReasons(t *testing.T) {
	program := buildReasons(t)
	for r := bpf.ReasonNone + 1; int(r) < bpf.ReasonCount; r++ {
		if slices.Contains(bpf.HistoryReasons, r) {
			continue
		}
		t.Run(r.String(), func(t *testing.T) {
			p, ok := provocations[r]
			if !ok {
				t.Fatal("nothing brings it about")
			}
			s := p.run(t, program)
			s.conserved(t)
			shown, of := s.shown(r), s.stats.Exported
			t.Logf("%d of %d samples", shown, of)
			if shown == 0 || of < 20 || float64(shown) < p.least*float64(of) {
				t.Errorf("%d of %d samples show %s: %v", shown, of, r, s.incomplete())
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		s := workload("burn")(t, program)
		for reason, n := range s.incomplete() {
			// libc's caller of main is a local function: without debug files it has no name.
			if reason != bpf.ReasonNoSymbol.String() && n > s.stats.Exported/20 {
				t.Errorf("%d of %d samples show %s", n, s.stats.Exported, reason)
			}
		}
	})
}

// shown is how often the profiles give the reason: for samples that were lost, or for what they lack.
func (s *sampled) shown(r bpf.Reason) uint64 {
	n := s.incomplete()[r.String()]
	for _, p := range s.profiles {
		for _, l := range p.Account.Lost {
			if l.Reason == r.String() {
				n += l.Count
			}
		}
	}
	return n
}

// workload samples a mode of reasons.c that needs nothing more.
func workload(mode string) func(*testing.T, string) sampled {
	return func(t *testing.T, program string) sampled {
		file := filepath.Join(t.TempDir(), "code")
		args := []string{mode}
		if mode == "nonelf" {
			args = append(args, file)
		}
		return sampleWhile(t, Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, args...)}}}, enough(t, 0))
	}
}

// enough waits for a time and for some hundred samples, however long these take on a busy machine.
func enough(t *testing.T, least time.Duration) func(*Profiler) {
	return func(p *Profiler) {
		time.Sleep(least)
		waitFor(t, p, func(c *bpf.Counters) bool { return c.Taken >= 300 })
	}
}

// waitFor waits for the counters to say something.
func waitFor(t *testing.T, p *Profiler, reached func(*bpf.Counters) bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		s, err := p.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if reached(&s.BPF) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not reached within a minute: %+v", s.BPF)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// heldUp is a reader that stands still five sixths of the time.
func heldUp(c Config) Config {
	c.Interval = 100 * time.Millisecond
	c.Sink = func(*profile.Profile) { time.Sleep(500 * time.Millisecond) }
	return c
}

// A ring of a few records overflows while the reader is held up.
func fullRing(t *testing.T, program string) sampled {
	return sampleWhile(t, heldUp(Config{FrequencyHz: 4999, RingBytes: 4096,
		Target: Target{PIDs: []int{start(t, program, "burn")}}}), enough(t, time.Second))
}

// Records of another size than a sample's and a stack's are in the rings among the real ones.
func badRecords(t *testing.T, program string) sampled {
	const foreign = 100
	c := Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, "burn")}}}
	s := sampleWhile(t, c, func(*Profiler) {
		var short []*ebpf.Program
		for _, ring := range []string{"samples", "copies"} {
			short = append(short, newProgram(t, &ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: asm.Instructions{
				asm.StoreImm(asm.RFP, -4, 0, asm.Word),
				asm.LoadMapPtr(asm.R1, ownMap(t, ring).FD()),
				asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.Mov.Imm(asm.R3, 4), asm.Mov.Imm(asm.R4, 0),
				asm.FnRingbufOutput.Call(),
				asm.Return(),
			}}))
		}
		for range foreign {
			for _, p := range short {
				if refused, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil || refused != 0 {
					t.Fatalf("write a short record: %d, %v", int32(refused), err)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	s.foreign = foreign
	if samples, copies := s.stats.Lost(bpf.ReasonBadRecord), s.stats.BadCopies; samples != foreign || copies != foreign {
		t.Errorf("%d bad records counted and %d bad copies, of each %d were written", samples, copies, foreign)
	}
	return s
}

// A table of 64 stacks cannot hold thousands: samples stay, stacks are lost and counted.
func smallStackMap(t *testing.T, program string) sampled {
	s := sampleWhile(t, Config{FrequencyHz: 4999, StackEntries: 64,
		Target: Target{PIDs: []int{start(t, program, "stacks")}}}, enough(t, time.Second))
	if shown, lost := s.shown(bpf.ReasonStackEvicted), s.stats.Naming.StacksLost; shown > lost {
		t.Errorf("%d samples without a stack, %d stacks lost", shown, lost)
	}
	return s
}

// A full stack_traces gives way, but an element that another CPU has taken and not yet put in again cannot be
// had. There is only one, and a program of the test takes it without end, until the sampler came too late.
func fullStackMap(t *testing.T, program string) sampled {
	c := Config{FrequencyHz: 49999, StackEntries: 1, Target: Target{PIDs: []int{start(t, program, "deep")}}}
	s := sampleWhile(t, c, func(p *Profiler) {
		writer := newProgram(t, &ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: writeStack(ownMap(t, "stack_traces"))})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := writer.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: 10000}); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		defer func() { close(stop); <-stopped }()
		waitFor(t, p, func(c *bpf.Counters) bool { return c.Taken >= 300 && c.User.MapFull+c.Kernel.MapFull > 0 })
	})
	if shown, refused := s.shown(bpf.ReasonStackMapFull), s.stats.BPF.User.MapFull+s.stats.BPF.Kernel.MapFull; shown > refused {
		t.Errorf("%d samples without a stack, %d stacks refused", shown, refused)
	}
	return s
}

// writeStack puts an empty stack in under a random key.
func writeStack(stacks *ebpf.Map) asm.Instructions {
	key, value := int16(-8), -8-int16(stacks.ValueSize())
	code := asm.Instructions{
		asm.FnGetPrandomU32.Call(),
		asm.StoreMem(asm.RFP, key, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
	}
	for at := value; at < key; at += 8 {
		code = append(code, asm.StoreMem(asm.RFP, at, asm.R0, asm.DWord))
	}
	return append(code,
		asm.LoadMapPtr(asm.R1, stacks.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, int32(key)),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, int32(value)),
		asm.Mov.Imm(asm.R4, int32(ebpf.UpdateAny)),
		asm.FnMapUpdateElem.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
}

// kernelWalk samples as on a kernel that programs must not read user memory on: the kernel walks user stacks there. What
// tells the kernel's version is another file for this goroutine, whose thread ends with it.
func kernelWalk(run func(*testing.T, string) sampled) func(*testing.T, string) sampled {
	return func(t *testing.T, program string) sampled {
		runtime.LockOSThread()
		version := filepath.Join(t.TempDir(), "version")
		if err := os.WriteFile(version, []byte("Linux version 6.1.0-7-amd64 () #1 SMP PREEMPT_DYNAMIC Debian 6.1.20-1 (2023-03-19)\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Fatalf("unshare (these tests need root): %v", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(version, "/proc/version", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if lockup := bpf.UsercopyLockup(os.DirFS("/")); lockup.Answer == bpf.No {
			t.Fatalf("the kernel is taken for another still: %s", lockup.Why)
		}
		return run(t, program)
	}
}

// A shared library without any table.
func untold(t *testing.T, program string) sampled {
	library := filepath.Join(t.TempDir(), "untold.so")
	gcc := exec.Command("gcc", "-shared", "-nostdlib", "-x", "assembler", "-o", library, "-")
	gcc.Stdin = strings.NewReader(".globl untold\n.type untold,@function\nuntold: dec %edi\njnz untold\nret\n")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", gcc, err, out)
	}
	return sampleWhile(t, Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, "untold", library)}}}, enough(t, 0))
}

// A program that tells of one more function, whose frame changes with each of its 8 million instructions: that takes
// several times longer to compile than a sample waits.
func largeTable(t *testing.T, _ string) sampled {
	return workload("burn")(t, buildReasons(t, "-Wa,--defsym,instructions=8388608", "testdata/rows.s"))
}

// Copies of the stacks of new processes do not fit into a ring of a few, while the reader is held up.
func smallCopyRing(t *testing.T, program string) sampled {
	return sampleWhile(t, heldUp(Config{FrequencyHz: 997, CopyBytes: 16 << 10,
		Target: Target{PIDs: []int{start(t, program, "execs")}, Children: true}}), enough(t, time.Second))
}

// noCallChains lets the sampler's program run from more events, for which the kernel walks no stack.
func noCallChains(mode string) func(*testing.T, string) sampled {
	return func(t *testing.T, program string) sampled {
		c := Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, mode)}}}
		s := sampleWhile(t, c, func(p *Profiler) {
			onSample := ownProgram(t, "on_sample")
			cpus, err := perfevent.OnlineCPUs()
			if err != nil {
				t.Fatal(err)
			}
			for _, cpu := range cpus {
				e, err := perfevent.Open(unix.PerfEventAttr{
					Type:             unix.PERF_TYPE_SOFTWARE,
					Config:           unix.PERF_COUNT_SW_CPU_CLOCK,
					Sample:           499,
					Sample_type:      unix.PERF_SAMPLE_CALLCHAIN,
					Sample_max_stack: 8,
					Bits:             unix.PerfBitFreq | unix.PerfBitExcludeCallchainKernel | unix.PerfBitExcludeCallchainUser,
				}, cpu)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				if err := e.SetBPF(onSample.FD()); err != nil {
					t.Fatal(err)
				}
				if err := e.Enable(); err != nil {
					t.Fatal(err)
				}
			}
			enough(t, 0)(p)
		})
		for r, counted := range map[bpf.Reason]uint64{
			bpf.ReasonUserUnreadable:   s.stats.BPF.User.Unreadable,
			bpf.ReasonKernelUnreadable: s.stats.BPF.Kernel.Unreadable,
		} {
			if shown := s.shown(r); shown != counted {
				t.Errorf("%s: %d samples show it, %d were counted", r, shown, counted)
			}
		}
		return s
	}
}

// A record that is still being written holds up all samples behind it, while what happens to processes goes
// on being known: code that was replaced too often since cannot be told any more.
func heldSamples(t *testing.T, program string) sampled {
	file := filepath.Join(t.TempDir(), "code")
	c := Config{FrequencyHz: 499, Target: Target{PIDs: []int{start(t, program, "remap", file)}}}
	return sampleWhile(t, c, func(p *Profiler) {
		time.Sleep(time.Second) // until the code is published: of stacks that are copied, nothing is kept so long
		release := reserve(t, ownMap(t, "samples"))
		defer release()
		enough(t, time.Second)(p)
	})
}

// Records of forks are lost while the reader is held up, and the children are gone when it comes.
func lostRecords(t *testing.T, program string) sampled {
	s := sampleWhile(t, heldUp(Config{FrequencyHz: 997,
		Target: Target{PIDs: []int{start(t, program, "storm")}, Children: true}}), enough(t, time.Second))
	if s.stats.Table.RecordsLost == 0 {
		t.Error("no record of processes was lost")
	}
	return s
}

// A file is removed and unmapped before the reader, held up, can open it.
func removedFile(t *testing.T, program string) sampled {
	file := filepath.Join(t.TempDir(), "code")
	return sampleWhile(t, heldUp(Config{FrequencyHz: 499,
		Target: Target{PIDs: []int{start(t, program, "gone", file)}}}), enough(t, time.Second))
}

// reserve takes a record of the ring and keeps it unwritten: a program waits in it for a page that comes with release.
func reserve(t *testing.T, ring *ebpf.Map) (release func()) {
	t.Helper()
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	address := uint64(uintptr(unsafe.Pointer(&page[0])))
	faults := holdPage(t, address, uint64(len(page)))
	holder := newProgram(t, &ebpf.ProgramSpec{Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, Instructions: asm.Instructions{
		asm.LoadMapPtr(asm.R1, ring.FD()), asm.Mov.Imm(asm.R2, 8), asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R0), asm.Mov.Imm(asm.R2, 8), asm.LoadImm(asm.R3, int64(address), asm.DWord),
		asm.FnCopyFromUser.Call(),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0),
		asm.FnRingbufDiscard.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}})
	done := make(chan error)
	go func() {
		_, err := holder.Run(nil)
		done <- err
	}()
	return func() {
		if err := unix.Close(faults); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("hold a record: %v", err)
		}
		if err := unix.Munmap(page); err != nil {
			t.Error(err)
		}
	}
}

// holdPage makes whoever reads the memory wait until the descriptor is closed (userfaultfd).
func holdPage(t *testing.T, address, size uint64) int {
	t.Helper()
	const (
		uffdAPI             = 0xaa
		uffdioAPI           = 0xc018aa3f
		uffdioRegister      = 0xc020aa00
		registerModeMissing = 1
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	api := [3]uint64{uffdAPI}                               // api, features, ioctls
	region := [4]uint64{address, size, registerModeMissing} // start, len, mode, ioctls
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api))); errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uffdioRegister, uintptr(unsafe.Pointer(&region))); errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	return int(fd)
}

// newProgram loads a program of the test's own.
func newProgram(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	spec.License = "GPL"
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// ownMap and ownProgram open what the running sampler of this process holds.
func ownMap(t *testing.T, name string) *ebpf.Map {
	t.Helper()
	for _, id := range ownIDs(t, "map_id:") {
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := m.Info(); err == nil && info.Name == name {
			t.Cleanup(func() { _ = m.Close() })
			return m
		}
		_ = m.Close()
	}
	t.Fatalf("no map %s is open", name)
	return nil
}

func ownProgram(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	for _, id := range ownIDs(t, "prog_id:") {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := p.Info(); err == nil && info.Name == name {
			t.Cleanup(func() { _ = p.Close() })
			return p
		}
		_ = p.Close()
	}
	t.Fatalf("no program %s is open", name)
	return nil
}

// ownIDs are the ids of BPF objects behind this process's descriptors.
func ownIDs(t *testing.T, field string) (ids []uint32) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the directory's own, closed by now
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, field); ok {
				id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids
}
