package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// fakeProc is a /proc that a test fills.
type fakeProc struct {
	t   *testing.T
	dir string
}

func (f fakeProc) write(pid int, name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, strconv.Itoa(pid), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f fakeProc) link(pid int, name, target string) {
	f.t.Helper()
	path := filepath.Join(f.dir, strconv.Itoa(pid), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		f.t.Fatal(err)
	}
}

// process makes one that runs, with a root of its own.
func (f fakeProc) process(pid, parent int, comm, maps string) (root string) {
	f.t.Helper()
	f.write(pid, "stat", fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 0", pid, comm, parent))
	f.write(pid, "maps", maps)
	f.write(pid, "cgroup", "0::/\n")
	root = f.t.TempDir()
	f.link(pid, "root", root)
	return root
}

func (f fakeProc) gone(pid int) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, strconv.Itoa(pid))); err != nil {
		f.t.Fatal(err)
	}
}

func newTestTable(t *testing.T) (*Table, fakeProc) {
	t.Helper()
	files := NewFiles()
	t.Cleanup(files.Close)
	proc := fakeProc{t, t.TempDir()}
	table := NewTable(files, discardLog)
	table.proc = proc.dir
	table.exists = func(pid int) bool {
		_, err := os.Stat(filepath.Join(proc.dir, strconv.Itoa(pid)))
		return err == nil
	}
	return table, proc
}

func (t *Table) apply(events ...Event) {
	for i := range events {
		t.Apply(&events[i])
	}
}

func fork(time uint64, pid, parent int) Event {
	return Event{Kind: EventFork, Time: time, PID: pid, TID: pid, ParentPID: parent}
}

func exec(time uint64, pid int, name string) Event {
	return Event{Kind: EventExec, Time: time, PID: pid, TID: pid, Name: name}
}

func exit(time uint64, pid int) Event {
	return Event{Kind: EventExit, Time: time, PID: pid, TID: pid}
}

func mmap(time uint64, pid int, start Address, path string) Event {
	return Event{Kind: EventMmap, Time: time, PID: pid, TID: pid, Name: path, File: FileKey{8, 1, uint64(len(path)) + 1, 0},
		Mapping: Mapping{Start: start, End: start + 0x1000, Since: time}}
}

const second = uint64(time.Second)

func pathAt(t *Table, pid int, a Address, time uint64) string {
	p := t.At(pid, time)
	if p == nil {
		return "no process"
	}
	m, stale := t.Find(p, a, time)
	switch {
	case m != nil:
		return m.File.Path
	case stale:
		return "stale"
	}
	return "nothing"
}

func TestTableLife(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(10, 1, "sh", "1000-2000 r-xp 0 8:1 5 /bin/sh\n")
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	table.apply(
		fork(second, 20, 10),
		exec(2*second, 20, "first"),
		mmap(2*second+1, 20, 0x1000, "/bin/first"),
		mmap(2*second+2, 20, 0x5000, "/lib/a"),
		mmap(3*second, 20, 0x5000, "/lib/bb"), // replaced
		fork(4*second, 30, 20),
		mmap(5*second, 30, 0x5000, "/lib/ccc"), // the child's alone
		Event{Kind: EventComm, Time: 5 * second, PID: 30, TID: 30, Name: "renamed"},
		Event{Kind: EventComm, Time: 5 * second, PID: 30, TID: 31, Name: "a thread"},
		Event{Kind: EventFork, Time: 5 * second, PID: 30, TID: 31, ParentPID: 30}, // a thread
		Event{Kind: EventExit, Time: 6 * second, PID: 30, TID: 31},
	)
	for _, c := range []struct {
		pid  int
		a    Address
		time uint64
		want string
	}{
		{10, 0x1800, second, "/bin/sh"},
		{20, 0x1000, second + 1, "/bin/sh"}, // between its fork and its exec
		{20, 0x1fff, 4 * second, "/bin/first"},
		{20, 0x5000, 2*second + 5, "/lib/a"},
		{20, 0x5000, 3 * second, "/lib/bb"},
		{20, 0x5000, 6 * second, "/lib/bb"},
		{30, 0x1000, 6 * second, "/bin/first"},
		{30, 0x5000, 4*second + 1, "/lib/bb"},
		{30, 0x5000, 6 * second, "/lib/ccc"},
		{30, 0x9000, 6 * second, "nothing"},
	} {
		if got := pathAt(table, c.pid, c.a, c.time); got != c.want {
			t.Errorf("process %d, %#x at %d ns: %s, want %s", c.pid, c.a, c.time, got, c.want)
		}
	}
	p := table.At(30, 6*second)
	if p.Comm != "renamed" || p.Exe != "/bin/first" || p.ParentPID != 20 || p.exited != 0 {
		t.Errorf("%+v", p)
	}
	if l := table.Labels(p, [16]byte{'w'}, 0, 1); l.PID != 30 || l.Comm != "renamed" || l.Thread != "w" || l.Exe != "/bin/first" || l.TID != 0 {
		t.Errorf("labels %+v", l)
	} else if again := table.Labels(p, [16]byte{'w'}, 0, 1); again != l {
		t.Error("equal labels are two pointers")
	}

	// Another program in the same process: nothing of the old one is left but the past.
	table.apply(exec(7*second, 30, "second"))
	if got := pathAt(table, 30, 0x1000, 8*second); got != "nothing" {
		t.Errorf("after exec: %s", got)
	}
	if got := pathAt(table, 30, 0x1000, 6*second); got != "/bin/first" {
		t.Errorf("before exec: %s", got)
	}
	// The number is given again: the new process is not the old one.
	table.apply(mmap(7*second, 30, 0x1000, "/bin/second"), exit(8*second, 30))
	if got := pathAt(table, 30, 0x1000, 8*second-1); got != "/bin/second" {
		t.Errorf("a process that has just exited: %s", got)
	}
	table.apply(fork(9*second, 30, 10))
	if got := pathAt(table, 30, 0x1000, 9*second+1); got != "/bin/sh" {
		t.Errorf("a reused number: %s", got)
	}
	table.Expire(12 * second)
	if p := table.processes[30]; p == nil || p.exited != 0 {
		t.Error("the exit of the old process took the new one of its number away")
	}
}

