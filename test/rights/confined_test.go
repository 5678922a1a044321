// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/sandbox"
)

// confined is the role of a child that gives its rights up and says what it still can do.
func confined() {
	kallsyms, err := os.Open("/proc/kallsyms")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sandbox.Enter(sandbox.Seccomp(os.Getenv("SECCOMP"))); err != nil {
		fmt.Println("enter:", err)
		return
	}
	for _, attempt := range attempts {
		if only := os.Getenv("ATTEMPT"); only != "" && only != attempt.name {
			continue
		}
		if err := attempt.try(); err != nil {
			fmt.Printf("%s: %v\n", attempt.name, err)
		} else {
			fmt.Printf("%s: done\n", attempt.name)
		}
	}
	fmt.Println("kallsyms held open shows addresses:", showsAddresses(kallsyms))
	again, err := os.Open("/proc/kallsyms")
	fmt.Println("kallsyms opened again shows addresses:", err == nil && showsAddresses(again))
}

func showsAddresses(f *os.File) bool {
	if _, err := f.Seek(0, 0); err != nil {
		return false
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if address, _, _ := strings.Cut(lines.Text(), " "); strings.Trim(address, "0") != "" {
			return true
		}
	}
	return false
}

var attempts = []struct {
	name string
	try  func() error
}{
	{"execve", func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
	{"fork", func() error { return raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0) }},
	{"fork and exec", func() error { return exec.Command("/bin/true").Run() }},
	{"ptrace", func() error { return unix.PtraceAttach(1) }},
	{"process_vm_readv", func() error { return raw(unix.SYS_PROCESS_VM_READV, 1, 0, 0) }},
	{"pidfd_getfd", func() error { return raw(unix.SYS_PIDFD_GETFD, 0, 0, 0) }},
	{"mount", func() error { return unix.Mount("none", "/mnt", "tmpfs", 0, "") }},
	{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"finit_module", func() error { return unix.FinitModule(0, "", 0) }},
	{"bpf pin", func() error { return raw(unix.SYS_BPF, 6, 0, 0) }},
	{"bpf program load", func() error { return raw(unix.SYS_BPF, 5, 0, 0) }},
	{"signal", func() error { return unix.Kill(os.Getppid(), unix.SIGCONT) }},
	{"executable memory", func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
		return err
	}},
	{"raw socket", func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }},
	{"type into a terminal", func() error { return raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0) }},
	{"change capabilities", func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		return raw(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	}},
}

func raw(call, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(call, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func TestRefusedCalls(t *testing.T) {
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=confined", "SECCOMP=errno")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(said) != len(attempts)+2 {
		t.Fatalf("%s", out)
	}
	for i := range attempts {
		if !strings.HasSuffix(said[i], unix.EPERM.Error()) {
			t.Errorf("not refused: %s", said[i])
		}
	}
	// CAP_SYSLOG is gone, and the file that was opened with it goes on showing addresses.
	if got := said[len(attempts)]; !strings.HasSuffix(got, "true") {
		t.Error(got)
	}
	if got := said[len(attempts)+1]; kptrRestricts(t) && !strings.HasSuffix(got, "false") {
		t.Error(got)
	}
}

// kptrRestricts says whether /proc/kallsyms is empty for those without CAP_SYSLOG.
func kptrRestricts(t *testing.T) bool {
	t.Helper()
	return sysctl(t, "kernel/kptr_restrict") > 0 || sysctl(t, "kernel/perf_event_paranoid") > 1
}

func sysctl(t *testing.T, name string) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/" + name)
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The mode that the tests of the agent use ends it with the stack: a call that is missing on the list cannot hide. And it is the filter
// that refuses these calls, not the lack of capabilities alone.
func TestTrap(t *testing.T) {
	for _, attempt := range attempts {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), role+"=confined", "SECCOMP=trap", "ATTEMPT="+attempt.name)
		out, err := cmd.CombinedOutput()
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || !strings.Contains(string(out), "SIGSYS") || !strings.Contains(string(out), "rights.confined") {
			t.Errorf("%s: %v\n%.1000s", attempt.name, err, out)
			continue
		}
		if status := exit.Sys().(syscall.WaitStatus); status.CoreDump() {
			t.Errorf("%s: it left a core dump", attempt.name)
		}
	}
}
