// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// Every way to name a target gives exactly the processes it means, here by their function names.
func TestTargets(t *testing.T) {
	// a name of its own, so that --comm finds nothing on this host but the test's process
	name := fmt.Sprintf("pl-%d", os.Getpid())
	unique := filepath.Join(t.TempDir(), name)
	if err := os.Link(build(t, "split"), unique); err != nil {
		t.Fatal(err)
	}
	shapes, split := start(t, build(t, "shapes")), start(t, unique)
	cgroup := inNewCgroup(t, split.pid())
	t.Cleanup(split.stop) // before the cgroup is removed
	family := start(t, build(t, "execs"), "same", "20", "600")

	const splits, circles, child = "burn_a", "geo::area<geo::Circle, 7>", "child_burn_0000000000000000"
	for what, c := range map[string]struct {
		args []string
		has  []string
		not  []string
	}{
		"pid":      {[]string{"-p", strconv.Itoa(split.pid())}, []string{splits}, []string{circles, child}},
		"pids":     {[]string{"--pid", fmt.Sprintf("%d,%d", split.pid(), shapes.pid())}, []string{splits, circles}, []string{child}},
		"comm":     {[]string{"--comm", "^" + name + "$"}, []string{splits}, []string{circles, child}},
		"cgroup":   {[]string{"--cgroup", cgroup}, []string{splits}, []string{circles, child}},
		"parent":   {[]string{"-p", strconv.Itoa(family.pid())}, nil, []string{splits, circles, child}},
		"children": {[]string{"-p", strconv.Itoa(family.pid()), "--children"}, []string{child}, []string{splits, circles}},
	} {
		t.Run(what, func(t *testing.T) {
			r := record(t, append(c.args, "-F", "499", "-d", "2s")...)
			checkForm(t, r, 499)
			for _, name := range c.has {
				if count(r.profile, contains(exactly(name))) == 0 {
					t.Errorf("no sample in %s", name)
				}
			}
			for _, name := range c.not {
				if n := count(r.profile, contains(exactly(name))); n != 0 {
					t.Errorf("%d samples in %s", n, name)
				}
			}
		})
	}
}

// A descendant stays a target when its parent has gone.
func TestTargetsReparentedDescendant(t *testing.T) {
	t.Parallel()
	// the inner subshell ends at once, and init adopts what it has started
	family := fmt.Sprintf("( (sleep 0.5; %s 2) & ); sleep 3", build(t, "split"))
	r := record(t, "-F", "499", "--", "sh", "-c", family)
	if count(r.profile, contains(exactly("burn_a"))) == 0 {
		t.Error("no sample of the grandchild")
	}
}

// With --per-thread each sample carries its thread's id; without it none does.
func TestPerThread(t *testing.T) {
	w := start(t, build(t, "threads"))
	time.Sleep(100 * time.Millisecond) // its threads are started after "ready"
	tids := map[int64]bool{}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", w.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		tid, _ := strconv.ParseInt(entry.Name(), 10, 64)
		tids[tid] = true
	}
	for _, perThread := range []bool{false, true} {
		args := []string{"-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "1s"}
		if perThread {
			args = append(args, "--per-thread")
		}
		r := record(t, args...)
		byThread := map[int64]int64{}
		for _, s := range r.profile.Sample {
			if tid := s.NumLabel["tid"]; len(tid) == 1 {
				byThread[tid[0]] += s.Value[0]
			}
		}
		if !perThread && len(byThread) > 0 || perThread && len(byThread) < 3 {
			t.Errorf("per thread %v: samples by tid %v", perThread, byThread)
		}
		for tid := range byThread {
			if !tids[tid] {
				t.Errorf("a sample of thread %d, not one of %v", tid, tids)
			}
		}
		if n := count(r.profile, func(s *profile.Sample) bool { return len(s.NumLabel["tid"]) > 0 }); perThread && n != count(r.profile, every) {
			t.Errorf("%d of %d samples have a tid", n, count(r.profile, every))
		}
	}
}
