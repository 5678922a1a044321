package kallsyms

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// handmade has every kind of line, out of order as modules and programs are.
const handmade = `ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T secondary_startup_64
ffffffff81000100 t __pfx_do_exit
ffffffff81000110 T do_exit
ffffffff81000300 t __do_sys_getpid
ffffffff81000300 T __ia32_sys_getpid
ffffffff81000300 T __x64_sys_getpid
ffffffff81000300 W sys_getpid
ffffffff81000400 t do_exit.cold
ffffffff81000500 T _etext
ffffffff82000000 D jiffies
ffffffff83000000 T _sinittext
ffffffff83000010 t start_kernel
ffffffff83000200 T _einittext
0000000000000000 A fixed_percpu_data
ffffffffc0a5c000 t helper	[nf_tables]
ffffffffc0a5b010 t nft_do_chain	[nf_tables]
ffffffffc0a5b000 d nft_data	[nf_tables]
ffffffffc0a5b010 t $x	[nf_tables]
ffffffffc0a60080 t loop_open	[loop]
ffffffffc0201bd4 t bpf_prog_6deef7357e7b4530_sd_fw_egress	[bpf]
ffffffffc0201b00 t bpf_prog_6deef7357e7b4530	[bpf]
ffffffffc0100000 t ftrace_trampoline	[__builtin__ftrace]
`

