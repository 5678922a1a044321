// SPDX-License-Identifier: Apache-2.0

//go:build vm

package test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/doctor"
)

// The doctor finds nothing that sampling needs missing. What it says of the kernel's features goes into README's table.
func TestVMDoctor(t *testing.T) {
	r := run(t, "doctor", "--json")
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("doctor --json: %v\n%s%s", err, r.stdout, r.stderr)
	}
	if r.code != 0 || !report.CanSample() {
		t.Errorf("doctor: exit %d\n%s", r.code, r.stdout)
	}
	for _, f := range bpf.Features {
		i := slices.IndexFunc(report.Checks, func(c doctor.Check) bool { return c.ID == "feature_"+string(f.Feature) })
		if i < 0 { // it is one that nothing works without
			continue
		}
		answer := ""
		for start, means := range map[string]string{"used": "yes", "not there": "no"} {
			if strings.HasPrefix(report.Checks[i].Found, start) {
				answer = means
			}
		}
		if answer == "" {
			t.Errorf("%s: %s", f.Feature, report.Checks[i].Found)
		}
		t.Logf("table: %s = %s", f.Feature, answer)
	}
}

// What loading costs, for `make bench`.
func TestVMLoad(t *testing.T) {
	if err := rlimit.RemoveMemlock(); err != nil { // which binds on 5.10
		t.Fatal(err)
	}
	for object, load := range map[string]func() (*ebpf.CollectionSpec, error){"cpu": bpf.LoadCpu, "targets": bpf.LoadTargets} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if object == "targets" {
			spec.Maps[bpf.TargetsMapTargets].MaxEntries = 1024
		}
		began := time.Now()
		c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		for name, p := range c.Programs {
			verified := regexp.MustCompile(`processed (\d+) insns`).FindStringSubmatch(p.VerifierLog)
			if verified == nil {
				t.Fatalf("%s: no count in the verifier's log: %q", name, p.VerifierLog)
			}
			t.Logf("load: %s %s %s", name, verified[1], took.Round(time.Millisecond))
		}
		c.Close()
	}
}

// Lockdown, which nothing lifts before the next start, forbids programs to read the kernel's memory by helpers. Where the
// kernel lets them read it by plain loads, nothing is lost; where not, that is said.
func TestVMLockdown(t *testing.T) {
	l := start(t, build(t, "load"), "1", "1", "30")
	if err := os.WriteFile("/sys/kernel/security/lockdown", []byte("confidentiality"), 0); err != nil {
		t.Fatal(err)
	}
	r := run(t, "record", "-p", strconv.Itoa(l.pid()), "-F", "499", "-d", "1s", "-o", t.TempDir()+"/profile.pb.gz")
	switch {
	case strings.HasPrefix(kernelRelease(t), "5.10."):
		if r.code != 1 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "lockdown=confidentiality") || !strings.Contains(r.stderr, "use a kernel 5.11 or newer") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	case r.code != 0 || !strings.Contains(r.stderr, "burn_load"):
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

func kernelRelease(t testing.TB) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}
