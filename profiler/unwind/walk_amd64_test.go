// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
	"github.com/pilotlight/pilotlight/symbolizer/pclntab"
)

// A tracee is a process that is run instruction by instruction.
type tracee struct {
	pid      int
	mem      *os.File
	mappings []mapping
	tables   map[string]*file
	// calls are the calls under way, outermost first: an account that knows nothing of tables. The call instruction is seen, and a call is over
	// once the stack pointer is beyond the return address.
	calls []call
	stack []byte // from sp on
	sp    uint64
}

type mapping struct {
	start, end, offset uint64
	file               *file
}

type file struct {
	path  string
	table *Table
}

type call struct {
	slot  uint64 // address of the return address; for a signal, just below what the stack pointer will be again
	frame Frame
}

// startTracee starts a program, which stands at its very first instruction, in the dynamic loader. The calling goroutine must be locked to its thread.
func startTracee(t *testing.T, path string) *tracee {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = []string{"PATH=/bin"}
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var status unix.WaitStatus
	if _, err := unix.Wait4(cmd.Process.Pid, &status, 0, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, status %#x", err, status)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return &tracee{pid: cmd.Process.Pid, mem: mem, tables: map[string]*file{}}
}

// Word reads the process's memory.
func (p *tracee) Word(address uint64) (uint64, bool) {
	if at := address - p.sp; at < uint64(len(p.stack)) && uint64(len(p.stack))-at >= 8 {
		return binary.LittleEndian.Uint64(p.stack[at:]), true
	}
	var b [8]byte
	if _, err := p.mem.ReadAt(b[:], int64(address)); err != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}

// Rule looks in what the process has mapped, as far as it is known.
func (p *tracee) Rule(address uint64) (Rule, bpf.Reason) { return ruleAt(p.find(address)) }

func (p *tracee) find(address uint64) (*Table, objfile.FileOffset, bool) {
	for _, m := range p.mappings {
		if address >= m.start && address < m.end {
			return m.file.table, objfile.FileOffset(address - m.start + m.offset), true
		}
	}
	return nil, 0, false
}

// readMappings reads what is mapped executable, from lines such as
//
//	7f1c84a26000-7f1c84b7b000 r-xp 00026000 fe:01 1234    /usr/lib/x86_64-linux-gnu/libc.so.6
func (p *tracee) readMappings(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	p.mappings = p.mappings[:0]
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1][2] != 'x' {
			continue
		}
		var m mapping
		if _, err := fmt.Sscanf(fields[0]+" "+fields[2], "%x-%x %x", &m.start, &m.end, &m.offset); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if p.tables[fields[5]] == nil {
			p.tables[fields[5]] = p.compile(t, fields[5], m)
		}
		m.file = p.tables[fields[5]]
		p.mappings = append(p.mappings, m)
	}
}

// place names an address by file and offset.
func (p *tracee) place(address uint64) string {
	for _, m := range p.mappings {
		if address >= m.start && address < m.end {
			return fmt.Sprintf("%s+%#x", m.file.path, address-m.start+m.offset)
		}
	}
	return fmt.Sprintf("%#x", address)
}

