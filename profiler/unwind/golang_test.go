// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func buildGo(t testing.TB, architecture string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "goframes")
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, args...), "./testdata/goframes")...)
	cmd.Env = append(os.Environ(), "GOARCH="+architecture, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return path
}

// The runtime's table and DWARF's agree on where every frame of a Go program begins, and a stripped program has the same rows.
func TestGoRows(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			path := buildGo(t, architecture)
			f := open(t, path)
			table := compile(t, f)
			if got := table.Stats().Sources; !slices.Contains(got, "pclntab") {
				t.Fatalf("sources: %q", got)
			}
			var compared, switching, outermost, goroutine int
			readelf(t, path, func(r printedRow) {
				off, ok := offsetOf(f, r.from)
				if !ok {
					return
				}
				switch rule := table.Rule(off); {
				case rule.Kind == Outermost:
					outermost++
				case rule.Kind == StackSwitch:
					switching++
				case rule.Kind == Goroutine:
					goroutine++
				default:
					compared++
					if got := rule.print(f.Machine())["CFA"]; got != r.columns["CFA"] {
						t.Errorf("%#x: %v, readelf has %v", r.from, rule, r.columns)
					}
				}
			})
			t.Logf("%d rows compared; %d of functions that switch stacks, %d of the outermost, %d that lead to goroutines", compared, switching, outermost, goroutine)
			if f.Machine() == objfile.EM_X86_64 && goroutine == 0 {
				t.Error("where goroutines have their registers was not found")
			}
			if compared < 5000 || outermost == 0 || outermost > compared/100 || switching > compared/100 {
				t.Error("too few rows were compared")
			}
			stripped := compile(t, open(t, buildGo(t, architecture, "-ldflags=-s -w")))
			if got, want := stripped.Stats(), table.Stats(); got.Functions != want.Functions || got.Rows != want.Rows {
				t.Errorf("stripped: %+v, unstripped: %+v", got, want)
			}
		})
	}
}

// A Go binary whose table is cut short keeps what was read.
func TestGoDamaged(t *testing.T) {
	path := buildGo(t, "amd64", "-ldflags=-s -w")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	s, ok := f.Section(".gopclntab")
	if !ok {
		t.Fatal("no .gopclntab")
	}
	// The last quarter holds the functions' records.
	clear(content[uint64(s.Off)+s.Size*3/4 : uint64(s.Off)+s.Size])
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, content, 0o644); err != nil {
		t.Fatal(err)
	}
	table, err := Compile(open(t, damaged))
	if err != nil {
		t.Fatal(err)
	}
	if stats := table.Stats(); len(stats.Damage) == 0 || stats.Functions < 100 {
		t.Errorf("%+v", stats)
	}
}
