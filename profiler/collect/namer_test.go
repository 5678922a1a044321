package collect

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
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
