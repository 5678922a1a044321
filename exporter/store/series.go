package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Bounds of series.
const (
	// MaxLines are in an answer; the smaller ones are added up as one more.
	MaxLines = 20
	// MaxPoints are in an answer, of all lines together: an hour in steps of 10 ms, of one line.
	MaxPoints = 400_000
	maxSteps  = 400_000
)

// A Series is samples over time, one line for each value of the label that they are grouped by.
type Series struct {
	Type string
	Unit string // of values
	// From is when the first step begins, a multiple of Step since 1970.
	From  time.Time
	Step  time.Duration
	Steps int
	Lines []Line // the ones with most samples first
}

// Line is samples over time.
type Line struct {
	// Label is the value of the label; "" where there is none, or lines are not told apart.
	Label string
	// Others says that it is the sum of the lines that are too many to be told.
	Others  bool
	Samples []int64 // in each step
	Values  []int64 // their sum, in Unit; nil of heatmaps
}

// LabelValue is how much of a profile has a value of a label.
type LabelValue struct {
	Label   string
	Samples int64
	Value   int64
}

// Series gives the samples that a query means in steps, by the label By. Steps are multiples of a second; samples are where they were taken. Spans of a
// minute (all that is older than one to two hours) are in the step that they begin in, so they need steps of a minute at least to be told apart.
func (r *Reader) Series(ctx context.Context, q query.Query, step time.Duration) (*Series, *Answer, error) {
	if err := CheckStep(step, time.Second); err != nil {
		return nil, nil, err
	}
	return r.series(ctx, q, step)
}

// Heatmap gives counts of samples in steps of multiples of 10 ms. What was sampled before the last one to two hours has its minute
// alone, and stands in the step with which that begins.
func (r *Reader) Heatmap(ctx context.Context, q query.Query, step time.Duration) (*Series, *Answer, error) {
	if err := CheckStep(step, Tick); err != nil {
		return nil, nil, err
	}
	s, answer, err := r.series(ctx, q, step)
	if err != nil {
		return nil, nil, err
	}
	for i := range s.Lines {
		s.Lines[i].Values = nil
	}
	return s, answer, nil
}

// NiceStep is a round step that divides a time into as many steps as wanted, or fewer.
func NiceStep(span time.Duration, wanted int) time.Duration {
	for _, step := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour,
	} {
		if span/step < time.Duration(wanted) {
			return step
		}
	}
	return 24 * time.Hour
}

// ErrStep says that a step is none that can be had, ErrTooMany that the answer would be too large.
var (
	ErrStep    = errors.New("want a multiple of a second, or of 10 ms for a heatmap")
	ErrTooMany = errors.New("too many steps: ask for a shorter time, or longer steps")
)

// CheckStep refuses steps that are no multiple of what a series (a second) or a heatmap (Tick) can be had in.
func CheckStep(step, unit time.Duration) error {
	if step < unit || step%unit != 0 {
		return fmt.Errorf("step %s: %w", step, ErrStep)
	}
	return nil
}

func (r *Reader) series(ctx context.Context, q query.Query, step time.Duration) (*Series, *Answer, error) {
	s := r.newScan(ctx, q)
	defer s.cancel(nil)
	by := slices.Index(query.Labels, q.By)
	if by >= 0 {
		s.labels[by] = true
	}
	s.times, s.step, s.coarse = true, step.Milliseconds(), step%time.Hour == 0
	if !q.From.IsZero() && !q.To.IsZero() && int64(q.To.Sub(q.From)/step) > maxSteps {
		return nil, nil, ErrTooMany
	}
	if err := s.selectStacks(); err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	var all []*steps
	if err := s.run(func() visitor {
		v := &steps{scan: s, by: by, step: step.Milliseconds(), lines: make(map[uint32]*points), others: newPoints()}
		all = append(all, v)
		return v
	}); err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	series, err := s.joinSteps(all, by, step)
	return series, s.answer, err
}

// selectStacks finds out which stacks Focus and Ignore leave, where they are set.
func (s *scan) selectStacks() error {
	if s.query.Focus == nil && s.query.Ignore == nil {
		return nil
	}
	all := s.reader.newScan(s.ctx, s.query)
	defer all.cancel(nil)
	all.stacks, all.coarse, all.answer = true, true, s.answer
	sums, err := all.sums([labelCount]bool{})
	if err != nil {
		return err
	}
	c, err := all.compact(sums, -1, maxCompactStacks, maxFrames)
	if err != nil {
		return err
	}
	stacks := c.stacks
	s.stacks, s.selected = true, make(map[int64]bool)
	for i := range stacks.Samples { // to know them again
		stacks.Samples[i].Value = sums.totals[i].stack
	}
	for _, sample := range stacks.Select(s.query.Focus, s.query.Ignore, nil).Samples {
		s.selected[sample.Value] = true
	}
	return nil
}

// steps adds rows up by time. One worker uses it.
type steps struct {
	scan  *scan
	by    int   // label; -1: none
	step  int64 // milliseconds
	lines map[uint32]*points
	// others are what there is beyond maxGroups lines.
	others *points
}

// points are sums by step since 1970: many, but few of a line where lines are many.
type points struct {
	samples, values map[int64]int64
	total           int64
}

func newPoints() *points {
	return &points{samples: make(map[int64]int64), values: make(map[int64]int64)}
}

