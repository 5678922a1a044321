// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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

// offsetOf returns where in the file the code at an address is.
func offsetOf(f *objfile.File, a objfile.Address) (objfile.FileOffset, bool) {
	off, _, ok := newCompiler(f).place(a)
	return off, ok
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
		off, ok := offsetOf(f, r.from)
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
		".eh_frame":             {"gcc", plain, ".eh_frame"},
		".debug_frame":          {"gcc", onlyDebug, ".debug_frame"},
		".debug_frame, zlib":    {"gcc", append(slices.Clone(onlyDebug), "-gz=zlib"), ".debug_frame"},
		"arm64":                 {"aarch64-linux-gnu-gcc", plain, ".eh_frame"},
		"arm64, signed":         {"aarch64-linux-gnu-gcc", append(slices.Clone(plain), "-mbranch-protection=pac-ret+leaf"), ".eh_frame"},
		"arm64, no frame chain": {"aarch64-linux-gnu-gcc", append(slices.Clone(plain), "-O3", "-mno-omit-leaf-frame-pointer"), ".eh_frame"},
	} {
		t.Run(name, func(t *testing.T) {
			path := build(t, c.compiler, c.args...)
			table := compareFile(t, path)
			if got := table.Stats().Sources; !slices.Contains(got, c.source) {
				t.Errorf("sources: %q", got)
			}
			if c.source == ".debug_frame" {
				checkWide(t, path, table)
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
			headless := compile(t, f)
			for row := range headless.All {
				if got := table.Rule(row.From); got != row.Rule {
					t.Errorf("%#x: %v without section headers, %v with them", row.From, row.Rule, got)
				}
			}
			// The procedure linkage table of arm64 is known by its section alone.
			missing := len(table.rows) - len(headless.rows)
			if missing != 0 && f.Machine() == objfile.EM_X86_64 || missing > 4 {
				t.Errorf("%d rows without section headers, %d with them", len(headless.rows), len(table.rows))
			}
		})
	}
}

// checkWide writes the file's .debug_frame anew with lengths and references of 64 bits, and compiles that.
func checkWide(t *testing.T, path string, want *Table) {
	t.Helper()
	f := open(t, path)
	s, _ := f.Section(".debug_frame")
	narrow, err := f.InflatedData(s, maxSection)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	var wide []byte
	moved := map[uint32]uint64{}
	for at := 0; at < len(narrow); {
		length, id := int(le.Uint32(narrow[at:])), le.Uint32(narrow[at+4:])
		moved[uint32(at)] = uint64(len(wide))
		wide = append(wide, "\xff\xff\xff\xff"...)
		wide = le.AppendUint64(wide, uint64(length)+4)
		if id == 0xffffffff {
			wide = le.AppendUint64(wide, ^uint64(0))
		} else {
			wide = le.AppendUint64(wide, moved[id])
		}
		wide = append(wide, narrow[at+8:at+4+length]...)
		at += 4 + length
	}
	c := newCompiler(f)
	if err := newSection(".debug_frame", wide, 0).functions(c); err != nil {
		t.Fatal(err)
	}
	got, err := c.finish()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.rows, want.rows) {
		t.Errorf("%d rows from 64-bit DWARF, %d from 32-bit", len(got.rows), len(want.rows))
	}
}

// Every code means a rule, which is packed into a code that means the same; and what is packed is unpacked as it was.
func TestCodec(t *testing.T) {
	for m, kinds := range map[objfile.Machine]uint32{objfile.EM_X86_64: x86SPFirst, objfile.EM_AARCH64: arm64FP} {
		c := codecOf(m)
		for code := uint32(1) << kindPos; code < (kinds+1)<<kindPos; code++ {
			r := c.unpack(code)
			packed, ok := c.pack(r)
			if !ok && r.Offset != 0 && (r.Base.Kind == Unchanged || r.Base.Offset < -word && r.FP.Offset < 0) && m == objfile.EM_X86_64 {
				t.Fatalf("%v: code %#x means %v, which has no code", m, code, r)
			}
			if got := c.unpack(packed); ok && got != r {
				t.Fatalf("%v: code %#x means %v, packed and unpacked %v", m, code, r, got)
			}
		}
		roles := rolesOf(m)
		random := rand.New(rand.NewPCG(5, 6))
		packed := 0
		for range 200000 {
			saved := func() Saved {
				offset, base := int32(random.IntN(60)-50)*4, []Register{0, roles.sp}[random.IntN(2)]
				return []Saved{{}, fromCFA(offset), {Kind: AtBase, Base: base, Offset: offset}, {Kind: InBase, Base: base}}[random.IntN(4)]
			}
			r := Rule{
				Kind: Kind(random.IntN(5)), CFA: CFAKind(random.IntN(3)), CFABase: []Register{roles.sp, roles.fp, 3}[random.IntN(3)],
				Offset: int32(random.IntN(80)-10) * 4, ReturnAddress: fromCFA(-word), FP: saved(),
			}
			if random.IntN(2) == 0 {
				r.Kind, r.CFA, r.Base = Step, CFARegister, saved()
			}
			if m == objfile.EM_AARCH64 {
				r.ReturnAddress = saved()
			}
			if code, ok := c.pack(r); ok {
				packed++
				if got := c.unpack(code); got != r {
					t.Fatalf("%v: %v became %v", m, r, got)
				}
			}
		}
		if packed == 0 {
			t.Errorf("%v: nothing was packed", m)
		}
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
	path := filepath.Join(t.TempDir(), "untold.so")
	cmd := exec.Command("gcc", "-shared", "-fPIC", "-nostdlib", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-Wl,--no-ld-generated-unwind-info", "-o", path, "-x", "c", "-")
	cmd.Stdin = strings.NewReader("int f(int x) { return 3 * x; }")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if table, err := Compile(open(t, path)); !errors.Is(err, ErrNone) {
		t.Errorf("%v, %v", table, err)
	}
}
