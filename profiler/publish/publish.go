// Package publish tells the BPF programs what code processes have and how its frames are left: it compiles the unwind table
// of each file once, puts it into the programs' arena, and keeps for each process that is sampled the list of its code in order.
//
// The caller says which processes are sampled (Want), and calls Update after each change that the table of processes took in. One goroutine
// uses a Publisher; the tables are compiled on another.
//
// # Lifetimes
//
// What lies in the arena does not change. A process that changes gets a new list under a new generation; the old one, and tables that are
// taken away, are given out again a second later, when no walk can look at them.
//
// A table that no list names is kept for a while, since programs come back. Where room is needed, in the arena or in the map of
// processes, these go first, that which was not used for longest before the others; then processes that were not sampled lately: they are published
// again with their next sample. What is in use stays, and what finds no room then is refused, and tried again when there is some.
package publish

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"slices"
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
	unused     list.List         // tables that no list names, the one used last first
	lists      map[listKey]*codeList
	published  map[int]*entry // by pid
	recent     list.List      // the same, the one sampled last first
	wanted     map[*process.Process]uint32
	compiled   map[uint32]struct{}       // ids of files
	prepared   map[*process.Process]bool // and not yet sampled
	generation uint32
	walked     []unwind.Frame
	now        time.Time     // of the last Update
	arrived    bool          // tables, since then
	patience   time.Duration // that cold walks have left in this round
	meanwhile  func()        // of Meanwhile
	placing    []*table      // tables that wait for words in their grace
	again      time.Time     // when those that could not be had are tried again; zero: there are none
	refused    time.Time     // when something found no room last
	shards     int           // that the arena may have
	long       int           // words from which on a list is a long one
	longMost   int           // words that long ones may take
	longUsed   int           // words that they take
	most       int           // processes that may be published

	// Stats counts what happened since the start.
	Stats Stats
}

// Stats of a Publisher.
type Stats struct {
	Compiled   uint64 // unwind tables
	Recompiled uint64 // of those, tables of files that had one before
	Uncompiled uint64 // files that have none, or could not be read
	Rows       uint64 // of the tables that are in the arena now
	Evicted    uint64 // tables that no process used any more and that were taken away
	Withdrawn  uint64 // processes that made room, because they were not sampled lately
	Refused    uint64 // tables and processes that found no room
	Processes  int    // that are published now
	ArenaBytes uint64 // in use
}

// entry is a process that the programs know.
type entry struct {
	process    *process.Process
	version    uint32
	execID     uint32
	generation uint32
	list       *codeList
	listed     time.Time // when it got the list
	of         uint64    // the last change of mappings that is in it: CLOCK_MONOTONIC, ns
	sampled    time.Time
	element    *list.Element
	pending    bool // of tables that were not there yet
	// changed is when its mappings changed last since it was published first; zero: never.
	changed time.Time
	copies  bool // the programs copy its stacks as well
	// spans is where its threads keep the ids of spans, in a file that lies so far from its own addresses; nil: they have none.
	spans *source
	bias  uint64
	musl  bool
}

func (e *entry) flags() uint32 {
	if e.copies {
		return uint32(bpf.ProcessCopy)
	}
	return 0
}

// until is when the list may be replaced. The longer it is, the longer it stands: of one process no more rests than two lists of the longest kind.
func (e *entry) until() time.Time {
	return e.listed.Add(grace * time.Duration(e.list.words) / time.Duration(bpf.MaxCodeRanges*rangeWords))
}

// listKey is a hash of a list's words.
type listKey [sha256.Size]byte

// codeList is the code of one process, or of several that have it at the same addresses: forked ones.
type codeList struct {
	key    listKey
	at     uint32
	words  int
	count  int
	users  int
	tables []*table
}

// table is that of one file.
type table struct {
	file    uint32
	pieces  []placed
	rest    []unwind.Piece // not placed yet
	code    uint32         // of what the pieces do not cover: no rule, and why, or jitCode
	callers uint32
	rows    int
	users   int           // lists
	element *list.Element // in Publisher.unused; nil: lists use it, or it is under way
	used    time.Time
	under   bool          // way: it is compiled, or waits for words
	retry   time.Time     // not before: it could not be had
	wait    time.Duration // until the next retry, if this one fails
	need    int           // words that it found no room for
	done    bool
	slow    bool // no cold walk waits for it any more
	// decoder is the table without its rows.
	decoder *unwind.Table
	spans   *source // where threads keep the ids of spans; nil: the file does not say
}

