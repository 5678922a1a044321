package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// hostileProfile has names that nobody chose to be kind, functions inlined into them, and stacks cut short on both sides.
func hostileProfile(r *rand.Rand, start time.Time) *profile.Profile {
	names := []string{"", "\x00", "\x1b[2J", "a\"'`;b", "\xff\xfe", "\u202e", strings.Repeat("long", 1<<10), "[truncated: max depth]", "[no comm]", "_ZN3geo4areaERKNS_5ShapeE", "main", "évil"}
	mapping := []*profile.Mapping{nil, {Path: "/bin/a"}, {Path: "/opt/a"}, {Path: "b\xff/"}, {Path: "[kernel.kallsyms]"}}
	location := func(kind profile.FrameKind) *profile.Location {
		l := &profile.Location{Kind: kind, Mapping: mapping[r.IntN(len(mapping))]}
		for range 1 + r.IntN(3) {
			l.Lines = append(l.Lines, profile.Line{Function: &profile.Function{Name: string(kind) + names[r.IntN(len(names))]}, Line: r.IntN(3)})
		}
		if r.IntN(5) == 0 {
			l.Unnamed, l.Lines = "no_symbol", []profile.Line{{Function: &profile.Function{Name: "[a+0x10]"}}}
		}
		return l
	}
	side := func(kind profile.FrameKind) *profile.Stack {
		s := &profile.Stack{Root: kind != profile.FrameKernel && r.IntN(2) == 0}
		for range r.IntN(5) {
			s.Locations = append(s.Locations, location(kind))
		}
		if r.IntN(3) == 0 {
			s.Truncated, s.Root = []string{"max_depth", "unmapped_pc"}[r.IntN(2)], false
		}
		if len(s.Locations) == 0 && s.Truncated == "" || r.IntN(3) == 0 {
			return nil
		}
		return s
	}
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: 10 * time.Second, Period: 10}
	for range 60 {
		name := names[r.IntN(len(names))]
		n := 1 + r.Int64N(9)
		p.Samples = append(p.Samples, profile.Sample{
			Kernel: side(profile.FrameKernel), User: side([]profile.FrameKind{profile.FrameNative, profile.FrameGo, profile.FrameJIT}[r.IntN(3)]),
			Labels: &profile.Labels{PID: 1 + r.IntN(4), Comm: name, Thread: "t", ContainerID: []string{"", "c0"}[r.IntN(2)]}, Count: n, Value: 10 * n,
		})
	}
	p.Account = profile.Account{Lost: []profile.Loss{{Reason: "ring_full", Count: 2}}}
	return p
}

// doubled adds to each sample another one whose stack differs from the user's in one thing at one of its places: both stand beside each other in the file.
func doubled(r *rand.Rand, p *profile.Profile) *profile.Profile {
	for _, s := range slices.Clone(p.Samples) {
		if s.User != nil && len(s.User.Locations) > 0 {
			s.User = nearlySame(r, s.User)
			l := *s.Labels
			l.Comm = "twin of " + l.Comm
			s.Labels = &l
			p.Samples = append(p.Samples, s)
		}
	}
	return p
}

func nearlySame(r *rand.Rand, s *profile.Stack) *profile.Stack {
	other := &profile.Stack{Locations: slices.Clone(s.Locations), Truncated: s.Truncated, Root: s.Root}
	i := r.IntN(len(other.Locations))
	l := *other.Locations[i]
	other.Locations[i] = &l
	switch r.IntN(4) {
	case 0:
		l.Mapping = &profile.Mapping{Path: "/opt/b"}
	case 1:
		l.Unnamed = map[string]string{"": "no_symbol"}[l.Unnamed]
	case 2:
		l.Kind = map[profile.FrameKind]profile.FrameKind{profile.FrameNative: profile.FrameGo}[l.Kind]
		if l.Kind == "" {
			l.Kind = profile.FrameNative
		}
	case 3: // what was inlined was called
		inner := l
		inner.Lines, l.Lines = l.Lines[:1], l.Lines[min(1, len(l.Lines)-1):]
		other.Locations = slices.Insert(other.Locations, i, &inner)
	}
	return other
}

