// Command bench measures what sampling costs, beside its peers, on the same
// targets in one run, and prints a table. It asserts nothing: machines differ
// and are noisy; what counts is the relation of the rows.
//
//	go run ./test/bench            (as root; `make bench`)
//
// Two processes burn two CPUs 10 frames with frame pointers, then 35 frames without. Each tool
// samples them in turn, several rounds, so that a change of the machine's
// speed hits all. BPF time is the kernel's own (bpf_stats); mean is over all runs of the program, median over
// slices of 100 ms. CPU and memory are /proc's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"
)

func main() {
	seconds := flag.Duration("t", 5*time.Second, "time of one measurement")
	rounds := flag.Int("n", 3, "rounds")
	binaries := flag.String("pilotlight", "bin/pilotlight", "the binary; several, with commas between, are compared")
	rates := flag.String("hz", "97,997", "rates")
	only := flag.String("only", "", "only tools whose name contains this; or software: the stacks of everyday software; tables: the unwind tables of a large library; lines: the cache lines of a walk; history: the agent's memory with one; otlp: what sending costs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, strings.Split(*binaries, ","), strings.Split(*rates, ","), *only, *seconds, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, binaries, rates []string, only string, span time.Duration, rounds int) error {
	dir, err := os.MkdirTemp("", "pilotlight-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	switch only {
	case "software":
		return benchSoftware(ctx, binaries[0], dir)
	case "tables":
		return unwindTables(binaries[0], rounds)
	case "history":
		return benchHistory(ctx, binaries[0], dir)
	case "otlp":
		return benchOTLP(ctx, binaries[0], dir)
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("enable bpf_stats (root?): %w", err)
	}
	defer stats.Close()
	if only == "lines" {
		return benchLines(ctx, dir, span)
	}

	if err := benchStacks(ctx, stack{"10 frames, with frame pointers", "target", keepFrames, []string{"7"}}, true, binaries, rates, only, dir, span, rounds); err != nil {
		return err
	}
	if err := benchStacks(ctx, stack{"35 frames, without frame pointers", "deep", omitFrames, nil}, false, binaries, rates, only, dir, span, rounds); err != nil {
		return err
	}
	if only != "" {
		return nil
	}
	binary := binaries[0]
	if err := benchExecs(ctx, binary, dir, span, rounds); err != nil {
		return err
	}
	if err := benchLines(ctx, dir, span); err != nil {
		return err
	}
	if err := unwindTables(binary, rounds); err != nil {
		return err
	}
	if err := benchHistory(ctx, binary, dir); err != nil {
		return err
	}
	if err := benchOTLP(ctx, binary, dir); err != nil {
		return err
	}
	fmt.Println()
	return benchSoftware(ctx, binary, dir)
}

// stack is what the sampled processes run.
type stack struct {
	name, program string
	flags, args   []string
}

var (
	keepFrames = []string{"-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-inline", "-fno-ipa-cp"}
	omitFrames = []string{"-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"}
)

// benchStacks measures all tools on two processes.
func benchStacks(ctx context.Context, s stack, busy bool, binaries, rates []string, only, dir string, span time.Duration, rounds int) error {
	targets, stop, err := startTargets(ctx, s, dir, 2)
	if err != nil {
		return err
	}
	defer stop() // others would only be slowed
	var list []tool
	for _, rate := range rates {
		hz, err := strconv.Atoi(rate)
		if err != nil {
			return err
		}
		for _, t := range tools(binaries, dir, targets, hz) {
			if strings.Contains(t.name, only) {
				list = append(list, t)
			}
		}
	}
	if busiest := agent(binaries[0], dir, targets, 3000); busy && strings.Contains(busiest.name, only) {
		list = append(list, busiest)
	}
	results := make([]result, len(list))
	for range rounds {
		for i, t := range list {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := measure(ctx, t, span, &results[i]); err != nil {
				return fmt.Errorf("%s at %d Hz: %w", t.name, t.hz, err)
			}
		}
	}
	fmt.Println(s.name)
	printTable(list, results)
	if last := len(list) - 1; last >= 0 && list[last].hz == 3000 {
		r := &results[last]
		perSecond := float64(r.runs) / (span.Seconds() * float64(rounds))
		fmt.Printf("at %.0f samples a second: %.2f us of CPU a sample in user space\n", perSecond, medianOf(r.cpu)*1000/perSecond)
	}
	fmt.Println()
	return nil
}

// benchExecs measures the agent beside a process that execs 100 children a second.
func benchExecs(ctx context.Context, binary, dir string, span time.Duration, rounds int) error {
	program, err := compile(ctx, dir, "execs", keepFrames)
	if err != nil {
		return err
	}
	c := exec.Command(program, "100")
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := c.Start(); err != nil {
		return err
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	t := agent(binary, dir, []int{c.Process.Pid}, 97)
	t.command = append(t.command, "--children")
	var r result
	for range rounds {
		if err := measure(ctx, t, span, &r); err != nil {
			return fmt.Errorf("execs: %w", err)
		}
	}
	fmt.Printf("at 100 execs a second: %.1f ms of CPU a second in user space (%.2f %% of a core)\n", medianOf(r.cpu), medianOf(r.cpu)/10)
	return nil
}

// compile builds a program of testdata.
func compile(ctx context.Context, dir, name string, flags []string) (string, error) {
	program := filepath.Join(dir, name)
	args := append(slices.Clone(flags), "-o", program, "test/bench/testdata/"+name+".c")
	if out, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s.c: %w\n%s", name, err, out)
	}
	return program, nil
}

// startTargets compiles and starts the processes that are sampled.
func startTargets(ctx context.Context, s stack, dir string, n int) (pids []int, stop func(), err error) {
	program, err := compile(ctx, dir, s.program, s.flags)
	if err != nil {
		return nil, nil, err
	}
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		running = nil
	}
	for range n {
		c := exec.Command(program, s.args...)
		c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := c.Start(); err != nil {
			stop()
			return nil, nil, err
		}
		running = append(running, c)
		pids = append(pids, c.Process.Pid)
	}
	return pids, stop, nil
}