// Whoever descends from a target stays its descendant when those between are gone.
func TestTableDescendants(t *testing.T) {
	table, _ := newTestTable(t)
	table.apply(fork(1, 10, 1))
	const last = 40 // a chain 10 -> 11 -> ... of daemons that fork and exit
	for pid := 11; pid <= last; pid++ {
		table.apply(fork(second*uint64(pid), pid, pid-1))
		if pid%3 == 0 && pid > 11 {
			table.apply(exit(second*uint64(pid)+1, pid-1))
		}
		if pid%4 == 0 {
			table.Expire(second * uint64(pid))
		}
	}
	table.apply(fork(second*last, 99, 1))
	table.Expire(second * 100)
	if !table.DescendsFrom(last, []int{10}) || !table.DescendsFrom(last, []int{7, 10}) || !table.DescendsFrom(10, []int{10}) {
		t.Error("a descendant is not known as one any more")
	}
	if table.DescendsFrom(99, []int{10}) || table.DescendsFrom(10, []int{last}) || table.DescendsFrom(12345, []int{10}) {
		t.Error("a stranger is taken for a descendant")
	}
	want := 0
	for pid := 11; pid <= last; pid++ {
		if p := table.processes[pid]; p != nil && p.exited == 0 {
			want++
		}
	}
	if got := table.Descendants(10); len(got) != want || want >= last-10 || slices.Contains(got, 99) || slices.Contains(got, 10) {
		t.Errorf("%d descendants %v, want %d", len(got), got, want)
	}
	// Numbers that lead round in a circle end somewhere.
	table.apply(fork(second*200, 70, 71), fork(second*200, 71, 70))
	if table.DescendsFrom(70, []int{10}) {
		t.Error("a circle leads out")
	}
}

// Ten thousand processes come and go, numbers are used again, and nothing of them is left.
func TestTableForgets(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(10, 1, "sh", "1000-2000 r-xp 0 8:1 5 /bin/sh\n")
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	before := table.Len()
	now := second
	most := 0
	for i := range 10000 {
		pid := 1000 + i%3000
		now += uint64(time.Millisecond)
		table.apply(fork(now, pid, 10), exec(now+1, pid, "x"), mmap(now+2, pid, 0x1000, "/bin/x"))
		if i%10 == 0 { // two that descend from one another
			table.apply(fork(now+3, 5000, pid), exit(now+4, 5000))
		}
		table.apply(exit(now+5, pid))
		if i%1000 == 0 {
			table.Expire(now)
		}
		most = max(most, table.Len())
	}
	table.Expire(now + uint64(keepExited) + 10)
	if table.Len() != before || len(table.exited)+len(table.leaderless) != 0 {
		t.Errorf("%d processes, %d before; %d exits are kept", table.Len(), before, len(table.exited)+len(table.leaderless))
	}
	if most > 3005 {
		t.Errorf("%d processes at once, 3,000 in two seconds were made", most)
	}
	if s := table.Stats; s.ForksSeen != 11000 || s.ExecsSeen != 10000 || s.MappingsSeen != 10000 {
		t.Errorf("%+v", s)
	}
}