func mustRead(t testing.TB, r io.Reader) *Table {
	t.Helper()
	table, err := Read(r)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestLookup(t *testing.T) {
	table := mustRead(t, strings.NewReader(handmade))
	for _, tt := range []struct {
		why    string
		addr   uint64
		name   string // empty: no symbol
		module string
	}{
		{"below everything", 0x1000, "", ""},
		{"fewest underscores among aliases", 0xffffffff81000000, "secondary_startup_64", ""},
		{"padding has its own address", 0xffffffff81000105, "__pfx_do_exit", ""},
		{"a function's start", 0xffffffff81000110, "do_exit", ""},
		{"a function's middle", 0xffffffff810002ff, "do_exit", ""},
		{"strong, global, then the longer", 0xffffffff81000300, "__ia32_sys_getpid", ""},
		{"cold parts keep their name", 0xffffffff81000480, "do_exit.cold", ""},
		{"the end of text", 0xffffffff81000500, "", ""},
		{"data", 0xffffffff82000000, "", ""},
		{"init text", 0xffffffff830001ff, "start_kernel", ""},
		{"the end of init text", 0xffffffff83000200, "", ""},
		{"module", 0xffffffffc0a5b010, "nft_do_chain", "nf_tables"},
		{"module, up to the next symbol", 0xffffffffc0a5bfff, "nft_do_chain", "nf_tables"},
		{"module's last symbol", 0xffffffffc0a5f000, "helper", "nf_tables"},
		{"ends where the next module's page begins", 0xffffffffc0a60000, "", ""},
		{"the next module", 0xffffffffc0a60080, "loop_open", "loop"},
		{"inside the bound", 0xffffffffc0a60080 + maxFunctionBytes - 1, "loop_open", "loop"},
		{"beyond the bound", 0xffffffffc0a60080 + maxFunctionBytes, "", ""},
		{"program", 0xffffffffc0201bd3, "bpf_prog_6deef7357e7b4530", "bpf"},
		{"last program", 0xffffffffc0201bd4 + maxProgramBytes - 1, "bpf_prog_6deef7357e7b4530_sd_fw_egress", "bpf"},
		{"beyond the last program", 0xffffffffc0201bd4 + maxProgramBytes, "", ""},
		{"ftrace", 0xffffffffc0100001, "ftrace_trampoline", "__builtin__ftrace"},
		{"the last address", ^uint64(0), "", ""},
	} {
		got, ok := table.Lookup(tt.addr)
		if got.Name != tt.name || got.Module != tt.module || ok != (tt.name != "") {
			t.Errorf("%s: Lookup(%#x) = %q [%s], %v; want %q [%s]", tt.why, tt.addr, got.Name, got.Module, ok, tt.name, tt.module)
		}
	}
	if table.Malformed() != 0 {
		t.Errorf("%d lines malformed", table.Malformed())
	}
}

func TestReadRefuses(t *testing.T) {
	ioErr := errors.New("broken")
	for _, tt := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"empty", strings.NewReader(""), ErrNoSymbols},
		{"data only", strings.NewReader("ffffffff82000000 D jiffies\n"), ErrNoSymbols},
		{"restricted", strings.NewReader("0000000000000000 T _stext\n0000000000000000 t a\t[m]\n"), ErrRestricted},
		{"restricted, 32-bit", strings.NewReader("00000000 T _stext\n"), ErrRestricted},
		{"read error", io.MultiReader(strings.NewReader(handmade), iotest.ErrReader(ioErr)), ioErr},
		{"input bound", &endless{line: []byte("ffffffff82000000 D jiffies\n")}, ErrTooLarge},
		{"input bound, one line", &endless{line: []byte("f")}, ErrTooLarge},
		{"symbol bound", &endless{line: []byte("f T a\n")}, ErrTooLarge},
	} {
		if _, err := Read(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// endless is a file of the same line without end.
type endless struct {
	line []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.line[e.at]
		e.at = (e.at + 1) % len(e.line)
	}
	return len(p), nil
}

func TestMalformedLinesAreCounted(t *testing.T) {
	const bad = "\nzz T a\nffffffffffffffff0 T seventeen_digits\nff T\nff T \nff  Ta\nff t a\t[]\nff t a\tmod\n"
	long := "ff T " + strings.Repeat("a", 200<<10) + "\n"
	table := mustRead(t, strings.NewReader(bad+long+"1000 T good")) // no newline at the end
	if want := strings.Count(bad, "\n") + 1; table.Malformed() != want || table.Len() != 1 {
		t.Errorf("%d malformed, %d symbols; want %d and 1", table.Malformed(), table.Len(), want)
	}
	if s, ok := table.Lookup(0x1001); !ok || s.Name != "good" {
		t.Errorf("the line without newline: %v %v", s, ok)
	}
}

// Symbols further apart than an offset can say are in different runs.
func TestFarApart(t *testing.T) {
	table := mustRead(t, strings.NewReader("1000 T low\n2000 T low2\nffffffff00000000 T high\nffffffffffffffff T top\n"))
	for addr, want := range map[uint64]string{
		0x1000: "low", 0x2000: "low2", 0x2000 + maxFunctionBytes: "", 0x100001000: "", 0xffffffff00000001: "high",
	} {
		if got, _ := table.Lookup(addr); got.Name != want {
			t.Errorf("Lookup(%#x) = %q, want %q", addr, got.Name, want)
		}
	}
}

func TestDynamic(t *testing.T) {
	table := mustRead(t, strings.NewReader(handmade))
	look := func(addr uint64, want string) {
		t.Helper()
		if got, ok := table.Lookup(addr); got.Name != want || ok != (want != "") {
			t.Errorf("Lookup(%#x) = %q, want %q", addr, got.Name, want)
		}
	}
	const base = 0xffffffffc0300000
	table.AddDynamic(base, 0x100, "bpf_prog_a")
	table.AddDynamic(base+0x100, 0x100, "bpf_prog_b")
	table.AddDynamic(base+0x300, 0x100, "bpf_trampoline_c")
	look(base, "bpf_prog_a")
	look(base+0xff, "bpf_prog_a")
	look(base+0x100, "bpf_prog_b")
	look(base+0x200, "") // a known size is not exceeded
	if s, _ := table.Lookup(base); s.Module != "bpf" || s.Start != base {
		t.Errorf("dynamic symbol: %+v", s)
	}

	table.AddDynamic(base+0x80, 0x300, "bpf_prog_d") // memory used again: the records of a, b and c were lost
	look(base, "")
	look(base+0x80, "bpf_prog_d")
	look(base+0x37f, "bpf_prog_d")
	look(base+0x380, "")
	table.RemoveDynamic(base + 0x81) // not a start
	look(base+0x81, "bpf_prog_d")
	table.RemoveDynamic(base + 0x80)
	look(base+0x80, "")

	const old = 0xffffffffc0201b00 // a program that was there at the start
	table.RemoveDynamic(old)
	look(old+4, "")
	table.AddDynamic(old, 0x10, "bpf_prog_new")
	look(old+4, "bpf_prog_new")
	look(old+0x20, "")

	table.RemoveDynamic(0xffffffff81000110) // the kernel's own text does not go away
	look(0xffffffff81000110, "do_exit")

	for _, refused := range []bool{
		table.AddDynamic(base, 0, "bpf_prog_empty"),
		table.AddDynamic(base, 1, ""),
		table.AddDynamic(^uint64(0), 2, "bpf_prog_wraps"),
	} {
		if refused {
			t.Error("a senseless symbol was added")
		}
	}
}

func TestDynamicIsBounded(t *testing.T) {
	table := mustRead(t, strings.NewReader(handmade))
	const n, base = maxDynamic + 10, uint64(0xffffffffd0000000)
	for i := range uint64(n) {
		table.AddDynamic(base+i*16, 16, strings.Repeat("x", 2*maxDynamicNameBytes))
	}
	if _, ok := table.Lookup(base + 9*16); ok {
		t.Error("the oldest were not dropped")
	}
	if s, ok := table.Lookup(base + (n-1)*16); !ok || len(s.Name) != maxDynamicNameBytes {
		t.Error("the newest was dropped, or its name not cut")
	}
	if got, limit := table.Bytes(), maxDynamic*(maxDynamicNameBytes+100); got > limit {
		t.Errorf("%d bytes held, limit %d", got, limit)
	}
}

func TestConcurrentUse(t *testing.T) {
	table := mustRead(t, strings.NewReader(handmade))
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(2000) {
				addr := 0xffffffffc0300000 + (i%8+g)*64
				table.AddDynamic(addr, 64, "bpf_prog_x")
				if s, ok := table.Lookup(addr); ok && s.Name != "bpf_prog_x" {
					t.Errorf("Lookup = %v", s)
				}
				if s, _ := table.Lookup(0xffffffff81000110); s.Name != "do_exit" {
					t.Errorf("Lookup = %v", s)
				}
				table.RemoveDynamic(addr)
			}
		})
	}
	wg.Wait()
}

