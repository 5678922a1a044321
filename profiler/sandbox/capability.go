package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities is a set: bit N is capability N.
type capabilities uint64

func setOf(numbers ...uint) capabilities {
	var c capabilities
	for _, n := range numbers {
		c |= 1 << n
	}
	return c
}

func (c capabilities) has(n uint) bool { return c&(1<<n) != 0 }

// The capabilities that go on being used, and by what:
//
//	CAP_BPF                 maps for more unwind tables; before 5.19 any bpf()
//	CAP_PERFMON             events on a CPU that comes online
//	CAP_SYS_PTRACE          /proc/PID/{maps,exe,root,ns,mem} of processes of others
//	CAP_DAC_READ_SEARCH     files that our user may not read
//	CAP_CHECKPOINT_RESTORE  /proc/PID/map_files
//
// CAP_SYSLOG is not among them: /proc/kallsyms shows addresses to whoever had
// the right when it was opened, and it is kept open.
var lasting = setOf(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_CHECKPOINT_RESTORE)

// standIns take the place of capabilities that are not held, as they do in the kernel.
var standIns = map[uint]uint{
	unix.CAP_BPF:                unix.CAP_SYS_ADMIN,
	unix.CAP_PERFMON:            unix.CAP_SYS_ADMIN,
	unix.CAP_CHECKPOINT_RESTORE: unix.CAP_SYS_ADMIN,
	unix.CAP_DAC_READ_SEARCH:    unix.CAP_DAC_OVERRIDE,
}

// needed are those of the held capabilities that the running sampler needs. Event asks the kernel: does it still allow an event on a
// whole CPU to a thread that has only these capabilities?
func needed(held capabilities, event func(capabilities) bool) capabilities {
	want := lasting
	for n, instead := range standIns {
		if want.has(n) && !held.has(n) {
			want |= setOf(instead)
		}
	}
	// Distributions whose perf_event_paranoid goes beyond 2 demand more than CAP_PERFMON then.
	if !event(held & want) {
		want |= setOf(unix.CAP_SYS_ADMIN)
	}
	return held & want
}

// dropCapabilities leaves every thread with what is needed, and empties what
// could give it more: the inheritable, ambient and bounding sets.
func dropCapabilities() error {
	held, err := current()
	if err != nil {
		return err
	}
	keep := needed(held.permitted, func(c capabilities) bool { return tryWith(held, c, eventAllowed) })
	var errs []error
	if held.effective.has(unix.CAP_SETPCAP) {
		errs = append(errs, dropBounding(keep))
	}
	errs = append(errs, onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL))
	header, data := encode(sets{effective: keep, permitted: keep})
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		errs = append(errs, errno)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// dropBounding takes from the bounding set all but keep; the kernel knows
// capabilities up to the first that it does not let us read.
func dropBounding(keep capabilities) error {
	for n := uint(0); n < 64; n++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err != nil {
			return nil
		}
		if in == 0 || keep.has(n) {
			continue
		}
		if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n)); err != nil {
			return fmt.Errorf("bounding set, capability %d: %w", n, err)
		}
	}
	return nil
}

// sets are the capability sets that capset changes.
type sets struct{ effective, permitted, inheritable capabilities }

func current() (sets, error) {
	header, data := encode(sets{})
	if err := unix.Capget(&header, &data[0]); err != nil {
		return sets{}, fmt.Errorf("read capabilities: %w", err)
	}
	join := func(low, high uint32) capabilities { return capabilities(low) | capabilities(high)<<32 }
	return sets{
		effective:   join(data[0].Effective, data[1].Effective),
		permitted:   join(data[0].Permitted, data[1].Permitted),
		inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

func encode(s sets) (unix.CapUserHeader, [2]unix.CapUserData) {
	half := func(shift uint) unix.CapUserData {
		return unix.CapUserData{
			Effective:   uint32(s.effective >> shift),
			Permitted:   uint32(s.permitted >> shift),
			Inheritable: uint32(s.inheritable >> shift),
		}
	}
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{half(0), half(32)}
}

// tryWith asks try in a thread whose effective capabilities are only these, and puts them back.
func tryWith(held sets, effective capabilities, try func() bool) bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !setEffective(held, effective) {
		return false
	}
	defer setEffective(held, held.effective)
	return try()
}

func setEffective(held sets, effective capabilities) bool {
	held.effective = effective
	header, data := encode(held)
	return unix.Capset(&header, &data[0]) == nil
}

// eventAllowed says whether an event on a whole CPU can be opened; it stays disabled.
func eventAllowed() bool {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Bits: unix.PerfBitDisabled, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
	}
	fd, err := unix.PerfEventOpen(&attr, -1, firstCPU(), -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM)
	}
	_ = unix.Close(fd)
	return true
}

// firstCPU is a CPU that is online now: the one that runs us.
func firstCPU() int {
	var cpu, node uint32
	if _, _, errno := unix.Syscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), uintptr(unsafe.Pointer(&node)), 0); errno != 0 {
		return 0
	}
	return int(cpu)
}
