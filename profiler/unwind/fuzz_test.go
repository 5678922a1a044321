// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// Where the code of the files is that are fuzzed.
const (
	fuzzCode     = 0x10000
	fuzzCodeSize = 0x100000
)

// codeFile is a file of one executable segment, whose content is nowhere read.
func codeFile(t testing.TB, m objfile.Machine) *objfile.File {
	t.Helper()
	header := make([]byte, 64+56)
	le := binary.LittleEndian
	copy(header, "\x7fELF\x02\x01\x01")
	le.PutUint16(header[16:], uint16(objfile.ET_DYN))
	le.PutUint16(header[18:], uint16(m))
	le.PutUint64(header[32:], 64) // e_phoff
	le.PutUint16(header[54:], 56)
	le.PutUint16(header[56:], 1)
	segment := header[64:]
	le.PutUint32(segment, objfile.PT_LOAD)
	le.PutUint32(segment[4:], objfile.PF_X|objfile.PF_R)
	le.PutUint64(segment[8:], fuzzCode)
	le.PutUint64(segment[16:], fuzzCode)
	le.PutUint64(segment[32:], fuzzCodeSize)
	le.PutUint64(segment[40:], fuzzCodeSize)
	f, err := objfile.Parse(bytes.NewReader(header), int64(len(header)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Whatever a section says: no panic, no more rows than it has bytes to say them with, and a table that answers as it lists itself.
func FuzzCompile(f *testing.F) {
	for _, args := range [][]string{{"-O2"}, {"-O2", "-g", "-fno-asynchronous-unwind-tables"}} {
		file := open(f, build(f, "gcc", args...))
		for _, name := range []string{".eh_frame", ".debug_frame"} {
			s, ok := file.Section(name)
			if !ok {
				continue
			}
			data, err := file.SectionData(s, maxSection)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, uint64(s.Addr), name == ".debug_frame", false)
		}
	}
	f.Add(overlapping(), uint64(0), false, false)
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00\x01zRS\x00\x01\x78\x10\x01\x03\x0a\x0b\x0a\x0a"), uint64(0), false, true)
	files := map[bool]*objfile.File{false: codeFile(f, objfile.EM_X86_64), true: codeFile(f, objfile.EM_AARCH64)}
	f.Fuzz(func(t *testing.T, data []byte, address uint64, debug, arm64 bool) {
		name := ".eh_frame"
		if debug {
			name = ".debug_frame"
		}
		file := files[arm64]
		c := newCompiler(file)
		if err := newSection(name, data, objfile.Address(address)).functions(c); err != nil && !errors.Is(err, objfile.ErrCorrupt) {
			t.Fatal(err)
		}
		if len(c.functions) == 0 {
			return
		}
		table, err := c.finish()
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table)
		// Each function has 16 bytes, and makes three rows at most that no instruction of its own asks for.
		if most := len(data) + fuzzCodeSize/blockBytes + 3; len(table.rows) > most {
			t.Errorf("%d rows of %d bytes", len(table.rows), len(data))
		}
	})
}

// overlapping is an .eh_frame in which functions begin at the same place, and lie in one another.
func overlapping() []byte {
	le := binary.LittleEndian
	cie := []byte("\x00\x00\x00\x00\x01\x00\x01\x78\x10\x0c\x07\x08\x90\x01\x00\x00") // CFA = rsp+8, return address at CFA-8
	data := append(le.AppendUint32(nil, uint32(len(cie))), cie...)
	for i, f := range [][2]uint64{{0x1000, 0x2000}, {0x1000, 0x2000}, {0x1010, 0x10}, {0x1018, 0x100}, {0x1018, 8}} {
		fde := le.AppendUint32(nil, uint32(len(data)+4))
		fde = le.AppendUint64(fde, fuzzCode+f[0])
		fde = le.AppendUint64(fde, f[1])
		fde = append(fde, cfaDefCFAOffset, byte(16*(i+1)), cfaNop, cfaNop)
		data = append(le.AppendUint32(data, uint32(len(fde))), fde...)
	}
	return data
}

// Where functions overlap the later one holds for its own code, the first for what is before, and nothing for what is after.
func TestOverlap(t *testing.T) {
	c := newCompiler(codeFile(t, objfile.EM_X86_64))
	if err := newSection(".eh_frame", overlapping(), 0).functions(c); err != nil {
		t.Fatal(err)
	}
	table, err := c.finish()
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, table)
	for off, want := range map[objfile.FileOffset]int32{0x1000: 16, 0x100f: 16, 0x1010: 48, 0x1017: 48, 0x1018: 64, 0x1117: 64, 0x1118: 0, 0x2fff: 0} {
		if got := table.Rule(fuzzCode + off); got.Offset != want {
			t.Errorf("at %#x: %v, want CFA = rsp+%d", off, got, want)
		}
	}
}

