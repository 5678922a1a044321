package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// sumOf is all that a profile says, in words, but for when: by stack and labels how many samples and what they are worth.
type sumOf map[string][2]int64

func (s sumOf) add(p *profile.Profile, wanted func(*profile.Labels) bool) {
	for i := range p.Samples {
		sample := &p.Samples[i]
		if !wanted(sample.Labels) {
			continue
		}
		key := fmt.Sprintf("%v %d | %s | whole %v, %+q", p.Type, p.Period, stackText(sample), sample.Whole(), labelsText(sample.Labels))
		sum := s[key]
		s[key] = [2]int64{sum[0] + sample.Count, sum[1] + sample.Value}
	}
	for _, loss := range p.Account.Lost {
		key := "lost " + loss.Reason
		s[key] = [2]int64{s[key][0] + int64(loss.Count)}
	}
}

func stackText(s *profile.Sample) string {
	var frames []string
	s.Walk(func(l *profile.Location) {
		for _, line := range l.Lines {
			mapping := profile.Mapping{}
			if l.Mapping != nil {
				mapping = profile.Mapping{Path: l.Mapping.Path, BuildID: l.Mapping.BuildID}
			}
			frames = append(frames, fmt.Sprintf("%s %s %+q:%d %d %s %v", l.Kind, line.Function.Name, line.Function.File, line.Line,
				line.Function.StartLine, l.Unnamed, mapping))
		}
		frames = append(frames, "-")
	}, func(reason string) { frames = append(frames, "truncated "+reason) })
	return strings.Join(frames, ";")
}

func labelsText(l *profile.Labels) []string {
	var values []string
	for _, name := range query.Labels {
		values = append(values, query.Label(l, name))
	}
	return values
}

func everything(*profile.Labels) bool { return true }

func checkSum(t testing.TB, what string, got, want sumOf) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	shown := 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] && shown < 3 {
			shown++
			t.Logf("%.400s: %v, not %v", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok && shown < 6 {
			shown++
			t.Logf("%.400s: %v, which nobody sent", key, got[key])
		}
	}
	t.Fatalf("%s: %d rows, not %d, or other sums", what, len(got), len(want))
}

// mustRead is the answer to a query that is complete.
func mustRead(t testing.TB, r *Reader, q query.Query, labels ...string) *profile.Profile {
	t.Helper()
	p, answer, err := r.Read(context.Background(), q, labels...)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Warnings) > 0 {
		t.Fatalf("left out: %v", answer.Warnings)
	}
	return p
}

