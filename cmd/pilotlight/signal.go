package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endSignals are those that end a command in good order. A terminal that is closed sends SIGHUP;
// one that is ignored at the start, as by nohup, stays ignored.
func endSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}
