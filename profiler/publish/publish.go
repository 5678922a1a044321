// Package publish tells the BPF programs what code processes have and how its frames are left: it compiles the unwind table
// of each file once, puts it into the programs' arena, and keeps for each process that is sampled the list of its code in order.
//
// The caller says which processes are sampled (Want), and calls Update after each change that the table of processes took in. One goroutine
// uses a Publisher; the tables are compiled on another.
//
// # Lifetimes
//
// What lies in the arena does not change. A process that changes gets a new list under a new generation; the old one, and
// tables that no list names any more when room is needed, are given out again a second later, when no walk can look at them.
package publish

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unsafe"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Publisher keeps the programs' knowledge of code true.
type Publisher struct {
	programs  *bpf.Programs
	processes *process.Table
	files     *process.Files
	log       *slog.Logger

	space      space
	compiler   *compiler
	tables     map[uint32]*table // by file id
	lists      map[string]*list  // by their words
	published  map[int]*entry    // by pid
	wanted     map[*process.Process]uint32
	generation uint32
	walked     []unwind.Frame
	arrived    bool          // tables, since the last Update
	patience   time.Duration // that cold walks have left in this round
	placing    []*table      // tables that wait for words in their grace
	again      time.Time     // when tables that found no room are tried again; zero: there are none
	full       bool          // the arena has no room, which was said
	shards     int           // that the arena may have

	// Stats counts what happened since the start.
	Stats Stats
}

// Stats of a Publisher.
type Stats struct {
	Compiled   uint64 // unwind tables
	Uncompiled uint64 // files that have none, or could not be read
	Rows       uint64 // of the tables that are in the arena now
	Evicted    uint64 // tables that made room
	Refused    uint64 // tables and lists that found no room
	Processes  int    // that are published now
	ArenaBytes uint64 // in use
}

// entry is a process that the programs know.
type entry struct {
	process    *process.Process
	version    uint32
	execID     uint32
	generation uint32
	list       *list
	pending    bool // of tables that were not there yet
	// changed is when its mappings changed last since it was published first; zero: never.
	changed time.Time
	copies  bool // the programs copy its stacks as well
}

func (e *entry) flags() uint32 {
	if e.copies {
		return uint32(bpf.ProcessCopy)
	}
	return 0
}

// list is the code of one process, or of several that have it at the same addresses: forked ones.
type list struct {
	key    string
	at     uint32
	words  int
	count  int
	users  int
	tables []*table
}

// table is that of one file.
type table struct {
	pieces  []placed
	rest    []unwind.Piece // not placed yet
	code    uint32         // of what the pieces do not cover: no rule, and why, or jitCode
	callers uint32
	rows    int
	users   int // lists
	used    time.Time
	retry   time.Time // not before: it found no room, or its file could not be read
	done    bool
	slow    bool // no cold walk waits for it any more
	// decoder is the table without its rows.
	decoder *unwind.Table
}

// placed is a piece of a table in the arena.
type placed struct {
	start, end   objfile.FileOffset
	at           uint32
	words        int
	index, rules uint32
}

const (
	// maxPieceWords keeps pieces small beside a shard, so that little is lost at its end.
	maxPieceWords = bpf.ShardWords / 4
	rangeWords    = int(unsafe.Sizeof(bpf.CodeRange{})) / 4
	// maxPublished is the size of the map of processes, and a bit less: what is deleted stays a moment.
	maxPublished = 32768 - 1024
	retryTable   = 10 * time.Second
	// calm is how long after a change of its mappings a process's stacks are copied: who loads and unloads code does it again.
	calm = 5 * time.Second
)

// New makes a Publisher; ready is called, on another goroutine, when Update should be. Close it.
func New(programs *bpf.Programs, processes *process.Table, files *process.Files, ready func(), log *slog.Logger) *Publisher {
	return &Publisher{
		programs: programs, processes: processes, files: files, log: log, compiler: newCompiler(ready),
		tables: make(map[uint32]*table), lists: make(map[string]*list), published: make(map[int]*entry),
		wanted: make(map[*process.Process]uint32), patience: roundWait, shards: bpf.MaxShards,
	}
}

// Close ends the compiler.
func (p *Publisher) Close() { p.compiler.close() }