// A tool is one program that samples the targets at a rate until it is interrupted.
type tool struct {
	name    string
	hz      int
	program string   // name of its BPF program, "" for none
	command []string // nil: the empty program, run in this process
	pids    []int
}

func tools(binaries []string, dir string, targets []int, hz int) []tool {
	list := make([]string, len(targets))
	filter := make([]string, len(targets))
	for i, pid := range targets {
		list[i] = strconv.Itoa(pid)
		filter[i] = "pid == " + list[i]
	}
	pids, rate := strings.Join(list, ","), strconv.Itoa(hz)
	all := []tool{{name: "empty program", hz: hz, program: "on_empty", pids: targets}}
	for _, binary := range binaries {
		t := agent(binary, dir, targets, hz)
		if len(binaries) > 1 {
			t.name = "pilotlight " + filepath.Base(binary)
		}
		all = append(all, t)
	}
	return append(all,
		tool{name: "bpftrace profile", hz: hz, program: rate, // bpftrace calls it by the rate
			command: []string{"bpftrace", "-e", "profile:hz:" + rate + " /" + strings.Join(filter, " || ") + "/ { @[kstack, ustack, comm] = count(); }"}},
		tool{name: "perf record -g", hz: hz,
			command: []string{"perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", rate, "-p", pids, "-o", filepath.Join(dir, "perf.data")}},
	)
}

// agent is the whole agent, page and metrics included.
func agent(binary, dir string, targets []int, hz int) tool {
	list := make([]string, len(targets))
	for i, pid := range targets {
		list[i] = strconv.Itoa(pid)
	}
	return tool{name: "pilotlight agent", hz: hz, program: "on_sample", command: []string{binary, "agent", "-p", strings.Join(list, ","),
		"-F", strconv.Itoa(hz), "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data")}}
}

// A result is what one tool cost over all rounds.
type result struct {
	runs, nanos uint64
	slices      []float64 // mean ns a run in slices of 100 ms
	cpu         []float64 // user-space CPU, ms a second, by round
	anonKB      []float64
	rssKB       []float64
	mapBytes    uint64
	firstMS     []float64 // from the start to the first run of the BPF program on a target
}

// startTool starts a tool. What ended receives, it receives when the tool has ended by itself; afterwards it is closed.
func startTool(t tool) (cmd *exec.Cmd, ended <-chan error, stop func(), err error) {
	cmd = exec.Command(t.command[0], t.command[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, nil, nil, err
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait(); close(waited) }()
	return cmd, waited, func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-waited:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-waited
		}
	}, nil
}

