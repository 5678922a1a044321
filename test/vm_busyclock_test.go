// SPDX-License-Identifier: Apache-2.0

//go:build vm

package test

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// A busyClock measures what each CPU works, from one of the kernel's events to the next: each stretch belongs to the
// task that ran, or to the softirqs that an idle CPU ran. /proc/stat cannot tell: it counts by ticks, which an idle CPU
// does without whatever softirqs it runs, and which the emulator's turns make coincide with packets elsewhere.
type busyClock struct{ times *ebpf.Map }

// cpuClock is an element of the map: nanoseconds, for one CPU.
type cpuClock struct {
	Last         uint64 // when the last event was
	Tasks        uint64 // in all tasks, and in interrupts on top of them
	IdleSoftirqs uint64 // in softirqs on top of the idle task
}

func startBusyClock(t *testing.T) busyClock {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil { // which binds on 5.10
		t.Fatal(err)
	}
	times, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = times.Close() })
	for _, event := range []string{"sched_switch", "softirq_entry", "softirq_exit"} {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.RawTracepoint, License: "GPL", Instructions: clockProgram(times, event == "softirq_exit"),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: p})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	return busyClock{times}
}

// clockProgram adds the time since the CPU's last event to Tasks, or, on the idle task where softirqs end, to IdleSoftirqs.
// At sched_switch the task that is left is still the current one.
func clockProgram(times *ebpf.Map, softirqsEnd bool) asm.Instructions {
	const last, tasks, idleSoftirqs = 0, 8, 16
	onIdle := asm.Instructions{asm.Ja.Label("out")}
	if softirqsEnd {
		onIdle = asm.Instructions{asm.Add.Imm(asm.R6, idleSoftirqs-tasks), asm.Ja.Label("add")}
	}
	onIdle[0] = onIdle[0].WithSymbol("idle")
	ins := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, times.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R1, asm.R6, last, asm.DWord),
		asm.StoreMem(asm.R6, last, asm.R7, asm.DWord),
		asm.Sub.Reg(asm.R7, asm.R1),
		asm.FnGetCurrentPidTgid.Call(),
		asm.JEq.Imm(asm.R0, 0, "idle"),
		asm.Ja.Label("add"),
	}
	ins = append(ins, onIdle...)
	return append(ins,
		asm.LoadMem(asm.R1, asm.R6, tasks, asm.DWord).WithSymbol("add"),
		asm.Add.Reg(asm.R1, asm.R7),
		asm.StoreMem(asm.R6, tasks, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

// read gives the times so far, by CPU. Their beginning is arbitrary.
func (c busyClock) read(t testing.TB) (clocks []cpuClock) {
	t.Helper()
	if err := c.times.Lookup(uint32(0), &clocks); err != nil {
		t.Fatal(err)
	}
	return clocks
}

// busy gives the seconds so far, by CPU.
func (c busyClock) busy(t testing.TB) (seconds []float64) {
	t.Helper()
	for _, clock := range c.read(t) {
		seconds = append(seconds, time.Duration(clock.Tasks+clock.IdleSoftirqs).Seconds())
	}
	return seconds
}

// idleSoftirqs gives the seconds so far that idle CPUs ran softirqs.
func (c busyClock) idleSoftirqs(t testing.TB) (seconds float64) {
	t.Helper()
	for _, clock := range c.read(t) {
		seconds += time.Duration(clock.IdleSoftirqs).Seconds()
	}
	return seconds
}
