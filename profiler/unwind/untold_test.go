// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"encoding/binary"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// recorded is the stack of an emulated program that has one file of code.
type recorded struct {
	file  *objfile.File
	table *Table
	sp    uint64
	stack []byte
}

func (r *recorded) Word(address uint64) (uint64, bool) {
	at := address - r.sp
	if at >= uint64(len(r.stack)) || uint64(len(r.stack))-at < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(r.stack[at:]), true
}

func (r *recorded) Rule(address uint64) (Rule, bpf.Reason) { return ruleAt(r.find(address)) }

func (r *recorded) find(address uint64) (*Table, objfile.FileOffset, bool) {
	off, ok := offsetOf(r.file, objfile.Address(address))
	return r.table, off, ok
}

// On arm64 a signal interrupts a leaf, whose return address is nowhere but in the x30 that the kernel has saved.
func TestSignalARM64(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signal")
	build := exec.Command("aarch64-linux-gnu-gcc", "-O2", "-fomit-frame-pointer", "-static", "-o", path, "testdata/signal_arm64.c")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	out, err := exec.Command("qemu-aarch64", path).Output()
	if err != nil || len(out) < 5*word {
		t.Fatalf("qemu-aarch64: %v, %d bytes", err, len(out))
	}
	var registers [4]uint64
	for i := range registers {
		registers[i] = binary.LittleEndian.Uint64(out[i*word:])
	}
	file := open(t, path)
	p := &recorded{file: file, table: compile(t, file), sp: registers[1], stack: out[len(registers)*word:]}
	var r Registers
	for i, reg := range []Register{ARM64PC, ARM64SP, ARM64FP, ARM64LR} {
		r.Set(reg, registers[i])
	}
	w := Walker{Code: p, Memory: p, PointerBits: 48}
	frames, end := w.Walk(objfile.EM_AARCH64, r, nil, 100)
	symbols, err := elfsym.Build(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range frames {
		symbol, _ := symbols.Lookup(objfile.Address(f.LookupPC()))
		names = append(names, symbol.Name)
	}
	want := []string{"handler", "restore", "leaf", "middle", "main", "__libc_start_call_main", "__libc_start_main", "_start"}
	if end != bpf.ReasonNone || !slices.Equal(names, want) {
		t.Errorf("%v after %q, want %q", end, names, want)
	}
}

// Of a file without any unwind information, as the vdso of arm64 is one, the functions without a frame are known.
func TestLeavesARM64(t *testing.T) {
	path := build(t, "aarch64-linux-gnu-gcc", "-O2", "-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-shared", "-fPIC", "-nostdlib")
	file := open(t, path)
	table := compile(t, file)
	symbols, err := elfsym.Build(file)
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]Rule{}
	for s := range symbols.All() {
		for at := s.Start; at < s.Start+objfile.Address(s.Size); at += 4 {
			off, _ := offsetOf(file, at)
			rule := table.Rule(off)
			if first, ok := rules[s.Name]; ok && first != rule {
				t.Errorf("%s+%#x: %v, before it %v", s.Name, at-s.Start, rule, first)
			}
			rules[s.Name] = rule
		}
	}
	for name, want := range map[string]Rule{
		"leaf": {Kind: Step, CFABase: ARM64SP}, "many": {}, "dynamic": {}, "aligned": {}, "large": {}, "recurse": {}, "jump": {}, "stop": {}, "leave": {}, "main": {},
	} {
		if got := rules[name]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// What the compiler adds to a program is known; TestEveryInstruction says that the rules are right.
func TestUntoldStart(t *testing.T) {
	for _, args := range [][]string{{"gcc", "-O2"}, {"gcc", "-O2", "-no-pie"}, {"gcc", "-O2", "-shared", "-fPIC"}, {"clang-19", "-O2"}} {
		file := open(t, build(t, args[0], args[1:]...))
		table := compile(t, file)
		symbols, err := elfsym.Build(file)
		if err != nil {
			t.Fatal(err)
		}
		known := 0
		for s := range symbols.All() {
			switch s.Name {
			case "_init", "_fini", "deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux", "frame_dummy":
				if off, ok := offsetOf(file, s.Start); !ok || table.Rule(off).Kind == Gap {
					t.Errorf("%v: %s is not known", args, s.Name)
				}
				known++
			}
		}
		if known != 6 {
			t.Errorf("%v: %d functions", args, known)
		}
	}
}

// Code is searched, not what else lies in its segment: in libLLVM 13 MB of symbols and relocations stand before the code.
func TestUntoldBehindOthers(t *testing.T) {
	const source = `__asm__(".section .note.large,\"a\"\n.skip 0x500000\n.text"); int f(void) { return 1; }`
	path := filepath.Join(t.TempDir(), "large.so")
	cmd := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-Wl,-z,noseparate-code", "-o", path, "-x", "c", "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := open(t, path)
	table := compile(t, file)
	init, ok := file.Section(".init")
	if before := init.Off; !ok || before < maxSearch {
		t.Fatalf("%#x bytes stand before .init", uint64(before))
	}
	if off, ok := offsetOf(file, init.Addr); !ok || table.Rule(off) != unframed {
		t.Errorf(".init: %v, want %v", table.Rule(off), unframed)
	}
	if code := table.Stats().Code; code > 0x1000 {
		t.Errorf("%d bytes of code", code)
	}
}

// What calls a function and passes its value on to exit is the outermost, where nothing is told of it; what passes it on to another is not.
func TestUntoldRoots(t *testing.T) {
	const source = `
		#define KEEP __attribute__((visibility("hidden"), noinline))
		KEEP __attribute__((noreturn)) void exit(int status) { for (;;) __asm__ volatile("" : : "r"(status)); }
		KEEP int other(int x) { __asm__ volatile("" : "+r"(x)); return x; }
		KEEP void outermost(int (*main)(void)) { exit(main()); }
		KEEP void outermost_memory(int (**main)(void)) { exit((*main)()); }
		KEEP int caller(int (*f)(void)) { return other(f()) + 1; }`
	for _, compiler := range []string{"gcc", "aarch64-linux-gnu-gcc"} {
		t.Run(compiler, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "untold.so")
			cmd := exec.Command(compiler, "-O2", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-o", path, "-x", "c", "-")
			cmd.Stdin = strings.NewReader(source)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			file := open(t, path)
			table := compile(t, file)
			symbols, err := elfsym.Build(file)
			if err != nil {
				t.Fatal(err)
			}
			outermost := map[string]int{}
			for row := range table.All {
				if row.Rule.Kind != Outermost {
					continue
				}
				address, _ := file.AddressOf(row.From)
				symbol, _ := symbols.Lookup(address)
				outermost[symbol.Name] += int(row.To - row.From)
			}
			if want := map[string]int{"outermost": 1, "outermost_memory": 1}; !maps.Equal(outermost, want) {
				t.Errorf("bytes of calls that are the outermost: %v, want %v", outermost, want)
			}
		})
	}
}

// Of procedure linkage tables the instructions tell what GNU ld tells where it does, at each byte that is executed.
func TestLinkageTables(t *testing.T) {
	for name, args := range map[string][]string{
		"lazy":       {"-Wl,-z,lazy", "-fcf-protection=none"},
		"lazy, ibt":  {"-Wl,-z,lazy", "-fcf-protection=full", "-Wl,-z,ibtplt"},
		"now":        {"-Wl,-z,now", "-fcf-protection=none"},
		"not a pie":  {"-no-pie", "-Wl,-z,lazy"},
		"a pie, ibt": {"-Wl,-z,now", "-Wl,-z,ibtplt"},
	} {
		t.Run(name, func(t *testing.T) {
			told := open(t, build(t, "gcc", append([]string{"-O2"}, args...)...))
			untold := open(t, build(t, "gcc", append([]string{"-O2", "-Wl,--no-ld-generated-unwind-info"}, args...)...))
			want, got := compile(t, told), compile(t, untold)
			compared := 0
			for _, name := range []string{".plt", ".plt.sec", ".plt.got"} {
				s, ok := told.Section(name)
				other, _ := untold.Section(name)
				if !ok {
					continue
				}
				for at := range s.Size {
					from := want.Rule(s.Off + objfile.FileOffset(at)).at(s.Addr + objfile.Address(at))
					if rule := got.Rule(other.Off + objfile.FileOffset(at)); rule.Kind == Gap {
						continue // padding
					} else if rule != from {
						t.Errorf("%s+%#x: %v, ld says %v", name, at, rule, from)
					}
					compared++
				}
			}
			if compared < 16*6 {
				t.Errorf("%d bytes compared", compared)
			}
		})
	}
}

// On arm64 the header pushes the return address, and entries leave all as it is.
func TestLinkageTableARM64(t *testing.T) {
	for name, args := range map[string][]string{"plain": {"-O2"}, "bti": {"-O2", "-mbranch-protection=standard", "-Wl,-z,force-bti"}} {
		t.Run(name, func(t *testing.T) {
			file := open(t, build(t, "aarch64-linux-gnu-gcc", args...))
			table := compile(t, file)
			s, ok := file.Section(".plt")
			if !ok || s.Size < 100 {
				t.Fatalf("%+v", s)
			}
			header := objfile.FileOffset(4)
			if name == "bti" {
				header += 4
			}
			for at := objfile.FileOffset(0); at < objfile.FileOffset(s.Size); at += 4 {
				want := leafRule
				if at >= header && at < 32 {
					want = Rule{Kind: Step, CFABase: ARM64SP, Offset: 16, ReturnAddress: fromCFA(-word)}
				}
				if got := table.Rule(s.Off + at); got != want {
					t.Errorf("+%#x: %v, want %v", at, got, want)
				}
			}
		})
	}
}

// at is the rule at an address, where that makes a difference.
func (r Rule) at(a objfile.Address) Rule {
	if r.CFA == CFAPLT {
		if r.CFA = CFARegister; int64(a&15) >= int64(r.Add) {
			r.Offset += word
		}
		r.Add = 0
	}
	return r
}
