package store

import (
	"bytes"
	"context"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// recordingVariable names a directory for what BenchmarkRecording records, which takes its time: what is there from an earlier run is taken again.
const recordingVariable = "PILOTLIGHT_RECORDING"

// recordedTime is how long it records.
const recordedTime = 5 * time.Minute

// recordedLoads keep two CPUs busy with what hosts do.
var recordedLoads = map[string]string{
	// A database and its clients, an interpreter, and an archiver without symbols, which comes and goes.
	"services": `
redis-server --bind 127.0.0.1 --port 7398 --save '' --dir "$1" >/dev/null &
until redis-cli -p 7398 ping >/dev/null 2>&1; do sleep 0.1; done
redis-benchmark -p 7398 -n 200000 -q -l -t set,get,lpush,lrange_100 >/dev/null 2>&1 &
/usr/bin/python3 -c '
import json, random
while True:
    d = {str(k): [random.random() for _ in range(20)] for k in range(50)}
    json.loads(json.dumps(d, sort_keys=True))
' &
(while :; do xz -6 -c "$2" >/dev/null; done) &
wait`,
	// A compiler, of whose stacks hardly one is like another, each run a process.
	"build": `
(while :; do gcc -O2 -x c -c -o "$1/1.o" "$3"; done) &
(while :; do gcc -O2 -x c -c -o "$1/2.o" "$3"; done) &
wait`,
}

// record records a load of this machine as the agent does, into a data directory.
func record(b *testing.B, load, data string) {
	b.Helper()
	for _, program := range []string{"redis-server", "redis-benchmark", "/usr/bin/python3", "xz", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	binary := filepath.Join(dir, "pilotlight")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/pilotlight").CombinedOutput(); err != nil {
		b.Fatalf("build pilotlight: %v\n%s", err, out)
	}
	programs := exec.Command("sh", "-c", recordedLoads[load], "sh", dir, binary, "../../test/workloads/deep.c")
	programs.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := programs.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(-programs.Process.Pid, unix.SIGKILL)
		_ = programs.Wait()
	}()
	agent := exec.Command(binary, "agent", "-p", strconv.Itoa(programs.Process.Pid), "--children", "--data-dir", data, "--listen", "127.0.0.1:0")
	said := new(bytes.Buffer)
	agent.Stderr = said
	agent.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	time.Sleep(recordedTime)
	_ = agent.Process.Signal(os.Interrupt)
	if err := agent.Wait(); err != nil {
		b.Fatalf("the agent: %v\n%s", err, said)
	}
}

