// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/pprof/profile"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestScripts runs testdata/script/*.txtar: the exit statuses and messages of the contract. Beside testscript's own
// commands they have
//
//	exits STATUS COMMAND ARG...   COMMAND ends with that status (128+signal if a signal ended it)
//	target PATH ARG...            starts a workload; its pid is $TARGET
//	profile FILE                  FILE is a complete pprof profile
//
// the condition [pmu] (the machine counts hardware cycles),
// and $pilotlight, $NOBODY (a command prefix: without any privilege), $split, $exits, $execs.
func TestScripts(t *testing.T) {
	programs := map[string]string{}
	for _, name := range []string{"split", "exits", "execs"} {
		programs[name] = build(t, name)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(hang),
		Setup: func(env *testscript.Env) error {
			env.Setenv("pilotlight", pilotlight)
			for name, path := range programs {
				env.Setenv(name, path)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "target": scriptTarget, "profile": scriptProfile,
		},
		Condition: func(name string) (bool, error) {
			if name != "pmu" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return countsCycles()
		},
	})
}

// countsCycles asks the kernel for a hardware counter of this process's cycles.
func countsCycles() (bool, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES, Bits: unix.PerfBitDisabled}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, unix.Close(fd)
}

func scriptExits(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND ARG...")
	}
	got := 0
	if args[1] == "nobody" {
		args = append([]string{args[0], "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all"}, args[2:]...)
	}
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exitCode(exit.ProcessState)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, not %s", got, args[0])
	}
}

func scriptTarget(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) < 1 {
		ts.Fatalf("usage: target PATH ARG...")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ts.Setenv("TARGET", strconv.Itoa(cmd.Process.Pid))
}