func (v *steps) visit(b *batch) {
	at := 0
	for i, wanted := range b.wanted {
		ticks := []uint32(nil)
		if len(b.lengths) > 0 {
			ticks = b.ticks[at : at+int(b.lengths[i])]
			at += int(b.lengths[i])
		}
		if !wanted || b.losses[i] != 0 || v.scan.selected != nil && !v.scan.selected[b.stacks[i]] {
			continue
		}
		label := uint32(0)
		if v.by >= 0 {
			label = b.labels[v.by][i]
		}
		p := v.lines[label]
		switch {
		case p == nil && len(v.lines) < maxGroups:
			p = newPoints()
			v.lines[label] = p
		case p == nil:
			p = v.others
		}
		p.total += b.counts[i]
		if int64(len(ticks)) != b.counts[i] || len(ticks) == 0 {
			p.samples[b.times[i]/v.step] += b.counts[i]
			p.values[b.times[i]/v.step] += b.values[i]
			continue
		}
		each, rest := profile.Worth(b.values[i], b.counts[i])
		for _, t := range ticks {
			step := (b.times[i] + int64(t)*Tick.Milliseconds()) / v.step
			p.samples[step]++
			p.values[step] += each + rest
			rest = 0
		}
	}
}

// joinSteps makes a Series of what several workers found.
func (s *scan) joinSteps(all []*steps, by int, step time.Duration) (*Series, error) {
	lines, others := make(map[uint32]*points), newPoints()
	for _, v := range all {
		for label, p := range v.lines {
			switch into := lines[label]; {
			case into != nil:
				into.add(p)
			case len(lines) < maxGroups:
				lines[label] = p
			default:
				others.add(p)
			}
		}
		others.add(v.others)
	}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	span := func(p *points) {
		for t := range p.samples {
			first, last = min(first, t), max(last, t)
		}
	}
	span(others)
	for _, p := range lines {
		span(p)
	}
	series := &Series{Type: s.query.Type, Unit: s.words.text(s.facts.unit), Step: step, Lines: []Line{}}
	if !s.query.From.IsZero() {
		first = min(first, s.query.From.UnixMilli()/step.Milliseconds())
	}
	if !s.query.To.IsZero() {
		last = max(last, (ceilMilli(s.query.To)-1)/step.Milliseconds())
	}
	if first > last {
		return series, nil
	}
	series.From = time.UnixMilli(first * step.Milliseconds()).UTC()
	series.Steps = int(last - first + 1)
	if (last - first) >= maxSteps {
		return nil, ErrTooMany
	}
	ids := make([]uint32, 0, len(lines))
	for id := range lines {
		ids = append(ids, id)
	}
	text := func(id uint32) string {
		if by < 0 {
			return ""
		}
		return s.labelText(by, id)
	}
	slices.SortFunc(ids, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(lines[b].total, lines[a].total), cmp.Compare(text(a), text(b)))
	})
	most := min(MaxLines, max(1, MaxPoints/series.Steps))
	for i, id := range ids {
		line := Line{Label: text(id)}
		if i >= most && len(ids) > most {
			if i == most {
				series.Lines = append(series.Lines, Line{Others: true, Samples: make([]int64, series.Steps), Values: make([]int64, series.Steps)})
			}
			lines[id].fill(&series.Lines[most], first)
			continue
		}
		line.Samples, line.Values = make([]int64, series.Steps), make([]int64, series.Steps)
		lines[id].fill(&line, first)
		series.Lines = append(series.Lines, line)
	}
	if others.total > 0 { // so many lines that there is one for the rest
		others.fill(&series.Lines[most], first)
		s.warnOthers(others.total)
	}
	return series, nil
}

func (p *points) add(other *points) {
	p.total += other.total
	for t, n := range other.samples {
		p.samples[t] += n
	}
	for t, n := range other.values {
		p.values[t] += n
	}
}

func (p *points) fill(line *Line, first int64) {
	for t, n := range p.samples {
		line.Samples[t-first] += n
	}
	for t, n := range p.values {
		line.Values[t-first] += n
	}
}

// Labels gives the values of a label among the samples that a query means, those with most samples first.
func (r *Reader) Labels(ctx context.Context, q query.Query, label string) ([]LabelValue, *Answer, error) {
	groups, answer, err := r.Groups(ctx, q, label)
	if err != nil {
		return nil, nil, err
	}
	values := make([]LabelValue, len(groups))
	for i, g := range groups {
		values[i] = LabelValue{g.Labels[0], g.Samples, g.Value}
	}
	return values, answer, nil
}

// Group is how much of a profile has values of several labels.
type Group struct {
	Labels  []string // in the order that they were asked for
	Samples int64
	Value   int64
}

// Groups gives the values that labels have together among the samples that a query means, those with most samples first.
func (r *Reader) Groups(ctx context.Context, q query.Query, labels ...string) ([]Group, *Answer, error) {
	s := r.newScan(ctx, q)
	defer s.cancel(nil)
	var kept [labelCount]bool
	columns := make([]int, len(labels))
	for i, label := range labels {
		if columns[i] = slices.Index(query.Labels, label); columns[i] < 0 {
			return nil, nil, fmt.Errorf("there is no label %q", label)
		}
		kept[columns[i]], s.labels[columns[i]] = true, true
	}
	s.coarse = true
	if err := s.selectStacks(); err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	v, err := s.sums(kept)
	if err != nil {
		return nil, nil, fmt.Errorf("read the history in %s: %w", r.dir, err)
	}
	groups := make(map[labelKey]*Group)
	for _, t := range v.totals {
		if s.selected != nil && !s.selected[t.stack] {
			continue
		}
		key := v.keys[t.labels]
		g := groups[key]
		if g == nil {
			g = new(Group)
			for _, column := range columns {
				g.Labels = append(g.Labels, s.labelText(column, key[column]))
			}
			groups[key] = g
		}
		g.Samples += t.count
		g.Value += t.value
	}
	list := make([]Group, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), slices.Compare(a.Labels, b.Labels))
	})
	return list, s.answer, nil
}