// A range of the history is the sum of the profiles that were sent in it: whatever the range between intervals while there are
// those, whole minutes after that; with and without a filter, at every stage of compaction.
func TestRangesAreSums(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-23T21:58:07.345Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	r := NewReader(dir, nil)
	host := smallHost(2)
	var sent []*profile.Profile
	send := func(from, to int) {
		for i := from; i < to; i++ {
			p := host.Interval(start.Add(time.Duration(i)*11*time.Minute), 10*time.Second)
			sent = append(sent, p)
			c.export(s, p)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	filters := []string{"", `comm="service-1"`, `comm=~"service-.*",pid!="1000"`, `pid=~"1.*3"`, `container_id=""`, `thread!~"worker-[123]"`}
	check := func(stage string, step time.Duration) {
		t.Helper()
		for i := range 15 {
			span := int64(len(sent)) * int64(12*time.Minute)
			from := start.Add(time.Duration(random.Int64N(span))).Truncate(step)
			q := query.Query{From: from, To: from.Add(step + time.Duration(random.Int64N(span))).Truncate(step)}
			if i == 0 {
				q = query.Query{}
			}
			text := filters[i%len(filters)]
			q.Filter, _ = query.ParseFilter(text)
			want := make(sumOf)
			var account profile.Account
			for _, p := range sent {
				begin := p.Start.Truncate(time.Millisecond)
				if (q.From.IsZero() || !begin.Before(q.From)) && (q.To.IsZero() || begin.Before(q.To)) {
					want.add(p, q.Filter.Matches)
					for i := range p.Samples {
						if q.Filter.Matches(p.Samples[i].Labels) {
							account.Exported += uint64(p.Samples[i].Count)
						}
					}
					account.Taken += p.Account.Lost[0].Count
				}
			}
			account.Taken += account.Exported
			got := make(sumOf)
			p := mustRead(t, r, q, query.Labels...)
			got.add(p, everything)
			checkSum(t, fmt.Sprintf("%s: %s", stage, q.String()), got, want)
			if p.Account.Taken != account.Taken || p.Account.Exported != account.Exported {
				t.Fatalf("%s: %s: %+v, not %+v", stage, q.String(), p.Account, account)
			}
		}
	}
	send(0, 5)
	check("intervals", time.Nanosecond)
	send(5, 40)
	settle(t, s)
	check("the first hours are compacted", time.Minute)
	c.set(at(t, "2026-11-24T01:30:00Z"))
	settle(t, s)
	check("a day is compacted", time.Minute)
	c.set(at(t, "2026-11-26T00:00:00Z"))
	settle(t, s)
	check("all is compacted", time.Minute)
}

// Stacks come back as they were, whatever they are made of.
func TestStacksComeBack(t *testing.T) {
	libc := &profile.Mapping{Path: "/lib/libc.so.6", BuildID: "0123abcd"}
	kernel := &profile.Mapping{Path: "[kernel.kallsyms]"}
	location := func(kind profile.FrameKind, m *profile.Mapping, unnamed string, names ...string) *profile.Location {
		l := &profile.Location{Kind: kind, Mapping: m, Unnamed: unnamed}
		for i, name := range names {
			l.Lines = append(l.Lines, profile.Line{Function: &profile.Function{Name: name, File: "/src/" + name[:1], StartLine: i}, Line: 10 * i})
		}
		return l
	}
	k := location(profile.FrameKernel, kernel, "", "vfs_read")
	read := location(profile.FrameNative, libc, "", "read")
	inlined := location(profile.FrameGo, nil, "", "a.inner", "a.middle", "a.outer")
	outer := location(profile.FrameGo, nil, "", "a.outer")
	mangled := location(profile.FrameNative, libc, "", "_ZN3geo4areaERKNS_5ShapeE")
	unnamed := location(profile.FrameNative, libc, "no_symbol", "[libc.so.6+0x29d90]")
	jit := location(profile.FrameJIT, nil, "", "LazyCompile:~x \"y\"\n\t"+strings.Repeat("z", 1<<20))
	stack := func(truncated string, root bool, locations ...*profile.Location) *profile.Stack {
		return &profile.Stack{Locations: locations, Truncated: truncated, Root: root}
	}
	labels := &profile.Labels{PID: 1, TID: 2, Comm: "c\"'`,\x1b[31m", Thread: "t\x00t", Exe: "/bin/\u202ex", Cgroup: "/a", ContainerID: "f00"}
	p := &profile.Profile{Type: profile.TypeCycles, Start: at(t, "2026-11-24T17:05:10Z"), Duration: 10 * time.Second, Period: 1e6}
	for _, s := range []profile.Sample{
		{Kernel: stack("", false, k, k), User: stack("", true, read, mangled, outer)},
		{Kernel: stack("", false, k, k), User: stack("", false, read, mangled, outer)},
		{Kernel: stack("", false, k)},
		{Kernel: stack("stack_evicted", false), User: stack("", true, read)},
		{Kernel: stack("max_depth", false, k), User: stack("unmapped_pc", false, read)},
		{Kernel: stack("", false, k), User: stack("unmapped_pc", false)},
		{User: stack("unmapped_pc", false)},
		{User: stack("", true, inlined, inlined, outer, unnamed, jit)},
		{User: stack("", true, outer)},
		{},
	} {
		s.Count, s.Value, s.Labels = 1, 1e6, labels
		s.Times = []time.Duration{time.Second}
		p.Samples = append(p.Samples, s)
	}
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir, now: func() time.Time { return p.Start }})
	s.Export(p)
	got, want := make(sumOf), make(sumOf)
	answer := mustRead(t, NewReader(dir, nil), query.Query{Type: "cycles"}, query.Labels...)
	got.add(answer, everything)
	want.add(p, everything)
	checkSum(t, "stacks", got, want)
	if !answer.Start.Equal(p.Start) || answer.Duration != p.Duration {
		t.Errorf("%v and %v, not %v and %v", answer.Start, answer.Duration, p.Start, p.Duration)
	}
	seen := make(map[*profile.Location]bool)
	texts := make(map[string]bool)
	for i := range answer.Samples {
		answer.Samples[i].Walk(func(l *profile.Location) {
			if !seen[l] {
				seen[l] = true
				text := fmt.Sprint(l.Kind, l.Unnamed, l.Mapping, len(l.Lines), l.Lines[0].Function)
				if texts[text] {
					t.Errorf("%.100s is there twice", text)
				}
				texts[text] = true
				if name := l.Lines[0].Function.Name; name == "_ZN3geo4areaERKNS_5ShapeE" && demangle.Simple(name) != "geo::area" {
					t.Errorf("%s reads %s", name, demangle.Simple(name))
				}
			}
		}, nil)
	}
	if cpu := mustRead(t, NewReader(dir, nil), query.Query{}); len(cpu.Samples) > 0 || cpu.Account.Taken > 0 {
		t.Errorf("of another type: %+v", cpu)
	}
}

