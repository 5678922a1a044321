package terminal

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pilotlight/pilotlight/exporter/flame"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// DiffOptions say how a difference is shown.
type DiffOptions struct {
	Before, After string // what the two profiles are called
	Total         bool   // what functions took with what they called, instead of in themselves
	Rows          int    // at most
	Width         int    // columns
	Color         bool
}

// WriteDiff writes a table of the functions that differ most. Those whose difference may well be chance are
// marked by ~, and grey.
func WriteDiff(w io.Writer, d *flame.Difference, o DiffOptions) error {
	out := bufio.NewWriter(w)
	for _, side := range []struct {
		word, name string
		of         *flame.Side
	}{{"before", o.Before, &d.Before}, {"after", o.After, &d.After}} {
		fmt.Fprintf(out, "%-6s  %s\n", side.word, fit(fmt.Sprintf("%s samples in %s: %s", number(side.of.Samples), duration(side.of.Duration), side.name), o.Width-8))
	}
	quantity := "in the function itself"
	if o.Total {
		quantity = "in the function and what it called"
	}
	fmt.Fprintf(out, "\n%s\n", fit(scaleText(d)+", "+quantity, o.Width))
	fmt.Fprintf(out, "~ may well be chance (all others: at most %.0f %% false ones among them)\n\n", 100*flame.FalseDiscoveryRate)
	fmt.Fprintf(out, "  BEFORE    AFTER    CHANGE          Q  FUNCTION\n")

	rows := d.Functions
	for i := range rows[:min(len(rows), o.Rows)] {
		c := &rows[i]
		of := &c.Self
		if o.Total {
			of = &c.Total
		}
		mark := " "
		if !of.Significant {
			mark = "~"
		}
		line := fmt.Sprintf("%s %s  %s %s%9.2g  ", cell(d, of.BeforePart), cell(d, of.AfterPart), signed(d, of.Change()), mark, of.Q)
		line += fit(functionName(c.Function), max(10, o.Width-len(line)))
		if o.Color && !of.Significant {
			line = "\x1b[2m" + line + "\x1b[0m"
		}
		fmt.Fprintln(out, line)
	}
	if left := len(rows) - o.Rows; left > 0 {
		fmt.Fprintf(out, "%s more functions: -n shows more\n", number(int64(left)))
	}
	return out.Flush()
}

func duration(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// scaleText says what the numbers are.
func scaleText(d *flame.Difference) string {
	switch {
	case d.Scale == flame.ByShare:
		return "share of all " + d.Type.Name
	case d.Type == profile.TypeCPU:
		return "CPUs (100 % is one)"
	}
	return d.Type.Unit + " of " + d.Type.Name + " a second"
}

// cell is a quantity in eight columns.
func cell(d *flame.Difference, part float64) string {
	switch {
	case d.Scale == flame.ByShare:
		return fmt.Sprintf("%6.2f %%", 100*part)
	case d.Type == profile.TypeCPU:
		return fmt.Sprintf("%6.2f %%", 100*part/1e9)
	}
	return fmt.Sprintf("%8.3g", part)
}

// signed is a change in eight columns.
func signed(d *flame.Difference, change float64) string {
	text := strings.TrimSpace(cell(d, change))
	if change >= 0 {
		text = "+" + text
	}
	return fmt.Sprintf("%8s", text)
}
