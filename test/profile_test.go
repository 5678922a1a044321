// SPDX-License-Identifier: Apache-2.0

package test

import (
	"debug/elf"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// A recording is a finished `pilotlight record`.
type recording struct {
	profile        *profile.Profile
	path           string
	result         result
	started, ended time.Time // around the whole command
}

func readProfile(t testing.TB, path string) *profile.Profile {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := profile.Parse(file)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

// A frame is one line of one location: inlined calls are frames of their own.
type frame struct {
	name     string // "" where the location has no line at all
	line     int64
	function *profile.Function
	location *profile.Location
}

func (f frame) kernel() bool {
	return f.location.Address >= 1<<63 || f.location.Mapping != nil && strings.HasPrefix(f.location.Mapping.File, "[kernel")
}

// named says whether a reader is told a name. What starts with a bracket stands for one that is missing:
// [file+0xoffset] or a reason.
func (f frame) named() bool { return f.name != "" && !strings.HasPrefix(f.name, "[") }

// truncation says whether the frame stands for callers that are missing.
func (f frame) truncation() bool { return strings.HasPrefix(f.name, "[truncated") }

// file is the base name of the mapped file, "" without a mapping.
func (f frame) file() string {
	if f.location.Mapping == nil {
		return ""
	}
	return filepath.Base(f.location.Mapping.File)
}

// frames returns a sample's frames, innermost first.
func frames(s *profile.Sample) []frame {
	var all []frame
	for _, location := range s.Location {
		if len(location.Line) == 0 {
			all = append(all, frame{location: location})
		}
		for _, line := range location.Line {
			all = append(all, frame{line.Function.Name, line.Line, line.Function, location})
		}
	}
	return all
}

// user returns the frames outside the kernel, innermost first.
func user(all []frame) []frame {
	for i, f := range all {
		if !f.kernel() {
			return all[i:]
		}
	}
	return nil
}

func label(s *profile.Sample, key string) string {
	if values := s.Label[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func labelPID(s *profile.Sample) int {
	if values := s.NumLabel["pid"]; len(values) > 0 {
		return int(values[0])
	}
	return 0
}

// count returns the number of samples that match.
func count(p *profile.Profile, match func(*profile.Sample) bool) int64 {
	var n int64
	for _, s := range p.Sample {
		if match(s) {
			n += s.Value[0]
		}
	}
	return n
}

func every(*profile.Sample) bool { return true }

// contains matches samples that have a frame of that name anywhere: cumulative.
func contains(name *regexp.Regexp) func(*profile.Sample) bool {
	return func(s *profile.Sample) bool {
		for _, f := range frames(s) {
			if name.MatchString(f.name) {
				return true
			}
		}
		return false
	}
}

// innermost matches samples whose innermost user frame has that name. Frames inlined into it do not count as its
// own: only the physical function is what the workload measured.
func innermost(name *regexp.Regexp) func(*profile.Sample) bool {
	return func(s *profile.Sample) bool {
		all := user(frames(s))
		if len(all) == 0 {
			return false
		}
		last := all[0].location.Line
		return len(last) > 0 && name.MatchString(last[len(last)-1].Function.Name)
	}
}

func exactly(name string) *regexp.Regexp {
	return regexp.MustCompile("^" + regexp.QuoteMeta(name) + "$")
}

// tolerance is how far a measured share may be from the true one: the larger of 5 points and 4 sigma.
// Samples hit or miss a function independently, so the number of hits is binomial and
//
//	sigma = sqrt(share * (1 - share) / samples)
//
// The workloads' random slices make them independent enough; periodic sampling of short slices does better still.
func tolerance(share float64, samples int64) float64 {
	return max(0.05, 4*math.Sqrt(share*(1-share)/float64(samples)))
}

// fits says whether so many samples fit a CPU time that gives `expected` of them on average. A process that is often
// switched in and out is hit a little more or less, at worst like a Poisson process: 4 sigma, with sigma = sqrt(expected).
func fits(samples int64, expected float64) bool {
	return math.Abs(float64(samples)-expected) <= 4*math.Sqrt(expected)
}

func checkShare(t testing.TB, what string, got, want float64, samples int64) {
	t.Helper()
	t.Logf("%-55s %5.1f %% of the samples, %5.1f %% of the time (%+.1f points, %.1f allowed)",
		what, 100*got, 100*want, 100*(got-want), 100*tolerance(want, samples))
	if math.Abs(got-want) > tolerance(want, samples) {
		t.Errorf("%s: %.1f %% of %d samples, %.1f %% of the time", what, 100*got, samples, 100*want)
	}
}

// namedShare is the part of all frames, weighted by samples, that have a name; missing lists the others. A reason
// such as [truncated: unmapped pc] is no frame of the program: cutStacks counts those.
func namedShare(p *profile.Profile) (share float64, missing map[string]int64) {
	var named, total int64
	missing = map[string]int64{}
	for _, s := range p.Sample {
		for _, f := range frames(s) {
			if f.truncation() {
				continue
			}
			total += s.Value[0]
			if f.named() {
				named += s.Value[0]
			} else {
				missing[fmt.Sprintf("%q in %q", f.name, f.file())] += s.Value[0]
			}
		}
	}
	return float64(named) / float64(max(1, total)), missing
}

// checkNamed wants 99 % of all frames named.
func checkNamed(t testing.TB, p *profile.Profile) {
	t.Helper()
	share, missing := namedShare(p)
	t.Logf("%.2f %% of frames named", 100*share)
	if share < 0.99 {
		t.Errorf("%.2f %% of frames named; missing: %v", 100*share, missing)
	}
}

// cutStacks counts samples whose outermost frame says that callers are missing.
func cutStacks(p *profile.Profile) int64 {
	return count(p, func(s *profile.Sample) bool {
		all := frames(s)
		return len(all) > 0 && all[len(all)-1].truncation()
	})
}

// comments reads the accounting: samples.taken=N, samples.exported=N, samples.lost.REASON=N, and where a filter in user
// space set samples of other processes aside, samples.filtered=N, which is given as lost["filtered"].
func comments(t testing.TB, p *profile.Profile) (taken, exported int64, lost map[string]int64) {
	t.Helper()
	taken, exported, lost = -1, -1, map[string]int64{}
	for _, comment := range p.Comments {
		key, value, _ := strings.Cut(comment, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case !strings.HasPrefix(key, "samples."):
			continue
		case err != nil || n < 0:
			t.Errorf("comment %q has no number", comment)
		case key == "samples.taken":
			taken = n
		case key == "samples.exported":
			exported = n
		case key == "samples.filtered":
			lost["filtered"] = n
		case strings.HasPrefix(key, "samples.lost."):
			lost[strings.TrimPrefix(key, "samples.lost.")] = n
		}
	}
	if taken < 0 || exported < 0 || len(lost) == 0 {
		t.Errorf("comments %q do not give samples.taken, samples.exported and samples.lost.REASON", p.Comments)
	}
	return taken, exported, lost
}

// checkConservation holds the comments against each other and against the samples.
func checkConservation(t testing.TB, p *profile.Profile) {
	t.Helper()
	taken, exported, lost := comments(t, p)
	sum := exported
	for _, n := range lost {
		sum += n
	}
	if taken != sum {
		t.Errorf("taken %d != exported %d + lost %v", taken, exported, lost)
	}
	if n := count(p, every); n != exported {
		t.Errorf("samples.exported=%d, but the profile holds %d", exported, n)
	}
}

// checkForm checks what every profile must be, whatever is in it.
func checkForm(t testing.TB, r recording, hz int) {
	t.Helper()
	p := r.profile
	if got := fmt.Sprint(sampleTypes(p)); got != "[samples/count cpu/nanoseconds]" {
		t.Errorf("sample types %s", got)
	}
	if p.DefaultSampleType != "cpu" {
		t.Errorf("default sample type %q", p.DefaultSampleType)
	}
	if p.PeriodType == nil || p.PeriodType.Type != "cpu" || p.PeriodType.Unit != "nanoseconds" {
		t.Errorf("period type %v", p.PeriodType)
	}
	if want := int64(1e9) / int64(hz); p.Period < want-1 || p.Period > want+1 {
		t.Errorf("period %d at %d Hz, not %d", p.Period, hz, want)
	}
	began, ended := time.Unix(0, p.TimeNanos), time.Unix(0, p.TimeNanos+p.DurationNanos)
	if p.DurationNanos <= 0 || began.Before(r.started) || ended.After(r.ended) {
		t.Errorf("profile of %v to %v, taken by a command that ran from %v to %v", began, ended, r.started, r.ended)
	}
	checkConservation(t, p)
	var noExe int64
	for _, s := range p.Sample {
		if s.Value[0] <= 0 || s.Value[1] != s.Value[0]*p.Period {
			t.Errorf("values %v at period %d", s.Value, p.Period)
		}
		if labelPID(s) <= 0 || label(s, "comm") == "" || label(s, "thread") == "" {
			t.Errorf("labels %v %v lack one of pid, comm, thread", s.Label, s.NumLabel)
		}
		if label(s, "exe") == "" {
			noExe += s.Value[0]
		}
		checkOrder(t, s)
		if t.Failed() {
			return // the first bad sample says it
		}
	}
	// A sample may fall into an exec that has not mapped the new program yet.
	if n := count(p, every); float64(noExe) > 0.001*float64(n) {
		t.Errorf("%d of %d samples have no label exe", noExe, n)
	}
	checkMappings(t, p)
	top, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=5", r.path).CombinedOutput()
	if err != nil || !strings.Contains(string(top), "Type: cpu") {
		t.Errorf("go tool pprof -top: %v\n%s", err, top)
	}
}

func sampleTypes(p *profile.Profile) []string {
	var types []string
	for _, v := range p.SampleType {
		types = append(types, v.Type+"/"+v.Unit)
	}
	return types
}

// checkOrder checks that kernel frames stand inside user frames, and a reason outside of all.
func checkOrder(t testing.TB, s *profile.Sample) {
	t.Helper()
	all := frames(s)
	for i, f := range all {
		if f.kernel() && i > 0 && !all[i-1].kernel() && all[i-1].named() {
			t.Errorf("kernel frame %q called by user frame %q", f.name, all[i-1].name)
		}
		if f.truncation() && i != len(all)-1 && !f.kernel() {
			t.Errorf("%q is not the outermost frame: %q is", f.name, all[len(all)-1].name)
		}
	}
}

// checkMappings compares the mappings of files that still exist with those files.
func checkMappings(t testing.TB, p *profile.Profile) {
	t.Helper()
	for _, m := range p.Mapping {
		if !strings.HasPrefix(m.File, "/") {
			continue // kernel, vdso, anonymous memory
		}
		if !m.HasFunctions {
			t.Errorf("mapping %s does not say HasFunctions", m.File)
		}
		if want := buildID(m.File); want != "" && m.BuildID != want {
			t.Errorf("mapping %s has build id %q, the file %q", m.File, m.BuildID, want)
		}
	}
}

// buildID reads the GNU build id of a file, "" if there is none. The note is
//
//	u32 namesz=4, u32 descsz, u32 type=3, "GNU\0", desc
func buildID(path string) string {
	file, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	section := file.Section(".note.gnu.build-id")
	if section == nil {
		return ""
	}
	note, err := section.Data()
	if err != nil || len(note) < 16 {
		return ""
	}
	return hex.EncodeToString(note[16:])
}
