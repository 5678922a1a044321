// Package container tells which container, Kubernetes pod and systemd unit a process belongs to, from the names
// of its cgroups.
package container

import (
	"slices"
	"strings"
)

// Cgroups reads /proc/PID/cgroup and gives the distinct paths other than the
// root, the cgroup v2 path first, then the longest:
//
//	0::/user.slice/session-2.scope
//	4:memory:/docker/0123456789abcdef...
func Cgroups(text string) []string {
	var unified string
	var paths []string
	for line := range strings.Lines(text) {
		hierarchy, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		_, path, ok := strings.Cut(rest, ":")
		path = strings.TrimSuffix(path, " (deleted)") // the kernel's mark of a cgroup that was removed
		switch {
		case !ok || path == "/" || path == "":
		case hierarchy == "0":
			unified = path
		case !slices.Contains(paths, path):
			paths = append(paths, path)
		}
	}
	slices.SortStableFunc(paths, func(a, b string) int { return len(b) - len(a) })
	if unified != "" {
		paths = slices.Insert(slices.DeleteFunc(paths, func(p string) bool { return p == unified }), 0, unified)
	}
	return paths
}

// idLength is that of the ids of Docker, containerd, CRI-O and Podman.
const idLength = 64

// ID finds a container id in the paths: the last part whose NamedID is 64
// hexadecimal digits. "" where there is none.
func ID(paths []string) string {
	for _, path := range paths {
		parts := strings.Split(path, "/")
		for _, part := range slices.Backward(parts) {
			if id := NamedID(part); isID(id) {
				return id
			}
		}
	}
	return ""
}

// NamedID is the part of a cgroup's name where a container's id would stand: all
// but a prefix such as "docker-", "cri-containerd-" or "kubepods-x.slice:cri-containerd:"
// and a suffix such as ".scope". "" for the cgroup of a container's monitor, which is not in it.
func NamedID(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	i := strings.LastIndexAny(name, "-:")
	if i >= 0 && strings.HasSuffix(name[:i], "conmon") {
		return ""
	}
	return name[i+1:]
}

func isID(s string) bool {
	return len(s) == idLength && isHexadecimal(s)
}

// isHexadecimal knows digits as all who name cgroups write them, in lower case.
func isHexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
