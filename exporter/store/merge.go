package store

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"
)

// maxMerged bounds the rows of an hour that a merger holds (some 350 bytes each); beyond it they become a row group of their
// own. A busy host of 64 CPUs has 20,000 in an hour.
const maxMerged = 32 << 10

const minutesPerHour = 60

// batchRows are read and written at once.
const batchRows = 1024

// merger adds up rows by the hour, and by minute within it. It holds what it has until flush.
type merger struct {
	hour time.Time // of the rows that it holds
	day  bool      // it takes several hours, one after the other
	to   *parquet.GenericWriter[SampleRow]

	failed    error    // of writing, which is not about what was read
	covered   coverage // by the files that were added
	uncovered bool     // one of them does not say what it covers

	series map[seriesKey]uint32
	all    []series
	words  *words // of series and of what is read
	index  map[entry]uint32
	merged []merged
	batch  []SampleRow
	counts []int32    // of the minutes of batch
	longs  [5][]int64 // of the rows that are read
	ids    [mergedIDCount][]uint32
}

// series is all that a row has but for stack and numbers.
type series struct {
	kind, unit, loss string
	period           int64
	labels           labels
}

type entry struct {
	stack  int64
	series uint32
}

// merged are the sums of an entry.
type merged struct {
	entry
	counts [minutesPerHour]uint32
	values *[minutesPerHour]int64 // nil as long as each is its count times the period
}

func newMerger(made *file, to *parquet.GenericWriter[SampleRow]) *merger {
	m := &merger{hour: made.start, day: made.span == spanDay, to: to, covered: make(coverage)}
	m.clear()
	return m
}

func (m *merger) clear() {
	m.series, m.index, m.words = make(map[seriesKey]uint32), make(map[entry]uint32), newWords()
	m.all, m.merged = m.all[:0], m.merged[:0]
}

// The columns that add reads: 64-bit numbers, and strings and 32-bit ones.
var (
	mergedLongs = []string{"time", "stack_id", "period", "count", "value"}
	mergedIDs   = []string{"type", "unit", "loss_reason", "pid", "tid", "comm", "thread", "exe", "cgroup", "container_id", "service", "pod_uid", columnUnit}
)

const mergedIDCount = 13

// seriesKey is a series with strings as words.
type seriesKey struct {
	period int64
	ids    [mergedIDCount]uint32 // of mergedIDs
}