// A range that begins or ends within an interval has the samples that were taken in it; ranges that follow one another have each sample once, and all
// that it was worth; and every kind of answer says the same. Lost samples were where their interval begins.
func TestRangesCutIntervals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T13:59:31.345Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(12)
	var sent []*profile.Profile
	for i := range 7 { // over the end of an hour
		length := 10 * time.Second
		if i == 6 {
			length = 3 * time.Minute // a starved agent's: it counts where it begins
		}
		p := host.Interval(start.Add(time.Duration(i)*10*time.Second), length)
		for i := range p.Samples {
			p.Samples[i].Value += 1 + int64(i%3) // does not divide
		}
		sent = append(sent, p)
		c.export(s, p)
	}
	r := NewReader(dir, nil)
	taken := func(from, to time.Time) (comms map[string]int64, lost uint64) {
		comms = make(map[string]int64)
		in := func(t time.Time) bool { return !t.Before(from) && t.Before(to) }
		for _, p := range sent {
			for i := range p.Samples {
				for _, at := range p.Samples[i].Times {
					if p.Duration > longestInterval {
						at = 0
					}
					if in(p.Start.Add(at.Truncate(Tick))) {
						comms[p.Samples[i].Labels.Comm]++
					}
				}
			}
			if in(p.Start) {
				lost += p.Account.Lost[0].Count
			}
		}
		return comms, lost
	}
	random := rand.New(rand.NewPCG(5, 6))
	got, want := make(sumOf), make(sumOf)
	got.add(mustRead(t, r, query.Query{}, query.Labels...), everything)
	end := start.Add(4 * time.Minute)
	for from := start; from.Before(end); {
		to := from.Add(time.Duration(1+random.IntN(4000)) * time.Millisecond)
		if random.IntN(4) == 0 {
			to = to.Add(15 * time.Second)
		}
		if to.After(end) {
			to = end
		}
		q := query.Query{From: from, To: to, By: "comm"}
		comms, lost := taken(from, to)
		p := mustRead(t, r, q, query.Labels...)
		want.add(p, everything)
		read, exported := make(map[string]int64), int64(0)
		for i := range p.Samples {
			read[p.Samples[i].Labels.Comm] += p.Samples[i].Count
			exported += p.Samples[i].Count
		}
		if !maps.Equal(read, comms) || p.Account.Exported != uint64(exported) || p.Account.Taken != uint64(exported)+lost {
			t.Fatalf("%s to %s: %v, %+v; not %v, %d lost", from, to, read, p.Account, comms, lost)
		}
		if begins := start.Add(60 * time.Second); to.Before(begins) && exported > 0 && (!p.Start.Equal(from) || p.Duration != to.Sub(from)) {
			t.Errorf("%s to %s: a profile of %s from %s", from, to, p.Duration, p.Start)
		}
		values, _, err := r.Labels(t.Context(), q, "comm")
		grouped := make(map[string]int64)
		for _, v := range values {
			grouped[v.Label] = v.Samples
		}
		series, _, err2 := r.Series(t.Context(), q, time.Second)
		long, _, err3 := r.Series(t.Context(), q, time.Minute)
		heatmap, _, err4 := r.Heatmap(t.Context(), q, Tick)
		if err := errors.Join(err, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(grouped, comms) {
			t.Errorf("%s to %s: groups %v, not %v", from, to, grouped, comms)
		}
		for _, s := range []*Series{series, long, heatmap} {
			lines := make(map[string]int64)
			for _, l := range s.Lines {
				for _, n := range l.Samples {
					lines[l.Label] += n
				}
			}
			if !maps.Equal(lines, comms) {
				t.Errorf("%s to %s, steps of %s: %v, not %v", from, to, s.Step, lines, comms)
			}
			if s == heatmap {
				continue
			}
			for step := range s.Steps {
				begin := s.From.Add(time.Duration(step) * s.Step)
				want, _ := taken(slices.MaxFunc([]time.Time{from, begin}, time.Time.Compare), minTime(to, begin.Add(s.Step)))
				for _, l := range s.Lines {
					if l.Samples[step] != want[l.Label] {
						t.Errorf("%s to %s, the step of %s from %s: %d of %s, not %d", from, to, s.Step, begin, l.Samples[step], l.Label, want[l.Label])
					}
				}
			}
		}
		stacks, _, err := r.Stacks(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if n := int64(stacks.Profile.Account.Exported); n != exported {
			t.Errorf("%s to %s: stacks of %d samples, not %d", from, to, n, exported)
		}
		from = to
	}
	checkSum(t, "ranges that follow one another", want, got)
}

// The lines of series and heatmaps, and the counts of labels, add up to the profile of the same query.
func TestSeriesAddUp(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T14:00:00.5Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	host := smallHost(3)
	var last *profile.Profile
	for i := range 40 {
		last = host.Interval(start.Add(time.Duration(i)*5*time.Minute), 10*time.Second)
		c.set(last.Start.Add(last.Duration))
		s.Export(last)
	}
	settle(t, s)
	r := NewReader(dir, nil)
	for _, text := range []string{"", "by=comm", "by=pid filter=comm=~`service-[12]`", "by=comm focus=handle<1"} {
		q, err := query.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		p := mustRead(t, r, q, query.Labels...)
		want := make(map[string]int64)
		p = flame.Select(p, q.Focus, q.Ignore, nil, "")
		for i := range p.Samples {
			label := ""
			if q.By != "" {
				label = query.Label(p.Samples[i].Labels, q.By)
			}
			want[label] += p.Samples[i].Count
		}
		if len(want) == 0 || q.Focus != nil && len(p.Samples) == 0 {
			t.Fatalf("%s: nothing to compare", text)
		}
		for _, step := range []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute, time.Hour} {
			series, answer, err := r.Series(t.Context(), q, step)
			if err != nil || len(answer.Warnings) > 0 {
				t.Fatal(err, answer)
			}
			got := make(map[string]int64)
			for _, line := range series.Lines {
				if len(line.Samples) != series.Steps {
					t.Fatalf("%d samples of %d steps", len(line.Samples), series.Steps)
				}
				for _, n := range line.Samples {
					got[line.Label] += n
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s, step %s: %v, not %v", text, step, got, want)
			}
		}
		if q.By == "" {
			continue
		}
		values, _, err := r.Labels(t.Context(), q, q.By)
		got := make(map[string]int64)
		for _, v := range values {
			got[v.Label] += v.Samples
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: labels %v, %v, not %v", text, got, err, want)
		}
	}

	// The last interval has the times of its samples: each stands in its own 10 ms.
	want := make(map[int64]int64)
	for i := range last.Samples {
		for _, at := range last.Samples[i].Times {
			want[last.Start.Add(at.Truncate(Tick)).UnixMilli()/10]++
		}
	}
	heatmap, _, err := r.Heatmap(t.Context(), query.Query{From: last.Start.Truncate(time.Millisecond)}, Tick)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[int64]int64)
	for i, n := range heatmap.Lines[0].Samples {
		if n > 0 {
			got[heatmap.From.UnixMilli()/10+int64(i)] += n
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("heatmap: %d cells, not the %d that samples were taken in", len(got), len(want))
	}
	if _, _, err := r.Heatmap(t.Context(), query.Query{From: start, To: start.Add(24 * time.Hour)}, Tick); !errors.Is(err, ErrTooMany) {
		t.Errorf("a day in steps of 10 ms: %v", err)
	}
	if _, _, err := r.Series(t.Context(), query.Query{}, time.Second+1); !errors.Is(err, ErrStep) {
		t.Errorf("a step of a second and a nanosecond: %v", err)
	}
}

// Of more processes than an answer tells apart, each a sample, the rest are one more, and no sample is missing.
func TestGroupsAreBounded(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-24T17:05:10Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	const half, more = maxGroups/2 + 50, 100 // in each of two files, so that workers find too many or their sum is
	for i := range 2 {
		p := &profile.Profile{Type: profile.TypeCPU, Start: start.Add(time.Duration(i) * 10 * time.Second), Duration: 10 * time.Second, Period: 1}
		for n := range half {
			p.Samples = append(p.Samples, profile.Sample{Labels: &profile.Labels{PID: 1 + i*half + n, Comm: "forked"}, Count: 1, Value: 1})
		}
		s.Export(p)
	}
	r, q := NewReader(dir, nil), query.Query{By: "pid"}
	said := func(what string, a *Answer) {
		if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0].Error(), fmt.Sprintf("%d samples are added up as [others]", more)) {
			t.Errorf("%s: %v", what, a.Warnings)
		}
	}
	groups, answer, err := r.Groups(t.Context(), q, "pid", "comm")
	if err != nil || len(groups) != maxGroups+1 || groups[0].Samples != more || !slices.Equal(groups[0].Labels, []string{"[others]", "[others]"}) {
		t.Fatalf("%d groups, the first %+v: %v", len(groups), groups[:min(1, len(groups))], err)
	}
	said("groups", answer)
	series, answer, err := r.Series(t.Context(), q, 10*time.Second)
	if err != nil || len(series.Lines) != MaxLines+1 {
		t.Fatal(err, len(series.Lines))
	}
	if n := series.Lines[MaxLines].Samples; n[0]+n[1] != 2*half-MaxLines {
		t.Errorf("%v samples of others, not %d", n, 2*half-MaxLines)
	}
	said("series", answer)
	p, answer, err := r.Read(t.Context(), q, "pid", "comm")
	if err != nil || len(p.Samples) != maxGroups+1 || p.Account.Exported != 2*half {
		t.Fatalf("%v: %d samples, %+v", err, len(p.Samples), p.Account)
	}
	said("profile", answer)
}

