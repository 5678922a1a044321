// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A printedRow is a row of `readelf --debug-dump=frames-interp`: the values of its columns by their names. The table
//
//	00000018 0000000000000014 0000001c FDE cie=00000000 pc=0000000000026640..0000000000026666
//	   LOC           CFA      rbx   rbp   ra
//	0000000000026640 rsp+8    u     u     c-8
//
// says u for a register that has no rule, s for one that keeps its value, c-16 for one saved at CFA-16, exp for an expression.
type printedRow struct {
	from, to objfile.Address
	columns  map[string]string
}

// readelf calls row for each row of a file's functions, and returns how many functions there are.
func readelf(t *testing.T, path string, row func(r printedRow)) (functions int) {
	t.Helper()
	cmd := exec.Command("readelf", "--debug-dump=frames-interp", "--wide", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := dump{row: row, common: map[string]map[string]string{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := d.line(lines.Text()); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	d.endEntry()
	// Its status is 1 where a separate debug file is missing, too.
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%s: %v", cmd, err)
	}
	return d.functions
}

// A dump is what was read of readelf's output.
type dump struct {
	row       func(printedRow)
	common    map[string]map[string]string // the columns of CIEs, by their offsets
	functions int

	cie         string // of the entry under way, if that is a CIE
	inFunction  bool
	end         objfile.Address // of the function
	names       []string        // of the columns
	last        printedRow      // to be continued
	lastColumns bool
}

func (d *dump) line(line string) error {
	// A register that is in another one is printed as "r2 (rcx)".
	fields := slices.DeleteFunc(strings.Fields(line), func(field string) bool { return strings.HasPrefix(field, "(") })
	switch {
	case len(fields) == 0:
	case len(fields) >= 5 && slices.Contains(fields, "FDE"):
		return d.beginFunction(line)
	case len(fields) >= 4 && slices.Contains(fields, "CIE"):
		d.endEntry()
		d.cie = fields[0]
		d.common[d.cie] = nil // where it has no rows
	case fields[0] == "LOC":
		d.names = fields
	case d.names != nil && len(fields) == len(d.names) && fields[1] != "ZERO":
		at, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil // another section's heading
		}
		columns := map[string]string{}
		for i, name := range d.names {
			columns[name] = fields[i]
		}
		if d.cie != "" {
			d.common[d.cie] = columns
			return nil
		}
		d.continueTo(objfile.Address(at))
		d.last, d.lastColumns = printedRow{from: objfile.Address(at), columns: columns}, true
	}
	return nil
}

// beginFunction begins with what the CIE says: a function without instructions of its own has no row.
func (d *dump) beginFunction(line string) error {
	d.endEntry()
	_, cie, _ := strings.Cut(line, "cie=")
	cie, _, _ = strings.Cut(cie, " ")
	_, bounds, _ := strings.Cut(line, "pc=")
	low, high, _ := strings.Cut(strings.TrimSpace(bounds), "..")
	from, err1 := strconv.ParseUint(low, 16, 64)
	to, err2 := strconv.ParseUint(high, 16, 64)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	columns, ok := d.common[cie]
	if !ok {
		return fmt.Errorf("%q: no such CIE", line)
	}
	d.functions++
	d.inFunction, d.end = true, objfile.Address(to)
	d.last, d.lastColumns = printedRow{from: objfile.Address(from), columns: columns}, columns != nil
	return nil
}

func (d *dump) continueTo(at objfile.Address) {
	if d.lastColumns && at > d.last.from {
		d.last.to = at
		d.row(d.last)
	}
}

func (d *dump) endEntry() {
	if d.inFunction {
		d.continueTo(d.end)
	}
	d.cie, d.names, d.inFunction, d.lastColumns = "", nil, false, false
}

// registerNames are readelf's.
var registerNames = map[objfile.Machine]map[Register]string{
	objfile.EM_X86_64: {
		0: "rax", 1: "rdx", 2: "rcx", 3: "rbx", 4: "rsi", 5: "rdi", 6: "rbp", 7: "rsp", 8: "r8", 9: "r9", 10: "r10", 11: "r11",
		12: "r12", 13: "r13", 14: "r14", 15: "r15",
	},
	objfile.EM_AARCH64: {29: "x29", 30: "x30", 31: "sp"},
}

// print writes a rule as readelf does, register by register.
func (r Rule) print(m objfile.Machine) map[string]string {
	if r.Kind == Gap {
		return map[string]string{"CFA": "gap"}
	}
	saved := func(s Saved) string {
		switch {
		case s.Kind == Unchanged:
			return "u"
		case s.Kind == AtCFA:
			return fmt.Sprintf("c%+d", s.Offset)
		case s.Kind == InBase:
			return fmt.Sprintf("r%d", s.Base)
		}
		return "exp"
	}
	columns := map[string]string{"CFA": "exp"}
	if r.CFA == CFARegister {
		name, ok := registerNames[m][r.CFABase]
		if !ok {
			name = fmt.Sprintf("x%d", r.CFABase)
		}
		columns["CFA"] = fmt.Sprintf("%s%+d", name, r.Offset)
	}
	if m == objfile.EM_X86_64 {
		columns["rbp"], columns["rbx"] = saved(r.FP), saved(r.Base)
	} else {
		columns["x29"] = saved(r.FP)
	}
	columns["ra"] = saved(r.ReturnAddress)
	return columns
}

// systemFiles are the shared libraries and programs of this host, each once, shuffled.
func systemFiles(t *testing.T) []string {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"/usr/lib/*-linux-gnu/*.so*", "/usr/lib/*-linux-gnu/*/*.so", "/usr/bin/*", "/usr/sbin/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	seen := map[string]bool{}
	paths = slices.DeleteFunc(paths, func(path string) bool {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			return true
		}
		seen[real] = true
		return !isELF(real)
	})
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	return paths
}