// compiling says that a table is neither there nor waits for words.
func (t *table) compiling() bool { return t.under && len(t.rest) == 0 }

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
	maxPublished = 16384 - 1024
	// Lists of more than longWords, 8,192 code ranges, take no room from others: all of them have maxLongWords at most, which is four of the
	// longest and one that takes the place of another.
	longWords    = 8192 * rangeWords
	maxLongWords = 5 * bpf.MaxCodeRanges * rangeWords
	// retryTable is how long after it could not be had a table is tried again, at first; each time twice as long, up to retryMost.
	retryTable = 10 * time.Second
	retryMost  = 10 * time.Minute
	// keepUnused and maxUnused are how long, and how many, tables stay that no process uses: builds and cron jobs come back.
	keepUnused = 5 * time.Minute
	maxUnused  = 1024
	// idle is how long a process was not sampled that makes room in the arena; in the map of processes it does so after idleCrowd.
	idle      = 10 * time.Second
	idleCrowd = time.Second
	// quiet is how long nothing was refused when the next refusal is worth a warning again.
	quiet = time.Hour
	// maxCompiled bounds the ids of files that were compiled, for the count of those that are again.
	maxCompiled = 1 << 16
	// calm is how long after a change of its mappings a process's stacks are copied: who loads and unloads code does it again.
	calm = 5 * time.Second
)

// New makes a Publisher; ready is called, on another goroutine, when Update should be. Close it.
func New(programs *bpf.Programs, processes *process.Table, files *process.Files, ready func(), log *slog.Logger) *Publisher {
	return &Publisher{
		programs: programs, processes: processes, files: files, log: log, compiler: newCompiler(ready),
		tables: make(map[uint32]*table), lists: make(map[listKey]*codeList), published: make(map[int]*entry),
		wanted: make(map[*process.Process]uint32), compiled: make(map[uint32]struct{}), prepared: make(map[*process.Process]bool),
		now: time.Now(), patience: roundWait, shards: bpf.MaxShards, most: maxPublished,
		long: longWords, longMost: maxLongWords,
	}
}

// Meanwhile sets what is called, every few milliseconds, while a stack waits for a table.
func (p *Publisher) Meanwhile(f func()) { p.meanwhile = f }

// Close ends the compiler. It comes before the Files are closed.
func (p *Publisher) Close() { p.compiler.close() }

// Want says that a process, which runs the program of an exec id, was sampled. If the programs do not know its code, the next Update tells them.
func (p *Publisher) Want(proc *process.Process, execID uint32) {
	if proc.Kernel() || !proc.Known() {
		return
	}
	if e := p.published[proc.PID]; e != nil {
		e.sampled = p.now
		p.recent.MoveToFront(e.element)
		if e.process == proc && e.execID == execID && e.version == proc.Version() {
			return
		}
	}
	if p.prepared[proc] { // at once: its first sample is still to be named, which may take as long as all else
		delete(p.prepared, proc)
		p.publish(proc, execID, time.Now())
		return
	}
	p.wanted[proc] = execID
}

// Current says whether a generation tells of the mappings that a process has now.
func (p *Publisher) Current(proc *process.Process, generation uint32) bool {
	e := p.published[proc.PID]
	return e != nil && e.process == proc && e.generation == generation && e.version == proc.Version()
}

// Listed is when the last change of mappings was that a generation's list has in it by which a process is walked, its own or its parent's (CLOCK_MONOTONIC, ns), or
// before, where that is not known any more.
func (p *Publisher) Listed(proc *process.Process, generation uint32) uint64 {
	for _, owner := range []*process.Process{proc, p.processes.ForkedFrom(proc)} { // whose list the programs may have taken
		if owner == nil {
			continue
		}
		if e := p.published[owner.PID]; e != nil && e.process == owner && e.generation == generation {
			return e.of
		}
	}
	return 0
}

// WalksAlone says that a process's stacks are walked by what was published of it, and not copied as well.
func (p *Publisher) WalksAlone(pid int) bool {
	e := p.published[pid]
	return e != nil && !e.copies
}

// Keep says whether the programs know a process, though perhaps not as it is now, and counts as a sample of it: its children are walked by its list.
func (p *Publisher) Keep(proc *process.Process) bool {
	e := p.published[proc.PID]
	if e == nil || e.process != proc {
		return false
	}
	e.sampled = p.now
	p.recent.MoveToFront(e.element)
	return true
}

// Compiled says that tables were compiled since the last Update.
func (p *Publisher) Compiled() bool { return p.compiler.done() }

