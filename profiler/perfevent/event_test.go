package perfevent

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseCPUList(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int // nil: refused
	}{
		{"0", []int{0}},
		{"0-3", []int{0, 1, 2, 3}},
		{"0-1,8,10-11", []int{0, 1, 8, 10, 11}},
		{"7-7", []int{7}},
		{"8191", []int{8191}},
		{"", nil}, {",", nil}, {"0,", nil}, {"-", nil}, {"-1", nil}, {"1-", nil}, {"3-1", nil}, {"a", nil}, {"0 1", nil},
		{"0-99999999", nil}, {"9223372036854775807", nil}, {"0-9223372036854775808", nil}, {"0x1", nil}, {"0--1", nil},
	} {
		got, err := parseCPUList(c.list)
		if (err != nil) != (c.want == nil) || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.list, got, err, c.want)
		}
	}
}

// What is taken is what the list says, part by part.
func FuzzParseCPUList(f *testing.F) {
	for _, seed := range []string{"0-3,8,10-11", "", "0", "1-0", "-", "00-07", "+1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if strings.Count(list, ",") > 8 {
			return // 65,536 CPUs a part
		}
		cpus, err := parseCPUList(list)
		if err != nil {
			if cpus != nil {
				t.Errorf("%q: %d CPUs and %v", list, len(cpus), err)
			}
			return
		}
		for part := range strings.SplitSeq(list, ",") {
			var first, last int
			if n, _ := fmt.Sscanf(part, "%d-%d", &first, &last); n < 2 {
				last = first
			}
			for cpu := first; cpu <= last; cpu++ {
				if len(cpus) == 0 || cpus[0] != cpu || cpu < 0 || cpu > maxCPU {
					t.Fatalf("%q: CPU %d is missing or out of range", list, cpu)
				}
				cpus = cpus[1:]
			}
		}
		if len(cpus) > 0 {
			t.Errorf("%q: %d CPUs that the list does not name", list, len(cpus))
		}
	})
}

func TestOnlineCPUs(t *testing.T) {
	cpus, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, cpu := range cpus {
		// Every CPU but the first has a switch, if CPUs can be switched at all.
		state, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu))
		if err == nil && strings.TrimSpace(string(state)) != "1" {
			t.Errorf("CPU %d is offline", cpu)
		}
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	if len(cpus) < set.Count() {
		t.Errorf("%d CPUs online, but this thread may run on %d", len(cpus), set.Count())
	}
}

func cpuClock() unix.PerfEventAttr {
	return unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
}

// The clock of an event runs while it is enabled, and only then.
func TestEvent(t *testing.T) {
	e, err := Open(cpuClock(), 0)
	if err != nil {
		t.Fatalf("these tests need root: %v", err)
	}
	count := func() uint64 {
		n, err := e.Count()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	pause := func() { time.Sleep(20 * time.Millisecond) }
	if pause(); count() != 0 {
		t.Error("the event counts before it is enabled")
	}
	if err := e.Enable(); err != nil {
		t.Fatal(err)
	}
	pause()
	first := count()
	if first < uint64(15*time.Millisecond) {
		t.Errorf("%d ns counted in 20 ms", first)
	}
	if err := e.Disable(); err != nil {
		t.Fatal(err)
	}
	stopped := count()
	if pause(); count() != stopped {
		t.Error("the event counts after it was disabled")
	}
	if err := e.SetBPF(e.FD()); err == nil {
		t.Error("a descriptor that is no program was attached")
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.Count(); err == nil {
		t.Error("a closed event counts")
	}
}

func TestOpenFails(t *testing.T) {
	for _, c := range []struct {
		attr unix.PerfEventAttr
		cpu  int
	}{{cpuClock(), maxCPU}, {unix.PerfEventAttr{Type: 12345}, 0}} {
		if e, err := Open(c.attr, c.cpu); err == nil {
			_ = e.Close()
			t.Errorf("type %d on CPU %d was opened", c.attr.Type, c.cpu)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("CPU %d", c.cpu)) {
			t.Errorf("the error does not name the CPU: %v", err)
		}
	}
}
