package process

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// oracle is a process's memory as an array of pages, each with everything that ever stood in it.
type oracle [oraclePages][]oracleEntry

type oracleEntry struct {
	since   uint64
	file    *File // nil: nothing
	offset  objfile.FileOffset
	retired int // when the table had retired so many mappings, this one was replaced; 0: it stands
}

const (
	oraclePages = 48
	oraclePage  = 4096
	oracleBase  = 0x400000
)

func pageAddress(page int) Address { return Address(oracleBase + page*oraclePage) }

// oracleFile makes one of five files, two of which have one inode number on different devices, or JIT memory.
func oracleFile(n int) *File {
	if n == 0 {
		return &File{Path: "//anon"}
	}
	return &File{Path: "/" + strconv.Itoa(n), key: FileKey{Inode: uint64(max(n, 2))}, id: uint32(n)}
}

// set puts a mapping's pages in.
func (o *oracle) set(m Mapping, retired int) {
	for page := range oraclePages {
		if a := pageAddress(page); m.Start <= a && a < m.End {
			o.put(page, oracleEntry{since: m.Since, file: m.File, offset: m.FileOffset(a)}, retired)
		}
	}
}

func (o *oracle) put(page int, e oracleEntry, retired int) {
	if n := len(o[page]); n > 0 {
		o[page][n-1].retired = retired
	}
	o[page] = append(o[page], e)
}

// at gives what stood in a page, nil for nothing.
func (o *oracle) at(page int, time uint64) *oracleEntry {
	for i := range slices.Backward(o[page]) {
		if e := &o[page][i]; e.since <= time {
			if e.file == nil {
				return nil
			}
			return e
		}
	}
	return nil
}

// FuzzMappingTable does what the bytes say to tables that forked from one another, and compares every
// look-up, now and in the past, with the oracle.
func FuzzMappingTable(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		script := make([]byte, 30+r.IntN(600))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(checkMappingTable)
}

type modelProcess struct {
	table   *mappingTable
	pages   oracle
	retired int    // mappings retired so far
	born    uint64 // nothing is asked about earlier
}

func checkMappingTable(t *testing.T, script []byte) {
	if len(script) > 1000 {
		return
	}
	next := func(n int) int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b) % n
	}
	now := uint64(10)
	processes := []*modelProcess{{table: new(mappingTable)}}
	randomMapping := func() Mapping {
		first := next(oraclePages)
		return Mapping{
			Start: pageAddress(first), End: pageAddress(first + 1 + next(min(12, oraclePages-first))),
			Offset: objfile.FileOffset(next(16) * oraclePage), Since: now, File: oracleFile(next(6)),
		}
	}
	for len(script) > 0 {
		now += uint64(next(3)) // several things at one time
		p := processes[next(len(processes))]
		version := p.table.version
		if next(4) == 0 { // from now on the table keeps its places
			p.compareHolding(t, oracleFile(1), 0, now)
		}
		switch action := next(16); {
		case action < 12:
			m := randomMapping()
			for _, o := range p.table.mappings {
				if o.Start < m.End && m.Start < o.End {
					p.retired++
				}
			}
			p.table.insert(m)
			p.pages.set(m, p.retired)
		case action < 14 && len(processes) < 6:
			child := p.table.fork()
			// What stood there before the fork is the parent's past.
			c := &modelProcess{table: &child, born: now}
			for page := range p.pages {
				if e := p.pages.at(page, now); e != nil {
					c.pages[page] = []oracleEntry{*e}
				}
			}
			processes = append(processes, c)
			continue
		default:
			var mappings []Mapping
			for range next(4) {
				m := randomMapping()
				if !slices.ContainsFunc(mappings, func(o Mapping) bool { return o.Start < m.End && m.Start < o.End }) {
					mappings = append(mappings, m)
				}
			}
			slices.SortFunc(mappings, func(a, b Mapping) int { return int(a.Start) - int(b.Start) })
			p.retired += len(p.table.mappings)
			p.table.replace(mappings, now)
			for page := range p.pages {
				p.pages.put(page, oracleEntry{since: now}, p.retired)
			}
			for _, m := range mappings {
				p.pages.set(m, p.retired)
			}
		}
		if p.table.version == version {
			t.Fatal("the table changed, its version did not")
		}
	}
	for _, p := range processes {
		p.compare(t, now)
	}
}