// Update publishes what is wanted, what changed, and what was compiled meanwhile.
func (p *Publisher) Update() {
	now := time.Now()
	p.now = now
	p.arrive(now)
	if !p.again.IsZero() && now.After(p.again) {
		p.again, p.arrived = time.Time{}, true
	}
	maps.DeleteFunc(p.prepared, func(proc *process.Process, _ bool) bool { return proc.Exited() })
	for _, e := range p.published {
		switch {
		case e.process.Exited():
			p.withdraw(e)
		case e.version != e.process.Version():
			p.follow(e, now)
		case p.arrived && e.pending && now.Before(e.until()):
			p.tryAgain(e.until())
		case p.arrived && e.pending || e.copies && now.Sub(e.changed) > calm:
			p.publish(e.process, e.execID, now)
		}
	}
	for proc, execID := range p.wanted {
		if e := p.published[proc.PID]; !proc.Exited() && (e == nil || e.process != proc || e.execID != execID) {
			p.publish(proc, execID, now)
		}
	}
	clear(p.wanted)
	p.expire(now)
	p.arrived, p.patience = false, roundWait
	p.Stats.Processes, p.Stats.ArenaBytes = len(p.published), 4*uint64(p.space.used)
}

// follow takes in that a process's mappings changed.
func (p *Publisher) follow(e *entry, now time.Time) {
	switch {
	case now.Sub(e.sampled) > idle:
		p.withdraw(e) // until somebody asks
	case !now.Before(e.until()):
		p.publish(e.process, e.execID, now)
	case !e.copies: // its stacks are walked by what is true until the list is
		e.changed, e.copies = now, true
		if err := p.tell(e); err != nil {
			p.log.Debug("cannot publish a process", "pid", e.process.PID, "err", err)
			p.withdraw(e)
		}
	}
}

// expire drops tables that nobody used for long.
func (p *Publisher) expire(now time.Time) {
	for last := p.unused.Back(); last != nil; last = p.unused.Back() {
		t := last.Value.(*table)
		if p.unused.Len() <= maxUnused && now.Sub(t.used) < keepUnused {
			return
		}
		p.drop(t)
	}
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
		if unread := (*fs.PathError)(nil); r.err == errHangs || errors.As(r.err, &unread) { // the file may answer again
			p.arrived = true
			p.postpone(t, now)
			continue
		}
		if r.err != nil {
			p.Stats.Uncompiled++
			if !errors.Is(r.err, unwind.ErrNone) {
				p.log.Debug("no unwind table", "file", r.file, "err", r.err)
			}
			p.arrived, t.code, t.done, t.spans = true, codeWithout(r.err), true, r.spans
			p.settle(t, now)
			continue
		}
		p.count(r.file)
		t.spans = r.spans
		t.decoder, t.rest = r.table, r.table.Pieces(maxPieceWords)
		p.place(t, now)
	}
}

// count counts a table that was compiled.
func (p *Publisher) count(file uint32) {
	p.Stats.Compiled++
	if _, again := p.compiled[file]; again {
		p.Stats.Recompiled++
	}
	if len(p.compiled) >= maxCompiled {
		clear(p.compiled)
	}
	p.compiled[file] = struct{}{}
}

// settle says that nothing is under way for a table any more.
func (p *Publisher) settle(t *table, now time.Time) {
	t.under = false
	if t.users == 0 {
		p.shelve(t, now)
	}
}

// shelve puts a table among those that no list names.
func (p *Publisher) shelve(t *table, now time.Time) {
	t.used, t.element = now, p.unused.PushFront(t)
}

// postpone says that a table cannot be had for now.
func (p *Publisher) postpone(t *table, now time.Time) {
	t.wait = min(max(2*t.wait, retryTable), retryMost)
	t.code, t.retry = bpf.RuleNoneNoTable, now.Add(t.wait)
	p.tryAgain(t.retry)
	p.settle(t, now)
}

// tryAgain makes an Update after some time look at all that is not complete.
func (p *Publisher) tryAgain(at time.Time) {
	if p.again.IsZero() || at.Before(p.again) {
		p.again = at
	}
}

