// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	profilespb "go.opentelemetry.io/proto/otlp/profiles/v1development"

	"github.com/pilotlight/pilotlight/test/received"
)

// spanOf is a span that a workload worked for, by its own account. Number is -1 where it worked for none.
type spanOf struct {
	number     int
	begin, end int64 // CLOCK_MONOTONIC
}

// readSpans reads the account of a workload, by thread.
func readSpans(t *testing.T, path string) [][]spanOf {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var spans [][]spanOf
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var thread int
		var s spanOf
		if _, err := fmt.Sscan(lines.Text(), &thread, &s.number, &s.begin, &s.end); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		for len(spans) <= thread {
			spans = append(spans, nil)
		}
		spans[thread] = append(spans[thread], s)
	}
	if len(spans) < 2 {
		t.Fatalf("spans of %d threads", len(spans))
	}
	return spans
}

// near says whether a thread worked for a span at a time, or 20 us from it: the time of a sample went through the clock of the day, which is not
// read in the same moment.
func near(spans []spanOf, time int64, number int) bool {
	for _, off := range []int64{0, -20e3, 20e3} {
		if s, ok := at(spans, time+off); ok && s.number == number {
			return true
		}
	}
	return false
}

// at is the span that a thread worked for at a time.
func at(spans []spanOf, time int64) (spanOf, bool) {
	i, _ := slices.BinarySearchFunc(spans, time, func(s spanOf, time int64) int { return int(min(max(s.end-time, -1), 1)) })
	if i == len(spans) || time < spans[i].begin {
		return spanOf{}, false
	}
	return spans[i], true
}

// spanSample is one sample of a recording.
type spanSample struct {
	time  int64 // CLOCK_MONOTONIC
	link  *profilespb.Link
	names []string
	// labels are its attributes that are texts.
	labels map[string]string
}

