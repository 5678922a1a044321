package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/terminal"
	"github.com/pilotlight/pilotlight/profiler"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

type topFlags struct {
	samplingFlags
	once     bool
	duration time.Duration
	rows     int
}

func newTopCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live what runs and what is hot",
		Long: "Top samples the host or the given target, and shows the busiest processes and the hottest functions of the\n" +
			"last ten seconds. Enter goes into a process, and into the callers and callees of a function; ? tells all keys.\n" +
			"With --once it samples for a while, prints the same as text, and ends.",
		Example: "  pilotlight top\n" +
			"  pilotlight top --comm redis\n" +
			"  pilotlight top --once -d 5s -p 1234",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.duration <= 0:
				return fmt.Errorf("duration %s: want a positive time", f.duration)
			case cmd.Flags().Changed("duration") && !f.once:
				return errors.New("--duration goes with --once")
			case f.rows < 1:
				return fmt.Errorf("rows %d: want 1 or more", f.rows)
			case !f.once && !(isTerminal(os.Stdin) && isTerminal(os.Stdout)):
				return errors.New("top needs a terminal on standard input and output: give --once to print once")
			}
			if err := f.samplingFlags.check(cmd.Flags()); err != nil {
				return err
			}
			return top(&f)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVar(&f.once, "once", false, "print once, and end")
	cmd.Flags().DurationVarP(&f.duration, "duration", "d", 2*time.Second, "with --once: sample for this long")
	cmd.Flags().IntVarP(&f.rows, "rows", "n", 20, "with --once: functions, at most; half as many processes")
	return cmd
}

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

func top(f *topFlags) error {
	config, err := f.config()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	if f.once {
		err = topOnce(ctx, f, config)
	} else {
		err = topLive(ctx, f, config)
	}
	if err != nil {
		return failure{err}
	}
	return nil
}

func topOnce(ctx context.Context, f *topFlags, config profiler.Config) (err error) {
	var last *profile.Profile
	config.Interval, config.Sink = math.MaxInt64, func(p *profile.Profile) { last = p }
	config.Log = logger(false)
	p, err := profiler.Start(config)
	if err != nil {
		return err
	}
	defer closeInto(&err, p)
	sayLosses(p)
	select {
	case <-time.After(f.duration):
	case <-ctx.Done():
	case <-p.Done():
	}
	if err := p.Stop(); err != nil || last == nil {
		return err
	}
	width, _ := columns(os.Stdout)
	return terminal.WriteOnce(os.Stdout, terminal.Options{Target: f.samplingFlags.String(), FrequencyHz: f.frequency}, last, f.rows, width)
}

// refresh is how often the view shows something new.
const refresh = time.Second

func topLive(ctx context.Context, f *topFlags, config profiler.Config) (err error) {
	// The view takes its time to draw, the sampling does not wait for it: of what was not looked at, the latest is kept.
	profiles := make(chan *profile.Profile, 1)
	config.Interval, config.Sink = refresh, func(p *profile.Profile) {
		select {
		case <-profiles:
		default:
		}
		profiles <- p
	}
	p, err := profiler.Start(config) // without a log: its lines would be written across the view
	if err != nil {
		return err
	}
	defer closeInto(&err, p)
	sayLosses(p) // seen when the view has ended
	return terminal.Show(ctx, f.options(config, p), profiles)
}

func (f *topFlags) options(config profiler.Config, p *profiler.Profiler) terminal.Options {
	return terminal.Options{Target: f.samplingFlags.String(), FrequencyHz: f.frequency, State: func() string {
		select {
		case <-p.Done():
			return "sampling has ended"
		default:
		}
		if config.Target.HasPIDs() && !p.HasTargets() {
			return "no target process is left"
		}
		return ""
	}}
}