// The stacks of an interval stand beside those with which they have the most callers in common, and what is in common is read as what is not.
func TestCallersInCommon(t *testing.T) {
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-23T20:30:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	c.set(start.Add(10 * time.Second))
	random := rand.New(rand.NewPCG(9, 10))
	s.Export(doubled(random, hostileProfile(random, start)))
	r := NewReader(dir, nil)
	for _, filter := range []string{"", `pid="2"`, `container_id!=""`} { // of some stacks the one before is not wanted
		q := query.Query{From: start, To: start.Add(time.Minute), By: "comm"}
		q.Filter, _ = query.ParseFilter(filter)
		p, _, err := r.Read(t.Context(), q, query.Labels...)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := r.Stacks(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if want := p.Completeness(); !reflect.DeepEqual(got.Completeness, want) {
			t.Errorf("%s: %+v, not %+v", filter, got.Completeness, want)
		}
		if want := flame.NewTree(flame.Select(p, nil, nil, nil, q.By)); !reflect.DeepEqual(got.Tree(0), want) || want.Nodes < 50 {
			t.Errorf("%s: a tree of %d nodes, not %d, or others", filter, got.Tree(0).Nodes, want.Nodes)
		}
	}

	h, _, err := r.look()
	if err != nil || len(h.stacks) != 1 {
		t.Fatal(err, h.stacks)
	}
	rows, err := readAll[StackRow](filepath.Join(dir, h.stacks[0].path()))
	if err != nil || len(rows) < 60 {
		t.Fatal(err, len(rows))
	}
	// A row has as many callers in common with the one before it as with any of those before.
	inCommon := func(a, b []FrameRow) (n int) {
		for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
			n++
		}
		return n
	}
	shared, most, all := 0, 0, 0
	for i, row := range rows {
		of := 0
		for _, other := range rows[:i] {
			of = max(of, inCommon(row.Frames, other.Frames))
		}
		most += of
		all += len(row.Frames)
		if i > 0 {
			shared += inCommon(row.Frames, rows[i-1].Frames)
		}
	}
	if shared != most || shared*10 < all {
		t.Errorf("of %d frames %d are those of the row before, %d those of one of the rows before", all, shared, most)
	}
}

// What is made of a query's stacks without a profile equals what is made of the profile, whatever is asked for: of a host's samples and of hostile ones,
// in intervals and compacted, with files that are gone.
func TestStacksEqualProfiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, start := clockAt(t, "2026-11-23T20:30:00Z")
	s := openStore(t, Options{Dir: dir, now: c.time})
	random := rand.New(rand.NewPCG(7, 8))
	host := smallHost(6)
	last := start
	for i := range 20 {
		last = start.Add(time.Duration(i) * 20 * time.Minute)
		p := host.Interval(last, 10*time.Second)
		if i%2 == 0 {
			p = hostileProfile(random, last)
		}
		c.set(last.Add(10 * time.Second))
		s.Export(p)
		if i == 16 {
			settle(t, s)
		}
	}
	r := NewReader(dir, nil)
	check := func(round int) {
		q := query.Query{From: start.Add(time.Duration(random.IntN(400)) * time.Minute), To: last.Add(time.Second)}
		filter := []string{"", `comm=~"service-.*"`, `pid="2"`, `container_id!="",comm!="main"`}[random.IntN(4)]
		q.Filter, _ = query.ParseFilter(filter)
		q.By = []string{"", "", "comm", "pid", "container_id"}[random.IntN(5)]
		pattern := func() *regexp.Regexp {
			if random.IntN(2) == 0 {
				return nil
			}
			return regexp.MustCompile([]string{"main", "^$", "handle<1", "truncated", `\x00|evil`, "a"}[random.IntN(6)])
		}
		q.Focus, q.Ignore, q.Hide = pattern(), pattern(), pattern()
		p, answer, err := r.Read(t.Context(), q, query.Labels...)
		if err != nil {
			t.Fatal(err)
		}
		got, gotAnswer, err := r.Stacks(t.Context(), q)
		if err != nil || !reflect.DeepEqual(fmt.Sprint(gotAnswer.Warnings), fmt.Sprint(answer.Warnings)) {
			t.Fatalf("%v, %v, not %v", err, gotAnswer.Warnings, answer.Warnings)
		}
		if want := p.Completeness(); !reflect.DeepEqual(got.Completeness, want) {
			t.Fatalf("round %d: %s: %+v, not %+v", round, q.String(), got.Completeness, want)
		}
		selected := flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By)
		for _, limit := range []int{0, 20} {
			if got, want := got.Tree(limit), flame.NewStacks(selected).Tree(limit); !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d: %s: a tree of %d nodes, not %d, or others:\n%+v\n%+v", round, q.String(), got.Nodes, want.Nodes, got.Root, want.Root)
			}
		}
		if got, want := got.Top(), flame.Top(selected); !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d: %s: %d functions, not %d, or others", round, q.String(), len(got.Rows), len(want.Rows))
		}
		header := *p
		header.Samples = nil
		if !reflect.DeepEqual(*got.Profile, header) {
			t.Fatalf("round %d: %+v, not %+v", round, *got.Profile, header)
		}
		for _, name := range []string{"kernelmain", pprof.Truncated("max_depth")} {
			if got, want := got.Callers(name), flame.Callers(selected, name); !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d: callers of %s: %v, not %v", round, name, got, want)
			}
		}
	}
	for round := range 24 {
		check(round)
	}
	h, _, err := r.look()
	if err != nil || len(h.stacks) < 2 {
		t.Fatal(err, h.stacks)
	}
	if err := removeFile(dir + "/" + h.stacks[0].path()); err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		check(100 + round)
	}
}