func scriptProfile(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) != 1 {
		ts.Fatalf("usage: profile FILE")
	}
	p, err := profile.ParseData([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(p.CheckValid())
	ts.Logf("%d samples", count(p, every))
}

// At whatever moment a signal comes, what was collected is written and the status is 0.
func TestRecordInterrupted(t *testing.T) {
	heedHangup(t)
	w := start(t, build(t, "split"))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 10 {
		signal := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}[i%3]
		// from the first moments, in which the program loads its BPF, to a steady run
		moment := 50*time.Millisecond + time.Duration(random.Int64N(int64(1500*time.Millisecond)))
		path := filepath.Join(t.TempDir(), "profile.pb.gz")
		cmd := exec.Command(pilotlight, "record", "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "60s", "-o", path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(moment)
		began := time.Now()
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		took := time.Since(began)
		if code := exitCode(cmd.ProcessState); code != 0 || took > 5*time.Second {
			t.Errorf("%v after %v: exit %d in %v\n%s", signal, moment, code, took, stderr.String())
			continue
		}
		p := readProfile(t, path)
		checkConservation(t, p)
		t.Logf("%v after %v: ended in %v with %d samples", signal, moment, took, count(p, every))
		if leftovers, _ := os.ReadDir(filepath.Dir(path)); len(leftovers) != 1 {
			t.Errorf("%v after %v left %v", signal, moment, leftovers)
		}
	}
}

// What nohup has started outlives its terminal: it records until its time is over.
func TestRecordNohup(t *testing.T) {
	w := start(t, build(t, "split"))
	path := filepath.Join(t.TempDir(), "profile.pb.gz")
	cmd := exec.Command("nohup", pilotlight, "record", "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "4s", "-o", path)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code, took := exitCode(cmd.ProcessState), time.Since(began); code != 0 || took < 4*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
	if p := readProfile(t, path); count(p, every) == 0 {
		t.Error("no samples")
	}
}

// Interrupting a recorded command is no failure of it: status 0, and its profile is written.
func TestRecordCommandInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.pb.gz")
	cmd := exec.Command(pilotlight, "record", "-F", "499", "-o", path, "--", build(t, "split"), "20")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil { // as a terminal does
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := exitCode(cmd.ProcessState); code != 0 {
		t.Errorf("exit %d", code)
	}
	if p := readProfile(t, path); count(p, contains(exactly("burn_a"))) == 0 {
		t.Error("the profile lacks what was collected")
	}
}

// A file is replaced atomically: whoever opens it finds the old content or a whole profile.
func TestRecordReplacesAtomically(t *testing.T) {
	w := start(t, build(t, "split"))
	path := filepath.Join(t.TempDir(), "profile.pb.gz")
	old := []byte("the old content")
	if err := os.WriteFile(path, old, 0o640); err != nil {
		t.Fatal(err)
	}
	stop, reads := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				reads <- nil
				return
			default:
			}
			content, err := os.ReadFile(path)
			if err == nil && !bytes.Equal(content, old) {
				_, err = profile.ParseData(content)
			}
			if err != nil {
				reads <- fmt.Errorf("%d bytes: %w", len(content), err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	r := run(t, "record", "-p", strconv.Itoa(w.pid()), "-d", "1s", "-o", path)
	close(stop)
	if err := <-reads; err != nil {
		t.Errorf("a reader found a file that is neither: %v", err)
	}
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	readProfile(t, path)
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left beside it: %v", files)
	}
}

func TestRecordIntoPipes(t *testing.T) {
	w := start(t, build(t, "split"))
	target := []string{"record", "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "1s", "-o"}

	r := run(t, append(target, "-")...)
	p, err := profile.ParseData([]byte(r.stdout))
	if r.code != 0 || err != nil || count(p, every) == 0 {
		t.Errorf("-o -: exit %d, %v\n%s", r.code, err, r.stderr)
	}

	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	content := make(chan []byte)
	go func() {
		file, err := os.Open(fifo)
		if err != nil {
			content <- nil
			return
		}
		defer file.Close()
		all, _ := io.ReadAll(file)
		content <- all
	}()
	r = run(t, append(target, fifo)...)
	if r.code != 0 {
		t.Fatalf("-o FIFO: exit %d\n%s", r.code, r.stderr)
	}
	if p, err := profile.ParseData(<-content); err != nil || count(p, every) == 0 {
		t.Errorf("-o FIFO: %v", err)
	}
	if info, err := os.Lstat(fifo); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe was replaced: %v %v", info, err)
	}

	// a reader that goes away is no success; a death by SIGPIPE says so as well as a message
	cmd := exec.Command(pilotlight, append(target, "-")...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	cmd.Stdout = writer
	_ = cmd.Run()
	writer.Close()
	if code := exitCode(cmd.ProcessState); code != 1 && code != 128+int(syscall.SIGPIPE) {
		t.Errorf("-o - into a closed pipe: exit %d", code)
	}
}

// A full disk is said, with the file's name, and leaves what was there before.
func TestRecordOnFullDisk(t *testing.T) {
	w := start(t, build(t, "split"))
	disk := t.TempDir()
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(disk, "profile.pb.gz")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling %s: %v", disk, err)
	}
	r := run(t, "record", "-p", strconv.Itoa(w.pid()), "-d", "1s", "-o", path)
	if r.code != 1 || !strings.Contains(r.stderr, "no space left") || !strings.Contains(r.stderr, path) {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if content, _ := os.ReadFile(path); string(content) != "old" {
		t.Errorf("the file that was there now holds %q", content)
	}
	if files, _ := os.ReadDir(disk); len(files) != 2 {
		t.Errorf("left beside it: %v", files)
	}
}

// A target that ends during the recording ends it: its profile is written, with status 0.
func TestRecordTargetEnds(t *testing.T) {
	w := start(t, build(t, "split"), "2")
	r := record(t, "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "4s")
	checkForm(t, r, 499)
	if count(r.profile, contains(exactly("burn_a"))) == 0 {
		t.Error("no sample of the time before its end")
	}
}

// Descendants of a started command are recorded from their first instruction, and only they.
func TestRecordCommandAndDescendants(t *testing.T) {
	r := record(t, "-F", "499", "--", "sh", "-c", build(t, "split")+" 1 & "+build(t, "shapes")+" 1; wait")
	checkForm(t, r, 499)
	for _, name := range []string{"burn_a", "geo::Cube::volume"} {
		if count(r.profile, contains(exactly(name))) == 0 {
			t.Errorf("no sample in %s", name)
		}
	}
	for _, s := range r.profile.Sample {
		if comm := label(s, "comm"); comm != "sh" && comm != "split" && comm != "shapes" && comm != "pilotlight" {
			t.Errorf("a sample of %q", comm)
		}
	}
}

func TestRecordFolded(t *testing.T) {
	w := start(t, build(t, "split"))
	r := run(t, "record", "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "1s", "--format", "folded", "-o", "-")
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	var total int
	for _, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		i := strings.LastIndexByte(line, ' ')
		n, err := strconv.Atoi(line[i+1:])
		if err != nil || n <= 0 {
			t.Fatalf("line %q is not \"frame;frame;frame count\"", line)
		}
		total += n
	}
	if total == 0 || !strings.Contains(r.stdout, "main;work;middle;burn_a") {
		t.Errorf("%d samples:\n%.1000s", total, r.stdout)
	}
}
