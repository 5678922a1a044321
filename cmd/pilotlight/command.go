package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// heldCommand is a program that was started but has not run its first
// instruction. Between holdCommand and release its pid can be put among the targets.
type heldCommand struct {
	cmd     *exec.Cmd
	release func() error
	// ended delivers the exit status once.
	ended chan int
}

// holdCommand starts args stopped, as a debugger would: the kernel stops a traced
// process right after its exec. All ptrace calls of one process must come from
// one thread, so a goroutine of its own makes them.
func holdCommand(args []string) (*heldCommand, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	started, released, result := make(chan error, 1), make(chan struct{}), make(chan error, 1)
	h := &heldCommand{cmd: cmd, ended: make(chan int, 1)}
	h.release = func() error { close(released); return <-result }
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			err = awaitExec(cmd.Process.Pid)
		}
		if err != nil {
			started <- fmt.Errorf("start %s: %w", args[0], err)
			return
		}
		started <- nil
		<-released
		if err := syscall.PtraceDetach(cmd.Process.Pid); err != nil {
			result <- fmt.Errorf("let %s run: %w", args[0], err)
			return
		}
		result <- nil
		h.ended <- exitStatus(cmd.Wait())
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return h, nil
}

// awaitExec waits for the stop that follows the exec.
func awaitExec(pid int) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if !status.Stopped() {
			return fmt.Errorf("it ended before it began (status %d)", status.ExitStatus())
		}
		return nil
	}
}

// exitStatus is what a shell would report: the status, or 128 and the signal's number.
func exitStatus(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return exitFailure
		}
		return 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}
