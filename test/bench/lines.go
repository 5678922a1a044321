package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"
)

// touched is struct touched of touch.bpf.h.
type touched struct {
	Walks [512]uint64
	Lines [8]uint64
	Walk  uint64
	Here  uint64
	Slot  [2048]uint64
}

// touchedKinds are those of Lines.
var touchedKinds = []string{"mappings", "page index", "rows", "rules", "stack", "last walk"}

// benchLines prints how many cache lines a walk over 35 frames touches. For that the sampler is built again, so that it counts
// them: the same source with something in the place of TOUCH, within the same agent.
func benchLines(ctx context.Context, dir string, span time.Duration) error {
	targets, stop, err := startTargets(ctx, stack{program: "deep", flags: omitFrames}, dir, 2)
	if err != nil {
		return err
	}
	defer stop()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "cache lines of 64 bytes that a walk over 35 frames touches\t\n\twalks\tmean\tmedian\t%s\t\n", strings.Join(touchedKinds, "\t"))
	for _, c := range []struct {
		name  string
		flags []string
	}{{"without the thread's last walk", []string{"-DFORGET"}}, {"with it", nil}} {
		binary, err := buildCounting(ctx, dir, c.flags)
		if err != nil {
			return err
		}
		sum, err := countLines(ctx, agent(binary, dir, targets, 97), span)
		if err != nil {
			return fmt.Errorf("count cache lines: %w", err)
		}
		var walks, lines, passed uint64
		median := 0
		for n, count := range sum.Walks {
			walks, lines = walks+count, lines+uint64(n)*count
		}
		for passed = sum.Walks[0]; 2*passed < walks; passed += sum.Walks[median] {
			median++
		}
		if walks == 0 {
			return fmt.Errorf("count cache lines: no walks")
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%d\t", c.name, walks, float64(lines)/float64(walks), median)
		for kind := range touchedKinds {
			fmt.Fprintf(w, "%.1f\t", float64(sum.Lines[kind])/float64(walks))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// buildCounting builds the agent with a sampler that counts lines.
func buildCounting(ctx context.Context, dir string, flags []string) (string, error) {
	target := map[string]string{"amd64": "x86", "arm64": "arm64"}[runtime.GOARCH]
	object, binary, overlay := filepath.Join(dir, "counting.o"), filepath.Join(dir, "counting"), filepath.Join(dir, "overlay.json")
	args := append([]string{"-O2", "-g", "-mcpu=v3", "-target", "bpfel", "-D__TARGET_ARCH_" + target, "-Ibpf",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu",
		"-include", "test/bench/touch.bpf.h", "-c", "bpf/cpu.bpf.c", "-o", object}, flags...)
	embedded, err := filepath.Abs("bpf/cpu_" + target + "_bpfel.o")
	if err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {embedded: object}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		return "", err
	}
	if err := run(exec.CommandContext(ctx, "clang-19", args...)); err != nil {
		return "", err
	}
	return binary, run(exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", binary, "./cmd/pilotlight"))
}

// countLines runs an agent that counts, and adds up what its CPUs counted once all is known and walked in BPF.
func countLines(ctx context.Context, t tool, span time.Duration) (sum touched, err error) {
	cmd, ended, stop, err := startTool(t)
	if err != nil {
		return sum, err
	}
	defer stop()
	program, err := awaitProgram(ctx, cmd.Process.Pid, t.program, ended)
	if err != nil {
		return sum, err
	}
	defer program.Close()
	counts, err := mapOf(program, "touched")
	if err != nil {
		return sum, err
	}
	defer counts.Close()
	read := func() (sum touched, err error) {
		var perCPU []touched
		if err := counts.Lookup(uint32(0), &perCPU); err != nil {
			return sum, err
		}
		for _, c := range perCPU {
			for i, n := range c.Walks {
				sum.Walks[i] += n
			}
			for i, n := range c.Lines {
				sum.Lines[i] += n
			}
		}
		return sum, nil
	}
	if err := sleep(ctx, 2*time.Second, ended); err != nil {
		return sum, err
	}
	before, err := read()
	if err != nil {
		return sum, err
	}
	if err := sleep(ctx, span, ended); err != nil {
		return sum, err
	}
	if sum, err = read(); err != nil {
		return sum, err
	}
	for i, n := range before.Walks {
		sum.Walks[i] -= n
	}
	for i, n := range before.Lines {
		sum.Lines[i] -= n
	}
	return sum, nil
}

// mapOf opens a map that a program uses.
func mapOf(program *ebpf.Program, name string) (*ebpf.Map, error) {
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		if info, err := m.Info(); err == nil && info.Name == name {
			return m, nil
		}
		m.Close()
	}
	return nil, fmt.Errorf("the program uses %d maps, none of them %s", len(ids), name)
}