func (p *modelProcess) compare(t *testing.T, now uint64) {
	t.Helper()
	for i, m := range p.table.mappings {
		if m.End <= m.Start || i > 0 && p.table.mappings[i-1].End > m.Start {
			t.Fatalf("mappings overlap or are out of order: %+v", p.table.mappings)
		}
	}
	if len(p.table.retired) > maxRetired {
		t.Fatalf("%d retired mappings", len(p.table.retired))
	}
	for n := 1; n < 6; n++ {
		for page := range oraclePages {
			p.compareHolding(t, oracleFile(n), objfile.FileOffset(page*oraclePage+n), now)
		}
	}
	for page := range oraclePages {
		for time := p.born; time <= now+1; time += 1 + uint64(page+int(time))%4 {
			a := pageAddress(page) + Address(time)
			got, stale := p.table.find(a, time)
			want := p.pages.at(page, time)
			stands := p.pages.at(page, now+1) != nil
			switch {
			case got != nil && (want == nil || got.File != want.file || got.FileOffset(pageAddress(page)) != want.offset || stale):
				t.Fatalf("page %d at %d: %+v (stale %t), want %+v", page, time, got, stale, want)
			case got == nil && stale != stands:
				t.Fatalf("page %d at %d: stale %t, but something stands there: %t", page, time, stale, stands)
			case got == nil && want != nil && (want.retired == 0 || p.retired-want.retired < maxRetired/2-oraclePages):
				t.Fatalf("page %d at %d: nothing, want %+v", page, time, want)
			}
		}
	}
}

// compareHolding compares the look-up of a place in a file with one through all mappings.
func (p *modelProcess) compareHolding(t *testing.T, f *File, off objfile.FileOffset, now uint64) {
	t.Helper()
	for time := p.born; time <= now+1; time += 1 + (now-p.born)/8 {
		got := p.table.holding(f, off, func(m *Mapping, until uint64) bool { return m.Since <= time && time < until })
		holds := func(m Mapping) bool { return m.holds(f, off) && m.Since <= time }
		switch {
		case got == nil && slices.ContainsFunc(p.table.mappings, holds):
			t.Fatalf("%s+%#x at %d: nothing, but it is mapped: %+v", f.Path, off, time, p.table.mappings)
		case got == nil:
		case !got.holds(f, off) || got.Since > time:
			t.Fatalf("%s+%#x at %d: %+v", f.Path, off, time, got)
		case slices.ContainsFunc(p.table.mappings, holds) != slices.Contains(p.table.mappings, *got):
			t.Fatalf("%s+%#x at %d: %+v, of what is there: %+v", f.Path, off, time, got, p.table.mappings)
		}
	}
}

// A process that maps without end loses what comes last, and what was overwritten is not taken for what is there.
func TestMappingTableFull(t *testing.T) {
	var table mappingTable
	old, added := &File{Path: "/old"}, &File{Path: "/new"}
	mappings := make([]Mapping, maxMappings)
	for i := range mappings {
		start := Address(0x1000 * (2*i + 1))
		mappings[i] = Mapping{Start: start, End: start + 0x1000, File: old}
	}
	table.replace(mappings, 1)
	for i := range 10 { // in the gaps
		table.insert(Mapping{Start: Address(0x2000 * i), End: Address(0x2000*i + 0x1000), Since: 2, File: added})
	}
	if len(table.mappings) > maxMappings {
		t.Errorf("%d mappings", len(table.mappings))
	}
	// In the middle of one: the pieces would be one too many.
	at := mappings[100].Start
	table.insert(Mapping{Start: at + 0x400, End: at + 0x800, Since: 3, File: added})
	if m, _ := table.find(at+0x500, 4); m != nil && m.File == old {
		t.Error("the mapping that was replaced is still found")
	}
	if m, _ := table.find(at+0x500, 2); m == nil || m.File != old {
		t.Errorf("what stood there before is forgotten: %+v", m)
	}
	if len(table.mappings) > maxMappings {
		t.Errorf("%d mappings", len(table.mappings))
	}
}

