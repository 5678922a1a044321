package folded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

const (
	// maxBytes is how large a file may be. What it takes in memory is at most some ten times as much.
	maxBytes = 256 << 20
	// maxLine is how long a stack may be: 1,024 names of 4 KiB, four times over.
	maxLine = 16 << 20
)

const (
	kernelSuffix = "_[k]"
	kernelPath   = "[kernel.kallsyms]"
)

// Read reads folded text of any tool: a line for each stack, outermost frame first, and a whole
// number at its end. The innermost frames that end in _[k] are the kernel's, and an outermost frame
// [truncated: REASON] says why callers are missing. Stacks of more than pprof.MaxFrames frames keep the innermost. Errors name the line.
func Read(r io.Reader) (*profile.Profile, error) {
	p, err := read(r, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("read folded stacks: %w", err)
	}
	return p, nil
}

func read(r io.Reader, limit int64) (*profile.Profile, error) {
	f := reader{locations: make(map[string]*profile.Location)}
	p := &profile.Profile{Type: profile.TypeSamples, Period: 1, Foreign: true}
	limited := &io.LimitedReader{R: r, N: limit + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxLine)
	number := 0
	for lines.Scan() {
		if limited.N == 0 { // the line may be cut
			return nil, fmt.Errorf("there is more than %d MiB", limit>>20)
		}
		number++
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" {
			continue
		}
		s, err := f.sample(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		p.Samples = append(p.Samples, s)
		p.Account.Taken += uint64(s.Count)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d: it has more than %d MiB", number+1, maxLine>>20)
	} else if err != nil {
		return nil, err
	}
	p.Account.Exported = p.Account.Taken
	return p, nil
}

type reader struct {
	locations map[string]*profile.Location
}

// noLabels are those of all samples: folded text has none.
var noLabels = new(profile.Labels)

func (f *reader) sample(line string) (profile.Sample, error) {
	space := strings.LastIndexByte(line, ' ')
	if space < 0 {
		return profile.Sample{}, fmt.Errorf("%.40q has no number at its end; want frames separated by ; and a number", line)
	}
	count, err := strconv.ParseInt(line[space+1:], 10, 64)
	if err != nil || count < 0 {
		return profile.Sample{}, fmt.Errorf("%.40q at its end is no number of samples", line[space+1:])
	}
	s := profile.Sample{Labels: noLabels, Count: count, Value: count}
	stack := strings.TrimRight(line[:space], " ")
	if strings.Count(stack, ";") >= pprof.MaxFrames {
		rest := len(stack)
		for range pprof.MaxFrames - 1 { // the innermost, and the reason
			rest = strings.LastIndexByte(stack[:rest], ';')
		}
		stack = pprof.Truncated(pprof.TooDeep) + stack[rest:]
	}
	names := strings.Split(stack, ";")
	user := len(names)
	for user > 0 && strings.HasSuffix(names[user-1], kernelSuffix) {
		user--
	}
	// What is missing of the kernel's side stands between the two.
	if user > 1 && pprof.Reason(clean(names[user-1])) != "" {
		user--
	}
	s.Kernel = f.stack(names[user:])
	s.User = f.stack(names[:user])
	return s, nil
}

// stack takes names from the outermost inwards; nil where there are none.
func (f *reader) stack(names []string) *profile.Stack {
	if len(names) == 0 {
		return nil
	}
	s := new(profile.Stack)
	if s.Truncated = pprof.Reason(clean(names[0])); s.Truncated != "" {
		names = names[1:]
	}
	s.Locations = make([]*profile.Location, len(names))
	for i, name := range names {
		s.Locations[len(names)-1-i] = f.location(name)
	}
	return s
}

var kernel = &profile.Mapping{Path: kernelPath, HasFunctions: true}

func (f *reader) location(text string) *profile.Location {
	if l := f.locations[text]; l != nil {
		return l
	}
	l := &profile.Location{Kind: profile.FrameNative}
	name, isKernel := strings.CutSuffix(text, kernelSuffix)
	if isKernel {
		l.Kind, l.Mapping = profile.FrameKernel, kernel
	}
	l.Lines = []profile.Line{{Function: &profile.Function{Name: clean(name)}}}
	f.locations[strings.Clone(text)] = l
	return l
}
