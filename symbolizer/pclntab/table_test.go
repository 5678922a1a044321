package pclntab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func TestOpenRefuses(t *testing.T) {
	path := variant{name: "default"}.build(t)
	good := readFile(t, path)
	section, ok := parse(t, good).Section(".gopclntab")
	if !ok {
		t.Fatal("no .gopclntab")
	}
	header := func(off int, b ...byte) func([]byte) {
		return func(elf []byte) { copy(elf[int(section.Off)+off:], b) }
	}
	for _, tt := range []struct {
		name string
		edit func(elf []byte)
		want error
	}{
		{"Go 1.2", header(0, 0xfb), ErrUnsupported},
		{"Go 1.16", header(0, 0xfa), ErrUnsupported},
		{"a magic of the future", header(0, 0xf3), ErrUnsupported},
		{"32-bit", header(7, 4), ErrUnsupported},
		{"wrong quantum", header(6, 4), ErrCorrupt},
		{"padding", header(4, 1), ErrCorrupt},
		{"no functions", header(8, le64(0)...), ErrCorrupt},
		{"too many functions", header(8, le64(maxFuncs+1)...), ErrCorrupt},
		{"more functions than there are", header(8, le64(maxFuncs)...), ErrCorrupt},
		{"names before the header's end", header(32, le64(8)...), ErrCorrupt},
		{"functab beyond the segment", header(64, le64(1<<60)...), ErrCorrupt},
		{"function count that moduledata denies", header(8, le64(3)...), ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			elf := bytes.Clone(good)
			tt.edit(elf)
			if _, err := Open(parse(t, elf)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("a C program", func(t *testing.T) {
		elf, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(parse(t, elf)); !errors.Is(err, ErrNone) {
			t.Errorf("got %v, want %v", err, ErrNone)
		}
	})
}

// TestWithoutInlineTrees breaks moduledata.gofunc: physical functions remain.
func TestWithoutInlineTrees(t *testing.T) {
	path := variant{name: "default"}.build(t)
	elf := readFile(t, path)
	good, err := Open(parse(t, elf))
	if err != nil {
		t.Fatal(err)
	}
	pointer := le64(uint64(good.gofunc))
	edits := 0
	for i := bytes.Index(elf, pointer); i >= 0; i = bytes.Index(elf, pointer) {
		copy(elf[i:], le64(uint64(good.text))) // code is no inline tree
		edits++
	}
	bad, err := Open(parse(t, elf))
	if err != nil {
		t.Fatal(err)
	}
	if bad.gofunc != 0 || edits == 0 {
		t.Fatalf("gofunc is %#x after %d edits", uint64(bad.gofunc), edits)
	}
	same, cut := 0, 0
	for a := good.text; a < good.text+objfile.Address(good.index.end); a += 11 {
		want, ok1 := good.Lookup(a)
		got, ok2 := bad.Lookup(a)
		if !ok1 || !ok2 || len(got) != 1 {
			t.Fatalf("%#x: got %v, whole %v", uint64(a), got, want)
		}
		last := want[len(want)-1]
		switch {
		case len(want) == 1 && got[0] == last:
			same++
		case got[0].Wrapper && !last.Wrapper: // the expansion left the wrapper out
			cut++
		case got[0].Function == last.Function && got[0].StartLine == last.StartLine && got[0].Line == 0:
			cut++
		default:
			t.Fatalf("%#x: got %+v, whole %+v", uint64(a), got, want)
		}
	}
	t.Logf("%d addresses equal, %d without inlined calls", same, cut)
}

// TestHeaderAlone takes moduledata away: up to Go 1.25 the header knows where the code starts.
func TestHeaderAlone(t *testing.T) {
	needToolchain(t, "go1.20.14")
	elf := readFile(t, variant{name: "go1.20.14", toolchain: "go1.20.14"}.build(t))
	good, err := Open(parse(t, elf))
	if err != nil {
		t.Fatal(err)
	}
	// Only moduledata points to the header.
	pointer := le64(uint64(good.header.addr))
	for i := bytes.Index(elf, pointer); i >= 0; i = bytes.Index(elf, pointer) {
		elf[i] ^= 0xff
	}
	table, err := Open(parse(t, elf))
	if err != nil {
		t.Fatal(err)
	}
	if table.text != good.text || table.gofunc != 0 {
		t.Fatalf("text %#x, gofunc %#x; want %#x and 0", uint64(table.text), uint64(table.gofunc), uint64(good.text))
	}
}

func TestLookupConcurrently(t *testing.T) {
	table := openPath(t, goCommand(t))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 5000 {
				a := table.text + objfile.Address(uint64(i*7919+g)%uint64(table.index.end))
				if lines, ok := table.Lookup(a); !ok || lines[0].Function == "" || !table.Names(a) {
					t.Errorf("%#x: %v", uint64(a), lines)
					return
				}
			}
		}()
	}
	wg.Wait()
	if n := table.Bytes(); n > 120<<10 {
		t.Errorf("%d bytes held", n)
	}
}

func TestPrintedName(t *testing.T) {
	for _, tt := range []struct{ symbol, want string }{
		{"main.main", "main.main"},
		{"main.largest[go.shape.int]", "main.largest[...]"},
		{"main.(*list[go.shape.string,go.shape.[]int]).put", "main.(*list[...]).put"},
		{"main.f[go.shape.int].func1", "main.f[...].func1"},
		{"odd]name[", "odd]name["},
		{"odd[", "odd["},
	} {
		if got := printedName([]byte(tt.symbol)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.symbol, got, tt.want)
		}
	}
}

// BenchmarkOpen and BenchmarkLookup use the go command, 13 MB of file and 15,000 functions.
func BenchmarkOpen(b *testing.B) {
	path := goCommand(b)
	bare := readFile(b, path)
	dropSections(b, bare)
	barePath := filepath.Join(b.TempDir(), "bare")
	if err := os.WriteFile(barePath, bare, 0o644); err != nil {
		b.Fatal(err)
	}
	for _, bb := range []struct{ name, path string }{{"sections", path}, {"no-sections", barePath}} {
		b.Run(bb.name, func(b *testing.B) {
			f := openPath(b, bb.path).blocks.f
			b.ReportAllocs()
			for b.Loop() {
				table, err := Open(f)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(table.Bytes()), "bytes-held")
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, bb := range []struct {
		name   string
		stride uint64
		span   uint64 // 0: all code
	}{
		{"anywhere", 1_000_003, 0},
		{"nearby", 61, 64 << 10},
	} {
		b.Run(bb.name, func(b *testing.B) {
			table := openPath(b, goCommand(b))
			span := bb.span
			if span == 0 {
				span = uint64(table.index.end)
			}
			lines := 0
			b.ReportAllocs()
			for off := uint64(0); b.Loop(); off = (off + bb.stride) % span {
				found, ok := table.Lookup(table.text + objfile.Address(off))
				if !ok {
					b.Fatalf("nothing at %#x", off)
				}
				lines += len(found)
			}
			b.ReportMetric(float64(table.Bytes()), "bytes-held")
			b.ReportMetric(float64(lines)/float64(b.N), "lines/op")
		})
	}
}
