package publish

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/unwind"
)

// host is a Publisher over loaded programs, and the processes that the test tells it of.
type host struct {
	*Publisher
	t       *testing.T
	ready   chan struct{}
	program string
	entries *ebpf.Map
	busy    []int // processes that are sampled all the time, however long a test waits
}

func newHost(t *testing.T) *host {
	t.Helper()
	programs, err := bpf.Load(bpf.Options{Walks: true})
	if err != nil {
		t.Fatalf("load (these tests need root): %v", err)
	}
	h := &host{t: t, ready: make(chan struct{}, 1), program: filepath.Join(t.TempDir(), "maps"), entries: processesMap(t)}
	files := process.NewFiles()
	log := slog.New(slog.DiscardHandler)
	h.Publisher = New(programs, process.NewTable(files, log), files, func() { signal(h.ready) }, log)
	t.Cleanup(func() {
		h.Close()
		files.Close()
		if err := programs.Close(); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-Werror", "-o", h.program, "../testdata/maps.c").CombinedOutput(); err != nil {
		t.Fatalf("compile maps.c: %v\n%s", err, out)
	}
	return h
}

// processesMap opens that map of the programs that this process holds.
func processesMap(t *testing.T) *ebpf.Map {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // the directory's own is closed by now
		_, rest, ok := strings.Cut(string(text), "map_id:")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, "\n")
		id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(ebpf.MapID(id))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := m.Info(); err == nil && info.Name == "processes" {
			t.Cleanup(func() { _ = m.Close() })
			return m
		}
		_ = m.Close()
	}
	t.Fatal("no map of processes is open")
	return nil
}

// child is a process that the test started: the first of its pids has the others for children.
type child struct {
	pids []int
	kill func()
}

// start runs maps.c.
func (h *host) start(children int, files ...string) child {
	h.t.Helper()
	cmd := exec.Command(h.program, append([]string{strconv.Itoa(children)}, files...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	c := child{pids: []int{cmd.Process.Pid}, kill: func() { _ = cmd.Process.Kill(); _, _ = io.Copy(io.Discard, out); _ = cmd.Wait() }}
	h.t.Cleanup(c.kill)
	for {
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			h.t.Fatal(err)
		}
		if pid == 0 {
			return c
		}
		c.pids = append(c.pids, pid)
	}
}

func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// exit says that processes ended; the processes themselves may live on.
func (h *host) exit(pids ...int) {
	for _, pid := range pids {
		h.processes.Apply(&process.Event{Kind: process.EventExit, PID: pid, TID: pid, Time: monotonic()})
	}
}

// publish wants processes, and waits until all of their tables were compiled and are listed.
func (h *host) publish(pids ...int) {
	h.t.Helper()
	for _, pid := range pids {
		p := h.processes.At(pid, monotonic())
		if p == nil {
			h.t.Fatalf("nothing is known of process %d", pid)
		}
		h.Want(p, 0)
	}
	h.Update()
	pending := func() bool {
		for _, t := range h.tables {
			if t.code == bpf.RuleNonePending {
				return true
			}
		}
		return !h.again.IsZero() && time.Until(h.again) < retryTable/2 // a list that was made a moment ago is made again soon, not at once
	}
	for end := time.After(5 * time.Minute); pending(); {
		select {
		case <-h.ready:
			h.update()
		case <-time.After(50 * time.Millisecond): // what waits for room is not called for
			h.update()
		case <-end:
			h.t.Fatal("not compiled within five minutes")
		}
	}
}

// update does what an agent does between samples of the busy processes.
func (h *host) update() {
	for _, pid := range h.busy {
		h.Want(h.processes.At(pid, monotonic()), 0)
	}
	h.Update()
}

// told is what the programs were told of a process; ok is false where they know nothing of it.
func (h *host) told(pid int) (p bpf.Process, ok bool) {
	h.t.Helper()
	err := h.entries.Lookup(uint32(pid), &p)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		h.t.Fatal(err)
	}
	return p, err == nil
}

