package metrics

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what this process takes of the host.
type Usage struct {
	User, System time.Duration // CPU time since its start
	// Bytes of resident memory: all of it, the part that no file backs, and the part that files do.
	RSS, RSSAnonymous, RSSFile int64
}

// ReadUsage measures this process. What could be read is set even with an error.
func ReadUsage() (Usage, error) {
	var (
		u      Usage
		rusage unix.Rusage
		errs   []error
	)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &rusage); err != nil {
		errs = append(errs, fmt.Errorf("getrusage: %w", err))
	}
	u.User, u.System = time.Duration(rusage.Utime.Nano()), time.Duration(rusage.Stime.Nano())
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return u, errors.Join(append(errs, err)...)
	}
	defer status.Close()
	return u, errors.Join(append(errs, u.parseStatus(status))...)
}

// parseStatus reads the memory out of /proc/PID/status:
//
//	VmRSS:	   41320 kB
//	RssAnon:	   21004 kB
//	RssFile:	   20316 kB
func (u *Usage) parseStatus(r io.Reader) error {
	fields := map[string]*int64{"VmRSS": &u.RSS, "RssAnon": &u.RSSAnonymous, "RssFile": &u.RSSFile}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		field := fields[name]
		if field == nil {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 53)
		if err != nil {
			return fmt.Errorf("/proc/self/status: %q: %w", lines.Text(), err)
		}
		*field = kilobytes << 10
	}
	return lines.Err()
}