// place puts a table into the arena, or as much of it as there is room for until other words' grace is over.
func (p *Publisher) place(t *table, now time.Time) {
	for len(t.rest) > 0 {
		piece := t.rest[0]
		at, err := p.write(piece.Len(), piece.Words, p.makeRoom, now)
		if errors.Is(err, errResting) {
			p.placing = append(p.placing, t)
			return
		}
		if err != nil {
			t.need = 0
			for _, piece := range t.pieces {
				t.need += piece.words
			}
			for _, piece := range t.rest {
				t.need += piece.Len()
			}
			p.refuse(err, now)
			p.free(t, now)
			p.arrived, t.rest, t.decoder = true, nil, nil
			p.postpone(t, now)
			return
		}
		t.pieces = append(t.pieces, placed{
			start: piece.Start(), end: piece.End(), at: at, words: piece.Len(), index: piece.Index(at), rules: at,
		})
		t.rest = t.rest[1:]
	}
	p.arrived, t.done, t.code, t.rest, t.wait = true, true, bpf.RuleNoneGap, nil, 0
	if t.decoder.CallersKeepFramePointer() {
		t.callers = unwind.FramePointerCode(t.decoder.Machine())
	}
	t.rows = t.decoder.Stats().Rows
	p.Stats.Rows += uint64(t.rows)
	if len(t.pieces) == 0 {
		t.code = bpf.RuleNoneNoTable
	}
	t.decoder.Strip()
	p.settle(t, now)
}

func (p *Publisher) refuse(err error, now time.Time) {
	p.Stats.Refused++
	if p.refused.IsZero() || now.Sub(p.refused) > quiet {
		p.log.Warn("no room for unwind tables: stacks end where they are missing; sample fewer processes at a time (-p, --cgroup, --container)", "err", err)
	}
	p.refused = now
}

var (
	errFull    = errors.New("the arena is full")
	errCrowded = errors.New("too many processes")
	errLong    = errors.New("too many processes with thousands of code ranges")
	errResting = errors.New("there will be room in the arena when the grace of what was given back is over")
)

// write finds room for words, which makeRoom makes where there is none, and puts there what make gives for the place.
func (p *Publisher) write(words int, make func(at uint32) []uint32, makeRoom func(time.Time) bool, now time.Time) (at uint32, err error) {
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
		if !makeRoom(now) {
			return 0, fmt.Errorf("%w: %d MiB", errFull, p.shards*bpf.ShardWords*4>>20)
		}
	}
}

// makeRoom gives words of the arena back that are not in use; they can be had a moment later. False: all are in use.
func (p *Publisher) makeRoom(now time.Time) bool {
	if last := p.unused.Back(); last != nil {
		p.drop(last.Value.(*table))
		return true
	}
	return p.withdrawIdle(idle, now)
}

// makeLongRoom does the same for a long list: of other long ones alone. A shard in one piece is to be had only of these; and else a few processes
// that map code without end would take the place of all that rest a while.
func (p *Publisher) makeLongRoom(now time.Time) bool {
	for e := p.recent.Back(); e != nil; e = e.Prev() {
		entry := e.Value.(*entry)
		if now.Sub(entry.sampled) < idle {
			return false
		}
		if entry.list.words > p.long {
			p.withdraw(entry)
			p.Stats.Withdrawn++
			return true
		}
	}
	return false
}

// withdrawIdle withdraws the process that was not sampled for longest, if that is long enough.
func (p *Publisher) withdrawIdle(least time.Duration, now time.Time) bool {
	last := p.recent.Back()
	if last == nil || now.Sub(last.Value.(*entry).sampled) < least {
		return false
	}
	p.withdraw(last.Value.(*entry))
	p.Stats.Withdrawn++
	return true
}

// drop takes a table away that no list names.
func (p *Publisher) drop(t *table) {
	p.unused.Remove(t.element)
	if len(t.pieces) > 0 {
		p.Stats.Evicted++
	}
	p.free(t, time.Now())
	delete(p.tables, t.file)
}

func (p *Publisher) free(t *table, now time.Time) {
	for _, piece := range t.pieces {
		p.space.give(piece.at, piece.words, now)
	}
	t.pieces = nil
	p.Stats.Rows -= uint64(t.rows)
	t.rows = 0
}

// tableOf gives the table of a mapped file; one that is not there yet is compiled.
func (p *Publisher) tableOf(id uint32, proc *process.Process, m *process.Mapping, now time.Time) *table {
	t := p.tables[id]
	switch {
	case t == nil:
		t = &table{file: id}
		p.tables[id] = t
	case t.done || t.under || now.Before(t.retry):
		if t.used = now; t.element != nil {
			p.unused.MoveToFront(t.element)
		}
		if !t.done && !t.under {
			p.tryAgain(t.retry)
		}
		return t
	}
	if t.element != nil {
		p.unused.Remove(t.element)
		t.element = nil
	}
	p.begin(t, proc, m, now)
	return t
}

