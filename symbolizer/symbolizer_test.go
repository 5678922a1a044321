package symbolizer_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer"
	"github.com/pilotlight/pilotlight/symbolizer/internal/elftest"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

func open(t testing.TB, path string, o symbolizer.Options) *symbolizer.Image {
	t.Helper()
	r, size := elftest.Open(t, path)
	m, err := symbolizer.Open(r, size, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// noDebug leaves the files of the host out of a test.
var noDebug = symbolizer.Options{DebugDirs: []string{}}

// truth is what the program says of itself: function names by the file offsets that the
// kernel mapped them from.
type truth map[objfile.FileOffset]string

func run(t *testing.T, path string) truth {
	t.Helper()
	want := truth{}
	for line := range strings.Lines(elftest.Run(t, path)) {
		name, hex, _ := strings.Cut(strings.TrimSpace(line), " ")
		off, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		want[objfile.FileOffset(off)] = name
	}
	if len(want) != 10 {
		t.Fatalf("%s told %d functions", path, len(want))
	}
	return want
}

func (want truth) check(t *testing.T, m *symbolizer.Image) {
	t.Helper()
	if len(m.Problems()) > 0 {
		t.Errorf("problems: %v", m.Problems())
	}
	for off, name := range want {
		frames, ok := m.Lookup(off)
		if !ok || len(frames) != 1 || frames[0] != (symbolizer.Frame{Function: name}) {
			t.Errorf("%#x is %+v, want %s", off, frames, name)
		}
	}
}

// checkNone wants none of the names that only .symtab has.
func (want truth) checkNone(t *testing.T, m *symbolizer.Image) {
	t.Helper()
	for off, name := range want {
		if frames, ok := m.Lookup(off); ok {
			t.Errorf("%#x (%s) is %+v, want no name", off, name, frames)
		}
	}
}

func TestLinkVariants(t *testing.T) {
	for _, v := range elftest.Variants() {
		t.Run(v.Name, func(t *testing.T) {
			path := elftest.Compile(t, elftest.Source, v.Args...)
			want := run(t, path)
			m := open(t, path, noDebug)
			want.check(t, m)
			if m.Kind() != symbolizer.KindNative || !m.HasSymbols() {
				t.Errorf("kind %v", m.Kind())
			}
			for off := range want { // the truth ends with the file
				if _, ok := m.Lookup(off + 1<<40); ok {
					t.Errorf("%#x has a name", off+1<<40)
				}
			}
		})
	}
}

// split moves the symbols of the file at path to path.debug, and adds a link to it.
func split(t *testing.T, path string) (debug string) {
	t.Helper()
	debug = path + ".debug"
	elftest.Run(t, "objcopy", "--only-keep-debug", path, debug)
	elftest.Run(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, path)
	return debug
}

func place(t *testing.T, from string, to ...string) {
	t.Helper()
	path := filepath.Join(to...)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, path); err != nil {
		t.Fatal(err)
	}
}

func TestDebugFileByBuildID(t *testing.T) {
	for _, v := range elftest.Variants() {
		if v.Name == "no build id" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			path := elftest.Compile(t, elftest.Source, v.Args...)
			want := run(t, path)
			debug, dir := split(t, path), t.TempDir()
			id := open(t, path, noDebug).BuildID()
			place(t, debug, dir, ".build-id", id[:2], id[2:]+".debug")
			want.check(t, open(t, path, symbolizer.Options{DebugDirs: []string{t.TempDir(), dir}}))
		})
	}
}

func TestDebugFileByLink(t *testing.T) {
	for _, buildID := range []string{"-Wl,--build-id=none", "-Wl,--build-id=sha1"} {
		for _, where := range []string{"beside", ".debug", "debug dir", "debug dir without path"} {
			t.Run(buildID+" "+where, func(t *testing.T) {
				path := elftest.Compile(t, elftest.Source, buildID)
				want := run(t, path)
				debug, dir := split(t, path), t.TempDir()
				o := symbolizer.Options{Path: path, DebugDirs: []string{dir}}
				name := filepath.Base(debug)
				switch where {
				case ".debug":
					place(t, debug, filepath.Dir(path), ".debug", name)
				case "debug dir":
					place(t, debug, dir, filepath.Dir(path), name)
				case "debug dir without path":
					place(t, debug, dir, name)
					o.Path = ""
				}
				want.check(t, open(t, path, o))
			})
		}
	}
}

func TestDebugFileThatDoesNotMatch(t *testing.T) {
	path := elftest.Compile(t, elftest.Source, "-Wl,--build-id=0x0123456789")
	want := run(t, path)
	debug := split(t, path)
	dir := t.TempDir()
	o := symbolizer.Options{Path: path, DebugDirs: []string{dir}}

	// Another build's file in the place of the build id, and a byte too much behind the link.
	other := elftest.Compile(t, elftest.Source, "-Wl,--build-id=0x9876543210")
	place(t, other, dir, ".build-id", "01", "23456789.debug")
	f, err := os.OpenFile(debug, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte{0})
	f.Close()

	m := open(t, path, o)
	want.checkNone(t, m)
	problems := errors.Join(m.Problems()...).Error()
	if len(m.Problems()) != 2 || !strings.Contains(problems, `build id "9876543210", want "0123456789"`) || !strings.Contains(problems, "CRC") {
		t.Errorf("problems: %v", problems)
	}
}