// A naiveSymbol is one code line, read the plain way.
type naiveSymbol struct {
	addr               uint64
	kind, name, module string
}

func naiveRead(data []byte) (symbols []naiveSymbol) {
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) < 3 || !strings.Contains("TtWw", f[1]) || f[2][0] == '$' {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil || addr == 0 {
			continue
		}
		s := naiveSymbol{addr: addr, kind: f[1], name: f[2]}
		if len(f) > 3 {
			s.module = strings.Trim(f[3], "[]")
		}
		symbols = append(symbols, s)
	}
	return symbols
}

// Every code symbol of this host finds itself, or an alias, at its start and one byte later.
func TestThisKernel(t *testing.T) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Skipf("this host shows no kallsyms: %v", err)
	}
	start := time.Now()
	table, err := Read(bytes.NewReader(data))
	if errors.Is(err, ErrRestricted) {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)

	symbols := naiveRead(data)
	aliases := make(map[uint64][]naiveSymbol)
	for _, s := range symbols {
		aliases[s.addr] = append(aliases[s.addr], s)
	}
	isEnd := func(addr uint64) bool {
		for _, a := range aliases[addr] {
			if a.module == "" && (a.name == textEnd || a.name == initTextEnd) {
				return true
			}
		}
		return false
	}
	checked, atNext, wrong := 0, 0, 0
	for _, s := range symbols {
		for addr := s.addr; addr <= s.addr+1; addr++ {
			want := s.addr
			if addr != want && aliases[addr] != nil {
				want = addr
				atNext++
			}
			got, ok := table.Lookup(addr)
			known := false
			for _, a := range aliases[want] {
				known = known || a.name == got.Name && a.module == got.Module && got.Start == want
			}
			if isEnd(want) {
				known = !ok
			}
			if !known {
				if wrong++; wrong < 10 {
					t.Errorf("Lookup(%#x) = %+v, %v; want %+v", addr, got, ok, s)
				}
			}
			checked++
		}
	}
	if table.Malformed() > 0 {
		t.Errorf("%d malformed lines", table.Malformed())
	}
	t.Logf("%d lines, %d code symbols at %d addresses: read in %v, %d bytes (%.1f a symbol, %d of names); %d look-ups right",
		bytes.Count(data, []byte("\n")), len(symbols), table.Len(), took, table.Bytes(),
		float64(table.Bytes())/float64(table.Len()), len(table.blob), checked-wrong)
	if table.Bytes() > 6<<20 && table.Len() < 200_000 {
		t.Errorf("%d bytes held", table.Bytes())
	}
}

