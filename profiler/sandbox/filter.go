package sandbox

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// rule allows a system call if the low half of an argument, with mask applied, is one
// of the values. The kernel takes these arguments as int, or the bits in question lie in the low half.
type rule struct {
	call     uint32
	argument uint32
	mask     uint32
	values   []uint32
}

// Where struct seccomp_data has what a filter may look at; both architectures are little-endian.
const (
	offsetCall     = 0
	offsetArch     = 4
	offsetArgument = 16
	argumentBytes  = 8
	wordBytes      = 4
)

// program allows the calls on the list and those that pass a rule; everything
// else, and everything of another architecture's ABI, has the outcome refused.
func program(arch uint32, rules []rule, calls []uint32, refused uint32) []bpf.Instruction {
	allow, refuse := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: refused}
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: wordBytes},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		refuse,
		bpf.LoadAbsolute{Off: offsetCall, Size: wordBytes},
	}
	for _, r := range rules {
		body := []bpf.Instruction{
			bpf.LoadAbsolute{Off: offsetArgument + argumentBytes*r.argument, Size: wordBytes},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: r.mask},
		}
		for _, v := range r.values {
			body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, allow)
		}
		body = append(body, refuse)
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipFalse: uint8(len(body))})
		p = append(p, body...)
	}
	for _, call := range calls {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipFalse: 1}, allow)
	}
	return append(p, refuse)
}

// install puts the filter on all threads.
func install(mode Seccomp) error {
	refused := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	if mode == SeccompTrap {
		refused = unix.SECCOMP_RET_TRAP
	}
	code, err := bpf.Assemble(program(auditArch, rules(unix.Getpid()), slices.Concat(calls, archCalls), refused))
	if err != nil {
		return fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install the seccomp filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("install the seccomp filter: thread %d has another one", thread)
	}
	return nil
}