// An answer of more stacks than are held in memory keeps all samples, and the frames of those with most.
func TestRareStacksKeepTheirSamples(t *testing.T) {
	t.Parallel()
	start := at(t, "2026-11-24T17:05:10Z")
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: 10 * time.Second, Period: 1}
	labels := &profile.Labels{PID: 1}
	const more = 500
	for i := range maxStacks + more {
		location := &profile.Location{Kind: profile.FrameNative, Lines: []profile.Line{{Function: &profile.Function{Name: fmt.Sprint("f", i)}}}}
		s := profile.Sample{User: &profile.Stack{Locations: []*profile.Location{location}}, Labels: labels, Count: 2, Value: 2}
		if i < more {
			s.Count, s.Value = 1, 1
		}
		p.Samples = append(p.Samples, s)
		p.Account.Exported += uint64(s.Count)
	}
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir, now: func() time.Time { return start }})
	s.Export(p)
	got, answer, err := NewReader(dir, nil).Read(t.Context(), query.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Account.Exported != p.Account.Exported {
		t.Errorf("%d samples, not %d", got.Account.Exported, p.Account.Exported)
	}
	rare := int64(0)
	for i := range got.Samples {
		if got.Samples[i].User.Truncated == reasonRare {
			rare += got.Samples[i].Count
		}
	}
	if rare != more || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0].Error(), "ask for a shorter time") {
		t.Errorf("%d samples without frames, not %d: %v", rare, more, answer.Warnings)
	}

	// Room for fewer frames than there are stacks.
	scan := NewReader(dir, nil).newScan(t.Context(), query.Query{})
	defer scan.cancel(nil)
	scan.stacks = true
	sums, err := scan.sums([labelCount]bool{})
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := scan.pairs(sums, maxStacks-100)
	if err != nil {
		t.Fatal(err)
	}
	rare = 0
	for _, sample := range scan.profile(sums, pairs).Samples {
		if sample.User.Truncated == reasonRare {
			rare += sample.Count
		}
	}
	if rare != more+2*100 || len(scan.answer.Warnings) != 2 {
		t.Errorf("%d samples without frames, not %d: %v", rare, more+2*100, scan.answer.Warnings)
	}

	// The same of Stacks, which have room for more: of so many stacks, or frames.
	for _, bound := range [][2]int{{maxStacks, maxFrames}, {maxCompactStacks, maxStacks}} {
		scan := NewReader(dir, nil).newScan(t.Context(), query.Query{})
		scan.stacks = true
		sums, err := scan.sums([labelCount]bool{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := scan.compact(sums, -1, bound[0], int64(bound[1]))
		scan.cancel(nil)
		if err != nil {
			t.Fatal(err)
		}
		top := c.stacks.Top()
		named, rare := int64(0), int64(0)
		for _, row := range top.Rows {
			if row.Name == "[truncated: history rare]" {
				rare = row.Total.Samples
			} else {
				named++
			}
		}
		if named != maxStacks || rare < more || top.Total.Samples != int64(p.Account.Exported) || c.complete.Stacks != p.Account.Exported ||
			!slices.Contains(c.complete.Reasons, profile.Loss{Reason: reasonRare, Count: uint64(rare)}) || len(scan.answer.Warnings) != 1 {
			t.Errorf("bound %d: %d functions, %d rare samples of %d, %+v, %v", bound, named, rare, top.Total.Samples, c.complete, scan.answer.Warnings)
		}
	}
	if s, answer, err := NewReader(dir, nil).Stacks(t.Context(), query.Query{}); err != nil || len(answer.Warnings) > 0 || s.Tree(1).Nodes != maxStacks+more {
		t.Errorf("%v, %v", err, answer)
	}
}
