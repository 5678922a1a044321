// Package process knows the processes of the host: their names, their
// executable mappings at any moment that samples can still ask for, and the
// files behind those. It learns from the kernel's perf side-band records, which
// tell of processes that are gone before anyone could read /proc, and reads
// /proc for what already ran and where records were lost.
//
// The caller merges events and samples by time: it applies all events up to a
// sample before it asks about that sample. One goroutine uses a Table.
package process

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/container"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Process is one process, from its fork to its exit or next exec's end.
type Process struct {
	PID, ParentPID int
	// Comm is the group leader's name.
	Comm string
	// Exe is the path of the executable as the process sees it.
	Exe string

	started uint64 // CLOCK_MONOTONIC ns of the fork; 0: before we looked
	adopted bool   // ParentPID is not who forked it
	exited  uint64 // 0: lives
	// leaderless says that other threads outlived the first one.
	leaderless bool
	execed     uint64 // the latest exec; 0: none that we saw
	begun      uint64 // the latest exec, its own or of a process that it was forked from; 0: none that we saw
	table      mappingTable
	// known says that the mappings were reported by records or read from /proc.
	known bool
	// stale asks for /proc/PID/maps to be read again: records were lost.
	stale   bool
	wished  bool          // in Table.wishes
	reread  time.Time     // not before
	backoff time.Duration // grows while reading again finds nothing new
	mountNS uint64
	kernel  bool // a kernel thread
	// cgroups are its paths by the kernel's id of the one that a thread is in.
	cgroups   map[uint64][]string
	inherited []string // those it or its parent was in last
	labels    map[labelKey]*profile.Labels
	perfMap   *perfMap
	identity  identityState
}

type labelKey struct {
	thread [16]byte
	tid    int
	cgroup uint64
}

// Table holds all processes.
type Table struct {
	proc      string
	log       *slog.Logger
	processes map[int]*Process
	// exited are in order of their exit, so that dropping them is cheap.
	exited []*Process
	// leaderless are those whose first thread exited before others.
	leaderless []*Process
	// lostRecords says that exits may have gone unseen.
	lostRecords bool
	files       *Files
	names       *interner
	// cgroupNames are paths by the kernel's id, as records told them.
	cgroupNames map[uint64]string
	// wishes are processes whose mappings are to be read again after the round.
	wishes       []*Process
	perfMapBytes int
	labels       int // of all processes
	// said is what processes say of themselves, by what it is made of.
	said      map[string]*said
	saidBytes int

	exists func(pid int) bool

	// Wanted, when not nil, says whether samples of a process can come at all:
	// files of others are not opened ahead.
	Wanted func(pid int) bool

	// Stats counts what happened since the start.
	Stats Stats
}

// Stats of a Table.
type Stats struct {
	RecordsLost  uint64 // side-band records that the kernel dropped
	Rereads      uint64 // readings of /proc/PID/maps after the start
	ForksSeen    uint64
	ExecsSeen    uint64
	MappingsSeen uint64
	Forgotten    uint64 // processes whose mappings were forgotten, because all had too many
	// IdentitiesRefused are what processes said of themselves that there was no room for.
	IdentitiesRefused uint64
}

const (
	// keepExited is how long an exited process can still be asked for. Samples come
	// out of the ring within a fraction of a second.
	keepExited = 2 * time.Second
	// maxProcesses bounds the table. A process beyond it is read from /proc when
	// a sample of it comes.
	maxProcesses = 131072
	// maxAllMappings bounds the mappings of all processes (100 MB): twenty times those of ten thousand usual ones, forked ones not counted.
	maxAllMappings = 2 << 20
	// maxLabels bounds the labels kept for one process: names of threads, mostly.
	maxLabels = 4096
	// maxAllLabels bounds those of all processes (20 MB): threads may be named anew for each sample.
	maxAllLabels = 65536

	// maxCgroups bounds the names of cgroups that appeared while we run.
	maxCgroups = 16384
	// maxProcessCgroups bounds the cgroups that the threads of one process are in.
	maxProcessCgroups = 64

	rereadFirst = time.Second
	rereadMost  = time.Minute
)

