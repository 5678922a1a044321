package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// window is how many rows are looked at together: what a scan holds in memory.
const window = 8 << 10

// Numbers of the labels, as query.Labels lists them.
const (
	labelPID = iota
	labelTID
	labelCount = 10
)

// labelKey are the labels of a row: numbers as they are, strings as words.
type labelKey [labelCount]uint32

// labelColumns are the columns of query.Labels. They have the same names, but for one: unit is that of values.
var labelColumns = func() []string {
	names := slices.Clone(query.Labels)
	names[slices.Index(names, "unit")] = columnUnit
	return names
}()

const columnUnit = "systemd_unit"

// batch is what a visitor sees of some rows. Slices that were not asked for are empty. It is valid until visit returns.
type batch struct {
	times    []int64 // milliseconds since 1970, where the span begins
	stacks   []int64
	distinct int      // stacks in the row group, or about so many
	losses   []uint32 // words
	labels   [labelCount][]uint32
	counts   []int64
	values   []int64
	lengths  []int32  // of lists of ticks
	ticks    []uint32 // one list after the other
	// wanted says of each row whether it is meant.
	wanted []bool
}

// visitor takes what one worker reads.
type visitor interface{ visit(b *batch) }

// scan reads rows of the table samples.
type scan struct {
	reader *Reader
	ctx    context.Context
	cancel context.CancelCauseFunc
	query  query.Query
	words  *words
	// What visitors want to know of rows, beyond counts and values.
	times, stacks bool
	labels        [labelCount]bool
	coarse        bool // whole hours will do
	// step is that of series, in milliseconds: times of samples are read where spans reach into several. 0: whole spans will do.
	step int64
	// selected are the stacks that Focus and Ignore leave; nil: all.
	selected map[int64]bool

	mu         sync.Mutex
	answer     *Answer
	partitions map[partition]bool // where the rows were found
	covered    time.Duration      // of the time that was asked for, by the files that were read
	uncovered  bool               // one of them does not say what it covers
	facts      facts              // when run has ended
	stackFiles []file             // that there were when run began
}

// partition is a date of a host.
type partition struct{ host, date string }

// worker reads row groups, one after the other.
type worker struct {
	scan    *scan
	visitor visitor
	batch   batch
	// matches remember what conditions say of values: 0 unknown, 1 yes, 2 no.
	matches [][]uint8
	numbers []map[uint32]bool
	facts   facts
	// Of the rows of a batch, where statistics do not tell them.
	durations, periods []int64
	units, types       []uint32
	// Of hours that are read minute by minute.
	rows       []minuteRow
	lengths    []int32
	minutes    []uint32
	spareLongs []int64
	spareIDs   []uint32
}

// run reads all rows that the query means, and shows them to a visitor for each of GOMAXPROCS workers.
func (s *scan) run(newVisitor func() visitor) error {
	if err := s.query.Kept(); err != nil {
		return err
	}
	times := rangeOf(s.query.From, s.query.To)
	h, aside, err := s.reader.look()
	if err != nil {
		s.warn(err)
	}
	s.stackFiles = h.stacks
	for _, path := range aside {
		if held, ok := s.reader.asideTimes(path); !ok || !held.and(times).empty() {
			s.warn(fmt.Errorf("%s was damaged, and is left out", path))
		}
	}
	if s.query.Type == "" {
		s.query.Type = "cpu"
	}
	workers := make(chan *worker, runtime.GOMAXPROCS(0))
	for range cap(workers) {
		workers <- s.newWorker(newVisitor())
	}
	var wait sync.WaitGroup
	places := make(chan struct{}, maxOpenFiles)
	for _, u := range h.plan(times, s.coarse) {
		for range min(len(u.pieces), maxOpenFiles) {
			places <- struct{}{}
		}
		files, err := s.open(u, s.coarse)
		if err != nil {
			s.cancel(err)
			break
		}
		var unitWait sync.WaitGroup
		taken := min(len(u.pieces), maxOpenFiles)
		for i, f := range files {
			unitWait.Go(func() {
				s.readFile(f, workers)
				if i < taken {
					<-places
				}
			})
		}
		for range taken - min(taken, len(files)) {
			<-places
		}
		wait.Go(unitWait.Wait)
	}
	wait.Wait()
	for range cap(workers) {
		if w := <-workers; w.facts.seen {
			s.facts.add(w.facts.unit, w.facts.period, w.facts.spans)
		}
	}
	return context.Cause(s.ctx)
}