// begin has a table compiled, if that is of use now.
func (p *Publisher) begin(t *table, proc *process.Process, m *process.Mapping, now time.Time) {
	if !p.hasRoom(t.need, now) {
		t.retry = now.Add(retryTable)
		p.tryAgain(t.retry)
		p.settle(t, now)
		return
	}
	if p.compiler.full() { // the file would have to be kept open meanwhile
		t.code, t.retry = bpf.RuleNonePending, time.Time{} // as soon as there is room
		p.tryAgain(now.Add(time.Second))
		p.settle(t, now)
		return
	}
	contents, reason := p.files.Contents(p.processes, proc, m)
	if reason != bpf.ReasonNone {
		p.postpone(t, now)
		return
	}
	t.code, t.under = bpf.RuleNonePending, true
	p.compiler.submit(job{file: t.file, contents: contents})
}

// hasRoom says whether as many words as a table found no room for are free by now, or can be made so.
func (p *Publisher) hasRoom(words int, now time.Time) bool {
	for p.space.used+words > p.shards*bpf.ShardWords {
		if !p.makeRoom(now) {
			return false
		}
	}
	return true
}

// publish tells the programs of a process's code.
func (p *Publisher) publish(proc *process.Process, execID uint32, now time.Time) {
	before := p.published[proc.PID]
	if before == nil && len(p.published) >= p.most && !p.withdrawIdle(idleCrowd, now) {
		p.refuse(fmt.Errorf("%w: %d", errCrowded, p.most), now)
		return
	}
	e := &entry{process: proc, version: proc.Version(), of: proc.Changed(), execID: execID, listed: now, sampled: p.now}
	if before != nil && before.process == proc && before.execID == execID {
		if e.changed = before.changed; e.version != before.version {
			e.changed = now
		}
		e.sampled, e.copies = before.sampled, now.Sub(e.changed) <= calm
	}
	l, err := p.listOf(e, now)
	before = p.published[proc.PID] // it may have made room
	if err != nil {
		if errors.Is(err, errResting) {
			p.tryAgain(now.Add(grace))
		} else {
			p.refuse(err, now)
			p.tryAgain(now.Add(retryTable))
		}
		// Its next sample asks again. What is known of it may be kept only while it is true.
		if before != nil && (before.process != proc || before.version != proc.Version()) {
			p.withdraw(before)
		}
		return
	}
	l.users++
	e.list = l
	if err := p.tell(e); err != nil {
		p.log.Debug("cannot publish a process", "pid", proc.PID, "err", err)
		p.leave(l, now)
		return
	}
	p.published[proc.PID] = e
	if before == nil {
		e.element = p.recent.PushFront(e)
		return
	}
	e.element = p.recent.InsertAfter(e, before.element)
	p.recent.Remove(before.element)
	p.leave(before.list, time.Now()) // the grace begins now: a list may have taken long to make
}

// tell gives the programs an entry, under a new generation.
func (p *Publisher) tell(e *entry) error {
	p.generation++
	e.generation = p.generation
	entry := bpf.Process{
		Tgid: uint32(e.process.PID), ExecId: e.execID, Generation: e.generation, Ranges: e.list.at, Count: uint32(e.list.count), Flags: e.flags(),
	}
	if e.spans != nil {
		e.spans.put(&entry, e.bias, e.musl)
	}
	return p.programs.PutProcess(entry)
}

func (p *Publisher) withdraw(e *entry) {
	pid := e.process.PID
	if err := p.programs.DeleteProcess(uint32(pid)); err != nil {
		p.log.Debug("cannot withdraw a process", "pid", pid, "err", err)
	}
	delete(p.published, pid)
	p.recent.Remove(e.element)
	p.leave(e.list, time.Now()) // the grace begins now
}

// leave gives a list up that a process had.
func (p *Publisher) leave(l *codeList, now time.Time) {
	if l.users--; l.users > 0 {
		return
	}
	delete(p.lists, l.key)
	p.space.give(l.at, l.words, now)
	if l.words > p.long {
		p.longUsed -= l.words
	}
	p.disuse(l.tables, now)
}

// use and disuse say that a list names a table, or does so no more.
func (p *Publisher) use(t *table) {
	if t.users++; t.element != nil {
		p.unused.Remove(t.element)
		t.element = nil
	}
}

