// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A function of assembly that says nothing of its frame is found, by name and size.
func TestExamineUnwinding(t *testing.T) {
	const source = `
int bare(void);
__asm__(".text\n.p2align 4\n.globl bare\n.type bare,@function\nbare:\n.skip 300,0x90\nret\n.size bare,.-bare\n");
__asm__(".globl \"ESC[2Jbad\"\n.type \"ESC[2Jbad\",@function\n\"ESC[2Jbad\":\n.skip 64,0x90\nret\n.size \"ESC[2Jbad\",.-\"ESC[2Jbad\"\n");
int main(void) { return bare(); }
`
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	cmd := exec.Command("gcc", "-O2", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(source, "ESC", "\x1b"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report, err := ExamineUnwinding(path)
	if err != nil {
		t.Fatal(err)
	}
	hostile := func(g Gap) bool { return slices.Contains(g.Functions, "?[2Jbad") }
	if !slices.ContainsFunc(report.Gaps, hostile) {
		t.Errorf("no gap has the function that would clear the screen: %+v", report.Gaps)
	}
	i := slices.IndexFunc(report.Gaps, func(g Gap) bool { return slices.Contains(g.Functions, "bare") })
	if i < 0 || report.Gaps[i].Bytes < 301 {
		t.Errorf("no gap has bare, of 301 bytes: %+v", report.Gaps)
	}
	var covered, gaps uint64 = report.Covered, 0
	for _, g := range report.Gaps {
		gaps += g.Bytes
	}
	if covered == 0 || covered+gaps != report.Stats.Code {
		t.Errorf("%d bytes are covered, %d in gaps, of %d", covered, gaps, report.Stats.Code)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "bare") || strings.Contains(text.String(), "\x1b") {
		t.Errorf("%v\n%s", err, &text)
	}
}

func TestExamineUnwindingRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no ELF file"), 0o644); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(dir, "bare")
	cmd := exec.Command("gcc", "-nostdlib", "-static", "-Wl,-e,start", "-x", "assembler", "-o", bare, "-")
	cmd.Stdin = strings.NewReader(".globl start\nstart: nop\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): os.ErrNotExist, text: objfile.ErrNotELF, bare: unwind.ErrNone,
	} {
		if _, err := ExamineUnwinding(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := ExamineUnwinding(dir); err == nil {
		t.Error("a folder is examined")
	}
}