// A FIFO in the place of the debug file must not hang Open, nor a file that is no ELF file end it.
func TestDebugFileThatIsNone(t *testing.T) {
	path := elftest.Compile(t, elftest.Source, "-Wl,--build-id=0x0123456789")
	debug, dir := split(t, path), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".build-id/01"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, ".build-id/01/23456789.debug"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(debug); err != nil {
		t.Fatal(err)
	}
	m := open(t, path, symbolizer.Options{Path: path, DebugDirs: []string{dir}})
	if len(m.Problems()) != 1 || !strings.Contains(m.Problems()[0].Error(), "not a regular file") {
		t.Errorf("problems: %v", m.Problems())
	}
}

// Every debug file that is opened is closed, and a file with .symtab asks for none.
func TestOpenDebug(t *testing.T) {
	path := elftest.Compile(t, elftest.Source, "-Wl,--build-id=0x0123456789")
	want := run(t, path)
	var asked []string
	opened, closed := 0, 0
	debug := ""
	o := symbolizer.Options{
		Path: "/opt/prog",
		OpenDebug: func(path string) (io.ReaderAt, int64, io.Closer, error) {
			asked = append(asked, path)
			if path != "/opt/.debug/prog.debug" {
				return nil, 0, nil, fs.ErrNotExist
			}
			opened++
			b, err := os.ReadFile(debug)
			return bytes.NewReader(b), int64(len(b)), closer(func() { closed++ }), err
		},
	}
	want.check(t, open(t, path, o))
	if asked != nil {
		t.Errorf("a whole file asked for %v", asked)
	}
	debug = split(t, path)
	want.check(t, open(t, path, o))
	if got := strings.Join(asked, " "); got != "/usr/lib/debug/.build-id/01/23456789.debug /opt/prog.debug /opt/.debug/prog.debug" {
		t.Errorf("asked for %s", got)
	}
	if opened != 1 || closed != 1 {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
}

type closer func()

func (c closer) Close() error { c(); return nil }

func TestStripped(t *testing.T) {
	path := elftest.Compile(t, elftest.Source, "-rdynamic")
	want := run(t, path)
	elftest.Run(t, "strip", path)
	m := open(t, path, noDebug)
	for off, name := range want {
		frames, ok := m.Lookup(off)
		if name == "hidden" {
			if ok {
				t.Errorf("static function is %+v", frames)
			}
		} else if !ok || frames[0].Function != name {
			t.Errorf("%#x is %+v, want %s", off, frames, name)
		}
	}
}

func buildGo(t *testing.T, source string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "prog")
	elftest.Run(t, "go", append(append([]string{"build", "-o", path}, args...), filepath.Join(dir, "main.go"))...)
	return path
}

const goSource = `package main

//go:noinline
func leaf(x int) int { return x + 1 }

func main() { println(leaf(1)) }
`

const cgoSource = `package main

/*
__attribute__((noinline)) int in_c(int x) { return x * 7; }
*/
import "C"

//go:noinline
func leaf(x int) int { return x + int(C.in_c(1)) }

func main() { println(leaf(1)) }
`

func TestGo(t *testing.T) {
	for _, test := range []struct {
		name, source, ldflags string
		kind                  symbolizer.Kind
		want                  []string
	}{
		{"whole", goSource, "", symbolizer.KindGo, []string{"main.leaf", "main.main"}},
		{"stripped", goSource, "-s -w", symbolizer.KindGo, []string{"main.leaf", "main.main"}},
		{"cgo", cgoSource, "", symbolizer.KindGo | symbolizer.KindNative, []string{"main.leaf", "in_c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := buildGo(t, test.source)
			at := offsets(t, path, test.want)
			if test.ldflags != "" {
				path = buildGo(t, test.source, "-ldflags="+test.ldflags)
			}
			m := open(t, path, noDebug)
			if m.Kind() != test.kind || len(m.Problems()) > 0 {
				t.Errorf("kind %v, want %v; problems %v", m.Kind(), test.kind, m.Problems())
			}
			for _, name := range test.want {
				frames, ok := m.Lookup(at[name])
				if !ok || frames[len(frames)-1].Function != name {
					t.Errorf("%#x is %+v, want %s", at[name], frames, name)
					continue
				}
				if f := frames[0]; strings.HasPrefix(name, "main.") && (filepath.Base(f.File) != "main.go" || f.Line == 0 || f.StartLine == 0) {
					t.Errorf("%s has no line: %+v", name, f)
				}
			}
		})
	}
}

