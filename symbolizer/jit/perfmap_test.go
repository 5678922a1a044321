package jit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func mustRead(t testing.TB, in string) *PerfMap {
	t.Helper()
	m, err := ReadPerfMap(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func look(t *testing.T, m *PerfMap, addr uint64, want string) {
	t.Helper()
	if got, ok := m.Lookup(addr); got != want || ok != (want != "") {
		t.Errorf("Lookup(%#x) = %q, %v; want %q", addr, got, ok, want)
	}
}

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		line string
		addr uint64
		want string // empty: malformed
	}{
		{"7f2a1c0040a0 1c0 Lorg/example/Server;::handle", 0x7f2a1c0040a0, "Lorg/example/Server;::handle"},
		{"0x1000 0X10 with prefix", 0x100f, "with prefix"},
		{"1000 10 LazyCompile:*parse /srv/a b/index.js:12", 0x1000, "LazyCompile:*parse /srv/a b/index.js:12"},
		{"1000\t10\ttabs\tinside", 0x1000, "tabs\tinside"},
		{"1000  10   blanks  ", 0x1000, "blanks"},
		{"00000000000000001000 010 zeros\r", 0x1000, "zeros"},
		{"FFFFfffffffffffe 1 top", 0xfffffffffffffffe, "top"},
		{"1000 10 \xff\xfe", 0x1000, "\xff\xfe"},
		{"1000 0 empty range", 0x1000, ""},
		{"1000 10 ", 0x1000, ""},
		{"1000 10", 0x1000, ""},
		{"1000", 0x1000, ""},
		{"", 0, ""},
		{"0x 10 a", 0, ""},
		{"1000 ten a", 0x1000, ""},
		{"-1000 10 a", 0x1000, ""},
		{"10000000000000000 10 a", 0, ""},
		{"ffffffffffffffff 1 beyond", 0xffffffffffffffff, ""},
		{" 1000 10 a", 0x1000, ""},
	} {
		m := mustRead(t, tt.line+"\n")
		look(t, m, tt.addr, tt.want)
		want := Stats{Entries: 1}
		if tt.want == "" {
			want = Stats{Malformed: 1}
		}
		if m.Stats() != want {
			t.Errorf("%q: %+v", tt.line, m.Stats())
		}
	}
}

func TestTheLastWriterWins(t *testing.T) {
	m := mustRead(t, "1000 100 a\n1100 100 b\n1080 100 c\n3000 10 d\n3000 8 e\n4000 10 inner\n3ff0 30 outer\n5000 30 split\n5010 10 middle\n")
	for addr, want := range map[uint64]string{
		0xfff: "", 0x1000: "a", 0x107f: "a", 0x1080: "c", 0x117f: "c", 0x1180: "b", 0x11ff: "b", 0x1200: "",
		0x3000: "e", 0x3008: "d", 0x4000: "outer", 0x4010: "outer",
		0x5000: "split", 0x5010: "middle", 0x5020: "split", 0x502f: "split", 0x5030: "",
	} {
		look(t, m, addr, want)
	}
	if err := m.Append(strings.NewReader("1000 1000 all\n")); err != nil {
		t.Fatal(err)
	}
	look(t, m, 0x1080, "all")
	look(t, m, 0x11ff, "all")
	look(t, m, 0x3000, "e")
}

