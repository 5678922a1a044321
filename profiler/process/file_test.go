package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// keyOf is a file as the kernel reports it.
func keyOf(t *testing.T, path string) FileKey {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return FileKey{Major: unix.Major(stat.Dev), Minor: unix.Minor(stat.Dev), Inode: stat.Ino}
}

func copyFile(t *testing.T, from, to, trailer string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, append(content, trailer...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// mapped tells the table of a mapping, and gives it back.
func mapped(t *testing.T, table *Table, time uint64, pid int, start Address, key FileKey, path string) (*Process, *Mapping) {
	t.Helper()
	e := mmap(time, pid, start, path)
	e.File = key
	table.Apply(&e)
	p := table.At(pid, time)
	if p == nil {
		t.Fatalf("no process %d", pid)
	}
	m, _ := table.Find(p, start, time)
	if m == nil {
		t.Fatalf("%s is not mapped", path)
	}
	return p, m
}

// within fails the test where f hangs.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s hangs", what)
	}
}

// One file, however many processes map it, is one ID, opened once and read once.
func TestFilesOnce(t *testing.T) {
	table, proc := newTestTable(t)
	for pid := 10; pid < 60; pid++ {
		root := proc.process(pid, 1, "x", "")
		path := filepath.Join(root, "prog")
		if pid == 10 {
			copyFile(t, "/bin/true", path, "")
		} else if err := os.Link(filepath.Join(proc.dir, "10/root/prog"), path); err != nil {
			t.Fatal(err)
		}
		p, m := mapped(t, table, second, pid, 0x1000, keyOf(t, path), "/prog")
		image, reason := table.files.Image(table, p, m)
		if reason != bpf.ReasonNone || image.ID != 1 || image.Mapping.Path != "/prog" || image.Mapping.BuildID == "" || len(image.Mapping.EndsHash) != 32 {
			t.Fatalf("process %d: %+v, %s", pid, image, reason)
		}
	}
	if s := table.files.Stats; s.Opened != 1 || s.Read != 1 || s.Failed != 0 || s.ImageBytes == 0 {
		t.Errorf("%+v", s)
	}
}

// Equal paths with other contents have other IDs, whether the file was replaced or written over.
func TestFilesChanged(t *testing.T) {
	table, proc := newTestTable(t)
	root := proc.process(10, 1, "x", "")
	path := filepath.Join(root, "lib.so")
	ids := make(map[uint32]string)
	at := func(what string, pid int, time uint64, same bool) uint32 {
		t.Helper()
		p, m := mapped(t, table, time, pid, 0x1000, keyOf(t, path), "/lib.so")
		if _, err := os.Lstat(mapFile(proc.dir, pid, m)); err != nil {
			proc.link(pid, "map_files/1000-2000", path)
		}
		id, reason := table.files.ID(table, p, m)
		if reason != bpf.ReasonNone {
			t.Fatalf("%s: %s", what, reason)
		}
		if before, known := ids[id]; known != same {
			t.Errorf("%s: ID %d, known from %q", what, id, before)
		}
		ids[id] = what
		return id
	}
	copyFile(t, "/bin/true", path, "")
	first := at("first", 10, second, false)
	proc.process(11, 10, "x", "")
	at("the same in another process", 11, 2*second, true)

	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "/bin/true", path, "replaced")
	at("replaced: same path, new inode", 10, 3*second, false)

	time.Sleep(20 * time.Millisecond) // the clock of inodes is coarse
	copyFile(t, "/bin/true", path, "rewritten, longer")
	at("rewritten in place: same inode, later mapping", 10, 4*second, false)
	time.Sleep(20 * time.Millisecond)
	copyFile(t, "/bin/true", path, "Rewritten, longer")
	at("rewritten to the same size", 10, 5*second, false)
	at("mapped again", 10, 6*second, true)

	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	// Renaming changes the inode's time, and nobody can tell that from writing.
	if id := at("the first one again", 10, 7*second, false); id < first {
		t.Errorf("ID %d", id)
	}
}