// listed are the code ranges that the programs find for a process.
func (h *host) listed(pid int) []bpf.CodeRange {
	h.t.Helper()
	p, ok := h.told(pid)
	if !ok {
		h.t.Fatalf("the programs know nothing of process %d", pid)
	}
	ranges := make([]bpf.CodeRange, p.Count)
	words := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(ranges))), len(ranges)*rangeWords)
	if err := h.programs.Arena().Read(p.Ranges, words); err != nil {
		h.t.Fatal(err)
	}
	return ranges
}

// rested waits until what was given back can be had again.
func (h *host) rested() (free int) {
	time.Sleep(grace + 10*time.Millisecond)
	h.space.settle(time.Now())
	for _, f := range h.space.free {
		free += int(f.words)
	}
	return free
}

// Forked processes, whose code is the same, share one list, which is there as long as one of them is, and whose space comes back then.
func TestForked(t *testing.T) {
	h := newHost(t)
	c := h.start(3)
	h.publish(c.pids[0])
	before := h.space.used
	h.publish(c.pids...)
	if n := len(h.lists); n != 1 || h.space.used != before || h.Stats.Processes != len(c.pids) {
		t.Errorf("%d lists for %d processes, %d words of the arena in use and %d for one", n, h.Stats.Processes, h.space.used, before)
	}
	first, _ := h.told(c.pids[0])
	generations := make(map[uint32]bool)
	for _, pid := range c.pids {
		p, ok := h.told(pid)
		if !ok || p.Ranges != first.Ranges || p.Count != first.Count || p.Tgid != uint32(pid) {
			t.Errorf("process %d: %t, %+v, the first is %+v", pid, ok, p, first)
		}
		generations[p.Generation] = true
	}
	if len(generations) != len(c.pids) || generations[0] {
		t.Errorf("generations %v of %d processes", generations, len(c.pids))
	}
	withIndex := 0
	for _, r := range h.listed(c.pids[0]) {
		if r.Index != 0 {
			withIndex++
		}
	}
	if withIndex < 3 { // the program, libc and its loader
		t.Errorf("%d pieces of code with a table", withIndex)
	}

	list := h.published[c.pids[0]].list
	free := h.rested()
	for i, pid := range c.pids {
		h.exit(pid)
		h.Update()
		if _, ok := h.told(pid); ok {
			t.Errorf("the programs know process %d, which ended", pid)
		}
		if left := len(c.pids) - i - 1; list.users != left || len(h.lists) != min(left, 1) || len(h.published) != left {
			t.Errorf("%d processes are left: %d use the list, there are %d lists for %d processes", left, list.users, len(h.lists), len(h.published))
		}
	}
	if got, want := h.rested(), free+int(roundUp(list.words)); got != want {
		t.Errorf("%d words are free in the end, want %d", got, want)
	}
	for id, table := range h.tables {
		if table.users != 0 {
			t.Errorf("%d lists use the table of file %d, there are none", table.users, id)
		}
	}
}

// fewShards are full sooner: five libraries and a half fill them, as 10 MB each would fill the whole arena.
const fewShards = 4

// A process that was prepared is told of with its first sample, with all its tables; another one with the next Update.
func TestPrepare(t *testing.T) {
	h := newHost(t)
	pids := []int{h.start(0).pids[0], h.start(0).pids[0]}
	h.Prepare(pids[:1])
	for _, table := range h.tables {
		if table.code == bpf.RuleNonePending {
			t.Error("a table is pending")
		}
	}
	for _, pid := range pids {
		h.Want(h.processes.At(pid, monotonic()), 0)
	}
	if _, ok := h.told(pids[1]); ok {
		t.Error("a process that was not prepared is told of before the Update")
	}
	ranges := h.listed(pids[0])
	if i := slices.IndexFunc(ranges, func(r bpf.CodeRange) bool { return r.Index != 0 }); i < 0 {
		t.Errorf("no code range has a table: %+v", ranges)
	}
	h.Update()
	if _, ok := h.told(pids[1]); !ok || len(h.tables) < 4 {
		t.Errorf("after the Update the programs know the other process: %t; %d tables", ok, len(h.tables))
	}
}

