package container

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	id    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	pod   = "pod5f3a2b1c-9d8e-4f7a-b6c5-d4e3f2a1b0c9"
	slice = "kubepods-burstable-pod5f3a2b1c_9d8e_4f7a_b6c5_d4e3f2a1b0c9.slice"
)

// Texts of /proc/PID/cgroup as the container runtimes make them.
func TestID(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"docker, v1":                   {"12:pids:/docker/" + id + "\n11:cpu,cpuacct:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/system.slice/containerd.service\n", id},
		"docker, v1, systemd":          {"11:memory:/system.slice/docker-" + id + ".scope\n1:name=systemd:/system.slice/docker-" + id + ".scope\n", id},
		"docker, v2":                   {"0::/system.slice/docker-" + id + ".scope\n", id},
		"docker, v2, cgroupfs":         {"0::/docker/" + id + "\n", id},
		"docker, group inside":         {"0::/system.slice/docker-" + id + ".scope/init.scope\n", id},
		"docker in docker":             {"0::/docker/" + other + "/docker/" + id + "\n", id},
		"containerd, cri, systemd":     {"0::/kubepods.slice/kubepods-burstable.slice/" + slice + "/cri-containerd-" + id + ".scope\n", id},
		"containerd, cri, cgroupfs":    {"0::/kubepods/besteffort/" + pod + "/" + id + "\n", id},
		"containerd, cri, colons":      {"0::/system.slice/containerd.service/" + slice + ":cri-containerd:" + id + "\n", id},
		"containerd, ctr":              {"0::/default/" + id + "\n", id},
		"cri-o":                        {"0::/kubepods.slice/kubepods-besteffort.slice/" + slice + "/crio-" + id + ".scope\n", id},
		"cri-o, group inside":          {"0::/kubepods.slice/" + slice + "/crio-" + id + ".scope/container\n", id},
		"podman, root":                 {"0::/machine.slice/libpod-" + id + ".scope/container\n", id},
		"podman, rootless":             {"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope\n", id},
		"podman, v1":                   {"9:memory:/libpod_parent/libpod-" + id + "\n", id},
		"kubernetes, docker, v1":       {"8:cpuset:/kubepods/burstable/" + pod + "/" + id + "\n1:name=systemd:/kubepods/burstable/" + pod + "/" + id + "\n", id},
		"kubernetes pod's own group":   {"0::/kubepods.slice/kubepods-burstable.slice/" + slice + "\n", ""},
		"hybrid: v1 knows more":        {"5:memory:/docker/" + id + "\n0::/\n", id},
		"a group that was removed":     {"0::/system.slice/docker-" + id + ".scope (deleted)\n", id},
		"the runtime's monitor":        {"0::/machine.slice/libpod-conmon-" + id + ".scope\n", ""},
		"the runtime's monitor, cri-o": {"0::/system.slice/crio-conmon-" + id + ".scope\n", ""},
		"systemd service":              {"0::/system.slice/ssh.service\n", ""},
		"systemd session":              {"0::/user.slice/user-1000.slice/session-2.scope\n", ""},
		"root":                         {"0::/\n", ""},
		"too short":                    {"0::/docker/" + id[1:] + "\n", ""},
		"too long":                     {"0::/docker/" + id + "0\n", ""},
		"capital digits":               {"0::/docker/" + strings.ToUpper(id) + "\n", ""},
		"empty":                        {"", ""},
		"garbage":                      {"::::\n\nx\n0:\n0::\n" + id + "\n", ""},
	} {
		if got := ID(Cgroups(c.text)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

const (
	uid   = "5f3a2b1c-9d8e-4f7a-b6c5-d4e3f2a1b0c9"
	inner = "aaaabbbb-9d8e-4f7a-b6c5-d4e3f2a1b0c9"
	hash  = "0123456789abcdef0123456789abcdef"
)

// What a process's pod, unit and service are, by texts of /proc/PID/cgroup as the kubelet, systemd and container runtimes make them.
func TestPodAndUnit(t *testing.T) {
	for name, c := range map[string]struct{ text, pod, unit, service string }{
		"kubelet, systemd, burstable":   {"0::/kubepods.slice/kubepods-burstable.slice/" + slice + "/cri-containerd-" + id + ".scope", uid, "cri-containerd-" + id + ".scope", ""},
		"kubelet, systemd, guaranteed":  {"0::/kubepods.slice/kubepods-pod5f3a2b1c_9d8e_4f7a_b6c5_d4e3f2a1b0c9.slice/crio-" + id + ".scope/container", uid, "crio-" + id + ".scope", ""},
		"kubelet, systemd, kind":        {"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-" + strings.Replace(slice, "burstable", "besteffort", 1) + "/cri-containerd-" + id + ".scope", uid, "cri-containerd-" + id + ".scope", ""},
		"kubelet, cgroupfs":             {"0::/kubepods/besteffort/" + pod + "/" + id, uid, "", ""},
		"kubelet, cgroupfs, guaranteed": {"0::/kubepods/" + pod + "/" + id, uid, "", ""},
		"kubelet, cgroupfs, v1":         {"8:cpuset:/kubepods/burstable/" + pod + "/" + id + "\n1:name=systemd:/kubepods/burstable/" + pod + "/" + id, uid, "", ""},
		"kubelet, below its service":    {"0::/system.slice/kubelet.service/kubepods/burstable/" + pod + "/" + id, uid, "kubelet.service", ""},
		"kubelet, colons":               {"0::/system.slice/containerd.service/" + slice + ":cri-containerd:" + id, uid, "containerd.service", ""},
		"static pod":                    {"0::/kubepods/burstable/pod" + hash + "/" + id, hash, "", ""},
		"static pod, systemd":           {"0::/kubepods.slice/kubepods-burstable-pod" + hash + ".slice", hash, "", ""},
		"pod in a pod":                  {"0::/kubepods/burstable/" + pod + "/" + other + "/kubepods/pod" + inner + "/" + id, inner, "", ""},
		"no kubelet's pod":              {"0::/machine.slice/" + pod, "", "", ""},
		"podman's pod":                  {"0::/machine.slice/machine-libpod_pod_" + id + ".slice/libpod-" + other + ".scope", "", "libpod-" + other + ".scope", ""},
		"no uid":                        {"0::/kubepods/podcast/" + id, "", "", ""},
		"capital digits":                {"0::/kubepods/" + strings.ToUpper(pod), "", "", ""},
		"uid with dashes elsewhere":     {"0::/kubepods/pod5f3a2b1c9-d8e-4f7a-b6c5-d4e3f2a1b0c9", "", "", ""},

		"service":                      {"0::/system.slice/ssh.service", "", "ssh.service", "ssh"},
		"service, group inside":        {"0::/system.slice/ssh.service/worker/1", "", "ssh.service", "ssh"},
		"instance":                     {"0::/system.slice/system-postgresql.slice/postgresql@15-main.service", "", "postgresql@15-main.service", "postgresql@15-main"},
		"escaped":                      {"0::/system.slice/web\\x2dserver.service", "", "web-server.service", "web-server"},
		"escaped UTF-8":                {"0::/system.slice/caf\\xc3\\xa9.service", "", "café.service", "café"},
		"escaped slash":                {"0::/system.slice/a\\x2fb.service", "", "a\\x2fb.service", "a\\x2fb"},
		"escaped newline":              {"0::/system.slice/a\\x0ab.service", "", "a\\x0ab.service", "a\\x0ab"},
		"escaped, no text":             {"0::/system.slice/a\\xff.service", "", "a\\xff.service", "a\\xff"},
		"not quite escaped":            {"0::/system.slice/a\\xzz\\x2db\\x2.service", "", "a\\xzz-b\\x2.service", "a\\xzz-b\\x2"},
		"user's service":               {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "", "x.service", "x"},
		"user's manager":               {"0::/user.slice/user-1000.slice/user@1000.service/init.scope", "", "user@1000.service", ""},
		"session":                      {"0::/user.slice/user-1000.slice/session-2.scope", "", "session-2.scope", ""},
		"v1":                           {"4:memory:/system.slice/x.service\n1:name=systemd:/system.slice/x.service\n0::/", "", "x.service", "x"},
		"v1: only systemd's hierarchy": {"4:memory:/a/longer/path/than/that\n1:name=systemd:/x.service\n0::/", "", "x.service", "x"},
		"service before scope":         {"4:memory:/a/longer/path/a.scope\n1:name=systemd:/x.service\n0::/", "", "x.service", "x"},
		"docker":                       {"0::/system.slice/docker-" + id + ".scope", "", "docker-" + id + ".scope", ""},
		"docker, systemd inside":       {"0::/system.slice/docker-" + id + ".scope/system.slice/nginx.service", "", "nginx.service", "nginx"},
		"docker, cgroupfs, v1":         {"1:name=systemd:/system.slice/docker.service/docker/" + id, "", "docker.service", ""},
		"only a suffix":                {"0::/system.slice/.service/.scope", "", "", ""},
		"slice":                        {"0::/system.slice", "", "", ""},
		"root":                         {"0::/", "", "", ""},
		"empty":                        {"", "", "", ""},
	} {
		paths := Cgroups(c.text)
		if pod, unit, service := PodUID(paths), Unit(paths), Service(paths); pod != c.pod || unit != c.unit || service != c.service {
			t.Errorf("%s: pod %q, unit %q, service %q, want %q, %q, %q", name, pod, unit, service, c.pod, c.unit, c.service)
		}
	}
}

func TestCgroups(t *testing.T) {
	for text, want := range map[string][]string{
		"0::/a\n":                            {"/a"},
		"0::/\n":                             nil,
		"":                                   nil,
		"4:cpu:/longer/path\n3:pids:/a\n":    {"/longer/path", "/a"},
		"4:cpu:/x\n3:pids:/x\n0::/uni\n":     {"/uni", "/x"},
		"4:cpu:/same\n0::/same\n":            {"/same"},
		"4:cpu:/with:colon\n":                {"/with:colon"},
		"1:name=systemd:/init.scope\n0::/\n": {"/init.scope"},
		"4:cpu,cpuacct:/a b/c\n":             {"/a b/c"},
		"0::/no newline":                     {"/no newline"},
		"0::/../outside of the namespace\n":  {"/../outside of the namespace"},
	} {
		if got := Cgroups(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// The real text of this process: every path is in it, none is the root, none comes twice.
func FuzzCgroups(f *testing.F) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("1:a:/x\n0::/y\n2:b:/x")
	f.Fuzz(func(t *testing.T, text string) {
		paths := Cgroups(text)
		for i, p := range paths {
			if p == "" || p == "/" || strings.ContainsRune(p, '\n') || !strings.Contains(text, ":"+p) || slices.Contains(paths[:i], p) {
				t.Fatalf("%q: %q", text, paths)
			}
		}
		if id := ID(paths); id != "" && (len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" || !strings.Contains(text, id)) {
			t.Fatalf("%q: %q", text, id)
		}
	})
}

// A pod's uid is one that stands in the text, a unit is visible text that has the suffix of one and no slash, and a service is a unit.
func FuzzUnit(f *testing.F) {
	f.Add("0::/kubepods.slice/kubepods-burstable.slice/" + slice + "/cri-containerd-" + id + ".scope")
	f.Add("0::/kubepods/" + pod + "/" + id)
	f.Add(`0::/user.slice/user@1000.service/app.slice/web\x2dserver.service`)
	f.Add(`1:name=systemd:/a\x2f.service/b\x0a.scope`)
	f.Fuzz(func(t *testing.T, text string) {
		paths := Cgroups(text)
		if uid := PodUID(paths); uid != "" && (!isUID(uid) || !strings.Contains(strings.ReplaceAll(text, "_", "-"), "pod"+uid)) {
			t.Fatalf("%q: pod %q", text, uid)
		}
		unit := Unit(paths)
		plain := func(s string) bool {
			return !strings.ContainsAny(s, "/\n") && (utf8.ValidString(s) || !utf8.ValidString(text))
		}
		if unit != "" && (!plain(unit) || !strings.HasSuffix(unit, ".service") && !strings.HasSuffix(unit, ".scope")) {
			t.Fatalf("%q: unit %q", text, unit)
		}
		if service := Service(paths); service != "" && (!plain(service) || !strings.HasSuffix(unit, ".service")) {
			t.Fatalf("%q: service %q of unit %q", text, service, unit)
		}
	})
}
