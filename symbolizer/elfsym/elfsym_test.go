package elfsym_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/internal/elftest"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// image is a file with a .text of 0x400-0xc00 and these symbols.
func image(symbols ...elftest.Symbol) elftest.Image {
	segments, sections := elftest.Text()
	return elftest.Image{Segments: segments, Sections: sections, Symbols: symbols}
}

func buildBytes(t testing.TB, b []byte) (*elfsym.Table, error) {
	t.Helper()
	f, err := objfile.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return elfsym.Build(f)
}

func symbol(name string, bind elf.SymBind, start, size uint64) elftest.Symbol {
	return elftest.Symbol{Name: name, Type: elf.STT_FUNC, Bind: bind, Section: 1, Value: start, Size: size}
}

func global(name string, start, size uint64) elftest.Symbol {
	return symbol(name, elf.STB_GLOBAL, start, size)
}

func untyped(name string, bind elf.SymBind, start, size uint64) elftest.Symbol {
	s := symbol(name, bind, start, size)
	s.Type = elf.STT_NOTYPE
	return s
}

func TestLookup(t *testing.T) {
	for _, test := range []struct {
		name    string
		symbols []elftest.Symbol
		want    string // "address name", a dash for none
	}{
		{"beyond the end of a sized symbol there is no name",
			[]elftest.Symbol{global("f", 0x410, 0x10), global("g", 0x440, 0x10)},
			"40f - 410 f 41f f 420 - 43f - 440 g 44f g 450 -"},
		{"without a size, to the next symbol or the end of the section",
			[]elftest.Symbol{global("f", 0x410, 0), global("g", 0x440, 0)},
			"40f - 410 f 43f f 440 g bff g c00 -"},
		{"nested, and the outer resumes",
			[]elftest.Symbol{global("outer", 0x410, 0x50), global("inner", 0x420, 0x10), global("innermost", 0x424, 4), global("second", 0x440, 0x10)},
			"410 outer 420 inner 424 innermost 427 innermost 428 inner 430 outer 440 second 450 outer 45f outer 460 -"},
		{"overlapping, neither in the other",
			[]elftest.Symbol{global("f", 0x410, 0x20), global("g", 0x420, 0x20)},
			"41f f 420 g 43f g 440 -"},
		{"inner ends where the outer does",
			[]elftest.Symbol{global("outer", 0x410, 0x20), global("inner", 0x420, 0x10)},
			"42f inner 430 -"},
		{"without a size inside one with a size",
			[]elftest.Symbol{global("outer", 0x410, 0x20), global("entry", 0x420, 0)},
			"41f outer 420 entry 42f entry 430 -"},
		{"a local untyped label is no function inside one, and is one outside",
			[]elftest.Symbol{global("outer", 0x410, 0x20), untyped("label", elf.STB_LOCAL, 0x420, 0), untyped("loop", elf.STB_LOCAL, 0x440, 0)},
			"41f outer 420 outer 42f outer 430 - 440 loop bff loop"},
		{"a label where an inner function ends",
			[]elftest.Symbol{global("outer", 0x410, 0x20), global("inner", 0x414, 4), untyped("label", elf.STB_LOCAL, 0x418, 0)},
			"417 inner 418 outer 42f outer 430 -"},
		{"global over weak over local",
			[]elftest.Symbol{symbol("a", elf.STB_LOCAL, 0x410, 4), symbol("b", elf.STB_WEAK, 0x410, 4), global("__c", 0x410, 4),
				symbol("d", elf.STB_LOCAL, 0x420, 4), symbol("__e", elf.STB_WEAK, 0x420, 4)},
			"410 __c 420 __e"},
		{"sized over unsized, underscores, length, order",
			[]elftest.Symbol{global("a", 0x410, 0), global("__b", 0x410, 4),
				global("_x", 0x420, 4), global("longer", 0x420, 4),
				global("long", 0x430, 4), global("s", 0x430, 4),
				global("b", 0x440, 4), global("a", 0x440, 4)},
			"410 __b 420 longer 430 s 440 a"},
		{"a longer alias names what the chosen one does not hold",
			[]elftest.Symbol{global("short", 0x410, 4), symbol("long", elf.STB_LOCAL, 0x410, 0x10)},
			"413 short 414 long 41f long 420 -"},
		{"the chosen one takes the size of an alias if it has none",
			[]elftest.Symbol{global("f", 0x410, 0), symbol("long", elf.STB_LOCAL, 0x410, 0x10)},
			"41f f 420 -"},
		{"versions go, clones stay",
			[]elftest.Symbol{global("memcpy@@GLIBC_2.14", 0x410, 4), global("f.cold", 0x420, 4), global("g.part.0", 0x430, 4), global("odd@v(1)", 0x440, 4)},
			"410 memcpy 420 f.cold 430 g.part.0 440 odd@v(1)"},
		{"what is no function",
			[]elftest.Symbol{
				global("f", 0x410, 0x100),
				{Name: "data", Type: elf.STT_OBJECT, Bind: elf.STB_GLOBAL, Section: 1, Value: 0x420, Size: 4},
				{Name: "tls", Type: elf.STT_TLS, Bind: elf.STB_GLOBAL, Section: 1, Value: 0x424, Size: 4},
				{Name: "section", Type: elf.STT_SECTION, Section: 1, Value: 0x428, Size: 4},
				{Name: "file.c", Type: elf.STT_FILE, Section: elf.SHN_ABS, Value: 0x42c, Size: 4},
				{Name: "undefined", Type: elf.STT_FUNC, Bind: elf.STB_GLOBAL, Value: 0x430, Size: 4},
				untyped("$x", elf.STB_LOCAL, 0x440, 4), untyped("$d.17", elf.STB_LOCAL, 0x444, 4),
				untyped(".Lpc", elf.STB_GLOBAL, 0x448, 4),
				{Name: "constant", Type: elf.STT_NOTYPE, Bind: elf.STB_GLOBAL, Section: elf.SHN_ABS, Value: 0x450},
				global("", 0x454, 4),
				global("nowhere", 0x2000, 4),
			},
			"420 f 424 f 428 f 42c f 430 f 440 f 444 f 448 f 450 f 454 f 2000 -"},
		{"unlike mapping symbols",
			[]elftest.Symbol{untyped("$xyz", elf.STB_GLOBAL, 0x410, 4), global("$x", 0x420, 4)},
			"410 $xyz 420 $x"},
		{"ends that wrap around",
			[]elftest.Symbol{global("f", 0x410, ^uint64(0)), global("g", 0x420, 4)},
			"410 f 420 g 424 f bff f"},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, err := buildBytes(t, image(test.symbols...).Bytes())
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(test.want)
			for ; len(fields) > 0; fields = fields[2:] {
				var a objfile.Address
				fmt.Sscanf(fields[0], "%x", &a)
				got, ok := table.Lookup(a)
				if !ok {
					got.Name = "-"
				}
				if got.Name != fields[1] {
					t.Errorf("%s is %s, want %s", fields[0], got.Name, fields[1])
				}
			}
		})
	}
}