// largeRows is how many rows a library has whose table takes 2.9 MB.
const largeRows = 760640

func largeLibraries(t *testing.T, n int) []string { return equalLibraries(t, n, largeRows) }

// equalLibraries makes libraries of which each has a table of so many rows.
func equalLibraries(t *testing.T, n, rows int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	library := filepath.Join(dir, "library.so")
	gcc := exec.Command("gcc", "-shared", "-nostdlib", fmt.Sprintf("-Wa,--defsym,instructions=%d", rows), "-o", library, "../testdata/rows.s")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", gcc, err, out)
	}
	text, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("library%d.so", i)))
		if err := os.WriteFile(paths[i], text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// pages counts those of a process that the programs have a table for.
func (h *host) pages(pid int) (n int) {
	h.t.Helper()
	for _, r := range h.listed(pid) {
		if r.Index != 0 {
			n += int(r.Pages)
		}
	}
	return n
}

// await updates until a process has so many pages with a table.
func (h *host) await(pid, pages int, most time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(most); h.pages(pid) < pages && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
		h.update()
	}
	if got := h.pages(pid); got != pages {
		h.t.Errorf("%d pages of process %d have tables, want %d: %+v", got, pid, pages, h.Stats)
	}
}

// Tables that nobody uses make room for those of others: as many as it takes, and no file is compiled twice. Those in use stay.
func TestEviction(t *testing.T) {
	h := newHost(t)
	h.shards = fewShards
	libraries := largeLibraries(t, 7)
	plain := h.start(0)
	h.publish(plain.pids...)
	old := h.start(0, libraries[:2]...)
	h.publish(old.pids...)
	kept := h.start(0, libraries[2:4]...)
	h.publish(kept.pids...)
	h.busy = slices.Concat(plain.pids, kept.pids)
	program := h.pages(plain.pids[0])
	library := (h.pages(old.pids[0]) - program) / 2
	if h.Stats.Evicted+h.Stats.Refused != 0 || library < 170 {
		t.Fatalf("four libraries do not fit: %+v; %d pages of each have a table", h.Stats, library)
	}
	h.exit(old.pids...)
	h.Update()
	compiled := h.Stats.Compiled
	fresh := h.start(0, libraries[4:]...)
	h.publish(fresh.pids...)
	h.await(fresh.pids[0], program+3*library, 5*grace)
	h.await(kept.pids[0], program+2*library, 0)
	if n := h.Stats.Compiled - compiled; n != 3 || h.Stats.Evicted != 2 || h.Stats.Refused != 0 {
		t.Errorf("%d tables of three files were compiled, %d evicted, of which two are room enough, and %d refused", n, h.Stats.Evicted, h.Stats.Refused)
	}
}

// What found no room, because all tables are in use, comes when there is some.
func TestFull(t *testing.T) {
	h := newHost(t)
	h.shards = fewShards
	libraries := largeLibraries(t, 7)
	plain := h.start(0)
	h.publish(plain.pids...)
	first := h.start(0, libraries[:3]...)
	h.publish(first.pids...)
	program := h.pages(plain.pids[0])
	library := (h.pages(first.pids[0]) - program) / 3
	h.busy = slices.Concat(plain.pids, first.pids) // to compile takes longer than the time after which others would make room
	second := h.start(0, libraries[3:]...)
	h.publish(second.pids...)
	h.await(second.pids[0], program+2*library, 0)
	h.await(first.pids[0], program+3*library, 0)
	if h.Stats.Refused != 2 || h.Stats.Evicted != 0 {
		t.Errorf("%d tables were refused, want 2, and %d evicted", h.Stats.Refused, h.Stats.Evicted)
	}
	h.busy = slices.Concat(plain.pids, second.pids)
	h.exit(first.pids...)
	h.Update()
	h.await(second.pids[0], program+4*library, 6*retryTable) // some seconds each to compile, under the race detector
}

