package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

type recordFlags struct {
	samplingFlags
	duration time.Duration
	output   string
	format   string
	// timestamps says that each sample keeps when it was taken.
	timestamps bool
	verbose    bool
}

func newRecordCommand() *cobra.Command {
	var f recordFlags
	cmd := &cobra.Command{
		Use:   "record [flags] [-- CMD ARG...]",
		Short: "Profile once and write a file",
		Long: "Record samples the host, the given target, or CMD and its descendants, until the duration is over,\n" +
			"the target or CMD has ended, or it is interrupted; then it writes the profile.\n" +
			"With CMD it returns CMD's status (128+signal); 0 when it is interrupted (SIGINT, SIGTERM, SIGHUP), or when\n" +
			"the duration is over before CMD has ended: CMD then goes on running.",
		Example: "  pilotlight record -d 10s\n" +
			"  pilotlight record -p 1234 --children -F 499 -d 30s -o app.pb.gz\n" +
			"  pilotlight record --format folded -o - -- make -j8",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("duration") && f.duration <= 0 {
				return fmt.Errorf("duration %s: want a positive time", f.duration)
			}
			if err := f.samplingFlags.check(cmd.Flags()); err != nil {
				return err
			}
			if name := defaultOutputs[f.format]; name != "" && !cmd.Flags().Changed("output") {
				f.output = name
			}
			return record(&f, args)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().DurationVarP(&f.duration, "duration", "d", 0, "sample for this long, such as 4s (default: until interrupted or the target has ended)")
	cmd.Flags().StringVarP(&f.output, "output", "o", "profile.pb.gz", "write to this `FILE` (profile.folded, profile.html, profile.speedscope.json, profile.otlp.pb for these formats), gzipped where its name ends in .gz; - is standard output")
	cmd.Flags().StringVar(&f.format, "format", "pprof", "pprof, folded, html (one file that opens in a browser, offline), speedscope, or otlp (of OpenTelemetry)")
	cmd.Flags().BoolVar(&f.timestamps, "timestamps", false, "with --format otlp: keep when each sample was taken, not only how many there were")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "say on stderr what could not be read, and why")
	// What stands after the first word that is no flag belongs to CMD.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// record is the command: first everything that the command line can get wrong,
// then what the machine can refuse.
func record(f *recordFlags, args []string) error {
	config, err := f.config()
	if err != nil {
		return err
	}
	write, err := f.check(args)
	if err != nil {
		return err
	}
	config.Log = logger(f.verbose)
	out, err := openOutput(f.output)
	if err != nil {
		return failure{err}
	}
	r := recording{flags: f, config: config, signals: make(chan os.Signal, 2)}
	signal.Notify(r.signals, endSignals()...)
	p, status, err := r.run(args)
	if p == nil {
		out.discard()
		return failure{err}
	}
	if err != nil {
		sayError(err) // what was collected until then is written all the same
	}
	if writeErr := out.write(p, write); writeErr != nil {
		out.discard()
		return failure{rescued(writeErr, p, f.output, write)}
	}
	summarize(os.Stderr, p, out.path)
	if err != nil {
		return exitError{exitFailure}
	}
	if status != 0 {
		return exitError{status}
	}
	return nil
}

func rescued(err error, p *profile.Profile, name string, write func(io.Writer, *profile.Profile) error) error {
	place, rescueErr := rescue(p, name, write)
	if rescueErr != nil {
		return fmt.Errorf("%w; and it could be written nowhere else: %w", err, rescueErr)
	}
	return fmt.Errorf("%w; the profile was saved as %s instead", err, place)
}

func (f *recordFlags) check(args []string) (func(io.Writer, *profile.Profile) error, error) {
	write, ok := formats[f.format]
	if !ok {
		return nil, fmt.Errorf("format %q: want one of %s", f.format, strings.Join(formatNames(), ", "))
	}
	if f.timestamps && f.format != "otlp" {
		return nil, fmt.Errorf("format %s does not hold when samples were taken: --timestamps goes with --format otlp", f.format)
	}
	if f.output == "" {
		return nil, errors.New("output: want a file name, or - for standard output")
	}
	if len(args) > 0 && f.set() {
		return nil, errors.New("give a target or a command to run, not both")
	}
	return zippedByName(f.output, f.format, write), nil
}

func logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

type recording struct {
	flags   *recordFlags
	config  profiler.Config
	signals chan os.Signal
	command *heldCommand
	profile *profile.Profile
}

// run samples until the end and gives the profile and CMD's status. A profile may
// come with an error.
func (r *recording) run(args []string) (*profile.Profile, int, error) {
	r.config.Interval = math.MaxInt64 // one interval: from the start to the end
	r.config.SampleTimes = r.flags.timestamps
	r.config.Sink = func(p *profile.Profile) { r.profile = p }
	if len(args) > 0 {
		if _, err := exec.LookPath(args[0]); err != nil {
			return nil, 0, fmt.Errorf("start %s: %w", args[0], errors.Unwrap(err))
		}
		command, err := holdCommand(args)
		if err != nil {
			return nil, 0, err
		}
		r.command = command
		r.config.Target = profiler.Target{PIDs: []int{command.cmd.Process.Pid}, Children: true}
	}
	// To collect garbage all goroutines are stopped, and on a busy machine that waits for a thread that waits for a CPU: files that live for a moment
	// are missed meanwhile. These bytes are never touched, and take no memory; they let 16 MB more of garbage gather.
	slack := make([]byte, 16<<20)
	defer runtime.KeepAlive(slack)
	p, err := profiler.Start(r.config)
	if err != nil {
		if r.command != nil {
			_ = r.command.cmd.Process.Kill()
		}
		return nil, 0, err
	}
	sayLosses(p)
	status, err := r.wait(p)
	stopErr := p.Stop()
	stats, statsErr := p.Stats(context.Background())
	if r.profile != nil && statsErr == nil {
		// Sampling has stopped and the ring is empty: the kernel side's own count is the one of this span.
		r.profile.Account.Taken = stats.BPF.Taken
		r.profile.Account.Filtered += stats.Filtered
	}
	return r.profile, status, errors.Join(err, stopErr, statsErr, p.Close())
}

// wait returns when the recording is to end.
func (r *recording) wait(p *profiler.Profiler) (status int, err error) {
	var deadline <-chan time.Time
	if r.flags.duration > 0 {
		deadline = time.After(r.flags.duration)
	}
	var ended <-chan int
	var gone <-chan struct{}
	if r.command != nil {
		ended = r.command.ended
		if err := r.command.release(); err != nil {
			return 0, err
		}
	} else if len(r.config.Target.PIDs) > 0 && !r.config.Target.Children {
		gone = exits(r.config.Target.PIDs)
	}
	progress := newProgress(os.Stderr)
	defer progress.clear()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case s := <-r.signals:
			progress.clear()
			r.interrupt(s, ended)
			return 0, nil
		case status := <-ended:
			return status, nil
		case <-gone:
			return 0, nil
		case <-deadline:
			progress.clear()
			r.leave(ended, 0)
			return 0, nil
		case <-p.Done():
			return 0, nil
		case <-tick.C:
			if r.config.Target.HasPIDs() && r.command == nil && !p.HasTargets() {
				return 0, nil // with all their descendants
			}
			progress.show(p, r.flags.duration)
		}
	}
}

