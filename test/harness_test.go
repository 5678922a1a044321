// SPDX-License-Identifier: Apache-2.0

// Package test holds Pilotlight's whole-system tests: they run the real binary on real processes and look at what a
// user would see. The processes are workloads (folder workloads) that know how they spent their time.
//
// The tests need root, gcc, g++, clang-19, musl-gcc, rustc, strip, setpriv and libc6-dbg; where one is missing they fail, they do not
// skip. Nothing but processes that a test started is ever sampled.
package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/test/workloads"
)

var (
	// folder is where this run's binaries are built; everyone can read it, because some tests run as nobody.
	folder string
	// pilotlight is the binary under test: $PILOTLIGHT, or else built from the tree.
	pilotlight = os.Getenv("PILOTLIGHT")
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if folder, err = os.MkdirTemp("", "pilotlight-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		if err := os.Chmod(folder, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// Every agent of these tests ends at a system call that its filter does not know.
		if err := os.Setenv("PILOTLIGHT_SECCOMP", "trap"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if pilotlight != "" {
			return m.Run()
		}
		pilotlight = filepath.Join(folder, "pilotlight")
		build := exec.Command("go", "build", "-o", pilotlight, "../cmd/pilotlight")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building pilotlight: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

var built sync.Map // name of a workload -> func() (path string, err error)

// build makes the workload at its first use and returns its path. In a machine without compilers it is in the folder that
// PILOTLIGHT_WORKLOADS names.
func build(t testing.TB, name string) string {
	t.Helper()
	if ready := os.Getenv("PILOTLIGHT_WORKLOADS"); ready != "" {
		return filepath.Join(ready, name)
	}
	once, _ := built.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		return workloads.Builder{Source: "workloads", Output: folder}.Build(name)
	}))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A report is one line of a workload (workloads/truth.h); all but Monotonic are cumulative CPU nanoseconds.
type report struct {
	Monotonic int64            `json:"monotonic"`
	Total     int64            `json:"total"`
	CPU       map[string]int64 `json:"cpu"`
}

// A workload is a running fixture. Its methods may be called from several goroutines.
type workload struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{} // closed when its output has been read to the end

	mu      sync.Mutex
	reports []report
	last    string // the last line of its output
}

// start runs a workload until the test's end and returns once it is ready.
func start(t testing.TB, path string, args ...string) *workload {
	t.Helper()
	return startCommand(t, exec.Command(path, args...))
}

// startCommand is start for a command with settings of its own.
func startCommand(t testing.TB, cmd *exec.Cmd) *workload {
	t.Helper()
	w := &workload{cmd: cmd, ended: make(chan struct{})}
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if w.cmd.SysProcAttr == nil {
		w.cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	// it must not outlive a test binary that was killed
	w.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stop)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("%s said %q instead of \"ready\"", cmd.Path, lines.Text())
	}
	go func() {
		defer close(w.ended)
		for lines.Scan() {
			var r report
			w.mu.Lock()
			w.last = lines.Text()
			if json.Unmarshal(lines.Bytes(), &r) == nil && r.Monotonic != 0 {
				w.reports = append(w.reports, r)
			}
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *workload) pid() int { return w.cmd.Process.Pid }

// stop ends the workload by SIGTERM and reads its output to the end. It may be called again.
func (w *workload) stop() {
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	_ = w.stdin.Close()
	w.wait()
}

// wait returns the last line of the workload once it has ended by itself.
func (w *workload) wait() string {
	<-w.ended
	_ = w.cmd.Wait()
	return w.lastLine()
}

func (w *workload) lastLine() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// burned returns what the workload burned between two moments of CLOCK_MONOTONIC, interpolated between the reports
// around each (a tenth of a second apart).
func (w *workload) burned(t testing.TB, from, to int64) report {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) < 2 {
		t.Fatalf("%s made %d reports", w.cmd.Path, len(w.reports))
	}
	a, b := interpolate(w.reports, from), interpolate(w.reports, to)
	split := report{Monotonic: to - from, Total: b.Total - a.Total, CPU: map[string]int64{}}
	for name := range b.CPU {
		split.CPU[name] = b.CPU[name] - a.CPU[name]
	}
	return split
}

func interpolate(reports []report, at int64) report {
	if at <= reports[0].Monotonic {
		return reports[0]
	}
	for i := 1; i < len(reports); i++ {
		a, b := reports[i-1], reports[i]
		if at > b.Monotonic {
			continue
		}
		between := func(x, y int64) int64 {
			return x + int64(float64(y-x)*float64(at-a.Monotonic)/float64(b.Monotonic-a.Monotonic))
		}
		r := report{Monotonic: at, Total: between(a.Total, b.Total), CPU: map[string]int64{}}
		for name := range b.CPU {
			r.CPU[name] = between(a.CPU[name], b.CPU[name])
		}
		return r
	}
	return reports[len(reports)-1]
}

// A result is how a run of pilotlight ended.
type result struct {
	code           int // exit status; 128+signal if a signal ended it, as a shell says it
	stdout, stderr string
	usage          *syscall.Rusage
}

// hang is how long a command may take before a test calls it hung. It is no expectation of its speed.
const hang = 2 * time.Minute

// run runs pilotlight to its end.
func run(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	cmd := exec.CommandContext(ctx, pilotlight, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("pilotlight %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("pilotlight %s hung\n%s", strings.Join(args, " "), stderr.String())
	}
	return result{exitCode(cmd.ProcessState), stdout.String(), stderr.String(), cmd.ProcessState.SysUsage().(*syscall.Rusage)}
}

func exitCode(state *os.ProcessState) int {
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// record runs `pilotlight record -o FILE args...`, which must succeed, and reads the profile.
func record(t testing.TB, args ...string) recording {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile.pb.gz")
	before := time.Now()
	r := run(t, append([]string{"record", "-o", path}, args...)...)
	if r.code != 0 {
		t.Fatalf("pilotlight record %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return recording{profile: readProfile(t, path), path: path, result: r, started: before, ended: time.Now()}
}

// monotonic converts wall-clock nanoseconds, as profiles have them, to CLOCK_MONOTONIC, as workloads have it.
func monotonic(t testing.TB, wallNanos int64) int64 {
	t.Helper()
	read := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano()
	}
	// The two clocks are read one after the other, and the machine may do something else between: the closest of some readings counts.
	apart, offset := int64(math.MaxInt64), int64(0)
	for range 20 {
		before := read()
		wall := time.Now().UnixNano()
		after := read()
		if after-before < apart {
			apart, offset = after-before, before+(after-before)/2-wall
		}
	}
	return wallNanos + offset
}

// heedHangup lets programs that the test starts heed SIGHUP, even where the test itself was started to ignore it (nohup): a signal
// that is caught here is reset for them, and one that is ignored stays so.
func heedHangup(t *testing.T) {
	t.Helper()
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(caught) })
}