// forget makes it seem that a process was not sampled for long.
func (h *host) forget(pid int) { h.published[pid].sampled = h.published[pid].sampled.Add(-idle) }

// steps looks rules up in the arena, for each library that a process has mapped and at places all over it, and counts the libraries of which all are
// right: rows.s has a frame of 16 bytes behind every other instruction.
func (h *host) steps(pid int, libraries []string) (right int) {
	h.t.Helper()
	proc := h.processes.At(pid, monotonic())
	wanted := make(map[string]bool)
	for _, path := range libraries {
		wanted[path] = true
	}
	mappings := proc.Mappings()
	for i := range mappings {
		m := &mappings[i]
		if !wanted[m.File.Path] {
			continue
		}
		id, reason := h.files.ID(h.processes, proc, m)
		if reason != bpf.ReasonNone {
			h.t.Fatal(reason)
		}
		t := h.tables[id]
		if t == nil || !t.done || len(t.pieces) == 0 {
			continue
		}
		good := true
		for _, piece := range t.pieces {
			for off := piece.start; off < min(piece.end, piece.start+64); off++ {
				if rule, reason := h.rule(t, off); reason != bpf.ReasonNone || rule.Kind != unwind.Step || rule.Offset != 8+8*int32(off%2) {
					good = false
				}
			}
		}
		if good {
			right++
		}
	}
	return right
}

// At its start, and with the tables of the first programs, an agent of a whole host takes little of the kernel's memory.
func TestMapsAtStart(t *testing.T) {
	h := newHost(t)
	const most = 16e6
	for _, what := range []string{"at start", "with a process"} {
		if what != "at start" {
			h.publish(h.start(0).pids[0])
		}
		bytes, err := h.programs.MapBytes()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of maps", what, bytes)
		if bytes > most {
			t.Errorf("%s: %d bytes of maps, at most %.0f are wanted", what, bytes, most)
		}
	}
}

// 4,096 files and 8 M rows are in use at a time, within 64 MB for all maps. What is used beyond takes the place of what was not sampled lately, which
// comes back when it is. Nothing in use is compiled twice.
func TestBounds(t *testing.T) {
	h := newHost(t)
	const wantFiles, wantRows, most = 4096, 8 << 20, 64 << 20
	small := equalLibraries(t, wantFiles, 64)
	large := largeLibraries(t, wantRows/largeRows+1+7)
	large, more := large[:wantRows/largeRows+1], large[wantRows/largeRows+1:]
	report := func(what string) {
		t.Helper()
		bytes, err := h.programs.MapBytes()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of maps, %d tables, %+v", what, bytes, len(h.tables), h.Stats)
		if bytes > most {
			t.Errorf("%s: %d bytes of maps, at most %d are wanted", what, bytes, most)
		}
	}
	report("at the start")
	crowd := h.start(0, small...).pids[0]
	begun := time.Now()
	h.publish(crowd)
	h.await(crowd, h.pages(crowd), 0)
	report(fmt.Sprintf("%d files in %v", wantFiles, time.Since(begun)))
	if got := h.steps(crowd, small); got != wantFiles {
		t.Errorf("%d of %d small files are walked", got, wantFiles)
	}
	first := h.start(0, large...).pids[0]
	begun = time.Now()
	h.publish(first)
	report(fmt.Sprintf("%d large files more in %v", len(large), time.Since(begun)))
	if got := h.steps(first, large); got != len(large) || h.Stats.Rows < wantRows {
		t.Errorf("%d of %d large files are walked, there are %d rows", got, len(large), h.Stats.Rows)
	}
	if n := h.Stats.Compiled; n < wantFiles+uint64(len(large)) || h.Stats.Recompiled+h.Stats.Evicted+h.Stats.Refused+h.Stats.Withdrawn != 0 {
		t.Errorf("all fits, and yet: %+v", h.Stats)
	}

	h.forget(first)
	h.recent.MoveToBack(h.published[first].element)
	second := h.start(0, more...).pids[0]
	h.publish(second)
	report(fmt.Sprintf("%d large files beyond", len(more)))
	if got, left := h.steps(second, more), h.steps(crowd, small); got != len(more) || left != wantFiles {
		t.Errorf("%d of %d files beyond are walked, and %d of %d that stay", got, len(more), left, wantFiles)
	}
	if _, ok := h.told(first); ok || h.Stats.Withdrawn != 1 || h.Stats.Refused != 0 || h.Stats.Recompiled != 0 {
		t.Errorf("the process that was not sampled is known: %t; %+v", ok, h.Stats)
	}

	h.forget(second)
	h.recent.MoveToBack(h.published[second].element)
	evicted := h.Stats.Evicted
	h.publish(first)
	report("the first ones again")
	if got := h.steps(first, large); got != len(large) || h.Stats.Recompiled != evicted || h.Stats.Withdrawn != 2 || h.Stats.Refused != 0 {
		t.Errorf("%d of %d files are walked again; %d tables had been evicted: %+v", got, len(large), evicted, h.Stats)
	}
}

