package doctor

import (
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is everything that the checks are decided from.
type machine struct {
	files        fs.FS // the root directory
	architecture string
	pageKiB      uint64
	memlock      uint64 // bytes; unlimited is math.MaxUint64
	executable   string // our own path
	options      Options
	trials       trials

	// Set by identify.
	release string
	kernel  version
	caps    capabilities
}

// identify reads who we are and what we run on.
func (m *machine) identify() {
	m.release, _ = m.read("proc/sys/kernel/osrelease")
	m.kernel, _ = parseVersion(m.release)
	status, _ := m.read("proc/self/status")
	m.caps, _ = parseCapabilities(status)
	// In a user namespace of its own a process has all capabilities, but none
	// that counts for the machine.
	if ns, err := fs.ReadLink(m.files, "proc/self/ns/user"); err == nil && ns != initialUserNamespace {
		m.caps = 0
	}
}

// The kernel gives its first namespaces fixed inode numbers (include/uapi/linux/nsfs.h, proc_ns.h before).
const initialUserNamespace = "user:[4026531837]" // 0xEFFFFFFD

// read gives a file's text without the white space around it.
func (m *machine) read(path string) (string, error) {
	text, err := fs.ReadFile(m.files, path)
	return strings.TrimSpace(string(text)), err
}

// sysctl reads a number, such as "kernel.kptr_restrict".
func (m *machine) sysctl(name string) (int64, error) {
	text, err := m.read("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("sysctl %s: %w", name, err)
	}
	return n, nil
}

func memlockLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return 0
	}
	return limit.Cur // RLIM_INFINITY is the largest number
}

const unlimited = uint64(math.MaxUint64)

// version is a kernel's, such as 6.1.
type version struct{ major, minor int }

// parseVersion reads the beginning of a release:
//
//	5.10.0-32-cloud-amd64
//	6.19-rc3
func parseVersion(release string) (version, error) {
	first, rest, ok := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest[:end])
	if !ok || err1 != nil || err2 != nil {
		return version{}, fmt.Errorf("kernel release %q: not of the form 6.1.0", release)
	}
	return version{major, minor}, nil
}

func (v version) atLeast(o version) bool {
	return v.major > o.major || v.major == o.major && v.minor >= o.minor
}

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// mount is one line of mountinfo.
type mount struct {
	root, point, fsType string
	options             []string // of the mount and of the file system
}

// parseMounts reads /proc/self/mountinfo; lines that are not of its form are left out.
//
//	22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw,hidepid=invisible
func parseMounts(text string) []mount {
	var mounts []mount
	for line := range strings.Lines(text) {
		before, after, _ := strings.Cut(line, " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if len(head) < 6 || len(tail) < 2 {
			continue
		}
		options := strings.Split(head[5], ",")
		if len(tail) > 2 {
			options = append(options, strings.Split(tail[2], ",")...)
		}
		mounts = append(mounts, mount{root: head[3], point: head[4], fsType: tail[0], options: options})
	}
	return mounts
}
