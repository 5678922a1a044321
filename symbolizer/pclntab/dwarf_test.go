package pclntab

import (
	"debug/dwarf"
	"debug/elf"
	"sort"
	"testing"

	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// TestInlinesAgainstDWARF compares the names of inlined calls with DWARF's, for programs that cannot run here. The
// compiler derives both from the position of each instruction.
func TestInlinesAgainstDWARF(t *testing.T) {
	for _, v := range []variant{
		{name: "amd64", goarch: "amd64"},
		{name: "arm64", goarch: "arm64"},
		{name: "arm64-pie", goarch: "arm64", args: []string{"-buildmode=pie"}},
	} {
		t.Run(v.name, func(t *testing.T) { t.Parallel(); compareWithDWARF(t, v.build(t)) })
	}
}

// A nested is an address range of a function or of a call inlined in the nested before it in depth.
type nested struct {
	low, high uint64
	depth     int
	name      string
}

func compareWithDWARF(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	quantum := uint64(1)
	if f.Machine == elf.EM_AARCH64 {
		quantum = 4
	}
	table := openPath(t, path)

	equal, inlined, wrappers := 0, 0, 0
	for _, fn := range dwarfFunctions(t, d) {
		for pc := fn[0].low; pc < fn[0].high; pc += quantum {
			var want []string
			for _, n := range fn { // outermost first, so each deeper one goes in front
				if n.low <= pc && pc < n.high {
					want = append([]string{printedName([]byte(n.name))}, want...)
				}
			}
			got, ok := table.Lookup(objfile.Address(pc))
			if !ok {
				t.Fatalf("%#x: nothing, want %v", pc, want)
			}
			switch {
			case sameNames(got, want):
				equal++
				if len(want) > 1 {
					inlined++
				}
			case len(want) > 1 && sameNames(got, want[:len(want)-1]) && wrapsInlined(table, objfile.Address(fn[0].low)):
				wrappers++
			default:
				t.Fatalf("%#x: got %s, DWARF has %v", pc, text(got), want)
			}
		}
	}
	t.Logf("%d addresses equal, %d of them with inlined calls; %d with a wrapper left out", equal, inlined, wrappers)
	if inlined == 0 {
		t.Error("no inlined calls")
	}
}

func sameNames(lines []Line, names []string) bool {
	if len(lines) != len(names) {
		return false
	}
	for i, l := range lines {
		if l.Function != names[i] {
			return false
		}
	}
	return true
}

// dwarfFunctions returns each Go function with what is inlined in it, by depth.
func dwarfFunctions(t *testing.T, d *dwarf.Data) [][]nested {
	t.Helper()
	var out [][]nested
	names := map[dwarf.Offset]string{}
	type reference struct {
		function, call int
		origin         dwarf.Offset
	}
	var open []reference

	r := d.Reader()
	depth, goUnit := 0, false
	var atDepth []bool // whether the entry at each level is a function or an inlined call
	for {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			break
		}
		if e.Tag == 0 {
			depth--
			atDepth = atDepth[:len(atDepth)-1]
			continue
		}
		if e.Tag == dwarf.TagCompileUnit {
			language, _ := e.Val(dwarf.AttrLanguage).(int64)
			goUnit = language == 0x16
		}
		code := goUnit && (e.Tag == dwarf.TagSubprogram || e.Tag == dwarf.TagInlinedSubroutine)
		if code {
			name, _ := e.Val(dwarf.AttrName).(string)
			names[e.Offset] = name
			ranges, err := d.Ranges(e)
			if err != nil {
				t.Fatal(err)
			}
			calls := 0
			for _, is := range atDepth {
				if is {
					calls++
				}
			}
			if e.Tag == dwarf.TagSubprogram && len(ranges) > 0 {
				out = append(out, nil)
			}
			for _, rg := range ranges {
				last := len(out) - 1
				if origin, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok {
					open = append(open, reference{last, len(out[last]), origin})
				}
				out[last] = append(out[last], nested{rg[0], rg[1], calls, name})
			}
		}
		if e.Children {
			depth++
			atDepth = append(atDepth, code)
		}
	}
	for _, ref := range open {
		out[ref.function][ref.call].name = names[ref.origin]
	}
	for _, fn := range out {
		sort.SliceStable(fn, func(i, j int) bool { return fn[i].depth < fn[j].depth })
	}
	return out
}
