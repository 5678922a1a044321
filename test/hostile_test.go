// SPDX-License-Identifier: Apache-2.0

package test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/pprof/profile"
)

// Offsets in a 64-bit ELF header and section header (elf.h: Elf64_Ehdr, Elf64_Shdr).
const (
	ehdrSectionOffset = 0x28
	ehdrSectionCount  = 0x3c
	shdrSize          = 0x40
	shdrOffset        = 0x18
	shdrLength        = 0x20
	shdrLink          = 0x28
	shdrEntrySize     = 0x38
)

// Binaries that run, because the kernel reads the program headers alone, and whose section headers lie. Their frames
// are there without names, the process beside them keeps its own, and nothing dies.
func TestHostileBinaries(t *testing.T) {
	healthy, err := os.ReadFile(build(t, "split-static"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(healthy))
	if err != nil {
		t.Fatal(err)
	}
	sections := binary.LittleEndian.Uint64(healthy[ehdrSectionOffset:])
	symtab := -1
	for i, section := range file.Sections {
		if section.Type == elf.SHT_SYMTAB {
			symtab = i
		}
	}
	header := sections + uint64(symtab)*shdrSize // of .symtab
	huge := uint64(1) << 60
	for name, corrupt := range map[string]func(image []byte){
		"sections-beyond-end": func(image []byte) { binary.LittleEndian.PutUint64(image[ehdrSectionOffset:], huge) },
		"65535-sections":      func(image []byte) { binary.LittleEndian.PutUint16(image[ehdrSectionCount:], 0xffff) },
		"symtab-huge":         func(image []byte) { binary.LittleEndian.PutUint64(image[header+shdrLength:], huge) },
		"symtab-beyond-end":   func(image []byte) { binary.LittleEndian.PutUint64(image[header+shdrOffset:], huge) },
		"symtab-links-nowhere": func(image []byte) {
			binary.LittleEndian.PutUint32(image[header+shdrLink:], 0xffffffff)
		},
		"symbols-of-size-0": func(image []byte) { binary.LittleEndian.PutUint64(image[header+shdrEntrySize:], 0) },
		"names-beyond-end": func(image []byte) {
			for i := range file.Sections[symtab].Size / elf.Sym64Size {
				binary.LittleEndian.PutUint32(image[file.Sections[symtab].Offset+i*elf.Sym64Size:], 0xfffffff0)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			image := bytes.Clone(healthy)
			corrupt(image)
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, image, 0o755); err != nil {
				t.Fatal(err)
			}
			hostile, neighbour := start(t, path), start(t, build(t, "split"))
			r := record(t, "-p", strconv.Itoa(hostile.pid())+","+strconv.Itoa(neighbour.pid()), "-F", "499", "-d", "1s")
			checkForm(t, r, 499)
			of := func(w *workload) func(*profile.Sample) bool {
				return func(s *profile.Sample) bool { return labelPID(s) == w.pid() }
			}
			if count(r.profile, of(hostile)) == 0 {
				t.Error("no sample of the hostile binary")
			}
			named := count(r.profile, func(s *profile.Sample) bool {
				return of(neighbour)(s) && contains(exactly("main"))(s)
			})
			if all := count(r.profile, of(neighbour)); named == 0 || float64(named) < 0.95*float64(all) {
				t.Errorf("%d of %d samples of its neighbour are named", named, all)
			}
		})
	}
}

// A binary that is removed, or replaced by another, while it runs keeps the names it has.
func TestReplacedBinary(t *testing.T) {
	image, err := os.ReadFile(build(t, "split"))
	if err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			other := path + ".new"
			if err := os.WriteFile(other, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
				return err
			}
			return os.Rename(other, path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, image, 0o755); err != nil {
				t.Fatal(err)
			}
			w := start(t, path)
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			r := record(t, "-p", strconv.Itoa(w.pid()), "-F", "499", "-d", "1s")
			share, missing := namedShare(r.profile)
			if share < 0.99 || count(r.profile, contains(exactly("burn_a"))) == 0 {
				t.Errorf("%.2f %% of frames named; missing: %v", 100*share, missing)
			}
		})
	}
}
