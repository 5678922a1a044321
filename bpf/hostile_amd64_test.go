package bpf

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where a hostile process has what it shows to a walk: an endless loop, and words in the place of a stack. Every other page of these is not there.
const (
	hostileCode  = 0x10000000
	hostileStack = 0x20000000
	hostileBytes = 1 << 20
	hostilePage  = 4096
)

// hostileThread is its thread pointer, in the middle of the stack.
const hostileThread = hostileStack + hostileBytes/2

// hostileSource is that process. It reads its registers and its stack, and loops.
const hostileSource = `
#include <asm/prctl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	static struct { uint64_t sp, fp, base; char stack[1 << 20]; } in;
	char *code = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	char *stack = mmap((void *)0x20000000, sizeof(in.stack), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (code == MAP_FAILED || stack == MAP_FAILED)
		return 1;
	for (size_t n = 0; n < sizeof(in);) {
		ssize_t got = read(0, (char *)&in + n, sizeof(in) - n);
		if (got <= 0)
			return 1;
		n += got;
	}
	for (size_t i = 0; i < sizeof(in.stack); i++)
		stack[i] = in.stack[i];
	for (size_t i = 4096; i < sizeof(in.stack); i += 8192)
		mprotect(stack + i, 4096, PROT_NONE);
	code[0] = 0xeb, code[1] = 0xfe; /* 1: jmp 1b */
	if (write(1, ".", 1) != 1)
		return 1;
	syscall(SYS_arch_prctl, ARCH_SET_FS, 0x20080000UL);
	__asm__ volatile("mov %0, %%rsp; mov %1, %%rbp; mov %2, %%rbx; jmp *%3"
			 : : "r"(in.sp), "r"(in.fp), "r"(in.base), "a"(code) : "memory");
}
`

// hostileProcess is what a walk meets: registers, words of the stack, and the rules of the code, each for an equal share of its page.
type hostileProcess struct {
	sp, fp, base uint64
	stack        [hostileBytes / 8]uint64
	rules        []UnwindRule
	// span is what of its entry tells where the ids of spans are.
	span Process
}

func (h *hostileProcess) put(address, value uint64) { h.stack[(address-hostileStack)/8] = value }

// Positions in the arena.
const (
	hostileList  = 8
	hostileRules = 16
	hostileIndex = 1 << 19
)

// publish puts the code of the process into the arena.
func (h *hostileProcess) publish(t *testing.T, p *Programs, pid, execID uint32) {
	t.Helper()
	write := func(at uint32, words any) {
		t.Helper()
		bytes, err := binary.Append(nil, binary.NativeEndian, words)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Arena().Write(at, unsafe.Slice((*uint32)(unsafe.Pointer(&bytes[0])), len(bytes)/4)); err != nil {
			t.Fatal(err)
		}
	}
	write(hostileList, CodeRange{
		Start: hostileCode, Frame: uint64(NativeFrame(1, 0)) - hostileCode, Pages: 1, Index: hostileIndex, Rules: hostileRules,
	})
	write(hostileRules, h.rules)
	rows := []uint32{hostileIndex + 2, hostileIndex + 2 + uint32(len(h.rules))}
	for i := range h.rules {
		const table = 7 << 17
		rows = append(rows, uint32(i*hostilePage/len(h.rules))<<20|table|uint32(i))
	}
	write(hostileIndex, rows)
	entry := h.span
	entry.Tgid, entry.ExecId, entry.Generation, entry.Ranges, entry.Count = pid, execID, 1, hostileList, 1
	if err := p.PutProcess(entry); err != nil {
		t.Fatal(err)
	}
}

// start lets the process run, until the test has ended, and gives its number and what lets p sample it at least n times.
func (h *hostileProcess) start(t *testing.T, p *Programs, program string) (pid uint32, sampled func(n uint64), stop func()) {
	t.Helper()
	cmd := exec.Command(program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, words := range []any{h.sp, h.fp, h.base, h.stack[:]} {
		if err := binary.Write(in, binary.NativeEndian, words); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatalf("the process did not begin: %v", err)
	}

	event, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample: 1e6, Sample_type: unix.PERF_SAMPLE_RAW, Bits: unix.PerfBitDisabled,
	}, cmd.Process.Pid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { _ = unix.Close(event); _ = cmd.Process.Kill(); _ = cmd.Wait() }
	control := func(request uint, value int) {
		t.Helper()
		if err := unix.IoctlSetInt(event, request, value); err != nil {
			t.Fatal(err)
		}
	}
	control(unix.PERF_EVENT_IOC_SET_BPF, p.OnSample().FD())
	sampled = func(n uint64) {
		t.Helper()
		before, err := p.Counters()
		if err != nil {
			t.Fatal(err)
		}
		control(unix.PERF_EVENT_IOC_ENABLE, 0)
		defer control(unix.PERF_EVENT_IOC_DISABLE, 0)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			now, err := p.Counters()
			if err != nil {
				t.Fatal(err)
			}
			if now.Taken-before.Taken >= n {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("no %d samples within 10 s", n)
			}
		}
	}
	return uint32(cmd.Process.Pid), sampled, stop
}

