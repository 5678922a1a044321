// Command workload burns one CPU in functions whose shares are known: steady takes half of it, and first the other
// half, until SIGUSR1: from then on that is second's. It ends with its standard input.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const rounds = 1_000_000

var sink uint64

func main() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGUSR1)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends
		os.Exit(0)
	}()
	fmt.Println("ready")
	other := first
	for {
		steady()
		other()
		select {
		case <-changed:
			other = second
		default:
		}
	}
}

// Each does the same by itself, for about a millisecond: a function that they shared would be the one that is hot.

//go:noinline
func steady() {
	x := sink
	for range rounds {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//go:noinline
func first() {
	x := sink
	for range rounds {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//go:noinline
func second() {
	x := sink
	for range rounds {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}
