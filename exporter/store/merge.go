package store

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"
)

// maxMergedRows bounds what a merger holds (24 bytes a row, and as much again for stacks that all differ); beyond it the
// rows become a row group of their own. A busy host of 64 CPUs has a million in an hour.
const maxMergedRows = 256 << 10

// merger adds up the rows of one hour by minute and by hour. It holds what it has until flush.
type merger struct {
	hour    time.Time
	minutes *parquet.GenericWriter[SampleRow] // nil: only hours are wanted
	hours   *parquet.GenericWriter[SampleRow]

	series  map[series]uint32
	all     []series
	entries map[entry]uint32
	keys    []entry
	last    []uint32 // of each entry: its latest of rows, and one more; 0: none
	rows    []mergedRow
	batch   []SampleRow
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

type mergedRow struct {
	entry  uint32
	minute uint32
	count  int64
	value  int64
}

func newMerger(hour time.Time, minutes, hours *parquet.GenericWriter[SampleRow]) *merger {
	m := &merger{hour: hour, minutes: minutes, hours: hours}
	m.clear()
	return m
}

func (m *merger) clear() {
	m.series, m.entries = make(map[series]uint32), make(map[entry]uint32)
	m.all, m.keys, m.last, m.rows = m.all[:0], m.keys[:0], m.last[:0], m.rows[:0]
}

// The columns that add reads.
var (
	mergedInts  = []string{"time", "stack_id", "period", "pid", "tid", "count", "value"}
	mergedTexts = []string{"type", "unit", "loss_reason", "comm", "thread", "exe", "cgroup", "container_id"}
)

// add adds the rows of a file.
func (m *merger) add(path string) (err error) {
	f, err := openChecked(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(f.asDamage(err), f.Close()) }()
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
			m.row(c[1].ints[i], &s, uint32(min(max(minute, 0), 59)), c[5].ints[i], c[6].ints[i])
		}
		if len(m.rows) >= maxMergedRows {
			return m.flush()
		}
		return nil
	})
}

func (m *merger) row(stack int64, s *series, minute uint32, count, value int64) {
	number, ok := m.series[*s]
	if !ok {
		number = uint32(len(m.all))
		m.series[*s] = number
		m.all = append(m.all, *s)
	}
	key := entry{stack, number}
	e, ok := m.entries[key]
	if !ok {
		e = uint32(len(m.keys))
		m.entries[key] = e
		m.keys = append(m.keys, key)
		m.last = append(m.last, 0)
	}
	if last := m.last[e]; last > 0 && m.rows[last-1].minute == minute {
		m.rows[last-1].count += count
		m.rows[last-1].value += value
		return
	}
	m.rows = append(m.rows, mergedRow{e, minute, count, value})
	m.last[e] = uint32(len(m.rows))
}

// flush writes what there is as a row group of each resolution.
func (m *merger) flush() error {
	order := make([]uint32, len(m.keys)) // of entries
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return m.compare(m.keys[a], m.keys[b]) })
	rank := make([]uint32, len(order))
	for i, e := range order {
		rank[e] = uint32(i)
	}
	slices.SortFunc(m.rows, func(a, b mergedRow) int {
		return cmp.Or(cmp.Compare(rank[a.entry], rank[b.entry]), cmp.Compare(a.minute, b.minute))
	})
	if m.minutes != nil {
		if err := m.write(m.minutes, m.rows, time.Minute); err != nil {
			return err
		}
	}
	sums := m.rows[:0] // no longer than what they are made of
	for _, r := range m.rows {
		r.minute = 0
		if n := len(sums); n > 0 && sums[n-1].entry == r.entry {
			sums[n-1].count += r.count
			sums[n-1].value += r.value
			continue
		}
		sums = append(sums, r)
	}
	if err := m.write(m.hours, sums, time.Hour); err != nil {
		return err
	}
	m.clear()
	return nil
}

func (m *merger) compare(a, b entry) int {
	if c := cmp.Compare(a.stack, b.stack); c != 0 || a.series == b.series {
		return c
	}
	x, y := &m.all[a.series], &m.all[b.series]
	return cmp.Or(x.labels.compare(&y.labels), cmp.Compare(x.loss, y.loss), cmp.Compare(a.series, b.series))
}

func (m *merger) write(w *parquet.GenericWriter[SampleRow], rows []mergedRow, span time.Duration) error {
	for len(rows) > 0 {
		m.batch = m.batch[:0]
		n := min(len(rows), batchRows)
		for _, r := range rows[:n] {
			key := m.keys[r.entry]
			s := &m.all[key.series]
			row := SampleRow{
				Time: m.hour.Add(time.Duration(r.minute) * time.Minute).UnixMilli(), Duration: span.Nanoseconds(),
				Type: s.kind, Unit: s.unit, Period: s.period, StackID: key.stack, LossReason: s.loss, Count: r.count, Value: r.value,
			}
			row.label(&s.labels)
			m.batch = append(m.batch, row)
		}
		if _, err := w.Write(m.batch); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return w.Flush()
}
