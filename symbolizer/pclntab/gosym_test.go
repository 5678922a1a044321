package pclntab

import (
	"debug/elf"
	"debug/gosym"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// TestAgainstGosym compares with debug/gosym, for programs that cannot run here and for a large one: the physical function, and
// the innermost file and line.
func TestAgainstGosym(t *testing.T) {
	for _, v := range []variant{
		{name: "amd64", goarch: "amd64"},
		{name: "arm64", goarch: "arm64"},
		{name: "arm64-pie", goarch: "arm64", args: []string{"-buildmode=pie"}},
		{name: "c-shared", cgo: true, args: []string{"-tags=withcgo", "-buildmode=c-shared"}},
		{name: "plugin", cgo: true, args: []string{"-tags=withcgo", "-buildmode=plugin"}},
		{name: "go1.18.10-arm64", goarch: "arm64", toolchain: "go1.18.10"},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			if v.toolchain != "" {
				needToolchain(t, v.toolchain)
			}
			compareWithGosym(t, v.build(t), 1)
		})
	}
	t.Run("cmd/go", func(t *testing.T) { t.Parallel(); compareWithGosym(t, goCommand(t), 97) })
}

// goCommand returns the path of a large Go binary.
func goCommand(t testing.TB) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "bin", "go")
}

// compareWithGosym looks at every step-th instruction unit of each function.
func compareWithGosym(t *testing.T, path string, step uint64) {
	t.Helper()
	want, quantum := gosymTable(t, path)
	table := openPath(t, path)
	step *= quantum

	compared, unknown, noTables := 0, 0, 0
	for i := range want.Funcs {
		fn := &want.Funcs[i]
		for pc := fn.Entry; pc < fn.End; pc += step {
			file, line, _ := want.PCToLine(pc)
			if line <= 0 || file == "" {
				file, line = "", 0
				unknown++
			}
			if hasNoTables(table, objfile.Address(pc)) {
				// Offset 0 means no table (runtime.pcvalue); gosym decodes what happens to stand there.
				file, line = "", 0
				noTables++
			}
			got, ok := table.Lookup(objfile.Address(pc))
			if !ok {
				t.Fatalf("%#x: got nothing, want %s", pc, fn.Name)
			}
			outer := got[len(got)-1]
			dropped := outer.Function != printedName([]byte(fn.Name))
			if dropped && !wrapsInlined(table, objfile.Address(fn.Entry)) || got[0].File != file || got[0].Line != line {
				t.Fatalf("%#x: got %+v, want %s %s:%d", pc, got, fn.Name, file, line)
			}
			compared++
		}
	}
	t.Logf("%d functions, %d addresses equal, %d of them without a line in both, %d in functions without pc-value tables",
		len(want.Funcs), compared, unknown, noTables)
}

func hasNoTables(t *Table, a objfile.Address) bool {
	pc := uint32(a - t.text)
	i, ok := t.index.find(&t.blocks, &t.header, pc)
	if !ok {
		return false
	}
	fn, ok := readFunction(&t.blocks, &t.header, i)
	return ok && fn.pcfile == 0 && fn.pcln == 0
}

// wrapsInlined reports whether the function at entry is a wrapper, whose name Lookup may leave out.
func wrapsInlined(t *Table, entry objfile.Address) bool {
	lines, ok := t.Lookup(entry)
	return ok && lines[0].Wrapper
}

func gosymTable(t *testing.T, path string) (*gosym.Table, uint64) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	quantum := uint64(1)
	if f.Machine == elf.EM_AARCH64 {
		quantum = 4
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var text, start, end uint64
	for _, s := range symbols {
		switch s.Name {
		case "runtime.text":
			text = s.Value
		case "runtime.pclntab":
			start = s.Value
		case "runtime.epclntab":
			end = s.Value
		}
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Addr > start || start >= s.Addr+s.Size {
			continue
		}
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		data = data[start-s.Addr : min(end, s.Addr+s.Size)-s.Addr]
		clear(data[24:32]) // textStart may hold an address that is not relocated
		copy(data[24:], le64(text))
		table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text))
		if err != nil {
			t.Fatal(err)
		}
		return table, quantum
	}
	t.Fatal("no section holds runtime.pclntab")
	return nil, 0
}
