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

// Write looks at one piece of the text. It never fails.
func (f *softirqFinder) Write(text []byte) (int, error) {
	n := len(text)
	if i := bytes.IndexByte(text, '\n'); len(f.partial) > 0 && i >= 0 {
		f.line(append(f.partial, text[:i+1]...))
		f.partial, text = f.partial[:0], text[i+1:]
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	f.partial = append(f.partial, text[end:]...)
	text = text[:end]
	if f.start != 0 && f.next == 0 {
		f.following(text)
	}
	for i, name := range softirqNames {
		at := bytes.Index(text, name)
		if at < 0 || f.newest || i > 0 && f.start != 0 {
			continue
		}
		begin := bytes.LastIndexByte(text[:at], '\n') + 1
		f.line(text[begin : at+len(name)])
		f.following(text[at+len(name):])
		break
	}
	return n, nil
}

// following finds the first later symbol.
func (f *softirqFinder) following(text []byte) {
	for line := range bytes.Lines(text) {
		if a := address(line); a > f.start {
			f.next = a
			return
		}
	}
}

func (f *softirqFinder) line(line []byte) {
	for i, name := range softirqNames {
		if bytes.HasSuffix(line, name) && !f.newest && (i == 0 || f.start == 0) {
			f.start, f.next = address(line), 0
			f.newest = i == 0 && f.start != 0
			return
		}
	}
	if a := address(line); f.start != 0 && f.next == 0 && a > f.start {
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