// maxOpenFiles bounds the files that are open, as long as a unit has not more: an hour has 360 intervals.
const maxOpenFiles = 400

// maxLooks bounds how often a unit is looked for again.
const maxLooks = 20

// openPiece is a piece whose file cannot vanish any more.
type openPiece struct {
	piece
	file *os.File
}

// open opens the files of a unit: all, or none.
func (s *scan) open(u unit, coarse bool) ([]openPiece, error) {
	for range maxLooks {
		files, err := s.openAll([]unit{u})
		if !errors.Is(err, fs.ErrNotExist) {
			return files, err
		}
		h, _, _ := s.reader.look() // what cannot be looked at has been said
		// The time that this unit was for may be in several now, or in one for a longer time.
		again := h.replan(u, rangeOf(s.query.From, s.query.To), coarse)
		if files, err = s.openAll(again); !errors.Is(err, fs.ErrNotExist) {
			return files, err
		}
	}
	return nil, fmt.Errorf("files of %s vanish faster than they can be opened: ask again", u.host)
}

func (s *scan) openAll(units []unit) (open []openPiece, err error) {
	for _, u := range units {
		for _, p := range u.pieces {
			path := filepath.Join(s.reader.dir, p.file.path())
			f, err := os.Open(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				closeAll(open)
				return nil, err
			case err != nil:
				s.warn(err) // the others answer
			default:
				open = append(open, openPiece{p, f})
			}
		}
	}
	return open, nil
}

func closeAll(open []openPiece) {
	for _, o := range open {
		_ = o.file.Close() // nothing was written to it
	}
}

// warn notes what is missing in the answer.
func (s *scan) warn(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer.warn(err)
}

// readFile reads what is wanted of a file: its row groups side by side.
func (s *scan) readFile(p openPiece, workers chan *worker) {
	w := <-workers
	c, err := newChecked(p.file)
	if err == nil {
		c.hold()
	}
	workers <- w
	if err != nil {
		s.warn(err)
		return
	}
	defer c.Close()
	covered := make(coverage)
	told := covered.add(c)
	s.mu.Lock()
	s.partitions[partition{p.piece.file.host, p.piece.file.start.Format(dateLayout)}] = true
	s.answer.Files++
	s.uncovered = s.uncovered || !told
	wanted := rangeOf(s.query.From, s.query.To)
	for at, n := range covered {
		s.covered += time.Duration(p.covers(wanted, at, n)) * time.Millisecond
	}
	s.mu.Unlock()
	var wait sync.WaitGroup
	for i := range c.RowGroups() {
		wait.Go(func() {
			w := <-workers
			defer func() { workers <- w }()
			if s.ctx.Err() != nil {
				return
			}
			if err := guard(c, i, func() error { return w.read(c, i, &p.piece) }); err != nil && s.ctx.Err() == nil {
				s.warn(err)
			}
		})
	}
	wait.Wait()
}

// guard makes of what goes wrong in a row group, panics of the decoder included, an error with file and offset. What the file system says is none about
// the content.
func guard(c *checkedFile, group int, read func() error) (err error) {
	offset := int64(0)
	if groups := c.Metadata().RowGroups; group < len(groups) && len(groups[group].Columns) > 0 {
		offset = groups[group].Columns[0].MetaData.DataPageOffset
		if at := groups[group].Columns[0].MetaData.DictionaryPageOffset; at > 0 {
			offset = at
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = c.damage(offset, fmt.Errorf("%v", p))
		}
	}()
	err = read()
	if err == nil || errors.As(err, new(*DamageError)) || errors.As(err, new(*fs.PathError)) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return c.damage(offset, err)
}

func (s *scan) newWorker(v visitor) *worker {
	return &worker{scan: s, visitor: v, matches: make([][]uint8, len(s.query.Filter)), numbers: make([]map[uint32]bool, len(s.query.Filter))}
}