// A process whose first thread has ended lives on in the others, and holds up nobody.
func TestTableLeaderExits(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(10, 1, "threads", "1000-2000 r-xp 0 8:1 5 /bin/threads\n")
	proc.write(10, "task/10/stat", "")
	proc.write(10, "task/11/stat", "")
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	table.apply(exit(second, 10))
	table.Expire(10 * second)
	if got := pathAt(table, 10, 0x1000, 10*second); got != "/bin/threads" {
		t.Errorf("its other threads run in %s", got)
	}
	for i := range 100 {
		table.apply(fork(10*second, 1000+i, 1), exit(10*second+1, 1000+i))
	}
	table.Expire(15 * second)
	if table.Len() != 1 {
		t.Errorf("%d processes, want that of the threads alone", table.Len())
	}
	proc.gone(10)
	table.Expire(200 * second)
	if table.Len() != 0 || len(table.exited)+len(table.leaderless) != 0 {
		t.Errorf("%d processes are left", table.Len())
	}
}

// Exec by another thread than the first: the kernel ends the first, and the process goes on under the same number.
func TestTableExecByThread(t *testing.T) {
	table, proc := newTestTable(t)
	table.apply(fork(second, 20, 10), exit(2*second, 20), exec(2*second+1, 20, "next"), mmap(2*second+2, 20, 0x1000, "/bin/next"),
		fork(3*second, 30, 20))
	proc.write(20, "task/20/stat", "")
	table.Expire(10 * second)
	if p := table.processes[20]; p == nil || p.exited != 0 || p.ParentPID != 10 {
		t.Errorf("a process that lives is taken for one that exited: %+v", p)
	}
	if !table.DescendsFrom(30, []int{20}) {
		t.Error("its child is not its child any more")
	}
	table.apply(exit(11*second, 20), exit(11*second, 30))
	table.Expire(20 * second)
	if table.Len() != 0 || len(table.exited)+len(table.leaderless) != 0 {
		t.Errorf("%d processes are left", table.Len())
	}
}

// Records were lost: what is there is read again, and who is gone is found out.
func TestTableLost(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(10, 1, "sh", "1000-2000 r-xp 0 8:1 5 /bin/sh\n")
	for pid := 100; pid < 200; pid++ {
		proc.process(pid, 10, "gone", "")
	}
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	proc.write(10, "stat", "10 (other) S 1 1 1 0 -1 0 0")
	proc.link(10, "exe", "/bin/other")
	proc.write(10, "maps", "1000-2000 r-xp 0 8:1 6 /bin/other\n5000-6000 r-xp 0 8:1 7 /lib/new\n")
	for pid := 100; pid < 200; pid++ {
		proc.gone(pid)
	}
	if got := pathAt(table, 10, 0x1000, second); got != "/bin/sh" {
		t.Fatal(got)
	}
	table.apply(Event{Kind: EventLost, Time: 2 * second, ID: 50})
	if got := pathAt(table, 10, 0x1000, 3*second); got != "/bin/other" {
		t.Errorf("after the loss: %s", got)
	}
	if got := pathAt(table, 10, 0x5000, 3*second); got != "/lib/new" {
		t.Errorf("after the loss: %s", got)
	}
	if got := pathAt(table, 10, 0x1000, second); got != "/bin/sh" {
		t.Errorf("before the loss: %s", got)
	}
	if l := table.Labels(table.At(10, 3*second), [16]byte{}, 0, 1); l.Comm != "other" || l.Exe != "/bin/other" {
		t.Errorf("an exec that was lost: %+v", l)
	}
	if table.Stats.RecordsLost != 50 || table.Stats.Rereads != 1 {
		t.Errorf("%+v", table.Stats)
	}
	table.Expire(4 * second)
	table.Expire(10 * second)
	if table.Len() != 1 {
		t.Errorf("%d processes are held, 1 lives: their exits were among what was lost", table.Len())
	}
}