// recordSpans records a workload as OTLP, with the time of each sample.
func recordSpans(t *testing.T, w *workload, seconds int, args ...string) []spanSample {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spans.otlp.pb")
	command := exec.Command(pilotlight, append([]string{"record", "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", fmt.Sprintf("%ds", seconds),
		"--format", "otlp", "--timestamps", "-o", path}, args...)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	offset := monotonic(t, 0)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	message := received.Message(t, data)
	d := message.Dictionary
	var samples []spanSample
	received.EachSample(message.ResourceProfiles, func(_ *profilespb.ResourceProfiles, _ *profilespb.Profile, s *profilespb.Sample) {
		var names []string
		for _, f := range received.Frames(d, s.StackIndex) {
			names = append(names, f.Name)
		}
		labels := make(map[string]string)
		for _, i := range s.AttributeIndices {
			a := d.AttributeTable[i]
			labels[d.StringTable[a.KeyStrindex]] = a.Value.GetStringValue()
		}
		for _, time := range s.TimestampsUnixNano {
			samples = append(samples, spanSample{int64(time) + offset, d.LinkTable[s.LinkIndex], names, labels})
		}
	})
	return samples
}

// threadOf is the thread whose work a sample was of, or -1.
func (s *spanSample) threadOf(functions []string) int {
	for i, f := range functions {
		if slices.Contains(s.names, f) {
			return i
		}
	}
	return -1
}

// checkSpans compares the ids of samples with what the workload worked for when they were taken: 98 % are right, from the first sample
// with a span on; before that the BPF programs did not know the process yet, as with stacks that are copied. Functions are those
// in which each thread works, or nil where all work in the same one: any thread will do then, but for samples without a span.
//
// Routed says that each span has a further label, of its number; without, it may be left out.
func checkSpans(t *testing.T, samples []spanSample, spans [][]spanOf, functions []string, routed bool) {
	t.Helper()
	slices.SortFunc(samples, func(a, b spanSample) int { return cmp.Compare(a.time, b.time) })
	cold := slices.IndexFunc(samples, func(s spanSample) bool { return len(s.link.SpanId) > 0 })
	if cold < 0 || cold > len(samples)/4 {
		t.Fatalf("%d of %d samples were taken before the first with a span", cold, len(samples))
	}
	var right, wrong, idle int
	var examples []string
	for _, s := range samples[cold:] {
		thread, number := s.threadOf(functions), -1
		if len(s.link.TraceId) == 16 {
			id, first := int(binary.BigEndian.Uint32(s.link.SpanId[4:])), int(binary.BigEndian.Uint32(s.link.TraceId[12:]))
			number = id & 0xffff
			if string(s.link.SpanId[:4]) != "ps\x00\x00" || string(s.link.TraceId[:12]) != "pilotlight\x00\x00" || id>>16 != first>>16 || number/9*9 != first&0xffff {
				t.Fatalf("a span %x of trace %x: nobody made these", s.link.SpanId, s.link.TraceId)
			}
			if functions != nil && thread >= 0 && thread != id>>16 {
				examples = append(examples, fmt.Sprintf("a span of thread %d in %v", id>>16, s.names))
				wrong++
				continue
			}
			thread = id >> 16
			if route, ok := s.labels["http.route"]; ok != routed && routed || ok && route != fmt.Sprintf("/items/%d", number%7) {
				t.Fatalf("span %d has labels %v", number, s.labels)
			}
		} else if functions != nil && thread < 0 {
			idle++ // the runtime's own work
			continue
		}
		fits := false
		for i := range spans {
			fits = fits || (thread < 0 || i == thread) && near(spans[i], s.time, number)
		}
		if fits {
			right++
			continue
		}
		wrong++
		if len(examples) < 5 {
			text := fmt.Sprintf("span %d of thread %d at %d in %v", number, thread, s.time, s.names)
			for i := range spans {
				found, ok := at(spans[i], s.time)
				text += fmt.Sprintf("; thread %d worked for %+v (%v)", i, found, ok)
			}
			examples = append(examples, text)
		}
	}
	t.Logf("%d cold, %d right, %d wrong, %d of the runtime\n%s", cold, right, wrong, idle, strings.Join(examples, "\n"))
	if right < 300 || float64(right) < 0.98*float64(right+wrong) {
		t.Errorf("%d of %d samples have the span that the workload worked for", right, right+wrong)
	}
}

// profileSpans starts a workload, records it, and compares.
func profileSpans(t *testing.T, functions []string, program string, args ...string) {
	t.Helper()
	account := filepath.Join(t.TempDir(), "spans")
	w := start(t, program, append([]string{account}, args...)...)
	time.Sleep(100 * time.Millisecond)
	samples := recordSpans(t, w, 3)
	w.stop()
	checkSpans(t, samples, readSpans(t, account), functions, functions != nil && (len(args) == 0 || args[0] == "0"))
}

// The thread context of OpenTelemetry, in each of the ways in which code comes to a thread-local variable.
func TestSpansThreadContext(t *testing.T) {
	for _, w := range []struct{ name, program, library string }{
		{"program", "spans", ""},
		{"module", "spans-library", "spans-module.so"},
		{"descriptor", "spans-library", "spans-descriptor.so"},
		{"descriptor of a large block", "spans-library", "spans-large.so"},
		{"slot", "spans-library", "spans-slot.so"},
		{"static", "spans-static", ""},
		{"static, musl", "spans-musl", ""},
		{"module, musl", "spans-library-musl", "spans-musl.so"},
	} {
		t.Run(w.name, func(t *testing.T) {
			var args []string
			if w.library != "" {
				args = append(args, build(t, w.library))
			}
			profileSpans(t, nil, build(t, w.program), args...)
		})
	}
}

// The agent gives what a trace cost while it is fresh, and says that its history does not know.
func TestSpansOfAgent(t *testing.T) {
	w := start(t, build(t, "gospans"), filepath.Join(t.TempDir(), "spans"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()))
	ask := func(parameters, filter string) (*profile.Profile, error) {
		return a.collect(t, parameters+"filter="+url.QueryEscape(filter))
	}
	// The spans of the second goroutine alone.
	p, err := ask("seconds=3&", `trace_id=~"70696c6f746c6967687400000001.*"`)
	if err != nil {
		t.Fatal(err)
	}
	checkConservation(t, p)
	var found int64
	for _, s := range p.Sample {
		if trace, span := label(s, "trace_id"), label(s, "span_id"); !strings.HasPrefix(trace, "70696c6f746c6967687400000001") || !strings.HasPrefix(span, "707300000001") {
			t.Fatalf("trace %q, span %q", trace, span)
		}
		if contains(exactly("main.burnFirst"))(s) {
			t.Fatalf("the other goroutine in %v", s.Label)
		}
		found += s.Value[0]
	}
	if found < 50 {
		t.Errorf("%d samples", found)
	}
	if _, err := ask("from=-1m&", `span_id!=""`); err == nil || !strings.Contains(err.Error(), "does not keep which span") {
		t.Errorf("the history answers: %v", err)
	}
}

// Labels of goroutines.
func TestSpansGo(t *testing.T) {
	functions := []string{"main.burnFirst", "main.burnSecond"}
	for _, w := range []struct {
		name, program string
		args          []string
	}{
		{"program", "gospans", nil},
		{"stripped, many labels", "gospans-stripped", []string{"20"}},
		{"at any address", "gospans-pie", nil},
		{"with C", "gospans-cgo", nil},
		{"with C, at any address", "gospans-cgo-pie", nil},
		{"with C, stripped", "gospans-cgo-stripped", nil},
		{"with C's own thread-local variables, stripped", "gospans-cgo-static", nil},
	} {
		t.Run(w.name, func(t *testing.T) {
			profileSpans(t, functions, build(t, w.program), w.args...)
		})
	}
}

// Of the further labels of a Go program samples have those that are asked for, and the ids of the span whichever these are. Samples that differ by the others
// alone are added up.
func TestSpansGoLabels(t *testing.T) {
	w := start(t, build(t, "gospans"), filepath.Join(t.TempDir(), "spans"))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"http.route", "tenant"}},
		{[]string{"--go-labels", "all"}, []string{"http.route", "tenant"}},
		{[]string{"--go-labels", "tenant, absent"}, []string{"tenant"}},
		{[]string{"--go-labels", "none"}, nil},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			linked := 0
			for _, s := range recordSpans(t, w, 1, c.args...) {
				if len(s.link.SpanId) == 0 {
					continue
				}
				linked++
				var got []string
				for key := range s.labels {
					if !strings.HasPrefix(key, "thread.") {
						got = append(got, key)
					}
				}
				if slices.Sort(got); !slices.Equal(got, c.want) {
					t.Fatalf("a sample has %q, want %q", got, c.want)
				}
			}
			if linked < 100 {
				t.Errorf("%d samples have a span", linked)
			}
		})
	}
}

