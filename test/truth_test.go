// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

const (
	truthHz      = 499
	truthSeconds = 5
)

// profiled is a workload, a profile of it, and what it burned in the very window of the profile.
type profiled struct {
	recording
	workload *workload
	burned   report
}

// profileWorkload records a running workload for five seconds at 499 Hz.
func profileWorkload(t *testing.T, w *workload) profiled {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // two reports, so that the window has one before it
	r := record(t, "-p", strconv.Itoa(w.pid()), "-F", strconv.Itoa(truthHz), "-d", fmt.Sprintf("%ds", truthSeconds))
	time.Sleep(200 * time.Millisecond) // and one after it
	w.stop()
	begin := monotonic(t, r.profile.TimeNanos)
	return profiled{r, w, w.burned(t, begin, begin+r.profile.DurationNanos)}
}

// check makes the comparisons that hold for every workload. names gives the pattern of the function that a part burned
// in; where it has none, the part's name is the function's.
func (p profiled) check(t *testing.T, names map[string]string) {
	t.Helper()
	checkForm(t, p.recording, truthHz)
	for _, s := range p.profile.Sample {
		if got := labelPID(s); got != p.workload.pid() {
			t.Fatalf("a sample of pid %d in a profile of %d", got, p.workload.pid())
		}
		if got, want := label(s, "comm"), filepath.Base(p.workload.cmd.Path); got != want[:min(len(want), 15)] {
			t.Fatalf("comm %q, not %q", got, want)
		}
		if got := label(s, "exe"); got != p.workload.cmd.Path {
			t.Fatalf("exe %q, not %q", got, p.workload.cmd.Path)
		}
	}

	samples := count(p.profile, every)
	expected := float64(p.burned.Total) / 1e9 * truthHz
	t.Logf("%d samples of %.0f in %.2f s of CPU time (%.1f %%)", samples, expected, float64(p.burned.Total)/1e9, 100*float64(samples)/expected)
	// On a virtual machine stolen time counts as CPU time and gives no samples; more samples than time there cannot be.
	if float64(samples) < 0.5*expected || float64(samples) > expected && !fits(samples, expected) {
		t.Errorf("%d samples where the CPU time gives %.0f", samples, expected)
	}

	for part, nanos := range p.burned.CPU {
		name := exactly(part)
		if pattern, ok := names[part]; ok {
			name = regexp.MustCompile(pattern)
		}
		want := float64(nanos) / float64(p.burned.Total)
		checkShare(t, name.String()+" cumulative", float64(count(p.profile, contains(name)))/float64(samples), want, samples)
		checkShare(t, name.String()+" innermost", float64(count(p.profile, innermost(name)))/float64(samples), want, samples)
	}

	checkNamed(t, p.profile)
}

// checkCallers checks that nearly every sample innermost in one of the leaves has exactly the given callers. The
// exceptions are interrupts in a leaf's first or last instructions, where its frame is not there.
func (p profiled) checkCallers(t *testing.T, leaves string, callers ...string) {
	t.Helper()
	leaf := regexp.MustCompile(leaves)
	var inLeaf, right int64
	wrong := map[string]int64{}
	for _, s := range p.profile.Sample {
		if !innermost(leaf)(s) {
			continue
		}
		inLeaf += s.Value[0]
		var names []string
		for _, f := range user(frames(s))[1:] {
			names = append(names, f.name)
		}
		if len(names) >= len(callers) && fmt.Sprint(names[:len(callers)]) == fmt.Sprint(callers) {
			right += s.Value[0]
		} else {
			wrong[fmt.Sprint(names)] += s.Value[0]
		}
	}
	if inLeaf == 0 || float64(right) < 0.99*float64(inLeaf) {
		t.Errorf("%d of %d samples in %s are called by %v; the others by %v", right, inLeaf, leaves, callers, wrong)
	}
}

