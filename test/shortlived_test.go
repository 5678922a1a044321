// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// A family is the last line of workloads/execs.c.
type family struct {
	Children int      `json:"children"`
	CPUNanos int64    `json:"cpu_nanos"`
	Failed   int      `json:"failed"`
	PIDs     []int    `json:"pids"`
	CPU      []int64  `json:"cpu"`
	Stamps   []string `json:"stamps"`
}

func parseFamily(t testing.TB, output string) family {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var f family
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil || f.Children == 0 || f.Failed != 0 {
		t.Fatalf("execs said %.300q: %v", output, err)
	}
	return f
}

// named counts what became of the samples of short-lived children.
type named struct {
	all       int64            // samples of the children
	exec      int64            // inside execve, when the image that the user pc belongs to is already gone
	own       int64            // the innermost user frame lies in the child's binary, or nobody knows where
	right     int64            // of own: it has the name that this very child's binary gives it
	reasons   map[string]int64 // of own: what stands in place of the name
	unexcused int64            // of own: neither a name nor a reason
}

// Thirty children a second that live 20 ms: none may be missing, and those that were in their own binary have its names.
//
// A binary that was seen before must be named nearly always. One that is new with every child must be opened while that
// child lives, a race that a busy machine can win: the shares are reported, the rest must carry a reason, and no child
// may ever be given another's names.
func TestShortLived(t *testing.T) {
	const hz, rate, seconds = 499, 30, 8
	for _, mode := range []struct {
		name string
		// of the samples in the child's own binary, how many must carry its function names
		leastNamed float64
	}{
		{"same", 0.99},
		{"fresh", 0.90},
		{"mntns", 0.75},
	} {
		t.Run(mode.name, func(t *testing.T) {
			execs := build(t, "execs")
			args := []string{"-F", strconv.Itoa(hz), "--", execs, mode.name, strconv.Itoa(rate), strconv.Itoa(seconds)}
			if mode.name != "same" {
				args = append(args, t.TempDir())
			}
			r := record(t, args...)
			checkForm(t, r, hz)
			f := parseFamily(t, r.result.stdout)
			children := map[int]string{}
			for i, pid := range f.PIDs {
				children[pid] = f.Stamps[i]
			}
			if len(children) != f.Children {
				t.Fatal("pids were reused within the run") // 240 of 32768 or more
			}

			seen := map[int]int64{}
			for _, s := range r.profile.Sample {
				seen[labelPID(s)] += s.Value[0]
			}
			var missing []int
			for pid := range children {
				if seen[pid] == 0 {
					missing = append(missing, pid)
				}
			}
			if len(missing) > 0 {
				t.Errorf("%d of %d children have no sample: %v", len(missing), f.Children, missing)
			}

			n := namedOf(r.profile, children)
			expected := float64(f.CPUNanos) / 1e9 * hz
			t.Logf("%s: %d children, %d samples of %.0f in %.2f s of CPU time (%.1f %%)",
				mode.name, f.Children, n.all, expected, float64(f.CPUNanos)/1e9, 100*float64(n.all)/expected)
			t.Logf("%s: %d samples in the child's own binary, %.2f %% with its names; the others: %v; %d inside execve, after the old image's end",
				mode.name, n.own, 100*float64(n.right)/float64(n.own), n.reasons, n.exec)
			if !fits(n.all, expected) {
				t.Errorf("%d samples where the children's CPU time gives %.0f", n.all, expected)
			}
			// a child burns in its own binary for all of its time but fork, exec, loader and exit
			if float64(n.own) < 0.8*float64(n.all) {
				t.Errorf("only %d of %d samples are in the child's own binary", n.own, n.all)
			}
			if float64(n.right) < mode.leastNamed*float64(n.own) {
				t.Errorf("%d of %d samples in the child's own binary carry its names", n.right, n.own)
			}
			if n.unexcused > 0 {
				t.Errorf("%d samples have neither a name nor a reason", n.unexcused)
			}
		})
	}
}

// namedOf judges the samples of children, given by pid with the stamp of each one's binary.
func namedOf(p *profile.Profile, children map[int]string) named {
	n := named{reasons: map[string]int64{}}
	for _, s := range p.Sample {
		stamp, ok := children[labelPID(s)]
		if !ok {
			continue
		}
		n.all += s.Value[0]
		all := user(frames(s))
		if len(all) == 0 {
			continue // in the kernel with no user stack: before the first instruction or after the last
		}
		first := all[0]
		inOwn := first.file() == "execs" || strings.HasPrefix(first.file(), "child-")
		nowhere := first.location.Mapping == nil || first.location.Mapping.File == "" || first.truncation()
		if !inOwn && !nowhere {
			continue // libc, the loader, the vdso
		}
		if nowhere && inExec(s) {
			n.exec += s.Value[0]
			continue
		}
		n.own += s.Value[0]
		switch {
		case first.named() && !misnamed(all, stamp):
			n.right += s.Value[0]
		case first.named():
			n.reasons["another binary's name "+first.name] += s.Value[0]
			n.unexcused += s.Value[0]
		default:
			reason := reasonOf(all)
			n.reasons[reason] += s.Value[0]
			if reason == "" {
				n.unexcused += s.Value[0]
			}
		}
	}
	return n
}