// NewTable makes an empty table over /proc.
func NewTable(files *Files, log *slog.Logger) *Table {
	return &Table{proc: "/proc", exists: exists, log: log, processes: make(map[int]*Process), files: files, names: newInterner(), cgroupNames: make(map[uint64]string), said: make(map[string]*said)}
}

// Len is the number of processes held, the lately exited included.
func (t *Table) Len() int { return len(t.processes) }

// Scan reads what runs now. Side-band must be open already, so that nothing
// falls between. A process that vanishes meanwhile is no error.
func (t *Table) Scan() error {
	dir, err := os.Open(t.proc)
	if err != nil {
		return fmt.Errorf("scan processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("scan processes: %w", err)
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			t.read(pid)
		}
	}
	return nil
}

// read makes a process from /proc; nil where it is gone.
func (t *Table) read(pid int) *Process {
	stat, err := os.ReadFile(t.path(pid, "stat"))
	if err != nil || len(t.processes) >= maxProcesses {
		return nil
	}
	p := &Process{PID: pid}
	p.Comm, p.ParentPID, p.kernel = parseStat(string(stat))
	p.Exe, _ = t.program(pid)
	p.mountNS = mountNamespace(t.path(pid, "ns/mnt"))
	t.readMaps(p, 0)
	t.processes[pid] = p
	return p
}

// program is the path of what a process runs, as /proc has it now.
func (t *Table) program(pid int) (string, error) {
	path, err := os.Readlink(t.path(pid, "exe"))
	return strings.TrimSuffix(path, " (deleted)"), err
}