// A file that is gone is read through the mapping of a process that lives.
func TestFilesDeleted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sleeper")
	copyFile(t, "/bin/sleep", path, "")
	key := keyOf(t, path)
	cmd := osexec.Command(path, "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	files := NewFiles()
	defer files.Close()
	awaitMapped(t, cmd.Process.Pid, path)
	table := NewTable(files, discardLog)
	p := table.At(cmd.Process.Pid, 1)
	if p == nil || p.Exe != path {
		t.Fatalf("%+v", p)
	}
	found := false
	for i := range p.table.mappings {
		m := &p.table.mappings[i]
		if m.File.key.Inode != key.Inode {
			continue
		}
		found = true
		image, reason := files.Image(table, p, m)
		if reason != bpf.ReasonNone || image.Mapping.BuildID == "" || image.Mapping.Path != path {
			t.Errorf("%+v, %s", image, reason)
		}
	}
	if !found {
		t.Errorf("the program is not among its own mappings: %+v", p.table.mappings)
	}
	// A new file at its path is not taken for it.
	copyFile(t, "/bin/true", path, "")
	other, proc := newTestTable(t)
	root := proc.process(10, 1, "x", "")
	copyFile(t, "/bin/true", filepath.Join(root, "sleeper"), "")
	p, m := mapped(t, other, second, 10, 0x1000, key, "/sleeper")
	if id, reason := other.files.ID(other, p, m); reason != bpf.ReasonFileGone || id != 0 {
		t.Errorf("ID %d, %s", id, reason)
	}
}