// rowGroup is a row group of samples that is being read.
type rowGroup struct {
	parquet.RowGroup
	words   *words
	columns map[string]*vector
	lists   map[string]*lengths
	// distinct is about how many stacks it has, once the first rows were read.
	distinct int
}

func newRowGroup(g parquet.RowGroup, w *words) *rowGroup {
	return &rowGroup{RowGroup: g, words: w, columns: make(map[string]*vector), lists: make(map[string]*lengths)}
}

func (g *rowGroup) close() {
	for _, l := range g.lists {
		l.close()
	}
	for _, c := range g.columns {
		c.close()
	}
}

// use has strings from now on be words of another list.
func (g *rowGroup) use(w *words) error {
	g.words = w
	for _, c := range g.columns {
		if err := c.use(w); err != nil {
			return err
		}
	}
	return nil
}

// chunk finds a column by its path, as "stack_id" or "ticks.list.element".
func (g *rowGroup) chunk(path ...string) (parquet.ColumnChunk, error) {
	leaf, ok := g.Schema().Lookup(path...)
	if !ok {
		return nil, fmt.Errorf("there is no column %s", path)
	}
	return g.ColumnChunks()[leaf.ColumnIndex], nil
}

func (g *rowGroup) column(path ...string) (*vector, error) {
	name := path[len(path)-1]
	if len(path) > 1 {
		name = path[0] + "." + name
	}
	if c := g.columns[name]; c != nil {
		return c, nil
	}
	c, err := g.newColumn(path)
	if err != nil {
		return nil, err
	}
	g.columns[name] = c
	return c, nil
}

// laterColumns are those that older files of this version do not have.
var laterColumns = []string{"service", "pod_uid", columnUnit, "minutes"}

// lengths are those of the lists that a column is the values of.
func (g *rowGroup) lengths(path ...string) (*lengths, error) {
	if l := g.lists[path[0]]; l != nil {
		return l, nil
	}
	chunk, err := g.chunk(path...)
	if err != nil {
		return nil, err
	}
	l, err := newLengths(chunk)
	if err != nil {
		return nil, err
	}
	g.lists[path[0]] = l
	return l, nil
}

func (g *rowGroup) newColumn(path []string) (*vector, error) {
	if _, ok := g.Schema().Lookup(path...); !ok && slices.Contains(laterColumns, path[0]) {
		return &vector{absent: true}, nil
	}
	chunk, err := g.chunk(path...)
	if err != nil {
		return nil, err
	}
	return newVector(chunk, g.words)
}

// bounds are the smallest and the greatest value of a column of 64-bit numbers.
func (g *rowGroup) bounds(name string) (low, high int64, ok bool) {
	chunk, err := g.chunk(name)
	if err != nil {
		return 0, 0, false
	}
	c, isFile := chunk.(*parquet.FileColumnChunk)
	if !isFile {
		return 0, 0, false
	}
	from, to, ok := c.Bounds()
	if !ok {
		return 0, 0, false
	}
	return from.Int64(), to.Int64(), true
}

// read shows the rows of a row group to the visitor that are wanted of a piece.
func (w *worker) read(c *checkedFile, index int, p *piece) error {
	g := newRowGroup(c.RowGroups()[index], w.scan.words)
	defer g.close()
	begins := p.begins()
	low, high, bounded := g.bounds("time")
	latest := high // that a minute begins
	if p.byMinute {
		latest += (time.Hour - time.Minute).Milliseconds()
	}
	if bounded && (timeRange{low, latest + 1}).and(begins).empty() {
		return nil
	}
	within := bounded && low >= begins.from && latest < begins.to
	// Some rows may have samples at both sides of an end of the time; the times of samples are wanted.
	cut, ticks := false, false
	if p.exact() {
		_, longest, known := g.bounds("duration")
		last := high + nanosToMillis(longest)
		if bounded && known && (timeRange{low, max(last, high+1)}).and(p.times).empty() {
			return nil // it began early enough to reach into the time, and did not
		}
		cut = !bounded || !known || low < p.times.from || last >= p.times.to
		ticks = cut || w.scan.step > 0 && low/w.scan.step != last/w.scan.step
	}
	types, err := g.column("type")
	if err != nil {
		return err
	}
	mine := w.scan.words.id([]byte(w.scan.query.Type))
	several := true
	if ok, err := types.dictionary(); err != nil {
		return err
	} else if ok {
		if !slices.Contains(types.ids, mine) {
			return nil
		}
		several = len(types.ids) > 1
	}
	// Where all rows are of the time and the type, statistics tell the rest of what they have in common.
	all := within && !cut && !several
	if all {
		all, err = w.facts.learn(g)
	}
	if err != nil {
		return err
	}
	if none, err := w.excludes(g); none || err != nil {
		return err
	}
	step := window
	expand := p.byMinute && (w.scan.times || !all)
	if expand {
		step /= minutesPerHour
	}
	for rows := int(g.NumRows()); rows > 0; rows -= step {
		if err := w.scan.ctx.Err(); err != nil {
			return err
		}
		if err := w.readWindow(g, min(rows, step), p, mine, all, expand, cut, ticks); err != nil {
			return err
		}
	}
	return nil
}