func measure(ctx context.Context, t tool, span time.Duration, r *result) error {
	if t.command == nil {
		return measureEmpty(ctx, t, span, r)
	}
	begun := time.Now()
	cmd, ended, stop, err := startTool(t)
	if err != nil {
		return err
	}
	defer stop()
	var prog *ebpf.Program
	if t.program != "" {
		if prog, err = awaitProgram(ctx, cmd.Process.Pid, t.program, ended); err != nil {
			return err
		}
		defer prog.Close()
		r.firstMS = append(r.firstMS, float64(time.Since(begun).Milliseconds()))
		if maps, err := mapBytesOf(cmd.Process.Pid); err == nil {
			r.mapBytes = maps
		}
	}
	// Steady state: the start, and the page's first look of two seconds, are over.
	if err := sleep(ctx, 4*time.Second, ended); err != nil {
		return err
	}
	before, err := cpuTime(cmd.Process.Pid)
	if err != nil {
		return err
	}
	from := time.Now()
	if err := watch(ctx, prog, span, r, ended); err != nil {
		return err
	}
	after, err := cpuTime(cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.cpu = append(r.cpu, (after-before).Seconds()*1000/time.Since(from).Seconds())
	anon, rss := memory(cmd.Process.Pid)
	r.anonKB, r.rssKB = append(r.anonKB, anon), append(r.rssKB, rss)
	return nil
}

// watch reads the program's statistics in slices.
func watch(ctx context.Context, prog *ebpf.Program, span time.Duration, r *result, ended <-chan error) error {
	if prog == nil {
		return sleep(ctx, span, ended)
	}
	last, err := prog.Stats()
	if err != nil {
		return err
	}
	for end := time.Now().Add(span); time.Now().Before(end); {
		if err := sleep(ctx, 100*time.Millisecond, ended); err != nil {
			return err
		}
		now, err := prog.Stats()
		if err != nil {
			return err
		}
		runs, nanos := now.RunCount-last.RunCount, uint64(now.Runtime-last.Runtime)
		if runs > 0 {
			r.slices = append(r.slices, float64(nanos)/float64(runs))
		}
		r.runs, r.nanos, last = r.runs+runs, r.nanos+nanos, now
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration, ended <-chan error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return fmt.Errorf("it ended early: %w", errors.Join(err, errors.New("exit")))
	case <-time.After(d):
		return nil
	}
}

// awaitProgram waits until a BPF program of that name, which a process has open, has run, and opens it.
func awaitProgram(ctx context.Context, pid int, name string, ended <-chan error) (*ebpf.Program, error) {
	for range 2000 {
		if p := findProgram(pid, name); p != nil {
			if s, err := p.Stats(); err == nil && s.RunCount > 0 {
				return p, nil
			}
			p.Close()
		}
		if err := sleep(ctx, 5*time.Millisecond, ended); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no BPF program %s runs", name)
}

func findProgram(pid int, name string) *ebpf.Program {
	infos, err := descriptorInfos(pid)
	if err != nil {
		return nil
	}
	for _, fields := range infos {
		id, err := strconv.ParseUint(fields["prog_id"], 10, 32)
		if err != nil {
			continue
		}
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			continue
		}
		if info, err := p.Info(); err == nil && info.Name == name {
			return p
		}
		p.Close()
	}
	return nil
}

// descriptorInfos are what /proc says of each descriptor of a process, from lines such as
//
//	map_id:	17
func descriptorInfos(pid int) (infos []map[string]string, err error) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it was closed
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			fields[key] = strings.TrimSpace(value)
		}
		infos = append(infos, fields)
	}
	return infos, nil
}

// mapBytesOf adds up the BPF maps that a process holds open.
func mapBytesOf(pid int) (sum uint64, err error) {
	infos, err := descriptorInfos(pid)
	if err != nil {
		return 0, err
	}
	seen := make(map[string]bool)
	for _, fields := range infos {
		if id := fields["map_id"]; id != "" && !seen[id] {
			seen[id] = true
			n, _ := strconv.ParseUint(fields["memlock"], 10, 64)
			sum += n
		}
	}
	return sum, nil
}

// cpuTime is what the process used of the CPU, in user and kernel mode, by its scheduler statistics
// (nanoseconds: clock ticks of 10 ms would not do).
func cpuTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

func memory(pid int) (anonKB, rssKB float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "RssAnon:":
			anonKB = n
		case "VmRSS:":
			rssKB = n
		}
	}
	return anonKB, rssKB
}

func printTable(list []tool, results []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "tool\tHz\tBPF mean ns\tmedian ns\truns\tCPU ms/s\tanon RSS MB\tRSS MB\tBPF maps MB\tfirst run ms\t")
	for i, t := range list {
		r := &results[i]
		mean := "-"
		if r.runs > 0 {
			mean = fmt.Sprintf("%.0f", float64(r.nanos)/float64(r.runs))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", t.name, t.hz, mean, median(r.slices, 0, 1), r.runs,
			median(r.cpu, 2, 1), median(r.anonKB, 1, 1024), median(r.rssKB, 1, 1024), megabytes(r.mapBytes), median(r.firstMS, 0, 1))
	}
	w.Flush()
}

func median(values []float64, digits int, unit float64) string {
	if len(values) == 0 {
		return "-"
	}
	return strconv.FormatFloat(medianOf(values)/unit, 'f', digits, 64)
}

func medianOf(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

func megabytes(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(n)/1e6)
}
