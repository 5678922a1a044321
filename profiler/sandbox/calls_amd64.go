package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archCalls are older forms of calls, which arm64 never had.
var archCalls = []uint32{
	unix.SYS_EPOLL_WAIT, unix.SYS_LSTAT, unix.SYS_NEWFSTATAT, unix.SYS_OPEN, unix.SYS_POLL, unix.SYS_READLINK, unix.SYS_STAT,
}