// facts are what rows have in common.
type facts struct {
	seen   bool
	unit   uint32 // as a word
	period int64  // 0: they differ
	spans  timeRange
}

func (f *facts) add(unit uint32, period int64, spans timeRange) {
	if !f.seen {
		*f = facts{seen: true, unit: unit, period: period, spans: spans}
		return
	}
	if f.period != period {
		f.period = 0
	}
	f.spans = timeRange{min(f.spans.from, spans.from), max(f.spans.to, spans.to)}
}

// learn takes them from the statistics of a row group; it is false where these do not tell.
func (f *facts) learn(g *rowGroup) (bool, error) {
	units, err := g.column("unit")
	if err != nil {
		return false, err
	}
	ok, err := units.dictionary()
	if err != nil || !ok || len(units.ids) != 1 {
		return false, err
	}
	from, last, okTime := g.bounds("time")
	shortest, longest, okDuration := g.bounds("duration")
	low, high, okPeriod := g.bounds("period")
	if !okTime || !okDuration || !okPeriod || low != high || shortest != longest {
		return false, nil
	}
	f.add(units.ids[0], low, timeRange{from, last + nanosToMillis(longest)})
	return true, nil
}

func nanosToMillis(n int64) int64 { return (n + 999_999) / 1_000_000 }

// excludes says whether the filter lets no row of a row group pass, as statistics and dictionaries tell.
func (w *worker) excludes(g *rowGroup) (bool, error) {
	if len(w.scan.query.Filter) == 0 || w.hasLosses(g) {
		return false, nil
	}
	for i := range w.scan.query.Filter {
		c, err := g.column(labelColumns[slices.Index(query.Labels, w.scan.query.Filter[i].Label)])
		if err != nil {
			return false, err
		}
		ok, err := c.dictionary()
		if err != nil {
			return false, err
		}
		if ok && !slices.ContainsFunc(c.ids, func(id uint32) bool { return w.matchesID(i, id) }) {
			return true, nil
		}
	}
	return false, nil
}

// hasLosses says whether there may be rows of lost samples, which filters let pass: nobody knows whose they were.
func (w *worker) hasLosses(g *rowGroup) bool {
	c, err := g.column("loss_reason")
	if err != nil {
		return true
	}
	ok, err := c.dictionary()
	return err != nil || !ok || slices.ContainsFunc(c.ids, func(id uint32) bool { return id != 0 })
}

// matchesID says whether a value of the label of a condition fulfils it.
func (w *worker) matchesID(condition int, id uint32) bool {
	c := &w.scan.query.Filter[condition]
	if isNumber(c.Label) {
		known := w.numbers[condition]
		if known == nil {
			known = make(map[uint32]bool)
			w.numbers[condition] = known
		}
		match, ok := known[id]
		if !ok {
			match = c.Matches(numberText(id))
			known[id] = match
		}
		return match
	}
	known := w.matches[condition]
	if int(id) >= len(known) {
		known = append(known, make([]uint8, int(id)+1-len(known))...)
		w.matches[condition] = known
	}
	if known[id] == 0 {
		known[id] = 1
		if c.Matches(w.scan.words.text(id)) {
			known[id] = 2
		}
	}
	return known[id] == 2
}

