// SPDX-License-Identifier: Apache-2.0

// Gosplit burns CPU in four Go functions, 40/30/20/10, and reports its split as truth.h says. They are a function
// whose work is in an inlined call (two deep), a method, a closure that runs on a goroutine of its own, and a
// generic function. The test finds the lines marked "line:" and expects them in the profile.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const (
	clockMonotonic  = 1
	clockProcessCPU = 2
	clockThreadCPU  = 3
)

func clock(which uintptr) uint64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, which, uintptr(unsafe.Pointer(&now)), 0)
	return uint64(now.Nano())
}

// scratch is on the stack of each burning function: without it Go gives them no frame, and a walk by frame pointers
// goes past their callers.
type scratch [16]uint64

func mix(sum, i uint64) uint64 {
	return sum*31 + i ^ sum>>7 // line: mix
}

func mixTwice(sum, i uint64) uint64 {
	return mix(mix(sum, i), i+1) // line: mixTwice
}

//go:noinline
func burnInlined(rounds uint64) uint64 {
	var s scratch
	for i := range rounds * 64 {
		s[i%16] = mixTwice(s[i%16], i) // line: burnInlined
	}
	return s[rounds%16]
}

type wheel struct{ teeth uint64 }

//go:noinline
func (w *wheel) spin(rounds uint64) uint64 {
	var s scratch
	for i := range rounds * 64 {
		s[i%16] = (s[i%16] ^ i) * w.teeth // line: spin
	}
	return s[rounds%16]
}

//go:noinline
func fold[N uint32 | uint64](start N, rounds uint64) uint64 {
	var s scratch
	s[0] = uint64(start)
	for i := range rounds * 64 {
		s[i%16] += i ^ s[0] // line: fold
	}
	return s[rounds%16]
}

type slice struct {
	rounds uint64
	nanos  chan uint64
}

// closureWorker starts a goroutine, locked to a thread of its own, that burns in a closure.
func closureWorker() chan<- slice {
	slices := make(chan slice)
	go func() { // main.closureWorker.func1
		runtime.LockOSThread()
		for next := range slices {
			before := clock(clockThreadCPU)
			var s scratch
			for i := range next.rounds * 64 {
				s[i%16] = s[i%16]<<1 - i // line: closure
			}
			Sink = s[next.rounds%16]
			next.nanos <- clock(clockThreadCPU) - before
		}
	}()
	return slices
}

// Sink keeps what was computed from being optimised away; exported, because nobody reads it.
var Sink uint64

type part struct {
	name          string
	weight        float64
	nanos         uint64
	roundsPerNano float64
	burn          func(rounds uint64) (nanos uint64)
}

// measured returns a function that runs burn on the calling thread and says how much CPU time it took.
func measured(burn func(rounds uint64) uint64) func(uint64) uint64 {
	return func(rounds uint64) uint64 {
		before := clock(clockThreadCPU)
		Sink = burn(rounds)
		return clock(clockThreadCPU) - before
	}
}

func report(parts []part) {
	fmt.Printf(`{"monotonic":%d,"total":%d,"cpu":{`, clock(clockMonotonic), clock(clockProcessCPU))
	for i := range parts {
		if i > 0 {
			fmt.Print(",")
		}
		fmt.Printf("%q:%d", parts[i].name, parts[i].nanos)
	}
	fmt.Println("}}")
}

func main() {
	runtime.LockOSThread()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	w := &wheel{teeth: 17}
	worker := closureWorker()
	parts := []part{
		{name: "main.burnInlined", weight: 40, burn: measured(burnInlined)},
		{name: "main.(*wheel).spin", weight: 30, burn: measured(w.spin)},
		{name: "main.fold[...]", weight: 20, burn: measured(func(rounds uint64) uint64 { return fold[uint64](3, rounds) })},
		{name: "main.closureWorker.func1", weight: 10, burn: func(rounds uint64) uint64 {
			nanos := make(chan uint64)
			worker <- slice{rounds, nanos}
			return <-nanos
		}},
	}
	fmt.Println("ready")
	random := uint64(88172645463325252)
	var reported time.Time
	for {
		done := len(stop) > 0
		if done || time.Since(reported) >= 100*time.Millisecond {
			report(parts)
			reported = time.Now()
		}
		if done {
			return
		}
		next := &parts[0]
		for i := range parts {
			if float64(parts[i].nanos)*next.weight < float64(next.nanos)*parts[i].weight {
				next = &parts[i]
			}
		}
		random ^= random >> 12
		random ^= random << 25
		random ^= random >> 27
		nanos := 2.5e6 + float64(random*2685821657736338717%5000000)
		rounds := max(1, uint64(nanos*next.roundsPerNano))
		burned := max(1, next.burn(rounds))
		next.nanos += burned
		next.roundsPerNano = float64(rounds) / float64(burned)
	}
}
