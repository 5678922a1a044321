package sandbox

import "golang.org/x/sys/unix"

// calls are what the Go runtime and the agent use once it runs. Whoever adds
// one says what for. What is out: starting programs (execve, and fork by the rule for
// clone), looking into processes (ptrace, process_vm_*, pidfd_getfd), mounts,
// namespaces, modules, keys, io_uring, user ids, and making BPF programs. Maps are made: the arena of unwind tables grows.
var calls = []uint32{
	// memory; mmap and mprotect have rules
	unix.SYS_MADVISE, unix.SYS_MUNMAP,
	// threads, signals and time of the runtime
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FUTEX, unix.SYS_GETTID,
	unix.SYS_GETTIMEOFDAY, unix.SYS_NANOSLEEP, unix.SYS_RESTART_SYSCALL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK,
	unix.SYS_RT_SIGRETURN, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_YIELD, unix.SYS_SIGALTSTACK,
	// who we are, and what we use
	unix.SYS_GETEGID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETPGID, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETRUSAGE, unix.SYS_GETUID,
	unix.SYS_SYSINFO, unix.SYS_UNAME,
	// random numbers: TLS, seeds
	unix.SYS_GETRANDOM,
	// waiting
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
	// descriptors
	unix.SYS_CLOSE, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_LSEEK, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READ, unix.SYS_READV,
	unix.SYS_WRITE, unix.SYS_WRITEV,
	// files to read: those of processes, configuration, certificates
	unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_GETCWD, unix.SYS_GETDENTS64, unix.SYS_OPENAT,
	unix.SYS_OPENAT2, unix.SYS_READLINKAT, unix.SYS_STATFS, unix.SYS_STATX,
	// files to write: the data directory
	unix.SYS_COPY_FILE_RANGE, unix.SYS_FALLOCATE, unix.SYS_FDATASYNC, unix.SYS_FLOCK, unix.SYS_FSYNC,
	unix.SYS_FTRUNCATE, unix.SYS_MKDIRAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINKAT, unix.SYS_UTIMENSAT,
	// the network: our own server, and what profiles are sent to; socket has a rule
	unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKNAME, unix.SYS_GETSOCKOPT, unix.SYS_LISTEN,
	unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_SENDFILE, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
	unix.SYS_SPLICE,
	// events on CPUs that come online
	unix.SYS_PERF_EVENT_OPEN,
}

// Commands of bpf() (include/uapi/linux/bpf.h) that make maps, and read and write them.
const (
	bpfMapCreate        = 0
	bpfMapLookupElement = 1
	bpfMapUpdateElement = 2
	bpfMapDeleteElement = 3
	bpfMapGetNextKey    = 4
	bpfObjGetInfoByFD   = 15
	bpfMapLookupDelete  = 21
	bpfMapLookupBatch   = 24
	bpfMapDeleteBatch   = 27
)

// rules are the calls of which only some uses are allowed, in the process of this number.
func rules(pid int) []rule {
	const (
		all = ^uint32(0)
		// A thread shares all this with us; a process, or a thread in namespaces of its own, does not.
		threadFlags = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
		namespaces  = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
			unix.CLONE_NEWUSER | unix.CLONE_NEWUTS
	)
	self := []uint32{uint32(pid)}
	return []rule{
		{unix.SYS_BPF, 0, all, []uint32{
			bpfMapCreate, bpfMapLookupElement, bpfMapUpdateElement, bpfMapDeleteElement, bpfMapGetNextKey, bpfObjGetInfoByFD, bpfMapLookupDelete,
			bpfMapLookupBatch, bpfMapLookupBatch + 1, bpfMapLookupBatch + 2, bpfMapDeleteBatch,
		}},
		{unix.SYS_IOCTL, 1, all, []uint32{unix.PERF_EVENT_IOC_ENABLE, unix.PERF_EVENT_IOC_DISABLE, unix.PERF_EVENT_IOC_SET_BPF}},
		{unix.SYS_CLONE, 0, threadFlags | namespaces, []uint32{threadFlags}},
		{unix.SYS_MMAP, 2, unix.PROT_EXEC, []uint32{0}},
		{unix.SYS_MPROTECT, 2, unix.PROT_EXEC, []uint32{0}},
		{unix.SYS_SOCKET, 0, all, []uint32{unix.AF_INET, unix.AF_INET6}},
		{unix.SYS_TGKILL, 0, all, self},
		{unix.SYS_KILL, 0, all, self},
		// the runtime names its memory
		{unix.SYS_PRCTL, 0, all, []uint32{unix.PR_SET_VMA}},
	}
}