// offsets returns the file offsets of functions, by debug/elf.
func offsets(t *testing.T, path string, names []string) map[string]objfile.FileOffset {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]objfile.FileOffset{}
	for _, s := range symbols {
		for _, name := range names {
			if base, _, _ := strings.Cut(s.Name, "."); s.Name == name || base == name {
				in := f.Sections[s.Section]
				at[name] = objfile.FileOffset(s.Value - in.Addr + in.Offset)
			}
		}
	}
	if len(at) != len(names) {
		t.Fatalf("offsets of %v: %v", names, at)
	}
	return at
}

func TestConcurrentLookups(t *testing.T) {
	for _, path := range []string{elftest.Libraries(t)[0], buildGo(t, goSource)} {
		m := open(t, path, noDebug)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for off := objfile.FileOffset(0x1000 * i); off < 0x80000; off += 13 {
					m.Lookup(off)
				}
			})
		}
		wg.Wait()
	}
}

func TestOpenRefuses(t *testing.T) {
	_, err := symbolizer.Open(strings.NewReader("#!/bin/sh\n"), 10, noDebug)
	if !errors.Is(err, objfile.ErrNotELF) {
		t.Errorf("got %v", err)
	}
	m, err := symbolizer.Open(bytes.NewReader(nameless()), int64(len(nameless())), noDebug)
	if err != nil || m.HasSymbols() || m.Kind() != 0 || m.BuildID() != "" {
		t.Errorf("a file without names: %v %+v", err, m)
	}
	if _, ok := m.Lookup(0x400); ok {
		t.Error("a name from nowhere")
	}
}

func nameless() []byte {
	segments, sections := elftest.Text()
	return elftest.Image{Segments: segments, Sections: sections}.Bytes()
}

// linked is a file with a build id, a debug link and one exported function.
func linked() []byte {
	segments, sections := elftest.Text()
	note := []byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\x01\x02\x03\x04")
	return elftest.Image{
		Segments:    append(segments, elf.ProgHeader{Type: elf.PT_NOTE, Off: 0x200, Filesz: uint64(len(note))}),
		Sections:    append(sections, elf.SectionHeader{Name: ".gnu_debuglink", Type: elf.SHT_PROGBITS, Offset: 0x300, Size: 12}),
		Contents:    map[uint64][]byte{0x200: note, 0x300: []byte("a.debug\x00abcd")},
		Symbols:     []elftest.Symbol{{Name: "f", Type: elf.STT_FUNC, Bind: elf.STB_GLOBAL, Section: 1, Value: 0x410, Size: 16}},
		SymbolsType: elf.SHT_DYNSYM,
	}.Bytes()
}

// Whatever the bytes of the file and of its debug file: no panic, memory in proportion, paths that stay
// in the debug directories, and no nameless frame.
func FuzzOpen(f *testing.F) {
	debug := func(b []byte) []byte { // the same with .symtab
		b = bytes.Clone(b)
		le := binary.LittleEndian
		for at := le.Uint64(b[40:]); at < uint64(len(b)); at += 64 {
			if le.Uint32(b[at+4:]) == objfile.SHT_DYNSYM {
				le.PutUint32(b[at+4:], objfile.SHT_SYMTAB)
			}
		}
		return b
	}
	f.Add(linked(), debug(linked()), uint64(0x410))
	f.Add(nameless(), []byte{}, uint64(0x400))
	f.Fuzz(func(t *testing.T, file, debug []byte, off uint64) {
		m, err := symbolizer.Open(bytes.NewReader(file), int64(len(file)), symbolizer.Options{
			Path: "/dir/prog",
			OpenDebug: func(path string) (io.ReaderAt, int64, io.Closer, error) {
				if filepath.Clean(path) != path || !strings.HasPrefix(path, "/usr/lib/debug/") && !strings.HasPrefix(path, "/dir/") {
					t.Errorf("asked for %q", path)
				}
				return bytes.NewReader(debug), int64(len(debug)), nil, nil
			},
		})
		if err != nil {
			return
		}
		if n := len(file) + len(debug); m.Bytes() > 256<<10+2*n+2*n*n {
			t.Errorf("%d bytes held for %d", m.Bytes(), n)
		}
		frames, ok := m.Lookup(objfile.FileOffset(off))
		if ok != (len(frames) > 0) || ok && !m.HasSymbols() {
			t.Errorf("%v %+v, has symbols: %v", ok, frames, m.HasSymbols())
		}
		for _, f := range frames {
			if f.Function == "" {
				t.Errorf("nameless frame in %+v", frames)
			}
		}
	})
}

func BenchmarkOpenLLVM(b *testing.B) {
	path := elftest.LLVM()
	if path == "" {
		b.Skip("no libLLVM")
	}
	for b.Loop() {
		b.ReportMetric(float64(open(b, path, noDebug).Bytes()), "B/image")
	}
}
