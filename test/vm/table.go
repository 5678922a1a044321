package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A table is what README says of kernels; the tests themselves write it. Safe for concurrent use.
type table struct {
	mu       sync.Mutex
	outcomes map[kernel]map[string]string // row -> cell
	features []string                     // in the order in which they were told
}

// rows are what works where a test passes.
var rows = []struct{ title, test string }{
	{"agent, downloads with filters, metrics", "TestAgentProfiles"},
	{"whole host: samples fit `/proc/stat` and `/proc/PID/stat`; CPUs go and come", "TestVMWholeHost"},
	{"a command and its short-lived children", "TestShortLived"},
	{"threads", "TestTruthThreads"},
	{"system calls: kernel frames on user frames", "TestTruthSystemCalls"},
	{"trace and span ids: thread context", "TestSpansThreadContext"},
	{"trace and span ids: labels of Go", "TestSpansGo"},
	{"cgroups v1, v2 and hybrid", "TestVMCgroups"},
	{"not root: each capability missing is said", "TestMissingCapabilities"},
	{"each setting that costs something is said", "TestMissingInTheMachine"},
	{"a pid namespace of its own", "TestTargetsOfAgentInPIDNamespace"},
}

var (
	testLine    = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\w+) `)
	featureLine = regexp.MustCompile(`table: (\w+) = (\w+)`)
)

// line takes in what a machine said.
func (t *table) line(k kernel, line string) {
	name, cell := "", ""
	if found := testLine.FindStringSubmatch(line); found != nil {
		name, cell = found[2], map[string]string{"PASS": "yes", "FAIL": "no"}[found[1]]
	} else if found := featureLine.FindStringSubmatch(line); found != nil {
		name, cell = found[1], found[2]
	}
	if cell == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.outcomes == nil {
		t.outcomes = make(map[kernel]map[string]string)
	}
	if t.outcomes[k] == nil {
		t.outcomes[k] = make(map[string]string)
	}
	t.outcomes[k][name] = cell
	if strings.Contains(line, "table: ") && !slices.Contains(t.features, name) {
		t.features = append(t.features, name)
	}
}

// String is the table as Markdown; an empty cell is a test that the kernel does not run.
func (t *table) String() string {
	kernels := slices.Clone(matrix)
	slices.SortStableFunc(kernels, func(a, b kernel) int { return strings.Compare(a.architecture, b.architecture) })
	slices.SortStableFunc(kernels, func(a, b kernel) int {
		if a.architecture != b.architecture {
			return 0
		}
		return slices.Index(versions, a.version) - slices.Index(versions, b.version)
	})
	var text strings.Builder
	text.WriteString("|")
	for _, k := range kernels {
		fmt.Fprintf(&text, " | %s %s", k.version, k.architecture)
	}
	text.WriteString(" |\n| ---" + strings.Repeat(" | ---", len(kernels)) + " |\n")
	row := func(title, name string) {
		text.WriteString("| " + title)
		for _, k := range kernels {
			text.WriteString(" | " + t.outcomes[k][name])
		}
		text.WriteString(" |\n")
	}
	for _, r := range rows {
		row(r.title, r.test)
	}
	for _, f := range t.features {
		row("`"+f+"`", f)
	}
	return text.String()
}

// versions are in the order of their age.
var versions = []string{"5.10", "6.1", "6.12", "7.3"}

const (
	tableBegin = "<!-- kernels: written by make test-vm -->\n"
	tableEnd   = "<!-- end of kernels -->\n"
)

// update puts the table into a file, or, to check, only tells whether it is there already.
func (t *table) update(path string, check bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := bytes.Cut(text, []byte(tableBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: no place for the table of kernels", path)
	}
	fresh := slices.Concat(before, []byte(tableBegin), []byte(t.String()), []byte(tableEnd), after)
	switch {
	case bytes.Equal(fresh, text):
		return nil
	case check:
		return fmt.Errorf("%s does not say what the tests found; run make test-vm:\n%s", path, t)
	}
	return os.WriteFile(path, fresh, 0o644)
}