func TestBuildErrors(t *testing.T) {
	f := global("f", 0x410, 4)
	for _, test := range []struct {
		name  string
		image elftest.Image
		edit  func([]byte) []byte
		want  error
	}{
		{"no symbols", image(), nil, elfsym.ErrNone},
		{"no functions", image(untyped("x", elf.STB_GLOBAL, 0x10, 0)), nil, elfsym.ErrNone},
		{"symbols beyond the file", func() elftest.Image {
			m := image(f)
			m.Sections = append(m.Sections, elf.SectionHeader{Type: elf.SHT_SYMTAB, Offset: 1 << 40, Size: 240, Entsize: 24})
			m.SymbolsType = elf.SHT_PROGBITS
			return m
		}(), nil, objfile.ErrCorrupt},
		{"wrong entry size", func() elftest.Image {
			m := image(f)
			m.Sections = append(m.Sections, elf.SectionHeader{Type: elf.SHT_SYMTAB, Size: 240, Entsize: 16})
			m.SymbolsType = elf.SHT_PROGBITS
			return m
		}(), nil, objfile.ErrCorrupt},
		{"strings in no section", func() elftest.Image {
			m := image(f)
			m.Sections = append(m.Sections, elf.SectionHeader{Type: elf.SHT_SYMTAB, Size: 240, Entsize: 24, Link: 99})
			m.SymbolsType = elf.SHT_PROGBITS
			return m
		}(), nil, objfile.ErrCorrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := buildBytes(t, test.image.Bytes()); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// One good table is enough, and the damage to the other is told.
func TestDamage(t *testing.T) {
	m := image(global("f", 0x410, 4))
	m.Sections = append(m.Sections, elf.SectionHeader{Name: ".dynsym", Type: elf.SHT_DYNSYM, Offset: 1 << 40, Size: 240, Entsize: 24})
	table, err := buildBytes(t, m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := table.Lookup(0x410); !ok || s.Name != "f" {
		t.Errorf("got %v %v", s, ok)
	}
	if !errors.Is(table.Damage(), objfile.ErrCorrupt) {
		t.Errorf("damage %v", table.Damage())
	}
}

// A name beyond its bound, or without end, costs its symbol and no other.
func TestNameBounds(t *testing.T) {
	const maxName = 32 << 10
	long, tooLong := strings.Repeat("n", maxName), strings.Repeat("m", maxName+1)
	b := image(global("f", 0x410, 4), global(tooLong, 0x420, 4), global(long, 0x430, 4), global("g", 0x440, 4)).Bytes()
	table, err := buildBytes(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 3 || table.Dropped() != 1 {
		t.Errorf("%d symbols, %d dropped", table.Len(), table.Dropped())
	}
	for a, want := range map[objfile.Address]string{0x410: "f", 0x420: "", 0x430: long, 0x440: "g"} {
		if s, _ := table.Lookup(a); s.Name != want {
			t.Errorf("%#x is %.20q, want %.20q", a, s.Name, want)
		}
	}
}

// Every symbol names a tail of one endless string: the names would take 40 GB, were each copied
// or even scanned.
func TestOverlappingNames(t *testing.T) {
	const n = 1 << 20
	m := image(global(strings.Repeat("a", 1<<20), 0x410, 4))
	for range n {
		m.Symbols = append(m.Symbols, elftest.Symbol{Type: elf.STT_FUNC, Bind: elf.STB_GLOBAL, Section: 1, Value: 0x500, Size: 4})
	}
	b := m.Bytes()
	for i := range uint32(n) {
		binary.LittleEndian.PutUint32(b[elftest.ContentSize+24*(i+2):], i+1)
	}
	table, err := buildBytes(t, b)
	if err != nil {
		t.Fatal(err)
	}
	if table.Len() != 1 || table.Dropped() == 0 || table.Bytes() > 1<<20 {
		t.Errorf("%d symbols, %d dropped, %d bytes", table.Len(), table.Dropped(), table.Bytes())
	}
}

// As deep as symbols nest, a look-up is one search: every address has the innermost.
func TestDeepNesting(t *testing.T) {
	var symbols []elftest.Symbol
	for i := range uint64(0x3ff) {
		symbols = append(symbols, global(fmt.Sprint("f", i), 0x400+i, 0x800-2*i))
	}
	table, err := buildBytes(t, image(symbols...).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for a := uint64(0x400); a < 0xc00; a++ {
		want := min(a-0x400, 0xbff-a, 0x3fe)
		if s, ok := table.Lookup(objfile.Address(a)); !ok || s.Name != fmt.Sprint("f", want) || uint64(s.Start) != 0x400+want {
			t.Fatalf("%#x is %+v %v, want f%d", a, s, ok, want)
		}
	}
}

func TestLookupAllocatesTheNameOnly(t *testing.T) {
	table, err := buildBytes(t, image(global("a_function_with_a_name_longer_than_32_bytes", 0x410, 4)).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { table.Lookup(0x411) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { table.Lookup(0x500) }); n > 0 {
		t.Errorf("%v allocations for no name", n)
	}
}

// Whatever the bytes: no panic, memory in proportion to the file, and names that hold their address.
func FuzzBuild(f *testing.F) {
	f.Add(image(global("f", 0x410, 0x50), global("g", 0x420, 0x10), untyped("h", elf.STB_LOCAL, 0x440, 0)).Bytes(), uint64(0x421))
	dynamic := image(global("f", 0x410, 4))
	dynamic.SymbolsType = elf.SHT_DYNSYM
	f.Add(dynamic.Bytes(), uint64(0x410))
	f.Add(dynamicImage(), uint64(0x410))
	f.Fuzz(func(t *testing.T, b []byte, a uint64) {
		file, err := objfile.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		table, err := elfsym.Build(file)
		if err != nil {
			return
		}
		// 24 bytes for each of the file's entries of 24, and names, which may overlap.
		if names := 40 * len(b) / 24 * (len(b) + 1); table.Bytes() > 1024+2*len(b)+names {
			t.Errorf("%d bytes held for a file of %d", table.Bytes(), len(b))
		}
		check := func(a objfile.Address) (elfsym.Symbol, bool) {
			s, ok := table.Lookup(a)
			if ok && (s.Name == "" || a < s.Start || uint64(a-s.Start) >= s.Size) {
				t.Fatalf("%#x got %+v", a, s)
			}
			return s, ok
		}
		check(objfile.Address(a))
		previous, n := objfile.Address(0), 0
		for s := range table.All() {
			if s.Start < previous {
				t.Fatalf("%#x after %#x", s.Start, previous)
			}
			previous = s.Start
			if got, ok := check(s.Start); !ok || got.Start != s.Start {
				t.Fatalf("start of %+v got %+v", s, got)
			}
			if _, ok := check(s.Start + objfile.Address(s.Size-1)); !ok {
				t.Fatalf("last byte of %+v has no name", s)
			}
			n++
		}
		if n != table.Len() {
			t.Errorf("%d symbols, Len %d", n, table.Len())
		}
	})
}

// dynamicImage has no section headers: PT_DYNAMIC at 0x100, DT_HASH at 0x200, and the
// symbols and strings where Image puts them.
func dynamicImage() []byte {
	le := binary.LittleEndian
	segments, sections := elftest.Text()
	segments[0].Filesz, segments[0].Memsz = 0x2000, 0x2000
	segments = append(segments, elf.ProgHeader{Type: elf.PT_DYNAMIC, Off: 0x100, Vaddr: 0x100, Filesz: 96, Memsz: 96})
	m := elftest.Image{Segments: segments, Sections: sections, Symbols: []elftest.Symbol{global("f", 0x410, 4)}, NoSectionHeaders: true}
	var dynamic []byte
	for _, word := range []uint64{5, elftest.ContentSize + 48, 6, elftest.ContentSize, 10, 3, 11, 24, 4, 0x200, 0, 0} {
		dynamic = le.AppendUint64(dynamic, word)
	}
	m.Contents = map[uint64][]byte{0x100: dynamic, 0x200: {1, 0, 0, 0, 2, 0, 0, 0}}
	return append(m.Bytes(), make([]byte, 0x1000)...)
}

func TestDynamicImage(t *testing.T) {
	table, err := buildBytes(t, dynamicImage())
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := table.Lookup(0x413); !ok || s.Name != "f" || table.FromSymtab() {
		t.Errorf("got %+v %v", s, ok)
	}
}

func llvm(b *testing.B) *objfile.File {
	path := elftest.LLVM()
	if path == "" {
		b.Skip("no libLLVM")
	}
	r, size := elftest.Open(b, path)
	f, err := objfile.Parse(r, size)
	if err != nil {
		b.Fatal(err)
	}
	return f
}

func BenchmarkBuildLLVM(b *testing.B) {
	f := llvm(b)
	b.ReportAllocs()
	for b.Loop() {
		table, err := elfsym.Build(f)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(table.Len()), "symbols")
		b.ReportMetric(float64(table.Bytes())/float64(table.Len()), "B/symbol")
	}
}

func BenchmarkLookupLLVM(b *testing.B) {
	table, err := elfsym.Build(llvm(b))
	if err != nil {
		b.Fatal(err)
	}
	var starts []objfile.Address
	for s := range table.All() {
		starts = append(starts, s.Start)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i = (i + 7919) % len(starts) // a prime: no neighbour is in the cache
		if _, ok := table.Lookup(starts[i]); !ok {
			b.Fatalf("%#x has no name", starts[i])
		}
	}
}