// inExec says whether a sample was taken inside execve.
var inExec = contains(regexp.MustCompile(`sys_execve(at)?$`))

// misnamed says whether a stack holds a function that only another child's binary has.
func misnamed(all []frame, stamp string) bool {
	for _, f := range all {
		if strings.HasPrefix(f.name, "child_burn_") && f.name != "child_burn_"+stamp {
			return true
		}
	}
	return false
}

// reasonOf returns the outermost bracketed frame: [truncated: ...] or [file+0xoffset]; "" if there is none.
func reasonOf(all []frame) string {
	for i := len(all) - 1; i >= 0; i-- {
		if strings.HasPrefix(all[i].name, "[") {
			text, _, _ := strings.Cut(all[i].name, "+0x")
			if strings.HasPrefix(text, "[child-") {
				text = "[child-STAMP"
			}
			return text
		}
	}
	return ""
}

// A hundred execs a second cost the profiler at most 3 % of a core in user space.
func TestExecCost(t *testing.T) {
	const rate, seconds = 100, 8
	execs, exits := build(t, "execs"), build(t, "exits")
	// one second of execs before, so that what the first costs (naming the binary) and the start are not measured
	w := start(t, execs, "program", strconv.Itoa(rate), strconv.Itoa(seconds+2), exits)
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--children")
	time.Sleep(time.Second)
	before, began := userTime(t, a.pid()), time.Now()
	time.Sleep(seconds * time.Second)
	share := (userTime(t, a.pid()) - before).Seconds() / time.Since(began).Seconds()
	t.Logf("%d execs a second: %.2f %% of a core in user space", rate, 100*share)
	if share > 0.03 {
		t.Errorf("%d execs a second cost %.2f %% of a core in user space, more than 3 %%", rate, 100*share)
	}
}

// userTime reads utime, in ticks of 10 ms, from a line such as
//
//	7 (a name) S 1 7 7 0 -1 4194560 90 0 0 0 UTIME STIME ...
func userTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Ten thousand forks leave nothing behind in a running agent.
func TestForksLeaveNothing(t *testing.T) {
	w := start(t, build(t, "execs"), "wait")
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--children")
	forks := func(n int) {
		t.Helper()
		before := w.lastLine()
		fmt.Fprintf(w.stdin, "forks %d\n", n)
		for w.lastLine() == before {
			time.Sleep(10 * time.Millisecond)
		}
		parseFamily(t, w.lastLine())
		// The agent keeps the dead for 2 s, and looks for them each second, after a round of 400 ms.
		time.Sleep(4 * time.Second)
	}
	forks(2000) // buffers and caches grow to their size
	tracked, anonymous, descriptors := a.tracked(t), a.anonymousBytes(t), a.descriptors(t)
	forks(10000)
	// A leak of 1 KiB a process would be 10 MiB. On a busy host Go's heap swings as far by its garbage; a leak grows on.
	grown, most := a.anonymousBytes(t)-anonymous, int64(8<<20)
	if grown > most {
		forks(40000)
		grown, most = a.anonymousBytes(t)-anonymous, 24<<20
	}
	t.Logf("10,000 forks: tracked processes %d -> %d, anonymous memory %d -> %d KiB, descriptors %d -> %d",
		tracked, a.tracked(t), anonymous>>10, (anonymous+grown)>>10, descriptors, a.descriptors(t))
	if grown > most {
		t.Errorf("anonymous memory grew by %d KiB", grown>>10)
	}
	if got := a.tracked(t); got > tracked+100 { // the host's other processes come and go
		t.Errorf("%d processes tracked before, %d after", tracked, got)
	}
	if got := a.descriptors(t); got > descriptors {
		t.Errorf("%d descriptors before, %d after: %v", descriptors, got, a.descriptorNames())
	}
}

func (a *agent) anonymousBytes(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

func (a *agent) descriptorNames() []string {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", a.pid()))
	var names []string
	for _, path := range paths {
		name, _ := os.Readlink(path)
		names = append(names, name)
	}
	return names
}

func (a *agent) descriptors(t testing.TB) int {
	t.Helper()
	var n int
	for _, name := range a.descriptorNames() {
		if !strings.HasPrefix(name, "socket:") { // this test's own connections to the agent
			n++
		}
	}
	return n
}

func (a *agent) tracked(t testing.TB) int64 {
	t.Helper()
	return int64(a.metrics(t)["pilotlight_processes_tracked"])
}
