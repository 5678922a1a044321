package process

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// ErrForeignProc says that /proc shows processes by other numbers than this process knows them by.
var ErrForeignProc = errors.New("this is a pid namespace of its own, and /proc is mounted from another one: processes have other numbers there")

// initialPIDNamespace is the inode number of the host's, the same on all kernels (PID_NS_INIT_INO, 0xEFFFFFFC).
const initialPIDNamespace = 4026531836

// PIDNamespace gives the inode number of the pid namespace that this process is in, by whose numbers side-band
// records tell of processes; 0 for the host's. Files is the root directory; ErrForeignProc where its /proc cannot
// serve that namespace.
func PIDNamespace(files fs.FS) (uint32, error) {
	status, err := fs.ReadFile(files, "proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("/proc does not show this process; mount that of its own pid namespace: %w", err)
	}
	link, err := fs.ReadLink(files, "proc/self/ns/pid")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a kernel without pid namespaces
	}
	if err != nil {
		return 0, fmt.Errorf("pid namespace: %w", err)
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]"), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("pid namespace %q: not of the form pid:[4026531836]", link)
	}
	if numbers(string(status)) > 1 {
		return 0, ErrForeignProc
	}
	if inode == initialPIDNamespace {
		return 0, nil
	}
	return uint32(inode), nil
}

// numbers counts those that a process has, from the namespace of this /proc down to its own:
//
//	NSpid:	29647	12
func numbers(status string) int {
	for line := range strings.Lines(status) {
		if list, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(list))
		}
	}
	return 0
}
