// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// A pidNamespace is a container, as far as processes are concerned: they have numbers of their own there, and /proc shows those.
type pidNamespace struct{ init *workload }

// newPIDNamespace makes one. Its end is the end of all in it; a test defers it, so that it comes before the cleanups
// that wait for them.
func newPIDNamespace(t testing.TB) *pidNamespace {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "mount -t proc proc /proc && echo ready && read line")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	return &pidNamespace{startCommand(t, cmd)}
}

func (n *pidNamespace) end() { n.init.stop() }

// enter is the command line that runs another one inside.
func (n *pidNamespace) enter(args ...string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(n.init.pid()), "-m", "-p"}, args...)
}

// start runs a workload inside, by way of other commands if there are any, and tells its number there.
func (n *pidNamespace) start(t testing.TB, args ...string) (pid int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pid")
	args = n.enter(append([]string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, file}, args...)...)
	startCommand(t, exec.Command(args[0], args[1:]...))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	return pid
}

// runsPilotlight makes the tests' pilotlight run inside until the test ends.
func (n *pidNamespace) runsPilotlight(t testing.TB) {
	t.Helper()
	wrapper := filepath.Join(t.TempDir(), "pilotlight")
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", strings.Join(n.enter(pilotlight), " "))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	outside := pilotlight
	pilotlight = wrapper
	t.Cleanup(func() { pilotlight = outside })
}

// samplesByPID counts a profile's samples that match.
func samplesByPID(p *profile.Profile, match func(*profile.Sample) bool) map[int]int64 {
	samples := make(map[int]int64)
	for _, s := range p.Sample {
		if match(s) {
			samples[labelPID(s)] += s.Value[0]
		}
	}
	return samples
}

// checkNamespaceLoss looks for the one line that says what is lost.
func checkNamespaceLoss(t *testing.T, stderr string) {
	t.Helper()
	var said []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "pid namespace") && strings.Contains(line, "lost:") {
			said = append(said, line)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "--pid=host") || !strings.Contains(said[0], "hostPID: true") {
		t.Errorf("the loss and its remedy in one line: %q", said)
	}
}

