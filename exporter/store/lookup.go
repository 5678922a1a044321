package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// reasonMissing is why a stack has no frames where the file that held it cannot be read.
var reasonMissing = bpf.ReasonHistoryDamaged.String()

// frame is one of a stack's: its columns as words, in the order of frameColumns.
type frame [frameWords]uint32

// The columns of a frame.
const (
	frameFunction = iota
	frameLinkage
	frameFile
	frameLine
	frameStartLine
	frameKind
	frameModule
	frameBuildID
	frameMissing
	frameWords
)

var frameColumns = [frameWords]string{"function", "linkage_name", "file", "line", "start_line", "kind", "module", "build_id", "missing"}

// reasonRare is why a stack has no frames that is none of the maxStacks which most samples of an answer have.
var reasonRare = bpf.ReasonHistoryRare.String()

// maxStacks and maxFrames bound the memory that a profile takes, with all that is made of it; maxCompactStacks and maxFrames that of flame.Stacks. The frames
// take 64 MB in a profile, and 32 in flame.Stacks. A busy host shows 20,000 stacks in an hour, some 80,000 in a day.
const (
	maxStacks        = 64 << 10
	maxCompactStacks = 96 << 10
	maxFrames        = 8 << 20
)

// stackWindow is how many stacks are looked at together: one can have more than a thousand frames.
const stackWindow = 64

// lookUp reads the table stacks for one query.
type lookUp struct {
	scan    *scan
	columns []int // of frames, that are read
	indexed bool  // the reader is to have frames as indexes
	// take is shown each stack that was wanted, by its number: the frames at..end-1 of the reader's. It may be called by several workers.
	take    func(r *frameReader, number int32, at, end int, whole bool)
	workers chan *frameReader // as many as work at once

	// The stacks that are looked for, numbered. Slots find them by ID: a number plus 1, 0 is free.
	ids    []int64
	counts []int64 // samples
	slots  []int32
	rare   int64 // samples of the stacks that have no place

	room, roomless atomic.Int64 // for frames, and the samples of stacks that were read when there was none

	mu     sync.Mutex
	states []lookState // by number
	left   int         // that are wanted
}

// lookState is how far the look for a stack is.
type lookState uint8

const (
	stackWanted lookState = iota
	stackTaken            // by a worker
	stackFound
)

// newLookUp makes a look-up of the stacks that rows refer to, with as many of them as there is place for: those with most samples. The room for frames is had by
// those that are read first, as nobody knows before how deep the others are.
func (s *scan) newLookUp(v *sums, most int, frames int64, columns []int) *lookUp {
	l := &lookUp{scan: s, columns: columns, workers: make(chan *frameReader, runtime.GOMAXPROCS(0))}
	for range cap(l.workers) {
		l.workers <- &frameReader{lookUp: l}
	}
	l.room.Store(frames)
	l.makeSlots(len(v.totals))
	for i := range v.totals {
		if t := &v.totals[i]; t.stack != 0 {
			l.counts[l.add(t.stack)] += t.count
		}
	}
	if len(l.ids) > most {
		l.leaveOut(most)
	}
	l.states, l.left = make([]lookState, len(l.ids)), len(l.ids)
	return l
}

func (l *lookUp) makeSlots(stacks int) { l.slots = make([]int32, 1<<bits.Len(uint(2*stacks))) }

func (l *lookUp) slot(id int64) *int32 {
	for i := uint64(id) >> bits.LeadingZeros64(uint64(len(l.slots)-1)); ; i++ { // in order, as a rowTable
		slot := &l.slots[i&uint64(len(l.slots)-1)]
		if *slot == 0 || l.ids[*slot-1] == id {
			return slot
		}
	}
}

// add gives the number of a stack, which may be a new one.
func (l *lookUp) add(id int64) int32 {
	slot := l.slot(id)
	if *slot == 0 {
		l.ids, l.counts = append(l.ids, id), append(l.counts, 0)
		*slot = int32(len(l.ids))
	}
	return *slot - 1
}

