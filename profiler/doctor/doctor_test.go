package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
)

const (
	allCapabilities = "000001ffffffffff"
	noCapabilities  = "0000000000000000"
	// bpf, perfmon, sys_ptrace, dac_read_search, checkpoint_restore, syslog
	grantedCapabilities = "000001c400080004"

	hiddenKallsyms = "0000000000000000 T _stext\n0000000000000000 t do_exit\n"
	shownKallsyms  = "ffffffff81000000 T _stext\nffffffff810c4a90 t do_exit\n"

	hybridMounts = `22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	unifiedMounts = `22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw,hidepid=invisible
30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
`
	hierarchies = `22 27 0:21 / /proc rw,hidepid=2 - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
`
)

var (
	done    = trial{answer: yes}
	refused = trial{answer: no, err: fmt.Errorf("load program: %w", unix.EPERM)}
)

// healthy is a machine on which nothing is to mend; each test takes something away.
func healthy() *machine {
	m := &machine{
		architecture: "amd64",
		pageKiB:      4,
		memlock:      8 << 20,
		executable:   "/usr/local/bin/pilotlight",
		trials: trials{
			btf: done, program: done, array: done, ring: done, sampler: done, follow: done,
			cpuClock: done, sideband: done, cycles: done, mapFile: done, otherRoot: done, buildID: done,
			features: make(map[bpf.Feature]bpf.Support),
		},
	}
	for _, info := range bpf.Features {
		m.trials.features[info.Feature] = bpf.Support{Answer: bpf.Yes}
	}
	files := fstest.MapFS{
		"proc/self/ns/user": {Mode: os.ModeSymlink, Data: []byte("user:[4026531837]")},
		"proc/self/ns/pid":  {Mode: os.ModeSymlink, Data: []byte("pid:[4026531836]")},
	}
	m.files = files
	for path, text := range map[string]string{
		"proc/sys/kernel/osrelease":                 "6.1.0-18-amd64",
		"proc/version":                              "Linux version 6.1.0-18-amd64 (gcc (Debian 12.2.0-14)) #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)",
		"proc/self/status":                          "Name:\tpilotlight\nCapPrm:\t" + noCapabilities + "\nCapEff:\t" + allCapabilities + "\n",
		"proc/self/mountinfo":                       hybridMounts,
		"proc/kallsyms":                             shownKallsyms,
		"proc/sys/kernel/perf_event_paranoid":       "2",
		"proc/sys/kernel/kptr_restrict":             "1",
		"proc/sys/kernel/perf_event_max_stack":      "127",
		"proc/sys/kernel/perf_event_mlock_kb":       "516",
		"proc/sys/kernel/unprivileged_bpf_disabled": "2",
		"sys/kernel/btf/vmlinux":                    "",
		"sys/kernel/security/lockdown":              "none [integrity] confidentiality",
		"usr/lib/debug/.build-id/ab/cd.debug":       "",
	} {
		m.write(path, text)
	}
	m.identify()
	return m
}

func (m *machine) write(path, text string) {
	m.files.(fstest.MapFS)[path] = &fstest.MapFile{Data: []byte(text + "\n")}
}

func (m *machine) remove(path string) { delete(m.files.(fstest.MapFS), path) }

func (m *machine) link(path, to string) {
	m.files.(fstest.MapFS)[path] = &fstest.MapFile{Mode: os.ModeSymlink, Data: []byte(to)}
}

// lacks takes a feature away, as the probe of an older kernel would say it.
func (m *machine) lacks(f bpf.Feature) {
	m.trials.features[f] = bpf.Support{Answer: bpf.No, Err: ebpf.ErrNotSupported}
}

func (m *machine) hold(capEff string) { m.write("proc/self/status", "CapEff:\t"+capEff) }

func TestHealthy(t *testing.T) {
	r := diagnose(healthy())
	for _, c := range r.Checks {
		if c.Status != OK {
			t.Errorf("%+v", c)
		}
	}
	if r.Status != OK || !r.CanSample() {
		t.Errorf("status %s", r.Status)
	}
}

// The statuses that a change to a healthy machine brings about, by the check's id; all others stay ok.
func TestDecisions(t *testing.T) {
	everyCapability := func(s Status) map[string]Status {
		return map[string]Status{
			"cap_bpf": Fail, "cap_perfmon": Fail, "cap_sys_ptrace": s, "cap_syslog": s,
			"cap_dac_read_search": s, "cap_checkpoint_restore": s,
		}
	}
	for _, test := range []struct {
		name   string
		change func(*machine)
		want   map[string]Status
	}{
		{"amd64 at its floor", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "5.10.0-32-cloud-amd64")
		}, nil},
		{"amd64 below its floor", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "5.4.0-150-generic")
			m.trials.sampler = conclude(ebpf.ErrNotSupported)
		}, map[string]Status{"kernel": Fail, "sampler": Fail}},
		{"amd64 below its floor, which was not tried", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "5.4.0-150-generic")
			m.trials.sampler = conclude(unix.ENOMEM)
		}, map[string]Status{"kernel": Fail, "sampler": Unknown}},
		{"amd64 below its floor, with what the distribution put in", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "4.18.0-553.el8_10.x86_64")
		}, map[string]Status{"kernel": Warn}},
		{"arm64 needs more", func(m *machine) {
			m.architecture = "arm64"
			m.write("proc/sys/kernel/osrelease", "5.15.0-1051-aws")
			m.trials.sampler = conclude(unix.EINVAL)
		}, map[string]Status{"kernel": Fail, "sampler": Fail}},
		{"arm64 below its floor, where it works", func(m *machine) {
			m.architecture = "arm64"
			m.write("proc/sys/kernel/osrelease", "5.15.0-1051-aws")
		}, map[string]Status{"kernel": Warn}},
		{"a strange release", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "custom")
		}, map[string]Status{"kernel": Unknown}},
		{"another architecture", func(m *machine) { m.architecture = "riscv64" }, map[string]Status{"kernel": Fail}},
		{"no BTF", func(m *machine) {
			m.remove("sys/kernel/btf/vmlinux")
			m.trials.btf = conclude(os.ErrNotExist)
			m.trials.sampler, m.trials.follow = m.trials.btf, m.trials.btf
		}, map[string]Status{"btf": Fail, "sampler": Fail, "follow_targets": Fail}},
		{"no tracepoint programs", func(m *machine) { m.trials.follow = conclude(unix.EINVAL) }, map[string]Status{"follow_targets": Warn}},
		{"out of memory", func(m *machine) { m.trials.ring = conclude(unix.ENOMEM) }, map[string]Status{"bpf_ring": Unknown}},
		{"no PMU", func(m *machine) { m.trials.cycles = conclude(unix.ENOENT) }, map[string]Status{"pmu": Warn}},
		{"events refused", func(m *machine) {
			m.trials.cpuClock, m.trials.sideband, m.trials.cycles = refused, refused, refused
		}, map[string]Status{"cpu_clock": Fail, "sideband": Fail, "pmu": Unknown}},
		{"no capability", func(m *machine) { m.hold(noCapabilities) }, everyCapability(Warn)},
		{"what setcap grants", func(m *machine) { m.hold(grantedCapabilities) }, nil},
		{"a user namespace of its own", func(m *machine) { m.link("proc/self/ns/user", "user:[4026532170]") }, everyCapability(Warn)},
		{"CAP_SYS_ADMIN alone", func(m *machine) {
			m.hold("0000000000200000")
		}, map[string]Status{"cap_sys_ptrace": Warn, "cap_syslog": Warn, "cap_dac_read_search": Warn}},
		{"Ubuntu's paranoid level, root", func(m *machine) { m.write("proc/sys/kernel/perf_event_paranoid", "4") }, nil},
		{"Ubuntu's paranoid level, CAP_PERFMON", func(m *machine) {
			m.hold(grantedCapabilities)
			m.write("proc/sys/kernel/perf_event_paranoid", "4")
			m.trials.cpuClock = refused
		}, map[string]Status{"perf_event_paranoid": Warn, "cpu_clock": Fail}},
		{"Debian's paranoid level, CAP_PERFMON, where that is enough", func(m *machine) {
			m.hold(grantedCapabilities)
			m.write("proc/sys/kernel/perf_event_paranoid", "3")
		}, nil},
		{"no perf events", func(m *machine) { m.remove("proc/sys/kernel/perf_event_paranoid") }, map[string]Status{"perf_event_paranoid": Fail}},
		{"kptr_restrict=2", func(m *machine) {
			m.write("proc/sys/kernel/kptr_restrict", "2")
			m.write("proc/kallsyms", hiddenKallsyms)
		}, map[string]Status{"kptr_restrict": Warn}},
		{"no kallsyms", func(m *machine) { m.remove("proc/kallsyms") }, map[string]Status{"kptr_restrict": Warn}},
		{"memlock before 5.11", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "5.10.0-32-cloud-amd64")
			m.lacks(bpf.MemcgAccounting)
			m.memlock = 64 << 10
			m.hold("000001fffeffffff") // all but CAP_SYS_RESOURCE
		}, map[string]Status{"memlock": Warn}},
		{"unlimited memlock before 5.11", func(m *machine) {
			m.write("proc/sys/kernel/osrelease", "5.10.0-32-cloud-amd64")
			m.lacks(bpf.MemcgAccounting)
			m.memlock = math.MaxUint64
			m.hold("000001fffeffffff")
		}, nil},
		{"memlock where the probe was refused", func(m *machine) {
			m.trials.features[bpf.MemcgAccounting] = bpf.Support{Err: unix.EPERM}
		}, map[string]Status{"memlock": Unknown, "feature_memcg_accounting": Unknown}},
		{"the features of 5.10", func(m *machine) {
			for _, info := range bpf.Features {
				if info.Feature != bpf.RingBuffer {
					m.lacks(info.Feature)
				}
			}
		}, nil},
		{"features switched off", func(m *machine) {
			m.options.Without = []bpf.Feature{bpf.CurrentTaskBTF, bpf.TracepointBTF}
		}, nil},
		{"a probe without memory", func(m *machine) {
			m.trials.features[bpf.TaskPtRegs] = bpf.Support{Err: unix.ENOMEM}
		}, map[string]Status{"feature_bpf_task_pt_regs": Unknown}},
		{"build ids in MMAP2 refused", func(m *machine) { m.trials.buildID = refused }, map[string]Status{"mmap2_build_id": Unknown}},
		{"types from a file, which may not be tried", func(m *machine) {
			m.options.KernelBTF = "/boot/vmlinux.btf"
			m.trials.btf = refused
		}, map[string]Status{"btf": Unknown}},
		{"no build ids in MMAP2", func(m *machine) { m.trials.buildID = conclude(unix.EINVAL) }, nil},
		{"types from a file", func(m *machine) {
			m.remove("sys/kernel/btf/vmlinux")
			m.options.KernelBTF = "/boot/vmlinux.btf"
		}, nil},
		{"types of another kernel", func(m *machine) {
			m.options.KernelBTF = "/boot/vmlinux.btf"
			m.trials.btf = conclude(bpf.ErrWrongBTF)
		}, map[string]Status{"btf": Fail}},
		{"a kernel that user reads lock up", func(m *machine) {
			m.write("proc/version", "Linux version 6.1.0-9-amd64 (gcc (Debian 12.2.0-14)) #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)")
			m.write("boot/config-6.1.0-18-amd64", "CONFIG_HARDENED_USERCOPY=y")
			m.write("proc/cmdline", "quiet")
		}, map[string]Status{"usercopy_lockup": Warn}},
		{"one that was built without hardened usercopy", func(m *machine) {
			m.write("proc/version", "Linux version 6.1.0-9-amd64 (gcc (Debian 12.2.0-14)) #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)")
			m.write("boot/config-6.1.0-18-amd64", "# CONFIG_HARDENED_USERCOPY is not set")
			m.write("proc/cmdline", "quiet")
		}, nil},
		{"one that does not say", func(m *machine) {
			m.write("proc/version", "Linux version 6.1.0-9-amd64 (gcc (Debian 12.2.0-14)) #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)")
		}, map[string]Status{"usercopy_lockup": Warn}},
		{"confidentiality", func(m *machine) {
			m.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
			m.trials.sampler = conclude(fmt.Errorf("%w: %w", bpf.ErrLockdown, unix.EINVAL))
			m.trials.follow = m.trials.sampler
		}, map[string]Status{"lockdown": Fail, "sampler": Fail, "follow_targets": Fail}},
		{"confidentiality that was not tried", func(m *machine) {
			m.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
			m.trials.sampler = conclude(unix.ENOMEM)
		}, map[string]Status{"lockdown": Unknown, "sampler": Unknown}},
		{"confidentiality, where the sampler works", func(m *machine) {
			m.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")
		}, map[string]Status{"lockdown": Warn}},
		{"no lockdown", func(m *machine) { m.remove("sys/kernel/security/lockdown") }, nil},
		{"unprivileged BPF allowed", func(m *machine) { m.write("proc/sys/kernel/unprivileged_bpf_disabled", "0") }, nil},
		{"short stacks", func(m *machine) { m.write("proc/sys/kernel/perf_event_max_stack", "64") }, map[string]Status{"perf_event_max_stack": Warn}},
		{"64 KiB pages", func(m *machine) {
			m.pageKiB = 64
			m.hold(grantedCapabilities)
			m.trials.sideband = refused
		}, map[string]Status{"perf_event_mlock_kb": Warn, "sideband": Fail}},
		{"64 KiB pages, CAP_IPC_LOCK", func(m *machine) { m.pageKiB = 64 }, nil},
		{"a pid namespace", func(m *machine) { m.link("proc/self/ns/pid", "pid:[4026532178]") }, map[string]Status{"pid_namespace": Warn}},
		{"a pid namespace, another one's /proc", func(m *machine) {
			m.link("proc/self/ns/pid", "pid:[4026532178]")
			m.write("proc/self/status", "NSpid:\t29647\t12\nCapEff:\t"+allCapabilities)
		}, map[string]Status{"pid_namespace": Fail}},
		{"hidepid, CAP_SYS_PTRACE", func(m *machine) { m.write("proc/self/mountinfo", unifiedMounts) }, nil},
		{"hidepid", func(m *machine) {
			m.write("proc/self/mountinfo", hierarchies)
			m.hold("000001fffff7ffff") // all but CAP_SYS_PTRACE
		}, map[string]Status{"hidepid": Warn, "cap_sys_ptrace": Warn}},
		{"no cgroups", func(m *machine) { m.write("proc/self/mountinfo", "") }, map[string]Status{"cgroup": Warn}},
		{"Landlock", func(m *machine) { m.trials.otherRoot = conclude(unix.EACCES) }, map[string]Status{"other_processes": Warn}},
		{"map_files closed", func(m *machine) { m.trials.mapFile = refused }, map[string]Status{"map_files": Warn}},
		{"no debug files", func(m *machine) { m.remove("usr/lib/debug/.build-id/ab/cd.debug") }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := healthy()
			test.change(m)
			m.identify()
			r := diagnose(m)
			worst := OK
			for _, c := range r.Checks {
				want := OK
				if s, ok := test.want[c.ID]; ok {
					want = s
				}
				if c.Status != want {
					t.Errorf("%s: %s, want %s: %+v", c.ID, c.Status, want, c)
				}
				if severity[want] > severity[worst] {
					worst = want
				}
				needsHelp := c.Status == Warn || c.Status == Fail
				if needsHelp && (c.Loss == "" || c.Remedy == "") {
					t.Errorf("%s says neither what is lost nor what to do: %+v", c.ID, c)
				}
				if c.Status == OK && (c.Loss != "" || c.Remedy != "") {
					t.Errorf("%s is fine and complains: %+v", c.ID, c)
				}
			}
			if r.Status != worst || r.CanSample() != (worst != Fail) {
				t.Errorf("overall %s, can sample: %v; want %s", r.Status, r.CanSample(), worst)
			}
		})
	}
}

func TestRemedyNamesTheCause(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*machine)
		want   string
	}{
		{"no capability", func(m *machine) { m.hold(noCapabilities) }, "cap_syslog+ep /usr/local/bin/pilotlight"},
		{"a path that a shell would take apart", func(m *machine) {
			m.hold(noCapabilities)
			m.executable = "/home/o'neil/my tools/pilotlight"
		}, `cap_syslog+ep '/home/o'\''neil/my tools/pilotlight'`},
		{"capabilities, not root", func(m *machine) { m.hold(grantedCapabilities) }, "CAP_SYS_ADMIN"},
		{"root", func(*machine) {}, "seccomp"},
		{"memlock", func(m *machine) {
			m.lacks(bpf.MemcgAccounting)
			m.hold(grantedCapabilities)
		}, "LimitMEMLOCK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := healthy()
			m.trials.array = refused
			test.change(m)
			m.identify()
			if got := bpfMap(m).Remedy; !strings.Contains(got, test.want) {
				t.Errorf("remedy %q, want %q in it", got, test.want)
			}
		})
	}
}

