package profiler

import (
	"bytes"
	"strconv"

	"github.com/pilotlight/pilotlight/bpf"
)

// softirqFinder is shown the text of /proc/kallsyms and finds the function that
// runs softirqs, and where the next one begins:
//
//	ffffffff81362070 t handle_softirqs
type softirqFinder struct {
	partial []byte // the end of a line that is not complete
	start   uint64
	next    uint64
	newest  bool // start is that of the first of softirqNames: nothing else counts any more
}

// The function is handle_softirqs since 6.10, __do_softirq before, where newer
// kernels have one of that name that does not stay on the stack.
var softirqNames = [][]byte{[]byte(" handle_softirqs\n"), []byte(" __do_softirq\n")}

// softirqMost bounds the size where the table is not in order of addresses.
const softirqMost = 16 << 10

// Write looks at one piece of the text, line by line. It never fails.
func (f *softirqFinder) Write(text []byte) (int, error) {
	n := len(text)
	for {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 {
			f.partial = append(f.partial, text...)
			return n, nil
		}
		line := text[:end]
		if len(f.partial) > 0 {
			line = append(f.partial, line...)
			f.partial = f.partial[:0]
		}
		f.line(line)
		text = text[end:]
	}
}

// line takes the function's start, then the first symbol beyond it.
func (f *softirqFinder) line(line []byte) {
	for i, name := range softirqNames {
		if f.newest || i > 0 && f.start != 0 || !bytes.HasSuffix(line, name) {
			continue
		}
		if a := address(line); a != 0 {
			f.start, f.next, f.newest = a, 0, i == 0
			return
		}
	}
	if f.start == 0 || f.next != 0 {
		return
	}
	if a := address(line); a > f.start {
		f.next = a
	}
}

func address(line []byte) uint64 {
	field, _, _ := bytes.Cut(line, []byte{' '})
	a, err := strconv.ParseUint(string(field), 16, 64)
	if err != nil {
		return 0
	}
	return a
}

// found is the function's range, zero where it is not known.
func (f *softirqFinder) found() bpf.KernelRange {
	if f.start == 0 || f.next <= f.start {
		return bpf.KernelRange{}
	}
	return bpf.KernelRange{Start: f.start, Size: min(f.next-f.start, softirqMost)}
}