// recordedIntervals are the profiles of whole intervals of a data directory. Of the times of samples it is only kept how many there are.
func recordedIntervals(b *testing.B, dir string) (intervals []*profile.Profile) {
	b.Helper()
	files, err := list(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := NewReader(dir, nil)
	for _, f := range arrange(files).intervals {
		rows, err := readAll[SampleRow](filepath.Join(dir, f.path()))
		if err != nil {
			b.Fatal(err)
		}
		from := time.UnixMilli(rows[0].Time)
		length := time.Duration(rows[0].Duration)
		if length < 9*time.Second {
			continue // the last one
		}
		p := mustRead(b, r, query.Query{From: from, To: from.Add(length)}, query.Labels...)
		p.Duration = length
		for i := range p.Samples {
			s := &p.Samples[i]
			for n := range s.Count {
				s.Times = append(s.Times, time.Duration(n)*length/time.Duration(s.Count))
			}
		}
		intervals = append(intervals, p)
	}
	return intervals
}

// staying are the processes that run from the first interval to the last one. Others come and go.
func staying(intervals []*profile.Profile) map[int]bool {
	stay := make(map[int]bool)
	for _, s := range intervals[0].Samples {
		stay[s.Labels.PID] = false
	}
	for _, s := range intervals[len(intervals)-1].Samples {
		if _, ok := stay[s.Labels.PID]; ok {
			stay[s.Labels.PID] = true
		}
	}
	return stay
}

// again is an interval as it is when the recording comes round once more: processes that come and go are others.
func again(p *profile.Profile, round int, stay map[int]bool) *profile.Profile {
	q := *p
	q.Samples = slices.Clone(p.Samples)
	known := make(map[*profile.Labels]*profile.Labels)
	for i := range q.Samples {
		l := q.Samples[i].Labels
		if stay[l.PID] {
			continue
		}
		if known[l] == nil {
			other := *l
			other.PID += round << 23 // beyond all there are
			known[l] = &other
		}
		q.Samples[i].Labels = known[l]
	}
	return &q
}

// BenchmarkRecording records five minutes of this machine under everyday programs, and has the history take an hour that is those minutes again and again. The
// stacks of a day are more than those of five minutes: it says how many came in their second half, and how many a day has if they go on to grow by the
// same power of time, as the words of a text do.
func BenchmarkRecording(b *testing.B) {
	for _, load := range slices.Sorted(maps.Keys(recordedLoads)) {
		b.Run(load, func(b *testing.B) { benchmarkRecording(b, load) })
	}
}

func benchmarkRecording(b *testing.B, load string) {
	dir := os.Getenv(recordingVariable)
	if dir == "" {
		dir = b.TempDir()
	}
	dir = filepath.Join(dir, load)
	if _, err := os.Stat(dir); err != nil {
		record(b, load, dir)
	}
	intervals := recordedIntervals(b, dir)
	if len(intervals) < 4 {
		b.Fatalf("%d intervals were recorded", len(intervals))
	}
	stay := staying(intervals)
	cores := float64(runtime.NumCPU())
	for b.Loop() {
		into := b.TempDir()
		c := &clock{}
		when := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
		c.set(when)
		s := openStore(b, Options{Dir: into, now: c.time})
		var ingest, compaction time.Duration
		var samples, rows int64
		half := 0
		for i := range 360 {
			p := again(intervals[i%len(intervals)], i/len(intervals), stay)
			p.Start = when
			when = when.Add(10 * time.Second)
			c.set(when)
			before := cpuTime(b)
			s.Export(p)
			written := cpuTime(b)
			settle(b, s)
			ingest, compaction = ingest+written-before, compaction+cpuTime(b)-written
			for j := range p.Samples {
				samples += p.Samples[j].Count
			}
			rows += int64(len(p.Samples))
			if i+1 == len(intervals)/2 {
				half = len(s.known)
			}
		}
		stacks := len(s.known)
		recorded := sizes(s)[0]
		r := NewReader(into, nil)
		begun := time.Now()
		tree, _, err := r.Stacks(context.Background(), query.Query{From: when.Add(-15 * time.Minute), To: when})
		if err != nil {
			b.Fatal(err)
		}
		nodes := tree.Tree(10_000).Nodes
		answered := time.Since(begun)
		before := cpuTime(b)
		c.set(when.Add(2 * time.Hour))
		settle(b, s)
		compaction += cpuTime(b) - before
		compacted := sizes(s)
		if testing.Verbose() {
			for _, r := range []string{resolutionHour, ""} {
				b.Log("resolution", r)
				logColumns(b, into, func(f *file) bool { return f.resolution == r })
			}
		}
		b.ReportMetric(float64(samples)/3600/cores, "samples/s/core")
		b.ReportMetric(float64(rows)/360, "rows/interval")
		b.ReportMetric(float64(stacks), "stacks")
		b.ReportMetric(float64(stacks-half), "stacks-2nd-half")
		times := 24 * time.Hour.Seconds() / (10 * float64(len(intervals)))
		ofDay := float64(stacks) * math.Pow(times, math.Log2(float64(stacks)/float64(half)))
		b.ReportMetric(ofDay, "stacks-of-a-day")
		b.ReportMetric(float64(compacted[2])/float64(stacks), "B/stack")
		b.ReportMetric(float64(recorded)/1e6, "intervals-MB/h")
		hours, stackBytes := 24*float64(compacted[1])/1e6/cores, ofDay*float64(compacted[2])/float64(stacks)/1e6/cores
		b.ReportMetric(hours, "hours-MB/core/day")
		b.ReportMetric(stackBytes, "stacks-MB/core/day")
		b.ReportMetric(hours+stackBytes, "MB/core/day")
		b.ReportMetric(100*ingest.Seconds()/3600, "ingest-%core")
		b.ReportMetric(100*compaction.Seconds()/3600, "compaction-%core")
		b.ReportMetric(float64(answered.Milliseconds()), "15m-ms")
		b.ReportMetric(float64(nodes), "nodes")
	}
}
