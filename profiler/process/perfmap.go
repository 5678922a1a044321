package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/symbolizer/jit"
)

// perfMap is what a JIT wrote into /tmp/perf-PID.map, in its own mount
// namespace and under its own process number.
type perfMap struct {
	names *jit.PerfMap
	file  fileID // size and time left out: it grows
	next  time.Time
}

// perfMapInterval is how often a miss makes us look for new lines.
const perfMapInterval = time.Second

// perfMapRest is how many times the CPU time that a map took to read its process's next reading waits: one that grows without end
// costs a fiftieth of a core. The time on the clock would have the agent of a busy host, which waits for a CPU, know new code late.
const perfMapRest = 50

// JITName names an address in memory that no file is mapped to. The map is looked at
// again once a second: a JIT replaces its code.
func (t *Table) JITName(p *Process, a Address) (string, bool) {
	if p.perfMap == nil {
		p.perfMap = new(perfMap)
	}
	if now := time.Now(); !now.Before(p.perfMap.next) && p.exited == 0 {
		t.readPerfMap(p, now)
	}
	return p.perfMap.lookup(a)
}

func (t *Table) readPerfMap(p *Process, now time.Time) {
	m := p.perfMap
	m.next = now.Add(perfMapInterval)
	before := m.bytes()
	result := make(chan error, 1)
	var cost time.Duration
	if err := t.files.guard.do(ofProcesses, func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		began := threadTime()
		err := m.read(t.proc, p.PID)
		cost = threadTime() - began
		result <- err
	}); err != nil {
		t.perfMapBytes -= before
		p.perfMap = &perfMap{next: now.Add(rereadMost)} // the old one belongs to the goroutine that hangs
		return
	}
	if err := <-result; err != nil && !errors.Is(err, unix.ENOENT) {
		t.log.Debug("cannot read a perf map", "pid", p.PID, "err", err)
	}
	if rest := perfMapRest * cost; rest > perfMapInterval {
		m.next = now.Add(rest)
	}
	t.perfMapBytes += m.bytes() - before
	if t.perfMapBytes > maxPerfMapBytes {
		t.log.Debug("perf maps exceed their bound; one is dropped", "pid", p.PID, "bytes", t.perfMapBytes)
		t.dropPerfMap(p)
		p.perfMap = &perfMap{next: now.Add(rereadMost)}
	}
}

// threadTime is the CPU time of this thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // every Linux has it
	return time.Duration(ts.Nano())
}

// dropPerfMap forgets what a process's JIT told.
func (t *Table) dropPerfMap(p *Process) {
	if p.perfMap != nil {
		t.perfMapBytes -= p.perfMap.bytes()
		p.perfMap = nil
	}
}

// maxPerfMapBytes bounds the memory of all perf maps: the names of some 500,000 functions.
const maxPerfMapBytes = 48 << 20

func (m *perfMap) bytes() int {
	if m.names == nil {
		return 0
	}
	return m.names.Bytes()
}

func (m *perfMap) lookup(a Address) (string, bool) {
	if m.names == nil {
		return "", false
	}
	return m.names.Lookup(uint64(a))
}

// read reads the lines that were added since the last call.
func (m *perfMap) read(proc string, pid int) error {
	own, err := pidInNamespace(proc, pid)
	if err != nil {
		return err
	}
	f, err := openInRoot(proc, pid, "tmp/perf-"+strconv.Itoa(own)+".map", unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("perf map: %w", err)
	}
	if err := ownedBy(info, proc, pid); err != nil {
		return err
	}
	id, err := identify(info)
	if err != nil {
		return err
	}
	id.size, id.ctimeNs = 0, 0
	if m.names == nil || id != m.file || info.Size() < m.names.Offset() {
		m.file = id
		if m.names, err = jit.ReadPerfMap(f); err != nil {
			return fmt.Errorf("perf map of process %d: %w", pid, err)
		}
		return nil
	}
	if _, err := f.Seek(m.names.Offset(), io.SeekStart); err != nil {
		return fmt.Errorf("perf map: %w", err)
	}
	if err := m.names.Append(f); err != nil {
		return fmt.Errorf("perf map of process %d: %w", pid, err)
	}
	return nil
}

// pidInNamespace is the number that the process knows itself by.
func pidInNamespace(proc string, pid int) (int, error) {
	status, err := os.ReadFile(proc + "/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("perf map: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			if len(fields) == 0 {
				break
			}
			return strconv.Atoi(fields[len(fields)-1])
		}
	}
	return pid, nil
}

// ownedBy refuses a map that another user put there for the process.
func ownedBy(info os.FileInfo, proc string, pid int) error {
	owner, err := os.Stat(proc + "/" + strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("perf map: %w", err)
	}
	file, ok := info.Sys().(*syscall.Stat_t)
	process, ok2 := owner.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || file.Uid != process.Uid {
		return fmt.Errorf("perf map of process %d belongs to another user", pid)
	}
	return nil
}
