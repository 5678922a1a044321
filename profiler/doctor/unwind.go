package doctor

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// An UnwindReport is what the unwind tables of one file are.
type UnwindReport struct {
	Path    string
	Machine objfile.Machine
	Stats   unwind.Stats
	Bytes   int
	// Covered is how many bytes of the code have a rule.
	Covered uint64
	// Gaps are the stretches of code without one, the largest first.
	Gaps []Gap
}

// A Gap is code without a rule.
type Gap struct {
	Start objfile.Address
	Bytes uint64
	// Functions are those that begin in it, if the file names them.
	Functions []string
}

// ExamineUnwinding compiles the unwind tables of an ELF file.
//
// Errors wrap those of [objfile.Parse], [unwind.Compile] and of opening the file.
func ExamineUnwinding(path string) (*UnwindReport, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := objfile.Parse(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	table, err := unwind.Compile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := &UnwindReport{Path: path, Machine: f.Machine(), Stats: table.Stats(), Bytes: table.Bytes()}
	r.findGaps(f, table)
	return r, nil
}

// findGaps looks for code that lies between rows, and keeps as many gaps as a linker may make.
func (r *UnwindReport) findGaps(f *objfile.File, table *unwind.Table) {
	const maxGaps = 1 << 20
	code := f.Code()
	r.Covered = r.Stats.Code
	var at objfile.FileOffset // what is before was looked at
	pass := func(from, to objfile.FileOffset) {
		for len(code) > 0 {
			e := code[0]
			end := e.Off + objfile.FileOffset(e.Size)
			at = max(at, e.Off)
			if until := min(from, end); until > at {
				bytes := uint64(until - at)
				r.Covered -= bytes
				if len(r.Gaps) < maxGaps {
					r.Gaps = append(r.Gaps, Gap{Start: e.Addr + objfile.Address(at-e.Off), Bytes: bytes})
				}
			}
			if from < end {
				at = max(at, to)
			}
			if to < end {
				return
			}
			code = code[1:]
		}
	}
	for row := range table.All {
		pass(row.From, row.To)
	}
	pass(math.MaxUint64, math.MaxUint64)
	slices.SortFunc(r.Gaps, func(a, b Gap) int { return cmp.Compare(a.Start, b.Start) })
	symbols, err := elfsym.Build(f)
	if err == nil {
		r.nameGaps(symbols)
	}
	slices.SortStableFunc(r.Gaps, func(a, b Gap) int { return cmp.Compare(b.Bytes, a.Bytes) })
}

// nameGaps says which functions begin in gaps, which are sorted by their addresses.
func (r *UnwindReport) nameGaps(symbols *elfsym.Table) {
	for symbol := range symbols.All() {
		i, found := slices.BinarySearchFunc(r.Gaps, symbol.Start, func(g Gap, a objfile.Address) int { return cmp.Compare(g.Start, a) })
		if !found {
			i--
		}
		if i >= 0 && uint64(symbol.Start-r.Gaps[i].Start) < r.Gaps[i].Bytes {
			r.Gaps[i].Functions = append(r.Gaps[i].Functions, Printable(symbol.Name))
		}
	}
}

// Printable keeps a name, which comes from any program on the host, from commanding the terminal.
func Printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, name)
}

// shownGaps is how many gaps the text lists.
const shownGaps = 20

// WriteText writes the report for people.
func (r *UnwindReport) WriteText(w io.Writer) error {
	s := r.Stats
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s: %v\n", r.Path, r.Machine)
	fmt.Fprintf(t, "sources\t%s\n", strings.Join(s.Sources, ", "))
	fmt.Fprintf(t, "functions\t%d, %d of them broken\n", s.Functions, s.Broken)
	fmt.Fprintf(t, "rows\t%d; %d more say what rules cannot, and are gaps\n", s.Rows, s.Unsupported)
	fmt.Fprintf(t, "rules\t%d beside those that fit a row\n", s.Rules)
	fmt.Fprintf(t, "memory\t%d bytes, %.2f for a row\n", r.Bytes, float64(r.Bytes)/float64(max(1, s.Rows)))
	fmt.Fprintf(t, "code\t%d of %d bytes have a rule (%.1f %%)\n", r.Covered, s.Code, 100*float64(r.Covered)/float64(max(1, s.Code)))
	kept := "not kept by all functions"
	if s.KeepsFramePointer {
		kept = "kept by all functions that call others"
	}
	fmt.Fprintf(t, "frame pointer\t%s\n", kept)
	for _, err := range s.Damage {
		fmt.Fprintf(t, "damage\t%v\n", err)
	}
	fmt.Fprintf(t, "gaps\t%d, where stacks end with no_rule\n", len(r.Gaps))
	for i, g := range r.Gaps {
		if i == shownGaps {
			fmt.Fprintf(t, "  and %d more\n", len(r.Gaps)-i)
			break
		}
		fmt.Fprintf(t, "  %#x\t%d bytes\t%s\n", uint64(g.Start), g.Bytes, list(g.Functions))
	}
	return t.Flush()
}

// list shows a few names.
func list(names []string) string {
	const most = 8
	text := ""
	for i, name := range names {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(names)-i)
		}
		if i > 0 {
			text += " "
		}
		text += name
	}
	return text
}
