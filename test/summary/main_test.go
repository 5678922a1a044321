package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, test := range []struct {
		name                    string
		log                     string
		passed, failed, skipped int
		shown                   string
	}{
		{
			name: "functions, not their parts",
			log: `{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}`,
			passed: 1, skipped: 1,
		},
		{
			name: "the same name in two packages, and one function twice",
			log: `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"pass","Package":"q","Test":"TestA"}`,
			passed: 2,
		},
		{
			name: "a failing test, with what it said",
			log: `{"Action":"output","Package":"p","Test":"TestA/part","Output":"why\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"chatter\n"}
{"Action":"fail","Package":"p","Test":"TestA/part"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}`,
			passed: 1, failed: 1, shown: "why",
		},
		{
			name: "a package that is not built",
			log: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: broken\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p"}`,
			failed: 1, shown: "p.go:1: broken",
		},
		{
			name: "a crash outside of any test",
			log: `{"Action":"output","Package":"p","Output":"panic\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			passed: 1, failed: 1, shown: "panic",
		},
		{
			name:  "no tests: a linter",
			log:   "x.go:1: unused",
			shown: "x.go:1: unused",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := read(strings.NewReader(test.log))
			if err != nil {
				t.Fatal(err)
			}
			if got.count("pass") != test.passed || got.failed() != test.failed || got.count("skip") != test.skipped {
				t.Errorf("%s", got.describe())
			}
			if shown := strings.Join(got.shown(), "\n"); shown != test.shown {
				t.Errorf("shown %q, want %q", shown, test.shown)
			}
		})
	}
}

// One stage each, in a folder of its own: what a user sees.
func TestStagesAndTotal(t *testing.T) {
	t.Chdir(t.TempDir())
	var out strings.Builder
	pass := `{"Action":"pass","Package":"p","Test":"TestA"}`
	if err := stage(&out, "unit", []string{"echo", pass}); err != nil {
		t.Fatal(err)
	}
	if err := total(&out); err != nil {
		t.Fatal(err)
	}
	if err := stage(&out, "lint", []string{"sh", "-c", "echo nonsense here; exit 3"}); err != errFailed {
		t.Fatal(err)
	}
	if err := total(&out); err != errFailed {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, want := range []string{"ok    unit", "1 passed, 0 failed", "FAIL  lint", "nonsense here", "exit status 3", "1 passed, 1 failed"} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d has no %q:\n%s", i, want, strings.Join(lines, "\n"))
		}
	}
	out.Reset()
	told := `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:7: why\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    http_test.go:57: the agent said:\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"        much\n"}
{"Action":"fail","Package":"p","Test":"TestC"}`
	if err := stage(&out, "system", []string{"echo", told}); err != errFailed {
		t.Fatal(err)
	}
	out.Reset()
	if err := total(&out); err != errFailed {
		t.Fatal(err)
	}
	if got, want := out.String(), "FAIL  p TestC\n    c_test.go:7: why\n1 passed, 2 failed\n"; got != want {
		t.Errorf("the end is %q, not %q", got, want)
	}
	if last := lines[len(lines)-1]; last != "1 passed, 1 failed" {
		t.Errorf("the last line is %q", last)
	}
}
