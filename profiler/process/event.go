package process

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/perfevent"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// EventKind tells which fields of an Event count.
type EventKind uint8

// Kinds of events, one for each side-band record in use.
const (
	EventMmap EventKind = iota + 1
	EventComm
	EventExec // a comm record that an exec caused: the old image is gone
	EventFork
	EventExit
	EventCgroup
	EventNamespaces
	EventKsymbol
	EventLost
)

// Event is one side-band record: what became of a process, and when.
type Event struct {
	Kind EventKind
	// Time is CLOCK_MONOTONIC, nanoseconds, the clock of samples.
	Time     uint64
	PID, TID int
	// ParentPID is set for EventFork; 0 where the parent is outside of our pid namespace.
	ParentPID int
	// Name is the comm, the path of a mapped file or a cgroup, or a kernel symbol.
	Name string
	// Exe is set for EventExec, by NamePrograms: the path of the new program.
	Exe string
	// Mapping is set for EventMmap, but for its File.
	Mapping Mapping
	// File identifies what EventMmap mapped.
	File FileKey
	// ID is the cgroup's id, the mount namespace's inode, or the number of records lost.
	ID uint64
	// Address and Size are a kernel symbol's; Gone says that it was removed.
	Address, Size uint64
	Gone          bool
}

// NamePrograms tells each exec among events, which are in the order of their time, what it started: the file of
// the process's first mapping after it. A slow machine takes samples in between. An exec whose mapping has not come yet
// stays without.
func NamePrograms(events []Event) {
	mapped := make(map[int]string) // first after the event that is looked at, by process
	for i := len(events) - 1; i >= 0; i-- {
		switch e := &events[i]; {
		case e.Kind == EventMmap && regular(e.File, e.Name):
			mapped[e.PID] = e.Name
		case e.Kind == EventExec:
			if e.Exe == "" {
				e.Exe = mapped[e.PID]
			}
			delete(mapped, e.PID)
		}
	}
}

const (
	mmapFixedSize       = 64 // pid, tid, addr, len, pgoff, maj, min, ino, generation, prot, flags
	timeSize            = 8  // the trailer of every record: sample_type is PERF_SAMPLE_TIME alone
	ksymbolUnregistered = 1
	mountNamespaceIndex = 3 // in the list of PERF_RECORD_NAMESPACES
)

// decode reads one record. False means one of a kind that is of no use, or
// one too short for its kind.
func decode(r perfevent.Record, names *interner) (Event, bool) {
	b := r.Body
	if r.Type == unix.PERF_RECORD_LOST {
		if len(b) < 16 {
			return Event{}, false
		}
		return Event{Kind: EventLost, ID: u64(b[8:]), Time: trailer(b)}, true
	}
	if len(b) < 8+timeSize {
		return Event{}, false
	}
	e := Event{Time: trailer(b), PID: int(int32(u32(b))), TID: int(int32(u32(b[4:])))}
	if e.PID <= 0 && r.Type != unix.PERF_RECORD_CGROUP && r.Type != unix.PERF_RECORD_KSYMBOL {
		return Event{}, false // it has no number here: an idle task, or one outside of our pid namespace (0) or reaped (-1)
	}
	switch r.Type {
	case unix.PERF_RECORD_MMAP2:
		if len(b) < mmapFixedSize+timeSize || r.Misc&unix.PERF_RECORD_MISC_CPUMODE_MASK != unix.PERF_RECORD_MISC_USER {
			return Event{}, false
		}
		e.Kind = EventMmap
		e.Mapping = Mapping{
			Start:  Address(u64(b[8:])),
			End:    Address(u64(b[8:]) + u64(b[16:])),
			Offset: objfile.FileOffset(u64(b[24:])),
			Since:  e.Time,
		}
		e.File = FileKey{Major: u32(b[32:]), Minor: u32(b[36:]), Inode: u64(b[40:]), Generation: u64(b[48:])}
		e.Name = names.intern(cString(b[mmapFixedSize : len(b)-timeSize]))
		return e, e.Mapping.End > e.Mapping.Start
	case unix.PERF_RECORD_COMM:
		e.Kind = EventComm
		if r.Misc&unix.PERF_RECORD_MISC_COMM_EXEC != 0 {
			e.Kind = EventExec
		}
		e.Name = names.intern(cString(b[8 : len(b)-timeSize]))
	case unix.PERF_RECORD_FORK, unix.PERF_RECORD_EXIT:
		if len(b) < 24+timeSize { // pid, ppid, tid, ptid, time
			return Event{}, false
		}
		e.Kind = EventFork
		if r.Type == unix.PERF_RECORD_EXIT {
			e.Kind = EventExit
		}
		e.ParentPID, e.TID = int(int32(u32(b[4:]))), int(int32(u32(b[8:])))
	case unix.PERF_RECORD_CGROUP:
		e.Kind, e.PID, e.TID = EventCgroup, 0, 0
		e.ID = u64(b)
		e.Name = names.intern(cString(b[8 : len(b)-timeSize]))
	case unix.PERF_RECORD_NAMESPACES:
		e.Kind = EventNamespaces
		at := 16 + 16*mountNamespaceIndex // pid, tid, count, then (dev, inode) pairs
		if len(b) < at+16+timeSize || u64(b[8:]) <= mountNamespaceIndex {
			return Event{}, false
		}
		e.ID = u64(b[at+8:])
	case unix.PERF_RECORD_KSYMBOL:
		if len(b) < 16+timeSize {
			return Event{}, false
		}
		e.Kind, e.PID, e.TID = EventKsymbol, 0, 0
		e.Address, e.Size = u64(b), uint64(u32(b[8:]))
		e.Gone = binary.NativeEndian.Uint16(b[14:])&ksymbolUnregistered != 0
		e.Name = string(cString(b[16 : len(b)-timeSize]))
	default:
		return Event{}, false
	}
	return e, true
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }

func trailer(b []byte) uint64 { return u64(b[len(b)-timeSize:]) }

func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// interner keeps one copy of each name. Paths and comms repeat without end; it forgets all of
// them when it holds maxInterned, or maxInternedBytes of them.
type interner struct {
	names map[string]string
	bytes int
}

const (
	maxInterned      = 16384
	maxInternedBytes = 2 << 20
)

func newInterner() *interner { return &interner{names: make(map[string]string)} }

func (n *interner) intern(b []byte) string {
	if s, ok := n.names[string(b)]; ok {
		return s
	}
	if len(n.names) >= maxInterned || n.bytes+len(b) > maxInternedBytes {
		clear(n.names)
		n.bytes = 0
	}
	s := string(b)
	n.names[s] = s
	n.bytes += len(s)
	return s
}
