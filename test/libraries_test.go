// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"path"
	"strconv"
	"strings"
	"testing"
)

// Two thousand files that nobody saw before are mapped and deleted in a fraction of a second: no sample is lost, and each file's code has its own
// names, or a reason.
//
// They can be opened as long as they are mapped. Where the process ends at once, how many were is a race on two CPUs: leastRaced.
func TestManyLibraries(t *testing.T) {
	if named := recordLibraries(t, 0); named < leastRaced {
		t.Errorf("%.1f %% of the samples carry names", 100*named)
	}
	if named := recordLibraries(t, 2); named < 0.98 {
		t.Errorf("%.1f %% of the samples carry names", 100*named)
	}
}

// leastRaced is the share that has names in any case where the process ends at once, and with it the files, which have no other name: in a quarter of a second
// a machine that has other things to do opens a quarter of them, others all.
const leastRaced = 0.1

// recordLibraries gives the part of the samples that have the names of their files.
func recordLibraries(t *testing.T, seconds int) float64 {
	t.Helper()
	const hz, files, rounds = 1999, 2000, 100_000
	r := record(t, "-F", strconv.Itoa(hz), "--", build(t, "libraries"), t.TempDir(), strconv.Itoa(files), strconv.Itoa(rounds), strconv.Itoa(seconds))
	checkForm(t, r, hz)
	checkConservation(t, r.profile)
	if _, _, lost := comments(t, r.profile); lost["ring_full"] > 0 {
		t.Errorf("lost: %v", lost)
	}
	lines := strings.Split(strings.TrimSpace(r.result.stdout), "\n")
	var truth struct{ Files, Nanos int64 }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &truth); err != nil || truth.Files != files {
		t.Fatalf("libraries said %q: %v", lines[len(lines)-1], err)
	}

	var inside, right int64
	reasons, distinct := map[string]int64{}, map[string]bool{}
	for _, s := range r.profile.Sample {
		all := user(frames(s))
		if len(all) == 0 {
			continue
		}
		stamp, ok := strings.CutPrefix(path.Base(all[0].file()), "lib-")
		switch {
		case !ok:
			continue
		case all[0].name == "library_burn_"+stamp:
			right += s.Value[0]
			distinct[stamp] = true
		case all[0].named():
			t.Errorf("%s in lib-%s", all[0].name, stamp)
		case reasonOf(all) == "":
			t.Errorf("neither a name nor a reason: %v", names(all))
		default:
			reasons[reasonOf(all)] += s.Value[0]
		}
		inside += s.Value[0]
	}
	t.Logf("%d files in %.0f ms, and %d s: %d samples in %d of them, %.1f %% with the names of theirs; the others: %v",
		files, float64(truth.Nanos)/1e6, seconds, inside, len(distinct), 100*float64(right)/float64(inside), reasons)
	if expected := float64(truth.Nanos) / 1e9 * hz; float64(inside) < expected/4 {
		t.Errorf("%d samples in the files, where there should be up to %.0f", inside, expected)
	}
	return float64(right) / float64(inside)
}