func checkTable(t *testing.T, table *Table) {
	t.Helper()
	if !slices.IsSorted(table.index) || int(table.index[len(table.index)-1]) != len(table.rows) {
		t.Fatalf("index %v of %d rows", table.index, len(table.rows))
	}
	var last objfile.FileOffset
	for row := range table.All {
		if row.From < last || row.To <= row.From {
			t.Fatalf("%+v after %#x", row, last)
		}
		last = row.To
		for _, at := range []objfile.FileOffset{row.From, row.From + (row.To-row.From)/2, row.To - 1} {
			if got := table.Rule(at); got != row.Rule {
				t.Fatalf("at %#x: %v, listed is %v", at, got, row.Rule)
			}
		}
	}
	if last > fuzzCode+fuzzCodeSize {
		t.Errorf("rows up to %#x", last)
	}
}

// hostile is memory and code that an attacker has made.
type hostile struct {
	table *Table
	words []byte
	reads int
}

func (h *hostile) Word(address uint64) (uint64, bool) {
	h.reads++
	if address >= uint64(len(h.words)) || uint64(len(h.words))-address < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(h.words[address:]), true
}

func (h *hostile) Rule(address uint64) (Rule, bpf.Reason) { return ruleAt(h.find(address)) }

func (h *hostile) find(address uint64) (*Table, objfile.FileOffset, bool) {
	return h.table, objfile.FileOffset(address), address < 1<<32
}

// Whatever is in memory: a walk ends, with no more frames than it may have and four reads for each.
func FuzzWalk(f *testing.F) {
	tables := map[bool]*Table{
		false: compile(f, open(f, build(f, "gcc", "-O2", "-static"))),
		true:  compile(f, open(f, build(f, "aarch64-linux-gnu-gcc", "-O2", "-static"))),
	}
	word := func(v ...uint64) (b []byte) {
		for _, w := range v {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return b
	}
	f.Add(word(0x1700, 0x1700, 16, 0x1700, 24, 8, 0x1700), uint64(0x1700), uint64(0), uint64(8), false)
	f.Add(word(0, 8, 0x1800, 8), uint64(0x1800), uint64(8), uint64(16), true)
	f.Fuzz(func(t *testing.T, memory []byte, pc, sp, fp uint64, arm64 bool) {
		const max = 100
		h := &hostile{table: tables[arm64], words: memory}
		w := Walker{Code: h, Memory: h}
		var r Registers
		m := objfile.EM_X86_64
		if arm64 {
			m = objfile.EM_AARCH64
			w.PointerBits = 48
		}
		for _, reg := range []Register{X86RSP, ARM64SP} {
			r.Set(reg, sp)
		}
		for _, reg := range []Register{X86RBP, ARM64FP} {
			r.Set(reg, fp)
		}
		r.Set(X86RIP, pc)
		r.Set(ARM64PC, pc)
		r.Set(ARM64LR, fp)
		frames, end := w.Walk(m, r, nil, max)
		if len(frames) == 0 || len(frames) > max || h.reads > 4*len(frames) || end.String() == "" {
			t.Errorf("%d frames, %d reads, %v", len(frames), h.reads, end)
		}
	})
}

// ruleAt looks up what a test's memory map found.
func ruleAt(t *Table, off objfile.FileOffset, mapped bool) (Rule, bpf.Reason) {
	switch {
	case !mapped:
		return Rule{}, bpf.ReasonUnmappedPC
	case t == nil:
		return Rule{}, bpf.ReasonNoTable
	}
	r := t.Rule(off)
	if r.Kind == Gap {
		return r, bpf.ReasonNoRule
	}
	return r, bpf.ReasonNone
}