// One C program in the shapes in which a linker can leave it.
func TestTruthC(t *testing.T) {
	for variant, whole := range map[string]bool{
		"split":           true,
		"split-no-pie":    true,
		"split-prelinked": true,
		"split-dynsym":    true,
		// The start code of a static glibc calls main with something in the frame pointer that is none: the walk goes
		// astray beyond main, for want of unwind tables. (The shared glibc happens to have a 1 there.)
		"split-static": false,
	} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			p := profileWorkload(t, start(t, build(t, variant)))
			p.check(t, nil)
			p.checkCallers(t, "^burn_[abc]$", "middle", "work", "main")
			samples, cut := count(p.profile, every), cutStacks(p.profile)
			t.Logf("%d of %d stacks are cut", cut, samples)
			if whole && float64(cut) > 0.01*float64(samples) {
				t.Errorf("%d of %d stacks are cut", cut, samples)
			}
			for _, caller := range []string{"middle", "work", "main"} {
				checkShare(t, caller+" cumulative", float64(count(p.profile, contains(exactly(caller))))/float64(samples), 1, samples)
				checkShare(t, caller+" innermost", float64(count(p.profile, innermost(exactly(caller))))/float64(samples), 0, samples)
			}
		})
	}
}

// Functions of a stripped program have no names, but are told apart: all samples of one are shown at the place in the file where it starts.
func TestTruthStripped(t *testing.T) {
	t.Parallel()
	const stripped = "split-stripped"
	places := map[string]string{}
	whole, err := elf.Open(build(t, "split")) // the same code, with its symbols
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	symbols, err := whole.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF {
			continue
		}
		text := whole.Sections[s.Section]
		places[s.Name] = fmt.Sprintf("[%s+%#x]", stripped, s.Value-text.Addr+text.Offset)
	}
	p := profileWorkload(t, start(t, build(t, stripped)))
	checkForm(t, p.recording, truthHz)
	samples := count(p.profile, every)
	addresses := map[uint64]bool{}
	for part, nanos := range p.burned.CPU {
		name := exactly(places[part])
		share := float64(count(p.profile, innermost(name))) / float64(samples)
		checkShare(t, part+" as "+places[part], share, float64(nanos)/float64(p.burned.Total), samples)
	}
	for _, caller := range []string{"middle", "work", "main"} {
		checkShare(t, caller+" as "+places[caller], float64(count(p.profile, contains(exactly(places[caller]))))/float64(samples), 1, samples)
	}
	for _, s := range p.profile.Sample {
		if f := user(frames(s)); len(f) > 0 {
			addresses[f[0].location.Address] = true
		}
	}
	if len(addresses) < 10 {
		t.Errorf("%d addresses: the profile no longer tells where in a function a sample was", len(addresses))
	}
}

// A leaf without a frame: named itself, and its callers from the second on. The first is missing as long as stacks are
// walked by frame pointers; the test counts how often.
func TestTruthFramelessLeaf(t *testing.T) {
	t.Parallel()
	p := profileWorkload(t, start(t, build(t, "split-frameless")))
	p.checkCallers(t, "^burn_[ab]$", "middle", "work", "main")
	leaf, caller := exactly("frameless_leaf"), exactly("burn_c")
	samples := count(p.profile, every)
	inLeaf := count(p.profile, innermost(leaf))
	want := float64(p.burned.CPU["burn_c"]) / float64(p.burned.Total)
	checkShare(t, "frameless_leaf innermost", float64(inLeaf)/float64(samples), want, samples)
	for _, name := range []string{"middle", "work", "main"} {
		checkShare(t, name+" cumulative", float64(count(p.profile, contains(exactly(name))))/float64(samples), 1, samples)
	}
	missing := count(p.profile, func(s *profile.Sample) bool { return innermost(leaf)(s) && !contains(caller)(s) })
	t.Logf("frameless_leaf: %d of %d samples lack their caller burn_c, for want of unwind tables", missing, inLeaf)
}

func TestTruthCPlusPlus(t *testing.T) {
	t.Parallel()
	p := profileWorkload(t, start(t, build(t, "shapes")))
	lambda := `^work(\(\))?::\{lambda.*#1\}::operator\(\)$`
	p.check(t, map[string]string{"lambda": lambda})
	p.checkCallers(t, `^geo::area<geo::Circle, 7>$|^geo::Cube::volume$|`+lambda, "work", "main")
	for _, f := range p.profile.Function {
		if f.Name == "geo::area<geo::Circle, 7>" && f.SystemName != "_ZN3geo4areaINS_6CircleELi7EEEmRKT_m" {
			t.Errorf("%s has system name %q", f.Name, f.SystemName)
		}
	}
}

