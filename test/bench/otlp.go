package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/destination/receiver"
)

// benchOTLP tells what sending costs: two agents sample the same two busy processes at the same time, and one of them sends profiles. What
// it takes more of the CPU is what encoding, the queue and sending cost; the bytes are those of the bodies, compressed.
func benchOTLP(ctx context.Context, binary, dir string) error {
	targets, stop, err := startTargets(ctx, stack{"", "deep", omitFrames, nil}, dir, 2)
	if err != nil {
		return err
	}
	defer stop()
	r, err := receiver.Start("127.0.0.1:0", nil, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	const hz, warmUp, intervals = 97, 15 * time.Second, 6
	command := append(agent(binary, dir, targets, hz).command, "--no-history")
	plain, err := startAgent(command, filepath.Join(dir, "plain"))
	if err != nil {
		return err
	}
	defer plain.end()
	sending, err := startAgent(append(command, "--otlp-profiles-endpoint", "http://"+r.Address()), filepath.Join(dir, "sending"))
	if err != nil {
		return err
	}
	defer sending.end()
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	wait(warmUp)
	before := len(r.Taken())
	plainBefore, sendingBefore := plain.cpu(), sending.cpu()
	began := time.Now()
	wait(intervals * 10 * time.Second)
	took := time.Since(began).Seconds()
	plainCPU, sendingCPU := (plain.cpu()-plainBefore).Seconds()/took, (sending.cpu()-sendingBefore).Seconds()/took
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var bytes, samples int64
	for _, q := range r.Taken()[before:] {
		bytes += q.Bytes
		for _, resource := range q.Profiles.ResourceProfiles {
			for _, s := range resource.ScopeProfiles[0].Profiles[0].Samples {
				for _, v := range s.Values {
					samples += v
				}
			}
		}
	}
	fmt.Printf("OTLP: %d samples of %d messages in %.1f bytes each; encoding and sending takes %.3f %% of a core (an agent that sends %.3f %%, one that does not %.3f %%)\n",
		samples, len(r.Taken())-before, float64(bytes)/float64(max(1, samples)), 100*(sendingCPU-plainCPU), 100*sendingCPU, 100*plainCPU)
	return nil
}

// runningAgent is an agent with a data directory of its own.
type runningAgent struct{ cmd *exec.Cmd }

func startAgent(command []string, dataDir string) (*runningAgent, error) {
	cmd := exec.Command(command[0], append(command[1:], "--data-dir", dataDir)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &runningAgent{cmd}, nil
}

func (a *runningAgent) cpu() time.Duration {
	d, err := cpuTime(a.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return d
}

func (a *runningAgent) end() {
	_ = a.cmd.Process.Signal(os.Interrupt)
	_ = a.cmd.Wait()
}