// mountNamespace reads the number out of a link such as "mnt:[4026531841]"; 0 where it cannot be read.
func mountNamespace(link string) uint64 {
	target, err := os.Readlink(link)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(target, "mnt:["), "]"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// parseStat takes comm, parent and the kernel thread flag from /proc/PID/stat:
//
//	1234 (comm with ) and spaces) S 1 ...
func parseStat(stat string) (comm string, parent int, kernel bool) {
	const pfKthread = 0x00200000
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	comm = stat[open+1 : end]
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 7 {
		return comm, 0, false
	}
	parent, _ = strconv.Atoi(fields[1])
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	return comm, parent, flags&pfKthread != 0
}

func (t *Table) path(pid int, name string) string {
	return t.proc + "/" + strconv.Itoa(pid) + "/" + name
}

// readMaps reads the mappings of p from /proc, as they are since a time.
func (t *Table) readMaps(p *Process, since uint64) {
	p.stale = false
	type read struct {
		entries []mapsEntry
		err     error
	}
	result := make(chan read, 1)
	path := t.path(p.PID, "maps")
	// It waits for the process's memory lock, which a page fault on a dead file server holds.
	if err := t.files.guard.do(ofProcesses, func() { e, err := readMapsFile(path); result <- read{e, err} }); err != nil {
		t.log.Debug("cannot read mappings", "pid", p.PID, "err", err)
		return
	}
	r := <-result
	entries := r.entries
	if r.err != nil { // ESRCH: it exited; or a line we do not understand
		t.log.Debug("cannot read mappings", "pid", p.PID, "err", r.err)
	}
	if len(entries) == 0 && p.known {
		return // it is exiting: what was known serves its last samples
	}
	mappings := make([]Mapping, 0, len(entries))
	for _, e := range entries {
		m := e.mapping
		m.Since = since
		m.File = t.files.intern(e.key, t.names.intern([]byte(e.path)))
		mappings = append(mappings, m)
	}
	if p.known && slices.EqualFunc(p.table.mappings, mappings, sameCode) {
		return
	}
	p.table.replace(mappings, since)
	p.known = true
}

func readMapsFile(path string) ([]mapsEntry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMaps(f)
}

// Apply brings one event in. Events come in the order of their time.
func (t *Table) Apply(e *Event) {
	switch e.Kind {
	case EventMmap:
		t.mmap(e)
	case EventExec:
		t.exec(e)
	case EventComm:
		if e.PID == e.TID {
			if p := t.processes[e.PID]; p != nil {
				p.Comm = e.Name
				t.dropLabels(p)
			}
		}
	case EventFork:
		if e.PID != e.ParentPID {
			t.fork(e)
		}
	case EventExit:
		t.exit(e)
	case EventNamespaces:
		if p := t.processes[e.PID]; p != nil && e.PID == e.TID {
			p.mountNS = e.ID
		}
	case EventCgroup:
		if len(t.cgroupNames) >= maxCgroups {
			clear(t.cgroupNames)
		}
		t.cgroupNames[e.ID] = e.Name
	case EventLost:
		t.lost(e)
	}
}

func (t *Table) mmap(e *Event) {
	p := t.processes[e.PID]
	if p == nil {
		// Its fork was lost, or it is older than the agent and was not scanned.
		if p = t.read(e.PID); p == nil {
			return
		}
	}
	t.Stats.MappingsSeen++
	m := e.Mapping
	m.File = t.files.intern(e.File, e.Name)
	if p.Exe == "" && m.File.Regular() {
		p.Exe = e.Name // the first mapping of an exec is the executable's
		t.dropLabels(p)
	}
	p.table.insert(m)
}

// Replaces says whether an EventMmap puts a file's code in the place of other code: until it is applied, and the programs told, the process's stacks are walked
// by what was there.
func (t *Table) Replaces(e *Event) bool {
	if e.Kind != EventMmap || !regular(e.File, e.Name) { // a JIT makes the same memory executable all the time
		return false
	}
	p := t.processes[e.PID]
	return p != nil && p.table.overlaps(&e.Mapping)
}

// Hold opens the file of an EventMmap if it was never seen, and says whether
// it was new. It may come before the event is applied, and should: the process,
// and the mount namespace with it, may be gone when the first sample comes.
func (t *Table) Hold(e *Event) bool {
	if e.Kind != EventMmap {
		return false
	}
	m := e.Mapping
	m.File = t.files.intern(e.File, e.Name)
	if !t.files.unseen(m.File) || t.Wanted != nil && !t.Wanted(e.PID) {
		return false
	}
	t.files.hold(t, e.PID, &m)
	return true
}

func (t *Table) exec(e *Event) {
	t.Stats.ExecsSeen++
	p := t.processes[e.PID]
	if p == nil {
		p = &Process{PID: e.PID}
		t.add(p)
	}
	if p.exited != 0 {
		// Exec by another thread than the first: that one's exit was not the process's.
		p.exited, p.leaderless = 0, false
		isIt := func(o *Process) bool { return o == p }
		t.exited, t.leaderless = slices.DeleteFunc(t.exited, isIt), slices.DeleteFunc(t.leaderless, isIt)
	}
	p.Comm, p.Exe, p.cgroups = e.Name, e.Exe, nil
	if p.Exe == "" { // it happens just now
		p.Exe, _ = t.program(p.PID)
	}
	t.dropLabels(p)
	t.dropPerfMap(p)
	t.dropIdentity(p)
	p.table.replace(nil, e.Time)
	p.execed, p.begun = e.Time, e.Time
	p.known, p.stale, p.kernel = true, false, false
}

func (t *Table) fork(e *Event) {
	t.Stats.ForksSeen++
	child := &Process{PID: e.PID, ParentPID: e.ParentPID, started: e.Time}
	if parent := t.processes[e.ParentPID]; parent != nil {
		child.Comm, child.Exe, child.mountNS = parent.Comm, parent.Exe, parent.mountNS
		child.cgroups, child.inherited = maps.Clone(parent.cgroups), parent.inherited
		child.kernel, child.known, child.stale = parent.kernel, parent.known, parent.stale
		child.table, child.begun = parent.table.fork(), parent.begun
		child.identity = forkIdentity(parent, e.Time)
	}
	child.stale = child.stale || !child.known // its parent's fork was lost: /proc tells
	t.add(child)
}

func (t *Table) add(p *Process) {
	old := t.processes[p.PID]
	if old == nil && len(t.processes) >= maxProcesses {
		t.dropIdentity(p)
		return
	}
	if old != nil { // nobody finds it any more
		t.dropPerfMap(old)
		t.dropLabels(old)
		t.dropIdentity(old)
	}
	t.processes[p.PID] = p
}

func (t *Table) exit(e *Event) {
	if e.PID != e.TID {
		return // a thread; the group leader's exit record counts below
	}
	if p := t.processes[e.PID]; p != nil && p.exited == 0 {
		p.exited = e.Time
		t.exited = append(t.exited, p)
	}
}

// Expire drops processes that exited long enough ago, seen from now. Their
// children are from then on their parents' children, as for whoever asks who descends from whom.
func (t *Table) Expire(now uint64) {
	if t.lostRecords {
		t.lostRecords = false
		t.findGone(now)
	}
	t.boundMappings(now)
	heirs := make(map[int]int)
	for _, p := range t.due(now) {
		switch {
		case t.processes[p.PID] != p: // its number was given again
		case t.threadsLive(p):
			p.exited += uint64(rereadMost)
			p.leaderless = true
			t.leaderless = append(t.leaderless, p)
		default:
			t.dropPerfMap(p)
			t.dropLabels(p)
			t.dropIdentity(p)
			delete(t.processes, p.PID)
			heirs[p.PID] = p.ParentPID
		}
	}
	if len(heirs) == 0 {
		return
	}
	for _, p := range t.processes {
		for range maxAncestors {
			heir, ok := heirs[p.ParentPID]
			if !ok {
				break
			}
			p.ParentPID, p.adopted = heir, true
		}
	}
}

// boundMappings forgets mappings, the longest lists first, while all processes together have too many. Their samples say
// process_unknown from then on, until an exec.
func (t *Table) boundMappings(now uint64) {
	sum := 0
	lists := make(map[*Mapping][]*Process) // by their first one: forked processes share them
	for _, p := range t.processes {
		if m := p.table.mappings; len(m) > 0 {
			if len(lists[&m[0]]) == 0 {
				sum += len(m)
			}
			lists[&m[0]] = append(lists[&m[0]], p)
		}
	}
	if sum <= maxAllMappings {
		return
	}
	if t.Stats.Forgotten == 0 {
		t.log.Warn("processes have too many executable mappings; the longest lists are forgotten, and stacks of those processes with them", "most", maxAllMappings)
	}
	length := func(users []*Process) int { return len(users[0].table.mappings) }
	longest := slices.SortedFunc(maps.Values(lists), func(a, b []*Process) int { return cmp.Compare(length(b), length(a)) })
	for _, users := range longest {
		if sum <= maxAllMappings {
			break
		}
		sum -= length(users)
		for _, p := range users {
			p.table.replace(nil, now)
			p.known = false
			t.Stats.Forgotten++
		}
	}
}

// due takes out the processes that exited long enough ago.
func (t *Table) due(now uint64) (due []*Process) {
	isDue := func(p *Process) bool { return p.exited+uint64(keepExited) <= now }
	t.leaderless = slices.DeleteFunc(t.leaderless, func(p *Process) bool {
		if isDue(p) {
			due = append(due, p)
			return true
		}
		return false
	})
	n := 0
	for n < len(t.exited) && isDue(t.exited[n]) {
		n++
	}
	due = append(due, t.exited[:n]...)
	t.exited = slices.Delete(t.exited, 0, n)
	return due
}

// threadsLive tells whether threads of a process outlived its leader, which is then a
// zombie, still there. It is looked at again later.
func (t *Table) threadsLive(p *Process) bool {
	tasks, err := os.ReadDir(t.path(p.PID, "task"))
	return err == nil && len(tasks) >= 2
}

// findGone finds processes whose exit was among the records lost.
func (t *Table) findGone(now uint64) {
	for pid, p := range t.processes {
		if p.exited != 0 {
			continue
		}
		if !t.Exists(pid) {
			t.exit(&Event{Time: now, PID: pid, TID: pid})
		}
	}
}

func (t *Table) lost(e *Event) {
	t.Stats.RecordsLost += e.ID
	t.lostRecords = true
	for _, p := range t.processes {
		p.stale = p.exited == 0
	}
}

// At gives the process that had the pid when a sample was taken; all events up
// to then were applied. A process that no record told of is read from /proc;
// nil where that is too late.
func (t *Table) At(pid int, time uint64) *Process {
	p := t.processes[pid]
	if p == nil {
		if p = t.read(pid); p == nil {
			return nil
		}
	}
	if p.stale {
		t.readAgain(p, time)
	}
	return p
}

// readAgain looks at a process after records were lost, its exec perhaps among them.
func (t *Table) readAgain(p *Process, time uint64) {
	t.Stats.Rereads++
	stat, err := os.ReadFile(t.path(p.PID, "stat"))
	exe, exeErr := t.program(p.PID)
	if comm, _, _ := parseStat(string(stat)); err == nil && exeErr == nil && (comm != p.Comm || exe != p.Exe) {
		p.Comm, p.Exe = comm, exe
		t.dropLabels(p)
		t.dropPerfMap(p)
		t.dropIdentity(p)
	}
	t.readMaps(p, time)
}

// Version changes with each change of the process's mappings.
func (p *Process) Version() uint32 { return p.table.version }

// Changed is the time of the last change: what is found for earlier samples does not hold for later ones.
func (p *Process) Changed() uint64 { return p.table.changed }

// Known says whether anything is known of the process's mappings.
func (p *Process) Known() bool { return p.known }

// Mappings gives the executable memory as it is now, in the order of addresses. The slice is valid until the next event.
func (p *Process) Mappings() []Mapping { return p.table.mappings }

// Exited says whether the process has ended: its first thread, that is, and no others live.
func (p *Process) Exited() bool { return p.exited != 0 && !p.leaderless }

// Kernel says whether it is a kernel thread.
func (p *Process) Kernel() bool { return p.kernel }

// ForkedFrom gives the process that p was forked from, if both run the same program still; nil else, and where that is not known.
func (t *Table) ForkedFrom(p *Process) *Process {
	parent := t.processes[p.ParentPID]
	if p.adopted || p.started == 0 || p.execed != 0 || parent == nil || parent.started > p.started || parent.execed > p.started || parent.exited != 0 {
		return nil
	}
	return parent
}

// Holding gives the mapping of a place in a file when a sample was taken; nil where there was none.
func (p *Process) Holding(f *File, off objfile.FileOffset, sampled uint64) *Mapping {
	return p.table.holding(f, off, func(m *Mapping, until uint64) bool { return m.Since <= sampled && sampled < until })
}

// Moved says whether other code was, when a sample was taken, where the process had a place in a file mapped, and came there after the last change that
// a list of its code has in it: a walk by that list takes the other code for this place, wherever else the place is mapped.
func (p *Process) Moved(f *File, off objfile.FileOffset, listed, sampled uint64) bool {
	for i := range slices.Backward(p.table.retired) {
		r := &p.table.retired[i]
		if r.until <= max(listed, p.begun) || r.until > sampled || !r.holds(f, off) {
			continue
		}
		if m, _ := p.table.find(r.AddressOf(off), sampled); m == nil || !m.holds(f, off) || m.AddressOf(off) != r.AddressOf(off) {
			return true
		}
	}
	return false
}

// Held gives the mapping that held a place in a file last, whatever is mapped there by now; nil where that is not known any more.
func (p *Process) Held(f *File, off objfile.FileOffset) *Mapping {
	return p.table.holding(f, off, func(*Mapping, uint64) bool { return true })
}

// Find gives the executable mapping that held an address when a sample was
// taken. Stale says that a mapping is there, but only since later, and what
// stood there before is not known. An unmapped address makes Refresh read
// /proc/PID/maps again, at growing intervals: munmap and mremap leave no record.
func (t *Table) Find(p *Process, a Address, sampled uint64) (m *Mapping, stale bool) {
	m, stale = p.table.find(a, sampled)
	if m != nil || p.kernel || p.exited != 0 {
		return m, stale
	}
	if !p.wished && !time.Now().Before(p.reread) {
		p.wished = true
		t.wishes = append(t.wishes, p)
	}
	return nil, stale
}

// Refresh reads the mappings of processes in which addresses were not mapped. It comes after all
// events until now were applied, so that what /proc says now is the later truth.
func (t *Table) Refresh(now uint64) {
	for _, p := range t.wishes {
		p.wished = false
		if p.exited != 0 {
			continue
		}
		begun := time.Now()
		before := p.table.mappings
		t.Stats.Rereads++
		t.readMaps(p, now)
		if !slices.EqualFunc(before, p.table.mappings, sameMapping) {
			p.backoff = 0
		}
		p.backoff = min(max(2*p.backoff, rereadFirst), rereadMost)
		// A list of mappings that takes long to read is read seldom.
		p.reread = time.Now().Add(max(p.backoff, 100*time.Since(begun)))
	}
	t.wishes = t.wishes[:0]
}

// execMost is how long an exec may take from the end of the old program to the start of the new one.
const execMost = 100 * time.Millisecond

// FindBeforeExec gives the mapping that held an address in the program that
// ran before an exec that is or was under way at the time of a sample; nil where none did.
func (p *Process) FindBeforeExec(a Address, sampled uint64) *Mapping {
	if p.execed == 0 || sampled-p.execed > uint64(execMost) {
		return nil
	}
	for i := range slices.Backward(p.table.retired) {
		if r := &p.table.retired[i]; r.until == p.execed && r.Start <= a && a < r.End {
			return &r.Mapping
		}
	}
	return nil
}

// Labels gives the labels of a sample of this process, one pointer for equal
// ones. Tid is 0 unless threads are kept apart; cgroup is the kernel's id.
func (t *Table) Labels(p *Process, thread [16]byte, tid int, cgroup uint64) *profile.Labels {
	key := labelKey{thread, tid, cgroup}
	if l := p.labels[key]; l != nil {
		return l
	}
	l := &profile.Labels{PID: p.PID, TID: tid, Comm: p.Comm, Thread: t.names.intern(cString(thread[:])), Exe: p.Exe}
	if l.Cgroups = t.cgroups(p, cgroup); len(l.Cgroups) > 0 {
		l.Cgroup = l.Cgroups[0]
		l.ContainerID, l.PodUID, l.Unit = container.ID(l.Cgroups), container.PodUID(l.Cgroups), container.Unit(l.Cgroups)
	}
	if l.Comm == "" {
		l.Comm = l.Thread
	}
	p.identify(l)
	if len(p.labels) >= maxLabels {
		t.dropLabels(p)
	}
	if t.labels >= maxAllLabels {
		for _, other := range t.processes {
			t.dropLabels(other)
		}
	}
	if p.labels == nil {
		p.labels = make(map[labelKey]*profile.Labels, 1)
	}
	p.labels[key] = l
	t.labels++
	return l
}

// dropLabels forgets the labels of a process: they are made again when they are asked for.
func (t *Table) dropLabels(p *Process) {
	t.labels -= len(p.labels)
	p.labels = nil
}

// cgroups are the paths of the process in all hierarchies, while its thread is in
// the cgroup of that id.
func (t *Table) cgroups(p *Process, id uint64) []string {
	if paths, ok := p.cgroups[id]; ok {
		return paths
	}
	var paths []string
	if text, err := os.ReadFile(t.path(p.PID, "cgroup")); err == nil {
		paths = container.Cgroups(string(text))
	} else if name := t.cgroupNames[id]; name != "" {
		paths = []string{name}
	} else {
		paths = p.inherited // gone: what its parent was in must do
	}
	if p.cgroups == nil || len(p.cgroups) >= maxProcessCgroups {
		p.cgroups = make(map[uint64][]string, 1)
	}
	p.cgroups[id], p.inherited = paths, paths
	return paths
}

// DescendsFrom tells whether pid is one of the ancestors or a descendant of
// one, as far as parents are known.
func (t *Table) DescendsFrom(pid int, ancestors []int) bool {
	for range maxAncestors {
		if slices.Contains(ancestors, pid) {
			return true
		}
		p := t.processes[pid]
		if p == nil || p.ParentPID == pid {
			return false
		}
		pid = p.ParentPID
	}
	return false
}

// maxAncestors is deeper than any real tree of processes; it ends a loop of reused pids.
const maxAncestors = 64

// Exists tells whether there is a process of that number, dead ones that nobody waited for among them.
func (t *Table) Exists(pid int) bool { return t.exists(pid) }

// exists asks the kernel, not /proc, which may hide the processes of others (hidepid).
func exists(pid int) bool {
	_, err := unix.Getpgid(pid)
	return !errors.Is(err, unix.ESRCH)
}

// Descendants lists the living descendants of pid.
func (t *Table) Descendants(pid int) []int {
	var found []int
	for other, p := range t.processes {
		if other != pid && p.exited == 0 && t.DescendsFrom(other, []int{pid}) {
			found = append(found, other)
		}
	}
	return found
}
