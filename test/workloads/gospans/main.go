// SPDX-License-Identifier: Apache-2.0

// Gospans begins a span about every millisecond on each of two goroutines, sets the ids as labels of runtime/pprof, with others around
// them, and burns CPU until it ends. Of nine in a row the last is none. What it writes is as spans.c says; it is made to build with Go 1.18.
//
//	gospans FILE [MORE]
//
// MORE is a number of further labels.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func clock() uint64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&now)), 0)
	return uint64(now.Nano())
}

type span struct {
	number     int
	begin, end uint64
}

const (
	goroutines = 2
	most       = 60000
)

var (
	spans    [goroutines][]span
	stopping int32
	sink     [goroutines]uint64
)

//go:noinline
func burnFirst(until uint64) uint64 { return burn(0, until) }

//go:noinline
func burnSecond(until uint64) uint64 { return burn(1, until) }

//go:noinline
func burn(goroutine int, until uint64) uint64 {
	for {
		for i := uint64(0); i < 20000; i++ {
			sink[goroutine] = sink[goroutine]*31 + i
		}
		if now := clock(); now >= until {
			return now
		}
	}
}

func work(goroutine int, burn func(uint64) uint64, more []string) {
	background := pprof.WithLabels(context.Background(), pprof.Labels(more...))
	random := uint64(88172645463325252 + goroutine)
	now := clock()
	for i := 0; i < most && atomic.LoadInt32(&stopping) == 0; i++ {
		s := span{number: i, begin: now}
		random = random*6364136223846793005 + 1442695040888963407
		until := now + 500000 + random>>33%1000000
		if i%9 == 8 {
			s.number = -1
			now = burn(until)
		} else {
			labels := pprof.Labels(
				"http.route", "/items/"+strconv.Itoa(i%7),
				"span_id", fmt.Sprintf("70730000%04x%04x", goroutine, i),
				"tenant", "none",
				"trace_id", fmt.Sprintf("70696c6f746c696768740000%04x%04x", goroutine, i/9*9))
			pprof.Do(background, labels, func(context.Context) { now = burn(until) })
		}
		s.end = now
		spans[goroutine] = append(spans[goroutine], s)
	}
}

func main() {
	var more []string
	if len(os.Args) > 2 {
		n, _ := strconv.Atoi(os.Args[2])
		for i := 0; i < n; i++ {
			more = append(more, fmt.Sprintf("label%02d", i), "of no interest")
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	var wait sync.WaitGroup
	for i, burn := range []func(uint64) uint64{burnFirst, burnSecond} {
		i, burn := i, burn
		wait.Add(1)
		go func() {
			defer wait.Done()
			work(i, burn, more)
		}()
	}
	select {
	case <-stop:
	case <-time.After(time.Minute):
	}
	atomic.StoreInt32(&stopping, 1)
	wait.Wait()
	file, err := os.Create(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out := bufio.NewWriter(file)
	for i := range spans {
		for _, s := range spans[i] {
			fmt.Fprintln(out, i, s.number, s.begin, s.end)
		}
	}
	if err := out.Flush(); err != nil {
		os.Exit(1)
	}
}