// add adds the rows of a file, and what it covers.
func (m *merger) add(path string) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	m.uncovered = !m.covered.add(f) || m.uncovered
	for i := range f.RowGroups() {
		if err := m.addGroup(f, i); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) addGroup(f *checkedFile, index int) error {
	g := newRowGroup(f.RowGroups()[index], m.words)
	defer g.close()
	hour := m.hour
	if m.day { // whose row groups are of an hour each
		if err := guard(f, index, func() error {
			if first, _, ok := g.bounds("time"); ok {
				hour = time.UnixMilli(first).UTC().Truncate(time.Hour)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if !hour.Equal(m.hour) {
		if m.failed = m.flush(); m.failed != nil {
			return m.failed
		}
		g.words, m.hour = m.words, hour
	}
	for rows := int(g.NumRows()); rows > 0; rows -= batchRows {
		if err := guard(f, index, func() error { return m.addRows(g, min(rows, batchRows)) }); err != nil {
			return err
		}
		if len(m.merged) < maxMerged {
			continue
		}
		if m.failed = m.flush(); m.failed != nil {
			return m.failed
		}
		if err := guard(f, index, func() error { return g.use(m.words) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) addRows(g *rowGroup, n int) error {
	for i, name := range mergedLongs {
		c, err := g.column(name)
		if err != nil {
			return err
		}
		m.longs[i] = resize(m.longs[i], n)
		if err := c.readLongs(m.longs[i]); err != nil {
			return err
		}
	}
	for i, name := range mergedIDs {
		c, err := g.column(name)
		if err != nil {
			return err
		}
		m.ids[i] = resize(m.ids[i], n)
		if err := c.readIDs(m.ids[i]); err != nil {
			return err
		}
	}
	for i := range n {
		key := seriesKey{period: m.longs[2][i]}
		for column := range key.ids {
			key.ids[column] = m.ids[column][i]
		}
		minute := (m.longs[0][i] - m.hour.UnixMilli()) / time.Minute.Milliseconds()
		m.row(m.longs[1][i], key, min(max(minute, 0), minutesPerHour-1), m.longs[3][i], m.longs[4][i])
	}
	return nil
}

func (m *merger) newSeries(key seriesKey) series {
	text := func(column int) string { return m.words.text(key.ids[column]) }
	return series{
		kind: text(0), unit: text(1), loss: text(2), period: key.period,
		labels: labels{
			pid: int32(key.ids[3]), tid: int32(key.ids[4]), comm: text(5), thread: text(6), exe: text(7), cgroup: text(8), containerID: text(9),
			service: text(10), podUID: text(11), unit: text(12),
		},
	}
}

func (m *merger) row(stack int64, of seriesKey, minute, count, value int64) {
	number, ok := m.series[of]
	if !ok {
		number = uint32(len(m.all))
		m.series[of] = number
		m.all = append(m.all, m.newSeries(of))
	}
	s := &m.all[number]
	key := entry{stack, number}
	i, ok := m.index[key]
	if !ok {
		i = uint32(len(m.merged))
		m.index[key] = i
		m.merged = append(m.merged, merged{entry: key})
	}
	e := &m.merged[i]
	if e.values == nil && value != count*s.unitValue() {
		e.values = new([minutesPerHour]int64)
		for minute, n := range e.counts {
			e.values[minute] = int64(n) * s.unitValue()
		}
	}
	e.counts[minute] += uint32(count)
	if e.values != nil {
		e.values[minute] += value
	}
}

// unitValue is what one sample is worth unless it says something else.
func (s *series) unitValue() int64 {
	if s.loss != "" {
		return 0
	}
	return s.period
}

// flush writes what there is as a row group.
func (m *merger) flush() error {
	// What a process has stands together: its labels are then one run, and the minutes in which it ran are alike.
	order := make([]uint32, len(m.all)) // of series
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		x, y := &m.all[a], &m.all[b]
		return cmp.Or(x.labels.compare(&y.labels), cmp.Compare(x.loss, y.loss), cmp.Compare(a, b))
	})
	rank := make([]uint32, len(order))
	for place, i := range order {
		rank[i] = uint32(place)
	}
	slices.SortFunc(m.merged, func(a, b merged) int {
		return cmp.Or(cmp.Compare(rank[a.series], rank[b.series]), cmp.Compare(a.stack, b.stack))
	})
	for i := range m.merged {
		m.put(&m.merged[i])
		if len(m.batch) < batchRows && i < len(m.merged)-1 {
			continue
		}
		if _, err := m.to.Write(m.batch); err != nil {
			return err
		}
		m.batch, m.counts = m.batch[:0], m.counts[:0]
	}
	m.clear()
	return m.to.Flush()
}

// put makes the row of an entry; where its minutes do not tell what their samples were worth, a row for each.
func (m *merger) put(e *merged) {
	row := m.blank(e)
	if e.values == nil {
		from := len(m.counts)
		for _, n := range e.counts {
			m.counts = append(m.counts, int32(n))
			row.Count += int64(n)
		}
		row.Value, row.Minutes = row.Count*m.all[e.series].unitValue(), m.counts[from:]
		m.batch = append(m.batch, row)
		return
	}
	row.Duration = time.Minute.Nanoseconds()
	for minute, n := range e.counts {
		if n > 0 {
			row.Time = m.hour.UnixMilli() + int64(minute)*time.Minute.Milliseconds()
			row.Count, row.Value = int64(n), e.values[minute]
			m.batch = append(m.batch, row)
		}
	}
}

// blank is a row without its numbers.
func (m *merger) blank(e *merged) SampleRow {
	s := &m.all[e.series]
	row := SampleRow{
		Time: m.hour.UnixMilli(), Duration: time.Hour.Nanoseconds(), Type: s.kind, Unit: s.unit, Period: s.period, StackID: e.stack, LossReason: s.loss,
	}
	row.label(&s.labels)
	return row
}