func TestTruthRust(t *testing.T) {
	for mangling, names := range map[string]map[string]string{
		"v0": {
			"generic":  `^names::turn::<names::Circle>$`,
			"trait":    `^<names::Square as names::Shape>::area$`,
			"inherent": `^<names::Circle>::perimeter$`,
			"closure":  `^names::main::\{closure#\d\}$`,
		},
		"legacy": {
			"generic":  `^names::turn$`,
			"trait":    `^<names::Square as names::Shape>::area$`,
			"inherent": `^names::Circle::perimeter$`,
			"closure":  `^names::main::\{\{closure\}\}$`,
		},
	} {
		t.Run(mangling, func(t *testing.T) {
			t.Parallel()
			p := profileWorkload(t, start(t, build(t, "names-"+mangling)))
			p.check(t, names)
			p.checkCallers(t, names["generic"]+"|"+names["trait"]+"|"+names["inherent"], "names::work", "names::main")
		})
	}
}

func TestTruthGo(t *testing.T) {
	for _, variant := range []string{"gosplit", "gosplit-stripped"} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			p := profileWorkload(t, start(t, build(t, variant)))
			p.check(t, nil)
			checkGoLines(t, p)
			checkPGO(t, p)
		})
	}
}

// marks returns the lines of the Go workload by the name after "// line: ", and the line of each func.
func marks(t *testing.T) (lines, starts map[string]int64) {
	t.Helper()
	source, err := os.ReadFile("workloads/gosplit/main.go")
	if err != nil {
		t.Fatal(err)
	}
	lines, starts = map[string]int64{}, map[string]int64{}
	function := regexp.MustCompile(`^func (?:\(\w+ \*?\w+\) )?(\w+)`)
	for i, line := range strings.Split(string(source), "\n") {
		if _, name, ok := strings.Cut(line, "// line: "); ok {
			lines[name] = int64(i + 1)
		}
		if match := function.FindStringSubmatch(line); match != nil {
			starts[match[1]] = int64(i + 1)
		}
	}
	return lines, starts
}

// checkGoLines checks files, lines and inlined calls of the Go workload.
func checkGoLines(t *testing.T, p profiled) {
	t.Helper()
	lines, starts := marks(t)
	chain := []string{"main.mix", "main.mixTwice", "main.burnInlined"}
	var burning, inlined int64
	for _, s := range p.profile.Sample {
		all := user(frames(s))
		if len(all) == 0 || !innermost(exactly("main.burnInlined"))(s) {
			continue
		}
		burning += s.Value[0]
		for i, f := range all {
			if f.name == "main.burnInlined" && i == 2 {
				inlined += s.Value[0]
			}
		}
		if all[0].name != "main.mix" {
			continue
		}
		if len(all) < 3 || len(all[0].location.Line) != 3 {
			t.Fatalf("main.mix is not inlined twice: %v", all)
		}
		for i, name := range chain {
			short := strings.TrimPrefix(name, "main.")
			if f := all[i]; f.name != name || f.line != lines[short] {
				t.Fatalf("inlined call %d is %s:%d, not %s:%d", i, f.name, f.line, name, lines[short])
			}
		}
	}
	t.Logf("%d of %d samples of main.burnInlined show both inlined calls", inlined, burning)
	if inlined < burning/10 || burning == 0 {
		t.Errorf("%d of %d samples of main.burnInlined show both inlined calls", inlined, burning)
	}
	seen := map[string]bool{}
	for _, f := range p.profile.Function {
		short := regexp.MustCompile(`^main\.(?:\(\*wheel\)\.)?(\w+)`).FindStringSubmatch(f.Name)
		if short == nil || strings.Contains(f.Name, ".func") || strings.HasSuffix(f.Name, "-fm") || starts[short[1]] == 0 {
			continue
		}
		seen[short[1]] = true
		if !strings.HasSuffix(f.Filename, "/workloads/gosplit/main.go") {
			t.Errorf("%s is in %q", f.Name, f.Filename)
		}
		if f.StartLine != starts[short[1]] {
			t.Errorf("%s starts at line %d, not %d", f.Name, f.StartLine, starts[short[1]])
		}
	}
	for _, name := range []string{"burnInlined", "mix", "mixTwice", "spin", "fold", "main"} {
		if !seen[name] {
			t.Errorf("no function main.%s", name)
		}
	}
}

