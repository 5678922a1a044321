// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func open(t testing.TB, path string) *objfile.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Parse(file, info.Size())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return f
}

// isELF reports whether a file is one that could be unwound.
func isELF(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	_, err = objfile.Parse(file, info.Size())
	return err == nil
}

// build compiles testdata/frames.c and returns the program's path.
func build(t testing.TB, compiler string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "frames")
	cmd := exec.Command(compiler, append(args, "-o", path, "testdata/frames.c")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return path
}

func compile(t testing.TB, f *objfile.File) *Table {
	t.Helper()
	table, err := Compile(f)
	if err != nil {
		t.Fatal(err)
	}
	if stats := table.Stats(); stats.Broken > 0 || len(stats.Damage) > 0 {
		t.Errorf("%+v", stats)
	}
	return table
}

// compareFile compares the table of a file with readelf, and returns it.
func compareFile(t *testing.T, path string) *Table {
	t.Helper()
	f := open(t, path)
	table := compile(t, f)
	compared := 0
	readelf(t, path, func(r printedRow) {
		off, ok := f.Layout().OffsetOf(r.from)
		if !ok {
			return
		}
		compared++
		rule := table.Rule(off)
		if why := disagreement(r.columns, rule, f.Machine()); why != "" || rule.Kind == Gap {
			t.Errorf("%s: %#x: %s: %v, readelf has %v", path, r.from, why, rule, r.columns)
		}
	})
	if compared < 40 {
		t.Errorf("%s: %d rows", path, compared)
	}
	return table
}

// The same rules come out of .eh_frame, of .debug_frame, of compressed ones, and of a file whose section headers are gone.
func TestSources(t *testing.T) {
	plain := []string{"-O2", "-g", "-fomit-frame-pointer"}
	onlyDebug := append(slices.Clone(plain), "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions", "-nostartfiles", "-Wl,-e,main", "-Wl,--no-ld-generated-unwind-info")
	for name, c := range map[string]struct {
		compiler string
		args     []string
		source   string
	}{
		".eh_frame":              {"gcc", plain, ".eh_frame"},
		".debug_frame":           {"gcc", onlyDebug, ".debug_frame"},
		".debug_frame, zlib":     {"gcc", append(slices.Clone(onlyDebug), "-gz=zlib"), ".debug_frame"},
		".debug_frame, DWARF 64": {"gcc", append(slices.Clone(onlyDebug), "-gdwarf64"), ".debug_frame"},
		"arm64":                  {"aarch64-linux-gnu-gcc", plain, ".eh_frame"},
		"arm64, signed":          {"aarch64-linux-gnu-gcc", append(slices.Clone(plain), "-mbranch-protection=pac-ret+leaf"), ".eh_frame"},
		"arm64, no frame chain":  {"aarch64-linux-gnu-gcc", append(slices.Clone(plain), "-O3", "-mno-omit-leaf-frame-pointer"), ".eh_frame"},
	} {
		t.Run(name, func(t *testing.T) {
			path := build(t, c.compiler, c.args...)
			table := compareFile(t, path)
			if got := table.Stats().Sources; !slices.Contains(got, c.source) {
				t.Errorf("sources: %q", got)
			}
			if c.source != ".eh_frame" {
				return
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			binary.LittleEndian.PutUint64(content[40:], 0) // e_shoff
			binary.LittleEndian.PutUint16(content[60:], 0) // e_shnum
			f, err := objfile.Parse(bytes.NewReader(content), int64(len(content)))
			if err != nil || len(f.Sections()) > 0 {
				t.Fatal(err, len(f.Sections()))
			}
			if headless := compile(t, f); !slices.Equal(headless.rows, table.rows) || !slices.Equal(headless.rules, table.rules) {
				t.Errorf("%d rows without section headers, %d with them", len(headless.rows), len(table.rows))
			}
		})
	}
}

// A file keeps its frame pointers where all of its code does.
func TestKeepsFramePointer(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want bool
	}{
		"kept":                 {[]string{"-O2", "-fno-omit-frame-pointer", "-nostartfiles", "-Wl,-e,main"}, true},
		"kept, not optimised":  {[]string{"-O0", "-nostartfiles", "-Wl,-e,main"}, true},
		"omitted":              {[]string{"-O2", "-fomit-frame-pointer", "-nostartfiles", "-Wl,-e,main"}, false},
		"with libc, which not": {[]string{"-O2", "-fno-omit-frame-pointer", "-static"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := compile(t, open(t, build(t, "gcc", c.args...))).Stats().KeepsFramePointer; got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	path := build(t, "gcc", "-O2", "-static", "-Wl,-s")
	if out, err := exec.Command("objcopy", "--remove-section=.eh_frame", "--remove-section=.eh_frame_hdr", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if table, err := Compile(open(t, path)); !errors.Is(err, ErrNone) {
		t.Errorf("%v, %v", table, err)
	}
}