// Want says that a process, which runs the program of an exec id, is sampled, and that the programs do not know it.
func (p *Publisher) Want(proc *process.Process, execID uint32) {
	if proc.Kernel() || !proc.Known() {
		return
	}
	if e := p.published[proc.PID]; e != nil && e.process == proc && e.execID == execID && e.version == proc.Version() {
		return // it is published by now
	}
	p.wanted[proc] = execID
}

// Current says whether a generation tells of the mappings that a process has now.
func (p *Publisher) Current(proc *process.Process, generation uint32) bool {
	e := p.published[proc.PID]
	return e != nil && e.process == proc && e.generation == generation && e.version == proc.Version()
}

// Compiled says that tables were compiled since the last Update.
func (p *Publisher) Compiled() bool { return p.compiler.done() }

// Update publishes what is wanted, what changed, and what was compiled meanwhile.
func (p *Publisher) Update() {
	now := time.Now()
	p.arrive(now)
	if !p.again.IsZero() && now.After(p.again) {
		p.again, p.arrived = time.Time{}, true
	}
	for pid, e := range p.published {
		switch {
		case e.process.Exited():
			p.withdraw(pid, e)
		case e.version != e.process.Version() || p.arrived && e.pending || e.copies && now.Sub(e.changed) > calm:
			p.publish(e.process, e.execID, now)
		}
	}
	for proc, execID := range p.wanted {
		if !proc.Exited() {
			p.publish(proc, execID, now)
		}
	}
	clear(p.wanted)
	p.arrived, p.patience = false, roundWait
	p.Stats.Processes, p.Stats.ArenaBytes = len(p.published), 4*uint64(p.space.used)
}

// arrive takes in what was compiled.
func (p *Publisher) arrive(now time.Time) {
	waiting := p.placing
	p.placing = nil
	for _, t := range waiting {
		p.place(t, now)
	}
	for _, r := range p.compiler.take() {
		r.contents.Release()
		t := p.tables[r.file]
		if r.err != nil {
			p.arrived, t.done, t.code = true, true, codeWithout(r.err)
			p.Stats.Uncompiled++
			if !errors.Is(r.err, unwind.ErrNone) {
				p.log.Debug("no unwind table", "file", r.file, "err", r.err)
			}
			continue
		}
		p.Stats.Compiled++
		t.decoder, t.rest = r.table, r.table.Pieces(maxPieceWords)
		p.place(t, now)
	}
}

// place puts a table into the arena, or as much of it as there is room for until other words' grace is over.
func (p *Publisher) place(t *table, now time.Time) {
	for len(t.rest) > 0 {
		piece := t.rest[0]
		at, err := p.write(piece.Len(), piece.Words, now)
		if errors.Is(err, errResting) {
			p.placing = append(p.placing, t)
			return
		}
		if err != nil {
			p.refuse(err)
			p.free(t)
			p.arrived = true
			p.again = now.Add(retryTable)
			t.code, t.retry, t.rest, t.decoder = bpf.RuleNoneNoTable, p.again, nil, nil
			return
		}
		t.pieces = append(t.pieces, placed{
			start: piece.Start(), end: piece.End(), at: at, words: piece.Len(), index: piece.Index(at), rules: at,
		})
		t.rest = t.rest[1:]
	}
	p.arrived, t.done, t.code = true, true, bpf.RuleNoneGap
	if t.decoder.CallersKeepFramePointer() {
		t.callers = unwind.FramePointerCode(t.decoder.Machine())
	}
	t.rows = t.decoder.Stats().Rows
	p.Stats.Rows += uint64(t.rows)
	if len(t.pieces) == 0 {
		t.code = bpf.RuleNoneNoTable
	}
	t.rest = nil
	t.decoder.Strip()
}

func (p *Publisher) refuse(err error) {
	p.Stats.Refused++
	if !p.full {
		p.full = true
		p.log.Warn("no room for unwind tables: stacks end where they are missing", "err", err)
	}
}

var (
	errFull    = errors.New("the arena is full")
	errCrowded = fmt.Errorf("more than %d processes", maxPublished)
	errResting = errors.New("there will be room in the arena when the grace of what was given back is over")
)