// Whatever the input: each code line's address has one of its names or none, and then only where an end mark stands or the
// address space ends; an address is never given a symbol that starts after it or further away than the bounds allow.
func FuzzRead(f *testing.F) {
	f.Add([]byte(handmade), uint64(0xffffffff81000111))
	f.Add([]byte("0000000000000000 T _stext\n"), uint64(0))
	f.Add([]byte("ff t a\t[bpf]\nff t b\t[m]\nfe t __pfx_b\t[m]\n100000000ff T c\nffffffffffffffff T d"), uint64(1<<40))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		table, err := Read(bytes.NewReader(data))
		if err != nil {
			if table != nil {
				t.Fatal("a table and an error")
			}
			return
		}
		if limit := 2*16*(table.Len()+8)*2 + 2*len(data) + 32*len(table.owners); table.Bytes() > limit {
			t.Fatalf("%d bytes held for %d bytes of input", table.Bytes(), len(data))
		}
		check := func(addr uint64) (Symbol, bool) {
			s, ok := table.Lookup(addr)
			if ok && (s.Name == "" || s.Start > addr || addr-s.Start >= maxProgramBytes) {
				t.Fatalf("Lookup(%#x) = %+v", addr, s)
			}
			if !bytes.Contains(data, []byte(s.Name)) {
				t.Fatalf("the name %q is invented", s.Name)
			}
			return s, ok
		}
		check(addr)
		var r reader
		r.owners, r.ownerIndex = []string{""}, map[string]uint32{"": 0}
		if err := r.readLines(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		names, ends := make(map[string]bool), make(map[uint64]bool)
		for _, e := range r.entries {
			names[fmt.Sprint(e.addr, string(r.name(e)), r.owners[e.owner])] = true
			ends[e.addr] = ends[e.addr] || e.end || e.addr == ^uint64(0)
		}
		for _, e := range r.entries {
			s, ok := check(e.addr)
			if ok == ends[e.addr] {
				t.Fatalf("Lookup(%#x) = %+v, %v; end mark: %v", e.addr, s, ok, ends[e.addr])
			}
			if ok && !names[fmt.Sprint(e.addr, s.Name, s.Module)] {
				t.Fatalf("Lookup(%#x) = %+v, not one of its names", e.addr, s)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		b.Skip(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(data)); err != nil {
			b.Skip(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		b.Skip(err)
	}
	table, err := Read(bytes.NewReader(data))
	if err != nil {
		b.Skip(err)
	}
	symbols := naiveRead(data)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % len(symbols)
		table.Lookup(symbols[i].addr + 1)
	}
}
