package spans

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const sources = "../../test/workloads/"

// build runs a compiler, and gives the file that it made.
func build(t testing.TB, command ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "built")
	compiler := exec.Command(command[0], command[1:]...)
	for i, arg := range compiler.Args {
		if arg == "OUT" {
			compiler.Args[i] = path
		}
	}
	if out, err := compiler.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", compiler, err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func find(t testing.TB, data []byte) (Source, error) {
	t.Helper()
	f, err := objfile.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return Find(f, nil)
}

// Each way to a thread-local variable, on both architectures. arm64's compiler makes descriptors by itself.
func TestFindThreadContext(t *testing.T) {
	amd64 := []string{"gcc", "-O2", "-pthread", sources + "spans.c", "-o", "OUT"}
	arm64 := []string{"aarch64-linux-gnu-gcc", "-O2", "-pthread", sources + "spans.c", "-o", "OUT"}
	library := []string{"-DCONTEXT", "-shared", "-fPIC"}
	for _, c := range []struct {
		name     string
		compiler []string
		flags    []string
		want     Source
	}{
		{"program", amd64, nil, Source{Kind: bpf.SpanSourceStatic, Offset: -8}},
		{"program, not moved", amd64, []string{"-no-pie", "-fno-pie"}, Source{Kind: bpf.SpanSourceStatic, Offset: -8}},
		{"module", amd64, library, Source{Kind: bpf.SpanSourceModule}},
		{"descriptor", amd64, append(library, "-mtls-dialect=gnu2"), Source{Kind: bpf.SpanSourceDescriptor}},
		{"slot", amd64, append(library, "-ftls-model=initial-exec"), Source{Kind: bpf.SpanSourceSlot}},
		{"module, symbol bound", amd64, append(library, "-Wl,-Bsymbolic"), Source{Kind: bpf.SpanSourceModule}},
		{"descriptor, symbol bound", amd64, append(library, "-mtls-dialect=gnu2", "-Wl,-Bsymbolic"), Source{Kind: bpf.SpanSourceDescriptor}},
		{"slot, symbol bound", amd64, append(library, "-ftls-model=initial-exec", "-Wl,-Bsymbolic"), Source{Kind: bpf.SpanSourceSlot}},
		{"arm64, program", arm64, nil, Source{Kind: bpf.SpanSourceStatic, Offset: 16}},
		{"arm64, descriptor", arm64, library, Source{Kind: bpf.SpanSourceDescriptor}},
		{"arm64, slot", arm64, append(library, "-ftls-model=initial-exec"), Source{Kind: bpf.SpanSourceSlot}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := find(t, build(t, append(append([]string{}, c.compiler...), c.flags...)...))
			if moved := c.want.Kind != bpf.SpanSourceStatic; moved != (got.Slot != 0) {
				t.Errorf("the slot is at %#x", got.Slot)
			}
			if got.Slot = 0; got != c.want || err != nil {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	if s, err := find(t, build(t, "gcc", "-O2", "-pthread", sources+"split.c", "-o", "OUT")); !errors.Is(err, ErrNone) {
		t.Errorf("a program without: %+v, %v", s, err)
	}
}

func TestFindGo(t *testing.T) {
	s, err := find(t, build(t, "go", "build", "-o", "OUT", sources+"gospans"))
	want := Source{Kind: bpf.SpanSourceGo, Offset: -8, M: 48, Curg: goLayouts[0].curg, Labels: goLayouts[0].labels}
	if runtime.GOARCH == "arm64" {
		want.Kind, want.Offset = bpf.SpanSourceGoRegister, 0
	}
	if s != want || err != nil {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
	// It sets no labels: none of its samples need be looked at.
	if s, err := find(t, build(t, "go", "build", "-o", "OUT", sources+"gosplit")); !errors.Is(err, ErrNone) {
		t.Errorf("a program without labels: %+v, %v", s, err)
	}
	t.Run("arm64", func(t *testing.T) {
		t.Setenv("GOARCH", "arm64")
		t.Setenv("CGO_ENABLED", "0")
		s, err := find(t, build(t, "go", "build", "-o", "OUT", sources+"gospans"))
		if s.Kind != bpf.SpanSourceGoRegister || s.Labels != want.Labels || err != nil {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// The layout of this release is what its DWARF says. Where the test may be long, those of others too; test/spans_test.go reads labels by them.
func TestGoLayouts(t *testing.T) {
	releases := []string{"local"}
	if os.Getenv("PILOTLIGHT_LONG") != "" {
		releases = append(releases, "go1.18.10", "go1.20.14", "go1.21.13", "go1.22.12", "go1.23.12", "go1.24.13", "go1.25.7")
	}
	source, err := os.ReadFile(sources + "gospans/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range releases {
		folder := t.TempDir()
		for name, text := range map[string][]byte{"main.go": source, "go.mod": []byte("module gospans\n\ngo 1.18\n")} {
			if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("GOTOOLCHAIN", release)
		t.Setenv("GOFLAGS", "")
		data := build(t, "go", "build", "-C", folder, "-o", "OUT", ".")
		s, err := find(t, data)
		if err != nil {
			t.Fatal(err)
		}
		places := goPlaces(t, data)
		_, isMap := places["runtime.hmap.buckets"]
		if int64(s.M) != places["runtime.g.m"] || int64(s.Curg) != places["runtime.m.curg"] || int64(s.Labels) != places["runtime.g.labels"] || (s.Flags == bpf.SpanGoMap) != isMap {
			t.Errorf("%s: %+v, and the DWARF has %v", release, s, places)
		}
	}
}

// goPlaces are where the members of the runtime's structs lie, as DWARF has them.
func goPlaces(t *testing.T, data []byte) map[string]int64 {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]int64)
	r := d.Reader()
	in := ""
	for e, err := r.Next(); e != nil; e, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		switch {
		case e.Tag == dwarf.TagStructType:
			in = name
		case e.Tag == 0:
			in = ""
		case e.Tag == dwarf.TagMember && (in == "runtime.g" || in == "runtime.m" || in == "runtime.hmap"):
			places[in+"."+name], _ = e.Val(dwarf.AttrDataMemberLoc).(int64)
		}
	}
	return places
}

func TestParseVersion(t *testing.T) {
	for version, want := range map[string]int{
		"go1.26.8": 26, "go1.18": 18, "go1.21rc2": 21, "go1.24-custom X:nodwarf5": 24, "devel go1.27-c4f2a1 Mon": 27,
		"": -1, "devel": -1, "go1.": -1, "go2.1": -1, "go1.x": -1, "go1.99999999999999999999": -1,
	} {
		got, err := parseVersion(version)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v; want %d", version, got, err, want)
		}
	}
}

// Whatever a file holds, Find ends, and what it finds lies where it can.
func FuzzFind(f *testing.F) {
	f.Add(build(f, "gcc", "-O2", "-s", "-DCONTEXT", "-shared", "-fPIC", "-nostdlib", sources+"spans.c", "-o", "OUT"))
	f.Add(build(f, "gcc", "-O2", "-s", "-DCONTEXT", "-shared", "-fPIC", "-nostdlib", "-mtls-dialect=gnu2", sources+"spans.c", "-o", "OUT"))
	f.Add(build(f, "gcc", "-O2", "-s", "-DCONTEXT", "-shared", "-fPIC", "-nostdlib", "-ftls-model=initial-exec", sources+"spans.c", "-o", "OUT"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := objfile.Parse(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		s, err := Find(file, nil)
		if (err == nil) != (s.Kind != bpf.SpanSourceNone) {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