func (p *tracee) compile(t *testing.T, path string, m mapping) *file {
	t.Helper()
	var content []byte
	var err error
	switch path {
	case "[vsyscall]":
		return &file{path: path}
	case "[vdso]":
		content = make([]byte, m.end-m.start)
		_, err = p.mem.ReadAt(content, int64(m.start))
	default:
		content, err = os.ReadFile(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	elf, err := objfile.Parse(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	table, err := Compile(elf)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return &file{path, table}
}

// step executes one instruction, and follows calls and signals. It returns false once the process has ended.
func (p *tracee) step(t *testing.T, regs *unix.PtraceRegs) bool {
	t.Helper()
	var code [16]byte
	n, err := p.mem.ReadAt(code[:], int64(regs.Rip))
	if n == 0 {
		t.Fatalf("code at %#x: %v", regs.Rip, err)
	}
	before := *regs
	signal := 0
	for {
		if err := ptraceStep(p.pid, signal); err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(p.pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		if status.Exited() || status.Signaled() {
			if status.ExitStatus() != 0 {
				t.Fatalf("status %#x", status)
			}
			return false
		}
		if err := unix.PtraceGetRegs(p.pid, regs); err != nil {
			t.Fatal(err)
		}
		if signal != 0 { // we stand at the handler's first instruction
			restorer, _ := p.word(t, regs.Rsp)
			p.calls = append(p.calls, call{before.Rsp - 1, Frame{PC: before.Rip, Interrupted: true}}, call{regs.Rsp, Frame{PC: restorer, Interrupted: true}})
			break
		}
		if signal = int(status.StopSignal()); signal == int(unix.SIGTRAP) {
			if next := before.Rip + uint64(callLength(code[:n])); next != before.Rip && regs.Rsp == before.Rsp-8 {
				p.calls = append(p.calls, call{regs.Rsp, Frame{PC: next}})
			}
			break
		}
		before = *regs
	}
	for len(p.calls) > 0 && p.calls[len(p.calls)-1].slot < regs.Rsp {
		p.calls = p.calls[:len(p.calls)-1]
	}
	return true
}

func ptraceStep(pid, signal int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SINGLESTEP, uintptr(pid), 0, uintptr(signal), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (p *tracee) word(t *testing.T, address uint64) (uint64, error) {
	t.Helper()
	var b [8]byte
	_, err := p.mem.ReadAt(b[:], int64(address))
	return binary.LittleEndian.Uint64(b[:]), err
}

// callLength is the length of a call instruction: E8 rel32, or FF /2 with its addressing, after prefixes. 0 is another instruction.
func callLength(code []byte) int {
	i := 0
	for i < len(code) && (code[i] == 0xf2 || code[i] == 0x3e || code[i] == 0x67 || code[i]&0xf0 == 0x40) {
		i++
	}
	if i+2 > len(code) {
		return 0
	}
	switch {
	case code[i] == 0xe8:
		return i + 5
	case code[i] != 0xff || code[i+1]>>3&7 != 2:
		return 0
	}
	mod, rm := code[i+1]>>6, code[i+1]&7
	length := i + 2
	if mod != 3 && rm == 4 {
		if mod == 0 && code[i+2]&7 == 5 {
			length += 4
		}
		length++
	}
	switch {
	case mod == 1:
		length++
	case mod == 2, mod == 0 && rm == 5:
		length += 4
	}
	return length
}

// expected is the stack by our own account, innermost first.
func (p *tracee) expected(pc uint64) []Frame {
	frames := []Frame{{PC: pc, Interrupted: true}}
	for _, c := range slices.Backward(p.calls) {
		frames = append(frames, c.frame)
	}
	return frames
}

func (p *tracee) walk(t *testing.T, regs *unix.PtraceRegs) ([]Frame, bpf.Reason) {
	t.Helper()
	p.sp = regs.Rsp
	p.stack = p.stack[:cap(p.stack)]
	if len(p.stack) == 0 {
		p.stack = make([]byte, 16<<10)
	}
	n, _ := p.mem.ReadAt(p.stack, int64(p.sp)) // up to the stack's end
	p.stack = p.stack[:n]
	if _, _, ok := p.find(regs.Rip); !ok {
		p.readMappings(t)
	}
	var r Registers
	for reg, value := range map[Register]uint64{
		0: regs.Rax, 1: regs.Rdx, 2: regs.Rcx, X86RBX: regs.Rbx, 4: regs.Rsi, 5: regs.Rdi, X86RBP: regs.Rbp, X86RSP: regs.Rsp, 8: regs.R8, 9: regs.R9,
		10: regs.R10, 11: regs.R11, 12: regs.R12, 13: regs.R13, 14: regs.R14, 15: regs.R15, X86RIP: regs.Rip,
	} {
		r.Set(reg, value)
	}
	w := Walker{Code: p, Memory: p}
	return w.Walk(objfile.EM_X86_64, r, nil, 1000)
}

// The stack is whole and right at every instruction of a program's life: in the dynamic loader, in prologues and epilogues,
// in procedure linkage tables, signal handlers and the vdso, and while exceptions fly.
func TestEveryInstruction(t *testing.T) {
	stride := 1
	compilers := map[string][]string{
		"gcc -O2":        {"gcc", "-O2", "testdata/frames.c"},
		"gcc static-pie": {"gcc", "-O2", "-static-pie", "testdata/frames.c"},
		"clang -O2":      {"clang-19", "-O2", "testdata/frames.c"},
	}
	if testing.Short() {
		stride = 13
	} else {
		maps.Copy(compilers, map[string][]string{
			"gcc -O0":        {"gcc", "-O0", "testdata/frames.c"},
			"gcc -O3 no-pie": {"gcc", "-O3", "-no-pie", "testdata/frames.c"},
			"gcc static":     {"gcc", "-O2", "-static", "testdata/frames.c"},
			"g++ -O2":        {"g++", "-O2", "testdata/exceptions.cc"},
		})
	}
	for name, args := range compilers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			build := exec.Command(args[0], append(args[1:], "-DUNTOLD", "-fomit-frame-pointer", "-Wl,-z,lazy", "-o", path)...)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", build, err, out)
			}
			stepThrough(t, path, stride)
		})
	}
}

func stepThrough(t *testing.T, path string, stride int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := startTracee(t, path)
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(p.pid, &regs); err != nil {
		t.Fatal(err)
	}
	var walked, cut, landing, deepest int
	lies, cuts := map[string]int{}, map[string]int{}
	for n := 0; p.step(t, &regs); n++ {
		if n%stride != 0 {
			continue
		}
		walked++
		frames, end := p.walk(t, &regs)
		want := p.expected(regs.Rip)
		deepest = max(deepest, len(want))
		whole := end == bpf.ReasonNone && len(frames) == len(want)
		isPrefix := len(frames) <= len(want) && slices.Equal(frames, want[:len(frames)])
		if whole && isPrefix {
			continue
		}
		where := fmt.Sprintf("%v after %d of %d frames, in %s", end, len(frames), len(want), p.place(frames[len(frames)-1].LookupPC()))
		switch pc := p.place(regs.Rip); {
		case isPrefix && end == bpf.ReasonNoRule:
			cut++
			cuts[where]++
		case strings.Contains(pc, "libgcc_s.so"):
			landing++
		default:
			lies[fmt.Sprintf("%s, pc in %s", where, pc)]++
		}
	}
	t.Logf("%d stacks walked, up to %d frames deep; %d are cut in code that has no tables; %d are torn", walked, deepest, cut, landing)
	if walked < 1000 {
		t.Errorf("only %d stacks were walked", walked)
	}
	for where, n := range lies {
		t.Errorf("%d times wrong: %s", n, where)
	}
	// Where an exception lands, libgcc writes what the handler shall find in its registers over what it saved itself.
	if float64(landing) > 0.001*float64(walked) {
		t.Errorf("%d of %d stacks are torn", landing, walked)
	}
	// In static programs a function of crtbegin.o is not known; of a few other instructions tables say what rules cannot.
	if float64(cut) > 0.01*float64(walked) {
		t.Errorf("%d of %d stacks are cut: %v", cut, walked, cuts)
	}
}

// The stack of a Go program that stopped itself is what its own runtime says, stripped or not.
func TestGoStack(t *testing.T) {
	for name, args := range map[string][]string{"unstripped": nil, "stripped": {"-ldflags=-s -w"}} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			path := buildGo(t, "amd64", args...)
			p, want := stopGoFrames(t, path)
			var regs unix.PtraceRegs
			if err := unix.PtraceGetRegs(p.pid, &regs); err != nil {
				t.Fatal(err)
			}
			frames, end := p.walk(t, &regs)
			if end != bpf.ReasonNone {
				t.Errorf("%v after %d frames", end, len(frames))
			}
			names, err := pclntab.Open(open(t, path))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range frames {
				lines, _ := names.Lookup(objfile.Address(f.LookupPC()))
				for _, line := range lines {
					if !line.Wrapper {
						got = append(got, line.Function)
					}
				}
			}
			// The system call and what leads to it come before what the program printed.
			if i := slices.Index(got, want[0]); i < 0 || !slices.Equal(got[i:], want) {
				t.Errorf("the stack is %q, the program says %q", got, want)
			}
		})
	}
}

