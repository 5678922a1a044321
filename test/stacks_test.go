// SPDX-License-Identifier: Apache-2.0

package test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// More than 100,000 distinct stacks: every one in the profile was really executed, and what did not fit is counted.
// workloads/manystacks.c says how a stack proves itself.
func TestManyStacks(t *testing.T) {
	// Each stack burns for 1.4 periods, so that nearly every one is sampled once or twice.
	const hz, stacks, nanosEach = 4999, 125_000, 280_000
	r := record(t, "-F", strconv.Itoa(hz), "--", build(t, "manystacks"), "0", strconv.Itoa(stacks), strconv.Itoa(nanosEach), "2")
	checkConservation(t, r.profile)
	var truth struct{ Ran, Total int64 }
	lines := strings.Split(strings.TrimSpace(r.result.stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &truth); err != nil || truth.Ran != stacks {
		t.Fatalf("manystacks said %q: %v", lines[len(lines)-1], err)
	}

	var samples, moving, cut int64
	reasons, distinct := map[string]int64{}, map[uint32]bool{}
	for _, s := range r.profile.Sample {
		all := user(frames(s))
		reason := reasonOf(all)
		if reason != "" && len(all) == 1 || len(all) == 0 {
			cut += s.Value[0]
			reasons[reason] += s.Value[0]
			continue
		}
		if all[0].name != "leaf" {
			continue // start, end, or between two stacks
		}
		samples += s.Value[0]
		number, err := decode(all)
		switch {
		case err == errNoFrame:
			moving += s.Value[0]
		case err != nil && reason != "":
			cut += s.Value[0]
			reasons[reason] += s.Value[0]
		case err != nil:
			t.Errorf("%v: %v", err, names(all))
		case int64(number) >= stacks:
			t.Errorf("number %d was never run", number)
		default:
			distinct[number] = true
		}
		if t.Failed() {
			return
		}
	}
	_, _, lost := comments(t, r.profile)
	t.Logf("%.1f s of CPU time: %d samples in the leaf (%.1f %% of the time), %d distinct stacks of %d; %d cut (%v), %d at a leaf's first or last instruction; lost %v",
		float64(truth.Total)/1e9, samples, float64(samples)/float64(truth.Total)*1e11/hz, len(distinct), stacks, cut, reasons, moving, lost)
	if moving > samples/1000 {
		t.Errorf("%d of %d stacks lack the leaf's caller", moving, samples)
	}
	var notSampled int64
	for _, n := range lost {
		notSampled += n
	}
	if int64(len(distinct))+cut+notSampled < 100_000 {
		t.Errorf("%d distinct stacks, %d without a stack, %d lost: not 100,000", len(distinct), cut, notSampled)
	}
}

func names(all []frame) []string {
	var list []string
	for _, f := range all {
		list = append(list, f.name)
	}
	return list
}

var errNoFrame = fmt.Errorf("the leaf had no frame yet, or not any more")

// decode reads the number out of a stack: leaf, (one|zero)_31 ... (one|zero)_0, run.
func decode(all []frame) (uint32, error) {
	var code uint32
	place := 31
	if len(all) > 1 && strings.HasSuffix(all[1].name, "_30") {
		return 0, errNoFrame // interrupted before the leaf's push of the frame pointer: its caller is skipped
	}
	for _, f := range all[1:] {
		bit, digits, ok := strings.Cut(f.name, "_")
		if place < 0 {
			if f.name != "run" {
				return 0, fmt.Errorf("%q called the outermost call", f.name)
			}
			break
		}
		if at, err := strconv.Atoi(digits); !ok || err != nil || at != place || bit != "one" && bit != "zero" {
			return 0, fmt.Errorf("%q stands at place %d", f.name, place)
		}
		if bit == "one" {
			code |= 1 << place
		}
		place--
	}
	if place >= 0 {
		return 0, fmt.Errorf("the stack ends at place %d", place)
	}
	number := code & (1<<17 - 1)
	if code != number|(number*0x9e3779b1>>17)<<17 {
		return 0, fmt.Errorf("code %#x has a wrong checksum", code)
	}
	return number, nil
}
