package store

import (
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Reader answers queries from the files in a data directory. It takes no lock: any number of them, in any process,
// read what a Store writes, and see it as soon as it is there. Safe for concurrent use.
//
// A sample is in an answer where it was taken in the time that was asked for, which intervals (the last one to two hours)
// know in steps of Tick. What has been compacted knows the minute in which its interval began, and is in an answer where that minute begins
// in the time. So ranges that follow one another have each sample once. Of lost samples no time is known: they were where their
// interval or minute begins.
type Reader struct {
	dir string
	log *slog.Logger
}

// NewReader makes a Reader of the history in a data directory. nil: nothing is logged.
func NewReader(dir string, log *slog.Logger) *Reader {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Reader{dir: dir, log: log}
}

// Answer says where a result comes from, and what is not in it.
type Answer struct {
	Files int // that were read
	// Warnings are what could not be read: a DamageError tells of file and offset.
	Warnings []error
}

// maxWarnings are kept; a broken disk would bring thousands.
const maxWarnings = 100

// warn notes what is missing, once: with Focus or Ignore files are read twice.
func (a *Answer) warn(err error) {
	same := func(other error) bool { return other.Error() == err.Error() }
	if len(a.Warnings) < maxWarnings && !slices.ContainsFunc(a.Warnings, same) {
		a.Warnings = append(a.Warnings, err)
	}
}

// Profile adds up the samples that a query means. Focus, Ignore, Hide and By are left to package flame. What cannot be read is
// logged; Read tells it.
func (r *Reader) Profile(ctx context.Context, q query.Query) (*profile.Profile, error) {
	p, answer, err := r.Read(ctx, q, query.Labels...)
	if err != nil {
		return nil, err
	}
	for _, warning := range answer.Warnings {
		r.log.Warn("a part of the history is left out of an answer", "err", warning)
	}
	return p, nil
}

// Read is Profile with those labels kept that are named: the fewer, the faster. The profile's start is that of the
// first span that was found, its duration how much of the time was sampled: while no agent ran, nothing was.
//
// Samples that were lost are in its Account whatever the filter says: nobody knows whose they were.
func (r *Reader) Read(ctx context.Context, q query.Query, labels ...string) (*profile.Profile, *Answer, error) {
	s := r.newScan(ctx, q)
	defer s.cancel(nil)
	s.stacks, s.coarse = true, true
	var kept [labelCount]bool
	for i, name := range query.Labels {
		kept[i] = slices.Contains(labels, name)
		s.labels[i] = s.labels[i] || kept[i]
	}
	total, err := s.sums(kept)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	stacks, err := s.pairs(total, maxFrames)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	return s.profile(total, stacks), s.answer, nil
}

// sums adds up what the query means, by stack if that is read, and by the labels that are kept.
func (s *scan) sums(kept [labelCount]bool) (*sums, error) {
	var all []*sums
	others := s.others(kept)
	if err := s.run(func() visitor {
		v := newSums(kept, others)
		all = append(all, v)
		return v
	}); err != nil {
		return nil, err
	}
	v := mergeSums(all)
	if v.crowded {
		samples := int64(0)
		for _, t := range v.totals {
			if v.keys[t.labels] == others {
				samples += t.count
			}
		}
		s.warnOthers(samples)
	}
	return v, nil
}

// maxGroups bounds the sets of labels that are told apart: there can be as many as samples, of a program that starts a process for each. The samples of
// those that are met later are one more, which has textOthers for its labels.
const maxGroups = 100_000

const (
	textOthers   = "[others]"
	numberOthers = 1<<32 - 1 // no process has it
)

func (s *scan) others(kept [labelCount]bool) (key labelKey) {
	for label := range key {
		switch {
		case !kept[label]:
		case label == labelPID || label == labelTID:
			key[label] = numberOthers
		default:
			key[label] = s.words.id([]byte(textOthers))
		}
	}
	return key
}

func (s *scan) warnOthers(samples int64) {
	s.warn(fmt.Errorf("there are more than %d groups: %d samples are added up as %s to bound memory: ask for a shorter time or by a filter",
		maxGroups, samples, textOthers))
}

// newScan begins a scan, which is to be canceled in the end.
func (r *Reader) newScan(ctx context.Context, q query.Query) *scan {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &scan{reader: r, ctx: ctx, cancel: cancel, query: q, words: newWords(), answer: new(Answer), partitions: make(map[partition]bool)}
	for i, name := range query.Labels {
		s.labels[i] = slices.ContainsFunc(q.Filter, func(c query.Condition) bool { return c.Label == name })
	}
	return s
}

// sums adds up rows by stack and labels. One worker uses it.
type sums struct {
	kept   [labelCount]bool // labels that tell rows apart
	told   bool             // there are such
	labels map[labelKey]uint32
	keys   []labelKey           // of labels
	recent [recentLabels]uint32 // IDs of labels, by the last digits of their process
	others labelKey             // of what has no place in keys
	rows   rowTable
	totals []total
	lost   map[uint32]int64 // by reason, a word
	// crowded says that there are such others.
	crowded bool
}

// recentLabels is a power of two. Most processes have one set of labels, or few.
const recentLabels = 1024

// rowKey is what rows are added up by: labels are an index of keys.
type rowKey struct {
	stack  int64
	labels uint32
}

type total struct {
	rowKey
	count, value int64
}

func newSums(kept [labelCount]bool, others labelKey) *sums {
	return &sums{kept: kept, told: kept != [labelCount]bool{}, others: others, labels: make(map[labelKey]uint32), lost: make(map[uint32]int64)}
}

func (v *sums) visit(b *batch) {
	v.reserve(b.distinct)
	last := int32(-1) // equal rows stand beside each other
	for i, wanted := range b.wanted {
		if !wanted {
			continue
		}
		if b.losses[i] != 0 {
			v.lost[b.losses[i]] += b.counts[i]
			continue
		}
		var labels labelKey
		if v.told {
			for label, kept := range v.kept {
				if kept {
					labels[label] = b.labels[label][i]
				}
			}
		}
		key := rowKey{}
		if len(b.stacks) > 0 {
			key.stack = b.stacks[i]
		}
		if last < 0 || v.totals[last].stack != key.stack || v.told && v.keys[v.totals[last].labels] != labels {
			if v.told || len(v.keys) == 0 {
				key.labels = v.labelID(labels)
			}
			last = v.index(key)
		}
		v.totals[last].count += b.counts[i]
		v.totals[last].value += b.values[i]
	}
}

func (v *sums) labelID(labels labelKey) uint32 {
	slot := &v.recent[labels[labelPID]%recentLabels]
	if int(*slot) < len(v.keys) && v.keys[*slot] == labels {
		return *slot
	}
	id, ok := v.labels[labels]
	if !ok && len(v.keys) >= maxGroups {
		v.crowded = true
		labels = v.others
		id, ok = v.labels[labels]
	}
	if !ok {
		id = uint32(len(v.keys))
		v.keys = append(v.keys, labels)
		v.labels[labels] = id
	}
	*slot = id
	return id
}

// reserve makes room for so many more sums.
func (v *sums) reserve(more int) {
	if least := 2 * (len(v.totals) + more); least > len(v.rows) {
		v.rows = newRowTable(v.totals, least)
		v.totals = slices.Grow(v.totals, more)
	}
}

// index is where the sum of rows stands in totals.
func (v *sums) index(key rowKey) int32 {
	v.reserve(1)
	slot := v.rows.find(v.totals, key)
	if *slot == 0 {
		v.totals = append(v.totals, total{rowKey: key})
		*slot = int32(len(v.totals))
	}
	return *slot - 1
}

// rowTable finds rows among totals: what stands in a slot is an index plus 1, 0 is free. It has twice as many slots as are
// taken, a power of two. This is a third of the time that a Go map takes, of what is half of the time of a query.
//
// Keys have their slots in order: rows are sorted by stack, and so are slots looked at and totals added one after the other, which the cache likes. The first half of
// the rows would crowd in the first half of the table, so that it must have room for all those of a row group before.
type rowTable []int32

func newRowTable(totals []total, least int) rowTable {
	t := make(rowTable, max(1<<12, 1<<bits.Len(uint(least))))
	for i := range totals {
		*t.find(totals, totals[i].rowKey) = int32(i + 1)
	}
	return t
}

// find gives the slot of a row, or the one that it is to have.
func (t rowTable) find(totals []total, key rowKey) *int32 {
	// IDs of stacks are hashes already; those of labels are small numbers.
	for i := (uint64(key.stack) + uint64(key.labels)*0x9e3779b97f4a7c15) >> bits.LeadingZeros64(uint64(len(t)-1)); ; i++ {
		slot := &t[i&uint64(len(t)-1)]
		if *slot == 0 || totals[*slot-1].rowKey == key {
			return slot
		}
	}
}

// mergeSums adds what several workers found to what the one did that found most.
func mergeSums(all []*sums) *sums {
	slices.SortStableFunc(all, func(a, b *sums) int { return len(b.totals) - len(a.totals) })
	merged := all[0]
	for _, v := range all[1:] {
		ids := make([]uint32, len(v.keys))
		for i, labels := range v.keys {
			ids[i] = merged.labelID(labels)
		}
		// No room is reserved, and what is sorted does not crowd: most of them merged has too, and room for all would be the most that a query of a week takes.
		for _, t := range v.totals {
			i := merged.index(rowKey{t.stack, ids[t.labels]})
			merged.totals[i].count += t.count
			merged.totals[i].value += t.value
		}
		for reason, n := range v.lost {
			merged.lost[reason] += n
		}
		merged.crowded = merged.crowded || v.crowded
		v.rows, v.totals = nil, nil
	}
	merged.rows = nil
	return merged
}

// header makes a profile of sums, but for its samples.
func (s *scan) header(v *sums) *profile.Profile {
	p := &profile.Profile{Type: profile.Type{Name: s.query.Type, Unit: s.words.text(s.facts.unit)}, Period: s.facts.period}
	if s.facts.seen {
		p.Start = time.UnixMilli(s.facts.spans.from).UTC()
		p.Duration = time.Duration(s.facts.spans.to-s.facts.spans.from) * time.Millisecond
		if s.covered > 0 && !s.uncovered {
			p.Duration = s.covered
		}
	}
	for i := range v.totals {
		p.Account.Exported += uint64(v.totals[i].count)
	}
	p.Account.Taken = p.Account.Exported
	for reason, n := range v.lost {
		p.Account.Lost = append(p.Account.Lost, profile.Loss{Reason: s.words.text(reason), Count: uint64(n)})
		p.Account.Taken += uint64(n)
	}
	slices.SortFunc(p.Account.Lost, func(a, b profile.Loss) int {
		if a.Reason < b.Reason {
			return -1
		}
		return 1
	})
	return p
}

// profile makes a profile of sums.
func (s *scan) profile(v *sums, stacks map[int64]*stackPair) *profile.Profile {
	p := s.header(v)
	labels := make([]*profile.Labels, len(v.keys))
	for i, key := range v.keys {
		labels[i] = s.profileLabels(key)
	}
	rare := &profile.Stack{Truncated: reasonRare}
	p.Samples = make([]profile.Sample, len(v.totals))
	for i, t := range v.totals {
		sample := profile.Sample{Labels: labels[t.labels], Count: t.count, Value: t.value}
		if st := stacks[t.stack]; st != nil {
			sample.Kernel, sample.User = st.kernel, st.user
		} else if t.stack != 0 {
			sample.User = rare
		}
		p.Samples[i] = sample
	}
	return p
}

func (s *scan) profileLabels(key labelKey) *profile.Labels {
	text := func(label int) string { return s.words.text(key[label]) }
	number := func(label int) int {
		if key[label] == numberOthers {
			return 0
		}
		return int(int32(key[label]))
	}
	l := &profile.Labels{
		PID: number(labelPID), TID: number(labelTID),
		Comm: text(2), Thread: text(3), Exe: text(4), Cgroup: text(5), ContainerID: text(6), Service: text(7), PodUID: text(8), Unit: text(9),
	}
	if l.Service == profile.ProgramName(l.Exe, l.Comm) { // nobody said so: it was the best name there was
		l.Service = ""
	}
	if l.Cgroup != "" {
		l.Cgroups = []string{l.Cgroup}
	}
	return l
}
