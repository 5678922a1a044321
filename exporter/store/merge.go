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

// merger adds up the rows of one hour by minute and by hour. It holds what it has until flush.
type merger struct {
	hour    time.Time
	minutes *parquet.GenericWriter[SampleRow] // nil: only hours are wanted
	hours   *parquet.GenericWriter[SampleRow]

	series map[series]uint32
	all    []series
	index  map[entry]uint32
	merged []merged
	batch  []SampleRow
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
	m := &merger{hour: hour, minutes: minutes, hours: hours}
	m.clear()
	return m
}

func (m *merger) clear() {
	m.series, m.index = make(map[series]uint32), make(map[entry]uint32)
	m.all, m.merged = m.all[:0], m.merged[:0]
}

// The columns that add reads.
var (
	mergedInts  = []string{"time", "stack_id", "period", "pid", "tid", "count", "value"}
	mergedTexts = []string{"type", "unit", "loss_reason", "comm", "thread", "exe", "cgroup", "container_id"}
)

// add adds the rows of a file, and what it covers.
func (m *merger) add(path string, covered coverage) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(f.asDamage(err), f.Close()) }()
	covered.add(f)
	return readColumns(f, mergedInts, mergedTexts, func(n int, c []*column) error {
		for i := range n {
			s := series{
				kind: c[7].texts[i], unit: c[8].texts[i], loss: c[9].texts[i], period: c[2].ints[i],
				labels: labels{
					pid: int32(c[3].ints[i]), tid: int32(c[4].ints[i]), comm: c[10].texts[i], thread: c[11].texts[i],
					exe: c[12].texts[i], cgroup: c[13].texts[i], containerID: c[14].texts[i],
				},
			}
			minute := (c[0].ints[i] - m.hour.UnixMilli()) / time.Minute.Milliseconds()
			m.row(c[1].ints[i], &s, min(max(minute, 0), minutesPerHour-1), c[5].ints[i], c[6].ints[i])
		}
		if len(m.merged) >= maxMerged {
			return m.flush()
		}
		return nil
	})
}

func (m *merger) row(stack int64, s *series, minute, count, value int64) {
	number, ok := m.series[*s]
	if !ok {
		number = uint32(len(m.all))
		m.series[*s] = number
		m.all = append(m.all, *s)
	}
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
