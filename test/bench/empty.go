package main

import (
	"context"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/perfevent"
)

// measureEmpty runs the empty program on every CPU from this process.
func measureEmpty(ctx context.Context, t tool, span time.Duration, r *result) error {
	var objects EmptyObjects
	if err := LoadEmptyObjects(&objects, nil); err != nil {
		return err
	}
	defer objects.Close()
	for _, pid := range t.pids {
		if err := objects.Wanted.Put(uint32(pid), EmptyTarget{}); err != nil {
			return err
		}
	}
	cpus, err := perfevent.OnlineCPUs()
	if err != nil {
		return err
	}
	for _, cpu := range cpus {
		e, err := perfevent.Open(unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Sample: uint64(t.hz), Sample_type: unix.PERF_SAMPLE_RAW, Bits: unix.PerfBitFreq,
		}, cpu)
		if err != nil {
			return err
		}
		defer e.Close()
		if err := e.SetBPF(objects.OnEmpty.FD()); err != nil {
			return err
		}
		if err := e.Enable(); err != nil {
			return err
		}
	}
	// Nobody reads: 256 KiB hold 2,300 records, then the reservation fails at once. Read, by moving on.
	drain := make(chan struct{})
	go drainRing(objects.Records, drain)
	defer close(drain)
	if err := sleep(ctx, 500*time.Millisecond, nil); err != nil {
		return err
	}
	return watch(ctx, objects.OnEmpty, span, r, nil)
}

// drainRing reads and forgets, as often as the agent does.
func drainRing(m *ebpf.Map, stop <-chan struct{}) {
	ring, err := bpf.NewRing(m)
	if err != nil {
		return
	}
	defer ring.Close()
	for {
		select {
		case <-stop:
			return
		case <-time.After(200 * time.Millisecond):
			ring.Samples(func(*bpf.Sample) {})
		}
	}
}
