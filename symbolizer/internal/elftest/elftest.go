// Package elftest makes ELF files for tests: real ones, by gcc and binutils, and tiny
// hand-made ones, whose every field a test can choose.
package elftest

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Source is a program of a few functions in several shapes, which prints, for each, its name and
// the file offset that the kernel mapped it from: the truth that look-ups must agree with.
const Source = `
#include <stdio.h>
#include <stdint.h>
#include <limits.h>
#include <stdlib.h>

__attribute__((noinline)) int plain(int x) { return x * 3 + 1; }
static __attribute__((noinline)) int hidden(int x) { return plain(x) + 2; }
__attribute__((weak, noinline)) int weakling(int x) { return x ^ 7; }
int alias_of_plain(int) __attribute__((alias("plain")));
__attribute__((noinline, section(".hot"))) int hot(int x) { return hidden(x) * 5; }
__attribute__((noinline, cold)) int cold(int x) { return x - 9; }

// Hand-written assembly: no type, no size.
int untyped(int);
__asm__(".text\n.globl untyped\nuntyped:\n\tret\n\tnop\n\tnop\n"
	"1:\n.globl untyped_end\n.type untyped_end,@function\n.size untyped_end,1\nuntyped_end:\n\tret\n");

// A function within a function.
int outer(int);
__asm__(".text\n.globl outer\n.type outer,@function\nouter:\n\tnop\n\tnop\n"
	".globl inner\n.type inner,@function\ninner:\n\tnop\n\tnop\n.size inner,.-inner\n"
	"outer_label:\n\tnop\n\tret\n.size outer,.-outer\n\t.zero 16\n");
int inner(int);

static void show(const char *name, void *p) {
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[PATH_MAX + 100];
	unsigned long a = (unsigned long)p, start, end, offset;
	while (fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && a >= start && a < end)
			printf("%s %lx\n", name, a - start + offset);
	fclose(maps);
}

int main(int argc, char **argv) {
	show("plain", plain), show("hidden", hidden), show("weakling", weakling), show("hot", hot);
	show("cold", cold), show("untyped", untyped), show("outer", outer), show("inner", inner);
	show("outer", (char *)outer + 4), show("main", main);
	return hot(argc) + cold(argc) + weakling(argc) == 12345;
}
`

// A Variant is a way to link Source.
type Variant struct {
	Name string
	Args []string // of gcc
}

// Variants returns the ways in which the way from offsets to addresses differs.
func Variants() []Variant {
	return []Variant{
		{"pie", []string{"-pie", "-fPIE"}},
		{"no-pie", []string{"-no-pie"}},
		{"static", []string{"-static"}},
		{"static-pie", []string{"-static-pie", "-fPIE"}},
		{"separate-code", []string{"-Wl,-z,separate-code"}},
		{"noseparate-code", []string{"-Wl,-z,noseparate-code"}},
		{"noseparate-code no-pie", []string{"-no-pie", "-Wl,-z,noseparate-code"}},
		// Like a prelinked library: position independent, but laid out far from zero.
		{"prelinked", []string{"-pie", "-fPIE", "-Wl,-Ttext-segment=0x7e0000000000"}},
		{"far text", []string{"-no-pie", "-Wl,-Ttext-segment=0x10000000"}},
		{"several executable segments", []string{"-no-pie", "-Wl,--section-start=.hot=0x30000000"}},
		{"executable segments 8 GiB apart", []string{"-no-pie", "-mcmodel=large", "-fno-plt", "-fno-asynchronous-unwind-tables", "-Wl,--section-start=.hot=0x200400000"}},
		{"gnu hash", []string{"-Wl,--hash-style=gnu", "-rdynamic"}},
		{"sysv hash", []string{"-Wl,--hash-style=sysv", "-rdynamic"}},
		{"no build id", []string{"-Wl,--build-id=none"}},
	}
}

// Compile compiles C source with gcc and returns the path of the result. A missing gcc is a
// failure: without it the tests prove little.
func Compile(t testing.TB, source string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "prog.c"), filepath.Join(dir, "prog")
	if err := os.WriteFile(in, []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
	Run(t, "gcc", append([]string{"-O1", "-w", "-o", out, in}, args...)...)
	return out
}

// Run runs a command and returns what it printed.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// Open opens a file until the end of the test, and returns its size.
func Open(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, info.Size()
}

// WithoutSectionHeaders returns the bytes of a file as they are where its section headers were stripped.
func WithoutSectionHeaders(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[40:48]) // e_shoff
	clear(b[58:64]) // e_shentsize, e_shnum, e_shstrndx
	return b
}

// Libraries returns system libraries that define functions, libc first, 25 or fewer; it fails if there are
// fewer than 20.
func Libraries(t testing.TB) []string {
	t.Helper()
	libc, err := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if err != nil || len(libc) == 0 {
		t.Fatal("no libc.so.6 in /lib/*-linux-gnu")
	}
	paths := libc[:1]
	all, _ := filepath.Glob(filepath.Join(filepath.Dir(libc[0]), "lib*.so.*"))
	seen := map[string]bool{libc[0]: true}
	for _, p := range all {
		p, err := filepath.EvalSymlinks(p)
		if err != nil || seen[p] {
			continue
		}
		seen[p] = true
		if definesFunctions(p) {
			paths = append(paths, p)
		}
		if len(paths) == 25 {
			break
		}
	}
	if len(paths) < 20 {
		t.Fatalf("%d system libraries, want at least 20", len(paths))
	}
	return paths
}

func definesFunctions(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Size() > 32<<20 { // the largest have a benchmark of their own
		return false
	}
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	symbols, _ := f.DynamicSymbols()
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF {
			return true
		}
	}
	return false
}

// LLVM returns the path of a large library for benchmarks, "" if there is none.
func LLVM() string {
	for _, pattern := range []string{"/usr/lib/llvm-19/lib/libLLVM*.so*", "/usr/lib/*-linux-gnu/libLLVM*.so*"} {
		if paths, _ := filepath.Glob(pattern); len(paths) > 0 {
			return paths[0]
		}
	}
	return ""
}
