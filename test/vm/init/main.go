// Command init is the first process of a test machine. It makes a small Linux of an initramfs, runs the programs of
// /plan one after the other, adds up what their tests said, prints
//
//	UNAME_R ARCH: N passed, M failed, K skipped
//
// and turns the machine off.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		if err := runPlan("/plan"); err != nil {
			fmt.Println("init:", err)
			os.Exit(1)
		}
		return
	}
	if err := prepare(); err != nil {
		fmt.Println("init:", err)
	}
	if err := superviseRunner(); err != nil {
		fmt.Println("init:", err)
	}
	unix.Sync()
	// The console sends what it has; turned off at once, the last line would be lost.
	time.Sleep(200 * time.Millisecond)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("init: turn off:", err)
	}
}

// prepare mounts what a Linux has. Cgroups are hybrid, as many hosts have them: v2 beside v1 controllers.
func prepare() error {
	var errs []error
	for _, m := range []struct{ fsType, point, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"tmpfs", "/dev/shm", ""},
		{"securityfs", "/sys/kernel/security", ""},
		{"tmpfs", "/sys/fs/cgroup", "mode=755"},
		{"cgroup2", "/sys/fs/cgroup/unified", ""},
		{"cgroup", "/sys/fs/cgroup/cpu", "cpu"},
	} {
		errs = append(errs, os.MkdirAll(m.point, 0o755))
		if err := unix.Mount(m.fsType, m.point, m.fsType, 0, m.data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.point, err))
		}
	}
	for _, folder := range []string{"/var/lib", "/root"} {
		errs = append(errs, os.MkdirAll(folder, 0o755))
	}
	errs = append(errs, os.Chmod("/tmp", 0o1777))
	// The kernel's own default. Debian's, 3, makes CAP_PERFMON worth nothing; the tests of rights set it for themselves.
	errs = append(errs, os.WriteFile("/proc/sys/kernel/perf_event_paranoid", []byte("2"), 0))
	for _, command := range []string{"/bin/busybox --install -s /bin", "/bin/busybox ip link set lo up"} {
		fields := strings.Fields(command)
		if out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w %s", command, err, out))
		}
	}
	return errors.Join(errs...)
}

// superviseRunner runs this program again as the one that runs the plan, and buries orphans until that one ends.
func superviseRunner() error {
	runner, err := os.StartProcess("/init", []string{"/init"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Env: []string{
			"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8",
			"PILOTLIGHT=/bin/pilotlight", "PILOTLIGHT_WORKLOADS=/workloads",
		},
	})
	if err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == runner.Pid || errors.Is(err, unix.ECHILD) {
			return nil
		}
	}
}

// tally counts tests, not their parts.
type tally struct{ passed, failed, skipped int }

func runPlan(path string) error {
	plan, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var sum tally
	for line := range strings.Lines(string(plan)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		started := time.Now()
		strict := fields[0] == "each"
		if strict {
			fields = fields[1:]
		}
		fmt.Printf("run %s\n", strings.Join(fields, " "))
		t := runTests(fields, strict)
		fmt.Printf("ran %s in %s: %d passed, %d failed, %d skipped\n", fields[0], time.Since(started).Round(time.Second/10), t.passed, t.failed, t.skipped)
		sum.passed, sum.failed, sum.skipped = sum.passed+t.passed, sum.failed+t.failed, sum.skipped+t.skipped
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	fmt.Printf("%s %s: %d passed, %d failed, %d skipped\n",
		unix.ByteSliceToString(name.Release[:]), runtime.GOARCH, sum.passed, sum.failed, sum.skipped)
	return nil
}

// runTests runs a test binary, shows what it says, and counts. One that fails without a failing test counts as one failure; if it is
// strict, so does each alternative of its pattern that no test is named like.
func runTests(command []string, strict bool) (t tally) {
	var names []string
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = filepath.Dir(command[0])
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			fmt.Print(line)
			if _, name, ok := strings.Cut(line, "--- PASS: "); ok {
				name, _, _ = strings.Cut(name, " ")
				names = append(names, name)
			}
			switch {
			case strings.HasPrefix(line, "--- PASS: "):
				t.passed++
			case strings.HasPrefix(line, "--- FAIL: "):
				t.failed++
			case strings.HasPrefix(line, "--- SKIP: "):
				t.skipped++
			}
			if err != nil {
				return
			}
		}
	}()
	err := cmd.Run()
	_ = w.Close()
	<-counted
	if err != nil && t.failed == 0 {
		fmt.Printf("FAIL: %s: %v\n", command[0], err)
		t.failed++
	}
	if strict && t.failed == 0 {
		for _, alternative := range unmatched(command[len(command)-1], names) {
			fmt.Printf("FAIL: %s: no test is named like %s\n", command[0], alternative)
			t.failed++
		}
	}
	return t
}

// unmatched are the alternatives of a pattern, such as -test.run=TestA|TestB/^part$, that match none of the tests that ran.
func unmatched(pattern string, names []string) (unmatched []string) {
	depth := 0
	alternatives := strings.FieldsFunc(strings.TrimPrefix(pattern, "-test.run="), func(r rune) bool {
		switch r {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		}
		return r == '|' && depth == 0
	})
	for _, alternative := range alternatives {
		parts := strings.Split(alternative, "/")
		if !slices.ContainsFunc(names, func(name string) bool { return matches(parts, strings.Split(name, "/")) }) {
			unmatched = append(unmatched, alternative)
		}
	}
	return unmatched
}

func matches(patterns, name []string) bool {
	if len(name) < len(patterns) {
		return false
	}
	for i, pattern := range patterns {
		if ok, err := regexp.MatchString(pattern, name[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