// Opening what is no regular file can have effects, or never end. A link cannot lead out of the process's root.
func TestFilesHostile(t *testing.T) {
	table, proc := newTestTable(t)
	root := proc.process(10, 1, "x", "")
	outside := filepath.Join(t.TempDir(), "secret")
	copyFile(t, "/bin/true", outside, "outside")
	inside := filepath.Join(root, "real")
	copyFile(t, "/bin/true", inside, "inside")
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(root, "device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatalf("these tests need root: %v", err)
	}
	if err := os.Mkdir(filepath.Join(root, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "text"), []byte("no ELF file at all"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, outside, filepath.Join(root, "absolute"))
	link(t, "../../../../../../.."+outside, filepath.Join(root, "relative"))
	link(t, "/proc/self/root"+outside, filepath.Join(root, "magic"))
	link(t, "/real", filepath.Join(root, "fine"))
	link(t, "loop", filepath.Join(root, "loop"))

	for i, c := range []struct {
		name   string
		key    FileKey
		reason bpf.Reason
	}{
		{"fifo", keyOf(t, filepath.Join(root, "fifo")), bpf.ReasonFileGone},
		{"device", keyOf(t, filepath.Join(root, "device")), bpf.ReasonFileGone},
		{"dir", keyOf(t, filepath.Join(root, "dir")), bpf.ReasonFileGone},
		{"absolute", keyOf(t, outside), bpf.ReasonFileGone},
		{"relative", keyOf(t, outside), bpf.ReasonFileGone},
		{"magic", keyOf(t, outside), bpf.ReasonFileGone},
		{"loop", FileKey{8, 1, 12345, 0}, bpf.ReasonFileGone},
		{"missing", FileKey{8, 1, 12345, 0}, bpf.ReasonFileGone},
		{"../../../../../.." + outside, keyOf(t, outside), bpf.ReasonFileGone},
		{"text", keyOf(t, filepath.Join(root, "text")), bpf.ReasonFileUnreadable},
		{"fine", keyOf(t, inside), bpf.ReasonNone},
		{"real", keyOf(t, inside), bpf.ReasonNone},
	} {
		within(t, 10*time.Second, c.name, func() {
			p, m := mapped(t, table, second, 10, Address(0x10000*(i+1)), c.key, "/"+c.name)
			// The agent's own view, tried last, must not help either.
			file, err := openAny(proc.dir, []int{10}, m)
			if err == nil {
				_ = file.Close()
			}
			if opened := c.reason != bpf.ReasonFileGone; opened != (err == nil) {
				t.Errorf("%s: %v", c.name, err)
			}
			image, reason := table.files.Image(table, p, m)
			if reason != c.reason || (image != nil) != (reason == bpf.ReasonNone) {
				t.Errorf("%s: %+v, %s, want %s", c.name, image, reason, c.reason)
			}
			// A failure is remembered for a while.
			failed := table.files.Stats.Failed
			if _, again := table.files.Image(table, p, m); again != reason || table.files.Stats.Failed != failed {
				t.Errorf("%s: %s again, %d failures and %d before", c.name, again, table.files.Stats.Failed, failed)
			}
		})
	}
	for _, name := range []string{"fifo", "device", "dir"} {
		if f, err := openInRoot(proc.dir, 10, name, 0); !errors.Is(err, errNotRegular) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

// A file system that hangs costs patience once, and the sample a reason.
func TestFilesHang(t *testing.T) {
	table, proc := newTestTable(t)
	table.files.guard.patience = 50 * time.Millisecond
	root := proc.process(10, 1, "x", "")
	copyFile(t, "/bin/true", filepath.Join(root, "prog"), "")
	p, m := mapped(t, table, second, 10, 0x1000, keyOf(t, filepath.Join(root, "prog")), "/prog")
	image, reason := table.files.Image(table, p, m)
	if reason != bpf.ReasonNone {
		t.Fatal(reason)
	}
	release := make(chan struct{})
	for range MaxHungDevice {
		_ = table.files.guard.do(m.File.device(), func() { <-release })
	}
	if _, err := image.Lookup(0x2000); err == nil {
		t.Error("a name came from a file system that hangs")
	}
	copyFile(t, "/bin/true", filepath.Join(root, "other"), "")
	_, m = mapped(t, table, second, 10, 0x2000, keyOf(t, filepath.Join(root, "other")), "/other")
	begun := time.Now()
	if id, reason := table.files.ID(table, p, m); id != 0 || reason != bpf.ReasonFileUnreadable {
		t.Errorf("ID %d, %s", id, reason)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("blocked for %v", took)
	}
	close(release)
}

// A file that is written anew at its place while it is lent out: who has it reads on what was there, and its descriptor is closed once it is given back.
func TestFileLent(t *testing.T) {
	table, proc := newTestTable(t)
	root := proc.process(10, 1, "x", "")
	path := filepath.Join(root, "prog")
	copyFile(t, "/bin/true", path, "")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, m := mapped(t, table, second, 10, 0x1000, keyOf(t, path), "/prog")
	contents, reason := table.files.Contents(table, p, m)
	if reason != bpf.ReasonNone {
		t.Fatal(reason)
	}
	old := m.File.id
	table.files.Expire(time.Now().Add(time.Hour))
	if m.File.file == nil {
		t.Error("a file was closed that is lent out")
	}

	mapFile := filepath.Join(proc.dir, "10/map_files/2000-3000")
	if err := os.MkdirAll(filepath.Dir(mapFile), 0o755); err != nil {
		t.Fatal(err)
	}
	link(t, path, mapFile)
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil { // a new ctime: it counts as another file
		t.Fatal(err)
	}
	p, m = mapped(t, table, 2*second, 10, 0x2000, keyOf(t, path), "/prog")
	again, reason := table.files.Contents(table, p, m)
	if reason != bpf.ReasonNone || m.File.id == old {
		t.Fatalf("%s; the file has ID %d, as before it was changed", reason, m.File.id)
	}
	for name, c := range map[string]Contents{"lent before the change": contents, "lent after it": again} {
		got := make([]byte, len(before))
		if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, before) {
			t.Errorf("%s: %v", name, err)
		}
	}
	contents.Release()
	if _, err := contents.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the descriptor of before is open still: %v", err)
	}
	again.Release()
	if _, err := again.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("the file was closed although the table uses it: %v", err)
	}
	table.files.Expire(time.Now().Add(time.Hour))
	if _, err := again.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("nobody uses the file, and it is open: %v", err)
	}
}

// manySymbols makes an ELF file of many functions.
func manySymbols(t *testing.T, functions int) string {
	t.Helper()
	var source bytes.Buffer
	source.WriteString(".text\n.globl _start\n_start:\n")
	for i := range functions {
		fmt.Fprintf(&source, ".globl function_number_%d_of_many\n.type function_number_%[1]d_of_many,@function\nfunction_number_%[1]d_of_many: ret\n.size function_number_%[1]d_of_many,1\n", i)
	}
	path := filepath.Join(t.TempDir(), "many")
	cmd := osexec.Command("gcc", "-nostdlib", "-static", "-o", path, "-x", "assembler", "-")
	cmd.Stdin = &source
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return path
}

