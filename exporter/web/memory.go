package web

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// memory answers queries from profiles that are there: those of the last minute, or of files. Like the history it takes the samples that were
// taken in the time that was asked for; those of which that is not known, and lost ones, were where their profile begins.
type memory []*profile.Profile

// span has the begin of every profile in it, also where the clock was set back since, and goes on to now; a minute where there is none.
func (m memory) span() (from, to time.Time) {
	to = time.Now().Round(0) // what the clock says is compared, as it is in queries
	from = to.Add(-time.Minute)
	for i, p := range m {
		begin := p.Start.Round(0)
		if i == 0 || begin.Before(from) {
			from = begin
		}
		if end := begin.Add(p.Duration + 1); end.After(to) {
			to = end
		}
	}
	return from, to
}

// of is the type that a query asks for; its unit is known with the first profile that has it.
func (m memory) of(q query.Query) profile.Type {
	if q.Type == "" && len(m) > 0 {
		return profile.Type{Name: m[0].Type.Name}
	}
	return profile.Type{Name: cmp.Or(q.Type, profile.TypeCPU.Name)}
}

// matching gives what a query means of a profile; nil: nothing. Its start and duration are of the time that was asked for, where the times of samples are
// known, as they are not of files.
func matching(p *profile.Profile, q query.Query) *profile.Profile {
	asked := func(t time.Time) bool { return !t.Before(q.From) && (q.To.IsZero() || t.Before(q.To)) }
	end, begins := p.Start.Add(p.Duration), asked(p.Start)
	before, after := p.Start.Before(q.From), !q.To.IsZero() && end.After(q.To)
	timed := slices.ContainsFunc(p.Samples, func(s profile.Sample) bool { return len(s.Times) > 0 })
	if q.Type != "" && q.Type != p.Type.Name || !begins && !(timed && before && end.After(q.From)) {
		return nil
	}
	out := *p
	out.Samples = nil
	out.Account = profile.Account{}
	if begins {
		out.Account.Filtered, out.Account.Lost = p.Account.Filtered, p.Account.Lost
	}
	for _, s := range p.Samples {
		if !q.Filter.Matches(s.Labels) {
			continue
		}
		if timed && (before || after) {
			s = taken(s, func(t time.Duration) bool { return asked(p.Start.Add(t)) })
		}
		if s.Count > 0 {
			out.Samples = append(out.Samples, s)
			out.Account.Exported += uint64(s.Count)
		}
	}
	out.Account.Taken = out.Account.Exported + out.Account.Filtered
	for _, l := range out.Account.Lost {
		out.Account.Taken += l.Count
	}
	if !timed {
		return &out
	}
	if before {
		out.Start = q.From
		for i := range out.Samples {
			for j := range out.Samples[i].Times { // taken made them
				out.Samples[i].Times[j] -= q.From.Sub(p.Start)
			}
		}
	}
	if after {
		end = q.To
	}
	out.Duration = max(0, end.Sub(out.Start))
	return &out
}

// taken leaves of a sample what was taken at times that were asked for. Where it has no times it was at the start of its profile.
func taken(s profile.Sample, asked func(time.Duration) bool) profile.Sample {
	if int64(len(s.Times)) != s.Count || s.Count == 0 {
		if !asked(0) {
			s.Count, s.Value = 0, 0
		}
		return s
	}
	each, rest := profile.Worth(s.Value, s.Count)
	if !asked(s.Times[0]) {
		rest = 0
	}
	s.Times = slices.DeleteFunc(slices.Clone(s.Times), func(t time.Duration) bool { return !asked(t) })
	s.Count = int64(len(s.Times))
	s.Value = s.Count*each + rest
	return s
}

// Read keeps all labels, but not the times of samples.
func (m memory) Read(ctx context.Context, q query.Query, _ ...string) (*profile.Profile, *store.Answer, error) {
	out := &profile.Profile{Type: m.of(q)}
	var end time.Time
	for _, p := range m {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if p = matching(p, q); p == nil {
			continue
		}
		if end.IsZero() || p.Start.Before(out.Start) {
			out.Start = p.Start
		}
		if last := p.Start.Add(p.Duration); last.After(end) {
			end = last
		}
		out.Type, out.Period, out.Foreign = p.Type, p.Period, out.Foreign || p.Foreign
		out.Account.Taken += p.Account.Taken
		out.Account.Exported += p.Account.Exported
		out.Account.Filtered += p.Account.Filtered
		for _, l := range p.Account.Lost {
			i := slices.IndexFunc(out.Account.Lost, func(of profile.Loss) bool { return of.Reason == l.Reason })
			if i < 0 {
				out.Account.Lost = append(out.Account.Lost, l)
				continue
			}
			out.Account.Lost[i].Count += l.Count
		}
		for i := range p.Samples {
			p.Samples[i].Times = nil
		}
		out.Samples = append(out.Samples, p.Samples...)
	}
	if !end.IsZero() {
		out.Duration = end.Sub(out.Start)
	}
	return out, new(store.Answer), nil
}