// crowded is the table of a process that maps as much as a table holds: pieces of one file, then the library.
func crowded() (table *mappingTable, pieces, library *File) {
	pieces = &File{Path: "/pieces", key: FileKey{Inode: 1}}
	library = &File{Path: "/library", key: FileKey{Inode: 2}}
	mappings := make([]Mapping, maxMappings)
	for i := range mappings {
		start := Address(0x2000 * (i + 1))
		mappings[i] = Mapping{Start: start, End: start + 0x1000, Offset: objfile.FileOffset(0x1000 * i), File: pieces}
	}
	last := &mappings[maxMappings-1]
	last.File, last.Offset, last.End = library, 0x1000, last.Start+1<<20
	table = new(mappingTable)
	table.replace(mappings, 1)
	return table, pieces, library
}

// Code that is mapped again and again at the same place of its file costs no more, and is given up.
func TestHoldingOverlaps(t *testing.T) {
	f := &File{Path: "/f", key: FileKey{Inode: 1}}
	mappings := make([]Mapping, maxMappings)
	for i := range mappings {
		mappings[i] = Mapping{Start: Address(0x1000 * i), End: Address(0x1000 * (i + 1)), Since: 5, File: f}
	}
	var table mappingTable
	table.replace(mappings, 5)
	looked := 0
	table.holding(f, 0x10, func(*Mapping, uint64) bool { looked++; return false })
	if looked != maxOverlaps {
		t.Errorf("%d mappings were looked at", looked)
	}
	if m := table.holding(f, 0x10, func(m *Mapping, _ uint64) bool { return m.Since <= 5 }); m == nil {
		t.Error("none of them is found")
	}
}

// Forked processes share what places in files are found by, whichever of them is asked first, until one changes.
func TestPlacesForked(t *testing.T) {
	table, pieces, _ := crowded()
	always := func(*Mapping, uint64) bool { return true }
	first := table.fork()
	first.holding(pieces, 0x1000, always)
	allocated := testing.AllocsPerRun(10, func() {
		child := first.fork()
		if child.holding(pieces, 0x1000, always) == nil || table.holding(pieces, 0x1000, always) == nil {
			t.Fatal("not found")
		}
	})
	if allocated > 2 {
		t.Errorf("a look-up in a forked process makes %.0f objects", allocated)
	}
	at, added := table.mappings[5], &File{Path: "/added", key: FileKey{Inode: 3}}
	first.insert(Mapping{Start: at.Start, End: at.End, Offset: 0x1000, File: added, Since: 7})
	if first.holding(added, 0x1000, always) == nil || table.holding(added, 0x1000, always) != nil || table.holding(pieces, at.Offset, always) == nil {
		t.Error("what one process maps is found in the other, or not at all")
	}
}

