package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestParseQuery(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                     "30s [] false  ",
		"seconds=5":                            "5s [] false  ",
		"seconds=0.25":                         "250ms [] false  ",
		"seconds=600":                          "10m0s [] false  ",
		"pid=1":                                "30s [1] false  ",
		"pid=1,22&children=true":               "30s [1 22] true  ",
		"pid=1&children=1":                     "30s [1] true  ",
		"children=false":                       "30s [] false  ",
		"cgroup=/sys/fs/cgroup/x":              "30s [] false /sys/fs/cgroup/x ",
		"container=0123ABCDEF":                 "30s [] false  0123abcdef",
		"seconds=1&pid=3&container=aaaabbbb":   "1s [3] false  aaaabbbb",
		"container=" + strings.Repeat("a", 64): "30s [] false  " + strings.Repeat("a", 64),
	} {
		q, err := parseQuery(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if got := fmt.Sprintln(q.duration, q.filter.PIDs, q.filter.Children, q.cgroup, q.filter.ContainerID); got != want+"\n" {
			t.Errorf("%s: %s not %s", raw, got, want)
		}
	}
	q, err := parseQuery("comm=" + url.QueryEscape("^ng.nx$"))
	if err != nil || q.filter.Comm == nil || !q.filter.Comm.MatchString("nginx") || q.filter.Comm.MatchString("xnginx") {
		t.Errorf("comm: %v, %v", q.filter.Comm, err)
	}
}

// Each refusal names the parameter and says what is accepted.
func TestParseQueryRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"seconds=":                            "seconds is empty",
		"seconds=x":                           `seconds="x" is not a number`,
		"seconds=0":                           "out of range",
		"seconds=0.0000000001":                "out of range",
		"seconds=-1":                          "not a number",
		"seconds=601":                         "at most 600",
		"seconds=600.0001":                    "at most 600",
		"seconds=1e2":                         "not a number",
		"seconds=inf":                         "not a number",
		"seconds=NaN":                         "not a number",
		"seconds=" + strings.Repeat("9", 400): "not a number",
		"seconds=1&seconds=2":                 "seconds is given 2 times",
		"pid=x":                               `"x" is not a process id`,
		"pid=-5":                              "not a process id",
		"pid=0":                               "not a process id",
		"pid=1,":                              "not a process id",
		"pid=4194305":                         "not a process id",
		"pid=" + strings.Repeat("1,", 1000) + "1": "more than 1000 processes",
		"children=maybe&pid=1":                    "neither true nor false",
		"children=true":                           "children=true needs pid",
		"comm=(":                                  "not a regular expression",
		"comm=" + strings.Repeat("a", 1001):       "comm has 1001 bytes",
		"cgroup=%00":                              "zero byte",
		"container=123":                           "8 to 64 hexadecimal digits",
		"container=0123456g":                      "8 to 64 hexadecimal digits",
		"container=" + strings.Repeat("a", 65):    "8 to 64 hexadecimal digits",
		"second=5":                                `no parameter "second": accepted are seconds, pid`,
		"a;b":                                     "malformed",
		"%zz":                                     "malformed",
	} {
		checkRefusal(t, raw, http.StatusBadRequest, want)
	}
}

func checkRefusal(t *testing.T, raw string, status int, want string) {
	t.Helper()
	_, err := parseQuery(raw)
	refused := (*refusal)(nil)
	if !errors.As(err, &refused) || refused.status != status || !strings.Contains(refused.text, want) {
		t.Errorf("%.60s: %v, not %d %s", raw, err, status, want)
	}
}

// Whatever is asked for, the answer is a query within its bounds, or one short line of plain text.
func FuzzParseQuery(f *testing.F) {
	for _, raw := range []string{
		"", "seconds=5", "seconds=0.5&pid=1,2&children=true&comm=^a$&cgroup=/sys/fs/cgroup/a&container=0123456789abcdef",
		"seconds=1e400", "from=-15m&to=now", "pid=%31%2c2", "comm=%28%3fi%29a{1000}", "comm=(", "unknown=\xff", "a;b", "%", "seconds=1&seconds=1",
		"seconds=.", "seconds=00000000000000000001", "container=ABCDEF00", "cgroup=../../..", "children=true",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			refused := (*refusal)(nil)
			if !errors.As(err, &refused) || refused.text == "" || len(refused.text) > 2000 ||
				strings.ContainsFunc(refused.text, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
				t.Fatalf("%q: refused by %q", raw, err)
			}
			return
		}
		if q.duration <= 0 || q.duration > maxDuration || len(q.filter.PIDs) > maxPIDs || strings.ContainsRune(q.cgroup, 0) ||
			slices.ContainsFunc(q.filter.PIDs, func(pid int) bool { return pid < 1 || pid > maxPID }) ||
			q.filter.Children && q.filter.PIDs == nil || len(q.filter.ContainerID) > 64 {
			t.Fatalf("%q: %+v", raw, q)
		}
		if values, err := url.ParseQuery(raw); err != nil || len(values) > len(parameters) {
			t.Fatalf("%q: parameters were ignored", raw)
		}
	})
}

