package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNotRegular keeps us from opening devices and pipes, where that alone can
// have an effect.
var errNotRegular = errors.New("not a regular file")

// openMapped opens the very file that is mapped: the kernel's own link to it
// works for deleted and replaced files and in any mount namespace.
func openMapped(proc string, pid int, m *Mapping) (*os.File, error) {
	return openRegular(unix.AT_FDCWD, mapFile(proc, pid, m), 0)
}

func mapFile(proc string, pid int, m *Mapping) string {
	return proc + "/" + strconv.Itoa(pid) + "/map_files/" +
		strconv.FormatUint(uint64(m.Start), 16) + "-" + strconv.FormatUint(uint64(m.End), 16)
}

// openInRoot opens a path as the process sees it. Symbolic links cannot lead
// out of its root.
func openInRoot(proc string, pid int, path string, resolve uint64) (*os.File, error) {
	root, err := unix.Open(proc+"/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("root of process %d: %w", pid, err)
	}
	defer unix.Close(root)
	return openRegular(root, path, unix.RESOLVE_IN_ROOT|resolve)
}

// openRegular looks at the file before it opens it.
func openRegular(dir int, path string, resolve uint64) (*os.File, error) {
	handle, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(handle)
	var stat unix.Stat_t
	if err := unix.Fstat(handle, &stat); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: %w", path, errNotRegular)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// Go would ask the poller about a file that does not block: FUSE passes that on to its server, which may never answer, and the runtime
	// waits for it with all goroutines.
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openDebug opens separate debug files for programs of a process. The link to one is
// part of the program, so it may name anything: only regular files are
// opened, and those outside of the host's debug directory only as the process sees them.
func (t *Table) openDebug(pid int) func(path string) (io.ReaderAt, int64, io.Closer, error) {
	return func(path string) (io.ReaderAt, int64, io.Closer, error) {
		var file *os.File
		var err error
		if path = filepath.Clean(path); strings.HasPrefix(path, debugDir) {
			file, err = openRegular(unix.AT_FDCWD, path, 0)
		} else {
			file, err = openInRoot(t.proc, pid, path, 0)
		}
		if err != nil {
			return nil, 0, nil, err
		}
		info, err := file.Stat()
		if err != nil {
			return nil, 0, nil, errors.Join(err, file.Close())
		}
		return file, info.Size(), file, nil
	}
}

const debugDir = "/usr/lib/debug/"

// fileID identifies the contents of a file as long as nobody sets the clock back.
type fileID struct {
	dev, inode, size, ctimeNs uint64
}

func identify(info os.FileInfo) (fileID, error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("stat %s: no inode", info.Name())
	}
	return fileID{
		dev:     stat.Dev,
		inode:   stat.Ino,
		size:    uint64(stat.Size),
		ctimeNs: uint64(stat.Ctim.Nano()),
	}, nil
}
