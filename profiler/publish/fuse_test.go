package publish

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/process"
)

// Requests of FUSE, as linux/fuse.h numbers them.
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseRelease     = 18
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42
)

// deadFiles mounts a file system whose files 0 to n-1, of a page each, can be opened and mapped. Their reads do not return until the test ends, or
// revive is called.
func deadFiles(t *testing.T, n int) (paths []string, revive func()) {
	return silentFiles(t, n, fuseRead)
}

// silentFiles mounts such a file system that does not answer one kind of request, other processes' flushes excepted. Reads that are answered fail.
func silentFiles(t *testing.T, n int, silent uint32) (paths []string, revive func()) {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("/dev/fuse (this test needs FUSE): %v", err)
	}
	if err := unix.Mount("dead", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatalf("mount (this test needs FUSE, and root): %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		request := make([]byte, 64<<10)
		for {
			size, err := unix.Read(fd, request)
			if err == unix.EINTR || err == unix.ENOENT { // that request was interrupted
				continue
			}
			if err != nil {
				return // ENODEV: unmounted
			}
			thread := fmt.Sprintf("/proc/self/task/%d", binary.NativeEndian.Uint32(request[32:]))
			if binary.NativeEndian.Uint32(request[4:]) == silent {
				if _, err := os.Stat(thread); err == nil || silent != fuseFlush {
					continue
				}
			}
			if answer := answerFUSE(request[:size], n); answer != nil {
				_, _ = unix.Write(fd, answer) // nobody may wait for it any more
			}
		}
	}()
	revived := false
	revive = func() {
		if revived {
			return
		}
		revived = true
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		<-ended
		_ = unix.Close(fd)
	}
	t.Cleanup(revive)
	for i := range n {
		paths = append(paths, filepath.Join(dir, strconv.Itoa(i)))
	}
	return paths, revive
}

// answerFUSE gives the answer to a request; nil: none.
//
//	request: length 4, what 4, id 8, node 8, uid 4, gid 4, pid 4, 4 unused, and what there is to say
//	answer:  length 4, -errno 4, id 8, and what there is to say
func answerFUSE(request []byte, files int) []byte {
	native := binary.NativeEndian
	what, node := native.Uint32(request[4:]), native.Uint64(request[16:])
	attributes := func(node uint64) []byte {
		mode := uint32(unix.S_IFREG | 0o755)
		if node == 1 {
			mode = unix.S_IFDIR | 0o755
		}
		a := make([]byte, 0, 88)
		for _, v := range []uint64{node, pageBytes, 8, 0, 0, 0} { // inode, size, blocks and times
			a = native.AppendUint64(a, v)
		}
		for _, v := range []uint32{0, 0, 0, mode, 1, 0, 0, 0, pageBytes, 0} {
			a = native.AppendUint32(a, v)
		}
		return a
	}
	var body []byte
	var errno unix.Errno
	switch what {
	case fuseInit:
		body = make([]byte, 64)
		native.PutUint32(body, 7)
		native.PutUint32(body[4:], 31)
		native.PutUint32(body[20:], pageBytes) // max_write
	case fuseLookup:
		i, err := strconv.Atoi(string(bytes.TrimRight(request[40:], "\x00")))
		if err != nil || i >= files {
			errno = unix.ENOENT
			break
		}
		body = make([]byte, 40, 128)
		native.PutUint64(body, uint64(2+i))
		native.PutUint64(body[16:], 3600) // seconds that it holds
		native.PutUint64(body[24:], 3600)
		body = append(body, attributes(uint64(2+i))...)
	case fuseGetattr:
		body = append(native.AppendUint64(nil, 3600), make([]byte, 8)...)
		body = append(body, attributes(node)...)
	case fuseOpen:
		body = make([]byte, 16)
	case fuseRelease, fuseFlush:
	case fuseRead:
		errno = unix.EIO
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil
	default:
		errno = unix.ENOSYS
	}
	answer := native.AppendUint32(nil, uint32(16+len(body)))
	answer = native.AppendUint32(answer, uint32(-int32(errno)))
	answer = append(answer, request[8:16]...)
	return append(answer, body...)
}

