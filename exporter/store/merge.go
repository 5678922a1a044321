package store

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"
)

// maxMerged bounds the rows of an hour's rollup that a merger holds (some 350 bytes each); beyond it they become a row group of their
// own. A busy host of 64 CPUs has 20,000 in an hour, and less than maxMerged*minutesPerHour rows of minutes of them.
const maxMerged = 32 << 10

const minutesPerHour = 60

// batchRows are read and written at once.
const batchRows = 1024

// merger adds up the rows of one hour by minute and by hour. It holds what it has until flush.
type merger struct {
	hour    time.Time
	minutes *parquet.GenericWriter[SampleRow] // nil: only hours are wanted
	hours   *parquet.GenericWriter[SampleRow]

	covered   coverage // by the files that were added
	uncovered bool     // one of them does not say what it covers

	series map[seriesKey]uint32
	all    []series
	words  *words // of series and of what is read
	index  map[entry]uint32
	merged []merged
	batch  []SampleRow
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

func newMerger(hour time.Time, minutes, hours *parquet.GenericWriter[SampleRow]) *merger {
	m := &merger{hour: hour, minutes: minutes, hours: hours, covered: make(coverage)}
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
	g := &rowGroup{RowGroup: f.RowGroups()[index], words: m.words, columns: make(map[string]*vector)}
	defer g.close()
	for rows := int(g.NumRows()); rows > 0; rows -= batchRows {
		if err := guard(f, index, func() error { return m.addRows(g, min(rows, batchRows)) }); err != nil {
			return err
		}
		if len(m.merged) < maxMerged {
			continue
		}
		if err := m.flush(); err != nil { // which is not about what was read
			return err
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

// flush writes what there is as a row group of each resolution.
func (m *merger) flush() error {
	slices.SortFunc(m.merged, func(a, b merged) int { return m.compare(&a, &b) })
	if m.minutes != nil {
		if err := m.write(m.minutes, m.minuteRows); err != nil {
			return err
		}
	}
	if err := m.write(m.hours, m.hourRow); err != nil {
		return err
	}
	m.clear()
	return nil
}

func (m *merger) compare(a, b *merged) int {
	if c := cmp.Compare(a.stack, b.stack); c != 0 || a.series == b.series {
		return c
	}
	x, y := &m.all[a.series], &m.all[b.series]
	return cmp.Or(x.labels.compare(&y.labels), cmp.Compare(x.loss, y.loss), cmp.Compare(a.series, b.series))
}

// write writes the rows that each of merged becomes.
func (m *merger) write(w *parquet.GenericWriter[SampleRow], rows func(*merged)) error {
	for i := range m.merged {
		rows(&m.merged[i])
		if len(m.batch) < batchRows && i < len(m.merged)-1 {
			continue
		}
		if _, err := w.Write(m.batch); err != nil {
			return err
		}
		m.batch = m.batch[:0]
	}
	return w.Flush()
}

func (m *merger) minuteRows(e *merged) {
	for minute, n := range e.counts {
		if n == 0 {
			continue
		}
		row := m.blank(e, time.Minute)
		row.Time += int64(minute) * time.Minute.Milliseconds()
		row.Count, row.Value = int64(n), e.value(minute, m.all[e.series].unitValue())
		m.batch = append(m.batch, row)
	}
}

func (m *merger) hourRow(e *merged) {
	row := m.blank(e, time.Hour)
	for minute, n := range e.counts {
		row.Count += int64(n)
		row.Value += e.value(minute, m.all[e.series].unitValue())
	}
	m.batch = append(m.batch, row)
}

func (e *merged) value(minute int, unit int64) int64 {
	if e.values != nil {
		return e.values[minute]
	}
	return int64(e.counts[minute]) * unit
}

// blank is a row without its numbers.
func (m *merger) blank(e *merged, span time.Duration) SampleRow {
	s := &m.all[e.series]
	row := SampleRow{
		Time: m.hour.UnixMilli(), Duration: span.Nanoseconds(), Type: s.kind, Unit: s.unit, Period: s.period, StackID: e.stack, LossReason: s.loss,
	}
	row.label(&s.labels)
	return row
}
