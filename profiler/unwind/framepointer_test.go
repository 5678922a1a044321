// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// buildMany compiles many functions, and takes away what is told of them: the same code, told and untold.
func buildMany(t *testing.T, flags ...string) (told, untold *objfile.File) {
	t.Helper()
	var source strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&source, "int f%d(int *a, int n) { int sum = %d; for (int i = 0; i < n; i++) sum += a[i] * %d; return sum; }\n", i, i, i)
		fmt.Fprintf(&source, "int g%d(int *a, int n) { return f%d(a, n - 1) + n; }\n", i, i)
	}
	// As V8's builtins end where they go on elsewhere.
	source.WriteString(`__asm__(".cfi_startproc\n" "push %rbp\n.cfi_def_cfa_offset 16\n.cfi_offset 6,-16\n" "mov %rsp,%rbp\n.cfi_def_cfa_register 6\n"
		"sub $64,%rsp\n call *%rax\n" ".byte 0x48,0x8b,0xe5\n pop %rbp\n.cfi_def_cfa 7,8\n.cfi_restore 6\n" ".byte 0xff\n.cfi_endproc\n .byte 0xe1\n");`) // jmp *%rcx
	dir := t.TempDir()
	path, stripped := filepath.Join(dir, "told.so"), filepath.Join(dir, "untold.so")
	gcc := exec.Command("gcc", append(flags, "-fcf-protection=none", "-fvisibility=hidden", "-shared", "-fPIC", "-nostdlib", "-Wl,--no-eh-frame-hdr", "-o", path, "-x", "c", "-")...)
	gcc.Stdin = strings.NewReader(source.String())
	for _, cmd := range []*exec.Cmd{gcc, exec.Command("objcopy", "-R", ".eh_frame", path, stripped)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return open(t, path), open(t, stripped)
}

// Code with frame pointers tells by its instructions what the compiler tells where it does, at each byte.
func TestFramePointerCode(t *testing.T) {
	told, untold := buildMany(t, "-O0", "-fno-omit-frame-pointer")
	got := compile(t, untold)
	compared, wrong := 0, 0
	for row := range compile(t, told).All {
		want := row.Rule
		if want.CFABase == X86RSP && want.Offset == word {
			want.FP = Saved{} // before the last instruction too, where gcc does not say that it is back in rbp
		}
		if want.CFABase == X86RBP {
			want.Base = FramePointerRule(objfile.EM_X86_64).Base // gcc says that it left rbx alone, the instructions do not
		}
		for at := row.From; at < row.To; at++ {
			compared++
			if rule := got.Rule(at); rule != want && wrong < 10 {
				t.Errorf("%#x: %v, gcc says %v", at, rule, want)
				wrong++
			}
		}
	}
	if compared < minFramePointerCode {
		t.Errorf("%d bytes compared", compared)
	}
}

// Code without frame pointers is not taken for such.
func TestNoFramePointerCode(t *testing.T) {
	_, untold := buildMany(t, "-O1", "-fomit-frame-pointer")
	if bytes := newCompiler(untold).stats.Code; bytes < minFramePointerCode {
		t.Errorf("%d bytes of code", bytes)
	}
	if table, err := Compile(untold); !errors.Is(err, ErrNone) {
		t.Errorf("%+v, %v", table, err)
	}
}
