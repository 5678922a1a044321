package objfile_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/internal/elftest"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func parse(t testing.TB, path string) *objfile.File {
	t.Helper()
	r, size := elftest.Open(t, path)
	f, err := objfile.Parse(r, size)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func parseBytes(b []byte) (*objfile.File, error) {
	return objfile.Parse(bytes.NewReader(b), int64(len(b)))
}

func TestSystemLibrariesAgreeWithDebugELF(t *testing.T) {
	for _, path := range elftest.Libraries(t) {
		t.Run(filepath.Base(path), func(t *testing.T) { compareWithDebugELF(t, path) })
	}
}

func TestLinkVariantsAgreeWithDebugELF(t *testing.T) {
	for _, v := range elftest.Variants() {
		t.Run(v.Name, func(t *testing.T) {
			path := elftest.Compile(t, elftest.Source, append(v.Args, "-g")...)
			compareWithDebugELF(t, path)
			elftest.Run(t, "objcopy", "--only-keep-debug", path, path+".debug")
			compareWithDebugELF(t, path+".debug")
			for _, how := range []string{"zlib", "zstd"} {
				elftest.Run(t, "objcopy", "--compress-debug-sections="+how, path+".debug", path+"."+how)
				compareWithDebugELF(t, path+"."+how)
				if s, ok := parse(t, path+"."+how).Section(".debug_info"); !ok || s.Flags&objfile.SHF_COMPRESSED == 0 {
					t.Errorf("%s: .debug_info is not compressed: %+v", how, s)
				}
			}
			elftest.Run(t, "strip", path)
			compareWithDebugELF(t, path)
		})
	}
}

func compareWithDebugELF(t *testing.T, path string) {
	t.Helper()
	f := parse(t, path)
	want, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if uint16(f.Machine()) != uint16(want.Machine) || uint16(f.Type()) != uint16(want.Type) || uint64(f.Entry()) != want.Entry {
		t.Errorf("got %v %v %#x, want %v %v %#x", f.Machine(), f.Type(), f.Entry(), want.Machine, want.Type, want.Entry)
	}
	if len(f.Segments()) != len(want.Progs) || len(f.Sections()) != len(want.Sections) || f.SectionsErr() != nil {
		t.Fatalf("%d segments, %d sections (%v), want %d, %d", len(f.Segments()), len(f.Sections()), f.SectionsErr(), len(want.Progs), len(want.Sections))
	}
	for i, s := range f.Segments() {
		got := elf.ProgHeader{Type: elf.ProgType(s.Type), Flags: elf.ProgFlag(s.Flags), Off: uint64(s.Off), Vaddr: uint64(s.Addr),
			Paddr: want.Progs[i].Paddr, Filesz: s.FileSize, Memsz: s.MemSize, Align: s.Align}
		if got != want.Progs[i].ProgHeader {
			t.Errorf("segment %d is %+v, want %+v", i, got, want.Progs[i].ProgHeader)
		}
	}
	for i, s := range f.Sections() {
		w := want.Sections[i]
		got := elf.SectionHeader{Name: s.Name, Type: elf.SectionType(s.Type), Flags: elf.SectionFlag(s.Flags), Addr: uint64(s.Addr),
			Offset: uint64(s.Off), Size: s.Size, Link: s.Link, Info: s.Info, Addralign: w.Addralign, Entsize: s.EntSize, FileSize: w.FileSize}
		header := w.SectionHeader
		header.Size = w.FileSize // it gives the size of what is inflated
		if got != header {
			t.Errorf("section %d is %+v, want %+v", i, got, header)
		}
		if w.Type == elf.SHT_NULL || w.Type == elf.SHT_NOBITS {
			continue
		}
		data, err := f.InflatedData(s, 64<<20)
		if wantData, _ := w.Data(); err != nil || !bytes.Equal(data, wantData) {
			t.Errorf("data of section %q differ, %v", s.Name, err)
		}
		// The code must be found at its address through the segments too.
		if w.Flags&elf.SHF_EXECINSTR != 0 && w.Size > 0 {
			if a, ok := f.AddressOf(s.Off + 1); !ok || a != s.Addr+1 {
				t.Errorf("%s: offset %#x is at %#x %v, want %#x", s.Name, s.Off+1, a, ok, s.Addr+1)
			}
			byAddress := make([]byte, len(data))
			if _, err := f.ReadAtAddress(byAddress, s.Addr); err != nil || !bytes.Equal(byAddress, data) {
				t.Errorf("%s: read at address %#x differs, %v", s.Name, s.Addr, err)
			}
		}
	}
}