func isNumber(label string) bool { return label == "pid" || label == "tid" }

func numberText(id uint32) string {
	if id == 0 {
		return ""
	}
	return strconv.Itoa(int(int32(id)))
}

// labelText is the value of a label in a row.
func (s *scan) labelText(label int, id uint32) string {
	if label == labelPID || label == labelTID {
		if id == numberOthers {
			return textOthers
		}
		return numberText(id)
	}
	return s.words.text(id)
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// readWindow shows the next n rows to the visitor. Of all says that time and type of all of them are wanted, expand that hours are to be read minute by
// minute, cut that samples before and after the time are to be left out, ticks that the times of samples are to be read.
func (w *worker) readWindow(g *rowGroup, n int, p *piece, mine uint32, all, expand, cut, ticks bool) error {
	s, b := w.scan, &w.batch
	longs := func(dst *[]int64, name string) error {
		*dst = resize(*dst, n)
		c, err := g.column(name)
		if err != nil {
			return err
		}
		return c.readLongs(*dst)
	}
	ids := func(dst *[]uint32, name string) error {
		*dst = resize(*dst, n)
		c, err := g.column(name)
		if err != nil {
			return err
		}
		return c.readIDs(*dst)
	}
	if s.times || !all {
		if err := longs(&b.times, "time"); err != nil {
			return err
		}
	}
	if !all {
		if err := errors.Join(longs(&w.durations, "duration"), longs(&w.periods, "period"), ids(&w.units, "unit"), ids(&w.types, "type")); err != nil {
			return err
		}
	}
	for label, name := range labelColumns {
		if s.labels[label] {
			if err := ids(&b.labels[label], name); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(longs(&b.counts, "count"), longs(&b.values, "value"), ids(&b.losses, "loss_reason")); err != nil {
		return err
	}
	if s.stacks {
		if err := longs(&b.stacks, "stack_id"); err != nil {
			return err
		}
		if g.distinct == 0 {
			// A dictionary tells. Without one rows are sorted by stack, or by process and then by stack, and IDs are hashes: other rows have about as many as the first do.
			g.distinct = cmp.Or(len(g.columns["stack_id"].longs), int(int64(runs(b.stacks))*g.NumRows()/int64(n)))
		}
		b.distinct = g.distinct
	}
	b.lengths, b.ticks = b.lengths[:0], b.ticks[:0]
	if ticks {
		if err := g.readLists("ticks", &b.lengths, &b.ticks, n); err != nil {
			return err
		}
	}
	if expand {
		if err := w.expand(g, n, all); err != nil {
			return err
		}
	}
	b.wanted = resize(b.wanted, len(b.counts))
	for i := range b.wanted {
		b.wanted[i] = true
	}
	if !all {
		begins := p.begins()
		for i, t := range b.times {
			span := timeRange{t, t + nanosToMillis(w.durations[i])}
			if cut {
				span = span.and(p.times)
			}
			meant := begins.has(t) && (!cut || !span.empty() || p.times.has(t))
			if b.wanted[i] = meant && w.types[i] == mine; b.wanted[i] {
				w.facts.add(w.units[i], w.periods[i], span)
			}
		}
	}
	if cut {
		w.cut(p.times)
	}
	w.filter()
	w.visitor.visit(b)
	return nil
}

// minuteRow is a minute of a row that is of an hour.
type minuteRow struct {
	row    int32
	minute int32 // -1: the row does not tell its minutes
	count  int32
}

// expand makes of each of n rows that tells its minutes one for each minute that has samples.
func (w *worker) expand(g *rowGroup, n int, all bool) error {
	b := &w.batch
	if err := g.readLists("minutes", &w.lengths, &w.minutes, n); err != nil {
		return err
	}
	w.rows = w.rows[:0]
	at := 0
	for i, n := range w.lengths {
		switch n {
		case 0:
			w.rows = append(w.rows, minuteRow{int32(i), -1, 0})
		case minutesPerHour:
		default:
			return fmt.Errorf("an hour of %d minutes", n)
		}
		for minute, count := range w.minutes[at : at+int(n)] {
			if count > 0 {
				w.rows = append(w.rows, minuteRow{int32(i), int32(minute), int32(count)})
			}
		}
		at += int(n)
	}
	columns := []*[]int64{&b.times, &b.counts, &b.values}
	ids := []*[]uint32{&b.losses}
	if w.scan.stacks {
		columns = append(columns, &b.stacks)
	}
	if !all {
		columns, ids = append(columns, &w.durations, &w.periods), append(ids, &w.units, &w.types)
	}
	for label := range b.labels {
		if w.scan.labels[label] {
			ids = append(ids, &b.labels[label])
		}
	}
	for _, c := range columns {
		w.spareLongs = spread(c, w.spareLongs, w.rows)
	}
	for _, c := range ids {
		w.spareIDs = spread(c, w.spareIDs, w.rows)
	}
	previous := int32(-1)
	for i, r := range w.rows {
		if r.minute < 0 {
			continue
		}
		b.times[i] += int64(r.minute) * time.Minute.Milliseconds()
		each, rest := profile.Worth(b.values[i], b.counts[i])
		b.counts[i], b.values[i] = int64(r.count), each*int64(r.count)
		if r.row != previous {
			b.values[i] += rest
		}
		previous = r.row
		if !all {
			w.durations[i] = time.Minute.Nanoseconds()
		}
	}
	return nil
}

// spread puts the value of each row where the rows made of it are. It takes a spare slice for that, and gives the other one back.
func spread[T any](values *[]T, spare []T, rows []minuteRow) []T {
	old := *values
	*values = resize(spare, len(rows))
	for i, r := range rows {
		(*values)[i] = old[r.row]
	}
	return old
}

// runs is how many values differ from the one before.
func runs(values []int64) (n int) {
	for i, v := range values {
		if i == 0 || v != values[i-1] {
			n++
		}
	}
	return n
}

// cut leaves the samples of the rows that were taken in a time. Those of which it is not known when, as of lost ones, were where their span begins.
func (w *worker) cut(times timeRange) {
	b := &w.batch
	from, to := 0, 0
	for i, n := range b.lengths {
		ticks := b.ticks[from : from+int(n)]
		from += int(n)
		if int64(n) != b.counts[i] || n == 0 {
			b.wanted[i] = b.wanted[i] && times.has(b.times[i])
			to += copy(b.ticks[to:], ticks)
			continue
		}
		taken := func(tick uint32) bool { return times.has(b.times[i] + int64(tick)*Tick.Milliseconds()) }
		each, rest := profile.Worth(b.values[i], b.counts[i])
		if !taken(ticks[0]) {
			rest = 0
		}
		kept := int64(0)
		for _, tick := range ticks {
			if taken(tick) {
				b.ticks[to] = tick
				to++
				kept++
			}
		}
		b.wanted[i] = b.wanted[i] && kept > 0
		b.lengths[i], b.counts[i], b.values[i] = int32(kept), kept, kept*each+rest
	}
	b.ticks = b.ticks[:to]
}

// filter drops what the conditions do not let pass. Lost samples pass.
func (w *worker) filter() {
	b := &w.batch
	for condition := range w.scan.query.Filter {
		label := slices.Index(query.Labels, w.scan.query.Filter[condition].Label)
		for i, value := range b.labels[label] {
			if b.wanted[i] && b.losses[i] == 0 {
				b.wanted[i] = w.matchesID(condition, value)
			}
		}
	}
}

// readLists reads the next n lists of a column of 32-bit numbers: how long they are, and the values of one after the other. Older files do not have all such columns:
// their lists are empty.
func (g *rowGroup) readLists(name string, lengths *[]int32, values *[]uint32, n int) error {
	*lengths = resize(*lengths, n)
	path := []string{name, "list", "element"}
	c, err := g.column(path...)
	if err != nil {
		return err
	}
	if c.absent {
		clear(*lengths)
		return nil
	}
	l, err := g.lengths(path...)
	if err != nil {
		return err
	}
	total, err := l.read(*lengths)
	if err != nil {
		return err
	}
	*values = resize(*values, total)
	return c.readIDs(*values)
}
