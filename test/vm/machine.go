package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a machine may take in all, on a host that is busy with other things.
const patience = time.Hour

// machineFiles are the paths of what a machine starts with.
type machineFiles struct{ kernel, archive string }

// defended is the version whose machines defend themselves as hosts do, on each architecture. To the emulator each indirect jump and return
// of these defences is a search, and each signature of a return address (arm64) a call: without them the machines take a fifth less
// of its time on arm64, and a little less on amd64.
const defended = "6.12"

// command is the emulator's. Its clock counts instructions (-icount), 4 ns each, and jumps over idle time: what a machine
// measures does not depend on what else the host does, a sleep costs nothing, and each machine takes one CPU of the
// host, whatever the number of its own. The CPU has all that can be emulated but what makes Linux slow there: strings
// copied and cleared byte by byte by one instruction, and page tables of five levels. Kernels that test their ciphers do not: that takes seconds.
func (k kernel) command(ctx context.Context, files machineFiles, parameters string) *exec.Cmd {
	parameters = "quiet panic=-1 cryptomgr.notests " + parameters
	signatures := "pauth-impdef=on"
	if k.version != defended {
		parameters = "mitigations=off randomize_kstack_offset=off init_on_alloc=0 " + parameters
		signatures = "pauth=off"
	}
	args := []string{
		"-accel", "tcg", "-icount", "shift=2,sleep=off", "-smp", "2", "-m", "1024", "-no-reboot", "-nic", "none",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel", files.kernel, "-initrd", files.archive,
	}
	if k.architecture == "arm64" {
		args = append(args, "-machine", "virt", "-cpu", "max,"+signatures, "-append", "console=ttyAMA0 "+parameters)
		return exec.CommandContext(ctx, "qemu-system-aarch64", args...)
	}
	args = append(args, "-cpu", "max,erms=off,fsrm=off,fsrs=off,la57=off", "-append", "console=ttyS0 tsc=reliable clocksource=tsc "+parameters)
	return exec.CommandContext(ctx, "qemu-system-x86_64", args...)
}

// outcome is what a machine said of its tests.
type outcome struct {
	line                    string // its last line
	passed, failed, skipped int
}

var lastLine = regexp.MustCompile(`^\S+ (?:amd64|arm64): (\d+) passed, (\d+) failed, (\d+) skipped$`)

// control are the sequences by which the firmware clears the screen.
var control = regexp.MustCompile("\x1b(c|\\[[?0-9;]*[A-Za-z])")

// boot runs a machine to its end and shows each line that it says, with the CPU time that the emulator had taken by then.
func (k kernel) boot(ctx context.Context, files machineFiles, parameters string, show func(line string, spent time.Duration)) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := k.command(ctx, files, parameters)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	if err := cmd.Start(); err != nil {
		return outcome{}, fmt.Errorf("start the machine: %w", err)
	}
	var result *outcome
	lines := bufio.NewReader(console)
	for {
		text, err := lines.ReadString('\n')
		text = control.ReplaceAllString(strings.TrimRight(text, "\r\n"), "")
		if found := lastLine.FindStringSubmatch(text); found != nil {
			result = &outcome{line: text}
			for i, n := range []*int{&result.passed, &result.failed, &result.skipped} {
				*n, _ = strconv.Atoi(found[i+1])
			}
		} else if text != "" {
			show(text, cpuTime(cmd.Process.Pid))
		}
		if err != nil {
			break
		}
	}
	switch err := cmd.Wait(); {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return outcome{}, fmt.Errorf("kernel %s: not ready after %s", k, patience)
	case err != nil && ctx.Err() != nil:
		return outcome{}, fmt.Errorf("kernel %s: interrupted", k)
	case err != nil:
		return outcome{}, fmt.Errorf("kernel %s: the emulator: %w", k, err)
	}
	if result == nil {
		return outcome{}, fmt.Errorf("kernel %s: the machine ended before its tests did", k)
	}
	return *result, nil
}

// cpuTime is what a process has taken so far; 0 where it is gone.
func cpuTime(pid int) time.Duration {
	var spent unix.Timespec
	// As clock_getcpuclockid(3) makes it of a pid: its complement, and 2 for the scheduler's clock.
	if unix.ClockGettime(int32(^pid<<3|2), &spent) != nil {
		return 0
	}
	return time.Duration(spent.Nano())
}
