package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/folded"
	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/exporter/query"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/exporter/terminal"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

type queryFlags struct {
	dataDir string
	format  string
	output  string
	rows    int
	step    time.Duration
	query   map[string]*string // flags that are parameters of the query language
}

// queryFormats are what query can show.
var queryFormats = []string{"top", "tree", "callers", "series", "labels", "pprof", "folded", "json"}

func newQueryCommand() *cobra.Command {
	f := queryFlags{query: make(map[string]*string)}
	cmd := &cobra.Command{
		Use:   "query [flags]",
		Short: "Ask the history",
		Long: "Query answers from the history that an agent keeps in its data directory, whether the agent runs or not.\n" +
			"Times are RFC 3339, Unix seconds, now, or back from now such as -15m; by default the last 15 minutes are meant.",
		Example: "  pilotlight query --from -1h --filter 'comm=~\"redis.*\"'\n" +
			"  pilotlight query --from -1d --format series --by comm\n" +
			"  pilotlight query --from -7d --format callers --function malloc\n" +
			"  pilotlight query --from 2026-11-24T17:00:00Z --to 2026-11-24T18:00:00Z --format pprof -o hour.pb.gz",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.parse(time.Now())
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), q)
		},
	}
	flags := cmd.Flags()
	for _, p := range query.Parameters {
		f.query[p.Name] = flags.String(p.Name, "", p.Help)
	}
	flags.StringVar(&f.format, "format", "top", strings.Join(queryFormats, ", "))
	flags.StringVar(&f.dataDir, "data-dir", "/var/lib/pilotlight", "the agent's `DIR`")
	flags.StringVarP(&f.output, "output", "o", "-", "write to this `FILE`; - is standard output")
	flags.IntVarP(&f.rows, "rows", "n", 25, "rows of a table, at most")
	flags.DurationVar(&f.step, "step", 0, "of a series, such as 10s or 1m (default: by the time that is asked for)")
	return cmd
}

// parse reads the flags. Its errors are of the command line.
func (f *queryFlags) parse(now time.Time) (q query.Query, err error) {
	for _, p := range query.Parameters {
		if value := *f.query[p.Name]; value != "" {
			if err := q.Set(p.Name, value, now); err != nil {
				return q, err
			}
		}
	}
	if q.To.IsZero() {
		q.To = now
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-15 * time.Minute)
	}
	switch {
	case !slices.Contains(queryFormats, f.format):
		return q, fmt.Errorf("format %q: want %s", f.format, strings.Join(queryFormats, ", "))
	case f.format == "callers" && q.Function == "":
		return q, errors.New("--format callers needs --function NAME: whose callers and callees are wanted")
	case f.format == "labels" && q.By == "":
		return q, fmt.Errorf("--format labels needs --by LABEL (%s)", strings.Join(query.Labels, ", "))
	case (f.format == "labels" || f.format == "series") && q.Hide != nil:
		return q, fmt.Errorf("--hide leaves functions out of stacks, and --format %s shows none: give --ignore to leave samples out", f.format)
	case f.rows < 1:
		return q, fmt.Errorf("rows %d: want 1 or more", f.rows)
	case f.step < 0 || f.step%time.Second != 0:
		return q, fmt.Errorf("step %s: want whole seconds", f.step)
	}
	return q, cmp.Or(q.Kept(), q.Check())
}

// run answers. What a file lacks is said on standard error, and is no failure.
func (f *queryFlags) run(ctx context.Context, q query.Query) (err error) {
	if _, err := os.Stat(f.dataDir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no history in %s: give the --data-dir of the agent", f.dataDir)
		}
		return failure{err}
	}
	out, err := openOutput(f.output)
	if err != nil {
		return failure{err}
	}
	defer out.discard()
	defer out.discardOnSignal()()
	var answer *store.Answer
	if err := out.write(nil, func(w io.Writer, _ *profile.Profile) (err error) {
		answer, err = f.write(ctx, w, q)
		return err
	}); err != nil {
		return failure{err}
	}
	for _, comment := range terminal.Warnings(answer) {
		fmt.Fprintf(os.Stderr, "pilotlight: %s\n", comment)
	}
	return nil
}

func (f *queryFlags) write(ctx context.Context, w io.Writer, q query.Query) (*store.Answer, error) {
	r := store.NewReader(f.dataDir, nil)
	width, _ := columns(os.Stdout)
	o := terminal.QueryOptions{Rows: f.rows, Width: width}
	switch f.format {
	case "labels":
		values, answer, err := r.Labels(ctx, q, q.By)
		if err != nil {
			return nil, err
		}
		return answer, terminal.WriteLabels(w, q.By, values, o)
	case "series":
		if f.step == 0 {
			f.step = store.NiceStep(q.To.Sub(q.From), width)
		}
		series, answer, err := r.Series(ctx, q, f.step)
		if err != nil {
			return nil, err
		}
		return answer, terminal.WriteSeries(w, series, o)
	case "pprof", "folded":
		labels := query.Labels
		if f.format == "folded" {
			labels = []string{q.By}
		}
		p, answer, err := r.Read(ctx, q, labels...)
		if err != nil {
			return nil, err
		}
		selected := flame.Select(p, q.Focus, q.Ignore, q.Hide, q.By)
		if f.format == "folded" {
			return answer, folded.Write(w, selected)
		}
		return answer, pprof.Write(w, selected, terminal.Warnings(answer)...)
	}
	stacks, answer, err := r.Stacks(ctx, q)
	if err != nil {
		return nil, err
	}
	if f.format == "json" {
		return answer, json.NewEncoder(w).Encode(stacks.Tree(0))
	}
	if err := terminal.WriteSummary(w, stacks.Profile); err != nil || stacks.Profile.Account.Exported == 0 {
		return answer, err
	}
	switch f.format {
	case "tree":
		return answer, terminal.WriteTree(w, stacks.Tree(f.rows), o)
	case "callers":
		return answer, terminal.WriteCallers(w, stacks.Stacks, q.Function, o)
	}
	return answer, terminal.WriteTop(w, stacks.Top(), o)
}
