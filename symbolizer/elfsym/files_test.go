package elfsym_test

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/elfsym"
	"github.com/pilotlight/pilotlight/symbolizer/internal/elftest"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func build(t testing.TB, path string) *elfsym.Table {
	t.Helper()
	r, size := elftest.Open(t, path)
	f, err := objfile.Parse(r, size)
	if err != nil {
		t.Fatal(err)
	}
	table, err := elfsym.Build(f)
	if err != nil {
		t.Fatal(err)
	}
	if table.Damage() != nil || table.Dropped() != 0 {
		t.Errorf("damage %v, dropped %d", table.Damage(), table.Dropped())
	}
	return table
}

// The oracle reads symbols with debug/elf and knows the rules in their plainest form.
type oracle struct {
	symbols []oracleSymbol // by start, then end descending
	maxEnd  []uint64       // of symbols[:i+1]
}

type oracleSymbol struct {
	name       string
	start, end uint64
	bind       elf.SymBind
	sized      bool
}

func newOracle(t testing.TB, path string) *oracle {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symtab, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		t.Fatal(err)
	}
	dynsym, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		t.Fatal(err)
	}
	o := &oracle{}
	for _, s := range append(symtab, dynsym...) {
		name, _, _ := strings.Cut(s.Name, "@")
		typ := elf.ST_TYPE(s.Info)
		if s.Section == elf.SHN_UNDEF || int(s.Section) >= len(f.Sections) || name == "" {
			continue
		}
		in := f.Sections[s.Section]
		if in.Flags&elf.SHF_EXECINSTR == 0 || s.Value < in.Addr || s.Value >= in.Addr+in.Size {
			continue
		}
		if typ != elf.STT_FUNC && typ != elf.STT_GNU_IFUNC && (typ != elf.STT_NOTYPE || strings.HasPrefix(name, ".")) {
			continue
		}
		end := s.Value + s.Size
		if s.Size == 0 {
			if typ == elf.STT_NOTYPE && elf.ST_BIND(s.Info) == elf.STB_LOCAL && o.inside(append(symtab, dynsym...), s.Value) {
				continue
			}
			end = in.Addr + in.Size
		}
		o.symbols = append(o.symbols, oracleSymbol{name, s.Value, end, elf.ST_BIND(s.Info), s.Size > 0})
	}
	o.finish()
	return o
}

// inside reports whether a sized function goes on at a.
func (o *oracle) inside(symbols []elf.Symbol, a uint64) bool {
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF && a > s.Value && a-s.Value < s.Size {
			return true
		}
	}
	return false
}

func (o *oracle) finish() {
	byStart := func(x, y oracleSymbol) int { return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(y.end, x.end)) }
	slices.SortFunc(o.symbols, byStart)
	// Symbols without a size end at the next, at a sized alias's end, or with what is around them.
	for i := range o.symbols {
		s := &o.symbols[i]
		if s.sized {
			continue
		}
		aliasEnd := uint64(0)
		for j := range o.symbols {
			if x := o.symbols[j]; x.start > s.start {
				s.end = min(s.end, x.start)
				break
			} else if x.start == s.start && x.sized {
				aliasEnd = max(aliasEnd, x.end)
			} else if x.sized && x.end > s.start {
				s.end = min(s.end, x.end)
			}
		}
		if aliasEnd > 0 {
			s.end = aliasEnd
		}
	}
	slices.SortFunc(o.symbols, byStart)
	end := uint64(0)
	for _, s := range o.symbols {
		end = max(end, s.end)
		o.maxEnd = append(o.maxEnd, end)
	}
}

func (o *oracle) lookup(a uint64) (oracleSymbol, bool) {
	i, _ := slices.BinarySearchFunc(o.symbols, a, func(s oracleSymbol, a uint64) int {
		if s.start <= a {
			return -1
		}
		return 1
	})
	for i--; i >= 0 && o.maxEnd[i] > a; i-- {
		if o.symbols[i].end <= a {
			continue
		}
		start := o.symbols[i].start
		best := o.symbols[i]
		for ; i >= 0 && o.symbols[i].start == start; i-- {
			if s := o.symbols[i]; s.end > a && better(s, best) {
				best = s
			}
		}
		return best, true
	}
	return oracleSymbol{}, false
}

func better(x, y oracleSymbol) bool {
	binding := func(s oracleSymbol) int {
		return map[elf.SymBind]int{elf.STB_GLOBAL: 0, 10: 0, elf.STB_WEAK: 1, elf.STB_LOCAL: 2}[s.bind]
	}
	unsized := func(s oracleSymbol) int {
		if s.sized {
			return 0
		}
		return 1
	}
	lead := func(s oracleSymbol) int { return len(s.name) - len(strings.TrimLeft(s.name, "_")) }
	return cmp.Or(
		cmp.Compare(binding(x), binding(y)),
		cmp.Compare(unsized(x), unsized(y)),
		cmp.Compare(lead(x), lead(y)),
		cmp.Compare(len(x.name), len(y.name)),
		cmp.Compare(x.name, y.name),
	) < 0
}

