// SPDX-License-Identifier: Apache-2.0

// Goframes stops itself below calls of several shapes, after it printed the functions of its stack, innermost first.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
)

//go:noinline
func stop(n int) int {
	pcs := make([]uintptr, 50)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		fmt.Println(f.Function)
		if !more {
			break
		}
	}
	fmt.Println()
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	runtime.GC() // part of which runs on the thread's own stack
	return n
}

//go:noinline
func large(n int) int {
	var room [5000]int
	room[n] = stop(n)
	return room[n] + 1
}

//go:noinline
func deferred(n int) (r int) {
	defer func() { r = large(n) }()
	return n
}

type shape interface{ area(int) int }

type square struct{ side int }

func (s square) area(n int) int { return s.side * deferred(n) }

func main() {
	runtime.LockOSThread()
	var s shape = square{3}
	numbers := []int{3, 1, 2}
	slices.SortFunc(numbers, func(a, b int) int {
		if s != nil {
			fmt.Fprintln(os.Stderr, s.area(a))
			s = nil
		}
		return a - b
	})
}
