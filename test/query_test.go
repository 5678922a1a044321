// SPDX-License-Identifier: Apache-2.0

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// What the agent took is in its history: the same in each way to ask it, with the agent running and after it has
// stopped, and in the shares that the program tells of itself. Its name, which a terminal would obey, is escaped.
func TestQueryHistory(t *testing.T) {
	// The name of a process is that of its file.
	evil := filepath.Join(t.TempDir(), "\x1b[31m\"evil\n")
	binary, err := os.ReadFile(build(t, "split"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(evil, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	w := start(t, evil)
	a := startAgent(t, "-p", strconv.Itoa(w.pid()))
	for deadline := time.Now().Add(hang); ; time.Sleep(100 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(a.dataDir, "v1/samples/*/*/*/*.parquet"))
		if err != nil || time.Now().After(deadline) {
			t.Fatal("no interval is there: ", err)
		}
		if len(files) > 1 {
			break
		}
	}
	until := strconv.FormatInt(time.Now().Unix()-5, 10) // what comes to an end while this asks is not meant
	filter := `comm="\x1b[31m\"evil\n"`
	ask := func(format string, more ...string) result {
		r := run(t, append([]string{"query", "--data-dir", a.dataDir, "--to", until, "--filter", filter, "--format", format}, more...)...)
		if r.code != 0 || r.stderr != "" {
			t.Fatalf("%s: exit %d\n%s", format, r.code, r.stderr)
		}
		if strings.Contains(r.stdout, "\x1b") && format != "pprof" {
			t.Errorf("%s shows an escape:\n%q", format, r.stdout)
		}
		return r
	}
	running, err := profile.Parse(strings.NewReader(ask("pprof").stdout))
	if err != nil {
		t.Fatal(err)
	}
	samples := count(running, every)
	if samples < 500 {
		t.Errorf("%d samples of ten seconds of a busy process", samples)
	}
	for function, share := range map[string]float64{"burn_a": 0.5, "burn_b": 0.3, "burn_c": 0.2} {
		checkShare(t, function, float64(count(running, innermost(exactly(function))))/float64(samples), share, samples)
	}
	served, err := a.collect(t, "to="+until+"&filter="+strings.NewReplacer(`\`, "%5C", `"`, "%22", "=", "%3D", "[", "%5B").Replace(filter))
	if err != nil {
		t.Fatal(err)
	}
	if n := count(served, every); n != samples {
		t.Errorf("the agent serves %d samples, and the files hold %d", n, samples)
	}
	code, _ := a.terminate(t)
	if code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	stopped, err := profile.Parse(strings.NewReader(ask("pprof").stdout))
	if err != nil || count(stopped, every) != samples {
		t.Errorf("%v; other samples once the agent has stopped", err)
	}
	for format, wants := range map[string][]string{
		"top":     {"burn_a [", "  SELF    TOTAL  FUNCTION"},
		"tree":    {"middle [", "burn_c ["},
		"callers": {"callers\n", "middle ["},
		"labels":  {`?[31m"evil?`, "100.0 %"},
		"series":  {`?[31m"evil?`, "█"},
		"folded":  {"main;work;middle;burn_a "},
		"json":    {`"name":"burn_a"`, fmt.Sprintf(`"samples":%d`, samples)},
	} {
		more := []string{"--by", "comm"}
		switch format {
		case "callers":
			more = []string{"--function", "burn_a"}
		case "top", "tree", "folded", "json":
			more = nil
		}
		r := ask(format, more...)
		for _, want := range wants {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%s has no %q:\n%.1000s", format, want, r.stdout)
			}
		}
		for line := range strings.Lines(r.stdout) {
			if format != "folded" && format != "json" && len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
				t.Errorf("%s: wider than 80 columns: %s", format, line)
			}
		}
	}
	for text, args := range map[string][]string{
		"at 5: expected =, !=, =~ or !~":               {"--filter", "comm>1"},
		"is no time":                                   {"--from", "yesterday"},
		"needs --function":                             {"--format", "callers"},
		"needs --by":                                   {"--format", "labels"},
		"--format series shows none":                   {"--format", "series", "--hide", "main"},
		"--format labels shows none":                   {"--format", "labels", "--by", "comm", "--hide", "main"},
		"want top, tree":                               {"--format", "nonsense"},
		"is not before":                                {"--from", "now"},
		`there is no label "name": known are pid, tid`: {"--by", "name"},
	} {
		if r := run(t, append([]string{"query", "--data-dir", a.dataDir}, args...)...); r.code != 2 || !strings.Contains(r.stderr, text) {
			t.Errorf("%v: exit %d: %s", args, r.code, r.stderr)
		}
	}
	if r := run(t, "query", "--data-dir", "/no/such"); r.code != 1 || !strings.Contains(r.stderr, "there is no history in /no/such") {
		t.Errorf("no directory: exit %d: %s", r.code, r.stderr)
	}
}