// number is that of a stack; -1 of one that is not looked for.
func (l *lookUp) number(id int64) int32 { return *l.slot(id) - 1 }

// leaveOut leaves out all but the stacks with most samples. The others keep their samples.
func (l *lookUp) leaveOut(most int) {
	ids, counts := l.ids, l.counts
	order := make([]int32, len(ids))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(ids[a], ids[b])) })
	l.ids, l.counts = make([]int64, 0, most), make([]int64, 0, most)
	l.makeSlots(most)
	for _, i := range order[:most] {
		l.counts[l.add(ids[i])] = counts[i]
	}
	for _, i := range order[most:] {
		l.rare += counts[i]
	}
	l.scan.warn(fmt.Errorf("the %d stacks with the fewest samples, %d together, are shown as [truncated: history rare] to bound memory: "+
		"ask for a shorter time or by a filter", len(ids)-most, l.rare))
}

// hasRoom takes room for the frames of a stack. When it is used up, stacks of which it is false keep their samples.
func (l *lookUp) hasRoom(number int32, frames int) bool {
	if l.room.Add(-int64(frames)) >= 0 {
		return true
	}
	l.roomless.Add(l.counts[number])
	return false
}

// run finds the stacks. Each date has all its stacks; the last one is looked through first, as most stacks are in all of them.
func (l *lookUp) run() error {
	read := make(map[string]bool)
	l.pass(l.scan.stackFiles, read)
	for range maxLooks { // where files were written or removed since
		if l.done() {
			break
		}
		h, _, _ := l.scan.reader.look() // what cannot be looked at has been said
		if again := l.pass(h.stacks, read); !again {
			break
		}
	}
	if l.left > 0 && l.scan.ctx.Err() == nil {
		l.scan.warn(fmt.Errorf("%d stacks are in none of the files that could be read: the samples of them are shown without frames", l.left))
	}
	if n := l.roomless.Load(); n > 0 {
		l.scan.warn(fmt.Errorf("%d samples of deep stacks are shown as [truncated: history rare] to bound memory: ask for a shorter time or by a filter", n))
	}
	return context.Cause(l.scan.ctx)
}

// pairs finds the stacks that rows refer to as a profile has them, by ID: all but the rare ones.
func (s *scan) pairs(v *sums, frames int64) (map[int64]*stackPair, error) {
	l := s.newLookUp(v, maxStacks, frames, []int{
		frameFunction, frameLinkage, frameFile, frameLine, frameStartLine, frameKind, frameModule, frameBuildID, frameMissing,
	})
	found := make([]*stackPair, len(l.ids))
	known := newLocations(s.words)
	l.take = func(r *frameReader, number int32, at, end int, whole bool) {
		if l.hasRoom(number, end-at) {
			found[number] = r.stack(known, at, end, whole)
		}
	}
	if err := l.run(); err != nil {
		return nil, err
	}
	missing := &stackPair{user: &profile.Stack{Truncated: reasonMissing}}
	stacks := make(map[int64]*stackPair, len(found))
	for number, id := range l.ids {
		if stacks[id] = found[number]; l.states[number] != stackFound {
			stacks[id] = missing
		}
	}
	return stacks, nil
}

