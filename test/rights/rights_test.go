// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capability is one that the agent uses: its number, and how the line begins that says what its lack costs; "" is
// everything.
type capability struct {
	number uint
	name   string
	loss   string
}

var six = []capability{
	{unix.CAP_BPF, "CAP_BPF", ""},
	{unix.CAP_PERFMON, "CAP_PERFMON", ""},
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "names of functions in processes of other users"},
	{unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", "names of functions in programs that our user may not read"},
	{unix.CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE", "names of functions in programs and libraries that were deleted"},
	{unix.CAP_SYSLOG, "CAP_SYSLOG", "names of kernel functions"},
}

func without(missing ...capability) []uint {
	var numbers []uint
	for _, c := range six {
		if !slices.Contains(missing, c) {
			numbers = append(numbers, c.number)
		}
	}
	return numbers
}

// afterStart is what an agent that held these, and needed CAP_SYS_ADMIN if that is among them, keeps.
func afterStart(held []uint) string {
	lasting := []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_CHECKPOINT_RESTORE, unix.CAP_SYS_ADMIN}
	var bits uint64
	for _, c := range held {
		if slices.Contains(lasting, c) {
			bits |= 1 << c
		}
	}
	return fmt.Sprintf("%016x", bits)
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

// checkConfined looks whether the running agent has given up what it promises to.
func checkConfined(t *testing.T, a *agent, held []uint) {
	t.Helper()
	want := afterStart(held)
	for field, value := range map[string]string{
		"CapEff": want, "CapPrm": want, "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got := a.threadStatus(t, field); got != value {
			t.Errorf("%s is %s, want %s", field, got, value)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", a.cmd.Process.Pid))
	if err != nil || !regexp.MustCompile(`Max core file size +1 +1 `).Match(limits) {
		t.Errorf("core dumps are possible: %v\n%s", err, limits)
	}
}

// checkLosses compares the lines that were said with the beginnings of those that are wanted; each is one line with the
// cause and a remedy.
func checkLosses(t *testing.T, said []string, want ...string) {
	t.Helper()
	form := regexp.MustCompile(`^[^:]+: [^;]+; .+`)
	for _, line := range said {
		if !form.MatchString(line) {
			t.Errorf("not of the form LOSS: CAUSE; REMEDY: %s", line)
		}
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(line, w) }) {
			t.Errorf("unexpected: %s", line)
		}
	}
	for _, w := range want {
		if n := len(slices.DeleteFunc(slices.Clone(said), func(line string) bool { return !strings.HasPrefix(line, w) })); n != 1 {
			t.Errorf("%q was said %d times", w, n)
		}
	}
}

// Every set of the six with one or two missing (one, when it has to be short): what is lost is said, what can be done is done, on a process of another user.
func TestMissingCapabilities(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	sets := [][]capability{nil}
	for i, c := range six {
		sets = append(sets, []capability{c})
		for _, d := range six[i+1:] {
			if !testing.Short() {
				sets = append(sets, []capability{c, d})
			}
		}
	}
	for _, missing := range sets {
		var names, fatal, losses []string
		for _, c := range missing {
			names = append(names, c.name)
			switch {
			case c.loss == "":
				fatal = append(fatal, c.name)
			case c.number == unix.CAP_SYSLOG && !kptrRestricts(t):
			default:
				losses = append(losses, c.loss)
			}
		}
		t.Run("without "+strings.Join(names, " "), func(t *testing.T) {
			r := room{Capabilities: without(missing...)}
			if len(fatal) > 0 {
				said := r.fails(t, 1, "agent", "-p", pid, "--listen", "127.0.0.1:0", "--data-dir", dataDir(t))
				verb := " is not held; "
				if len(fatal) == 2 {
					verb = " are not held; "
				}
				if want := "pilotlight: not permitted to sample: " + strings.Join(fatal, " and ") + verb; !strings.HasPrefix(said, want) ||
					!strings.Contains(said, "setcap cap_bpf,cap_perfmon") {
					t.Errorf("said %q, want %q and the remedy", said, want)
				}
				return
			}
			a := r.start(t, "-p", pid)
			checkLosses(t, a.losses(), losses...)
			// Since 6.15 CAP_PERFMON opens the mappings of others, and the file lies where everyone can read it.
			if !slices.Contains(names, "CAP_SYS_PTRACE") || kernelAtLeast(t, 6, 15) {
				if ok, all, inside := a.mostlyNamed(t, burning); !ok {
					t.Errorf("%d of %d samples are named", inside, all)
				}
			} else if all, inside := samples(a.profile(t, 1), burning); all == 0 || inside > 0 {
				t.Errorf("%d of %d samples are named", inside, all)
			}
			checkConfined(t, a, r.Capabilities)
			a.stop(t)
		})
	}
}

