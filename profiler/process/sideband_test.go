package process

import (
	"debug/elf"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/profiler/perfevent"
)

func openTestSideband(t *testing.T) (*Sideband, *perfevent.Poller) {
	t.Helper()
	poller, err := perfevent.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = poller.Close() })
	s, err := OpenSideband(poller)
	if err != nil {
		t.Fatalf("these tests need root: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, poller
}

// executableSegment is what the kernel maps executable of an ELF file: whole pages.
func executableSegment(t *testing.T, path string) (offset, size uint64) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := uint64(os.Getpagesize())
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			offset = p.Off &^ (page - 1)
			return offset, (p.Off + p.Filesz - offset + page - 1) &^ (page - 1)
		}
	}
	t.Fatal("no executable segment")
	return 0, 0
}

// The whole life of a real process arrives, in order, with the identity of its file.
func TestSideband(t *testing.T) {
	s, poller := openTestSideband(t)
	path := filepath.Join(t.TempDir(), "a program")
	copyFile(t, "/bin/true", path, "")
	offset, size := executableSegment(t, path)
	for range 20 {
		s.Drain()
		cmd := osexec.Command(path)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if woken, err := poller.Wait(time.Second, s.Waiting); !woken || err != nil {
			t.Fatalf("a process woke nobody: %v", err)
		}
		pid := cmd.Process.Pid
		var kinds []EventKind
		events := slices.Clone(s.Drain())
		slices.SortStableFunc(events, ByTime)
		var last uint64
		for _, e := range events {
			if e.PID != pid || e.TID != pid || e.Kind == EventNamespaces {
				continue
			}
			if e.Time < last || e.Time > monotonicNow() {
				t.Errorf("an event at %d after one at %d", e.Time, last)
			}
			last = e.Time
			switch e.Kind {
			case EventFork:
				if e.ParentPID != os.Getpid() {
					t.Errorf("parent %d, want %d", e.ParentPID, os.Getpid())
				}
			case EventExec:
				if e.Name != "a program" {
					t.Errorf("comm %q", e.Name)
				}
			case EventMmap:
				if e.Name != path {
					continue
				}
				m := e.Mapping
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := sameFile(f, e.File); err != nil {
					t.Errorf("%+v: %v", e.File, err)
				}
				_ = f.Close()
				if uint64(m.Offset) != offset || uint64(m.End-m.Start) != size || m.Since != e.Time {
					t.Errorf("mapping %+v, want offset %#x, size %#x", m, offset, size)
				}
			case EventComm: // Go names no threads
				continue
			}
			kinds = append(kinds, e.Kind)
		}
		// The loader maps the program once, and libraries as it likes.
		if kinds = slices.Compact(kinds); !slices.Equal(kinds, []EventKind{EventFork, EventExec, EventMmap, EventExit}) &&
			!slices.Equal(kinds, []EventKind{EventFork, EventExec, EventMmap}) {
			t.Fatalf("%v", kinds)
		}
	}
	if s.Waiting() && len(s.Drain()) == 0 {
		t.Error("something waits, and is nothing")
	}
}

// The table, fed by the kernel alone, knows a process that is gone, and its file.
func TestSidebandTable(t *testing.T) {
	s, _ := openTestSideband(t)
	files := NewFiles()
	defer files.Close()
	table := NewTable(files, discardLog)
	if err := table.Scan(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "prog")
	copyFile(t, "/bin/true", path, "")
	cmd := osexec.Command("sh", "-c", path+"; "+path+" & wait")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond) // the exit record comes after the parent was told
	now := monotonicNow()
	events := s.Drain()
	slices.SortStableFunc(events, ByTime)
	found := 0
	for i := range events {
		e := &events[i]
		table.Apply(e)
		if e.Kind != EventMmap || e.Name != path {
			continue
		}
		found++
		p := table.At(e.PID, e.Time)
		if p == nil || p.Comm != "prog" || p.Exe != path || !table.DescendsFrom(e.PID, []int{cmd.Process.Pid}) {
			t.Fatalf("%+v", p)
		}
		m, _ := table.Find(p, e.Mapping.Start, e.Time)
		if m == nil {
			t.Fatal("its mapping is not known")
		}
		if id, reason := files.ID(table, p, m); id != 1 {
			t.Errorf("ID %d, %s", id, reason)
		}
	}
	if found != 2 {
		t.Errorf("the program was mapped %d times, want 2", found)
	}
	table.Expire(now + uint64(keepExited) + uint64(time.Second))
	if p := table.processes[cmd.Process.Pid]; p != nil {
		t.Errorf("a process that exited is still there: %+v", p)
	}
	if p := table.processes[os.Getpid()]; p == nil || p.exited != 0 {
		t.Errorf("this process: %+v", p)
	}
}

func TestSidebandClose(t *testing.T) {
	poller, err := perfevent.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poller.Close()
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 5 {
		s, err := OpenSideband(poller)
		if err != nil {
			t.Fatal(err)
		}
		online, err := perfevent.OnlineCPUs()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.FollowCPUs(online); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if s.Waiting() || len(s.Drain()) > 0 {
			t.Error("something comes after Close")
		}
	}
	if now := descriptors(t); now > before || runtime.NumGoroutine() > goroutines {
		t.Errorf("%d descriptors, %d before; %d goroutines, %d before", now, before, runtime.NumGoroutine(), goroutines)
	}
}

var discardLog = slog.New(slog.DiscardHandler)

func monotonicNow() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return uint64(ts.Nano())
}