func TestAppendContinues(t *testing.T) {
	const file = "1000 10 first\n2000 10 second name\n3000 10 third"
	m := mustRead(t, "")
	for i := range len(file) {
		if m.Offset() != int64(i) {
			t.Fatalf("Offset = %d, want %d", m.Offset(), i)
		}
		if err := m.Append(strings.NewReader(file[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	look(t, m, 0x1000, "first")
	look(t, m, 0x2000, "second name")
	look(t, m, 0x3000, "") // it may not be the whole name yet
	if err := m.Append(strings.NewReader(" party\n")); err != nil {
		t.Fatal(err)
	}
	look(t, m, 0x3000, "third party")
}

func TestAppendKeepsWhatPrecedesAnError(t *testing.T) {
	broken := errors.New("broken")
	m, err := ReadPerfMap(io.MultiReader(strings.NewReader("1000 10 a\n2000 1"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	look(t, m, 0x1000, "a")
	if err := m.Append(strings.NewReader("0 b\n")); err != nil {
		t.Fatal(err)
	}
	look(t, m, 0x200f, "b")
}

func TestLongLinesAreCut(t *testing.T) {
	m := mustRead(t, "1000 10 "+strings.Repeat("€", 100_000)+"\n2000 10 next\n")
	name, _ := m.Lookup(0x1000)
	if len(name) > maxLineBytes || strings.Trim(name, "€") != "" || len(name) < maxLineBytes-20 {
		t.Errorf("a name of %d bytes, ending in %q", len(name), name[len(name)-4:])
	}
	look(t, m, 0x2000, "next")
	if m.Stats() != (Stats{Entries: 2, Cut: 1}) {
		t.Errorf("%+v", m.Stats())
	}
	if err := m.Append(strings.NewReader(strings.Repeat("f", 10*maxLineBytes))); err != nil || len(m.line) > maxLineBytes {
		t.Errorf("%d bytes of an endless line kept, %v", len(m.line), err)
	}
}

func TestReadBound(t *testing.T) {
	file := strings.Repeat("1000 10 a\n", 100) + "2000 10 last\n"
	m := newPerfMap(limits{readBytes: 333, segments: 100, namesBytes: 1000, batch: 7})
	for m.Offset() < int64(len(file)) {
		before := m.Offset()
		if err := m.Append(strings.NewReader(file[before:])); err != nil {
			t.Fatal(err)
		}
		if n := m.Offset() - before; n == 0 || n > 333 {
			t.Fatalf("read %d bytes", n)
		}
	}
	look(t, m, 0x2000, "last")
	if m.Stats() != (Stats{Entries: 101}) {
		t.Errorf("%+v", m.Stats())
	}
}

func TestTheOldestGoFirst(t *testing.T) {
	for _, l := range []limits{
		{readBytes: 1 << 20, segments: 80, namesBytes: 1 << 20, batch: 10},
		{readBytes: 1 << 20, segments: 1 << 20, namesBytes: 400, batch: 10},
	} {
		m := newPerfMap(l)
		const n = 1000
		var file strings.Builder
		for i := range n {
			fmt.Fprintf(&file, "%x 10 name%04d\n", 0x1000+0x10*(i*7%n), i)
		}
		if err := m.Append(strings.NewReader(file.String())); err != nil {
			t.Fatal(err)
		}
		s := m.state.Load()
		if len(s.segments) > l.segments || s.names > l.namesBytes || s.names != namesBytes(s.segments) {
			t.Errorf("%d segments, %d bytes of names", len(s.segments), s.names)
		}
		if st := m.Stats(); st.Entries != n || st.Evicted != uint64(n-len(s.segments)) || len(s.segments) < 30 {
			t.Errorf("%+v with %d segments", st, len(s.segments))
		}
		for i := n - len(s.segments); i < n; i++ {
			look(t, m, uint64(0x1000+0x10*(i*7%n)), fmt.Sprintf("name%04d", i))
		}
	}
}

func TestConcurrentLookup(t *testing.T) {
	m := mustRead(t, "1000 1000 old\n")
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if name, ok := m.Lookup(0x1800); !ok || name != "old" && name != "new" {
					t.Errorf("Lookup = %q, %v", name, ok)
					return
				}
			}
		})
	}
	for range 500 {
		if err := m.Append(strings.NewReader("17f0 20 new\n1000 1000 old\n")); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

// A scan from the last entry to the first is the definition of the right answer.
func naiveLookup(entries []entry, addr uint64) (string, bool) {
	for i := len(entries) - 1; i >= 0; i-- {
		if e := entries[i]; e.start <= addr && addr < e.end {
			return e.name, true
		}
	}
	return "", false
}

func checkAgainstNaive(t *testing.T, m *PerfMap, file []byte) {
	t.Helper()
	var entries []entry
	var probes []uint64
	for line := range bytes.Lines(file) {
		line, complete := bytes.CutSuffix(line, []byte("\n"))
		cut := len(line) > maxLineBytes
		if e, ok := parseLine(line[:min(len(line), maxLineBytes)], cut); ok && complete {
			entries = append(entries, e)
			probes = append(probes, e.start-1, e.start, e.start+(e.end-e.start)/2, e.end-1, e.end)
		}
	}
	if got := m.Stats().Entries; got != uint64(len(entries)) {
		t.Fatalf("%d entries, want %d", got, len(entries))
	}
	for _, addr := range probes {
		got, ok := m.Lookup(addr)
		want, wantOK := naiveLookup(entries, addr)
		if got != want || ok != wantOK {
			t.Fatalf("Lookup(%#x) = %q, %v; the last match is %q, %v", addr, got, ok, want, wantOK)
		}
	}
	segments := m.state.Load().segments
	for i, s := range segments {
		if s.start >= s.end || i > 0 && segments[i-1].end > s.start {
			t.Fatalf("segment %d: %+v after %+v", i, s, segments[max(i-1, 0)])
		}
	}
}

func TestRandomOverlaps(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		var file bytes.Buffer
		for i := range 200 {
			fmt.Fprintf(&file, "%x %x n%d\n", rng.IntN(1<<(4+round%12)), 1+rng.IntN(1<<(1+round%9)), i)
		}
		m := newPerfMap(limits{1 << 20, 1 << 20, 1 << 20, 1 + round%70})
		if err := m.Append(bytes.NewReader(file.Bytes())); err != nil {
			t.Fatal(err)
		}
		checkAgainstNaive(t, m, file.Bytes())
	}
}

// Whatever the file, however it arrives, and wherever the batches end: a look-up finds the last line that covers
// the address.
func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 100 a\n1080 10 b c\n0x1000 0x8 d\r\n"), uint16(9), uint8(1))
	f.Add([]byte("1 ffffffffffffffff a\n8000000000000000 1 b\n0 1 c\n1000 0 d\nx\n1 2"), uint16(30), uint8(2))
	f.Fuzz(func(t *testing.T, file []byte, split uint16, batch uint8) {
		m := newPerfMap(limits{1 << 20, 1 << 20, 1 << 20, 1 + int(batch)})
		at := min(int(split), len(file))
		for _, part := range [][]byte{file[:at], file[at:]} {
			if err := m.Append(bytes.NewReader(part)); err != nil {
				t.Fatal(err)
			}
		}
		if m.Offset() != int64(len(file)) {
			t.Fatalf("Offset = %d of %d", m.Offset(), len(file))
		}
		checkAgainstNaive(t, m, file)
	})
}

// makeFile writes n lines, a third of which use memory again.
func makeFile(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	var file bytes.Buffer
	next := uint64(0x7f0000000000)
	for i := range n {
		start, size := next, 64+rng.Uint64N(2048)
		if i%3 == 2 {
			start = 0x7f0000000000 + rng.Uint64N(next-0x7f0000000000)
		} else {
			next += size
		}
		fmt.Fprintf(&file, "%x %x LazyCompile:*function%d /srv/app/node_modules/module/index.js:%d:17\n", start, size, i, i%977)
	}
	return file.Bytes()
}

// Ten times the lines take about ten times as long. A quadratic merge would take a hundred times; the bound leaves
// room for a busy machine.
func TestNotQuadratic(t *testing.T) {
	if testing.Short() {
		t.Skip("timing")
	}
	measure := func(n int) time.Duration {
		file := makeFile(n)
		best := time.Hour
		for range 3 {
			start := time.Now()
			m := mustRead(t, string(file))
			best = min(best, time.Since(start))
			if n > 100_000 {
				t.Logf("%d lines, %d bytes: %v, %d bytes held", n, len(file), best, m.Bytes())
			}
		}
		return best
	}
	small, large := measure(20_000), measure(200_000)
	if large > 60*small {
		t.Errorf("20,000 lines take %v, 200,000 take %v", small, large)
	}
}

func BenchmarkRead(b *testing.B) {
	file := makeFile(100_000)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadPerfMap(bytes.NewReader(file)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendOneLine(b *testing.B) {
	m := mustRead(b, string(makeFile(100_000)))
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Append(strings.NewReader("7f0000001000 40 added\n")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	m := mustRead(b, string(makeFile(100_000)))
	addr := uint64(0x7f0000000000)
	b.ReportAllocs()
	for b.Loop() {
		addr = 0x7f0000000000 + (addr+7919*64)&0x3ffffff
		m.Lookup(addr)
	}
}
