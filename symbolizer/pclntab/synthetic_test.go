package pclntab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

const (
	syntheticBase = 0x400000 // the file is one segment, here
	syntheticText = 0x410000 // not in the file: look-ups never read code
)

// synthetic makes a whole ELF file of about 1 KB with three functions, as Go 1.20 lays them out:
//
//	text+0x00  main.a              a.go:1
//	text+0x10  main.b[...]         b.go:11, and from +4 to +8 main.in inlined, called at +8 (b.go:12)
//	text+0x20  runtime.wrap        a.go:30, main.in inlined all over, itself a wrapper
//
// With relocated set, the words of moduledata stand in .rela.dyn only.
func synthetic(relocated bool) []byte {
	var out []byte
	le := binary.LittleEndian
	u32 := func(vs ...uint32) {
		for _, v := range vs {
			out = le.AppendUint32(out, v)
		}
	}
	u64 := func(vs ...uint64) {
		for _, v := range vs {
			out = le.AppendUint64(out, v)
		}
	}
	put64 := func(at int, v uint64) { le.PutUint64(out[at:], v) }
	here := func() uint64 { return syntheticBase + uint64(len(out)) }

	// ELF header, PT_LOAD, PT_DYNAMIC.
	out = append(out, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00\x01\x00\x00\x00"...)
	u64(syntheticText, 64, 0)
	u32(0)
	for _, v := range []uint16{64, 56, 2, 0, 0, 0} {
		out = le.AppendUint16(out, v)
	}
	load := len(out)
	u32(1, 7)
	u64(0, syntheticBase, syntheticBase, 0, 0, 0x1000)
	dynamic := len(out)
	u32(2, 6)
	u64(0, 0, 0, 48, 48, 8)

	// The table. Parts are cut at multiples of 8.
	pcln := len(out)
	part := func(word int) {
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
		put64(pcln+8+8*word, uint64(len(out)-pcln))
	}
	u32(magicGo120, 0x08_01_0000)
	u64(3, 2, 0, 0, 0, 0, 0, 0)
	part(3)
	out = append(out, "main.a\x00main.b[int]\x00main.in\x00runtime.wrap\x00"...) // 0, 7, 19, 27
	part(4)
	u32(0, 5)
	part(5)
	out = append(out, "a.go\x00b.go\x00"...)
	part(6)
	out = append(out, 0,
		2, 16, 0, // 1: 0
		4, 16, 0, // 4: 1
		4, 16, 0, // 7: 1
		24, 4, 38, 4, 37, 8, 0, // 10: 11, 30, 11
		0, 4, 2, 4, 1, 8, 0, // 17: -1, 0, -1
		62, 16, 0, // 24: 30
		2, 16, 0, // 27: 0
	)
	part(7)
	functab := len(out)
	u32(0, 28, 0x10, 84, 0x20, 140, 0x30) // the three records follow
	record := func(entry, name, pcfile, pcln, startLine, funcID, inlineIndex, tree uint32) {
		u32(entry, name, 0, 0, 0, pcfile, pcln, 3, 0, startLine, funcID|4<<24, 0, 0, inlineIndex)
		u32(^uint32(0), ^uint32(0), ^uint32(0), tree)
	}
	for i, r := range [][8]uint32{
		{0x00, 0, 1, 4, 1, 0, 0, noInlineTree},
		{0x10, 7, 4, 10, 10, 0, 17, 0},
		{0x20, 27, 1, 24, 30, 23, 27, 16},
	} {
		le.PutUint32(out[functab+8*i+4:], uint32(len(out)-functab))
		record(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7])
	}
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	gofunc := here()
	u32(0, 19, 8, 5)  // main.in in main.b, called at +8
	u32(23, 19, 0, 5) // main.in as a wrapper, called at +0: in itself, without an end

	// moduledata
	words := make([]uint64, layoutGo120.moduledataWords)
	header := uint64(syntheticBase + pcln)
	words[mdPCHeader] = header
	words[mdFuncnametab] = header + headerSize
	words[mdFtab], words[mdFtabLen] = syntheticBase+uint64(functab), 4
	words[mdText], words[mdMinPC], words[mdMaxPC] = syntheticText, syntheticText, syntheticText+0x30
	words[layoutGo120.gofuncIndex] = gofunc
	md := here()
	if relocated {
		for i := range words {
			if i == mdFtabLen {
				u64(words[i]) // no pointer
			} else {
				u64(0)
			}
		}
	} else {
		u64(words...)
	}
	rela := here()
	for i, w := range words {
		if w != 0 && i != mdFtabLen {
			u64(md+uint64(i)*8, relativeAMD64, w)
		}
	}
	relaEnd := here()
	put64(dynamic+8, uint64(len(out)))
	put64(dynamic+16, here())
	put64(dynamic+24, here())
	u64(dtRela, rela, dtSize, relaEnd-rela, dtNull, 0)
	put64(load+32, uint64(len(out)))
	put64(load+40, uint64(len(out)))
	return out
}

