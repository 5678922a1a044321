package bpf

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Lockup says whether a program that reads user memory by bpf_probe_read_user
// can lock up the machine, and how that is known.
type Lockup struct {
	Answer Answer
	// Why is in words, such as "6.1.20 lacks the fix and has CONFIG_HARDENED_USERCOPY".
	Why string
}

// UsercopyLockup decides by what the system under root says of its kernel. From 5.19
// on hardened usercopy looks the destination of a copy up among the kernel's mappings, under a lock; a
// program that interrupted the holder of the lock waits for ever. "mm: Fix
// copy_from_user_nofault()" (d319f344561d) left the look-up out: it is in 6.4, 6.3.10 and 6.1.36.
//
// Stacks by bpf_get_stack are not concerned: the kernel's walk by frame pointers
// reads words of fixed size, which are not checked. A program that reads user
// memory by the helper must not be loaded unless the answer is No.
func UsercopyLockup(root fs.FS) Lockup {
	kernel, name, err := upstreamVersion(root)
	switch {
	case err != nil:
		return Lockup{Why: err.Error()}
	case !kernel.locksUp():
		return Lockup{Answer: No, Why: name + " does not have the defect (5.19 to 6.3)"}
	}
	off, err := usercopySwitchedOff(root)
	switch {
	case err != nil:
		return Lockup{Why: fmt.Sprintf("%s has the defect, if it was built with hardened usercopy: %v", name, err)}
	case off != "":
		return Lockup{Answer: No, Why: fmt.Sprintf("%s has the defect, but hardened usercopy is off: %s", name, off)}
	}
	return Lockup{Answer: Yes, Why: name + " lacks the fix of copy_from_user_nofault and has hardened usercopy"}
}

// Walkable says whether programs may walk user stacks by unwind tables on this system, whose files are under root. That takes
// bpf_probe_read_user, which can lock up some kernels, and which under lockdown=confidentiality the loader takes for the helper that reads
// the kernel's memory, and replaces.
func Walkable(root fs.FS) bool {
	return UsercopyLockup(root).Answer == No && !confidential(root)
}

// release is a kernel's upstream version, such as 6.1.140.
type release [3]int

func (r release) atLeast(other release) bool { return slices.Compare(r[:], other[:]) >= 0 }

// locksUp: the series between 5.19 and 6.3 that are missing here ended without the fix.
func (r release) locksUp() bool {
	switch {
	case !r.atLeast(release{5, 19}), r.atLeast(release{6, 4}):
		return false
	case r[0] == 6 && r[1] == 1:
		return r[2] < 36
	case r[0] == 6 && r[1] == 3:
		return r[2] < 10
	}
	return true
}

// Where the release does not say which upstream version it is, the build does:
//
//	/proc/version: Linux version 6.1.0-37-amd64 (debian-kernel@...) ... Debian 6.1.140-1 (2025-05-22)
//	/proc/version_signature: Ubuntu 6.2.0-39.40-generic 6.2.16
//	/proc/sys/kernel/osrelease: 6.1.140
var (
	debianVersion = regexp.MustCompile(`#.* Debian (\d+)\.(\d+)(?:\.(\d+))?`)
	ubuntuVersion = regexp.MustCompile(`^Ubuntu \S+ (\d+)\.(\d+)(?:\.(\d+))?\s*$`)
	plainVersion  = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`)
)

func upstreamVersion(root fs.FS) (r release, name string, err error) {
	for _, source := range []struct {
		path    string
		pattern *regexp.Regexp
	}{
		{"proc/version", debianVersion}, {"proc/version_signature", ubuntuVersion}, {"proc/sys/kernel/osrelease", plainVersion},
	} {
		text, err := fs.ReadFile(root, source.path)
		if err != nil {
			continue
		}
		if m := source.pattern.FindSubmatch(text); m != nil {
			for i, digits := range m[1:] {
				r[i], _ = strconv.Atoi(string(digits)) // none is 0
			}
			return r, fmt.Sprintf("kernel %d.%d.%d", r[0], r[1], r[2]), nil
		}
	}
	return release{}, "", errors.New("the kernel's version was not understood")
}

// usercopySwitchedOff says by what hardened usercopy is off, "" where it is on.
func usercopySwitchedOff(root fs.FS) (string, error) {
	arguments, err := fs.ReadFile(root, "proc/cmdline")
	if err != nil {
		return "", err
	}
	last := ""
	for argument := range strings.FieldsSeq(string(arguments)) {
		if strings.HasPrefix(argument, "hardened_usercopy=") {
			last = argument
		}
	}
	switch _, value, _ := strings.Cut(last, "="); value { // as the kernel's kstrtobool reads it
	case "0", "n", "N", "off", "OFF", "Off":
		return last, nil
	}
	text, err := kernelConfig(root)
	if err != nil {
		return "", err
	}
	if !slices.Contains(strings.Split(text, "\n"), "CONFIG_HARDENED_USERCOPY=y") {
		return "CONFIG_HARDENED_USERCOPY is not set", nil
	}
	return "", nil
}

// kernelConfig reads what the kernel was built with.
func kernelConfig(root fs.FS) (string, error) {
	name, err := fs.ReadFile(root, "proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	text, err := fs.ReadFile(root, "boot/config-"+strings.TrimSpace(string(name)))
	if err == nil {
		return string(text), nil
	}
	packed, packedErr := root.Open("proc/config.gz")
	if packedErr != nil {
		return "", errors.Join(err, packedErr)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return "", fmt.Errorf("/proc/config.gz: %w", err)
	}
	const most = 8 << 20 // they are a quarter of a megabyte
	text, err = io.ReadAll(io.LimitReader(unpacked, most))
	if err != nil {
		return "", fmt.Errorf("/proc/config.gz: %w", err)
	}
	return string(text), nil
}
