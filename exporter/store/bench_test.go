package store

import (
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/store/busyhost"
)

// cpuTime is what this process used of the CPU until now.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// memoryPeak begins to watch the resident memory of this process; what it gives says how much more there was at most since then, in MB.
func memoryPeak(tb testing.TB) func() float64 {
	tb.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		tb.Fatal(err)
	}
	field := func(name string) float64 {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			tb.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), name+":")
		kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			tb.Fatal(err)
		}
		return kB / 1024
	}
	before := field("VmRSS")
	return func() float64 { return field("VmHWM") - before }
}

// BenchmarkBusyHost writes hours of a busy host of 64 CPUs and compacts them: the CPU time of all that, and the bytes that are left. A day is its first hour,
// whose stacks are all new, and 23 like the later ones.
func BenchmarkBusyHost(b *testing.B) {
	dir := b.TempDir()
	c := &clock{}
	start := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	c.set(start)
	host := busyhost.New(busyhost.Options{})
	peak := memoryPeak(b)
	s := openStore(b, Options{Dir: dir, now: c.time})
	var ingest, compaction time.Duration
	var first, last [3]int64
	when, hours := start, 0
	for b.Loop() {
		for range 360 {
			p := host.Interval(when, 10*time.Second)
			when = when.Add(10 * time.Second)
			c.set(when)
			before := cpuTime(b)
			s.Export(p)
			written := cpuTime(b)
			settle(b, s)
			ingest, compaction = ingest+written-before, compaction+cpuTime(b)-written
		}
		b.ReportMetric(peak(), "ingest-peak-MB")
		peak = memoryPeak(b)
		intervals := sizes(s)[0]
		before := cpuTime(b)
		c.set(when.Add(2 * time.Hour))
		settle(b, s)
		compaction += cpuTime(b) - before
		b.ReportMetric(peak(), "compaction-peak-MB")
		b.ReportMetric(float64(intervals)/1e6, "intervals-MB/h")
		c.set(when)
		host.NextHour()
		if hours++; hours == 1 {
			first = sizes(s)
		}
		last = sizes(s)
	}
	if testing.Verbose() {
		for _, r := range []string{resolutionHour, ""} {
			b.Log("resolution", r)
			logColumns(b, dir, func(f *file) bool { return f.resolution == r })
		}
	}
	sum := 0.0
	for i, name := range []string{1: "hours", 2: "stacks"} {
		if i == 0 {
			continue
		}
		later := first[i]
		if hours > 1 {
			later = (last[i] - first[i]) / int64(hours-1)
		}
		perCoreDay := float64(first[i]+23*later) / 1e6 / 64
		b.ReportMetric(perCoreDay, name+"-MB/core/day")
		sum += perCoreDay
	}
	span := time.Duration(hours) * time.Hour
	b.ReportMetric(sum, "MB/core/day")
	b.ReportMetric(100*ingest.Seconds()/span.Seconds(), "ingest-%core")
	b.ReportMetric(100*compaction.Seconds()/span.Seconds(), "compaction-%core")
}

// sizes are the bytes of intervals, hours and stacks.
func sizes(s *Store) (bytes [3]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.files {
		f := &s.files[i]
		kind := 2
		if f.table == tableSamples {
			kind = slices.Index([]string{resolutionInterval, resolutionHour}, f.resolution)
		}
		bytes[kind] += f.bytes
	}
	return bytes
}