// compareWithOracle looks up the ends of every symbol and the bytes around them.
func compareWithOracle(t *testing.T, table *elfsym.Table, o *oracle) {
	t.Helper()
	wrong := 0
	for _, s := range o.symbols {
		for _, a := range []uint64{s.start - 1, s.start, s.start + (s.end-s.start)/2, s.end - 1, s.end} {
			want, wantOK := o.lookup(a)
			got, ok := table.Lookup(objfile.Address(a))
			if ok != wantOK || got.Name != want.name || uint64(got.Start) != want.start {
				if wrong++; wrong < 10 {
					t.Errorf("%#x: got %+v %v, want %+v %v", a, got, ok, want, wantOK)
				}
			}
			if ok && (a < uint64(got.Start) || a-uint64(got.Start) >= got.Size) {
				t.Fatalf("%#x is not in %+v", a, got)
			}
		}
	}
	if len(o.symbols) == 0 {
		t.Error("no symbols to compare")
	}
}

func TestSystemLibraries(t *testing.T) {
	for _, path := range elftest.Libraries(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			compareWithOracle(t, build(t, path), newOracle(t, path))
		})
	}
}

func TestLinkVariants(t *testing.T) {
	for _, v := range elftest.Variants() {
		t.Run(v.Name, func(t *testing.T) {
			path := elftest.Compile(t, elftest.Source, v.Args...)
			table := build(t, path)
			compareWithOracle(t, table, newOracle(t, path))
			compareWithNM(t, table, path)

			// What stays with the debug information names the same addresses.
			debug := path + ".debug"
			elftest.Run(t, "objcopy", "--only-keep-debug", path, debug)
			compareWithNM(t, build(t, debug), path)

			// A stripped file keeps the names of .dynsym, with and without section headers.
			dynamic := newOracle(t, path).names()
			elftest.Run(t, "strip", path)
			r, size := elftest.Open(t, path)
			f, err := objfile.Parse(r, size)
			if err != nil {
				t.Fatal(err)
			}
			stripped, err := elfsym.Build(f)
			if errors.Is(err, elfsym.ErrNone) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if stripped.FromSymtab() {
				t.Error("FromSymtab of a stripped file")
			}
			withoutHeaders := withoutSectionHeaders(t, path)
			bare, err := elfsym.Build(withoutHeaders)
			if err != nil {
				t.Fatal(err)
			}
			for s := range stripped.All() {
				if !dynamic[s.Name] {
					t.Errorf("%s is not a name of the whole file", s.Name)
				}
				if got, ok := bare.Lookup(s.Start); !ok || got.Name != s.Name {
					t.Errorf("without section headers %#x is %q, want %q", s.Start, got.Name, s.Name)
				}
			}
			if strings.Contains(v.Name, "hash") && stripped.Len() < 5 {
				t.Errorf("%d dynamic symbols in a file linked with -rdynamic", stripped.Len())
			}
		})
	}
}

func (o *oracle) names() map[string]bool {
	names := map[string]bool{}
	for _, s := range o.symbols {
		names[s.name] = true
	}
	return names
}

func withoutSectionHeaders(t *testing.T, path string) *objfile.File {
	t.Helper()
	b := elftest.WithoutSectionHeaders(t, path)
	f, err := objfile.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// compareWithNM looks up every text symbol that nm lists: its address must have its name, or
// one of the other names that nm lists for the address.
func compareWithNM(t *testing.T, table *elfsym.Table, path string) {
	t.Helper()
	at := map[uint64][]string{}
	for line := range strings.Lines(elftest.Run(t, "nm", "--defined-only", path)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.Contains("TtWwi", fields[1]) {
			continue
		}
		a, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(fields[2], "@")
		at[a] = append(at[a], name)
	}
	if len(at) < 10 {
		t.Fatalf("nm lists %d addresses", len(at))
	}
	for a, names := range at {
		s, ok := table.Lookup(objfile.Address(a))
		if slices.Contains(names, "outer_label") { // a label, not a function
			names = []string{"outer"}
		}
		if slices.Contains(names, "data_start") || slices.Contains(names, "_etext") || slices.Contains(names, "__executable_start") {
			continue // marks, not functions
		}
		if !ok || !slices.Contains(names, s.Name) {
			t.Errorf("%#x: got %q, nm says %q", a, s.Name, names)
		}
	}
}