// startPublished starts the process, and tells the programs of its code by the exec id of its first sample.
func (h *hostileProcess) startPublished(t *testing.T, p *Programs, program string) (pid, execID uint32, ring *Ring, sampled func(n uint64), stop func()) {
	t.Helper()
	pid, sampled, end := h.start(t, p, program)
	ring, err := NewRing(p.Samples())
	if err != nil {
		end()
		t.Fatal(err)
	}
	sampled(1)
	ring.Samples(func(s *Sample) { execID = s.ExecId })
	h.publish(t, p, pid, execID)
	return pid, execID, ring, sampled, func() { _ = ring.Close(); end() }
}

// run samples the process, and gives what the last walk on each CPU was, and how long the program took on average.
func (h *hostileProcess) run(t *testing.T, p *Programs, program string) (walks []CpuScratch, each time.Duration) {
	t.Helper()
	pid, _, ring, sampled, stop := h.startPublished(t, p, program)
	defer stop()
	defer func() {
		if err := p.DeleteProcess(pid); err != nil {
			t.Error(err)
		}
	}()
	before, err := p.OnSample().Stats()
	if err != nil {
		t.Fatal(err)
	}
	sampled(20)
	after, err := p.OnSample().Stats()
	if err != nil {
		t.Fatal(err)
	}
	ring.Samples(func(s *Sample) {
		if s.Generation != 1 {
			t.Error("a stack was not walked by what was published")
		}
	})
	var perCPU []CpuScratch
	if err := p.cpu.Scratch.Lookup(uint32(0), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, s := range perCPU {
		if s.Walk.Process.Tgid == pid {
			walks = append(walks, s)
		}
	}
	if len(walks) == 0 {
		t.Fatal("no CPU has walked the stack of the process")
	}
	return walks, (after.Runtime - before.Runtime) / time.Duration(after.RunCount-before.RunCount)
}

func buildHostile(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "hostile")
	gcc := exec.Command("gcc", "-O1", "-fomit-frame-pointer", "-x", "c", "-o", program, "-")
	gcc.Stdin = strings.NewReader(hostileSource)
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", gcc, err, out)
	}
	return program
}

// A stack of which nothing can be read says so, and not that there were too many.
func TestUnreadableCopy(t *testing.T) {
	h := &hostileProcess{sp: hostileStack + 2*hostilePage - 1 + 1<<30}
	for want, limit := range map[Reason]uint32{ReasonStackUnreadable: 1000, ReasonColdLimited: 0} {
		p := load(t, Options{Walks: true, CopiesPerSecond: limit})
		_, sampled, stop := h.start(t, p, buildHostile(t))
		defer stop()
		sampled(20)
		ring, err := NewRing(p.Samples())
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		got := make(map[Reason]int)
		if n := ring.Samples(func(s *Sample) { got[Reason(s.UserReason)]++ }); got[want] != n {
			t.Errorf("%d copies allowed: %v, want %s for all of %d", limit, got, want, n)
		}
	}
}