// A number that no record told of is read from /proc when it is asked for.
func TestTableUnknown(t *testing.T) {
	table, proc := newTestTable(t)
	if p := table.At(10, second); p != nil {
		t.Fatalf("%+v", p)
	}
	proc.process(10, 5, "a) S (b", "1000-2000 r-xp 0 8:1 5 /bin/sh\n")
	proc.link(10, "exe", "/bin/sh (deleted)")
	p := table.At(10, second)
	if p == nil || p.Comm != "a) S (b" || p.ParentPID != 5 || p.Exe != "/bin/sh" || !p.Known() {
		t.Fatalf("%+v", p)
	}
	if got := pathAt(table, 10, 0x1000, second); got != "/bin/sh" {
		t.Error(got)
	}
	// A mapping that left no record: looked for, but not for every sample.
	proc.write(10, "maps", "1000-2000 r-xp 0 8:1 5 /bin/sh\n7000-8000 r-xp 0 8:1 9 /lib/late\n")
	version := p.Version()
	if got := pathAt(table, 10, 0x7000, 2*second); got != "nothing" {
		t.Error(got)
	}
	table.Refresh(2 * second)
	if got := pathAt(table, 10, 0x7000, 3*second); got != "/lib/late" || p.Version() == version {
		t.Errorf("%s, version %d and %d before", got, p.Version(), version)
	}
	for range 100 {
		if got := pathAt(table, 10, 0x9000, 3*second); got != "nothing" {
			t.Error(got)
		}
		table.Refresh(3 * second)
	}
	if table.Stats.Rereads > 2 {
		t.Errorf("%d readings for an address that is not mapped", table.Stats.Rereads)
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		stat   string
		comm   string
		parent int
		kernel bool
	}{
		{"1 (systemd) S 0 1 1 0 -1 4194560 0", "systemd", 0, false},
		{"2 (kthreadd) S 0 0 0 0 -1 2129984 0", "kthreadd", 0, true},
		{"7 (a) R 9 (b) S 12 1 1 0 -1 0 0", "a) R 9 (b", 12, false},
		{"7 (x) Z", "x", 0, false},
		{"", "", 0, false}, {")(", "", 0, false}, {"7 (x", "", 0, false},
	} {
		comm, parent, kernel := parseStat(c.stat)
		if comm != c.comm || parent != c.parent || kernel != c.kernel {
			t.Errorf("%q: %q %d %t", c.stat, comm, parent, kernel)
		}
	}
}

// Between an exec's record and its first mapping's, samples are the new program's already.
func TestTableNamesProgramAtExec(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(20, 1, "first", "")
	vdso := mmap(second+2, 20, 0x5000, "[vdso]")
	vdso.File = FileKey{}
	events := []Event{
		fork(second, 20, 1), exec(second+1, 20, "first"), vdso, mmap(second+3, 21, 0x1000, "/bin/other"), mmap(second+4, 20, 0x1000, "/bin/first"),
		exec(second+5, 20, "gone"), exec(second+6, 20, "second"),
	}
	NamePrograms(events)
	for _, want := range []string{"", "/bin/first", "/bin/first", "/bin/first", "/bin/first", "", ""} {
		table.apply(events[0])
		if p := table.At(20, events[0].Time); p.Exe != want {
			t.Errorf("after %+v: program %q, want %q", events[0], p.Exe, want)
		}
		events = events[1:]
	}
}

// Threads that are named anew for each sample, in many processes, do not fill the memory; equal labels stay one pointer until it is.
func TestTableLabelsBound(t *testing.T) {
	table, proc := newTestTable(t)
	const processes = 40
	for pid := 1; pid <= processes; pid++ {
		proc.process(pid, 1, "x", "1000-2000 r-xp 0 8:1 5 /x\n")
	}
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	held := func() (n int) {
		for _, p := range table.processes {
			n += len(p.labels)
		}
		return n
	}
	most := 0
	for i := range 2 * maxAllLabels {
		var thread [16]byte
		copy(thread[:], strconv.Itoa(i))
		p := table.At(1+i%processes, second)
		if l := table.Labels(p, thread, 0, 1); l.Thread != strconv.Itoa(i) || l != table.Labels(p, thread, 0, 1) {
			t.Fatalf("%+v", l)
		}
		if most = max(most, table.labels); i%1000 == 0 && table.labels != held() {
			t.Fatalf("%d labels are held, %d counted", held(), table.labels)
		}
	}
	if most > maxAllLabels || most < maxAllLabels/2 {
		t.Errorf("%d labels at most", most)
	}
	// Whatever ends a process, or makes another of it, gives them back.
	table.apply(exec(second, 1, "y"), fork(second, 2, 1), mmap(second, 3, 0x5000, "/z"), Event{Kind: EventComm, PID: 4, TID: 4, Name: "z"}, exit(second, 5))
	table.Expire(10 * second)
	if table.labels != held() {
		t.Errorf("%d labels are held, %d counted", held(), table.labels)
	}
}

