package flame

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "github.com/google/pprof/profile"

	pilotpprof "github.com/pilotlight/pilotlight/exporter/pprof"
	"github.com/pilotlight/pilotlight/profiler/profile"
	"github.com/pilotlight/pilotlight/symbolizer/demangle"
)

// realProfiles are files of programs that did real work:
//
//	testdata/gcc.pb.gz      pilotlight record -F 197 -- g++ -O2 -c -o /dev/null t.cc (regular expressions of C++)
//	testdata/gobuild.pb.gz  pilotlight record -F 49 -- go build -a ./exporter/folded
//	testdata/python.pb.gz   pilotlight record -F 197 -d 3s -- python3 -c (recursion, JSON, and files)
//
// and a profile by Go's own profiler, of the tests themselves.
func realProfiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.pb.gz")
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	var own bytes.Buffer
	if err := pprof.StartCPUProfile(&own); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, f := range files {
			NewTree(read(t, f))
		}
	}
	pprof.StopCPUProfile()
	// The race detector is C++, whose names Go leaves as they are.
	readable, err := pb.Parse(&own)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range readable.Function {
		f.Name = demangle.Simple(f.Name)
	}
	path := filepath.Join(t.TempDir(), "own.pb.gz")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(readable.Write(out), out.Close()); err != nil {
		t.Fatal(err)
	}
	return append(files, path)
}

func read(t testing.TB, path string) *profile.Profile {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := pilotpprof.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func goToolPprof(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"tool", "pprof", "-symbolize=none", "-sample_index=samples", "-nodecount=0", "-nodefraction=0", "-edgefraction=0"}, args...)...)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	return string(out)
}

// byName gives a profile in which functions are the same by name, as they are to pprof.
func byName(p *profile.Profile) *profile.Profile {
	out := withoutModules(p)
	for i := range out.Samples {
		if kernel := out.Samples[i].Kernel; kernel != nil {
			s := profile.Sample{User: kernel}
			out.Samples[i].Kernel = withoutModules(&profile.Profile{Samples: []profile.Sample{s}}).Samples[0].User
		}
	}
	return out
}

var (
	topLine   = regexp.MustCompile(`^\s*(-?\d+)\s+\S+%\s+\S+%\s+(-?\d+)\s+\S+%\s+(.*)$`)
	inlineTag = regexp.MustCompile(` \((partial-)?inline\)$`)
)

// Tables equal those of `go tool pprof -top`, to the sample.
func TestTopEqualsPprof(t *testing.T) {
	for _, file := range realProfiles(t) {
		p := read(t, file)
		conserved(t, p)
		want := make(map[string]string)
		for line := range strings.Lines(goToolPprof(t, "-top", file)) {
			if m := topLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				want[inlineTag.ReplaceAllString(m[3], "")] = m[1] + " " + m[2]
			}
		}
		got := make(map[string]string)
		table := Top(byName(p))
		for _, r := range table.Rows {
			got[r.Name] = fmt.Sprintf("%d %d", r.Self.Samples, r.Total.Samples)
		}
		for name, counts := range want {
			if got[name] != counts {
				t.Errorf("%s: %s: %q, pprof says %q", file, name, got[name], counts)
			}
		}
		if len(got) != len(want) || len(got) < 50 {
			t.Errorf("%s: %d functions, pprof has %d", file, len(got), len(want))
		}
		t.Logf("%s: %d samples, %d functions", filepath.Base(file), table.Total.Samples, len(got))
	}
}

var (
	peekNeighbour = regexp.MustCompile(`^\s*(\d+)\s+\S+%\s+\|\s+(.*)$`)
	peekFunction  = regexp.MustCompile(`^\s*\d+\s+\S+%\s+\S+%\s+\d+\s+\S+%\s+\|\s(.*)$`)
)

// peek reads what `go tool pprof -peek` prints: for each function the lines of its callers, its own, and those of its callees.
func peek(t *testing.T, file string) map[string]map[string]int64 {
	t.Helper()
	all := make(map[string]map[string]int64)
	block, name, side := make(map[string]int64), "", "caller "
	for line := range strings.Lines(goToolPprof(t, "-peek", ".", file)) {
		line = strings.TrimSuffix(line, "\n")
		if m := peekNeighbour.FindStringSubmatch(line); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			block[side+inlineTag.ReplaceAllString(m[2], "")] = n
		} else if m := peekFunction.FindStringSubmatch(line); m != nil {
			name, side = inlineTag.ReplaceAllString(m[1], ""), "callee "
		} else if strings.HasPrefix(line, "---") && name != "" {
			all[name] = block
			block, name, side = make(map[string]int64), "", "caller "
		}
	}
	return all
}

// Callers and callees equal those of `go tool pprof -peek`, of every function that is looked at.
func TestCallersEqualPprof(t *testing.T) {
	for _, file := range realProfiles(t) {
		p := byName(read(t, file))
		want := peek(t, file)
		rows := Top(p).Rows
		if len(want) != len(rows) {
			t.Errorf("%s: %d functions, pprof has %d", file, len(rows), len(want))
		}
		edges := 0
		for i := 0; i < len(rows); i += 1 + len(rows)/100 {
			name := rows[i].Name
			got := make(map[string]int64)
			for _, n := range Callers(p, name) {
				got["caller "+n.Name] = n.Weight.Samples
			}
			for _, n := range Callees(p, name) {
				got["callee "+n.Name] = n.Weight.Samples
			}
			edges += len(got)
			if !maps.Equal(got, want[name]) {
				t.Errorf("%s: %s:\n%v, pprof says\n%v", file, name, got, want[name])
			}
		}
		if edges < 100 {
			t.Errorf("%s: %d edges", file, edges)
		}
		t.Logf("%s: %d edges", filepath.Base(file), edges)
	}
}