// pass looks through files until all is found. It is true where one has vanished: what it held is in another one.
func (l *lookUp) pass(files []file, read map[string]bool) (again bool) {
	// What the last hour has met first is in files of its intervals and parts: the compacted ones of the date may have nothing that is wanted.
	slices.SortStableFunc(files, func(a, b file) int {
		return cmp.Or(strings.Compare(b.start.Format(dateLayout), a.start.Format(dateLayout)), cmp.Compare(a.span, b.span))
	})
	for len(files) > 0 && !l.done() {
		// A date at a time: the one before it is needed only for what it lacks.
		date := files[0].start.Format(dateLayout)
		n := 0
		var wait sync.WaitGroup
		var vanished atomic.Bool
		open := make(chan struct{}, maxOpenStacks)
		for ; n < len(files) && files[n].start.Format(dateLayout) == date; n++ {
			f := files[n]
			if !l.scan.partitions[partition{f.host, date}] || read[f.path()] {
				continue
			}
			read[f.path()] = true
			open <- struct{}{}
			wait.Go(func() {
				defer func() { <-open }()
				if err := l.readFile(f); errors.Is(err, fs.ErrNotExist) {
					vanished.Store(true)
				} else if err != nil && l.scan.ctx.Err() == nil {
					l.scan.warn(err)
				}
			})
		}
		wait.Wait()
		again = again || vanished.Load()
		files = files[n:]
	}
	return again
}

func (l *lookUp) done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left == 0 || l.scan.ctx.Err() != nil
}

// maxOpenStacks bounds the files that are open.
const maxOpenStacks = 16