// Stacks gives what Read does, with what the query says of stacks done.
func (m memory) Stacks(ctx context.Context, q query.Query) (*store.Stacks, *store.Answer, error) {
	p, answer, err := m.Read(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	header := *p
	header.Samples = nil
	return &store.Stacks{
		Stacks: flame.NewStacks(flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By)), Profile: &header, Completeness: p.Completeness(),
	}, answer, nil
}

// Series puts samples of which no time is known where their span begins.
func (m memory) Series(ctx context.Context, q query.Query, step time.Duration) (*store.Series, *store.Answer, error) {
	if err := store.CheckStep(step, time.Second); err != nil {
		return nil, nil, err
	}
	return m.series(ctx, q, step)
}

func (m memory) Heatmap(ctx context.Context, q query.Query, step time.Duration) (*store.Series, *store.Answer, error) {
	if err := store.CheckStep(step, store.Tick); err != nil {
		return nil, nil, err
	}
	series, answer, err := m.series(ctx, q, step)
	if err == nil {
		for i := range series.Lines {
			series.Lines[i].Values = nil
		}
	}
	return series, answer, err
}

func (m memory) series(ctx context.Context, q query.Query, step time.Duration) (*store.Series, *store.Answer, error) {
	if q.To.Sub(q.From)/step >= store.MaxPoints {
		return nil, nil, store.ErrTooMany
	}
	var labels []string
	if q.By != "" {
		labels = append(labels, q.By)
	}
	groups, answer, err := m.Groups(ctx, q, labels...)
	if err != nil {
		return nil, nil, err
	}
	series := &store.Series{Type: m.of(q).Name, Step: step, From: time.UnixMilli(q.From.UnixMilli() / step.Milliseconds() * step.Milliseconds()).UTC()}
	series.Steps = int((q.To.Sub(series.From) + step - 1) / step)
	if series.Steps <= 0 {
		return series, answer, nil
	}
	most := min(store.MaxLines, max(1, store.MaxPoints/series.Steps))
	series.Lines = make([]store.Line, min(len(groups), most+1))
	lines := make(map[string]*store.Line, len(groups))
	for i, g := range groups {
		l := &series.Lines[min(i, most)]
		if i < most && q.By != "" {
			l.Label = g.Labels[0]
		}
		lines[strings.Join(g.Labels, "")] = l
		l.Others = i >= most
	}
	for i := range series.Lines {
		series.Lines[i].Samples, series.Lines[i].Values = make([]int64, series.Steps), make([]int64, series.Steps)
	}
	for _, p := range m {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if p = matching(p, q); p == nil {
			continue
		}
		p = flame.Select(p, q.Focus, q.Ignore, nil, "")
		series.Type, series.Unit = p.Type.Name, p.Type.Unit
		for i := range p.Samples {
			s := &p.Samples[i]
			add(lines[query.Label(s.Labels, q.By)], s, p.Start.Sub(series.From), step)
		}
	}
	return series, answer, nil
}

// add adds a sample of a span that begins so long after the line does.
func add(l *store.Line, s *profile.Sample, begin, step time.Duration) {
	last := len(l.Samples) - 1
	at := func(t time.Duration) int { return min(max(int((begin+t)/step), 0), last) }
	if int64(len(s.Times)) != s.Count || s.Count == 0 {
		l.Samples[at(0)] += s.Count
		l.Values[at(0)] += s.Value
		return
	}
	each, rest := profile.Worth(s.Value, s.Count)
	for _, t := range s.Times {
		l.Samples[at(t)]++
		l.Values[at(t)] += each + rest
		rest = 0
	}
}

func (m memory) Groups(ctx context.Context, q query.Query, labels ...string) ([]store.Group, *store.Answer, error) {
	p, answer, err := m.Read(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	groups := make(map[string]*store.Group)
	p = flame.Select(p, q.Focus, q.Ignore, nil, "")
	for i := range p.Samples {
		s := &p.Samples[i]
		values, key := make([]string, len(labels)), ""
		for i, label := range labels {
			values[i] = query.Label(s.Labels, label)
			key += values[i] + "\x00"
		}
		g := groups[key]
		if g == nil {
			g = &store.Group{Labels: values}
			groups[key] = g
		}
		g.Samples += s.Count
		g.Value += s.Value
	}
	list := make([]store.Group, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b store.Group) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), slices.Compare(a.Labels, b.Labels))
	})
	return list, answer, nil
}
