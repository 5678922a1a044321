package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/terminal"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

type diffFlags struct {
	dataDir    string
	sampleType string
	scale      string
	format     string
	output     string
	rows       int
	total      bool
	query      map[string]*string // flags that are parameters of the query language
}

func newDiffCommand() *cobra.Command {
	f := diffFlags{query: make(map[string]*string)}
	cmd := &cobra.Command{
		Use:   "diff [flags] BEFORE AFTER",
		Short: "Compare two profiles",
		Long: "Diff tells which functions take more or less of AFTER than of BEFORE, and which of that may well be chance.\n" +
			"Each of the two is a file (pprof or OTLP of any tool, or folded text; - is standard input), or a range\n" +
			"of the agent's history, FROM..TO, with times as RFC 3339, Unix seconds, now, or -15m.\n" +
			"docs/diff.md says how chance is told from change.",
		Example: "  pilotlight diff old.pb.gz new.pb.gz\n" +
			"  pilotlight diff --by time --filter 'comm=~\"redis.*\"' -1d30m..-1d -30m..now\n" +
			"  pilotlight diff --format folded old.pb.gz new.pb.gz | flamegraph.pl >diff.svg",
		DisableFlagParsing: true, // -30m..now is no flag
		RunE: func(cmd *cobra.Command, args []string) error {
			args, help, err := parseWithRanges(cmd.Flags(), args)
			if err != nil {
				return err
			}
			if help {
				return cmd.Help()
			}
			return diff(cmd.Context(), &f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dataDir, "data-dir", "/var/lib/pilotlight", "the agent's `DIR`, for ranges")
	flags.StringVar(&f.sampleType, "type", "", "compare values of this `TYPE`, such as cpu or inuse_space (default: that of the file; cpu for ranges)")
	flags.StringVar(&f.scale, "by", string(flame.ByShare), "compare by share of all samples, or by time: what was taken in a second")
	flags.StringVar(&f.format, "format", "table", "table, json, folded (the stacks with both numbers, as difffolded.pl writes them), or pprof (AFTER less BEFORE, as go tool pprof -diff_base)")
	flags.StringVarP(&f.output, "output", "o", "-", "write to this `FILE`; - is standard output")
	flags.IntVarP(&f.rows, "rows", "n", 25, "rows of the table, at most")
	flags.BoolVar(&f.total, "total", false, "compare functions with what they called, not in themselves")
	for _, p := range query.Parameters {
		if slices.Contains([]string{"filter", "focus", "ignore", "hide"}, p.Name) {
			f.query[p.Name] = flags.String(p.Name, "", p.Help)
		}
	}
	return cmd
}

// dashedRange is a range that begins with a dash. No flag begins with a digit.
var dashedRange = regexp.MustCompile(`^-\d.*\.\.`)

// parseWithRanges is what cobra does, for arguments that may be ranges: these begin with a dash.
func parseWithRanges(flags *pflag.FlagSet, args []string) (positional []string, help bool, err error) {
	const guard = " "
	guarded := slices.Clone(args)
	for i, arg := range guarded {
		if dashedRange.MatchString(arg) {
			guarded[i] = guard + arg
		}
	}
	if err := flags.Parse(guarded); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return nil, false, err
	} else if err != nil {
		return nil, true, nil
	}
	for _, arg := range flags.Args() {
		positional = append(positional, strings.TrimPrefix(arg, guard))
	}
	help, err = flags.GetBool("help")
	return positional, help, err
}

func diff(ctx context.Context, f *diffFlags, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	now := time.Now()
	var queries [2]query.Query
	var ranges [2]bool
	for i, arg := range args {
		var err error
		if queries[i], ranges[i], err = f.parseRange(arg, now); err != nil {
			return err
		}
	}
	var sides [2]*profile.Profile
	for i, arg := range args {
		q := queries[i]
		var p *profile.Profile
		var err error
		if ranges[i] {
			p, err = f.history(ctx, q, arg)
		} else {
			p, err = readProfile(arg, f.sampleType)
			p = filtered(p, q.Filter)
		}
		if err != nil {
			return failure{err}
		}
		sides[i] = flame.Select(p, q.Focus, q.Ignore, q.Hide, "")
	}
	before, after := comparable(sides[0], sides[1])
	d, err := flame.Diff(before, after, flame.Scale(f.scale))
	if err != nil {
		return failure{fmt.Errorf("%s and %s: %w", args[0], args[1], err)}
	}
	out, err := openOutput(f.output)
	if err != nil {
		return failure{err}
	}
	defer out.discard()
	defer out.discardOnSignal()()
	if err := out.write(nil, func(w io.Writer, _ *profile.Profile) error { return f.write(w, d, before, after, args) }); err != nil {
		return failure{err}
	}
	return nil
}

func (f *diffFlags) check(args []string) error {
	switch {
	case len(args) != 2:
		return fmt.Errorf("diff compares two profiles, got %d: give BEFORE and AFTER, files or ranges such as -1h..-30m", len(args))
	case args[0] == "-" && args[1] == "-":
		return errors.New("standard input can be one of the two profiles, not both")
	case f.scale != string(flame.ByShare) && f.scale != string(flame.ByTime):
		return fmt.Errorf("by %q: want share or time", f.scale)
	case !slices.Contains([]string{"table", "json", "folded", "pprof"}, f.format):
		return fmt.Errorf("format %q: want table, json, folded or pprof", f.format)
	case f.rows < 1:
		return fmt.Errorf("rows %d: want 1 or more", f.rows)
	}
	return nil
}

// parseRange gives what is asked for, with the range where arg is one.
func (f *diffFlags) parseRange(arg string, now time.Time) (q query.Query, isRange bool, err error) {
	for name, value := range f.query {
		if *value == "" {
			continue
		}
		if err := q.Set(name, *value, now); err != nil {
			return q, false, err
		}
	}
	from, to, ok := strings.Cut(arg, "..")
	if !ok {
		return q, false, nil
	}
	if _, err := os.Stat(arg); err == nil {
		return q, false, nil // a file of that name
	}
	var fromErr, toErr error
	q.From, fromErr = query.ParseTime(from, now)
	q.To, toErr = query.ParseTime(to, now)
	if fromErr != nil && toErr != nil {
		return q, false, nil // such as ../old.pb.gz
	}
	if err := errors.Join(fromErr, toErr); err != nil {
		return q, true, fmt.Errorf("range %s: %w", arg, err)
	}
	if err := q.Check(); err != nil {
		return q, true, fmt.Errorf("range %s: %w", arg, err)
	}
	q.Type = f.sampleType
	return q, true, nil
}

func (f *diffFlags) history(ctx context.Context, q query.Query, arg string) (*profile.Profile, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	p, err := store.NewReader(f.dataDir, log).Profile(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(p.Samples) == 0 {
		return nil, fmt.Errorf("the history in %s has no samples in %s that match: is it the agent's --data-dir?", f.dataDir, arg)
	}
	return p, nil
}

// filtered does for files what the reader of the history does by itself.
func filtered(p *profile.Profile, f query.Filter) *profile.Profile {
	if p == nil || f == nil {
		return p
	}
	out := *p
	out.Samples = nil
	for i := range p.Samples {
		if f.Matches(p.Samples[i].Labels) {
			out.Samples = append(out.Samples, p.Samples[i])
		}
	}
	return &out
}

// readProfile reads a file: pprof, OTLP, or folded text.
func readProfile(path, sampleType string) (p *profile.Profile, err error) {
	err = withInput(path, func(r io.Reader) error {
		if p, err = readAny(r, sampleType); err != nil {
			return err
		}
		return flame.Check(p)
	})
	return p, err
}

// comparable counts samples on both sides where one is folded text, which has no values.
func comparable(a, b *profile.Profile) (*profile.Profile, *profile.Profile) {
	if a.Type == b.Type || a.Type != profile.TypeSamples && b.Type != profile.TypeSamples {
		return a, b
	}
	return inSamples(a), inSamples(b)
}

func inSamples(p *profile.Profile) *profile.Profile {
	out := *p
	out.Type, out.Period = profile.TypeSamples, 0
	out.Samples = slices.Clone(p.Samples)
	for i := range out.Samples {
		out.Samples[i].Value = out.Samples[i].Count
	}
	return &out
}

func (f *diffFlags) write(out io.Writer, d *flame.Difference, before, after *profile.Profile, args []string) error {
	d.Sort(f.total)
	switch f.format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(d)
	case "folded":
		return folded.WriteDiff(out, before, after, d.Factor())
	case "pprof":
		return pprof.WriteDiff(out, before, after, d.Factor())
	}
	width, isTerminal := columns(os.Stdout)
	return terminal.WriteDiff(out, d, terminal.DiffOptions{
		Before: args[0], After: args[1], Total: f.total, Rows: f.rows, Width: width, Color: isTerminal && os.Getenv("NO_COLOR") == "",
	})
}

// columns is the width of a terminal; 80 where it is none.
func columns(file *os.File) (width int, isTerminal bool) {
	const usual = 80
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return usual, false
	}
	if size.Col < 40 {
		return usual, true
	}
	return int(size.Col), true
}
