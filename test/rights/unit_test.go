// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"bufio"
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	tree = "../.."
	unit = tree + "/deploy/systemd/pilotlight.service"
	// exposure is what README says of the unit.
	exposure = "2.8"
)

// makeTarget runs make in the tree.
func makeTarget(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-C", tree}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// files are the files below a folder, with their modes.
func files(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := make(map[string]fs.FileMode)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			found[strings.TrimPrefix(path, dir)] = info.Mode()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUnitInstalls(t *testing.T) {
	for prefix, args := range map[string][]string{"/usr/local": nil, "/usr": {"PREFIX=/usr"}} {
		dir := t.TempDir()
		install := append(args, "DESTDIR="+dir)
		makeTarget(t, append(install, "install")...)
		want := map[string]fs.FileMode{
			prefix + "/bin/pilotlight":                        0o755,
			prefix + "/lib/systemd/system/pilotlight.service": 0o644,
		}
		if got := files(t, dir); !maps.Equal(got, want) {
			t.Errorf("installed %v, want %v", got, want)
		}
		text, err := os.ReadFile(dir + prefix + "/lib/systemd/system/pilotlight.service")
		if err != nil || !strings.Contains(string(text), "\nExecStart="+prefix+"/bin/pilotlight agent\n") {
			t.Errorf("the unit does not start %s/bin/pilotlight: %v", prefix, err)
		}
		other := dir + prefix + "/bin/other"
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		makeTarget(t, append(install, "uninstall")...)
		if got := files(t, dir); len(got) != 1 || got[prefix+"/bin/other"] == 0 {
			t.Errorf("after uninstall: %v", got)
		}
	}
}

func TestUnitVerifies(t *testing.T) {
	dir := t.TempDir()
	makeTarget(t, "PREFIX="+dir, "install")
	path := dir + "/lib/systemd/system/pilotlight.service"
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestUnitExposure(t *testing.T) {
	readme, err := os.ReadFile(tree + "/README.md")
	if err != nil || !strings.Contains(string(readme), "exposure level of "+exposure) {
		t.Errorf("README does not say that the exposure level is %s: %v", exposure, err)
	}
	threshold := strings.ReplaceAll(exposure, ".", "")
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+threshold, unit).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Overall exposure level for pilotlight.service: "+exposure) {
		t.Errorf("%v\n%s", err, out)
	}
}

// settings are the values of the unit's section Service, by name; a name may come again.
func settings(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			found[name] = append(found[name], value)
		}
	}
	return found
}

// systemCalls are those that lines of SystemCallFilter leave, by number.
func systemCalls(t *testing.T, lines []string) []uint32 {
	t.Helper()
	allowed := make(map[string]bool)
	for _, line := range lines {
		names, refused := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(names) {
			for _, call := range group(t, name) {
				allowed[call] = !refused
			}
		}
	}
	numbers := callNumbers(t)
	var calls []uint32
	for name, is := range allowed {
		if number, ok := numbers[name]; ok && is {
			calls = append(calls, number)
		}
	}
	slices.Sort(calls)
	return calls
}

// group resolves @NAME by what systemd says of it.
func group(t *testing.T, name string) []string {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", name).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", name, err)
	}
	var calls []string
	for line := range strings.Lines(string(out)) {
		member := strings.TrimSpace(line)
		if member == "" || member == name || strings.HasPrefix(member, "#") {
			continue
		}
		calls = append(calls, group(t, member)...)
	}
	return calls
}

// callNumbers asks the C headers, which may define one name by another.
func callNumbers(t *testing.T) map[string]uint32 {
	t.Helper()
	cmd := exec.Command("gcc", "-dM", "-E", "-include", "asm/unistd.h", "-")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	defined := make(map[string]string)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && strings.HasPrefix(fields[1], "__NR") {
			defined[fields[1]] = fields[2]
		}
	}
	numbers := make(map[string]uint32)
	for name, value := range defined {
		if other, ok := defined[value]; ok {
			value = other
		}
		call, ok := strings.CutPrefix(name, "__NR_")
		if n, err := strconv.ParseUint(value, 0, 32); ok && err == nil {
			numbers[call] = uint32(n)
		}
	}
	if numbers["bpf"] != unix.SYS_BPF {
		t.Fatalf("the C headers say that bpf is number %d", numbers["bpf"])
	}
	return numbers
}

// The agent loses nothing by the unit: it runs with the unit's user, capabilities, limits, read-only folders and filters
// as far as they can be had without systemd, and names a process whose binary lies in the /tmp that it does not see.
func TestUnitTakesNothing(t *testing.T) {
	s := settings(t)
	one := func(name string) string {
		if len(s[name]) != 1 {
			t.Fatalf("%s: %q", name, s[name])
		}
		return s[name][0]
	}
	if one("AmbientCapabilities") != one("CapabilityBoundingSet") {
		t.Error("what is bounded is not what is given")
	}
	r := room{Bounding: true}
	for name := range strings.FieldsSeq(one("AmbientCapabilities")) {
		i := slices.IndexFunc(six, func(c capability) bool { return c.name == name })
		if i < 0 {
			t.Fatalf("%s is given, which the agent does not use", name)
		}
		r.Capabilities = append(r.Capabilities, six[i].number)
	}
	for name, take := range map[string]func(){
		"NoNewPrivileges=yes":    func() { r.NoNewPrivs = true },
		"ProtectSystem=strict":   func() { r.ReadOnly = true },
		"PrivateTmp=yes":         func() { r.PrivateTmp = true },
		"LimitMEMLOCK=infinity":  func() {},
		"DynamicUser=yes":        func() {},
		"PrivateMounts=yes":      func() {},
		"RestrictNamespaces=yes": func() {},
	} {
		setting, value, _ := strings.Cut(name, "=")
		if one(setting) != value {
			t.Errorf("%s is %q, want %s", setting, one(setting), value)
		}
		take()
	}
	for dir := range strings.FieldsSeq(one("ReadOnlyPaths")) {
		if info, err := os.Stat(strings.TrimPrefix(dir, "-")); err == nil && info.IsDir() {
			r.ReadOnlyDirs = append(r.ReadOnlyDirs, strings.TrimPrefix(dir, "-"))
		}
	}
	for name := range strings.FieldsSeq(one("RestrictAddressFamilies")) {
		r.Families = append(r.Families, map[string]uint32{"AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6}[name])
	}
	r.Allow = systemCalls(t, s["SystemCallFilter"])
	r.Writable = []string{folder}

	pid := startHiddenBurner(t)
	a := r.start(t, "-p", strconv.Itoa(pid))
	checkLosses(t, a.losses())
	if ok, all, inside := a.mostlyNamed(t, burning); !ok {
		t.Errorf("%d of %d samples are named", inside, all)
	}
	checkConfined(t, a, r.Capabilities)
	a.stop(t)

	for _, blinding := range []string{"ProtectKernelLogs", "ProtectKernelTunables", "ProcSubset", "PrivateUsers", "PrivatePIDs", "ProtectProc"} {
		if s[blinding] != nil {
			t.Errorf("%s is set", blinding)
		}
	}
}

// startHiddenBurner runs one from a folder in /tmp that is not ours.
func startHiddenBurner(t *testing.T) int {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hidden-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "burner")
	if err := copyFile(self, program); err != nil {
		t.Fatal(err)
	}
	return startProgram(t, program)
}