func TestAddressOf(t *testing.T) {
	load := func(flags elf.ProgFlag, off, addr, size uint64) elf.ProgHeader {
		return elf.ProgHeader{Type: elf.PT_LOAD, Flags: flags, Off: off, Vaddr: addr, Filesz: size, Memsz: size, Align: 0x1000}
	}
	const rx, r, rw = elf.PF_R | elf.PF_X, elf.PF_R, elf.PF_R | elf.PF_W
	const none = ^objfile.Address(0)
	type want map[objfile.FileOffset]objfile.Address
	for _, test := range []struct {
		name     string
		machine  elf.Machine
		segments []elf.ProgHeader
		want     want
	}{
		{"separate code", elf.EM_X86_64, []elf.ProgHeader{load(r, 0, 0, 0x500), load(rx, 0x1000, 0x1000, 0x234), load(r, 0x2000, 0x2000, 0x100)},
			want{0x1000: 0x1000, 0x1233: 0x1233, 0x1fff: 0x1fff, 0x2000: 0x2000, 0x20ff: 0x20ff, 0x2100: none, 0x10: 0x10}},
		{"one page of the file mapped twice, as lld does", elf.EM_X86_64, []elf.ProgHeader{load(r, 0, 0, 0x5d0), load(rx, 0x5d0, 0x15d0, 0x200), load(rw, 0x7d0, 0x27d0, 0x80)},
			want{0x5d0: 0x15d0, 0x7cf: 0x17cf, 0x10: 0x1010, 0x7d0: 0x17d0, 0xfff: 0x1fff, 0x1000: none}},
		{"fixed address", elf.EM_X86_64, []elf.ProgHeader{load(rx, 0, 0x400000, 0x1000)}, want{0x10: 0x400010, 0x1000: none}},
		{"the nearer of two paddings", elf.EM_X86_64, []elf.ProgHeader{load(rx, 0x100, 0x10100, 0x100), load(rx, 0x800, 0x20800, 0x100)},
			want{0x150: 0x10150, 0x850: 0x20850, 0x210: 0x10210, 0x7f0: 0x207f0, 0x9ff: 0x209ff, 0: 0x10000}},
		{"padding never hides a segment", elf.EM_X86_64, []elf.ProgHeader{load(rx, 0x1000, 0x1000, 0x10), load(rx, 0x1010, 0x801010, 0x10)},
			want{0x100f: 0x100f, 0x1010: 0x801010, 0x1fff: 0x801fff}},
		{"no address below zero", elf.EM_X86_64, []elf.ProgHeader{load(rx, 0x800, 0x10, 0x10)}, want{0x7f8: 8, 0x7f0: 0, 0x7ef: none}},
		{"large pages on arm64", elf.EM_AARCH64, []elf.ProgHeader{load(rx, 0x10000, 0x10000, 0x10)}, want{0x1ffff: 0x1ffff, 0x20000: none}},
		{"not code", elf.EM_X86_64, []elf.ProgHeader{load(rw, 0x1000, 0x5000, 0x10)}, want{0x1008: 0x5008, 0x1010: none}},
		{"no segments", elf.EM_X86_64, nil, want{0: none}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := parseBytes(elftest.Image{Machine: test.machine, Segments: test.segments}.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			for off, want := range test.want {
				got, ok := f.AddressOf(off)
				if !ok {
					got = none
				}
				if got != want {
					t.Errorf("offset %#x is at %#x, want %#x", off, got, want)
				}
			}
		})
	}
}