// Where there is no room for one more process, that which was not sampled for longest makes some.
func TestCrowded(t *testing.T) {
	h := newHost(t)
	c := h.start(3)
	h.most = 3
	h.publish(c.pids[:3]...)
	h.publish(c.pids[3])
	if _, ok := h.told(c.pids[3]); ok || h.Stats.Refused != 1 || h.Stats.Processes != 3 {
		t.Errorf("all others were sampled a moment ago: known is %t, %+v", ok, h.Stats)
	}
	time.Sleep(idleCrowd)
	h.publish(c.pids[:2]...) // the third is not sampled any more
	h.publish(c.pids[3])
	for i, want := range []bool{true, true, false, true} {
		if _, ok := h.told(c.pids[i]); ok != want {
			t.Errorf("process %d is known: %t", i, ok)
		}
	}
	if h.Stats.Withdrawn != 1 || h.Stats.Processes != 3 {
		t.Errorf("%+v", h.Stats)
	}
}

// Long lists have a share of the arena, and make room for one another; nobody else does.
func TestLongLists(t *testing.T) {
	h := newHost(t)
	plain, ended := h.start(0).pids[0], h.start(0, equalLibraries(t, 5, 64)...).pids[0]
	h.publish(plain, ended)
	h.exit(ended) // its tables are not in use any more
	h.Update()
	libraries := equalLibraries(t, 100, 64)
	var pids []int
	for range 3 {
		pids = append(pids, h.start(0, libraries...).pids[0])
	}
	h.long = 100 * rangeWords
	h.publish(pids[0])
	h.longMost = 2*h.published[pids[0]].list.words + h.long // the others may be some words longer
	h.publish(pids[1])
	rest := func(pid int) {
		h.forget(pid)
		h.recent.MoveToBack(h.published[pid].element)
	}
	known := func(want ...bool) {
		t.Helper()
		for i, pid := range append(pids, plain) {
			if _, ok := h.told(pid); ok != want[i] {
				t.Errorf("process %d is known: %t; %+v", i, ok, h.Stats)
			}
		}
	}
	rest(plain)
	h.publish(pids[2])
	known(true, true, false, true)
	rest(pids[0])
	rest(plain)
	h.publish(pids[2])
	known(false, true, true, true)
	if h.Stats.Withdrawn != 1 || h.Stats.Evicted > 0 {
		t.Errorf("%+v", h.Stats)
	}
}

