package pclntab

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// TestAgainstRuntime compares look-ups in a program's file with what the runtime says inside the program.
func TestAgainstRuntime(t *testing.T) {
	for _, v := range append(slices.Clone(variants), olderVariants(t)...) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			path := v.build(t)
			want, err := exec.Command(path).Output()
			if err != nil {
				t.Fatal(err)
			}
			step := objfile.Address(7) // and both ends of every range
			switch {
			case testing.Short():
				step = 31
			case v.name == "default":
				step = 1
			}
			compareWithRuntime(t, openPath(t, path), want, step)
		})
	}
}

// comparison counts the addresses compared by what could be compared.
type comparison struct {
	whole, inlined, edges, none, noFirstName, wrapperKept int
	deepest                                               int
	keepsWrappers                                         bool // see compare
}

// compareWithRuntime reads the output of testdata/oracle and looks up every step-th address, and the first and the last of
// each range.
func compareWithRuntime(t *testing.T, table *Table, want []byte, step objfile.Address) {
	t.Helper()
	in := bufio.NewScanner(bytes.NewReader(want))
	if !in.Scan() || !strings.HasPrefix(in.Text(), "# go") {
		t.Fatalf("the program printed %q", in.Text())
	}
	version := strings.TrimPrefix(in.Text(), "# ")

	var n comparison
	var minor int
	if _, err := fmt.Sscanf(version, "go1.%d", &minor); err != nil {
		t.Fatalf("version %q: %v", version, err)
	}
	n.keepsWrappers = minor < 21
	var start objfile.Address
	var lines []Line
	edge := false
	for in.Scan() {
		address, isAddress := strings.CutPrefix(in.Text(), "@")
		if !isAddress {
			f := strings.Split(in.Text(), "\t")
			line := Line{Function: f[0], File: f[1]}
			line.Line, _ = strconv.Atoi(f[2])
			line.StartLine, _ = strconv.Atoi(f[3])
			edge = f[4] == "edge"
			if line.File == "?" {
				line.File = ""
			}
			lines = append(lines, line)
			continue
		}
		a, err := strconv.ParseUint(address, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		end := objfile.Address(a)
		for a := start; a < end && start != 0; a += step {
			n.compare(t, table, a, lines, edge)
		}
		if end > start && start != 0 && step > 1 {
			n.compare(t, table, end-1, lines, edge)
		}
		start, lines, edge = end, lines[:0], false
		if t.Failed() {
			break
		}
	}
	t.Logf("%s: %d addresses equal in all lines, %d of them with inlined calls (deepest %d); %d last bytes of functions equal in the innermost line; "+
		"%d in no Go function; in %d the runtime leaves out the name at offset 0; in %d an old runtime shows a wrapper",
		version, n.whole, n.inlined, n.deepest, n.edges, n.none, n.noFirstName, n.wrapperKept)
	if n.whole < 10000/int(step) || n.inlined == 0 && !strings.Contains(t.Name(), "no-inlining") && !strings.Contains(t.Name(), "unoptimized") {
		t.Error("too few to mean anything")
	}
}

func (n *comparison) compare(t *testing.T, table *Table, a objfile.Address, want []Line, edge bool) {
	t.Helper()
	got, ok := table.Lookup(a)
	if table.Names(a) != ok {
		t.Errorf("%#x: Lookup finds a function: %t, Names: %t", a, ok, !ok)
	}
	switch {
	case len(want) == 0:
		if ok {
			t.Errorf("%#x: got %v, want nothing", a, got)
		}
		n.none++
		return
	case !ok:
		t.Errorf("%#x: got nothing, want %v", a, want)
		return
	}
	for i, line := range got {
		if line.Inlined != (i < len(got)-1) {
			t.Errorf("%#x: line %d of %+v: Inlined is wrong", a, i, got)
		}
	}
	if want[0].Function == "" {
		// funcName of the runtime takes offset 0 for "no name", though a name stands there.
		n.noFirstName++
		want = append([]Line{}, want...)
		want[0].Function = got[0].Function
	}
	if edge {
		if got[0].Function != want[0].Function || got[0].File != want[0].File || got[0].Line != want[0].Line {
			t.Errorf("%#x: got %+v, want %+v innermost", a, got, want)
		}
		n.edges++
		return
	}
	if n.keepsWrappers && len(want) == len(got)+1 && got[len(got)-1].Function != want[len(want)-1].Function {
		// Until Go 1.20 the expansion dropped inlined wrappers but not the outermost function.
		n.wrapperKept++
		want = want[:len(want)-1]
	}
	if text(got) != text(want) {
		t.Errorf("%#x:\n got %s\nwant %s", a, text(got), text(want))
		return
	}
	n.whole++
	n.deepest = max(n.deepest, len(got))
	if len(got) > 1 {
		n.inlined++
	}
}

func text(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s:%d (%d); ", l.Function, l.File, l.Line, l.StartLine)
	}
	return b.String()
}