// Each feature has a line that says whether it is used, and what is done in its place.
func TestFeatures(t *testing.T) {
	found := func(change func(*machine)) map[string]string {
		m := healthy()
		change(m)
		lines := make(map[string]string)
		for _, c := range diagnose(m).Checks {
			lines[c.ID] = c.Found
		}
		return lines
	}
	there := found(func(*machine) {})
	gone := found(func(m *machine) {
		for _, info := range bpf.Features {
			m.lacks(info.Feature)
		}
	})
	off := found(func(m *machine) {
		for _, info := range bpf.Features {
			m.options.Without = append(m.options.Without, info.Feature)
		}
	})
	for _, info := range bpf.Features {
		id := "feature_" + string(info.Feature)
		if info.Feature == bpf.RingBuffer {
			if _, ok := there[id]; ok {
				t.Errorf("%s is said twice: the check of the ring does it", id)
			}
			continue
		}
		without := "the fallback is used: " + info.Fallback
		if got := there[id]; got != "used, for "+info.Use {
			t.Errorf("%s: %q", id, got)
		}
		if got := gone[id]; !strings.HasPrefix(got, "not there (it is since "+info.Since+")") || !strings.HasSuffix(got, without) {
			t.Errorf("%s, not there: %q", id, got)
		}
		if got := off[id]; !strings.HasPrefix(got, "switched off") || !strings.HasSuffix(got, without) {
			t.Errorf("%s, off: %q", id, got)
		}
	}
}