func (l *lookUp) readFile(f file) error {
	r := <-l.workers
	if l.done() {
		l.workers <- r
		return nil
	}
	c, err := openChecked(filepath.Join(l.scan.reader.dir, f.path()))
	l.workers <- r
	if err != nil {
		return err
	}
	defer c.Close()
	l.scan.mu.Lock()
	l.scan.answer.Files++
	l.scan.mu.Unlock()
	errs := make([]error, len(c.RowGroups()))
	var wait sync.WaitGroup
	for i := range errs {
		r := <-l.workers
		wait.Go(func() {
			defer func() { l.workers <- r }()
			if !l.done() {
				errs[i] = l.readGroup(r, c, i)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// readGroup takes the wanted stacks of a row group.
func (l *lookUp) readGroup(r *frameReader, c *checkedFile, index int) error {
	var taken []place
	err := guard(c, index, func() error {
		g := newRowGroup(c.RowGroups()[index], l.scan.words)
		defer g.close()
		ids, err := g.stackIDs()
		if err != nil {
			return err
		}
		if taken = l.claim(ids); len(taken) == 0 {
			return nil
		}
		return l.readStacks(r, g, taken)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range taken { // another file may have those that were not found
		if l.states[p.number] == stackTaken {
			l.states[p.number] = stackWanted
			l.left++
		}
	}
	return err
}

// place is where a stack is in a row group.
type place struct {
	row    int
	number int32
}

// readStackIDs adds the IDs of a file of the table stacks.
func readStackIDs(path string, ids map[int64]struct{}) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i, group := range f.RowGroups() {
		if err := guard(f, i, func() error {
			g := newRowGroup(group, nil)
			defer g.close()
			of, err := g.stackIDs()
			for _, id := range of {
				ids[id] = struct{}{}
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// stackIDs are those of the rows.
func (g *rowGroup) stackIDs() ([]int64, error) {
	c, err := g.column("stack_id")
	if err != nil {
		return nil, err
	}
	ids := make([]int64, g.NumRows())
	return ids, c.readLongs(ids)
}

// claim takes those of ids that are wanted, for nobody else to look for.
func (l *lookUp) claim(ids []int64) []place {
	places := make([]place, 0, len(ids))
	for row, id := range ids { // each is a miss of the cache: others need not wait for it
		if number := l.number(id); number >= 0 {
			places = append(places, place{row, number})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := places[:0]
	for _, p := range places {
		if l.states[p.number] == stackWanted {
			l.states[p.number] = stackTaken
			l.left--
			taken = append(taken, p)
		}
	}
	return taken
}

// readStacks reads the stacks that were taken.
func (l *lookUp) readStacks(r *frameReader, g *rowGroup, taken []place) error {
	wholes, err := g.column("whole")
	if err != nil {
		return err
	}
	if err := r.open(g); err != nil {
		return err
	}
	whole, lens := make([]bool, stackWindow), make([]int32, stackWindow)
	for rows, row := taken[len(taken)-1].row+1, 0; row < rows; row += stackWindow {
		if err := l.scan.ctx.Err(); err != nil {
			return err
		}
		n := min(stackWindow, rows-row)
		if err := wholes.readBools(whole[:n]); err != nil {
			return err
		}
		if err := r.read(lens[:n]); err != nil {
			return err
		}
		at, found := 0, 0
		for i := range n {
			end := at + int(lens[i])
			if found < len(taken) && taken[found].row == row+i {
				l.take(r, taken[found].number, at, end, whole[i])
				found++
			}
			at = end
		}
		l.mu.Lock()
		for _, p := range taken[:found] {
			l.states[p.number] = stackFound
		}
		l.mu.Unlock()
		taken = taken[found:]
	}
	return nil
}

// frameReader reads the frames of row groups, and makes stacks of them. One worker uses it.
type frameReader struct {
	lookUp  *lookUp
	lengths *lengths
	columns [frameWords]*vector
	inlines *vector
	// The frames that were read, column by column: words or, of an indexed look-up, where they stand among the column's ids.
	words   [frameWords][]uint32
	inlined []bool
	// single are the locations of one function that were met, by the word of the function.
	single [][]knownFrame
	path   []*profile.Location // under construction
	slab   []*profile.Location
	compactReader
}

type knownFrame struct {
	frame
	location *profile.Location
}

// maxKnownFrames bounds the places in a function that are remembered: they are looked through one by one.
const maxKnownFrames = 16

// open begins a row group.
func (r *frameReader) open(g *rowGroup) (err error) {
	for _, i := range r.lookUp.columns {
		if r.columns[i], err = g.column("frames", "list", "element", frameColumns[i]); err != nil {
			return err
		}
	}
	if r.inlines, err = g.column("frames", "list", "element", "inlined"); err != nil {
		return err
	}
	// Any column tells the lengths; this one is the smallest.
	r.lengths, err = g.lengths("frames", "list", "element", "inlined")
	r.compactReader.open()
	return err
}

// read reads the frames of as many stacks as there are lengths to be filled.
func (r *frameReader) read(lens []int32) error {
	r.latest = latestStack{}
	total, err := r.lengths.read(lens)
	if err != nil {
		return err
	}
	for _, i := range r.lookUp.columns {
		r.words[i] = resize(r.words[i], total)
		read := r.columns[i].readIDs
		if r.lookUp.indexed {
			read = r.columns[i].readIndexes
		}
		if err := read(r.words[i]); err != nil {
			return err
		}
	}
	r.inlined = resize(r.inlined, total)
	return r.inlines.readBools(r.inlined)
}

func (r *frameReader) frame(i int) (f frame) {
	for column := range f {
		f[column] = r.words[column][i]
	}
	return f
}

// stack makes a stack of frames: those of the kernel, then the user's, each with the reason why it ends early, if it does.
func (r *frameReader) stack(known *locations, at, end int, whole bool) *stackPair {
	var kernel, user profile.Stack
	kinds, isKernel, isTruncated := r.words[frameKind], known.kernel, known.truncated
	next := at
	for next < end && kinds[next] == isKernel {
		next++
	}
	kernel.Locations = r.locations(known, at, next)
	if next+1 < end && kinds[next] == isTruncated {
		kernel.Truncated = r.lookUp.scan.words.text(r.words[frameMissing][next])
		next++
	}
	at = next
	for next < end && kinds[next] != isTruncated {
		next++
	}
	user.Locations = r.locations(known, at, next)
	if next < end {
		user.Truncated = r.lookUp.scan.words.text(r.words[frameMissing][next])
	}
	st := new(stackPair)
	if len(kernel.Locations) > 0 || kernel.Truncated != "" {
		st.kernel = &kernel
	}
	if len(user.Locations) > 0 || user.Truncated != "" {
		user.Root = whole
		st.user = &user
	}
	return st
}

// locations makes locations of frames: those that were inlined belong to the next one.
func (r *frameReader) locations(known *locations, at, end int) []*profile.Location {
	r.path = r.path[:0]
	for at < end {
		first := at
		for at < end-1 && r.inlined[at] {
			at++
		}
		at++
		r.path = append(r.path, r.location(known, first, at))
	}
	const slabSize = 8 << 10
	if len(r.path) > len(r.slab) {
		r.slab = make([]*profile.Location, max(slabSize, len(r.path)))
	}
	locations := r.slab[:len(r.path):len(r.path)]
	copy(locations, r.path)
	r.slab = r.slab[len(r.path):]
	return locations
}

func (r *frameReader) location(of *locations, first, end int) *profile.Location {
	if end-first > 1 {
		frames := make([]frame, 0, 8)
		for i := first; i < end; i++ {
			frames = append(frames, r.frame(i))
		}
		return of.get(frames...)
	}
	f := r.frame(first)
	function := int(f[frameFunction])
	if function >= len(r.single) {
		r.single = append(r.single, make([][]knownFrame, function+1-len(r.single))...)
	}
	for i := range r.single[function] {
		if known := &r.single[function][i]; known.frame == f {
			return known.location
		}
	}
	l := of.get(f)
	if len(r.single[function]) < maxKnownFrames {
		r.single[function] = append(r.single[function], knownFrame{f, l})
	}
	return l
}

// locations are those of a profile, each once. Safe for concurrent use.
type locations struct {
	mu                sync.Mutex
	words             *words
	kernel, truncated uint32 // kinds
	functions         map[profile.Function]*profile.Function
	mappings          map[[2]uint32]*profile.Mapping // by path and build ID
	byFrames          map[string]*profile.Location
	key               []byte
}

func newLocations(w *words) *locations {
	return &locations{
		words: w, kernel: w.id([]byte(profile.FrameKernel)), truncated: w.id([]byte(kindTruncated)),
		functions: make(map[profile.Function]*profile.Function), mappings: make(map[[2]uint32]*profile.Mapping),
		byFrames: make(map[string]*profile.Location),
	}
}

func (l *locations) get(frames ...frame) *profile.Location {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key = l.key[:0]
	for i := range frames {
		for _, word := range frames[i] {
			l.key = binary.NativeEndian.AppendUint32(l.key, word)
		}
	}
	if known := l.byFrames[string(l.key)]; known != nil {
		return known
	}
	outer := &frames[len(frames)-1] // what was inlined is in the same file
	location := &profile.Location{
		Kind: profile.FrameKind(l.words.text(outer[frameKind])), Mapping: l.mapping(outer),
		Unnamed: l.words.text(outer[frameMissing]), Lines: make([]profile.Line, len(frames)),
	}
	for i := range frames {
		f := &frames[i]
		location.Lines[i] = profile.Line{Function: l.function(f), Line: int(int32(f[frameLine]))}
		if location.Mapping != nil && f[frameFile] != 0 {
			location.Mapping.HasLines = true
		}
	}
	l.byFrames[string(l.key)] = location
	return location
}

func (l *locations) function(f *frame) *profile.Function {
	name := f[frameLinkage]
	if name == 0 {
		name = f[frameFunction]
	}
	function := profile.Function{Name: l.words.text(name), File: l.words.text(f[frameFile]), StartLine: int(int32(f[frameStartLine]))}
	known := l.functions[function]
	if known == nil {
		known = &function
		l.functions[function] = known
	}
	return known
}

func (l *locations) mapping(f *frame) *profile.Mapping {
	key := [2]uint32{f[frameModule], f[frameBuildID]}
	if key == [2]uint32{} {
		return nil
	}
	known := l.mappings[key]
	if known == nil {
		known = &profile.Mapping{Path: l.words.text(key[0]), BuildID: l.words.text(key[1]), HasFunctions: true}
		l.mappings[key] = known
	}
	return known
}
