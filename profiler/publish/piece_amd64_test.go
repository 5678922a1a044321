package publish

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/pilotlight/pilotlight/bpf"
	"github.com/pilotlight/pilotlight/profiler/unwind"
	"github.com/pilotlight/pilotlight/symbolizer/objfile"
)

// libraries are this host's C library, the largest of all, and one whose rules have no codes.
func libraries(t *testing.T) []string {
	t.Helper()
	libc, err := filepath.Glob("/usr/lib/*/libc.so.6")
	if err != nil || len(libc) == 0 {
		t.Fatalf("no C library: %v", err)
	}
	all, err := filepath.Glob("/usr/lib/*/*.so*")
	if err != nil {
		t.Fatal(err)
	}
	var largest string
	var size int64
	for _, path := range all {
		if info, err := os.Stat(path); err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
	}
	return []string{libc[0], largest, assemble(t, `
	.rept 5000
	.cfi_startproc
	push %rbx
	.cfi_def_cfa_offset 16
	.cfi_offset %rbx, -16
	mov %rsp, %rbx
	.cfi_def_cfa %rbx, 16
	nop
	.cfi_offset %rbp, -800
	nop
	.cfi_def_cfa %rbp, 24
	.cfi_same_value %rbx
	nop
	.cfi_endproc
	.endr
`)}
}

// assemble makes a shared library of x86-64 code.
func assemble(t *testing.T, source string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "library.so")
	gcc := exec.Command("gcc", "-shared", "-nostdlib", "-x", "assembler", "-o", path, "-")
	gcc.Stdin = strings.NewReader(source)
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", gcc, err, out)
	}
	return path
}

func compileFile(t *testing.T, path string) *unwind.Table {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := objfile.Parse(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	table, err := unwind.Compile(f)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A table that is cut into pieces, which lie somewhere, gives the same rule for every place of a file's code as the table itself: the rule of each row
// at its first and its last byte, and none between rows.
func TestPieces(t *testing.T) {
	const position = 3<<20 | 0x12340
	ruleWords := int(unsafe.Sizeof(bpf.UnwindRule{})) / 4
	for _, path := range libraries(t) {
		table := compileFile(t, path)
		rules := table.Stats().Rules * ruleWords
		for _, most := range []int{rules + 4500, rules + 9000, maxPieceWords} {
			pieces := table.Pieces(most)
			words := make([][]uint32, len(pieces))
			for i, piece := range pieces {
				words[i] = piece.Words(position)
				switch {
				case len(words[i]) != piece.Len() || piece.Len() > most:
					t.Fatalf("%s: a piece of %d words says that it has %d; at most %d are wanted", path, len(words[i]), piece.Len(), most)
				case i > 0 && piece.Start() < pieces[i-1].End():
					t.Fatalf("%s: a piece begins at %#x, in the one before, which ends at %#x", path, piece.Start(), pieces[i-1].End())
				case (piece.End()-piece.Start())%pageBytes != 0:
					t.Fatalf("%s: a piece of half a block, %#x to %#x", path, piece.Start(), piece.End())
				}
			}
			at, rows, missing := 0, 0, 0 // the piece, which only moves on
			check := func(off objfile.FileOffset) {
				for at < len(pieces) && pieces[at].End() <= off {
					at++
				}
				want := table.Rule(off)
				if at == len(pieces) || off < pieces[at].Start() {
					if want.Kind != unwind.Gap {
						missing++
					}
					return
				}
				index := pieces[at].Index(position) - position + uint32((off-pieces[at].Start())/pageBytes)
				first, end := words[at][index]-position, words[at][index+1]-position
				code := unwind.Search(words[at][first:end], off)
				if got := table.Decode(code); got != want {
					t.Fatalf("%s in pieces of %d words: at %#x %v, want %v", path, most, off, got, want)
				}
				if code>>17 == 7 { // a rule that has no code of its own
					checkRule(t, words[at], int(code&(1<<17-1)), want)
				}
			}
			var end objfile.FileOffset
			table.All(func(r unwind.Row) bool {
				if r.From > end {
					check(r.From - 1)
				}
				check(r.From)
				check(r.To - 1)
				end = r.To
				rows++
				return true
			})
			t.Logf("%s: %d rows in %d pieces of %d words", filepath.Base(path), rows, len(pieces), most)
			if rows < 10000 || missing > 0 || most < maxPieceWords && len(pieces) < 3 {
				t.Errorf("%s: %d rows in %d pieces of %d words, %d of them in none", path, rows, len(pieces), most, missing)
			}
		}
	}
}

// checkRule compares a rule of the table with what BPF reads in its place.
func checkRule(t *testing.T, words []uint32, number int, want unwind.Rule) {
	t.Helper()
	size := int(unsafe.Sizeof(bpf.UnwindRule{}))
	bytes := make([]byte, 0, size)
	for _, w := range words[number*size/4:][:size/4] {
		bytes = binary.NativeEndian.AppendUint32(bytes, w)
	}
	var got bpf.UnwindRule
	if _, err := binary.Decode(bytes, binary.NativeEndian, &got); err != nil {
		t.Fatal(err)
	}
	base := map[unwind.Register]bpf.CpuRuleRegister{
		unwind.X86RSP: bpf.RuleSP, unwind.X86RBP: bpf.RuleFP, unwind.X86RBX: bpf.RuleBase,
	}
	same := func(s bpf.UnwindSaved, want unwind.Saved) bool {
		if s.Kind != uint8(want.Kind) || s.Offset != want.Offset {
			return false
		}
		number, known := base[want.Base]
		return want.Kind != unwind.AtBase && want.Kind != unwind.InBase || known && s.Base == uint8(number) || !known && s.Base >= uint8(bpf.RuleRegisters)
	}
	if got.Kind != uint8(want.Kind) || got.Cfa != uint8(want.CFA) || got.Offset != want.Offset || got.Add != want.Add ||
		got.CfaBase != uint8(base[want.CFABase]) || !same(got.Ra, want.ReturnAddress) || !same(got.Fp, want.FP) || !same(got.Base, want.Base) {
		t.Fatalf("rule %d: BPF reads %+v, want %v", number, got, want)
	}
}
