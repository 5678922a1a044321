package perfevent

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sideband is an event that reports processes and wakes with each record.
func sideband() unix.PerfEventAttr {
	return unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Sample_type: unix.PERF_SAMPLE_TIME,
		Bits: unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitTask |
			unix.PerfBitSampleIDAll | unix.PerfBitUseClockID | unix.PerfBitWatermark,
		Clockid: unix.CLOCK_MONOTONIC, Wakeup: 1,
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if err := exec.Command(name, args...).Run(); err != nil {
		t.Fatal(err)
	}
}

func newPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func wait(t *testing.T, p *Poller, timeout time.Duration) (woken bool, took time.Duration) {
	t.Helper()
	begun := time.Now()
	woken, err := p.Wait(timeout, nil)
	if err != nil {
		t.Fatal(err)
	}
	return woken, time.Since(begun)
}

// eventfd is a descriptor that fire makes readable.
func eventfd(t *testing.T, p *Poller) (fire func()) {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := p.Add(fd); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
	}
}

func TestPollerTimeout(t *testing.T) {
	p := newPoller(t)
	eventfd(t, p)
	for _, timeout := range []time.Duration{-time.Second, 0, time.Millisecond, 50 * time.Millisecond} {
		if woken, took := wait(t, p, timeout); woken || took < timeout || took > max(timeout, 0)+time.Second {
			t.Errorf("Wait(%v): woken %t after %v", timeout, woken, took)
		}
	}
}

// A wake-up ends one Wait, the one under way or the next, always, and is not seen twice, as a rule: where Wait finds the
// event before Go's poller does, that one may tell of it later, which costs a look.
func TestPollerWakes(t *testing.T) {
	p := newPoller(t)
	for name, fire := range map[string]func(){"descriptor": eventfd(t, p), "Interrupt": p.Interrupt} {
		twice := 0
		for round := range 100 {
			switch round % 2 {
			case 0:
				fire()
			case 1:
				time.AfterFunc(time.Duration(round)*100*time.Microsecond, fire)
			}
			if woken, took := wait(t, p, 5*time.Second); !woken || took > time.Second {
				t.Fatalf("%s, round %d: woken %t after %v", name, round, woken, took)
			}
			if round%10 == 0 {
				if woken, _ := wait(t, p, 2*time.Millisecond); woken {
					twice++
				}
			}
		}
		if twice > 2 {
			t.Errorf("%s: %d of 10 events woke twice", name, twice)
		}
	}
}

// More descriptors than one epoll_wait returns: none is forgotten.
func TestPollerManyDescriptors(t *testing.T) {
	p := newPoller(t)
	var fires []func()
	for range 100 {
		fires = append(fires, eventfd(t, p))
	}
	for _, fire := range fires {
		fire()
	}
	wakes := 0
	for range 100 {
		woken, _ := wait(t, p, 10*time.Millisecond)
		if !woken {
			break
		}
		wakes++
	}
	if wakes < 1 || wakes > 100 {
		t.Errorf("%d wake-ups", wakes)
	}
	for _, fire := range fires {
		fire()
		if woken, _ := wait(t, p, time.Second); !woken {
			t.Fatal("a descriptor does not wake any more")
		}
	}
}

// Records of processes wake: those that come during Wait, and those that came since the last one ended.
func TestPollerPerfEvents(t *testing.T) {
	p := newPoller(t)
	cpus, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	var rings []*Ring
	done := make(chan struct{})
	drain := func() {
		for _, ring := range rings {
			ring.Drain(func(Record) {})
		}
	}
	for _, cpu := range cpus {
		e, err := Open(sideband(), cpu)
		if err != nil {
			t.Fatalf("these tests need root: %v", err)
		}
		defer e.Close()
		ring, err := NewRing(e, 4)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		rings = append(rings, ring)
		if err := p.Add(e.FD()); err != nil {
			t.Fatal(err)
		}
		if err := e.Enable(); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func() bool { return slices.ContainsFunc(rings, (*Ring).Waiting) }
	next := func(when string) {
		t.Helper()
		begun := time.Now()
		woken, err := p.Wait(10*time.Second, waiting)
		if took := time.Since(begun); err != nil || !woken || took > time.Second {
			t.Fatalf("a process %s: woken %t after %v, %v", when, woken, took, err)
		}
	}
	for range 50 {
		drain()
		go func() {
			time.Sleep(5 * time.Millisecond)
			run(t, "true")
			done <- struct{}{}
		}()
		next("during the wait")
		<-done
		drain()
		run(t, "true")
		next("between two waits")
	}
}

// Requests interrupt a Poller that is being closed: what has its descriptor's number by then is left alone.
func TestPollerInterruptAfterClose(t *testing.T) {
	for range 200 {
		p, err := NewPoller()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 20 {
				p.Interrupt()
			}
		}()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.MemfdCreate("innocent", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		<-done
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		if stat.Size != 0 {
			t.Fatal("Interrupt wrote into another file")
		}
	}
}

// Close ends a Wait, and leaves neither descriptors nor goroutines.
func TestPollerClose(t *testing.T) {
	warm := newPoller(t) // Go's own poller opens descriptors once
	if err := warm.Close(); err != nil {
		t.Fatal(err)
	}
	open, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 20 {
		p, err := NewPoller()
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error)
		go func() {
			_, err := p.Wait(time.Minute, nil)
			result <- err
		}()
		time.Sleep(time.Millisecond)
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		select {
		case err := <-result:
			if err == nil {
				t.Error("Wait on a closed Poller is no error")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Wait goes on after Close")
		}
		if _, err := p.Wait(0, nil); err == nil {
			t.Error("Wait after Close is no error")
		}
		if err := p.Add(0); err == nil {
			t.Error("Add after Close is no error")
		}
	}
	if now := descriptors(t); now > open {
		t.Errorf("%d descriptors, %d before", now, open)
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPollerAddFails(t *testing.T) {
	p := newPoller(t)
	if err := p.Add(1 << 20); err == nil || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