// The rows of 200 of the host's own libraries, and of programs among them, say what readelf reads from them: at the first byte of each row, and at a
// random one.
func TestRowsAgreeWithReadelf(t *testing.T) {
	want := 200
	if testing.Short() {
		want = 40
	}
	random := rand.New(rand.NewPCG(3, 4))
	var libraries, programs, without, compared, unsaid, bytes, rows int
	for _, path := range systemFiles(t) {
		if libraries == want {
			break
		}
		f := open(t, path)
		table, err := Compile(f)
		if errors.Is(err, ErrNone) {
			without++
			if n := readelf(t, path, func(printedRow) {}); n > 0 {
				t.Errorf("%s: no table, but readelf finds %d functions", path, n)
			}
			continue
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		stats := table.Stats()
		if slices.Contains(stats.Sources, "pclntab") {
			continue // see TestGoRows
		}
		if strings.Contains(filepath.Base(path), ".so") {
			libraries++
		} else {
			programs++
		}
		bytes, rows = bytes+table.Bytes(), rows+stats.Rows
		if stats.Broken > 0 || len(stats.Damage) > 0 {
			t.Errorf("%s: %+v", path, stats)
		}
		gaps := 0
		functions := readelf(t, path, func(r printedRow) {
			for _, at := range []objfile.Address{r.from, r.from + objfile.Address(random.Uint64N(uint64(r.to-r.from)))} {
				off, ok := offsetOf(f, at)
				if !ok {
					t.Errorf("%s: %#x is not in the file", path, at)
					continue
				}
				compared++
				rule := table.Rule(off)
				if rule.Kind == Gap {
					gaps++
				}
				if why := disagreement(r.columns, rule, f.Machine()); why != "" {
					t.Errorf("%s: %#x: %s: %v, readelf has %v", path, at, why, rule, r.columns)
				}
			}
		})
		// Linkage tables that no section tells of are known by their instructions.
		if functions < stats.Functions && !slices.Contains(stats.Sources, sourceInstructions) {
			t.Errorf("%s: readelf finds %d functions, we %d", path, functions, stats.Functions)
		}
		if gaps > 2*stats.Unsupported {
			t.Errorf("%s: %d gaps where readelf has rules, %d rows say what rules cannot", path, gaps, stats.Unsupported)
		}
		unsaid += gaps
	}
	t.Logf("%d addresses of %d libraries and %d programs compared, %d of them where rules cannot say what the file does; %d files have no table; %.2f bytes a row",
		compared, libraries, programs, unsaid, without, float64(bytes)/float64(rows))
	if libraries < want {
		t.Errorf("%d libraries compared, want %d", libraries, want)
	}
}

// disagreement names the column in which a rule is not what readelf prints, "" for none.
func disagreement(want map[string]string, r Rule, m objfile.Machine) string {
	if r.Kind == Gap { // counted by the caller
		return ""
	}
	if r.Kind == Outermost {
		if want["ra"] != "u" {
			return "ra"
		}
		return ""
	}
	for name, got := range r.print(m) {
		printed, ok := want[name]
		if !ok || printed == "s" {
			printed = "u"
		}
		if got != printed {
			return name
		}
	}
	return ""
}
