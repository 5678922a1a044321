package pclntab

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// A variant is a way to build testdata/oracle.
type variant struct {
	name      string
	toolchain string   // GOTOOLCHAIN; "": the one that runs the test
	goarch    string   // "": the host's
	cgo       bool     // needs gcc
	args      []string // of go build
	edit      func(t testing.TB, elf []byte)
}

// variants are built by the toolchain that runs the test.
var variants = []variant{
	{name: "default"},
	{name: "stripped", args: []string{"-ldflags=-s -w"}},
	{name: "sectionless", args: []string{"-ldflags=-s -w"}, edit: dropSections},
	{name: "pie", args: []string{"-buildmode=pie"}},
	{name: "pie-stripped", args: []string{"-buildmode=pie", "-ldflags=-s -w"}},
	{name: "pie-sectionless", args: []string{"-buildmode=pie", "-ldflags=-s -w"}, edit: dropSections},
	{name: "trimpath", args: []string{"-trimpath"}},
	{name: "no-inlining", args: []string{"-gcflags=all=-l"}},
	{name: "unoptimized", args: []string{"-gcflags=all=-N -l"}},
	{name: "cgo", cgo: true, args: []string{"-tags=withcgo"}},
	{name: "cgo-internal", cgo: true, args: []string{"-tags=withcgo", "-ldflags=-linkmode=internal"}},
	{name: "cgo-external", cgo: true, args: []string{"-tags=withcgo", "-ldflags=-linkmode=external"}},
	{name: "cgo-external-static", cgo: true, args: []string{"-tags=withcgo", "-ldflags=-linkmode=external -extldflags=-static"}},
	{name: "cgo-external-pie", cgo: true, args: []string{"-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external"}},
	{name: "cgo-external-pie-stripped", cgo: true, args: []string{"-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external -s -w"}},
	{name: "cgo-external-pie-sectionless", cgo: true, args: []string{"-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external -s -w"}, edit: dropSections},
}

// olderVariants returns variants for each older toolchain in the module cache. One gets there by
// GOTOOLCHAIN=go1.18.10 go version.
func olderVariants(t *testing.T) []variant {
	t.Helper()
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(cache)), "golang.org/toolchain@v0.0.1-go1.*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []variant
	for _, dir := range dirs {
		_, version, _ := strings.Cut(filepath.Base(dir), "v0.0.1-")
		version = strings.Split(version, ".linux-")[0]
		out = append(out,
			variant{name: version, toolchain: version},
			variant{name: version + "-pie-sectionless", toolchain: version, args: []string{"-buildmode=pie", "-ldflags=-s -w"}, edit: dropSections},
			variant{name: version + "-cgo-external-pie", toolchain: version, cgo: true, args: []string{"-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external"}},
		)
	}
	return out
}

// needToolchain skips where building with it would download it.
func needToolchain(t *testing.T, version string) {
	t.Helper()
	if !slices.ContainsFunc(olderVariants(t), func(v variant) bool { return v.toolchain == version }) {
		t.Skipf("%s is not in the module cache", version)
	}
}

// build returns the path of the built program.
func (v variant) build(t testing.TB) string {
	t.Helper()
	if v.cgo {
		if _, err := exec.LookPath("gcc"); err != nil {
			t.Fatal("gcc is not installed; test/setup.sh installs it")
		}
	}
	dir, err := filepath.Abs("testdata/oracle")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), v.name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, v.args...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if v.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	if v.goarch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+v.goarch)
	}
	if v.toolchain != "" {
		// Go 1.19 does not find its own packages by its index where it lies in the module cache.
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+v.toolchain, "GODEBUG=goindex=0")
	}
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, msg)
	}
	if v.edit != nil {
		data := readFile(t, out)
		v.edit(t, data)
		if err := os.WriteFile(out, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// dropSections makes an ELF file as sstrip leaves it: the header names no section headers.
func dropSections(t testing.TB, elf []byte) {
	const shoff, shnum, shstrndx = 0x28, 0x3c, 0x3e
	binary.LittleEndian.PutUint64(elf[shoff:], 0)
	binary.LittleEndian.PutUint16(elf[shnum:], 0)
	binary.LittleEndian.PutUint16(elf[shstrndx:], 0)
	if f := parse(t, elf); len(f.Sections()) != 0 {
		t.Fatal("sections are still there")
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, elf []byte) *objfile.File {
	t.Helper()
	f, err := objfile.Parse(bytes.NewReader(elf), int64(len(elf)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// openPath reads the file as the agent does, not from memory.
func openPath(t testing.TB, path string) *Table {
	t.Helper()
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	info, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Parse(r, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(f)
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	return table
}
