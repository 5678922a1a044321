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
	"slices"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// Write writes p with its lines in order of the stacks.
func Write(w io.Writer, p *profile.Profile) error {
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
	out := bufio.NewWriter(w)
	stacks := make([]string, 0, len(counts))
	for stack := range counts {
		stacks = append(stacks, stack)
	}
	slices.Sort(stacks)
	for _, stack := range stacks {
		fmt.Fprintf(out, "%s %d\n", stack, counts[stack])
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write folded stacks: %w", err)
	}
	return nil
}

// clean keeps a name from being taken for two frames or two lines.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ';':
			return ':'
		case r < ' ' || r == 0x7f:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "\uFFFD"))
}
