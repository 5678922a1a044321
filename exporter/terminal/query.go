package terminal

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/exporter/store"
	"github.com/pilotlight/pilotlight/profiler/doctor"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// QueryOptions say how an answer of the history is shown.
type QueryOptions struct {
	Rows  int // at most
	Width int // columns
}

// WriteSummary writes what a profile of the past is of, in a line or two.
func WriteSummary(w io.Writer, p *profile.Profile) error {
	if p.Account.Exported == 0 {
		_, err := fmt.Fprintln(w, "no samples")
		return err
	}
	_, err := fmt.Fprintf(w, "%s samples of %s in %s from %s\n", number(p.Account.Exported), fit(p.Type.Name, 20), duration(p.Duration), p.Start.Local().Format(time.DateTime))
	if lost := p.Account.Taken - p.Account.Exported; lost > 0 && err == nil {
		_, err = fmt.Fprintf(w, "%s samples were lost\n", number(lost))
	}
	return err
}

// Warnings say what an answer lacks, in words that are fit for a terminal and for the comments of a profile.
func Warnings(answer *store.Answer) []string {
	var words []string
	for _, warning := range answer.Warnings {
		words = append(words, "left out: "+doctor.Printable(warning.Error()))
	}
	return words
}

func functionName(f flame.Function) string {
	if f.Module == "" {
		return f.Name
	}
	return f.Name + " [" + strings.Trim(f.Module, "[]") + "]"
}

func share(part, whole int64) string {
	if whole == 0 {
		return "      -"
	}
	return percentage(float64(part) / float64(whole))
}

// WriteTop writes the hottest functions.
func WriteTop(w io.Writer, table *flame.Table, o QueryOptions) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "\n%7s  %7s  FUNCTION\n", "SELF", "TOTAL")
	for _, r := range table.Rows[:min(len(table.Rows), o.Rows)] {
		fmt.Fprintf(out, "%s  %s  %s\n", share(r.Self.Value, table.Total.Value), share(r.Total.Value, table.Total.Value), fit(functionName(r.Function), o.Width-18))
	}
	writeMore(out, len(table.Rows)-o.Rows, "functions")
	return out.Flush()
}

func writeMore(out io.Writer, left int, of string) {
	if left > 0 {
		fmt.Fprintf(out, "%s more %s: -n shows more\n", number(int64(left)), of)
	}
}

// WriteTree writes the heaviest ways through a tree, a line for each function, indented below its caller. What
// calls one function alone stands at the same depth.
func WriteTree(w io.Writer, tree *flame.Tree, o QueryOptions) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "\n%7s  %7s  FUNCTION\n", "TOTAL", "SELF")
	written := 0
	whole := tree.Root.Total.Value
	// Lines are given to the heaviest nodes of all; the lightest that gets one is found by weight.
	least, ties := tree.Heaviest(o.Rows)
	var write func(n *flame.Node, depth int)
	write = func(n *flame.Node, depth int) {
		for _, c := range n.Children {
			if c.Total.Value < least || c.Total.Value == least && ties == 0 {
				return
			}
			if c.Total.Value == least {
				ties--
			}
			written++
			indent := strings.Repeat("  ", min(depth, (o.Width-18)/4))
			fmt.Fprintf(out, "%s  %s  %s%s\n", share(c.Total.Value, whole), share(c.Self.Value, whole), indent, fit(functionName(*c.Function), o.Width-18-len(indent)))
			next := depth + 1
			if c.Calls() == 1 && n.Calls() == 1 {
				next = depth
			}
			write(c, next)
		}
	}
	write(tree.Root, 0)
	writeMore(out, tree.Nodes-written, "lines")
	return out.Flush()
}

// WriteCallers writes who calls a function, the function, and whom it calls.
func WriteCallers(w io.Writer, s *flame.Stacks, name string, o QueryOptions) error {
	out := bufio.NewWriter(w)
	table := s.Top()
	fmt.Fprintln(out)
	list := func(neighbours []flame.Neighbour) {
		for _, n := range neighbours[:min(len(neighbours), o.Rows)] {
			fmt.Fprintf(out, "%s             %s\n", share(n.Weight.Value, table.Total.Value), fit(functionName(n.Function), o.Width-20))
		}
		writeMore(out, len(neighbours)-o.Rows, "functions")
	}
	fmt.Fprintln(out, "  TOTAL     SELF  callers")
	list(s.Callers(name))
	for _, r := range table.Rows {
		if r.Name == name {
			fmt.Fprintf(out, "%s  %s  %s\n", share(r.Total.Value, table.Total.Value), share(r.Self.Value, table.Total.Value), fit(functionName(r.Function), o.Width-18))
		}
	}
	fmt.Fprintln(out, "                  callees")
	list(s.Callees(name))
	return out.Flush()
}

// WriteLabels writes the values of a label.
func WriteLabels(w io.Writer, name string, values []store.LabelValue, o QueryOptions) error {
	out := bufio.NewWriter(w)
	var whole int64
	for _, v := range values {
		whole += v.Samples
	}
	fmt.Fprintf(out, "%12s  %7s  %s\n", "SAMPLES", "SHARE", strings.ToUpper(name))
	for _, v := range values[:min(len(values), o.Rows)] {
		fmt.Fprintf(out, "%12s  %s  %s\n", number(v.Samples), share(v.Samples, whole), fit(cmp.Or(v.Label, "(none)"), o.Width-23))
	}
	writeMore(out, len(values)-o.Rows, "values")
	return out.Flush()
}

// bars are eight heights.
var bars = []rune("▁▂▃▄▅▆▇█")

// WriteSeries writes a line of bars for each value of the label, all in one scale but for the sum of the others.
func WriteSeries(w io.Writer, s *store.Series, o QueryOptions) error {
	out := bufio.NewWriter(w)
	if len(s.Lines) == 0 {
		fmt.Fprintln(out, "no samples")
		return out.Flush()
	}
	const before = 30 // label and sum
	columns := max(10, o.Width-before)
	each := (s.Steps + columns - 1) / columns // steps of a bar
	var most int64
	sums := make([][]int64, len(s.Lines))
	for i, l := range s.Lines {
		sums[i] = make([]int64, (s.Steps+each-1)/each)
		for t, n := range l.Samples {
			sums[i][t/each] += n
		}
		if !l.Others || len(s.Lines) == 1 { // the sum of many would make all others flat
			most = max(most, slices.Max(sums[i]))
		}
	}
	fmt.Fprintf(out, "a bar is %s, the highest %s samples; from %s\n", time.Duration(each)*s.Step, number(most), s.From.Local().Format(time.DateTime))
	for i, l := range s.Lines {
		var total int64
		var line strings.Builder
		for _, n := range sums[i] {
			total += n
			if n == 0 {
				line.WriteByte(' ')
				continue
			}
			line.WriteRune(bars[min(int64(len(bars)-1), n*int64(len(bars))/(most+1))])
		}
		label := cmp.Or(l.Label, "(all)")
		if l.Others {
			label = "(others)"
		}
		fmt.Fprintf(out, "%s %10s  %s\n", pad(label, 16), number(total), line.String())
	}
	return out.Flush()
}
