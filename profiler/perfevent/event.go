// Package perfevent opens the kernel's perf events: those that run the sampler
// on each CPU, and those that report processes through a ring of records.
//
// The caller supplies the attributes that matter to it; one Event belongs to
// one CPU or one process. Nothing here knows what the records mean.
package perfevent

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Event is an open perf event. Close is idempotent.
type Event struct {
	fd  int
	CPU int
}

// Open opens the event for every process on cpu, disabled. The error names the setting
// that forbids it where that is the likely cause.
func Open(attr unix.PerfEventAttr, cpu int) (*Event, error) {
	attr.Size = uint32(unsafe.Sizeof(attr))
	attr.Bits |= unix.PerfBitDisabled
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open perf event (type %d, config %d) on CPU %d: %w", attr.Type, attr.Config, cpu, err)
	}
	return &Event{fd: fd, CPU: cpu}, nil
}

// FD is the event's descriptor, the Event's to close.
func (e *Event) FD() int { return e.fd }

// SetBPF makes the event run a program of type perf_event whenever it fires.
func (e *Event) SetBPF(program int) error {
	if err := unix.IoctlSetInt(e.fd, unix.PERF_EVENT_IOC_SET_BPF, program); err != nil {
		return fmt.Errorf("attach the BPF program to the perf event of CPU %d: %w", e.CPU, err)
	}
	return nil
}

// Enable starts the event.
func (e *Event) Enable() error {
	if err := unix.IoctlSetInt(e.fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		return fmt.Errorf("enable the perf event of CPU %d: %w", e.CPU, err)
	}
	return nil
}

// Disable stops the event.
func (e *Event) Disable() error {
	if err := unix.IoctlSetInt(e.fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
		return fmt.Errorf("disable the perf event of CPU %d: %w", e.CPU, err)
	}
	return nil
}

// Count is the event's own counter: nanoseconds for the CPU clock.
func (e *Event) Count() (uint64, error) {
	var buf [8]byte
	n, err := unix.Read(e.fd, buf[:])
	if err != nil {
		return 0, fmt.Errorf("read the perf event of CPU %d: %w", e.CPU, err)
	}
	if n != len(buf) {
		return 0, fmt.Errorf("read the perf event of CPU %d: it is out of order", e.CPU)
	}
	return binary.NativeEndian.Uint64(buf[:]), nil
}

// Close closes the event.
func (e *Event) Close() error {
	if e.fd < 0 {
		return nil
	}
	fd := e.fd
	e.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close the perf event of CPU %d: %w", e.CPU, err)
	}
	return nil
}

// OnlineCPUs reads which CPUs are online now.
func OnlineCPUs() ([]int, error) {
	const path = "/sys/devices/system/cpu/online"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("online CPUs: %w", err)
	}
	cpus, err := parseCPUList(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cpus, nil
}

// maxCPU is above what any kernel is built for (NR_CPUS <= 8192).
const maxCPU = 1 << 16

// parseCPUList reads the kernel's list format, such as "0-3,8,10-11".
func parseCPUList(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil {
				return nil, fmt.Errorf("CPU list %q: %w", list, err)
			}
		}
		if first < 0 || last < first || last > maxCPU {
			return nil, fmt.Errorf("CPU list %q: range %q", list, part)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}
