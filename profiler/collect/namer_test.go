package collect

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
	"github.com/pilotlight/pilotlight/profiler/profile"
)

// oneStack gives the same frames under every key.
type oneStack []bpf.Frame

func (s oneStack) AppendStack(frames []bpf.Frame, _ uint64) ([]bpf.Frame, error) {
	return append(frames, s...), nil
}

// A sample that comes late, from before a mapping was replaced, has the names of its own time, and those after it
// have theirs: the address is the same, the code is not.
func TestNamerLateSample(t *testing.T) {
	const pid, address, size = 1 << 23, 0x10000000, 0x1000 // no process has that number
	files := process.NewFiles()
	defer files.Close()
	table := process.NewTable(files, slog.New(slog.DiscardHandler))
	n := newNamer(table, files, nil, nil)
	n.source = oneStack{bpf.RawFrame(address + 0x10)}

	mmap := func(name string, time uint64) {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("no ELF file"), 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		table.Apply(&process.Event{
			Kind: process.EventMmap, Time: time, PID: pid, TID: pid, Name: path,
			Mapping: process.Mapping{Start: address, End: address + size, Since: time},
			File:    process.FileKey{Major: unix.Major(stat.Dev), Minor: unix.Minor(stat.Dev), Inode: stat.Ino},
		})
	}
	check := func(time uint64, want string) {
		t.Helper()
		stack := n.userStack(table.At(pid, time), &bpf.Sample{TimeNs: time, Pid: pid, UserStack: 1})
		if got := stack.Locations[0].Lines[0].Function.Name; got != want {
			t.Errorf("sample at %d is in %s, want %s", time, got, want)
		}
	}

	table.Apply(&process.Event{Kind: process.EventExec, Time: 1, PID: pid, TID: pid, Name: "late"})
	mmap("old", 10)
	check(15, "[old+0x10]")
	mmap("new", 20)
	check(15, "[old+0x10]")
	check(25, "[new+0x10]")
	check(16, "[old+0x10]")
	check(26, "[new+0x10]")
}

// What stands beyond morestack is the caller while the goroutine's stack is made larger, and not any more once the scheduler runs.
func TestSchedulerEnd(t *testing.T) {
	for stack, want := range map[string]int{
		"gogo execute schedule goschedImpl gopreempt_m newstack morestack next.f next.main goexit": 7,
		"[vdso] nanotime schedule goschedImpl gopreempt_m newstack morestack next.f":               7,
		"copystack newstack morestack f main goexit":                                               0,
		"gogo newstack morestack f main goexit":                                                    0,
		"findRunnable schedule park_m mcall":                                                       0,
		"f schedule g":                                                                             0,
	} {
		var locations []*profile.Location
		for name := range strings.FieldsSeq(stack) {
			l := &profile.Location{Kind: profile.FrameGo, Lines: []profile.Line{{Function: &profile.Function{Name: "runtime." + name}}}}
			if name[0] == '[' {
				l.Kind = profile.FrameNative
			}
			locations = append(locations, l)
		}
		if got := schedulerEnd(locations); got != want {
			t.Errorf("%s: ends after %d, want %d", stack, got, want)
		}
	}
}