// What is published for a process while a walk goes by what was published before makes that walk stale: it says so, and keeps the leaf alone. The memory that it
// went by may be another list's by then, as here.
func TestRepublishedDuringWalk(t *testing.T) {
	// A walk as long as there is, so that most of what is published comes during one.
	h := &hostileProcess{sp: hostileStack, rules: []UnwindRule{{
		Kind: uint8(CpuRuleKindRULE_SIGNAL_FRAME), Ra: UnwindSaved{Kind: uint8(CpuRuleSavedRULE_AT_CFA), Offset: 8},
	}}}
	for i := range h.stack {
		h.stack[i] = hostileCode + 8
	}
	p := load(t, Options{Walks: true})
	if err := p.Arena().Grow(); err != nil {
		t.Fatal(err)
	}
	pid, execID, ring, sampled, stop := h.startPublished(t, p, buildHostile(t))
	defer stop()
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for generation := uint32(2); ; generation++ {
			select {
			case <-ending:
				return
			default:
			}
			if err := p.PutProcess(Process{Tgid: pid, ExecId: execID, Generation: generation, Ranges: hostileList, Count: 1}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	stacks, err := NewStackTraces(p.StackTraces(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var stale, walked int
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && (stale < 100 || walked < 1); {
		sampled(100)
		ring.Samples(func(s *Sample) {
			frames, err := stacks.Append(nil, s.UserStack)
			switch {
			case err != nil:
				t.Errorf("a stack with the reason %s: %v", Reason(s.UserReason), err)
			case Reason(s.UserReason) == ReasonStaleMapping && s.Generation == 0 && len(frames) == 1 && frames[0] == RawFrame(hostileCode):
				stale++
			case Reason(s.UserReason) == ReasonMaxDepth && s.Generation != 0 && len(frames) == MaxStackFrames:
				walked++
			case Reason(s.UserReason) == ReasonColdLimited && s.Generation == 0: // an entry was read while it was replaced
			default:
				t.Errorf("generation %d, %s, %d frames: %v", s.Generation, Reason(s.UserReason), len(frames), frames[:min(4, len(frames))])
			}
		})
	}
	close(ending)
	<-ended
	t.Logf("%d walks were stale, %d were not", stale, walked)
	if stale < 100 {
		t.Errorf("%d walks were stale", stale)
	}
}

// Whatever a process has in its registers and on its stack, and even whatever the rules of its code are, a sample of it costs one walk of so many frames,
// each of so many reads of the stack, and ends.
func TestHostileProcess(t *testing.T) {
	program := buildHostile(t)
	statistics, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatalf("BPF statistics (these tests need root): %v", err)
	}
	defer statistics.Close()
	p := load(t, Options{Walks: true})
	if err := p.Arena().Grow(); err != nil {
		t.Fatal(err)
	}

	atCFA := func(offset int32) UnwindSaved {
		return UnwindSaved{Kind: uint8(CpuRuleSavedRULE_AT_CFA), Offset: offset}
	}
	atBase := func(offset int32) UnwindSaved {
		return UnwindSaved{Kind: uint8(CpuRuleSavedRULE_AT_BASE), Base: uint8(RuleBase), Offset: offset}
	}
	step, signal := uint8(CpuRuleKindRULE_STEP), uint8(CpuRuleKindRULE_SIGNAL_FRAME)
	const caller = hostileCode + 8
	const last = hostilePage - 8 // word of a page, behind which nothing is
	full := func(h *hostileProcess) *hostileProcess {
		for i := range h.stack {
			h.stack[i] = caller
		}
		return h
	}
	// The frame's address, the return address and both registers lie in four pages, each at the end, and lead to themselves.
	scattered := func() *hostileProcess {
		h := &hostileProcess{sp: hostileStack, fp: hostileStack + last, base: hostileStack, rules: []UnwindRule{{
			Kind: signal, Cfa: uint8(CpuRuleCfaRULE_CFA_MEMORY), CfaBase: uint8(RuleFP),
			Ra: atCFA(2*hostilePage + last), Fp: atCFA(4*hostilePage + last), Base: atBase(6*hostilePage + last),
		}}}
		h.put(hostileStack+last, hostileStack)
		h.put(hostileStack+2*hostilePage+last, caller)
		h.put(hostileStack+4*hostilePage+last, hostileStack+last)
		h.put(hostileStack+6*hostilePage+last, hostileStack)
		return h
	}
	cases := []struct {
		name    string
		process *hostileProcess
		frames  uint32
		reason  Reason
	}{
		{"a stack beyond memory", &hostileProcess{sp: 1 << 62, rules: []UnwindRule{{Kind: step, Offset: 16, Ra: atCFA(-8)}}}, 1, ReasonStackUnreadable},
		{"a stack of the kernel", &hostileProcess{sp: 0xffff888000000000, rules: []UnwindRule{{Kind: step, Offset: 16, Ra: atCFA(-8)}}}, 1, ReasonStackUnreadable},
		{"a stack where nothing is", &hostileProcess{sp: hostileStack + hostilePage, rules: []UnwindRule{{Kind: step, Offset: 16, Ra: atCFA(-8)}}}, 1, ReasonStackUnreadable},
		{"a stack that ends", full(&hostileProcess{sp: hostileStack, rules: []UnwindRule{{Kind: step, Offset: 16, Ra: atCFA(-8)}}}), hostilePage/16 + 1, ReasonStackUnreadable},
		{"a frame that is its own caller", full(&hostileProcess{sp: hostileStack, rules: []UnwindRule{{Kind: step, Ra: atCFA(8)}}}), 2, ReasonNotAdvancing},
		{"signals without end", full(&hostileProcess{sp: hostileStack, rules: []UnwindRule{{Kind: signal, Ra: atCFA(8)}}}), uint32(MaxStackFrames), ReasonMaxDepth},
		{"reads all over the stack", scattered(), uint32(MaxStackFrames)/hostileReads + 1, ReasonStackUnreadable},
	}
	var slowest time.Duration
	var most float64
	check := func(t *testing.T, h *hostileProcess) []CpuScratch {
		t.Helper()
		walks, each := h.run(t, p, program)
		for _, s := range walks {
			w := &s.Walk
			most = max(most, float64(w.Reads)/float64(max(1, w.Frames)))
			if w.Frames > uint32(MaxStackFrames) || w.Reads > hostileReads*w.Frames {
				t.Errorf("%d reads for %d frames", w.Reads, w.Frames)
			}
		}
		slowest = max(slowest, each)
		return walks
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			slowest, most = 0, 0
			for _, s := range check(t, c.process) {
				if w := &s.Walk; w.Frames != c.frames || Reason(w.Reason) != c.reason {
					t.Errorf("%d frames, %s; want %d, %s", w.Frames, Reason(w.Reason), c.frames, c.reason)
				}
			}
			t.Logf("a sample took %v, and a frame %.1f reads", slowest, most)
		})
	}
	t.Run("random", func(t *testing.T) {
		slowest, most = 0, 0
		ends, deepest := make(map[Reason]int), uint32(0)
		for seed := range uint64(40) {
			for _, s := range check(t, randomProcess(rand.New(rand.NewPCG(seed, 0)))) {
				ends[Reason(s.Walk.Reason)]++
				deepest = max(deepest, s.Walk.Frames)
			}
		}
		t.Logf("a sample took %v at most, and a frame %.1f reads; up to %d frames; ends: %v", slowest, most, deepest, ends)
		if deepest < uint32(MaxStackFrames) {
			t.Error("no walk was long: the test does not try any")
		}
	})
}

// hostileReads are those that a rule can tell of: where the frame is, the return address and two registers.
const hostileReads = 4

// randomProcess has any rules and any stack, but most of them go together, so that walks are long: of two words the first leads to the stack, the
// second to code.
func randomProcess(r *rand.Rand) *hostileProcess {
	h := &hostileProcess{rules: make([]UnwindRule, 1+r.IntN(64))}
	odd := func() bool { return r.IntN(2000) == 0 }
	address := func() uint64 { // where a page is
		return hostileStack + r.Uint64N(hostileBytes/hostilePage/2)*2*hostilePage + 512 + r.Uint64N((hostilePage-1024)/16)*16
	}
	for i := range h.stack {
		switch {
		case odd():
			h.stack[i] = r.Uint64() >> r.IntN(64)
		case i%2 == 0:
			h.stack[i] = address()
		default:
			h.stack[i] = hostileCode + 1 + r.Uint64N(hostilePage-1)
		}
	}
	h.sp, h.fp, h.base = address(), address(), address()
	one := func(n int, of ...uint8) uint8 { // of these, and rarely of so many
		if odd() {
			return uint8(r.IntN(n))
		}
		return of[r.IntN(len(of))]
	}
	offset := func() int32 {
		if odd() {
			return int32(r.Uint32())
		}
		return int32(r.IntN(16)-8) * 16
	}
	unchanged, atCFA, atBase := uint8(CpuRuleSavedRULE_UNCHANGED), uint8(CpuRuleSavedRULE_AT_CFA), uint8(CpuRuleSavedRULE_AT_BASE)
	for i := range h.rules {
		saved := func(kinds ...uint8) UnwindSaved {
			return UnwindSaved{Kind: one(5, kinds...), Base: one(5, 0, 1, 2), Offset: offset()}
		}
		h.rules[i] = UnwindRule{
			Kind: one(6, uint8(CpuRuleKindRULE_SIGNAL_FRAME), uint8(CpuRuleKindRULE_STACK_SWITCH)),
			Cfa:  one(4, uint8(CpuRuleCfaRULE_CFA_MEMORY)), CfaBase: one(5, 0, 1, 2), Offset: offset(), Add: offset(),
			Ra: saved(atCFA, atBase), Fp: saved(unchanged, atCFA, atBase), Base: saved(unchanged, atCFA, atBase),
		}
		h.rules[i].Ra.Offset += 8
	}
	return h
}