func (p *Publisher) disuse(tables []*table, now time.Time) {
	for _, t := range tables {
		if t.users--; t.users == 0 && !t.under {
			p.shelve(t, now)
		}
	}
}

// listOf puts the code ranges of a process into the arena, if they are not there.
func (p *Publisher) listOf(e *entry, now time.Time) (*codeList, error) {
	ranges, tables := p.ranges(e, now)
	key := listKey(sha256.Sum256(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ranges))), len(ranges)*4*rangeWords)))
	if l := p.lists[key]; l != nil {
		p.disuse(tables, now) // it has them already
		return l, nil
	}
	words := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(ranges))), len(ranges)*rangeWords)
	l := &codeList{key: key, words: max(1, len(words)), count: len(ranges), tables: tables}
	var err error
	if l.at, err = p.writeList(l.words, words, now); err != nil {
		p.disuse(tables, now)
		return nil, err
	}
	p.lists[key] = l
	return l, nil
}

// writeList puts a list into the arena; it may be empty, but has a place.
func (p *Publisher) writeList(words int, list []uint32, now time.Time) (at uint32, err error) {
	makeRoom := p.makeRoom
	if words > p.long {
		makeRoom = p.makeLongRoom
		for p.longUsed+words > p.longMost {
			if !makeRoom(now) {
				return 0, errLong
			}
		}
	}
	at, err = p.write(words, func(uint32) []uint32 { return list }, makeRoom, now)
	if err == nil && words > p.long {
		p.longUsed += words
	}
	return at, err
}

// ranges makes the list of a process's code. The tables are in use from then on.
func (p *Publisher) ranges(e *entry, now time.Time) (r []bpf.CodeRange, tables []*table) {
	mappings := e.process.Mappings()
	r = make([]bpf.CodeRange, 0, len(mappings)+8)
	seen := make(map[*table]struct{})
	for i := range mappings {
		m := &mappings[i]
		// The kernel's own page, [vsyscall], is told of by /proc alone; the programs search addresses of 63 bits.
		if m.Start >= 1<<63 || m.Start&(pageBytes-1) != 0 || len(r) >= 2*bpf.MaxCodeRanges {
			continue
		}
		whole := bpf.CodeRange{Start: uint64(m.Start), Frame: uint64(bpf.RawFrame(0)), Pages: pages(uint64(m.End - m.Start))}
		if !m.File.Regular() && !m.File.VDSO() {
			whole.Callers = jitCode
			r = appendRange(r, whole)
			continue
		}
		whole.Callers = bpf.RuleNoneNoTable
		offset := m.FileOffset(m.Start)
		id, reason := p.files.ID(p.processes, e.process, m)
		if reason == bpf.ReasonNone && id <= bpf.MaxFileID && uint64(offset)+uint64(m.End-m.Start) <= bpf.MaxFileOffset {
			whole.Frame = uint64(bpf.NativeFrame(id, 0)) + uint64(offset) - uint64(m.Start)
			t := p.tableOf(id, e.process, m, now)
			if _, ok := seen[t]; !ok {
				seen[t] = struct{}{}
				tables = append(tables, t)
				p.use(t)
			}
			e.pending = e.pending || !t.done
			e.findSpans(t, m)
			r = t.cut(r, whole, offset)
			continue
		}
		r = appendRange(r, whole)
	}
	if len(r) > bpf.MaxCodeRanges { // what has no rule is walked to no better end where it is not listed
		r = slices.DeleteFunc(r, func(c bpf.CodeRange) bool {
			return c.Callers == bpf.RuleNoneGap && c.Index == 0 || c.Callers == bpf.RuleNoneNoTable
		})
	}
	return r[:min(len(r), bpf.MaxCodeRanges)], tables
}

// appendRange adds a code range. One that goes on where the last one ends, in the same memory or the same piece of a file, makes that longer.
func appendRange(r []bpf.CodeRange, c bpf.CodeRange) []bpf.CodeRange {
	if len(r) > 0 {
		last := &r[len(r)-1]
		joins := last.Start+uint64(last.Pages)*pageBytes == c.Start && last.Frame == c.Frame && last.Rules == c.Rules && last.Callers == c.Callers &&
			(c.Index == 0 && last.Index == 0 || c.Index != 0 && c.Index == last.Index+last.Pages)
		if joins && uint64(last.Pages)+uint64(c.Pages) <= math.MaxUint32 {
			last.Pages += c.Pages
			return r
		}
	}
	return append(r, c)
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
			r = appendRange(r, bpf.CodeRange{
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
