// Package folded writes and reads profiles as folded text, one line for each stack, as
// flamegraph.pl and other viewers read it:
//
//	main;work;read;entry_SYSCALL_64_[k];vfs_read_[k] 42
//
// The outermost frame comes first, the number counts samples, and kernel frames end in _[k].
package folded

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// Write writes p with its lines in order of the stacks.
func Write(w io.Writer, p *profile.Profile) error {
	var s stacks
	s.count(p, 0)
	return s.write(w, func(counts [2]int64) string { return fmt.Sprint(counts[0]) })
}

// WriteDiff writes the stacks of two profiles with both numbers, as difffolded.pl does and flamegraph.pl reads:
//
//	main;work 40 42
//
// Scale is what the numbers before are multiplied by, and then rounded, to be comparable.
func WriteDiff(w io.Writer, before, after *profile.Profile, scale float64) error {
	var s stacks
	s.count(before, 0)
	s.count(after, 1)
	return s.write(w, func(counts [2]int64) string { return fmt.Sprintf("%.0f %d", scale*float64(counts[0]), counts[1]) })
}

// stacks count samples by stack, of one profile or of two. A stack is the numbers of its names, 4 bytes each, outermost first: as text all
// stacks together would take any amount of memory, as names can be a megabyte long.
type stacks struct {
	numbers map[string]uint32
	names   []string
	counts  map[string][2]int64
}

func (s *stacks) count(p *profile.Profile, side int) {
	if s.counts == nil {
		s.numbers, s.counts = make(map[string]uint32), make(map[string][2]int64)
	}
	type function struct {
		*profile.Function
		kind profile.FrameKind
	}
	known := make(map[function]uint32)
	var frames []uint32
	var key []byte
	for i := range p.Samples {
		frames = frames[:0]
		p.Samples[i].Walk(func(l *profile.Location) {
			for _, line := range l.Lines {
				f := function{line.Function, l.Kind}
				n, ok := known[f]
				if !ok {
					name := clean(pprof.Name(f.Function, f.kind))
					if f.kind == profile.FrameKernel {
						name += kernelSuffix
					}
					n = s.number(name)
					known[f] = n
				}
				frames = append(frames, n)
			}
		}, func(reason string) { frames = append(frames, s.number(clean(pprof.Truncated(reason)))) })
		key = key[:0]
		for _, frame := range slices.Backward(frames) {
			key = binary.BigEndian.AppendUint32(key, frame)
		}
		counts := s.counts[string(key)]
		counts[side] += p.Samples[i].Count
		s.counts[string(key)] = counts
	}
}

func (s *stacks) number(name string) uint32 {
	n, ok := s.numbers[name]
	if !ok {
		n = uint32(len(s.names))
		s.numbers[name] = n
		s.names = append(s.names, name)
	}
	return n
}

// write writes a line for each stack, in order of their names from the outermost on.
func (s *stacks) write(w io.Writer, counts func([2]int64) string) error {
	out := bufio.NewWriter(w)
	name := func(key string) string { return s.names[binary.BigEndian.Uint32([]byte(key[:4]))] }
	for _, key := range slices.SortedFunc(maps.Keys(s.counts), func(a, b string) int {
		for len(a) > 0 && len(b) > 0 {
			if a[:4] != b[:4] {
				return strings.Compare(name(a), name(b))
			}
			a, b = a[4:], b[4:]
		}
		return len(a) - len(b)
	}) {
		for rest := key; len(rest) > 0; rest = rest[4:] {
			if len(rest) < len(key) {
				out.WriteByte(';')
			}
			out.WriteString(name(rest))
		}
		fmt.Fprintf(out, " %s\n", counts(s.counts[key]))
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
		case unicode.IsControl(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "\uFFFD"))
}
