// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const nobody = 65534

// A room is what a program finds itself in: who it is, what it may do, and what is missing around it.
type room struct {
	Root         bool              // root with all capabilities; else nobody with Capabilities
	Capabilities []uint            // permitted, effective, inheritable and ambient
	Bounding     bool              // bounding set: Capabilities too
	NoNewPrivs   bool              // as a service manager may set it
	Fake         map[string]string // file -> content that it seems to have; "" cannot be read at all
	HidePID      bool              // /proc shows the processes of others to nobody
	ReadOnly     bool              // the root file system
	ReadOnlyDirs []string          // folders of other file systems
	PrivateTmp   bool              // /tmp is empty but for Writable
	Writable     []string          // folders that stay what they are
	NoCgroups    bool              // none is mounted
	NoBTF        bool              // the kernel does not show its types
	MemlockBytes uint64            // limit; 0 is none
	NoCore       bool              // a limit of 0 on core dumps
	Refuse       map[uint32]uint16 // system call -> errno
	Allow        []uint32          // if there are any: all others end the process
	Families     []uint32          // if there are any: sockets of others end the process
	Command      []string
	Role         string // of this program, if that is the command
}

// roomVariable names the file that describes the room.
const roomVariable = "PILOTLIGHT_TEST_ROOM"

// launch is the role of the child that makes the room, then becomes the command. It has a mount namespace of its own.
func launch() {
	runtime.LockOSThread()
	var r room
	text, err := os.ReadFile(os.Getenv(roomVariable))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	for _, step := range []func() error{r.mounts, r.limits, r.filterAsRoot, r.identity, r.filterAsWeAre} {
		if err == nil {
			err = step()
		}
	}
	if err == nil {
		_, _ = os.Setenv(role, r.Role), os.Unsetenv(roomVariable)
		err = fmt.Errorf("exec %s: %w", r.Command[0], unix.Exec(r.Command[0], r.Command, os.Environ()))
	}
	fmt.Fprintln(os.Stderr, "launch:", err)
	os.Exit(99)
}

func (r *room) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if r.HidePID {
		if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid=2"); err != nil {
			return fmt.Errorf("/proc with hidepid: %w", err)
		}
	}
	dir := filepath.Dir(os.Getenv(roomVariable)) // the test's own
	for path, content := range r.Fake {
		if err := fake(dir, path, content); err != nil {
			return err
		}
	}
	if r.NoBTF {
		if err := unix.Mount("none", "/sys/kernel/btf", "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("no BTF: %w", err)
		}
	}
	if r.NoCgroups {
		if err := unmountBelow("/sys/fs/cgroup"); err != nil {
			return err
		}
	}
	return r.protect()
}

// protect makes what a service manager would: folders that cannot be written, and a /tmp of our own.
func (r *room) protect() error {
	kept := make(map[string]int) // they are under what is about to be covered
	for _, dir := range r.Writable {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", dir, err)
		}
		kept[dir] = fd
	}
	if r.PrivateTmp {
		if err := unix.Mount("tmp", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
			return fmt.Errorf("private /tmp: %w", err)
		}
	}
	for dir, fd := range kept {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("writable %s: %w", dir, err)
		}
	}
	for _, dir := range r.ReadOnlyDirs {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("read-only %s: %w", dir, err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("read-only %s: %w", dir, err)
		}
	}
	if r.ReadOnly {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("read-only root: %w", err)
		}
	}
	return nil
}

// fake puts content in the place of a file.
func fake(dir, path, content string) error {
	mode := os.FileMode(0o444)
	if content == "" {
		mode = 0
	}
	file := filepath.Join(dir, strings.ReplaceAll(path, "/", "-"))
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		// securityfs is not mounted everywhere: its folder is empty then
		if err := unix.Mount("none", filepath.Dir(path), "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("%s: %w", filepath.Dir(path), err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			return err
		}
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // the last first: it lies on top
		fields := strings.Fields(lines[i])
		if len(fields) < 5 || fields[4] != dir && !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", fields[4], err)
		}
	}
	return nil
}

func (r *room) limits() error {
	if r.NoCore {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			return fmt.Errorf("core limit: %w", err)
		}
	}
	if r.MemlockBytes == 0 {
		// Kernels before 5.11 need it; on later ones not every root may.
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
		return nil
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: r.MemlockBytes, Max: r.MemlockBytes})
}

// filterAsRoot refuses calls as a distribution's kernel or a container's profile does: whoever the program is.
func (r *room) filterAsRoot() error {
	if r.NoNewPrivs {
		return nil
	}
	return r.filter()
}

// filterAsWeAre comes last, as a service manager does it: no_new_privs is what makes it possible.
func (r *room) filterAsWeAre() error {
	if !r.NoNewPrivs {
		return nil
	}
	return r.filter()
}

func (r *room) filter() error {
	if len(r.Refuse) == 0 && len(r.Allow) == 0 {
		return nil
	}
	const number, firstArgument, word = 0, 16, 4
	allow, kill := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: unix.SECCOMP_RET_TRAP}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: number, Size: word}}
	for call, errno := range r.Refuse {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipFalse: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	if len(r.Families) > 0 {
		body := []bpf.Instruction{bpf.LoadAbsolute{Off: firstArgument, Size: word}}
		for _, family := range r.Families {
			body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: family, SkipFalse: 1}, allow)
		}
		body = append(body, kill)
		program = append(append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_SOCKET, SkipFalse: uint8(len(body))}), body...)
	}
	for _, call := range r.Allow {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipFalse: 1}, allow)
	}
	if len(r.Allow) > 0 {
		program = append(program, kill)
	} else {
		program = append(program, allow)
	}
	code, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// identity changes this thread alone, which then becomes the program.
func (r *room) identity() error {
	if r.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if r.Root {
		return nil
	}
	var bits uint64
	for _, c := range r.Capabilities {
		bits |= 1 << c
	}
	if r.Bounding {
		for n := range uint(64) {
			if in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil || in == 0 || bits&(1<<n) != 0 {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
				return fmt.Errorf("bounding set: %w", err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0}, {unix.SYS_SETRESGID, nobody, nobody, nobody}, {unix.SYS_SETRESUID, nobody, nobody, nobody},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return fmt.Errorf("become nobody: %w", errno)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i, half := range []uint32{uint32(bits), uint32(bits >> 32)} {
		data[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: half}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	for _, c := range r.Capabilities {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("ambient capability %d: %w", c, err)
		}
	}
	return nil
}