// What perf maps take is given back with their processes, whether their exits were seen or their numbers came again.
func TestTablePerfMapBytes(t *testing.T) {
	table, proc := newTestTable(t)
	for pid := 1; pid <= 6; pid++ {
		root := proc.process(pid, 1, "x", "1000-2000 r-xp 0 0:0 0\n")
		if err := os.MkdirAll(filepath.Join(root, "tmp"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "tmp", fmt.Sprintf("perf-%d.map", pid)), []byte("1000 100 made\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		proc.write(pid, "status", "")
		if name, ok := table.JITName(table.At(pid, second), 0x1010); !ok || name != "made" {
			t.Fatalf("process %d: %q", pid, name)
		}
	}
	held := func() (n int) {
		for _, p := range table.processes {
			if p.perfMap != nil {
				n += p.perfMap.bytes()
			}
		}
		return n
	}
	if table.perfMapBytes != held() || held() == 0 {
		t.Fatalf("%d bytes are held, %d counted", held(), table.perfMapBytes)
	}
	proc.write(3, "stat", "3 (other) S 1 0 0 0 0 0 0")
	proc.link(3, "exe", "/bin/other")
	table.apply(exit(second, 1), fork(second+1, 1, 6), fork(second+1, 2, 6), Event{Kind: EventLost, Time: second + 2, ID: 1}, exec(second+3, 4, "y"), exit(second+4, 5))
	table.At(3, second+5)
	table.Expire(10 * second)
	if table.perfMapBytes != held() {
		t.Errorf("%d bytes are held, %d counted", held(), table.perfMapBytes)
	}
}

// Processes that map without end lose their mappings, those that have most first; forked ones share theirs.
func TestTableMappingsBound(t *testing.T) {
	table, proc := newTestTable(t)
	proc.process(1, 1, "x", "1000-2000 r-xp 0 8:1 5 /x\n")
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	const hostile = maxAllMappings/maxMappings + 3
	for i := range hostile {
		table.apply(exec(second, 100+i, "x"))
		crowd, _, _ := crowded()
		table.processes[100+i].table.replace(crowd.mappings, second)
	}
	for i := range 1000 {
		table.apply(fork(second, 1000+i, 100))
	}
	for i := range 2 {
		held := make(map[*Mapping]int)
		for _, p := range table.processes {
			if m := p.table.mappings; len(m) > 0 {
				held[&m[0]] = len(m)
			}
		}
		sum := 0
		for _, n := range held {
			sum += n
		}
		if over := sum > maxAllMappings; over != (i == 0) || len(held) < hostile-3 {
			t.Errorf("look %d: %d mappings in %d lists", i, sum, len(held))
		}
		table.Expire(second)
	}
	if got := pathAt(table, 1, 0x1000, second); got != "/x" {
		t.Errorf("a usual process has %s", got)
	}
	unknown := 0
	for _, p := range table.processes {
		if !p.Known() {
			unknown++
		}
	}
	if n := int(table.Stats.Forgotten); n < 3 || n != unknown {
		t.Errorf("%d were forgotten, %d are unknown", n, unknown)
	}
}

// A process is its parent's copy from the fork until one of them execs.
func TestForkedFrom(t *testing.T) {
	table := NewTable(NewFiles(), discardLog)
	apply := func(events ...Event) {
		for _, e := range events {
			table.Apply(&e)
		}
	}
	apply(Event{Kind: EventExec, Time: 10, PID: 1, TID: 1},
		Event{Kind: EventFork, Time: 20, PID: 2, TID: 2, ParentPID: 1},
		Event{Kind: EventFork, Time: 21, PID: 3, TID: 3, ParentPID: 1},
		Event{Kind: EventExec, Time: 30, PID: 3, TID: 3})
	of := func(pid int) *Process { return table.processes[pid] }
	if got := table.ForkedFrom(of(2)); got != of(1) {
		t.Errorf("a fork is that of %v", got)
	}
	if got := table.ForkedFrom(of(3)); got != nil {
		t.Errorf("a process that ran another program is a fork of %v", got)
	}
	if got := table.ForkedFrom(of(1)); got != nil {
		t.Errorf("a process without a parent is a fork of %v", got)
	}
	apply(Event{Kind: EventExec, Time: 40, PID: 1, TID: 1})
	if got := table.ForkedFrom(of(2)); got != nil {
		t.Errorf("its parent runs another program, it is a fork of %v", got)
	}
}
