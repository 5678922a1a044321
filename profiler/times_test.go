package profiler

import (
	"syscall"
	"testing"
	"time"
)

// Each sample has its time: a process that stood still for a while has none of then. Profiles that nobody wants times of have none.
func TestSampleTimes(t *testing.T) {
	pid := start(t, "/bin/sh", "-c", "while :; do :; done")
	config := Config{Target: Target{PIDs: []int{pid}}, FrequencyHz: 497, Interval: 700 * time.Millisecond, SampleTimes: true}
	var stopped, resumed time.Time
	s := sampleWhile(t, config, func(p *Profiler) {
		time.Sleep(900 * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stopped = time.Now()
		time.Sleep(500 * time.Millisecond)
		resumed = time.Now()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(900 * time.Millisecond)
	})
	const slack = 20 * time.Millisecond // a signal takes its time
	before, after := 0, 0
	for _, p := range s.profiles {
		for _, sample := range p.Samples {
			if int64(len(sample.Times)) != sample.Count {
				t.Fatalf("%d times of %d samples", len(sample.Times), sample.Count)
			}
			for _, at := range sample.Times {
				if at < 0 || at >= p.Duration {
					t.Errorf("a sample %v after the start of a profile of %v", at, p.Duration)
				}
				switch when := p.Start.Add(at); {
				case when.Before(stopped.Add(slack)):
					before++
				case when.After(resumed.Add(-slack)):
					after++
				default:
					t.Errorf("a sample %v after the process was stopped, for %v", when.Sub(stopped), resumed.Sub(stopped))
				}
			}
		}
	}
	if before < 100 || after < 100 {
		t.Errorf("%d samples before, %d after", before, after)
	}
	config.SampleTimes = false
	s = sampleFor(t, config, 300*time.Millisecond)
	for _, p := range s.profiles {
		for _, sample := range p.Samples {
			if sample.Times != nil {
				t.Fatal("times that nobody wants")
			}
		}
	}
	if len(s.profiles) == 0 {
		t.Error("no profile")
	}
}