// write finds room for words, evicting tables that no process uses, and puts there what make gives for the place.
func (p *Publisher) write(words int, make func(at uint32) []uint32, now time.Time) (at uint32, err error) {
	for {
		if at, ok := p.space.take(words, now); ok {
			return at, p.programs.Arena().Write(at, make(at))
		}
		if n := p.programs.Arena().Shards(); n < p.shards {
			if err := p.programs.Arena().Grow(); err != nil {
				return 0, err
			}
			p.space.addShard(n)
			continue
		}
		if p.space.resting() >= words {
			return 0, errResting
		}
		if !p.evict() {
			return 0, fmt.Errorf("%w: %d MiB", errFull, p.shards*bpf.ShardWords*4>>20)
		}
	}
}

// evict frees the table that was not used for the longest time. Its words can be had a moment later.
func (p *Publisher) evict() bool {
	var oldest uint32
	for id, t := range p.tables {
		if t.users == 0 && t.done && len(t.pieces) > 0 && (oldest == 0 || t.used.Before(p.tables[oldest].used)) {
			oldest = id
		}
	}
	if oldest == 0 {
		return false
	}
	p.free(p.tables[oldest])
	delete(p.tables, oldest)
	p.Stats.Evicted++
	return true
}

func (p *Publisher) free(t *table) {
	for _, piece := range t.pieces {
		p.space.give(piece.at, piece.words, time.Now())
	}
	t.pieces = nil
	p.Stats.Rows -= uint64(t.rows)
	t.rows = 0
}

// tableOf gives the table of a mapped file; one that is not there yet is compiled.
func (p *Publisher) tableOf(id uint32, proc *process.Process, m *process.Mapping, now time.Time) *table {
	t := p.tables[id]
	if t != nil && (t.done || t.retry.IsZero() || now.Before(t.retry)) {
		t.used = now
		return t
	}
	t = &table{code: bpf.RuleNonePending, used: now}
	if p.compiler.full() {
		p.again = now.Add(time.Second)
		return t // its file would have to be kept open meanwhile
	}
	p.tables[id] = t
	contents, reason := p.files.Contents(p.processes, proc, m)
	if reason != bpf.ReasonNone {
		p.again = now.Add(retryTable)
		t.code, t.retry = bpf.RuleNoneNoTable, p.again
		return t
	}
	p.compiler.submit(job{file: id, contents: contents})
	return t
}

// publish tells the programs of a process's code.
func (p *Publisher) publish(proc *process.Process, execID uint32, now time.Time) {
	before := p.published[proc.PID]
	if before == nil && len(p.published) >= maxPublished {
		p.refuse(errCrowded)
		return
	}
	e := &entry{process: proc, version: proc.Version(), execID: execID}
	if before != nil && before.process == proc && before.execID == execID {
		if e.changed = before.changed; e.version != before.version {
			e.changed = now
		}
		e.copies = now.Sub(e.changed) <= calm
	}
	ranges, tables := p.ranges(proc, e, now)
	l, err := p.listOf(ranges, tables, now)
	if err != nil {
		if !errors.Is(err, errResting) {
			p.refuse(err)
		}
		p.again = now.Add(retryTable)
		// Its next sample asks again. What is known of it may be kept only while it is true.
		if before != nil && (before.process != proc || before.version != proc.Version()) {
			p.withdraw(proc.PID, before)
		}
		return
	}
	l.users++
	p.generation++
	e.list, e.generation = l, p.generation
	err = p.programs.PutProcess(bpf.Process{
		Tgid: uint32(proc.PID), ExecId: execID, Generation: e.generation, Ranges: l.at, Count: uint32(l.count), Flags: e.flags(),
	})
	if err != nil {
		p.log.Debug("cannot publish a process", "pid", proc.PID, "err", err)
		p.leave(l)
		return
	}
	p.published[proc.PID] = e
	if before != nil {
		p.leave(before.list)
	}
}

func (p *Publisher) withdraw(pid int, e *entry) {
	if err := p.programs.DeleteProcess(uint32(pid)); err != nil {
		p.log.Debug("cannot withdraw a process", "pid", pid, "err", err)
	}
	delete(p.published, pid)
	p.leave(e.list)
}

// leave gives a list up that a process had.
func (p *Publisher) leave(l *list) {
	if l.users--; l.users > 0 {
		return
	}
	delete(p.lists, l.key)
	p.space.give(l.at, l.words, time.Now()) // the grace begins now
	for _, t := range l.tables {
		t.users--
	}
}