// Files of file systems that do not answer cost the others of the same process a moment; they are tried again.
func TestDeadFileSystems(t *testing.T) {
	h := newHost(t)
	const mounts, each, good = 2, 10, 50
	var files []string
	var revive []func()
	for range mounts {
		paths, r := deadFiles(t, each) // smaller than the others, so their turn comes first
		files, revive = append(files, paths...), append(revive, r)
	}
	libraries := equalLibraries(t, good, 4096)
	pid := h.start(0, append(files, libraries...)...).pids[0]
	h.Want(h.processes.At(pid, monotonic()), 0)
	begun := time.Now()
	const most = (2*mounts + 6) * patience
	for h.Update(); h.steps(pid, libraries) < good && time.Since(begun) < most; h.Update() {
		time.Sleep(20 * time.Millisecond)
	}
	if got := h.steps(pid, libraries); got != good {
		t.Fatalf("%d of %d files have tables after %v", got, good, time.Since(begun))
	}
	took := time.Since(begun)
	h.compiler.mu.Lock()
	hang := len(h.compiler.under)
	h.compiler.mu.Unlock()
	t.Logf("%d files have tables after %v, beside %d of %d dead file systems, of which %d are being read; %+v", good, took, mounts*each, mounts, hang, h.Stats)
	if hang != mounts*process.MaxHungDevice {
		t.Errorf("%d files are being read of dead file systems, want %d", hang, mounts*process.MaxHungDevice)
	}
	if pages := h.pages(pid); pages < good {
		t.Errorf("the programs know tables of %d pages", pages)
	}
	waits := 0
	for _, table := range h.tables {
		if table.code == bpf.RuleNoneNoTable && !table.done && !table.retry.IsZero() {
			waits++
		}
	}
	if waits != mounts*(each-process.MaxHungDevice) {
		t.Errorf("%d files are to be tried again, want %d", waits, mounts*(each-process.MaxHungDevice))
	}
	for _, r := range revive {
		r()
	}
	for end := time.Now().Add(10 * time.Second); hang > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.compiler.mu.Lock()
		hang = len(h.compiler.under)
		h.compiler.mu.Unlock()
	}
	if mountsText, err := os.ReadFile("/proc/self/mounts"); err != nil || hang > 0 || strings.Contains(string(mountsText), filepath.Dir(files[0])) {
		t.Errorf("%d files are being read of file systems that are gone: %v", hang, err)
	}
}

// A file system that does not answer when its files are closed costs a moment, and none of its files is opened until it answers.
func TestUnansweredClose(t *testing.T) {
	h := newHost(t)
	const n = 10
	files, revive := silentFiles(t, n, fuseFlush)
	good := equalLibraries(t, 1, 64)
	pid := h.start(0, append(files, good...)...).pids[0]
	h.publish(pid) // all are open now
	if got := numbered(t); got != n {
		t.Fatalf("%d of %d files are open", got, n)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		h.files.Expire(time.Now().Add(time.Hour))
		h.files.Expire(time.Now().Add(time.Hour))
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("closing files does not end")
		revive()
		<-closed
		return
	}
	proc := h.processes.At(pid, monotonic())
	held := 0
	mappings := proc.Mappings()
	for i := range mappings {
		if m := &mappings[i]; m.File.Regular() {
			contents, reason := h.files.Contents(h.processes, proc, m)
			if reason != bpf.ReasonNone {
				held++
				continue
			}
			contents.Release()
		}
	}
	if held != n {
		t.Errorf("%d files cannot be opened, want the %d whose file system does not answer", held, n)
	}
	revive()
	for end := time.Now().Add(10 * time.Second); numbered(t) > 0; h.files.Expire(time.Now()) {
		if time.Now().After(end) {
			t.Fatalf("%d files of a file system that is gone are open", numbered(t))
		}
		time.Sleep(time.Millisecond)
	}
}

// numbered counts the descriptors of files whose names are numbers, as those of silentFiles.
func numbered(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && !strings.HasPrefix(target, "/dev/") {
			if _, err := strconv.Atoi(filepath.Base(target)); err == nil {
				n++
			}
		}
	}
	return n
}