// What one frame of a stack costs that was walked by an earlier list of mappings.
func BenchmarkHolding(b *testing.B) {
	table, pieces, library := crowded()
	always := func(*Mapping, uint64) bool { return true }
	for name, holding := range map[string]func(i int) *Mapping{
		"pieces": func(i int) *Mapping {
			return table.holding(pieces, objfile.FileOffset(0x1000*(i*7919%(maxMappings-1))), always)
		},
		"library": func(i int) *Mapping { return table.holding(library, objfile.FileOffset(0x1000+i%(1<<20)), always) },
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				if holding(i) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

// What a record of a new mapping costs, and the first look-up after it.
func BenchmarkInsert(b *testing.B) {
	table, pieces, library := crowded()
	always := func(*Mapping, uint64) bool { return true }
	for i := range b.N {
		n := i * 7919 % (maxMappings - 1)
		start := Address(0x2000 * (n + 1))
		table.insert(Mapping{Start: start, End: start + 0x1000, Offset: objfile.FileOffset(0x1000 * n), File: pieces, Since: uint64(i)})
		if table.holding(library, 0x1000, always) == nil {
			b.Fatal("not found")
		}
	}
}

func TestReadMaps(t *testing.T) {
	const text = "5581e5a00000-5581e5a02000 r--p 00000000 fe:01 100 /usr/bin/cat\n" +
		"5581e5a02000-5581e5a07000 r-xp 00002000 fe:01 4294967297                   /usr/bin/my prog  x\n" +
		"7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n" +
		"7f0000002000-7f0000003000 r-xs 00001000 103:0a 5 /tmp/gone (deleted)\n" +
		"7ffd3a9f5000-7ffd3a9f7000 r-xp 00000000 00:00 0                          [vdso]\n" +
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
	entries, err := readMaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapsEntry{
		{Mapping{Start: 0x5581e5a02000, End: 0x5581e5a07000, Offset: 0x2000}, FileKey{Major: 0xfe, Minor: 1, Inode: 1<<32 + 1}, "/usr/bin/my prog  x"},
		{Mapping{Start: 0x7f0000000000, End: 0x7f0000001000}, FileKey{}, ""},
		{Mapping{Start: 0x7f0000002000, End: 0x7f0000003000, Offset: 0x1000}, FileKey{Major: 0x103, Minor: 10, Inode: 5}, "/tmp/gone"},
		{Mapping{Start: 0x7ffd3a9f5000, End: 0x7ffd3a9f7000}, FileKey{}, "[vdso]"},
		{Mapping{Start: 0xffffffffff600000, End: 0xffffffffff601000}, FileKey{}, "[vsyscall]"},
	}
	if !slices.Equal(entries, want) {
		t.Errorf("got  %+v\nwant %+v", entries, want)
	}
	for _, broken := range []string{
		"x", "zz-11 r-xp 0 0:0 0", "10-20 r-xp", "10-20 r-xp 0 0:0", "10-20 r-xp 0 0:0 x", "10-20 r-xp 0 0 1", "10 r-xp 0 0:0 1",
		"11111111111111111-22222222222222222 r-xp 0 0:0 0", "20-10 r-xp 0 0:0 0", "10-10 r-xp 0 0:0 0",
	} {
		entries, err := readMaps(strings.NewReader("10-20 r-xp 0 0:0 1 /first\n" + broken + "\n"))
		if strings.Contains(broken, "xp") != (err != nil) || len(entries) != 1 {
			t.Errorf("%q: %v, %d entries; want an error, and what came before", broken, err, len(entries))
		}
	}
	if _, err := readMaps(strings.NewReader("10-20 r-xp 0 0:0 1 /" + strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of 1 MiB was taken")
	}
}

// The real list of this process: as a plain reading of /proc/self/maps says, and procfs's own directory of mapped files.
func TestReadMapsReal(t *testing.T) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := readMaps(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	executable := 0
	for line := range strings.Lines(string(text)) {
		var start, end, offset uint64
		var perms, device string
		var inode uint64
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &perms, &offset, &device, &inode); err != nil {
			t.Fatal(err)
		}
		if perms[2] != 'x' {
			continue
		}
		e := entries[executable]
		executable++
		if uint64(e.mapping.Start) != start || uint64(e.mapping.End) != end || uint64(e.mapping.Offset) != offset || e.key.Inode != inode ||
			fmt.Sprintf("%02x:%02x", e.key.Major, e.key.Minor) != device {
			t.Errorf("%+v from %s", e, line)
		}
		if inode == 0 {
			continue
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/self/map_files/%x-%x", start, end))
		if err != nil || strings.TrimSuffix(link, " (deleted)") != e.path {
			t.Errorf("%q, by map_files %q (%v)", e.path, link, err)
		}
	}
	if executable != len(entries) || executable == 0 {
		t.Errorf("%d entries, %d executable lines", len(entries), executable)
	}
}

// Whatever the text, the mappings given are whole, in order of the lines, and bounded.
func FuzzReadMaps(f *testing.F) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("10-20 r-xp 0 0:0 1 /x\n10-20 r-xp 0 0:0 1 /x"))
	f.Add([]byte("20-10 r-xp 0 0:0 1"))
	f.Add([]byte("ffffffffffffffff-0 --x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := readMaps(bytes.NewReader(text))
		if n := bytes.Count(text, []byte("\n")) + 1; len(entries) > n {
			t.Fatalf("%d entries in %d lines", len(entries), n)
		}
		for _, e := range entries {
			if e.mapping.End <= e.mapping.Start || strings.ContainsRune(e.path, '\n') || !bytes.Contains(text, []byte(e.path)) {
				t.Fatalf("%+v", e)
			}
		}
		if err != nil && errors.Unwrap(err) == nil && !strings.HasPrefix(err.Error(), "maps line") {
			t.Fatalf("an error that does not say what it is about: %v", err)
		}
	})
}

// A walk by a list takes code that came later for what was there, also where the same is mapped elsewhere still.
func TestMoved(t *testing.T) {
	first, second := &File{Path: "/first", key: FileKey{Inode: 1}}, &File{Path: "/second", key: FileKey{Inode: 2}}
	p := &Process{begun: 2}
	p.table.replace([]Mapping{{Start: 0x8000, End: 0x9000, File: first}}, 2)
	p.table.insert(Mapping{Start: 0x1000, End: 0x3000, File: second, Since: 3})
	p.table.insert(Mapping{Start: 0x5000, End: 0x7000, File: second, Since: 4})
	p.table.insert(Mapping{Start: 0x2000, End: 0x3000, File: first, Since: 6})
	child := &Process{begun: 2, table: p.table.fork()}                          // walked by its parent's list
	p.table.insert(Mapping{Start: 0x5000, End: 0x7000, File: second, Since: 8}) // as text relocations do
	p.table.insert(Mapping{Start: 0x8000, End: 0x9000, File: second, Since: 1}) // before the exec
	for _, c := range []struct {
		file            *File
		off             objfile.FileOffset
		listed, sampled uint64
		want            bool
	}{
		{second, 0x1100, 4, 7, true},
		{second, 0x1100, 4, 5, false}, // not yet
		{second, 0x1100, 6, 7, false}, // the list tells of it
		{second, 0x0100, 4, 9, false}, // another page
		{first, 0x0100, 0, 9, false},  // another file, replaced before the exec
	} {
		if c.file == second && p.Holding(c.file, c.off, c.sampled) == nil {
			t.Errorf("%+v: not mapped at all", c)
		}
		if got := p.Moved(c.file, c.off, c.listed, c.sampled); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
		if got := child.Moved(c.file, c.off, c.listed, c.sampled); got != c.want {
			t.Errorf("%+v, forked: %t", c, got)
		}
	}
}

// Code of a file in the place of other code is told at once; what a JIT makes executable again is none, nor what lies elsewhere.
func TestReplaces(t *testing.T) {
	files := NewFiles()
	defer files.Close()
	table := NewTable(files, discardLog)
	p := &Process{PID: 7}
	p.table.insert(Mapping{Start: 0x1000, End: 0x3000, File: files.intern(FileKey{Inode: 1}, "/first")})
	p.table.insert(Mapping{Start: 0x5000, End: 0x6000, File: files.intern(FileKey{}, "//anon")})
	table.processes[7] = p
	at := func(start, end Address) Mapping { return Mapping{Start: start, End: end, Since: 9} }
	for _, c := range []struct {
		event Event
		want  bool
	}{
		{Event{Kind: EventMmap, PID: 7, Mapping: at(0x2000, 0x4000), File: FileKey{Inode: 2}, Name: "/second"}, true},
		{Event{Kind: EventMmap, PID: 7, Mapping: at(0x5000, 0x6000), File: FileKey{Inode: 2}, Name: "/second"}, true},
		{Event{Kind: EventMmap, PID: 7, Mapping: at(0x3000, 0x5000), File: FileKey{Inode: 2}, Name: "/second"}, false},
		{Event{Kind: EventMmap, PID: 7, Mapping: at(0x5000, 0x6000), Name: "//anon"}, false},
		{Event{Kind: EventMmap, PID: 8, Mapping: at(0x2000, 0x4000), File: FileKey{Inode: 2}, Name: "/second"}, false},
		{Event{Kind: EventExit, PID: 7, Mapping: at(0x2000, 0x4000), File: FileKey{Inode: 2}, Name: "/second"}, false},
	} {
		if got := table.Replaces(&c.event); got != c.want {
			t.Errorf("%+v: %t", c.event, got)
		}
	}
}