// checkPGO checks that a Go build finds the hot call of the workload in the profile: the compiler wants the caller's
// start line, the line of the call, and the inlined call. preprofile writes what the compiler will use:
//
//	main.burnInlined
//	main.mixTwice
//	4 123456789
func checkPGO(t *testing.T, p profiled) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pgo")
	if text, err := exec.Command("go", "tool", "preprofile", "-i", p.path, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("go tool preprofile: %v\n%s", err, text)
	}
	edges, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines, starts := marks(t)
	edge := fmt.Sprintf("main.burnInlined\nmain.mixTwice\n%d ", lines["burnInlined"]-starts["burnInlined"])
	if !bytes.Contains(edges, []byte(edge)) {
		t.Errorf("a Go build does not find the call %q in the profile:\n%.2000s", edge, edges)
	}
}

func TestTruthThreads(t *testing.T) {
	t.Parallel()
	p := profileWorkload(t, start(t, build(t, "threads")))
	checkForm(t, p.recording, truthHz)
	samples := count(p.profile, every)
	for thread, nanos := range p.burned.CPU {
		n := count(p.profile, func(s *profile.Sample) bool { return label(s, "thread") == thread })
		checkShare(t, "thread "+thread, float64(n)/float64(samples), float64(nanos)/float64(p.burned.Total), samples)
	}
	burn := float64(count(p.profile, innermost(exactly("burn")))) / float64(samples)
	checkShare(t, "burn innermost", burn, 1, samples)
	p.checkCallers(t, "^burn$", "worker")
	for _, s := range p.profile.Sample {
		if got := label(s, "comm"); got != "threads" {
			t.Fatalf("comm is %q, not the group leader's name", got)
		}
	}
	checkNamed(t, p.profile)
}

// A library that is loaded in the middle of the profile.
func TestTruthLibraryLoadedLate(t *testing.T) {
	t.Parallel()
	w := start(t, build(t, "late"), build(t, "plugin.so"))
	load := time.AfterFunc(1500*time.Millisecond, func() { _ = w.cmd.Process.Signal(syscall.SIGUSR1) })
	defer load.Stop()
	p := profileWorkload(t, w)
	if p.burned.CPU["plugin_leaf"] == 0 {
		t.Fatal("the library was not loaded within the profile")
	}
	p.check(t, nil)
	p.checkCallers(t, "^plugin_leaf$", "plugin_burn", "work", "main")
	for _, s := range p.profile.Sample {
		if all := user(frames(s)); len(all) > 0 && all[0].name == "plugin_leaf" && all[0].file() != "plugin.so" {
			t.Fatalf("plugin_leaf is in mapping %q", all[0].file())
		}
	}
}

// Time in the kernel belongs to the user function that entered it, with the kernel's frames inside.
func TestTruthSystemCalls(t *testing.T) {
	t.Parallel()
	p := profileWorkload(t, start(t, build(t, "syscalls")))
	checkForm(t, p.recording, truthHz)
	samples := count(p.profile, every)
	share := func(part string) float64 { return float64(p.burned.CPU[part]) / float64(p.burned.Total) }
	for _, part := range []string{"read_blocks", "get_random", "compute"} {
		checkShare(t, part+" cumulative", float64(count(p.profile, contains(exactly(part))))/float64(samples), share(part), samples)
	}
	for part, entry := range map[string]string{"read_blocks": "sys_read$", "get_random": "sys_getrandom$"} {
		function, entryName := exactly(part), regexp.MustCompile(entry)
		calls := count(p.profile, contains(function))
		inside := count(p.profile, func(s *profile.Sample) bool {
			all := frames(s)
			return innermost(function)(s) && all[0].kernel() && contains(entryName)(s)
		})
		t.Logf("%s: %d of %d samples are in the kernel, under its system call", part, inside, calls)
		if float64(inside) < 0.95*float64(calls) {
			t.Errorf("%s: %d of %d samples are in the kernel, under its system call", part, inside, calls)
		}
	}
	p.checkCallers(t, "^(read_blocks|get_random|compute)$", "work", "main")

	// libc's read() has several names for one address, and no frame: see the workload.
	libc := regexp.MustCompile(`^(__GI_)?_*(libc_)?read$`)
	inRead := count(p.profile, contains(libc))
	checkShare(t, "read() of libc, cumulative", float64(inRead)/float64(samples), share("read_libc"), samples)
	missing := count(p.profile, func(s *profile.Sample) bool { return contains(libc)(s) && !contains(exactly("read_libc"))(s) })
	t.Logf("read() of libc: %d of %d samples lack their caller read_libc, for want of unwind tables", missing, inRead)

	checkNamed(t, p.profile)
}
