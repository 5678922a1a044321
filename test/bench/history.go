package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// benchHistory tells what the agent takes of memory while it keeps the history of a host that shows 20,000 distinct stacks, each new when
// it comes: those of four processes that burn each for two and a half periods.
func benchHistory(ctx context.Context, binary, dir string) error {
	program := filepath.Join(dir, "manystacks")
	if out, err := exec.CommandContext(ctx, "gcc", "-O1", "-pthread", "-o", program, "test/workloads/manystacks.c").CombinedOutput(); err != nil {
		return fmt.Errorf("compile manystacks.c: %w\n%s", err, out)
	}
	const processes, stacks, hz = 4, 5000, 997
	var running []*exec.Cmd
	var pids []int
	defer func() {
		for _, c := range running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for i := range processes {
		c := exec.Command(program, strconv.Itoa(i*stacks), strconv.Itoa(stacks), strconv.Itoa(2_500_000_000/hz))
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := c.Start(); err != nil {
			return err
		}
		running = append(running, c)
		pids = append(pids, c.Process.Pid)
	}
	command := agent(binary, dir, pids, hz).command
	a := exec.Command(command[0], command[1:]...)
	a.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := a.Start(); err != nil {
		return err
	}
	defer func() { _ = a.Process.Signal(os.Interrupt); _ = a.Wait() }()
	for len(running) > 0 {
		_ = running[0].Wait() // how it ended does not matter
		running = running[1:]
	}
	anon, rss := memory(a.Process.Pid)
	peak, err := peakKB(a.Process.Pid)
	if err != nil {
		return fmt.Errorf("the agent ended: %w", err)
	}
	fmt.Printf("with the history of %d distinct stacks at %d Hz: RSS %.1f MB (%.1f anonymous), %.1f at most\n", processes*stacks, hz, rss/1024, anon/1024, peak/1024)
	return nil
}

// peakKB is the most that was resident of a process.
func peakKB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	if !ok {
		return 0, fmt.Errorf("process %d has no memory", pid)
	}
	return strconv.ParseFloat(strings.Fields(rest)[0], 64)
}
