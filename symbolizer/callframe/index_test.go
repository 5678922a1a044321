package callframe_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/callframe"
	"github.com/pilotlight/pilotlight/symbolizer/internal/elftest"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A stretch is a function's code, as readelf reads .eh_frame.
type stretch struct{ start, end uint64 }

func readelf(t *testing.T, path string) []stretch {
	t.Helper()
	var all []stretch
	eh := false
	for line := range strings.Lines(elftest.Run(t, "readelf", "--debug-dump=frames,no-follow-links", path)) {
		if strings.HasPrefix(line, "Contents of the ") {
			eh = strings.Contains(line, ".eh_frame")
		}
		_, pcs, ok := strings.Cut(line, " pc=")
		if !ok || !eh || !strings.Contains(line, " FDE ") {
			continue
		}
		from, to, _ := strings.Cut(strings.TrimSpace(pcs), "..")
		start, err := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err != nil || err2 != nil {
			t.Fatalf("%s: %q", path, line)
		}
		if end > start {
			all = append(all, stretch{start, end})
		}
	}
	return all
}

// Every function of 25 libraries and of programs of each way of linking is found by its first and its last byte, and code beyond it is not taken for it.
func TestAgainstReadelf(t *testing.T) {
	files := elftest.Libraries(t)
	for _, v := range elftest.Variants() {
		if v.Name == "static" || strings.Contains(strings.Join(v.Args, " "), "-fno-asynchronous-unwind-tables") {
			continue // gcc asks the linker for no table, or there is nothing to put into it
		}
		files = append(files, elftest.Compile(t, elftest.Source, v.Args...))
	}
	functions, gaps := 0, 0
	for _, path := range files {
		r, size := elftest.Open(t, path)
		f, err := objfile.Parse(r, size)
		if err != nil {
			t.Fatal(err)
		}
		index, err := callframe.NewIndex(f)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		all := readelf(t, path)
		if len(all) == 0 {
			t.Errorf("%s: readelf shows no function", path)
		}
		covered := map[uint64]bool{} // ends at which another function starts or goes on
		for _, s := range all {
			covered[s.start] = true
		}
		for _, s := range all {
			for _, a := range []uint64{s.start, s.start + (s.end-s.start)/2, s.end - 1} {
				start, length, err := index.Lookup(objfile.Address(a))
				if err != nil || uint64(start) != s.start || length != s.end-s.start {
					t.Errorf("%s: %#x is in %#x+%#x, %v; readelf: %#x..%#x", filepath.Base(path), a, uint64(start), length, err, s.start, s.end)
				}
			}
			functions++
			if covered[s.end] {
				continue
			}
			gaps++
			if start, length, err := index.Lookup(objfile.Address(s.end)); err != nil || length > 0 && uint64(start) <= s.start {
				t.Errorf("%s: %#x, the end of %#x, is in %#x+%#x, %v", filepath.Base(path), s.end, s.start, uint64(start), length, err)
			}
		}
	}
	t.Logf("%d functions, %d of them with something else behind", functions, gaps)
	if functions < 10000 || gaps < 100 {
		t.Errorf("%d functions and %d gaps compared", functions, gaps)
	}
}

// A file without section headers is read the same way, as the program does; one without the table says so.
func TestWithoutSections(t *testing.T) {
	path := elftest.Compile(t, elftest.Source)
	b := elftest.WithoutSectionHeaders(t, path)
	f, err := objfile.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	index, err := callframe.NewIndex(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range readelf(t, path) {
		if start, _, err := index.Lookup(objfile.Address(s.end - 1)); err != nil || uint64(start) != s.start {
			t.Errorf("%#x..%#x: %#x, %v", s.start, s.end, uint64(start), err)
		}
	}
	segments, sections := elftest.Text()
	bare := elftest.Image{Segments: segments, Sections: sections}.Bytes()
	f, err = objfile.Parse(bytes.NewReader(bare), int64(len(bare)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := callframe.NewIndex(f); err != callframe.ErrNone {
		t.Errorf("a file without a table: %v", err)
	}
}

// Whatever the table says, a look-up ends, and what it answers holds the address.
func FuzzIndex(f *testing.F) {
	le := binary.LittleEndian
	// At 0x400: a header of one function, its FDE at 0x440 and that one's CIE at 0x420.
	table := []byte{1, 0x1b, 0x03, 0x3b}
	for _, word := range []uint32{0x1c, 1, 0x100, 0x40} {
		table = le.AppendUint32(table, word)
	}
	table = append(table, make([]byte, 0x20-len(table))...)
	table = append(table, "\x18\x00\x00\x00\x00\x00\x00\x00\x01zR\x00\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\x00\x00\x00\x00\x00\x00"...)
	table = append(table, make([]byte, 0x40-len(table))...)
	for _, word := range []uint32{0x10, 0x24, 0x100 - 0x48, 0x20, 0} {
		table = le.AppendUint32(table, word)
	}
	image := func(table []byte) []byte {
		segments, sections := elftest.Text()
		segments = append(segments, elf.ProgHeader{Type: elf.PT_GNU_EH_FRAME, Off: 0x400, Vaddr: 0x400, Filesz: uint64(len(table)), Memsz: uint64(len(table))})
		return elftest.Image{Segments: segments, Sections: sections, Contents: map[uint64][]byte{0x400: table}}.Bytes()
	}
	look := func(t testing.TB, table []byte, a objfile.Address) (objfile.Address, uint64, bool) {
		b := image(table)
		file, err := objfile.Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		index, err := callframe.NewIndex(file)
		if err != nil {
			return 0, 0, false
		}
		start, length, err := index.Lookup(a)
		return start, length, err == nil && length > 0
	}
	if start, length, ok := look(f, table, 0x510); !ok || start != 0x500 || length != 0x20 {
		f.Fatalf("the table to start from: %#x+%#x, %v", uint64(start), length, ok)
	}
	f.Add(table, uint64(0x510))
	f.Fuzz(func(t *testing.T, table []byte, a uint64) {
		if len(table) > elftest.ContentSize-0x400 {
			return
		}
		if start, length, ok := look(t, table, objfile.Address(a)); ok && (a < uint64(start) || a-uint64(start) >= length) {
			t.Errorf("%#x is in %#x+%#x", a, uint64(start), length)
		}
	})
}
