package engines

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// program is what a made-up process runs: stacks share their outer frames.
type program struct {
	labels *profile.Labels
	stacks []*profile.Stack
	kernel *profile.Stack
}

func location(function string) *profile.Location {
	return &profile.Location{
		Kind:    profile.FrameNative,
		Mapping: &profile.Mapping{Path: "/usr/bin/" + function, BuildID: "00ff"},
		Lines:   []profile.Line{{Function: &profile.Function{Name: function, File: "/src/" + function + ".c", StartLine: 3}, Line: 7}},
	}
}

func newProgram(pid int, comm string, functions ...string) *program {
	p := &program{labels: &profile.Labels{PID: pid, Comm: comm, Thread: comm, Exe: "/usr/bin/" + comm, Cgroup: "/system.slice/" + comm}}
	root := location("main")
	for i, f := range functions {
		p.stacks = append(p.stacks, &profile.Stack{Locations: []*profile.Location{location(f), location("work"), root}, Root: true})
		if i == 0 { // a recursion, and an inlined call
			inlined := location(f)
			inlined.Lines = append(inlined.Lines, profile.Line{Function: &profile.Function{Name: "outer"}, Line: 9})
			p.stacks = append(p.stacks, &profile.Stack{Locations: []*profile.Location{inlined, inlined, root}, Truncated: "unmapped_pc"})
		}
	}
	p.kernel = &profile.Stack{Locations: []*profile.Location{{
		Kind: profile.FrameKernel, Lines: []profile.Line{{Function: &profile.Function{Name: "read_" + comm}}},
	}}}
	return p
}

const periodNanos = 10_000_000

// interval makes a profile of 10 s. All that is random comes from r.
func interval(r *rand.Rand, start time.Time, programs []*program) *profile.Profile {
	p := &profile.Profile{Type: profile.TypeCPU, Start: start, Duration: 10 * time.Second, Period: periodNanos}
	for _, program := range programs {
		for _, user := range program.stacks {
			kernel := program.kernel
			if r.IntN(3) > 0 {
				kernel = nil
			}
			n := r.IntN(50)
			if n == 0 {
				continue
			}
			s := profile.Sample{Kernel: kernel, User: user, Labels: program.labels, Count: int64(n), Value: int64(n) * periodNanos}
			for range n {
				s.Times = append(s.Times, time.Duration(r.Int64N(int64(p.Duration))))
			}
			p.Samples = append(p.Samples, s)
			p.Account.Exported += uint64(n)
		}
	}
	p.Account.Lost = []profile.Loss{{Reason: "ring_full", Count: uint64(1 + r.IntN(5))}}
	p.Account.Taken = p.Account.Exported + p.Account.Lost[0].Count
	return p
}

// place is what samples are counted by.
type place struct {
	host, comm, function string
	hour                 time.Time
	minute               time.Time
}

// expected counts what was sent.
type expected struct {
	self, total map[place]int64
	minutes     map[place]int64 // by host, comm and minute
	lost        map[place]int64 // by host and hour
}

func newExpected() *expected {
	return &expected{self: make(map[place]int64), total: make(map[place]int64), minutes: make(map[place]int64), lost: make(map[place]int64)}
}

func (e *expected) add(host string, p *profile.Profile) {
	for i := range p.Samples {
		s := &p.Samples[i]
		at := place{host: host, comm: s.Labels.Comm, hour: p.Start.UTC().Truncate(time.Hour)}
		var functions []string
		s.Walk(func(l *profile.Location) {
			for _, line := range l.Lines {
				functions = append(functions, line.Function.Name)
			}
		}, func(string) { functions = append(functions, "[truncated: unmapped pc]") })
		at.function = functions[0]
		e.self[at] += s.Count
		e.minutes[place{host: host, comm: s.Labels.Comm, minute: p.Start.UTC().Truncate(time.Minute)}] += s.Count
		slices.Sort(functions)
		for _, at.function = range slices.Compact(functions) {
			e.total[at] += s.Count
		}
	}
	e.lost[place{host: host, hour: p.Start.UTC().Truncate(time.Hour)}] += int64(p.Account.Lost[0].Count)
}

// day is midnight some days ago.
func day(ago int) time.Time { return time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -ago) }

// fleet is the history of two hosts, as it is where their files come together: two days in the past, and the last minutes.
func fleet(t *testing.T) (dir string, want *expected) {
	t.Helper()
	dir, want = t.TempDir(), newExpected()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, host := range []string{"web1", "1234"} {
		programs := []*program{
			newProgram(100, "redis-server", "lookup", "hash", "reply"),
			newProgram(200, "nginx", "parse", "hash"),
			newProgram(201, "nginx", "parse", "log"),
		}
		s, err := store.Open(store.Options{Dir: dir, Host: host, MinFree: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, start := range []time.Time{
			day(3).Add(3 * time.Hour), day(3).Add(4*time.Hour - 35*time.Second), day(3).Add(23 * time.Hour),
			day(2).Add(3 * time.Hour), day(2).Add(17*time.Hour + 59*time.Minute + 45*time.Second),
			time.Now().Add(-time.Minute),
		} {
			for i := range 6 {
				// Intervals begin at any millisecond, and cross minutes and hours.
				p := interval(r, start.Add(time.Duration(i)*10*time.Second+time.Duration(r.IntN(900))*time.Millisecond).Truncate(time.Millisecond), programs)
				s.Export(p)
				want.add(host, p)
			}
		}
		eventually(t, "the past is compacted in "+dir, func() bool {
			for _, ago := range []int{3, 2} {
				for _, table := range []string{"samples/resolution=1h", "stacks"} {
					files, _ := filepath.Glob(filepath.Join(dir, "v1", table, "host="+host, "date="+day(ago).Format(time.DateOnly), "*"))
					// A day whose stacks were all there within an hour has that hour's file of them, and no more to join.
					if len(files) != 1 || strings.Contains(filepath.Base(files[0]), "T") && (table != "stacks" || strings.Contains(filepath.Base(files[0]), "Z")) {
						return false
					}
				}
			}
			intervals, _ := filepath.Glob(filepath.Join(dir, "v1/samples/resolution=10s/host="+host, "*/*"))
			return len(intervals) == 6
		})
		if stats := s.Stats(); stats.Samples == 0 || stats.Dropped["failed"] > 0 {
			t.Fatalf("%+v", stats)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir, want
}

// sum adds up counts by what key leaves of their places; key says no to those that are not meant.
func sum(counts map[place]int64, key func(place) (place, bool)) map[place]int64 {
	sums := make(map[place]int64)
	for p, n := range counts {
		if k, ok := key(p); ok {
			sums[k] += n
		}
	}
	return sums
}

// compacted says whether a place is of the days that have been compacted.
func compacted(p place) bool { return p.hour.Before(day(1)) }
