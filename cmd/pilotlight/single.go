package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDataDir makes the data directory ours. The lock goes with the process, however it ends; the file
// holds its number for the message to the next one.
func lockDataDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w; give another by --data-dir", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w; give another by --data-dir", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := bufio.NewReader(f).ReadString('\n')
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s belongs to another agent that runs, process %s; stop it, or give another directory by --data-dir",
				dir, strings.TrimSpace(owner))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory: %w", err), f.Close())
	}
	return f, nil
}

// unwritable says that a directory is closed to us, as on a read-only root: the agent can do without it.
func unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil // the lock holds without it, and a full disk does not keep us from sampling
	}
	return err
}

// listen opens the address, and names the process that has it where it is taken.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	if errors.Is(err, unix.EADDRINUSE) {
		if pid := listenerOf(addr); pid != 0 {
			return nil, fmt.Errorf("%w: process %d has it; stop it, or give another address by --listen", err, pid)
		}
		return nil, fmt.Errorf("%w; give another address by --listen", err)
	}
	return nil, fmt.Errorf("%w; give another address by --listen", err)
}

// listenerOf finds the process that listens on addr's port, 0 where it cannot be found.
func listenerOf(addr string) int {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if inode := listeningInode(string(text), n); inode != "" {
			if pid := socketOwner(inode); pid != 0 {
				return pid
			}
		}
	}
	return 0
}

// listeningInode looks for a listening socket (state 0A) in the text of /proc/net/tcp:
//
//	0: 0100007F:1B9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 ...
func listeningInode(table string, port uint64) string {
	const local, state, inode = 1, 3, 9
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > inode && fields[state] == "0A" && strings.HasSuffix(fields[local], want) {
			return fields[inode]
		}
	}
	return ""
}

func socketOwner(inode string) int {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			return pid
		}
	}
	return 0
}
