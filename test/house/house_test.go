// Package house holds the rules that the tree as a whole keeps.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/pilotlight/pilotlight"
)

// layers in the order of imports: each may import itself and what stands left of it.
var layers = []string{"bpf", "symbolizer", "profiler", "exporter", "cmd"}

// goPackage is what `go list -json` tells of a package.
type goPackage struct {
	ImportPath                         string
	Name                               string
	Imports, TestImports, XTestImports []string
}

// list runs `go list -json` in the root, for both architectures, because files of
// one are not seen in the other.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	var packages []goPackage
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", append([]string{"list", "-json"}, args...)...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
		}
		for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
			var p goPackage
			if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			packages = append(packages, p)
		}
	}
	return packages
}

// layer is the index of a package's layer, or -1 where it is none of ours.
func layer(importPath string) int {
	rest, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return -1
	}
	first, _, _ := strings.Cut(rest, "/")
	return slices.Index(layers, first)
}

func TestImportsGoLeftward(t *testing.T) {
	seen := make(map[int]bool)
	for _, p := range list(t, "./...") {
		from := layer(p.ImportPath)
		if from < 0 {
			continue
		}
		seen[from] = true
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if layer(imported) > from {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, strings.Join(layers, " < "))
			}
			if strings.HasPrefix(imported, module+"/test/") {
				t.Errorf("%s imports %s, which is for tests of the whole", p.ImportPath, imported)
			}
		}
	}
	if len(seen) != len(layers) {
		t.Errorf("packages in %d of %d layers: is the list of layers up to date?", len(seen), len(layers))
	}
}

// The data model is shared by all, so it drags nothing along.
func TestProfileImportsTheStandardLibraryAlone(t *testing.T) {
	for _, p := range list(t, "./profiler/profile") {
		for _, imported := range p.Imports {
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestPackagesAreNamedAfterAThing(t *testing.T) {
	for _, p := range list(t, "./...") {
		for part := range strings.SplitSeq(strings.TrimPrefix(p.ImportPath, module), "/") {
			if slices.Contains([]string{"util", "utils", "common", "lib", "helper", "helpers", "misc"}, part) {
				t.Errorf("%s: name the package after what it is about", p.ImportPath)
			}
		}
	}
}

// goMod is what `go mod edit -json` tells.
type goMod struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Tool []struct{ Path string }
}

func TestDirectDependenciesAreUsed(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod goMod
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, p := range list(t, "./...") {
		used = slices.Concat(used, p.Imports, p.TestImports, p.XTestImports)
	}
	for _, tool := range mod.Tool {
		used = append(used, tool.Path)
	}
	for _, r := range mod.Require {
		isUsed := slices.ContainsFunc(used, func(path string) bool { return path == r.Path || strings.HasPrefix(path, r.Path+"/") })
		// A module inside a module has a longer path; the tools' own are marked too.
		switch {
		case !r.Indirect && !isUsed:
			t.Errorf("go.mod requires %s, which nothing imports: go mod tidy", r.Path)
		case r.Indirect && isUsed && !nested(mod, used, r.Path):
			t.Errorf("go.mod says that %s is indirect, but it is imported: go mod tidy", r.Path)
		}
	}
}

// nested tells whether all uses of path belong to modules below it.
func nested(mod goMod, used []string, path string) bool {
	for _, u := range used {
		if u != path && !strings.HasPrefix(u, path+"/") {
			continue
		}
		owner := path
		for _, r := range mod.Require {
			if len(r.Path) > len(owner) && (u == r.Path || strings.HasPrefix(u, r.Path+"/")) {
				owner = r.Path
			}
		}
		if owner == path {
			return false
		}
	}
	return true
}

// The packages that are tested without the race detector have nothing for it to find.
func TestSequentialPackagesStartNoGoroutines(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^SEQUENTIAL := (.*)$`).FindSubmatch(makefile)
	if line == nil {
		t.Fatal("the Makefile names no packages")
	}
	for name := range strings.FieldsSeq(string(line[1])) {
		files, err := filepath.Glob(filepath.Join(root, name, "*.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("no files of %s: %v", name, err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, _ := n.(*ast.SelectorExpr)
				if _, ok := n.(*ast.GoStmt); ok || call != nil && call.Sel.Name == "Parallel" {
					t.Errorf("%s starts a goroutine: test its package with the race detector", file)
				}
				return true
			})
			for _, i := range parsed.Imports {
				if path := strings.Trim(i.Path.Value, `"`); path == "sync" || strings.HasPrefix(path, "sync/") || strings.HasPrefix(path, "golang.org/x/sync") {
					t.Errorf("%s imports %s: test its package with the race detector", file, path)
				}
			}
		}
	}
}

// The kernel loads the programs as GPL-compatible; each source says so itself.
func TestLicenceHeaders(t *testing.T) {
	const licence = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"
	sources := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || path == filepath.Join(root, "build")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".bpf.c") && !strings.HasSuffix(path, ".bpf.h") {
			return nil
		}
		sources++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if !strings.Contains(first, licence) {
			t.Errorf("%s: the first line is not a comment with %s", path, licence)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sources == 0 {
		t.Error("no sources found")
	}
	for file, want := range map[string]string{"LICENSE": "Apache License", "LICENSE.bpf": "GPL-2.0-only OR BSD-2-Clause"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %q in it (%v)", file, want, err)
		}
	}
}

// Names of processes and functions come from whoever runs something on the host: the page sets them as text, never as markup.
func TestPageMakesNoMarkupOfText(t *testing.T) {
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|createContextualFragment|DOMParser|setHTML|\beval\(|new Function`)
	sources := 0
	err := filepath.WalkDir(filepath.Join(root, "exporter/web/page/src"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".ts") && !strings.HasSuffix(path, ".tsx") {
			return err
		}
		sources++
		text, err := os.ReadFile(path)
		if found := markup.Find(text); found != nil {
			t.Errorf("%s has %s: set text by textContent", path, found)
		}
		return err
	})
	if err != nil || sources == 0 {
		t.Errorf("%d sources: %v", sources, err)
	}
}