const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// fakeHost has process 10 with thread 11, in two cgroups of a hybrid host whose hierarchies are mounted in a directory.
func fakeHost(t *testing.T) (h host, cgroups string) {
	t.Helper()
	root := t.TempDir()
	h, cgroups = host{filepath.Join(root, "proc")}, filepath.Join(root, "cgroup with space")
	escaped := strings.ReplaceAll(cgroups, " ", `\040`)
	for name, text := range map[string]string{
		"10/status": "Name:\tx\nTgid:\t10\n",
		"11/status": "Name:\tx\nTgid:\t10\n",
		"10/cgroup": "4:memory:/docker/" + containerID + "\n0::/elsewhere/deep\n",
		"self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda rw\n" +
			"35 24 0:30 / " + escaped + " ro - tmpfs tmpfs rw\n" +
			"36 35 0:31 / " + escaped + "/unified rw shared:15 - cgroup2 cgroup2 rw\n" +
			"37 35 0:32 /part " + escaped + "/memory rw - cgroup cgroup rw,memory\n",
	} {
		path := filepath.Join(h.proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"unified/system.slice/a.service", "memory/below"} {
		if err := os.MkdirAll(filepath.Join(cgroups, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h, cgroups
}

func TestResolveCgroup(t *testing.T) {
	h, dir := fakeHost(t)
	for given, want := range map[string]string{
		dir + "/unified/system.slice":                           "/system.slice",
		dir + "/unified/system.slice/":                          "/system.slice",
		dir + "/unified/system.slice/../system.slice/a.service": "/system.slice/a.service",
		dir + "/unified":                                        "",
		"/":                                                     "",
		"/system.slice/a.service":                               "/system.slice/a.service",
		"system.slice":                                          "/system.slice",
		dir + "/memory/below":                                   "/part/below", // the mount shows a part of the hierarchy
		"/part/below":                                           "/part/below",
		"/docker/" + containerID:                                "/docker/" + containerID, // known from a process alone
		"/elsewhere":                                            "/elsewhere",
	} {
		q := liveQuery{cgroup: given}
		if err := h.resolve(&q); err != nil || q.filter.Cgroup != want {
			t.Errorf("%s: %q, %v, not %q", given, q.filter.Cgroup, err, want)
		}
	}
	for _, given := range []string{"/no/such/cgroup", dir + "/unified/none", dir + "/unifiedx", "/elsewhere/de", "/etc", "/../etc"} {
		q := liveQuery{cgroup: given}
		if err := h.resolve(&q); err == nil || !strings.Contains(err.Error(), "there is no such cgroup") {
			t.Errorf("%s: %q, %v", given, q.filter.Cgroup, err)
		}
	}
}

func TestResolveProcesses(t *testing.T) {
	h, _ := fakeHost(t)
	for raw, want := range map[string]string{
		"pid=10":                "",
		"pid=10,12":             "pid=12: there is no such process",
		"pid=11":                "pid=11 is a thread of process 10",
		"container=01234567":    "",
		"container=012345678aa": "no running process is in a container of that id",
	} {
		q, err := parseQuery(raw)
		if err == nil {
			err = h.resolve(&q)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, not %q", raw, err, want)
		}
	}
}

// On the real machine: this process, and its cgroups by path.
func TestResolveOnThisHost(t *testing.T) {
	h := host{"/proc"}
	q := liveQuery{}
	q.filter.PIDs = []int{os.Getpid()}
	if err := h.resolve(&q); err != nil {
		t.Error(err)
	}
	q = liveQuery{cgroup: "/no/such/cgroup"}
	began := time.Now()
	if err := h.resolve(&q); err == nil {
		t.Error("a cgroup that is not there was found")
	}
	t.Logf("%v to see that a cgroup is not there", time.Since(began))
}