// The agent has the choice from its file too.
func TestSpansGoLabelsOfAgent(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("go-labels: [tenant]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, build(t, "gospans"), filepath.Join(t.TempDir(), "spans"))
	a := startAgent(t, "-p", strconv.Itoa(w.pid()), "--config", config)
	p, err := a.collect(t, "seconds=2&filter="+url.QueryEscape(`trace_id!=""`))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) < 50 {
		t.Errorf("%d samples", len(p.Sample))
	}
	for _, s := range p.Sample {
		if label(s, "tenant") != "none" || label(s, "http.route") != "" {
			t.Fatalf("a sample has %v", s.Label)
		}
	}
}

// goReleases are those whose runtimes keep labels at other places than the one before. The first has them in a map, as all before 1.24.
var goReleases = []string{"1.18.10", "1.21.13", "1.23.12", "1.24.13", "1.25.7"}

// Labels of goroutines of programs that other releases of Go have built: the oldest, or all of them where the test may be long.
func TestSpansGoReleases(t *testing.T) {
	releases := goReleases[:1]
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		releases = goReleases
	}
	source, err := os.ReadFile("workloads/gospans/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range releases {
		folder := t.TempDir()
		for name, text := range map[string][]byte{"main.go": source, "go.mod": []byte("module gospans\n\ngo 1.18\n")} {
			if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		program := filepath.Join(folder, "gospans")
		command := exec.Command("go", "build", "-o", program, ".")
		command.Dir = folder
		command.Env = append(os.Environ(), "GOTOOLCHAIN=go"+release, "GOFLAGS=", "GOWORK=off")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v with Go %s: %v\n%s", command, release, err, out)
		}
		for _, more := range []string{"0", "20"} {
			t.Run(release+" with "+more+" more labels", func(t *testing.T) {
				profileSpans(t, []string{"main.burnFirst", "main.burnSecond"}, program, more)
			})
		}
	}
}
