// Package sandbox gives up, for good, the rights that a sampler has once it
// runs and needs no longer: capabilities, the way to gain new ones, core dumps
// (they would hold copies of what other programs had in memory), and all system calls but those on a list.
//
// The caller opens first what takes rights: BPF programs, perf events,
// /proc/kallsyms, its socket. What stays possible afterwards: perf events on
// CPUs that come online, reading the files of processes, writing its own, the network.
//
// A Landlock ruleset is not among it: a process under one is refused
// /proc/PID/root, exe, map_files and mem of all others. Where the agent
// may write is the service manager's to say (ReadWritePaths in the systemd unit).
package sandbox

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Seccomp says what becomes of system calls that are not on the list.
type Seccomp string

// What becomes of them.
const (
	// SeccompErrno makes them fail with EPERM.
	SeccompErrno Seccomp = "errno"
	// SeccompTrap ends the process with the stack that made the call: for tests and debugging.
	SeccompTrap Seccomp = "trap"
	// SeccompOff installs no filter.
	SeccompOff Seccomp = "off"
)

// ErrCgo says that this binary cannot change all of its threads.
var ErrCgo = errors.New("this binary was built with cgo, whose threads keep their rights; build it with CGO_ENABLED=0")

// Enter gives the rights up in all threads of the process. It does as much as it can: an
// error says what was kept, and the process can go on. No thread may hang in
// the kernel meanwhile (on a dead file server), because each takes part.
func Enter(seccomp Seccomp) error {
	switch err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); {
	case errors.Is(err, unix.ENOTSUP):
		return ErrCgo
	case err != nil:
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	errs := []error{forbidCoreDumps(), dropCapabilities()}
	if seccomp != SeccompOff {
		errs = append(errs, install(seccomp))
	}
	return errors.Join(errs...)
}

// onAllThreads makes a system call in every thread; threads to come inherit what it changes.
func onAllThreads(call, a1, a2 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(call, a1, a2, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// forbidCoreDumps uses a limit of 1, which the kernel takes as "not even to a
// program that handles core dumps"; 0 would not keep it from piping one to systemd-coredump.
// Where the limit is 0 for good, PR_SET_DUMPABLE does it, at the price that /proc/self belongs to root.
func forbidCoreDumps() error {
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	if errors.Is(err, unix.EPERM) {
		err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	if err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