func TestCgroupLayouts(t *testing.T) {
	for mounts, want := range map[string]string{
		hybridMounts:  "hybrid: version 2 at /sys/fs/cgroup/unified, and 1 hierarchies of version 1",
		unifiedMounts: "version 2 at /sys/fs/cgroup",
		hierarchies:   "version 1, 2 hierarchies",
	} {
		m := healthy()
		m.write("proc/self/mountinfo", mounts)
		if got := cgroups(m).Found; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for release, want := range map[string]version{
		"5.10.0-32-cloud-amd64":             {5, 10},
		"6.18.44-fc-v669":                   {6, 18},
		"6.19-rc3":                          {6, 19},
		"5.15.167.4-microsoft-standard-WSL": {5, 15},
		"4.18.0-553.el8_10.x86_64":          {4, 18},
		"7.3":                               {7, 3},
	} {
		if got, err := parseVersion(release); err != nil || got != want {
			t.Errorf("%s: %v, %v", release, got, err)
		}
	}
	for _, release := range []string{"", "6", "x.1", "6.", "6.x", "."} {
		if v, err := parseVersion(release); err == nil {
			t.Errorf("%q: %v without an error", release, v)
		}
	}
}

func TestParseCapabilities(t *testing.T) {
	got, err := parseCapabilities("CapPrm:\t" + allCapabilities + "\nCapEff:\t" + grantedCapabilities + "\n")
	if err != nil || !got.has(unix.CAP_BPF) || !got.has(unix.CAP_SYSLOG) || got.has(unix.CAP_SYS_ADMIN) {
		t.Errorf("%x, %v", got, err)
	}
	for _, text := range []string{"", "CapEff:\t\n", "CapEff:\tx\n", "CapEff:\t1ffffffffffffffff\n"} {
		if got, err := parseCapabilities(text); err == nil {
			t.Errorf("%q: %x without an error", text, got)
		}
	}
}

func TestParseMountsSkipsNoise(t *testing.T) {
	mounts := parseMounts("nonsense\n22 27 0:21 / /proc\n - \n22 27 0:21 / /a rw opt:1 opt:2 - proc proc\n")
	if len(mounts) != 1 || mounts[0].point != "/a" || mounts[0].fsType != "proc" {
		t.Errorf("%+v", mounts)
	}
}

func TestText(t *testing.T) {
	m := healthy()
	m.hold(noCapabilities)
	m.identify()
	r := diagnose(m)
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"ok       BTF                                 the kernel's",
		"fail     CAP_BPF                             not held\n           lost: everything",
		"mend: as for CAP_BPF\n",
		"\nSampling cannot work here",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Count(text, "setcap") != 1 {
		t.Errorf("the same remedy more than once in\n%s", text)
	}
}

// The names of fields are a promise to scripts.
func TestJSON(t *testing.T) {
	r := Report{Status: Warn, Kernel: "6.1.0", Architecture: "arm64", Checks: []Check{
		{ID: "pmu", Title: "PMU", Status: Warn, Found: "none", Loss: "-e cycles", Remedy: "<none>"},
		{ID: "btf", Title: "BTF", Status: OK, Found: "there"},
	}}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b.Bytes()); err != nil {
		t.Fatal(err)
	}
	want := `{"status":"warn","kernel":"6.1.0","architecture":"arm64","checks":[` +
		`{"id":"pmu","title":"PMU","status":"warn","found":"none","loss":"-e cycles","remedy":"<none>"},` +
		`{"id":"btf","title":"BTF","status":"ok","found":"there"}]}`
	if compact.String() != want {
		t.Errorf("%s\nwant\n%s", compact.String(), want)
	}
}

func TestIDsAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range diagnose(healthy()).Checks {
		if c.ID == "" || c.Title == "" || c.Found == "" || seen[c.ID] {
			t.Errorf("%+v", c)
		}
		seen[c.ID] = true
	}
}

func TestConclude(t *testing.T) {
	for err, want := range map[error]answer{
		nil: yes, unix.EPERM: no, unix.EACCES: no, unix.EINVAL: no, unix.ENOENT: no,
		unix.ENOMEM: inconclusive, unix.EMFILE: inconclusive, context.Canceled: inconclusive,
	} {
		if got := conclude(err).answer; got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// A real run as root: whatever else this machine lacks, it can sample, and no descriptor stays open.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, as sampling does")
	}
	Run(t.Context(), Options{}) // opens what stays open, such as Go's poller
	before := openDescriptors(t)
	r := Run(t.Context(), Options{})
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if !r.CanSample() {
		var b bytes.Buffer
		_ = r.WriteText(&b)
		t.Errorf("root cannot sample:\n%s", b.String())
	}
	if r.Kernel == "" || len(r.Checks) != len(checks)+len(featureChecks()) {
		t.Errorf("%+v", r)
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Run(ctx, Options{})
	for _, c := range r.Checks {
		if (c.ID == "btf" || c.ID == "cpu_clock" || c.ID == "map_files") && c.Status != Unknown {
			t.Errorf("%+v", c)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries)
}
