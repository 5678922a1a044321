package profiler

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/bpf"
)

// scanSoftirq is a plain reading of the whole text, line by line.
func scanSoftirq(text []byte) bpf.KernelRange {
	for _, name := range []string{"handle_softirqs", "__do_softirq"} {
		var start uint64
		for line := range strings.Lines(string(text)) {
			fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
			var a uint64
			if _, err := fmt.Sscanf(fields[0], "%x", &a); err != nil {
				continue
			}
			if start != 0 && a > start {
				return bpf.KernelRange{Start: start, Size: min(a-start, softirqMost)}
			}
			if start == 0 && fields[len(fields)-1] == name {
				start = a
			}
		}
		if start != 0 {
			return bpf.KernelRange{}
		}
	}
	return bpf.KernelRange{}
}

func findSoftirq(t *testing.T, text []byte, r *rand.Rand, most int) bpf.KernelRange {
	t.Helper()
	f := new(softirqFinder)
	for len(text) > 0 {
		n := min(1+r.IntN(most), len(text))
		chunk := bytes.Clone(text[:n])
		if written, err := f.Write(chunk); written != n || err != nil {
			t.Fatalf("%d of %d bytes taken, %v", written, n, err)
		}
		clear(chunk) // the writer's buffer is used again
		text = text[n:]
	}
	return f.found()
}

// The kernel's own table, in pieces of any size.
func TestSoftirqReal(t *testing.T) {
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	want := scanSoftirq(text)
	if want.Start < 1<<63 || want.Size == 0 {
		t.Fatalf("this kernel's function that runs softirqs is not known (these tests need root): %+v", want)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{13, 100, 4096, 65536, 1 << 20, len(text)} {
		if got := findSoftirq(t, text, r, most); got != want {
			t.Errorf("in pieces of up to %d bytes: %#x, want %#x", most, got, want)
		}
	}
}

// Made-up tables: names that only begin or end like it, either name or both, last of all, in modules.
func TestSoftirqMadeUp(t *testing.T) {
	const before, after = "ffffffff81000000 T _text\nffffffff81000010 t other\n", "ffffffff81000400 T next\nffffffff81000500 T last\n"
	const handle, old = "ffffffff81000100 t handle_softirqs\n", "ffffffff81000200 T __do_softirq\n"
	r := rand.New(rand.NewPCG(3, 4))
	for text, want := range map[string]bpf.KernelRange{
		before + handle + after:       {Start: 0xffffffff81000100, Size: 0x300},
		before + old + after:          {Start: 0xffffffff81000200, Size: 0x200},
		before + handle + old + after: {Start: 0xffffffff81000100, Size: 0x100},
		before + old + strings.Replace(handle, "100 ", "300 ", 1) + after: {Start: 0xffffffff81000300, Size: 0x100},
		handle + after:                               {Start: 0xffffffff81000100, Size: 0x300},
		before + handle:                              {},
		before + handle + handle + after:             {Start: 0xffffffff81000100, Size: 0x300},
		before + handle + before + after:             {Start: 0xffffffff81000100, Size: 0x300},
		before + handle + "ffffffff81900000 T far\n": {Start: 0xffffffff81000100, Size: softirqMost},
		before + handle + after + strings.Replace(handle, "100 ", "600 ", 1) + "ffffffff81000700 t x\n": {Start: 0xffffffff81000100, Size: 0x300},
		before + after: {},
		"":             {},
		before + "ffffffff81000100 t my_handle_softirqs\n" + after:                      {},
		before + "ffffffff81000100 t handle_softirqs.cold\n" + after:                    {},
		before + "ffffffff81000100 t handle_softirqs\t[module]\n" + after:               {},
		"0000000000000000 t handle_softirqs\n0000000000000000 T next\n":                 {}, // what the unprivileged see
		before + handle + "\n\nnonsense\nffffffff81000180 T x\n":                        {Start: 0xffffffff81000100, Size: 0x80},
		before + "ffffffff81000100 t handle_softirqs.cold\n" + handle[:0] + old + after: {Start: 0xffffffff81000200, Size: 0x200},
	} {
		if got := scanSoftirq([]byte(text)); got != want {
			t.Fatalf("the plain scan of %q: %#x, want %#x", text, got, want)
		}
		for range 300 {
			if got := findSoftirq(t, []byte(text), r, 1+r.IntN(80)); got != want {
				t.Errorf("%q: %#x, want %#x", text, got, want)
				break
			}
		}
	}
}

// Whatever the text, the answer does not depend on how it is cut.
func FuzzSoftirq(f *testing.F) {
	f.Add([]byte("ffffffff81000100 t handle_softirqs\nffffffff81000200 T __do_softirq\nffffffff81000300 T x\n"), uint64(1), uint8(10))
	f.Add([]byte("1 t __do_softirq\n3 t __do_softirq\n2 x\n"), uint64(1), uint8(3))
	f.Add([]byte("x1 t handle_softirqs\nffffffff81000200 T __do_softirq\nffffffff81000300 T x\n"), uint64(1), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64, most uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		whole := findSoftirq(t, text, r, len(text)+1)
		if cut := findSoftirq(t, text, r, int(most)+1); cut != whole {
			t.Fatalf("%q: %#x in pieces, %#x as a whole", text, cut, whole)
		}
	})
}