// Tables that no process uses any more go after a while, and with them their room.
func TestUnused(t *testing.T) {
	h := newHost(t)
	plain, more := h.start(0), h.start(0, equalLibraries(t, 20, 64)...)
	h.publish(plain.pids[0], more.pids[0])
	tables, used := len(h.tables), h.space.used
	h.exit(more.pids[0])
	h.Update()
	if len(h.tables) != tables {
		t.Errorf("%d tables are left of %d when their process has just ended", len(h.tables), tables)
	}
	list := used - h.space.used
	for e := h.unused.Front(); e != nil; e = e.Next() {
		e.Value.(*table).used = time.Now().Add(-keepUnused)
	}
	h.Update()
	if len(h.tables) != tables-20 || h.Stats.Evicted != 20 || h.space.used >= used-list {
		t.Errorf("%d tables are left of %d, %d words are used and %d were: %+v", len(h.tables), tables, h.space.used, used-list, h.Stats)
	}
	h.publish(plain.pids[0])
	if h.Stats.Recompiled != 0 {
		t.Errorf("%+v", h.Stats)
	}
}

// While a stack waits for a table, the rings go on being emptied.
func TestAwaitMeanwhile(t *testing.T) {
	h := newHost(t)
	answer := make(chan struct{})
	stands := &table{file: 1, under: true}
	h.tables[1] = stands
	h.compiler.submit(job{file: 1, contents: process.Contents{SectionReader: io.NewSectionReader(stuck(answer), 0, 1)}})
	calls := 0
	h.Meanwhile(func() {
		if calls++; calls == 3 {
			close(answer)
		}
	})
	for stands.under && h.patience > 0 {
		stands.slow = false
		h.Publisher.await(stands)
	}
	if calls < 3 {
		t.Errorf("called %d times", calls)
	}
}

// A table that a stack waits for is there when it has come, although another one that came with it finds no room; and nobody waits for that one.
func TestAwaitFull(t *testing.T) {
	h := newHost(t)
	h.shards = 1
	libraries := largeLibraries(t, 2)
	proc := h.processes.At(h.start(0, libraries...).pids[0], monotonic())
	var tables []*table
	now := time.Now()
	for i := range proc.Mappings() {
		if m := &proc.Mappings()[i]; slices.Contains(libraries, m.File.Path) {
			id, reason := h.files.ID(h.processes, proc, m)
			if reason != bpf.ReasonNone {
				t.Fatal(reason)
			}
			tables = append(tables, h.tableOf(id, proc, m, now))
		}
	}
	first, second := tables[0], tables[1]
	compiled := func() int {
		h.compiler.mu.Lock()
		defer h.compiler.mu.Unlock()
		if r := h.compiler.results; len(r) > 0 && r[0].file == tables[1].file {
			first, second = tables[1], tables[0]
		}
		return len(h.compiler.results)
	}
	for end := time.Now().Add(time.Minute); compiled() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not compiled within a minute")
		}
	}
	h.Publisher.await(first)
	if len(first.pieces) == 0 {
		t.Fatalf("it is gone: %+v", h.Stats)
	}
	if rule, reason := h.rule(first, first.pieces[0].start); reason != bpf.ReasonNone {
		t.Errorf("%+v, %s", rule, reason)
	}
	// Nobody uses the first one any more, so it makes room, which can be had a second later.
	second.need, second.retry = 0, time.Time{}
	for i := range proc.Mappings() {
		m := &proc.Mappings()[i]
		if id, _ := h.files.ID(h.processes, proc, m); id == second.file {
			h.tableOf(id, proc, m, now)
		}
	}
	for end := time.Now().Add(time.Minute); len(second.rest) == 0; h.Update() {
		if time.Sleep(time.Millisecond); time.Now().After(end) {
			t.Fatalf("it does not wait for room: %+v", h.Stats)
		}
	}
	h.patience = roundWait
	if h.Publisher.await(second); h.patience != roundWait {
		t.Errorf("a stack waited %v for what has no room", roundWait-h.patience)
	}
}