// In a pid namespace of its own pilotlight samples the processes that are there, by their numbers there, and no others.
func TestTargetsInPIDNamespace(t *testing.T) {
	n := newPIDNamespace(t)
	defer n.end()
	load := build(t, "load")
	outside := start(t, build(t, "split"))
	inside := n.start(t, load, "1", "1", "30")
	// In a namespace below it a process has numbers in both; the shell's is that of unshare, whose child it is.
	unshare := n.start(t, "unshare", "-p", "-f", load, "1", "1", "30")
	family := n.start(t, build(t, "execs"), "same", "20", "600")
	n.runsPilotlight(t)

	const child = "child_burn_0000000000000000"
	isLoad := func(s *profile.Sample) bool { return innermost(exactly("burn_load"))(s) && label(s, "comm") == "load" }
	t.Run("whole", func(t *testing.T) {
		r := record(t, "-F", "499", "-d", "2s")
		checkForm(t, r, 499)
		checkConservation(t, r.profile)
		checkNamespaceLoss(t, r.result.stderr)
		loads := samplesByPID(r.profile, isLoad)
		if pids := slices.Sorted(maps.Keys(loads)); len(pids) != 2 || pids[0] != inside || pids[1] <= unshare {
			t.Errorf("samples in burn_load by process: %v; want some of process %d and some of a child of %d", loads, inside, unshare)
		}
		if n := count(r.profile, contains(exactly(child))); n == 0 {
			t.Error("no sample of processes that are started meanwhile")
		}
		if n := count(r.profile, contains(exactly("burn_a"))); n != 0 {
			t.Errorf("%d samples of process %d, which is outside", n, outside.pid())
		}
		for _, s := range r.profile.Sample {
			if pid, exe := labelPID(s), label(s, "exe"); pid < 1 || exe == "" {
				t.Errorf("a sample of process %d, %q: %v, %v", pid, exe, s.Label, names(frames(s)))
			}
			if isLoad(s) && label(s, "exe") != load {
				t.Errorf("burn_load in %q, not %q", label(s, "exe"), load)
			}
		}
		checkNamed(t, r.profile)
	})
	t.Run("pid", func(t *testing.T) {
		r := record(t, "-p", strconv.Itoa(inside), "-F", "499", "-d", "1s", "--per-thread")
		checkForm(t, r, 499)
		all := samplesByPID(r.profile, every)
		if loads := samplesByPID(r.profile, isLoad); loads[inside] == 0 || len(all) != 1 {
			t.Errorf("samples by process: %v, in burn_load %v; want process %d", all, loads, inside)
		}
		for _, s := range r.profile.Sample {
			if tid := s.NumLabel["tid"]; len(tid) != 1 || tid[0] != int64(inside) {
				t.Errorf("a sample of thread %v of process %d, which has one thread", tid, inside)
			}
		}
	})
	t.Run("children", func(t *testing.T) {
		for _, args := range [][]string{nil, {"--children"}} {
			r := record(t, append(args, "-p", strconv.Itoa(family), "-F", "499", "-d", "2s")...)
			checkConservation(t, r.profile)
			if n := count(r.profile, contains(exactly(child))); (n > 0) != (args != nil) {
				t.Errorf("%v: %d samples of children", args, n)
			}
			if n := count(r.profile, contains(exactly("burn_load"))); n != 0 {
				t.Errorf("%v: %d samples of another process", args, n)
			}
		}
	})
	t.Run("command", func(t *testing.T) {
		r := record(t, "-F", "499", "--", "sh", "-c", build(t, "split")+" 1; true")
		checkForm(t, r, 499)
		if count(r.profile, contains(exactly("burn_a"))) == 0 || count(r.profile, contains(exactly("burn_load"))) != 0 {
			t.Errorf("%d samples of the command, %d of another process", count(r.profile, contains(exactly("burn_a"))), count(r.profile, contains(exactly("burn_load"))))
		}
	})
	t.Run("target ends", func(t *testing.T) {
		target, path := strconv.Itoa(n.start(t, load, "1", "1", "30")), filepath.Join(t.TempDir(), "profile.pb.gz")
		cmd := exec.CommandContext(t.Context(), pilotlight, "record", "-p", target, "-F", "499", "-d", "90s", "-o", path)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(stderr)
		if line, err := said.ReadString('\n'); !strings.Contains(line, "lost:") { // it says so once it samples
			t.Fatalf("%q, %v", line, err)
		}
		time.Sleep(2 * time.Second)
		kill := n.enter("kill", target)
		if out, err := exec.Command(kill[0], kill[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("kill %s: %v\n%s", target, err, out)
		}
		rest, _ := io.ReadAll(said)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, rest)
		}
		p := readProfile(t, path)
		checkConservation(t, p)
		if length := time.Duration(p.DurationNanos); length > time.Minute {
			t.Errorf("%s recorded of a target that ended after a few seconds", length)
		}
		if count(p, isLoad) == 0 {
			t.Errorf("no sample of the time before its end\n%s", rest)
		}
	})
}

// The agent does so under its own confinement, and counts what it leaves out.
func TestTargetsOfAgentInPIDNamespace(t *testing.T) {
	n := newPIDNamespace(t)
	defer n.end()
	start(t, build(t, "split")) // outside
	inside := n.start(t, build(t, "load"), "1", "1", "30")
	n.runsPilotlight(t)
	a := startAgent(t, "-F", "499", "--exclude-self")
	later := n.start(t, build(t, "load"), "1", "1", "30")
	p, err := a.collect(t, "seconds=2")
	if err != nil {
		t.Fatal(err)
	}
	loads, all := samplesByPID(p, innermost(exactly("burn_load"))), samplesByPID(p, every)
	if loads[inside] == 0 || loads[later] == 0 || len(loads) != 2 {
		t.Errorf("samples in burn_load by process: %v; want processes %d and %d", loads, inside, later)
	}
	if n := count(p, contains(exactly("burn_a"))); n != 0 {
		t.Errorf("%d samples of a process outside", n)
	}
	t.Logf("samples by process: %v", all)
	checkNamed(t, p)
	checkNamespaceLoss(t, a.said())
	code, body := a.get(t, "/metrics")
	var left float64
	for line := range strings.Lines(body) {
		_, _ = fmt.Sscanf(line, `pilotlight_samples_filtered_total{cause="namespace"} %g`, &left)
	}
	if code != 200 || left < 100 {
		t.Errorf("/metrics: %d, %g samples of processes outside", code, left)
	}
}
