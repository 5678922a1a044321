// Package folded writes and reads profiles as folded text, one line for each stack, as
// flamegraph.pl and other viewers read it:
//
//	main;work;read;entry_SYSCALL_64_[k];vfs_read_[k] 42
//
// The outermost frame comes first, the number counts samples, and kernel frames end in _[k].
package folded

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// Write writes p with its lines in order of the stacks.
func Write(w io.Writer, p *profile.Profile) error {
	counts := count(p)
	out := bufio.NewWriter(w)
	for _, stack := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(out, "%s %d\n", stack, counts[stack])
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write folded stacks: %w", err)
	}
	return nil
}

// WriteDiff writes the stacks of two profiles with both numbers, as difffolded.pl does and flamegraph.pl reads:
//
//	main;work 40 42
//
// Scale is what the numbers before are multiplied by, and then rounded, to be comparable.
func WriteDiff(w io.Writer, before, after *profile.Profile, scale float64) error {
	a, b := count(before), count(after)
	stacks := slices.Collect(maps.Keys(a))
	for stack := range b {
		if _, ok := a[stack]; !ok {
			stacks = append(stacks, stack)
		}
	}
	slices.Sort(stacks)
	out := bufio.NewWriter(w)
	for _, stack := range stacks {
		fmt.Fprintf(out, "%s %.0f %d\n", stack, scale*float64(a[stack]), b[stack])
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write folded stacks: %w", err)
	}
	return nil
}

// count gives the samples of each stack, as it is written.
func count(p *profile.Profile) map[string]int64 {
	counts := make(map[string]int64)
	var frames []string
	for i := range p.Samples {
		frames = frames[:0]
		p.Samples[i].Walk(func(l *profile.Location) {
			for _, line := range l.Lines {
				name := clean(demangle.Simple(line.Function.Name))
				if l.Kind == profile.FrameKernel {
					name += kernelSuffix
				}
				frames = append(frames, name)
			}
		}, func(reason string) { frames = append(frames, clean(pprof.Truncated(reason))) })
		slices.Reverse(frames)
		counts[strings.Join(frames, ";")] += p.Samples[i].Count
	}
	return counts
}

// clean keeps a name from being taken for two frames or two lines.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ';':
			return ':'
		case unicode.IsControl(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "\uFFFD"))
}