// listOf puts code ranges into the arena, if they are not there.
func (p *Publisher) listOf(ranges []bpf.CodeRange, tables map[*table]struct{}, now time.Time) (*list, error) {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ranges))), len(ranges)*4*rangeWords)
	if l := p.lists[string(bytes)]; l != nil {
		return l, nil
	}
	words := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(ranges))), len(ranges)*rangeWords)
	l := &list{key: string(bytes), words: max(1, len(words)), count: len(ranges)}
	for t := range tables { // before room is made for the list by evicting those that nobody uses
		t.users++
		l.tables = append(l.tables, t)
	}
	var err error
	if l.at, err = p.write(l.words, func(uint32) []uint32 { return words }, now); err != nil {
		for _, t := range l.tables {
			t.users--
		}
		return nil, err
	}
	p.lists[l.key] = l
	return l, nil
}

// ranges makes the list of a process's code.
func (p *Publisher) ranges(proc *process.Process, e *entry, now time.Time) ([]bpf.CodeRange, map[*table]struct{}) {
	mappings := proc.Mappings()
	r := make([]bpf.CodeRange, 0, len(mappings)+8)
	tables := make(map[*table]struct{})
	for i := range mappings {
		m := &mappings[i]
		// The kernel's own page, [vsyscall], is told of by /proc alone; the programs search addresses of 63 bits.
		if m.Start >= 1<<63 || m.Start&(pageBytes-1) != 0 || len(r) >= bpf.MaxCodeRanges {
			continue
		}
		whole := bpf.CodeRange{Start: uint64(m.Start), Frame: uint64(bpf.RawFrame(0)), Pages: pages(uint64(m.End - m.Start))}
		if !m.File.Regular() && !m.File.VDSO() {
			whole.Callers = jitCode
			r = append(r, whole)
			continue
		}
		whole.Callers = bpf.RuleNoneNoTable
		offset := m.FileOffset(m.Start)
		id, reason := p.files.ID(p.processes, proc, m)
		if reason == bpf.ReasonNone && id <= bpf.MaxFileID && uint64(offset)+uint64(m.End-m.Start) <= bpf.MaxFileOffset {
			whole.Frame = uint64(bpf.NativeFrame(id, 0)) + uint64(offset) - uint64(m.Start)
			t := p.tableOf(id, proc, m, now)
			tables[t] = struct{}{}
			e.pending = e.pending || !t.done
			r = t.cut(r, whole, offset)
			continue
		}
		r = append(r, whole)
	}
	return r[:min(len(r), bpf.MaxCodeRanges)], tables
}

// jitCode is the rule of code that was made at run time, which keeps frame pointers more often than not.
var jitCode = unwind.FramePointerCode(machine)

// codeWithout is that of a file for which there is no table. Who maps code from what is no ELF file has made it at run time: memory that has two
// mappings, one to write and one to run the code, is a file (memfd, /dev/shm).
func codeWithout(err error) uint32 {
	if errors.Is(err, objfile.ErrNotELF) {
		return jitCode
	}
	return bpf.RuleNoneNoTable
}

const pageBytes = 4096

func pages(bytes uint64) uint32 { return uint32((bytes + pageBytes - 1) / pageBytes) }

// cut adds the code range of a mapping that begins at an offset, in the pieces that the table has.
func (t *table) cut(r []bpf.CodeRange, whole bpf.CodeRange, offset objfile.FileOffset) []bpf.CodeRange {
	at, end := offset, offset+objfile.FileOffset(whole.Pages)*pageBytes
	add := func(until objfile.FileOffset, index, rules, callers uint32) {
		if until > at {
			r = append(r, bpf.CodeRange{
				Start: whole.Start + uint64(at-offset), Frame: whole.Frame, Pages: pages(uint64(until - at)),
				Index: index, Rules: rules, Callers: callers,
			})
			at = until
		}
	}
	pieces := t.pieces
	if !t.done {
		pieces = nil // those that are placed already may have to go again
	}
	for _, piece := range pieces {
		if piece.end <= at || piece.start >= end {
			continue
		}
		add(min(piece.start, end), 0, 0, t.code)
		index := piece.index + uint32((at-piece.start)/pageBytes)
		add(min(piece.end, end), index, piece.rules, t.callers)
	}
	add(end, 0, 0, t.code)
	return r
}
