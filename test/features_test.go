// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// fallbacks are the features that --without takes, by its own message.
func fallbacks(t testing.TB) []string {
	t.Helper()
	r := run(t, "doctor", "--without", "no_such_feature")
	_, list, ok := strings.Cut(r.stderr, "one or more of ")
	list, _, _ = strings.Cut(list, "\n")
	names := strings.Split(list, ", ")
	if r.code != 2 || !ok || len(names) < 2 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	return names
}

// Whatever is switched off, the same processes are sampled, and their profiles are as true.
func TestWithoutFeatures(t *testing.T) {
	const seconds = 2
	names := fallbacks(t)
	for _, without := range append([]string{"", strings.Join(names, ",")}, names...) {
		flags := []string{"-F", strconv.Itoa(truthHz), "--without", without}
		t.Run("cgroup "+without, func(t *testing.T) {
			inside, outside := start(t, build(t, "split")), start(t, build(t, "shapes"))
			defer outside.stop()
			targets := []string{nested(t, inNewCgroup(t, inside.pid()), inside.pid())}
			if v1 := "/sys/fs/cgroup/cpu"; mounted(v1) { // hosts with version 2 alone have no other
				targets = append(targets, inNewCgroupOf(t, v1, inside.pid()))
			}
			t.Cleanup(inside.stop)
			time.Sleep(200 * time.Millisecond) // two reports, so that the windows have one before them
			var recordings []recording
			for _, dir := range targets {
				recordings = append(recordings, record(t, append(flags, "--cgroup", dir, "-d", fmt.Sprintf("%ds", seconds))...))
			}
			time.Sleep(200 * time.Millisecond)
			for _, r := range recordings {
				checkForm(t, r, truthHz)
				all := count(r.profile, every)
				if own := count(r.profile, func(s *profile.Sample) bool { return labelPID(s) == inside.pid() }); own != all || all < 50 {
					t.Errorf("%d of %d samples are of the process in the cgroup", own, all)
				}
				begin := monotonic(t, r.profile.TimeNanos)
				burned := inside.burned(t, begin, begin+r.profile.DurationNanos)
				for part, nanos := range burned.CPU {
					checkShare(t, part, float64(count(r.profile, contains(exactly(part))))/float64(all), float64(nanos)/float64(burned.Total), all)
				}
			}
		})
		t.Run("descendants "+without, func(t *testing.T) {
			outside := start(t, build(t, "shapes"))
			defer outside.stop()
			family := fmt.Sprintf("%s %d >/dev/null & wait", build(t, "split"), seconds)
			r := record(t, append(flags, "--", "sh", "-c", family)...)
			checkForm(t, r, truthHz)
			all := count(r.profile, every)
			// the rest is the shell
			if burned := count(r.profile, contains(exactly("middle"))); float64(burned) < 0.9*float64(all) || all < 50 {
				t.Errorf("%d of %d samples are the child's", burned, all)
			}
			for _, s := range r.profile.Sample {
				if comm := label(s, "comm"); comm != "sh" && comm != "split" && comm != "pilotlight" {
					t.Errorf("a sample of %q", comm)
				}
			}
		})
	}
}

func mounted(hierarchy string) bool {
	_, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs"))
	return err == nil
}

// nested moves the process two levels down, and gives the level between: neither the process's own cgroup nor the root.
func nested(t testing.TB, dir string, pid int) string {
	t.Helper()
	middle := filepath.Join(dir, "middle")
	inner := filepath.Join(middle, "inner")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Remove(inner)
		_ = os.Remove(middle)
	})
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	return middle
}

// doctor says of each feature whether it is used, and of one that is switched off what is done in its place.
func TestDoctorTellsFeatures(t *testing.T) {
	found := func(args ...string) map[string]string {
		r := run(t, append([]string{"doctor", "--json"}, args...)...)
		var report struct {
			Checks []struct{ ID, Found string }
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatalf("%v\n%s", err, r.stdout)
		}
		lines := make(map[string]string)
		for _, c := range report.Checks {
			lines[c.ID] = c.Found
		}
		return lines
	}
	names := fallbacks(t)
	off := found("--without", strings.Join(names, ","))
	on := found()
	for _, name := range names {
		if line := off["feature_"+name]; !strings.HasPrefix(line, "switched off: the fallback is used: ") {
			t.Errorf("%s, switched off: %q", name, line)
		}
		if line := on["feature_"+name]; !strings.HasPrefix(line, "used, for ") && !strings.HasPrefix(line, "not there") {
			t.Errorf("%s: %q", name, line)
		}
	}
}