// From the thread's own stack, to which the runtime switches, the walk leads back to the goroutine's: to all but the function that
// called systemstack.
func TestGoStackSwitch(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := buildGo(t, "amd64")
	p, _ := stopGoFrames(t, path)
	names, err := pclntab.Open(open(t, path))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := elfsym.Build(open(t, path))
	if err != nil {
		t.Fatal(err)
	}
	for s := range symbols.All() {
		if s.Name == "runtime.stopTheWorldWithSema" {
			if _, err := unix.PtracePokeText(p.pid, uintptr(s.Start), []byte{0xcc}); err != nil { // int3
				t.Fatal(err)
			}
		}
	}
	if err := unix.Kill(p.pid, unix.SIGCONT); err != nil { // its other threads have stopped too
		t.Fatal(err)
	}
	var status unix.WaitStatus
	for deadline := time.Now().Add(time.Minute); status.StopSignal() != unix.SIGTRAP; {
		if err := unix.PtraceCont(p.pid, 0); err != nil {
			t.Fatal(err)
		}
		pid := 0
		for pid == 0 {
			if pid, err = unix.Wait4(p.pid, &status, unix.WALL|unix.WNOHANG, nil); err != nil || pid != 0 && !status.Stopped() {
				t.Fatalf("%v, status %#x", err, status)
			}
			if time.Now().After(deadline) {
				t.Fatal("the garbage is not collected")
			}
			time.Sleep(time.Millisecond)
		}
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(p.pid, &regs); err != nil {
		t.Fatal(err)
	}
	regs.Rip-- // where int3 stands
	frames, end := p.walk(t, &regs)
	var got []string
	for _, f := range frames {
		lines, _ := names.Lookup(objfile.Address(f.LookupPC()))
		for _, line := range lines {
			got = append(got, line.Function)
		}
	}
	if end != bpf.ReasonNone {
		t.Errorf("%v after %q", end, got)
	}
	at := 0
	for _, want := range []string{"runtime.stopTheWorldWithSema", "runtime.systemstack", "runtime.GC", "main.stop", "main.large", "main.main", "runtime.main", "runtime.goexit"} {
		i := slices.Index(got[at:], want)
		if i < 0 {
			t.Fatalf("no %s where it should be in %q", want, got)
		}
		at += i
	}
}

// stopGoFrames traces a program that has stopped itself, and returns the functions that it says it is in. The calling goroutine must be
// locked to its thread.
func stopGoFrames(t *testing.T, path string) (p *tracee, functions []string) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != ""; {
		functions = append(functions, lines.Text())
	}
	return attach(t, cmd.Process.Pid), functions
}

// attach traces the first thread of a process that stops, or has stopped, itself.
func attach(t *testing.T, pid int) *tracee {
	t.Helper()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.PtraceDetach(pid) })
	var status unix.WaitStatus
	for range 2 { // the stop that it asked for, and ours
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), fmt.Sprint(unix.SYS_KILL, " ")) {
			break
		}
		if err := unix.PtraceCont(pid, 0); err != nil {
			t.Fatal(err)
		}
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return &tracee{pid: pid, mem: mem, tables: map[string]*file{}}
}