// Six hundred files and their names: descriptors and memory stay within the bounds, and every file can be asked for again.
func TestFilesBounds(t *testing.T) {
	before := descriptors(t)
	table, proc := newTestTable(t)
	root := proc.process(10, 1, "x", "")
	source := manySymbols(t, 1500)
	const count = 600
	for i := range count {
		copyFile(t, source, filepath.Join(root, fmt.Sprint("f", i)), fmt.Sprint("trailer", i))
	}
	ids := make(map[uint32]int)
	var total, most uint64
	for round := range 2 {
		for i := range count {
			path := fmt.Sprint("/f", i)
			start := Address(0x10000 * (i + 1))
			p, m := mapped(t, table, second, 10, start, keyOf(t, root+path), path)
			image, reason := table.files.Image(table, p, m)
			if reason != bpf.ReasonNone {
				t.Fatalf("%s: %s", path, reason)
			}
			if was, known := ids[image.ID]; known != (round == 1) || known && was != i {
				t.Fatalf("%s in round %d: ID %d, which was file %d", path, round, image.ID, was)
			}
			ids[image.ID] = i
			most = max(most, table.files.Stats.ImageBytes)
			if round == 0 {
				total += uint64(image.names.Bytes())
			}
			if n := len(table.files.open); n > MaxOpen || table.files.Stats.ImageBytes > maxImageBytes {
				t.Fatalf("%d files open with %d bytes of names", n, table.files.Stats.ImageBytes)
			}
			if i%50 == 0 {
				if n := descriptors(t) - before; n > MaxOpen+20 {
					t.Fatalf("%d descriptors", n)
				}
				if names, err := image.Lookup(objfile.FileOffset(image.Mapping.Offset)); err != nil || len(names.Frames) == 0 || !strings.HasPrefix(names.Frames[0].Function, "function_number_") {
					t.Errorf("%s: %+v, %v", path, names, err)
				}
			}
		}
	}
	if total <= maxImageBytes || most < maxImageBytes/2 {
		t.Errorf("the names of all files are %d bytes, %d at most at a time: the bound of %d was not tried", total, most, maxImageBytes)
	}
	var sum uint64
	for f := range table.files.open {
		if f.image != nil {
			sum += uint64(f.image.names.Bytes())
		}
	}
	if sum != table.files.Stats.ImageBytes {
		t.Errorf("%d bytes of names are held, %d counted", sum, table.files.Stats.ImageBytes)
	}
	// Idle files are closed, and opened again when asked for.
	table.files.Expire(time.Now().Add(idleClose + time.Second))
	if len(table.files.open) != 0 || table.files.Stats.ImageBytes != 0 || descriptors(t) > before+10 {
		t.Errorf("%d files open, %d bytes of names, %d descriptors, %d before", len(table.files.open), table.files.Stats.ImageBytes, descriptors(t), before)
	}
	p := table.At(10, second)
	m, _ := table.Find(p, 0x10000, second)
	if image, reason := table.files.Image(table, p, m); reason != bpf.ReasonNone || ids[image.ID] != 0 {
		t.Errorf("after it was closed: %s", reason)
	}
}

func TestFilesClose(t *testing.T) {
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 5 {
		files := NewFiles()
		table := NewTable(files, discardLog)
		p := table.At(os.Getpid(), 1)
		for i := range p.table.mappings {
			if m := &p.table.mappings[i]; m.File.Regular() {
				if _, reason := files.Image(table, p, m); reason != bpf.ReasonNone {
					t.Errorf("%s: %s", m.File.Path, reason)
				}
			}
		}
		files.Close()
		files.Close()
	}
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

// The vdso has names and an ID, and no file.
func TestFilesVDSO(t *testing.T) {
	files := NewFiles()
	defer files.Close()
	table := NewTable(files, discardLog)
	p := table.At(os.Getpid(), 1)
	for i := range p.table.mappings {
		m := &p.table.mappings[i]
		if !m.File.VDSO() {
			continue
		}
		image, reason := files.Image(table, p, m)
		if reason != bpf.ReasonNone || image.ID == 0 {
			t.Fatalf("%+v, %s", image, reason)
		}
		named := 0
		for offset := range int(m.End - m.Start) {
			if names, err := image.Lookup(objfile.FileOffset(offset)); err == nil && len(names.Frames) > 0 && strings.Contains(names.Frames[0].Function, "gettime") {
				named++
			}
		}
		if named == 0 {
			t.Error("no function of the vdso is named after clock_gettime")
		}
		return
	}
	t.Error("this process has no vdso")
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// awaitMapped waits until a process that was just started has mapped its program: Start returns while the exec goes on.
func awaitMapped(t *testing.T, pid int, path string) {
	t.Helper()
	for range 1000 {
		maps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(maps), path) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("process %d does not map %s", pid, path)
}
