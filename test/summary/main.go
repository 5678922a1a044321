// Command summary runs the stages of `make test` quietly and sums them up.
//
//	summary stage NAME COMMAND...  runs COMMAND and prints one line; where it fails, what it said
//	summary total                  adds up all stages since the folder was emptied, and prints "N passed, N failed"
//
// What a stage says is kept in build/test/NAME.log. Lines that are test events
// (go test -json) are counted; of a failing stage only what belongs to failures
// is shown. A stage that fails without a failing test counts as one failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	logs      = "build/test"
	logEnding = ".log"
	// failedEnding is of a file that stands beside a failing stage's log.
	failedEnding = ".failed"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "summary:", err)
		}
		os.Exit(1)
	}
}

// errFailed says that there were failures, which were told already.
var errFailed = errors.New("failed")

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "stage":
		return stage(os.Stdout, args[1], args[2:])
	case len(args) == 1 && args[0] == "total":
		return total(os.Stdout)
	}
	return errors.New("usage: summary stage NAME COMMAND... | summary total")
}

func stage(w io.Writer, name string, command []string) error {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	path := filepath.Join(logs, name+logEnding)
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	started := time.Now()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	runErr := cmd.Run()
	took := time.Since(started).Round(100 * time.Millisecond)
	var spent time.Duration // by it and all that it started: what it takes beside others says little
	if ended := cmd.ProcessState; ended != nil {
		spent = (ended.UserTime() + ended.SystemTime()).Round(time.Second)
	}
	t, err := readLog(path)
	if err != nil {
		return err
	}
	if runErr == nil && t.failed() == 0 {
		_, err := fmt.Fprintf(w, "ok    %-12s %7s, CPU %6s%s\n", name, took, spent, t.describe())
		return err
	}
	// In one piece: another stage may run beside this one.
	var said strings.Builder
	fmt.Fprintf(&said, "FAIL  %-12s %7s, CPU %6s%s\n", name, took, spent, t.describe())
	for _, line := range t.shown() {
		fmt.Fprintln(&said, line)
	}
	if runErr != nil {
		fmt.Fprintf(&said, "%s: %v; everything it said: %s\n", strings.Join(command, " "), runErr, path)
	}
	if _, err := io.WriteString(w, said.String()); err != nil {
		return err
	}
	if err := os.WriteFile(strings.TrimSuffix(path, logEnding)+failedEnding, nil, 0o644); err != nil {
		return err
	}
	return errFailed
}

func total(w io.Writer) error {
	paths, err := filepath.Glob(filepath.Join(logs, "*"+logEnding))
	if err != nil {
		return err
	}
	sum, stagesFailed := newTally(), 0
	for _, path := range paths {
		t, err := readLog(path)
		if err != nil {
			return err
		}
		_, err = os.Stat(strings.TrimSuffix(path, logEnding) + failedEnding)
		if err == nil && t.failed() == 0 {
			stagesFailed++
		}
		sum.add(t)
	}
	failed := sum.failed() + stagesFailed
	for _, line := range sum.briefly() {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", sum.count("pass"), failed)
	if failed > 0 || len(paths) == 0 {
		return errFailed
	}
	return nil
}

// event is a line of go test -json (see `go doc test2json`).
type event struct {
	Action, Package, Test, Output string
}

// tally is what a log holds. A function is counted once, however often it ran;
// a failure outweighs the rest, and a pass outweighs a skip.
type tally struct {
	outcome map[string]string // "package function" -> pass, fail or skip
	broken  map[string]bool   // packages that failed without a failing test: they crashed or were not built
	output  map[string][]string
	build   []string // what the compiler said
	plain   []string // lines that are not events
}

func newTally() *tally {
	return &tally{outcome: map[string]string{}, broken: map[string]bool{}, output: map[string][]string{}}
}

func readLog(path string) (*tally, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f)
}

func read(r io.Reader) (*tally, error) {
	t := newTally()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			t.plain = append(t.plain, lines.Text())
			continue
		}
		t.take(e)
	}
	for name, outcome := range t.outcome {
		if outcome == "fail" {
			delete(t.broken, strings.Fields(name)[0])
		}
	}
	return t, lines.Err()
}

func (t *tally) take(e event) {
	function, _, isPart := strings.Cut(e.Test, "/")
	key := strings.TrimSpace(e.Package + " " + function)
	switch e.Action {
	case "build-output":
		t.build = append(t.build, strings.TrimSuffix(e.Output, "\n"))
	case "output":
		t.output[key] = append(t.output[key], strings.TrimSuffix(e.Output, "\n"))
	case "pass", "fail", "skip":
		switch {
		case e.Test == "" && e.Action == "fail":
			t.broken[e.Package] = true
		case e.Test != "" && !isPart:
			t.set(key, e.Action)
		}
	}
}

var weight = map[string]int{"": 0, "skip": 1, "pass": 2, "fail": 3}

func (t *tally) set(key, outcome string) {
	if weight[outcome] > weight[t.outcome[key]] {
		t.outcome[key] = outcome
	}
}

func (t *tally) add(o *tally) {
	for key, outcome := range o.outcome {
		t.set(key, outcome)
	}
	for name := range o.broken {
		t.broken[name] = true
	}
	for key, lines := range o.output {
		if o.outcome[key] == "fail" {
			t.output[key] = append(t.output[key], lines...)
		}
	}
}

func (t *tally) count(outcome string) int {
	n := 0
	for _, o := range t.outcome {
		if o == outcome {
			n++
		}
	}
	return n
}

func (t *tally) failed() int { return t.count("fail") + len(t.broken) }

func (t *tally) describe() string {
	if len(t.outcome)+len(t.broken) == 0 {
		return ""
	}
	text := fmt.Sprintf("  %d passed", t.count("pass"))
	if n := t.failed(); n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	if n := t.count("skip"); n > 0 {
		text += fmt.Sprintf(", %d skipped", n)
	}
	return text
}

// told is the begin of what a test tells.
var told = regexp.MustCompile(`^\s+\w+_test\.go:\d+: `)

// agentSaid begins what a test tells of its agent.
const agentSaid = "the agent said:"

// briefly names the tests that failed, each with the last lines that it told: who has only the end of a long log finds the reason there.
func (t *tally) briefly() (lines []string) {
	const most, width = 8, 300
	for _, key := range slices.Sorted(maps.Keys(t.outcome)) {
		if t.outcome[key] != "fail" {
			continue
		}
		lines = append(lines, "FAIL  "+key)
		of := slices.DeleteFunc(slices.Clone(t.output[key]), func(line string) bool { return !told.MatchString(line) || strings.Contains(line, agentSaid) })
		for _, line := range of[max(0, len(of)-most):] {
			lines = append(lines, line[:min(len(line), width)])
		}
	}
	return lines
}

// shown is what explains the failures: what failing tests, packages that
// crashed and the compiler said, and every line that is not an event.
func (t *tally) shown() []string {
	shown := slices.Concat(t.plain, t.build)
	for _, key := range slices.Sorted(maps.Keys(t.output)) {
		if t.outcome[key] == "fail" || t.broken[key] {
			shown = append(shown, t.output[key]...)
		}
	}
	return shown
}
