// SPDX-License-Identifier: Apache-2.0

// Package rights tests what the agent does with more and with fewer rights than it needs: which capability costs
// what, that each loss is said in one line, and that what is not needed after the start is gone.
//
// The tests run the real binary as root or nobody, in mount namespaces of their own, on processes that they
// started. They need root and a binary without cgo, and nothing else, so that they can run on other kernels; only those of
// the systemd unit need the tree, make, gcc and systemd-analyze:
//
//	CGO_ENABLED=0 go test -c -o rights.test ./test/rights
//	PILOTLIGHT=/bin/pilotlight ./rights.test -test.skip Unit        # in the virtual machine
package rights

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// folder is open to everyone, because much here runs as nobody.
	folder string
	// pilotlight is the binary under test: $PILOTLIGHT, or else built from the tree.
	pilotlight = os.Getenv("PILOTLIGHT")
	// self is a copy of this program that everyone can start.
	self string
)

// role is what this program is when a test starts it again.
const role = "PILOTLIGHT_TEST_ROLE"

var roles = map[string]func(){"burn": burn, "launch": launch, "confined": confined, "perf": perfEvent}

func TestMain(m *testing.M) {
	if run := roles[os.Getenv(role)]; run != nil {
		run()
		return
	}
	os.Exit(func() int {
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		return m.Run()
	}())
}

func setUp() (err error) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == unix.ENOTSUP {
		return fmt.Errorf("these tests change all their threads, which a cgo build cannot: CGO_ENABLED=0 go test ./test/rights")
	}
	if folder, err = os.MkdirTemp("", "pilotlight-rights-"); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}
	self = filepath.Join(folder, "rights")
	if err := copyFile("/proc/self/exe", self); err != nil {
		return err
	}
	if pilotlight != "" {
		return nil
	}
	pilotlight = filepath.Join(folder, "pilotlight")
	build := exec.Command("go", "build", "-o", pilotlight, "../../cmd/pilotlight")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building pilotlight: %w\n%s", err, out)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// burn is a target: it burns a fifth of a CPU in a function of a known name, in a child that comes and goes too if told
// so. It leaves the rest to the agent that looks at it, which needs it on an emulated machine.
func burn() {
	if os.Getenv("CHILDREN") != "" {
		for {
			child := exec.Command("/proc/self/exe")
			child.Env = []string{role + "=burn", "ROUNDS=200"}
			child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := child.Run(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	rounds := -1
	if text := os.Getenv("ROUNDS"); text != "" {
		_, _ = fmt.Sscan(text, &rounds)
	}
	for ; rounds != 0; rounds-- {
		began := time.Now()
		sink = burnCPU(sink)
		if rounds < 0 {
			time.Sleep(4 * time.Since(began))
		}
	}
}

var sink uint64

//go:noinline
func burnCPU(x uint64) uint64 {
	for range 1_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

// startBurner runs burn as root until the test's end, and returns its pid.
func startBurner(t *testing.T, env ...string) int {
	t.Helper()
	return startProgram(t, self, env...)
}

func startProgram(t *testing.T, program string, env ...string) int {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append([]string{role + "=burn"}, env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}
