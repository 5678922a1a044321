package store

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// keptWeekVariable names a directory in which the week of BenchmarkQuery stays for the next run: it takes minutes to write. writtenWeekVariable is for the process
// that the benchmark starts to write it.
const keptWeekVariable, writtenWeekVariable = "PILOTLIGHT_QUERY_WEEK", "PILOTLIGHT_WRITE_WEEK"

var queryWeekEnd = time.Date(2026, 11, 24, 17, 45, 0, 0, time.UTC)

// writeWeek writes a week of a busy host of 64 CPUs. Of the days before the last quarter of an hour each hour is one long interval with the stacks that the
// host shows in it, which is what files of resolution 1h hold of it.
func writeWeek(b *testing.B, dir string) {
	c := &clock{}
	start := queryWeekEnd.AddDate(0, 0, -7).Truncate(time.Hour)
	c.set(start)
	s := openStore(b, Options{Dir: dir, now: c.time, MaxBytes: 1 << 40, MaxAge: 1000 * time.Hour})
	// A sixteenth of the samples shows nearly all of an hour's stacks.
	host := busyhost.New(busyhost.Options{CPUs: 4, SharedCallersPercent: 90})
	when := start
	for ; when.Before(queryWeekEnd.Truncate(time.Hour)); when = when.Add(time.Hour) {
		c.set(when.Add(time.Hour))
		s.Export(host.Interval(when, time.Hour))
		host.NextHour()
	}
	settle(b, s)
	busy := busyhost.New(busyhost.Options{SharedCallersPercent: 90})
	for when = queryWeekEnd.Add(-20 * time.Minute); when.Before(queryWeekEnd); when = when.Add(10 * time.Second) {
		c.set(when.Add(10 * time.Second))
		s.Export(busy.Interval(when, 10*time.Second))
	}
	settle(b, s)
}

// BenchmarkQuery asks that week for trees, as the page does: of their nodes it gets the 10,000 heaviest. Another process writes it, so that the memory of this
// one, and how much garbage it lets gather, are those of a process that asks.
func BenchmarkQuery(b *testing.B) {
	if dir := os.Getenv(writtenWeekVariable); dir != "" {
		writeWeek(b, dir)
		return
	}
	dir, end := cmp.Or(os.Getenv(keptWeekVariable), b.TempDir()), queryWeekEnd
	week := filepath.Join(dir, fmt.Sprintf("week-%d-%d", Version, end.Unix()))
	if _, err := os.Stat(week); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		unfinished, err := os.MkdirTemp(dir, "unfinished")
		if err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(unfinished) // nothing, where it was finished
		writer := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkQuery$", "-test.benchtime=1x")
		writer.Env = append(os.Environ(), writtenWeekVariable+"="+unfinished)
		if out, err := writer.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		if err := os.Rename(unfinished, week); err != nil {
			b.Fatal(err)
		}
	}
	r := NewReader(week, nil)
	for _, span := range []struct {
		name string
		time.Duration
	}{{"15m", 15 * time.Minute}, {"24h", 24 * time.Hour}, {"7d", 7 * 24 * time.Hour}} {
		b.Run(span.name, func(b *testing.B) {
			peak := memoryPeak(b)
			before := cpuTime(b)
			nodes, stacks := 0, 0
			var reading time.Duration
			for b.Loop() {
				begun := time.Now()
				s, _, err := r.Stacks(b.Context(), query.Query{From: end.Add(-span.Duration), To: end})
				if err != nil {
					b.Fatal(err)
				}
				reading += time.Since(begun)
				nodes, stacks = s.Tree(10_000).Nodes, len(s.Samples)
			}
			if stacks == 0 {
				b.Fatal("the week is empty")
			}
			b.ReportMetric(float64(cpuTime(b)-before)/1e6/float64(b.N), "CPU-ms/op")
			b.ReportMetric(float64(reading.Milliseconds())/float64(b.N), "read-ms/op")
			b.ReportMetric(peak(), "peak-MB")
			b.ReportMetric(float64(stacks), "stacks")
			b.ReportMetric(float64(nodes), "nodes")
		})
	}
}