// interrupt passes the signal on to the command, and gives it a moment to end.
func (r *recording) interrupt(s os.Signal, ended <-chan int) {
	if r.command == nil {
		return
	}
	// A terminal sends Ctrl-C to the whole foreground group: CMD has it already.
	if s != os.Interrupt || !foreground() {
		_ = r.command.cmd.Process.Signal(s)
	}
	r.leave(ended, 2*time.Second)
}

// leave says so if the command has not ended after the patience.
func (r *recording) leave(ended <-chan int, patience time.Duration) {
	if r.command == nil {
		return
	}
	select {
	case <-ended:
	case <-time.After(patience):
		fmt.Fprintf(os.Stderr, "pilotlight: process %d goes on running\n", r.command.cmd.Process.Pid)
	}
}

// foreground says whether the terminal sends its signals to this process and what it started.
func foreground() bool {
	group, err := unix.IoctlGetInt(int(os.Stderr.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exits is closed when all processes have ended; never where the kernel cannot tell.
func exits(pids []int) <-chan struct{} {
	var fds []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil
		}
		fds = append(fds, fd)
	}
	done := make(chan struct{})
	go func() {
		for _, fd := range fds {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			for {
				if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
					break
				}
			}
			_ = unix.Close(fd)
		}
		close(done)
	}()
	return done
}

// progress is one line that is written over and over, on terminals only.
type progress struct {
	w        *os.File
	terminal bool
	shown    bool
	begun    time.Time
}

func newProgress(w *os.File) *progress {
	_, err := unix.IoctlGetTermios(int(w.Fd()), unix.TCGETS)
	return &progress{w: w, terminal: err == nil, begun: time.Now()}
}

const clearLine = "\r\x1b[K"

func (p *progress) show(profiler *profiler.Profiler, of time.Duration) {
	if !p.terminal {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stats, err := profiler.Stats(ctx)
	if err != nil {
		return
	}
	p.shown = true
	elapsed := time.Since(p.begun).Round(100 * time.Millisecond).String()
	if of > 0 {
		elapsed += " of " + of.String()
	}
	fmt.Fprintf(p.w, "%srecording %s: %d samples, %d lost (Ctrl-C ends and writes)", clearLine, elapsed, stats.BPF.Taken, stats.BPF.LostRingFull)
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
	}
}

// plural is the noun with its number.
func plural(n uint64, noun string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, strings.TrimSuffix(noun, "s"))
}
