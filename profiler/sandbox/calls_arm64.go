package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// archCalls are those that are called otherwise on amd64.
var archCalls = []uint32{unix.SYS_FSTATAT}