// Code is where executable sections lie in executable segments, or these; no byte of it twice.
func TestCode(t *testing.T) {
	load := func(off, addr, size uint64) elf.ProgHeader {
		return elf.ProgHeader{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: off, Vaddr: addr, Filesz: size, Memsz: size, Align: 0x1000}
	}
	section := func(flags elf.SectionFlag, addr, size uint64) elf.SectionHeader {
		return elf.SectionHeader{Name: "s", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | flags, Addr: addr, Offset: addr, Size: size}
	}
	const x = elf.SHF_EXECINSTR
	one := []elf.ProgHeader{load(0x100, 0x1100, 0x800)}
	for name, c := range map[string]struct {
		segments []elf.ProgHeader
		sections []elf.SectionHeader
		want     []objfile.Extent
	}{
		"sections":              {one, []elf.SectionHeader{section(x, 0x1600, 0x80), section(0, 0x1100, 0x200), section(x, 0x1300, 0x100)}, []objfile.Extent{{0x300, 0x1300, 0x100}, {0x600, 0x1600, 0x80}}},
		"no executable section": {one, []elf.SectionHeader{section(0, 0x1100, 0x200)}, []objfile.Extent{{0x100, 0x1100, 0x800}}},
		"beyond the segment":    {one, []elf.SectionHeader{section(x, 0x1880, 0x1000), section(x, 0x80, 0x10), section(x, 1<<40, 0x10)}, []objfile.Extent{{0x880, 0x1880, 0x80}}},
		"an endless section":    {one, []elf.SectionHeader{section(x, 0x1200, math.MaxUint64)}, []objfile.Extent{{0x200, 0x1200, 0x700}}},
		"overlapping sections":  {one, []elf.SectionHeader{section(x, 0x1200, 0x100), section(x, 0x1200, 0x180), section(x, 0x1240, 0x20)}, []objfile.Extent{{0x200, 0x1200, 0x100}, {0x300, 0x1300, 0x80}}},
		"overlapping segments":  {[]elf.ProgHeader{load(0x100, 0x1100, 0x100), load(0x180, 0x5180, 0x100)}, nil, []objfile.Extent{{0x100, 0x1100, 0x100}, {0x200, 0x5200, 0x80}}},
		"nothing":               {nil, []elf.SectionHeader{section(x, 0x1200, 0x100)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseBytes(elftest.Image{Segments: c.segments, Sections: c.sections}.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Code(); !slices.Equal(got, c.want) {
				t.Errorf("%#x, want %#x", got, c.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	segments, sections := elftest.Text()
	good := elftest.Image{Segments: segments, Sections: sections}.Bytes()
	edit := func(off int, b ...byte) []byte {
		e := bytes.Clone(good)
		copy(e[off:], b)
		return e
	}
	for _, test := range []struct {
		name string
		file []byte
		want error
		text string
	}{
		{"empty", nil, objfile.ErrNotELF, "not an ELF file: at offset 0x0: starts with "},
		{"a script", []byte("#!/bin/sh\n"), objfile.ErrNotELF, "starts with 23 21 2f 62"},
		{"cut short", good[:40], objfile.ErrCorrupt, "40 of 64 bytes"},
		{"32-bit", edit(4, 1), objfile.ErrUnsupported, "at offset 0x4: class 1"},
		{"big endian", edit(5, 2), objfile.ErrUnsupported, "at offset 0x5"},
		{"other machine", edit(18, 243), objfile.ErrUnsupported, "machine 243"},
		{"relocatable", edit(16, 1), objfile.ErrUnsupported, "type 1"},
		{"program headers beyond the file", edit(32, 0, 0, 0, 0, 0, 0, 0, 0xff), objfile.ErrCorrupt, "program headers"},
		{"size of program headers", edit(54, 32), objfile.ErrCorrupt, "of 32 bytes"},
		{"too many program headers", edit(56, 0xfe, 0xff), objfile.ErrCorrupt, "65534 program headers, limit 1170"},
		{"segment wraps around", edit(64+16, bytes.Repeat([]byte{0xff}, 8)...), objfile.ErrCorrupt, "segment 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseBytes(test.file)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v: %s", err, test.want, test.text)
			}
			var detail *objfile.Error
			if !errors.As(err, &detail) {
				t.Errorf("%v has no offset", err)
			}
		})
	}
	// A file that shrank since its size was taken.
	if _, err := objfile.Parse(bytes.NewReader(good[:80]), int64(len(good))); !errors.Is(err, objfile.ErrCorrupt) {
		t.Errorf("got %v, want %v", err, objfile.ErrCorrupt)
	}
	readErr := errors.New("disk on fire")
	if _, err := objfile.Parse(brokenReader{readErr}, 1000); !errors.Is(err, readErr) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

// The kernel does not look at section headers, so bad ones are not the end.
func TestBadSectionHeaders(t *testing.T) {
	segments, sections := elftest.Text()
	good := elftest.Image{Segments: segments, Sections: sections}.Bytes()
	for name, edit := range map[string]func(b []byte){
		"beyond the file": func(b []byte) { b[47] = 0xff },
		"size":            func(b []byte) { b[58] = 1 },
		"too many":        func(b []byte) { b[61] = 0xff },
		"count in none":   func(b []byte) { clear(b[60:62]); b[47] = 0xff },
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good)
			edit(b)
			f, err := parseBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if f.Sections() != nil || !errors.Is(f.SectionsErr(), objfile.ErrCorrupt) {
				t.Errorf("%d sections, %v", len(f.Sections()), f.SectionsErr())
			}
			if a, ok := f.AddressOf(0x400); !ok || a != 0x400 {
				t.Errorf("offset 0x400 is at %#x %v", a, ok)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		f, err := parseBytes(elftest.Image{Segments: segments, NoSectionHeaders: true}.Bytes())
		if err != nil || f.Sections() != nil || f.SectionsErr() != nil {
			t.Errorf("%v, %v", err, f.SectionsErr())
		}
	})
	t.Run("names", func(t *testing.T) {
		b := bytes.Clone(good)
		b[62] = 77 // e_shstrndx
		f, err := parseBytes(b)
		if err != nil || len(f.Sections()) != 4 || f.SectionsErr() == nil {
			t.Errorf("%v, %d sections, %v", err, len(f.Sections()), f.SectionsErr())
		}
	})
}

// Counts that outgrow 16 bits stand in section 0.
func TestExtendedCounts(t *testing.T) {
	segments, sections := elftest.Text()
	b := elftest.Image{Segments: segments, Sections: sections}.Bytes()
	le := binary.LittleEndian
	zero := b[le.Uint64(b[40:]):]
	le.PutUint64(zero[32:], uint64(le.Uint16(b[60:])))
	le.PutUint32(zero[40:], uint32(le.Uint16(b[62:])))
	le.PutUint32(zero[44:], uint32(le.Uint16(b[56:])))
	copy(b[56:], "\xff\xff") // e_phnum
	copy(b[60:], "\x00\x00\xff\xff")
	f, err := parseBytes(b)
	if err != nil || f.SectionsErr() != nil {
		t.Fatal(err, f.SectionsErr())
	}
	if _, ok := f.Section(".text"); !ok || len(f.Segments()) != 1 || len(f.Sections()) != 4 {
		t.Errorf("%d segments, %d sections", len(f.Segments()), len(f.Sections()))
	}
}

func TestSectionData(t *testing.T) {
	f, err := parseBytes(elftest.Image{Sections: []elf.SectionHeader{
		{Name: "good", Type: elf.SHT_PROGBITS, Offset: 0x400, Size: 0x10},
		{Name: "bss", Type: elf.SHT_NOBITS, Size: 0x10},
		{Name: "compressed", Type: elf.SHT_PROGBITS, Flags: elf.SHF_COMPRESSED, Offset: 0x400, Size: 0x10},
		{Name: "beyond", Type: elf.SHT_PROGBITS, Offset: 0x400, Size: 1 << 62},
		{Name: "wraps", Type: elf.SHT_PROGBITS, Offset: 1 << 63, Size: 1 << 63},
	}}.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"good": nil, "bss": objfile.ErrNoBits, "compressed": objfile.ErrCompressed, "beyond": objfile.ErrCorrupt, "wraps": objfile.ErrCorrupt,
	} {
		s, ok := f.Section(name)
		if !ok {
			t.Fatalf("no section %s", name)
		}
		if _, err := f.SectionData(s, 0x10); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	s, _ := f.Section("good")
	if _, err := f.SectionData(s, 0xf); !errors.Is(err, objfile.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, objfile.ErrTooLarge)
	}
}

// compressed is a section that claims to inflate to size bytes.
func compressed(kind int, data string, size uint64) []byte {
	header := make([]byte, 24)
	binary.LittleEndian.PutUint32(header, uint32(kind))
	binary.LittleEndian.PutUint64(header[8:], size)
	return append(header, data...)
}

func TestInflatedData(t *testing.T) {
	const zlib, zstd = 1, 2
	const abc = "\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"
	for name, c := range map[string]struct {
		content []byte
		max     int
		want    error
	}{
		"good":                {compressed(zlib, abc, 3), 64, nil},
		"more than it claims": {compressed(zlib, abc, 2), 64, nil},
		"less than it claims": {compressed(zlib, abc, 4), 64, objfile.ErrCorrupt},
		"a bomb":              {compressed(zlib, abc, 1<<40), 64, objfile.ErrTooLarge},
		"large itself":        {compressed(zlib, abc, 3), 16, objfile.ErrTooLarge},
		"other bytes":         {compressed(zlib, "abc", 3), 64, objfile.ErrCorrupt},
		"other bytes, zstd":   {compressed(zstd, "abc", 3), 64, objfile.ErrCorrupt},
		"unknown":             {compressed(7, abc, 3), 64, objfile.ErrUnsupported},
		"no header":           {[]byte("abc"), 64, objfile.ErrCorrupt},
	} {
		f, err := parseBytes(elftest.Image{
			Sections: []elf.SectionHeader{{Name: "s", Type: elf.SHT_PROGBITS, Flags: elf.SHF_COMPRESSED, Offset: 0x400, Size: uint64(len(c.content))}},
			Contents: map[uint64][]byte{0x400: c.content},
		}.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		s, _ := f.Section("s")
		data, err := f.InflatedData(s, c.max)
		if !errors.Is(err, c.want) || c.want == nil && !strings.HasPrefix("abc", string(data)) {
			t.Errorf("%s: got %q, %v, want %v", name, data, err, c.want)
		}
	}
}

func TestReadAtAddress(t *testing.T) {
	f, err := parseBytes(elftest.Image{
		Segments: []elf.ProgHeader{
			{Type: elf.PT_LOAD, Off: 0x400, Vaddr: 0x8400, Filesz: 4, Memsz: 0x100},
			{Type: elf.PT_LOAD, Off: 1 << 40, Vaddr: 0x9000, Filesz: 4, Memsz: 4},
		},
		Contents: map[uint64][]byte{0x400: []byte("code and more")},
	}.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if n, err := f.ReadAtAddress(b, 0x8400); n != 4 || err != nil || string(b) != "code" {
		t.Errorf("got %q %d %v", b, n, err)
	}
	if n, err := f.ReadAtAddress(b, 0x8402); n != 2 || !errors.Is(err, objfile.ErrNotMapped) {
		t.Errorf("got %d %v: memory beyond the file's bytes", n, err)
	}
	if n, err := f.ReadAtAddress(b, 0x8404); n != 0 || !errors.Is(err, objfile.ErrNotMapped) {
		t.Errorf("got %d %v: memory without bytes", n, err)
	}
	if n, err := f.ReadAtAddress(b, 0x9000); n != 0 || !errors.Is(err, objfile.ErrCorrupt) {
		t.Errorf("got %d %v: segment beyond the file", n, err)
	}
}

func TestIdentity(t *testing.T) {
	path := elftest.Compile(t, elftest.Source, "-Wl,--build-id=0x0123456789abcdef")
	const want = "0123456789abcdef"
	check := func(path string) {
		t.Helper()
		if got := hex.EncodeToString(parse(t, path).BuildID()); got != want {
			t.Errorf("%s: build id %q, want %q", filepath.Base(path), got, want)
		}
	}
	check(path)
	if _, _, ok := parse(t, path).DebugLink(); ok {
		t.Error("debug link of a whole file")
	}

	debug := filepath.Join(filepath.Dir(path), "prog.debug")
	elftest.Run(t, "objcopy", "--only-keep-debug", path, debug)
	elftest.Run(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, path)
	check(path)
	check(debug)
	b, err := os.ReadFile(debug)
	if err != nil {
		t.Fatal(err)
	}
	name, crc, ok := parse(t, path).DebugLink()
	if name != "prog.debug" || crc != crc32.ChecksumIEEE(b) || !ok {
		t.Errorf("debug link %q %#x %v", name, crc, ok)
	}
	if id := parse(t, elftest.Compile(t, elftest.Source, "-Wl,--build-id=none")).BuildID(); id != nil {
		t.Errorf("build id %x of a file without", id)
	}
}

// What head, tail and sha256sum make of a file.
func TestEndsHash(t *testing.T) {
	for _, size := range []int64{0, 1, 4095, 4096, 5000, 1 << 20} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i>>8 + i)
		}
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		octal := fmt.Sprintf(`\0\0\0\0\0\%o\%o\%o`, size>>16&0xff, size>>8&0xff, size&0xff)
		want := elftest.Run(t, "sh", "-c", `{ head -c 4096 "$1"; tail -c 4096 "$1"; printf "$2"; } | sha256sum | head -c 32`, "sh", path, octal)
		got, err := objfile.EndsHash(bytes.NewReader(content), size)
		if hex.EncodeToString(got) != want || err != nil {
			t.Errorf("%d bytes: %x, %v, want %s", size, got, err, want)
		}
	}
	if hash, err := objfile.EndsHash(bytes.NewReader(make([]byte, 100)), 5000); !errors.Is(err, objfile.ErrCorrupt) {
		t.Errorf("a file that shrank: %x, %v", hash, err)
	}
}

func TestGoBuildID(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\nfunc main() {}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "prog")
	elftest.Run(t, "go", "build", "-ldflags=-s -w", "-o", path, source)
	want := strings.TrimSpace(elftest.Run(t, "go", "tool", "buildid", path))
	if got := parse(t, path).GoBuildID(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := parse(t, elftest.Libraries(t)[0]).GoBuildID(); got != "" {
		t.Errorf("libc has Go build id %q", got)
	}
}

func TestDebugLinkNames(t *testing.T) {
	for content, want := range map[string]string{
		"a.debug\x00\x01\x02\x03\x04":      "a.debug",
		"ab\x00\x00\x01\x02\x03\x04":       "ab",
		"ab\x00\x00\x01\x02\x03":           "",
		"no end":                           "",
		"\x00\x00\x00\x00\x01\x02\x03\x04": "",
		"../a\x00\x00\x00\x00abcd":         "",
		"..\x00\x00abcd":                   "",
	} {
		f, err := parseBytes(elftest.Image{
			Sections: []elf.SectionHeader{{Name: ".gnu_debuglink", Type: elf.SHT_PROGBITS, Offset: 0x800, Size: uint64(len(content))}},
			Contents: map[uint64][]byte{0x800: []byte(content)},
		}.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if name, _, ok := f.DebugLink(); name != want || ok != (want != "") {
			t.Errorf("%q: got %q %v, want %q", content, name, ok, want)
		}
	}
}

// Whatever the bytes: no panic, a File of bounded size, and reads that stay in the file.
func FuzzParse(f *testing.F) {
	segments, sections := elftest.Text()
	note := []byte("\x04\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00GNU\x0001234567")
	f.Add(elftest.Image{
		Segments: append(segments, elf.ProgHeader{Type: elf.PT_NOTE, Off: 0x800, Filesz: uint64(len(note))}),
		Sections: append(sections, elf.SectionHeader{Name: ".gnu_debuglink", Type: elf.SHT_PROGBITS, Offset: 0x900, Size: 12}),
		Contents: map[uint64][]byte{0x800: note, 0x900: []byte("a.debug\x00abcd")},
	}.Bytes(), uint64(0x400))
	f.Add(elftest.Image{Machine: elf.EM_AARCH64, Segments: segments, NoSectionHeaders: true}.Bytes(), uint64(0xfff))
	for kind := range 3 {
		f.Add(elftest.Image{
			Sections: []elf.SectionHeader{{Name: ".debug_frame", Type: elf.SHT_PROGBITS, Flags: elf.SHF_COMPRESSED, Offset: 0x800, Size: 0x40}},
			Contents: map[uint64][]byte{0x800: compressed(kind, "\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27", 3)},
		}.Bytes(), uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint64) {
		file, err := parseBytes(b)
		if err != nil {
			if !errors.Is(err, objfile.ErrNotELF) && !errors.Is(err, objfile.ErrUnsupported) && !errors.Is(err, objfile.ErrCorrupt) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if len(file.Segments())*56 > len(b) || len(file.Sections())*64 > len(b) {
			t.Errorf("%d segments, %d sections in %d bytes", len(file.Segments()), len(file.Sections()), len(b))
		}
		for i, s := range file.Sections() {
			if i < 8 { // each starts a decompressor
				if inflated, err := file.InflatedData(s, len(b)); err == nil && len(inflated) > len(b) {
					t.Errorf("%d bytes inflated, limit %d", len(inflated), len(b))
				}
			}
			data, err := file.SectionData(s, len(b)/2)
			if err == nil && (uint64(len(data)) != s.Size || len(data) > len(b)/2) {
				t.Errorf("%d bytes of section %+v", len(data), s)
			}
		}
		if len(file.BuildID()) > 64 || len(file.GoBuildID()) > 256 {
			t.Error("endless build id")
		}
		if name, _, ok := file.DebugLink(); ok && (name == "" || strings.ContainsAny(name, "/\x00")) {
			t.Errorf("debug link %q", name)
		}
		// An address may have no bytes in the file (page padding), but then says so.
		if a, ok := file.AddressOf(objfile.FileOffset(at)); ok {
			var got [1]byte
			n, err := file.ReadAtAddress(got[:], a)
			if n == 1 != (err == nil) {
				t.Errorf("read %d, %v", n, err)
			}
		}
	})
}
