package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// unwindTables prints what it costs to compile the unwind tables of a library of 129 MB: libLLVM, which comes with clang. A
// process does so; what it takes beside one that only prints its version is theirs.
func unwindTables(binary string, rounds int) error {
	paths, err := filepath.Glob("/usr/lib/*-linux-gnu/libLLVM.so.19*")
	if err != nil || len(paths) == 0 {
		return errors.Join(err, errors.New("no libLLVM 19 on this host: apt-get install libllvm19"))
	}
	var seconds, extraMB []float64
	var report []byte
	for range rounds {
		base, _, err := usage(binary, "version")
		if err != nil {
			return err
		}
		used, out, err := usage(binary, "doctor", "unwind", paths[0])
		if err != nil {
			return err
		}
		report = out
		seconds = append(seconds, cpu(used)-cpu(base))
		extraMB = append(extraMB, float64(used.Maxrss-base.Maxrss)*1024/1e6)
	}
	slices.Sort(seconds)
	slices.Sort(extraMB)
	fmt.Printf("\nunwind tables of a large library: %.0f ms of CPU and %.1f MB of memory beside the program's own\n",
		1000*seconds[len(seconds)/2], extraMB[len(extraMB)/2])
	for line := range bytes.Lines(report) {
		if bytes.HasPrefix(line, []byte("gaps")) {
			break
		}
		fmt.Printf("  %s", line)
	}
	return nil
}

func usage(name string, args ...string) (*syscall.Rusage, []byte, error) {
	cmd := exec.Command(name, args...)
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage), out, nil
}

func cpu(u *syscall.Rusage) float64 {
	return (time.Duration(u.Utime.Nano()) + time.Duration(u.Stime.Nano())).Seconds()
}