func TestSynthetic(t *testing.T) {
	in := Line{Function: "main.in", File: "b.go", Line: 30, StartLine: 5, Inlined: true}
	for _, tt := range []struct {
		name string
		elf  []byte
	}{
		{"in place", synthetic(false)},
		{"relocated", synthetic(true)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, err := Open(parse(t, tt.elf))
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range []struct {
				off  objfile.Address
				want []Line
			}{
				{0x00, []Line{{Function: "main.a", File: "a.go", Line: 1, StartLine: 1}}},
				{0x10, []Line{{Function: "main.b[...]", File: "b.go", Line: 11, StartLine: 10}}},
				{0x14, []Line{in, {Function: "main.b[...]", File: "b.go", Line: 11, StartLine: 10}}},
				{0x18, []Line{{Function: "main.b[...]", File: "b.go", Line: 11, StartLine: 10}}},
				// The tree's cycle is cut; what remains is the function itself.
				{0x20, []Line{{Function: "runtime.wrap", File: "a.go", StartLine: 30}}},
				{0x2f, []Line{{Function: "runtime.wrap", File: "a.go", StartLine: 30}}},
				{0x30, nil},
			} {
				got, _ := table.Lookup(syntheticText + l.off)
				if !reflect.DeepEqual(got, l.want) {
					t.Errorf("%#x:\n got %+v\nwant %+v", uint64(l.off), got, l.want)
				}
			}
			if _, ok := table.Lookup(syntheticText - 1); ok {
				t.Error("found something before the text")
			}
		})
	}
}

// FuzzOpen holds what exercise holds, for any bytes.
func FuzzOpen(f *testing.F) {
	for _, relocated := range []bool{false, true} {
		f.Add(synthetic(relocated))
	}
	f.Fuzz(exercise)
}

// TestEveryByte is the part of FuzzOpen that always runs: each byte of a table in turn has three other values.
func TestEveryByte(t *testing.T) {
	for _, relocated := range []bool{false, true} {
		elf := synthetic(relocated)
		for i, was := range elf {
			for _, b := range []byte{0, 0xff, was ^ 0x80} {
				elf[i] = b
				exercise(t, elf)
			}
			elf[i] = was
		}
	}
}

// exercise holds: no panic, no look-up of more lines or longer names than stated, no more memory, in bounded time.
func exercise(t *testing.T, data []byte) {
	start := time.Now()
	file, err := objfile.Parse(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return
	}
	table, err := Open(file)
	if err != nil {
		return
	}
	var last objfile.Address
	err = table.Stacks(func(s Stack) bool {
		if s.Start < last || s.End <= s.Start || s.Start < s.Entry {
			t.Fatalf("stack %+v after %#x", s, last)
		}
		last = s.End
		return true
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	for i, entry := range table.index.entries[:min(4, len(table.index.entries))] {
		for _, off := range []uint32{0, 1, 0x10, 0x14, 0x20, 0x2f} {
			lines, ok := table.Lookup(table.text + objfile.Address(entry+off))
			if ok != (len(lines) > 0) || len(lines) > maxInlineDepth {
				t.Fatalf("entry %d+%#x: %d lines, %v", i, off, len(lines), ok)
			}
			for j, l := range lines {
				if l.Function == "" || len(l.Function) > maxStringBytes+len("[...]") || len(l.File) > maxStringBytes ||
					l.Line < 0 || l.StartLine < 0 || l.Inlined != (j < len(lines)-1) {
					t.Fatalf("entry %d+%#x: %+v", i, off, l)
				}
			}
		}
	}
	if n := table.Bytes(); n > 120<<10 {
		t.Fatalf("%d bytes held", n)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Fatalf("took %v", d)
	}
}

// TestProgramAsData puts the table of another program, without a moduledata, before the real one.
func TestProgramAsData(t *testing.T) {
	elf := synthetic(false)
	at := bytes.Index(elf, []byte{0xf1, 0xff, 0xff, 0xff})
	other := bytes.Clone(elf[at : len(elf)-400])

	// A second segment, before the first: over PT_DYNAMIC, which this file does not need.
	const load, dynamic, size = 64, 64 + 56, 56
	le := binary.LittleEndian
	copy(elf[dynamic:dynamic+size], elf[load:load+size])
	le.PutUint64(elf[load+8:], uint64(len(elf)))
	le.PutUint64(elf[load+16:], 0x100000)
	le.PutUint64(elf[load+32:], uint64(len(other)))
	le.PutUint64(elf[load+40:], uint64(len(other)))
	elf = append(elf, other...)

	if headers, err := findHeaders(parse(t, elf)); len(headers) != 2 {
		t.Fatalf("%d headers, %v", len(headers), err)
	}
	table, err := Open(parse(t, elf))
	if err != nil {
		t.Fatal(err)
	}
	if lines, ok := table.Lookup(syntheticText); !ok || lines[0].Function != "main.a" {
		t.Errorf("got %v", lines)
	}
}