// record says the same, and needs no more.
func TestRecordSaysLosses(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	for name, test := range map[string]struct {
		missing []capability
		losses  []string
	}{
		"all there": {nil, nil},
		"two missing": {
			[]capability{six[2], six[3]}, []string{six[2].loss, six[3].loss},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := room{Capabilities: without(test.missing...)}.command(t, "record", "-p", pid, "-d", "300ms", "-o", "/dev/null").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			checkLosses(t, lossLines(strings.Split(string(out), "\n")), test.losses...)
		})
	}
}

// Started as root, the agent ends up with less than that nobody, and works on: new processes, CPUs that come and
// go, downloads. A call that its filter refuses would end it.
func TestRootWorksOn(t *testing.T) {
	pid := strconv.Itoa(startBurner(t, "CHILDREN=1"))
	a := room{Root: true}.start(t, "-p", pid, "--children")
	checkLosses(t, a.losses())
	held := without()
	checkConfined(t, a, held)
	if got, want := a.threadStatus(t, "CapBnd"), afterStart(held); got != want {
		t.Errorf("CapBnd is %s, want %s", got, want)
	}
	if ok, all, inside := a.mostlyNamed(t, burning); !ok {
		t.Errorf("%d of %d samples of short-lived processes are named", inside, all)
	}
	for _, path := range []string{"/", "/metrics", "/healthz", "/debug/pprof/"} {
		if code, body := a.get(t, path); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	a.stop(t)
	if strings.Contains(a.all(), unix.EPERM.Error()) || strings.Contains(a.all(), unix.EACCES.Error()) {
		t.Errorf("something was refused:\n%s", a.all())
	}
}

// A setting is something that a machine may lack besides capabilities.
type setting struct {
	missing []capability
	room    room
	losses  []string
	cause   string // in the line of the last loss
}

// missingInTheMachine are settings by name, and with which others each is tried where the time is short: every one of a group
// is said then all the same.
func missingInTheMachine(t *testing.T) (settings map[string]setting, groups [][]string) {
	t.Helper()
	settings = map[string]setting{
		"hidepid": {room: room{HidePID: true}},
		"hidepid, no CAP_SYS_PTRACE": {
			missing: six[2:3], room: room{HidePID: true},
			losses: []string{six[2].loss, "names of functions in their programs"}, cause: "hidepid invisible",
		},
		"unreadable kallsyms": {
			missing: six[3:4], room: room{Fake: map[string]string{"/proc/kallsyms": ""}},
			losses: []string{six[3].loss, "names of kernel functions"}, cause: "permission denied; sudo chmod a+r /proc/kallsyms",
		},
		"kptr_restrict 2": {
			room:   room{Fake: map[string]string{"/proc/kallsyms": hiddenKallsyms(t), "/proc/sys/kernel/kptr_restrict": "2\n"}},
			losses: []string{"names of kernel functions"}, cause: "sudo sysctl -w kernel.kptr_restrict=1",
		},
		"read-only root": {
			room:   room{ReadOnly: true, ReadOnlyDirs: []string{folder}},
			losses: []string{"the guard against a second agent", "the history"}, cause: "read-only file system; give another by --data-dir",
		},
		"no cgroups": {room: room{NoCgroups: true}, losses: []string{"--cgroup, --container"}, cause: "mount -t cgroup2"},
		"shallow stacks": {
			room:   room{Fake: map[string]string{"/proc/sys/kernel/perf_event_max_stack": "20\n"}},
			losses: []string{"the outer frames of kernel stacks deeper than 20, and of user stacks that are not walked by unwind tables"}, cause: "perf_event_max_stack=127",
		},
		"no_new_privs":      {room: room{NoNewPrivs: true, Bounding: true}},
		"paranoid for some": {room: room{Fake: map[string]string{"/proc/sys/kernel/perf_event_paranoid": "4\n"}}},
	}
	if testing.Short() {
		return settings, [][]string{
			{"hidepid", "no_new_privs", "paranoid for some", "no cgroups", "shallow stacks"},
			{"hidepid, no CAP_SYS_PTRACE", "kptr_restrict 2", "read-only root"},
			{"unreadable kallsyms"},
		}
	}
	for name := range settings {
		groups = append(groups, []string{name})
	}
	return settings, groups
}

// with is a room that has what either of two has.
func (r room) with(o room) room {
	fake := maps.Clone(r.Fake)
	if fake == nil {
		fake = map[string]string{}
	}
	maps.Copy(fake, o.Fake)
	r.Fake, r.ReadOnlyDirs = fake, append(r.ReadOnlyDirs, o.ReadOnlyDirs...)
	r.HidePID, r.ReadOnly, r.NoCgroups = r.HidePID || o.HidePID, r.ReadOnly || o.ReadOnly, r.NoCgroups || o.NoCgroups
	r.NoNewPrivs, r.Bounding = r.NoNewPrivs || o.NoNewPrivs, r.Bounding || o.Bounding
	return r
}

// Everything else that a machine may lack.
func TestMissingInTheMachine(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	settings, groups := missingInTheMachine(t)
	tried := map[string]bool{}
	for _, group := range groups {
		t.Run(strings.Join(group, " + "), func(t *testing.T) {
			var r room
			var missing []capability
			var losses []string
			for _, name := range group {
				tried[name] = true
				s := settings[name]
				r, missing, losses = r.with(s.room), append(missing, s.missing...), append(losses, s.losses...)
			}
			r.Capabilities = without(missing...)
			a := r.start(t, "-p", pid)
			said := a.losses()
			checkLosses(t, said, losses...)
			for _, name := range group {
				cause := settings[name].cause
				if cause != "" && !slices.ContainsFunc(said, func(line string) bool { return strings.Contains(line, cause) }) {
					t.Errorf("nothing says %q: %q", cause, said)
				}
			}
			if slices.Contains(losses, six[2].loss) {
				if all, _ := samples(a.profile(t, 1), burning); all == 0 {
					t.Error("no samples")
				}
			} else if ok, all, inside := a.mostlyNamed(t, burning); !ok {
				t.Errorf("%d of %d samples are named", inside, all)
			}
			a.stop(t)
		})
	}
	for name := range settings {
		if !tried[name] {
			t.Errorf("%s is in no group", name)
		}
	}
}

// hiddenKallsyms is the beginning of what the kernel shows to those who may not see addresses.
func hiddenKallsyms(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var hidden strings.Builder
	lines := bufio.NewScanner(f)
	for range 1000 {
		if !lines.Scan() {
			t.Fatalf("/proc/kallsyms ends early: %v", lines.Err())
		}
		address, name, _ := strings.Cut(lines.Text(), " ")
		fmt.Fprintln(&hidden, strings.Repeat("0", len(address)), name)
	}
	return hidden.String()
}

// What sampling cannot do without is named, with the remedy, in one line.
func TestRefusedByTheMachine(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	const lockdown = "/sys/kernel/security/lockdown"
	perf, bpf := uint32(unix.SYS_PERF_EVENT_OPEN), uint32(unix.SYS_BPF)
	eperm, eacces, einval := uint16(unix.EPERM), uint16(unix.EACCES), uint16(unix.EINVAL)
	paranoid := func(level string) map[string]string {
		return map[string]string{"/proc/sys/kernel/perf_event_paranoid": level + "\n"}
	}
	commands := [][]string{
		{"agent", "-p", pid, "--listen", "127.0.0.1:0", "--data-dir", dataDir(t)},
		{"record", "-p", pid, "-d", "1s", "-o", "/dev/null"},
	}
	if testing.Short() { // both come to the same place
		commands = commands[:1]
	}
	for name, test := range map[string]struct {
		room room
		says []string
	}{
		"perf_event_paranoid 3": {
			room{Capabilities: without(), Fake: paranoid("3"), Refuse: map[uint32]uint16{perf: eacces}},
			[]string{"perf_event_paranoid 3: a distribution's own level", "sudo sysctl -w kernel.perf_event_paranoid=2"},
		},
		"perf_event_paranoid 4": {
			room{Capabilities: without(), Fake: paranoid("4"), Refuse: map[uint32]uint16{perf: eacces}},
			[]string{"perf_event_paranoid 4: a distribution's own level", "sudo sysctl -w kernel.perf_event_paranoid=2"},
		},
		"lockdown, perf": {
			room{Capabilities: without(), Fake: map[string]string{lockdown: "none integrity [confidentiality]\n"}, Refuse: map[uint32]uint16{perf: eperm}},
			[]string{"kernel lockdown is confidentiality; ", "boot with lockdown=integrity"},
		},
		"lockdown, verifier": {
			room{Capabilities: without(), Fake: map[string]string{lockdown: "none integrity [confidentiality]\n"}, Refuse: map[uint32]uint16{bpf: einval}},
			[]string{"kernel lockdown is confidentiality"},
		},
		"a container's profile": {
			room{Root: true, Refuse: map[uint32]uint16{bpf: eperm}},
			[]string{"a seccomp filter or a security module refuses although the capabilities are there"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range commands {
				said := test.room.fails(t, 1, command...)
				for _, want := range append(test.says, "not permitted to sample: ") {
					if !strings.Contains(said, want) {
						t.Errorf("%s: no %q in %q", command[0], want, said)
					}
				}
			}
		})
	}
}

// Where the kernel does not show its types, that is said, and a file with them will do.
func TestNoBTF(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	r := room{Capabilities: without(), NoBTF: true}
	said := r.fails(t, 1, "record", "-p", pid, "-d", "300ms", "-o", "/dev/null")
	if !strings.Contains(said, "/sys/kernel/btf/vmlinux") || !strings.Contains(said, "--btf FILE") {
		t.Error(said)
	}
	types := filepath.Join(dataDir(t), "types")
	if err := copyFile("/sys/kernel/btf/vmlinux", types); err != nil {
		t.Fatal(err)
	}
	a := r.start(t, "-p", pid, "--btf", types)
	checkLosses(t, a.losses())
	if ok, all, inside := a.mostlyNamed(t, burning); !ok {
		t.Errorf("%d of %d samples are named", inside, all)
	}
	a.stop(t)
}

// perfEvent is the role of a child that ends with status 0 where it may watch a whole CPU.
func perfEvent() {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Bits: unix.PerfBitDisabled}
	attr.Size = uint32(unsafe.Sizeof(attr))
	if _, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Since 5.11 the memlock limit does not bind BPF; before, it is said.
func TestLowMemlock(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	r := room{Capabilities: without(), MemlockBytes: 64 << 10}
	if !kernelAtLeast(t, 5, 11) {
		said := r.fails(t, 1, "record", "-p", pid, "-d", "300ms", "-o", "/dev/null")
		if !strings.Contains(said, "memlock limit is too low") || !strings.Contains(said, "ulimit -l unlimited") {
			t.Error(said)
		}
		r.Capabilities = append(r.Capabilities, unix.CAP_SYS_RESOURCE)
	}
	a := r.start(t, "-p", pid)
	checkLosses(t, a.losses())
	if all, _ := samples(a.profile(t, 1), burning); all == 0 {
		t.Error("no samples")
	}
	checkConfined(t, a, r.Capabilities)
	a.stop(t)
}

// Where the limit on core dumps is 0 and cannot become 1, the process is not to be dumped at all: its files in /proc are
// root's then, and it reads those that it needs all the same.
func TestNoCoreLimit(t *testing.T) {
	pid := startBurner(t)
	a := room{Capabilities: without(), NoCore: true}.start(t, "-p", strconv.Itoa(pid))
	checkLosses(t, a.losses())
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", a.cmd.Process.Pid), &stat); err != nil || stat.Uid != 0 {
		t.Errorf("the agent can be dumped: /proc/PID/environ is of user %d, %v", stat.Uid, err)
	}
	if ok, all, inside := a.mostlyNamed(t, burning); !ok {
		t.Errorf("%d of %d samples are named", inside, all)
	}
	a.stop(t)
}

// The filter can be switched off; the capabilities go all the same.
func TestSeccompFlag(t *testing.T) {
	pid := strconv.Itoa(startBurner(t))
	a := room{Root: true}.start(t, "-p", pid, "--seccomp", "off")
	if got := a.threadStatus(t, "Seccomp"); got != "0" {
		t.Errorf("Seccomp: %s", got)
	}
	if got, want := a.threadStatus(t, "CapPrm"), afterStart(without()); got != want {
		t.Errorf("CapPrm: %s, want %s", got, want)
	}
	a.stop(t)
	out, err := exec.Command(pilotlight, "agent", "--seccomp", "kill").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), `seccomp "kill"`) {
		t.Errorf("--seccomp kill: %v\n%s", err, out)
	}
}
