package sandbox

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const testPID = 4242

// call is what the kernel shows to a filter (struct seccomp_data), as words.
type call struct {
	arch, number uint32
	arguments    [6]uint64
}

// run gives the outcome of the filter for a call.
func run(t *testing.T, c call) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(program(auditArch, rules(testPID), slices.Concat(calls, archCalls), unix.SECCOMP_RET_ERRNO))
	if err != nil {
		t.Fatal(err)
	}
	// The machine in Go reads words as networks do, seccomp as the CPU does: each word is
	// written the other way around, and they stand where they stand in the kernel.
	data := binary.BigEndian.AppendUint32(nil, c.number)
	data = binary.BigEndian.AppendUint32(data, c.arch)
	data = binary.BigEndian.AppendUint64(data, 0) // the instruction pointer
	for _, a := range c.arguments {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	outcome, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(outcome)
}

func TestFilter(t *testing.T) {
	const (
		goThread     = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
		programLoad  = 5
		objectPin    = 6
		iocSetOutput = 0x2405
	)
	type arguments = [6]uint64
	tests := []struct {
		number  uint32
		args    arguments
		allowed bool
	}{
		{unix.SYS_READ, arguments{}, true},
		{unix.SYS_OPENAT2, arguments{}, true},
		{unix.SYS_PERF_EVENT_OPEN, arguments{}, true},
		{unix.SYS_EXECVE, arguments{}, false},
		{unix.SYS_EXECVEAT, arguments{}, false},
		{unix.SYS_CLONE3, arguments{}, false},
		{unix.SYS_PTRACE, arguments{}, false},
		{unix.SYS_PROCESS_VM_READV, arguments{}, false},
		{unix.SYS_PIDFD_GETFD, arguments{}, false},
		{unix.SYS_MOUNT, arguments{}, false},
		{unix.SYS_UNSHARE, arguments{}, false},
		{unix.SYS_SETNS, arguments{}, false},
		{unix.SYS_FINIT_MODULE, arguments{}, false},
		{unix.SYS_CAPSET, arguments{}, false},
		{unix.SYS_IO_URING_SETUP, arguments{}, false},
		{unix.SYS_MEMFD_CREATE, arguments{}, false},

		{unix.SYS_BPF, arguments{bpfMapLookupElement}, true},
		{unix.SYS_BPF, arguments{bpfObjGetInfoByFD}, true},
		{unix.SYS_BPF, arguments{1<<32 | bpfMapLookupElement}, true}, // the kernel looks at the low half too
		{unix.SYS_BPF, arguments{bpfMapCreate}, true},
		{unix.SYS_BPF, arguments{programLoad}, false},
		{unix.SYS_BPF, arguments{objectPin}, false},
		{unix.SYS_IOCTL, arguments{3, unix.PERF_EVENT_IOC_ENABLE}, true},
		{unix.SYS_IOCTL, arguments{3, iocSetOutput}, false},
		{unix.SYS_IOCTL, arguments{0, unix.TIOCSTI}, false},
		{unix.SYS_CLONE, arguments{goThread}, true},
		{unix.SYS_CLONE, arguments{uint64(unix.SIGCHLD)}, false},
		{unix.SYS_CLONE, arguments{unix.CLONE_VM | unix.CLONE_VFORK}, false},
		{unix.SYS_CLONE, arguments{goThread | unix.CLONE_NEWUSER}, false},
		{unix.SYS_MMAP, arguments{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, true},
		{unix.SYS_MMAP, arguments{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, false},
		{unix.SYS_MPROTECT, arguments{0, 4096, unix.PROT_EXEC}, false},
		{unix.SYS_SOCKET, arguments{unix.AF_INET6}, true},
		{unix.SYS_SOCKET, arguments{unix.AF_PACKET}, false},
		{unix.SYS_TGKILL, arguments{testPID, 1}, true},
		{unix.SYS_TGKILL, arguments{1, 1}, false},
		{unix.SYS_KILL, arguments{^uint64(0)}, false},
		{unix.SYS_PRCTL, arguments{unix.PR_SET_VMA}, true},
		{unix.SYS_PRCTL, arguments{unix.PR_SET_DUMPABLE}, false},
	}
	for _, test := range tests {
		want := uint32(unix.SECCOMP_RET_ERRNO)
		if test.allowed {
			want = unix.SECCOMP_RET_ALLOW
		}
		name := fmt.Sprintf("call %d%v", test.number, test.args)
		if got := run(t, call{auditArch, test.number, test.args}); got != want {
			t.Errorf("%s: %#x, want %#x", name, got, want)
		}
		if got := run(t, call{unix.AUDIT_ARCH_I386, test.number, test.args}); got != unix.SECCOMP_RET_ERRNO {
			t.Errorf("%s of another architecture: %#x", name, got)
		}
		const x32 = 0x40000000
		if got := run(t, call{auditArch, x32 | test.number, test.args}); got != unix.SECCOMP_RET_ERRNO {
			t.Errorf("%s of the x32 ABI: %#x", name, got)
		}
	}
}

// A call that stands in both places would be allowed whatever its arguments are.
func TestCallsHaveOnePlace(t *testing.T) {
	seen := make(map[uint32]bool)
	add := func(number uint32) {
		if seen[number] {
			t.Errorf("call %d is listed twice", number)
		}
		seen[number] = true
	}
	for _, number := range slices.Concat(calls, archCalls) {
		add(number)
	}
	for _, r := range rules(testPID) {
		add(r.call)
	}
}
