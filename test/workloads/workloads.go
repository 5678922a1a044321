// Package workloads builds the programs that the tests of the whole sample. Each knows how it spent its time, or has a
// shape that is worth a look; the comment at the top of its source says which.
package workloads

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Builder builds workloads. It needs gcc, g++, clang-19, musl-gcc, rustc, go and strip, or the cross compilers of another architecture.
// Safe for concurrent use.
type Builder struct {
	// Source is the folder of this package, Output where the programs go.
	Source, Output string
	// Architecture, named as Go does, is built for; "" is this machine's.
	Architecture string
	// Static links C and C++ without shared libraries, for a system that has none.
	Static bool
}

// Build builds one workload and returns its path.
func (b Builder) Build(name string) (string, error) {
	r, ok := recipes[name]
	if !ok {
		return "", fmt.Errorf("workload %q: there is none of this name", name)
	}
	path := filepath.Join(b.Output, name)
	commands := [][]string{b.command(r, path)}
	if r.strip {
		commands = append(commands, []string{"strip", "--strip-all", path})
	}
	for _, command := range commands {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = b.Source
		cmd.Env = os.Environ()
		if r.language == rust {
			cmd.Env = append(cmd.Env, "RUSTC_BOOTSTRAP=1")
		}
		if r.language == golang && b.Architecture != "" {
			cmd.Env = append(cmd.Env, "GOARCH="+b.Architecture, "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("workload %q: %s: %w\n%s", name, strings.Join(command, " "), err, out)
		}
	}
	return path, nil
}

type language int

const (
	c language = iota
	cpp
	rust
	golang
)

// A recipe says how a workload is made. It is built with frame pointers, and C and C++ so that leaves that touch the stack have a frame too; or, where
// omit is set, without any, as compilers do by themselves.
type recipe struct {
	language language
	compiler string // "" is that of the language
	source   string
	flags    []string
	strip    bool
	omit     bool
}

var recipes = map[string]recipe{
	"split":        {source: "split.c", flags: []string{"-pie", "-fPIE"}},
	"split-no-pie": {source: "split.c", flags: []string{"-no-pie", "-fno-pie"}},
	"split-static": {source: "split.c", flags: []string{"-static"}},
	// one segment for headers and code, at an address that is not its offset in the file
	"split-prelinked": {source: "split.c", flags: []string{"-pie", "-fPIE", "-Wl,-z,noseparate-code", "-Wl,-Ttext-segment=0x7000000"}},
	// no .symtab: the functions are named by .dynsym alone
	"split-dynsym": {source: "split.c", flags: []string{"-rdynamic"}, strip: true},
	// nothing names its functions; where each starts is still in .eh_frame
	"split-stripped":   {source: "split.c", flags: []string{"-pie", "-fPIE"}, strip: true},
	"split-frameless":  {source: "split.c", flags: []string{"-DFRAMELESS"}},
	"shapes":           {language: cpp, source: "shapes.cpp"},
	"names-v0":         {language: rust, source: "names.rs", flags: []string{"-C", "symbol-mangling-version=v0"}},
	"names-legacy":     {language: rust, source: "names.rs", flags: []string{"-C", "symbol-mangling-version=legacy"}},
	"gosplit":          {language: golang, source: "./gosplit"},
	"gosplit-stripped": {language: golang, source: "./gosplit", flags: []string{"-ldflags=-s -w"}},
	"threads":          {source: "threads.c"},
	"late":             {source: "late.c"},
	"context":          {source: "context.c"},
	"plugin.so":        {source: "plugin.c", flags: []string{"-shared", "-fPIC"}},
	"syscalls":         {source: "syscalls.c"},
	"exits":            {source: "exits.c", flags: []string{"-static"}},
	"execs":            {source: "execs.c"},
	"manystacks":       {source: "manystacks.c"},
	"load":             {source: "load.c"},
	"packets":          {source: "packets.c"},
	"mapchurn":         {source: "mapchurn.c"},
	"deep":             {source: "deep.c", omit: true},
	"deep-O3":          {source: "deep.c", omit: true, flags: []string{"-O3"}},
	"deep-clang":       {source: "deep.c", omit: true, compiler: "clang-19"},
	"deep-clang-O3":    {source: "deep.c", omit: true, compiler: "clang-19", flags: []string{"-O3"}},
	"deep-no-pie":      {source: "deep.c", omit: true, flags: []string{"-no-pie", "-fno-pie"}},
	"deep-static":      {source: "deep.c", omit: true, flags: []string{"-static"}},
	"deep-static-pie":  {source: "deep.c", omit: true, flags: []string{"-static-pie"}},
	"deep-musl":        {source: "deep.c", omit: true, compiler: "musl-gcc", flags: []string{"-static"}},
	"deep-rust":        {language: rust, source: "deep.rs", omit: true},
	"throws":           {language: cpp, source: "throws.cpp", omit: true},
	"throws-clang":     {language: cpp, source: "throws.cpp", omit: true, compiler: "clang++-19"},
	"throws-static":    {language: cpp, source: "throws.cpp", omit: true, flags: []string{"-static"}},
	"libraries":        {source: "libraries.c"},
	"reload":           {source: "reload.c", omit: true},
	// the ways in which a compiler comes to a thread-local variable: a program's own; a library's by its module, by a descriptor
	// of what threads have from the start or, where it is large, get when they need it, by a slot
	"spans":                {source: "spans.c"},
	"spans-static":         {source: "spans.c", flags: []string{"-static"}},
	"spans-musl":           {source: "spans.c", compiler: "musl-gcc", flags: []string{"-static"}},
	"spans-library":        {source: "spans.c", flags: []string{"-DLIBRARY"}},
	"spans-module.so":      {source: "spans.c", flags: []string{"-DCONTEXT", "-shared", "-fPIC"}},
	"spans-descriptor.so":  {source: "spans.c", flags: []string{"-DCONTEXT", "-shared", "-fPIC", "-mtls-dialect=gnu2"}},
	"spans-large.so":       {source: "spans.c", flags: []string{"-DCONTEXT", "-DLARGE", "-shared", "-fPIC", "-mtls-dialect=gnu2"}},
	"spans-library-musl":   {source: "spans.c", compiler: "musl-gcc", flags: []string{"-DLIBRARY"}},
	"spans-musl.so":        {source: "spans.c", compiler: "musl-gcc", flags: []string{"-DCONTEXT", "-shared", "-fPIC"}},
	"spans-slot.so":        {source: "spans.c", flags: []string{"-DCONTEXT", "-shared", "-fPIC", "-ftls-model=initial-exec"}},
	"gospans":              {language: golang, source: "./gospans"},
	"gospans-pie":          {language: golang, source: "./gospans", flags: []string{"-buildmode=pie"}},
	"gospans-cgo":          {language: golang, source: "./gospans", flags: []string{"-ldflags=-linkmode=external"}},
	"gospans-cgo-pie":      {language: golang, source: "./gospans", flags: []string{"-ldflags=-linkmode=external", "-buildmode=pie"}},
	"gospans-cgo-stripped": {language: golang, source: "./gospans", flags: []string{"-ldflags=-linkmode=external -s -w"}},
	"gospans-cgo-static":   {language: golang, source: "./gospans", flags: []string{"-ldflags=-linkmode=external -s -w -extldflags=-static"}},
	"gospans-stripped":     {language: golang, source: "./gospans", flags: []string{"-ldflags=-s -w"}},
	"layers-first.so":      {source: "layers.c", omit: true, flags: []string{"-shared", "-fPIC"}},
	"layers-second.so":     {source: "layers.c", omit: true, flags: []string{"-shared", "-fPIC", "-DSECOND"}},
}

func (b Builder) command(r recipe, output string) []string {
	switch r.language {
	case rust:
		flags := []string{"-C", "force-frame-pointers=yes", "-C", "opt-level=2"}
		if r.omit {
			flags = []string{"-C", "opt-level=3"}
		}
		return slices.Concat([]string{rustc(), "--edition", "2021", "-Z", "unstable-options"}, r.flags, flags, []string{r.source, "-o", output})
	case golang:
		return slices.Concat([]string{"go", "build", "-o", output}, r.flags, []string{r.source})
	}
	compiler := map[language]string{c: "gcc", cpp: "g++"}[r.language]
	if b.Architecture == "arm64" {
		compiler = "aarch64-linux-gnu-" + compiler
	}
	if r.compiler != "" {
		compiler = r.compiler
	}
	command := []string{compiler, "-O2", "-Wall", "-Wextra", "-Werror"}
	if r.omit {
		command = append(command, "-fomit-frame-pointer")
	} else {
		command = append(command, "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")
	}
	command = append(append(command, r.source), r.flags...)
	if b.Static {
		command = append(command, "-static")
	}
	return append(command, "-pthread", "-ldl", "-o", output)
}

// rustc looks where rustup installs it, because root's PATH often does not name that folder.
func rustc() string {
	if path, err := exec.LookPath("rustc"); err == nil {
		return path
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, ".cargo", "bin", "rustc")
}
