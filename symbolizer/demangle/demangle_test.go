package demangle

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	lib "github.com/ianlancetaylor/demangle"
)

func TestForms(t *testing.T) {
	for _, tt := range []struct{ raw, simple, full string }{
		// C++
		{"_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "geo::area<geo::Circle, 7>", "double geo::area<geo::Circle, 7>(geo::Circle const&)"},
		{"_ZNK3Foo3barEv", "Foo::bar", "Foo::bar() const"},
		{"_ZN3Foo3barB5cxx11Ev", "Foo::bar[abi:cxx11]", "Foo::bar[abi:cxx11]()"},
		{"_ZN3FoocviEv", "Foo::operator int", "Foo::operator int()"},
		{"_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo", "(anonymous namespace)::foo()"},
		{"_ZZ4mainENKUlidE_clEid", "main::{lambda(int, double)#1}::operator()", "main::{lambda(int, double)#1}::operator()(int, double) const"},
		{"_ZZN1A1fEiENKUlvE_clEv", "A::f()::{lambda()#1}::operator()", "A::f(int)::{lambda()#1}::operator()() const"},
		{"_ZTV3Foo", "vtable for Foo", "vtable for Foo"},
		{"___Z3foov_block_invoke_2", "invocation function for block in foo", "invocation function for block in foo()"},
		{"_GLOBAL__I__Z3foov", "global constructors keyed to foo()", "global constructors keyed to foo()"},
		// Clones, versions, stubs
		{"_ZN3foo3barEi.constprop.0.cold", "foo::bar [clone .constprop.0] [clone .cold]", "foo::bar(int) [clone .constprop.0] [clone .cold]"},
		{"_Z3foov.__uniq.123.part.4.llvm.5", "foo [clone .part.4]", "foo() [clone .part.4]"},
		{"_Z3foov.lto_priv.0", "foo", "foo()"},
		{"_Z3foov.1.2.cold", "foo [clone .1.2] [clone .cold]", "foo() [clone .1.2] [clone .cold]"},
		{"_Z3foo3", "foo", "_Z3foo3"}, // broken parameters
		{"_Z3fooi.", "foo", "_Z3fooi."},
		{"_Z3fooi.a..b", "foo", "_Z3fooi.a..b"},
		{"_ZN5a.b.c3fooEv", "a.b.c::foo", "a.b.c::foo()"},
		{"_Z3fooi@plt", "foo@plt", "foo(int)@plt"},
		{"_Z3fooi.cold@@V_1", "foo [clone .cold]@@V_1", "foo(int) [clone .cold]@@V_1"},
		// Rust, legacy
		{"_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write", "core::fmt::write"},
		{"_ZN4core3fmt5write17h0123456789abcdefE.llvm.123", "core::fmt::write", "core::fmt::write"},
		{"_ZN4core3fmt5write17h0123456789abcdefE.cold", "core::fmt::write [clone .cold]", "core::fmt::write [clone .cold]"},
		{
			"_ZN4core3ptr31drop_in_place$LT$std..rt..X$GT$17h0123456789abcdefE",
			"core::ptr::drop_in_place<std::rt::X>", "core::ptr::drop_in_place<std::rt::X>",
		},
		// Rust, v0
		{"_RINvCs1234_4main4areahE", "main::area::<u8>", "main::area::<u8>"},
		{"_RNvCs1234_4main4area.llvm.77", "main::area", "main::area"},
	} {
		if got := Simple(tt.raw); got != tt.simple {
			t.Errorf("Simple(%q)\n got %q\nwant %q", tt.raw, got, tt.simple)
		}
		if got := Full(tt.raw); got != tt.full {
			t.Errorf("Full(%q)\n got %q\nwant %q", tt.raw, got, tt.full)
		}
	}
}

func TestUnchanged(t *testing.T) {
	for _, raw := range []string{
		"", "_", "_Z", "_R", "_ZZ", "_Read", "_ZSTD_compress", "_start", "__libc_start_main", "malloc@@GLIBC_2.2.5",
		"memcpy.cold", "foo.constprop.0", "_GLOBAL__sub_I_main.cpp", "Java_java_lang_Object_wait", "[unknown]",
		"main.main", "main.(*Server).handle", "main.(*Server).handle.func1.2", "net/http.(*conn).serve",
		"golang.org/x/sync/errgroup.(*Group).Go.func1", "slices.SortFunc[go.shape.[]string,go.shape.string]",
		"type:.eq.[2]interface {}", "gopkg.in/yaml%2ev3.Unmarshal", "go:buildid", "runtime.goexit.abi0",
		"_cgo_0123456789ab_Cfunc_puts", "_rt0_amd64_linux", "github.com/a/b-c.(*T[...]).M", "_/tmp/x.f",
	} {
		if got := Simple(raw); got != raw {
			t.Errorf("Simple(%q) = %q", raw, got)
		}
		if got := Full(raw); got != raw {
			t.Errorf("Full(%q) = %q", raw, got)
		}
	}
}

// filter runs c++filt over names, one a line.
func filter(t *testing.T, names []string, options ...string) []string {
	t.Helper()
	path, err := exec.LookPath("c++filt")
	if err != nil {
		t.Fatal("binutils is not installed; test/setup.sh installs what the tests need")
	}
	cmd := exec.Command(path, options...)
	cmd.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(names) {
		t.Fatalf("c++filt: %d lines for %d names", len(lines), len(names))
	}
	return lines
}

func symbolsOf(t *testing.T, path string, read func(*elf.File) ([]elf.Symbol, error)) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := read(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range symbols {
		if s.Name != "" {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// spellOut replaces the abbreviations that the mangling has for five types of the standard library.
var spellOut = strings.NewReplacer(
	"std::string", "std::basic_string<char, std::char_traits<char>, std::allocator<char> >",
	"std::istream", "std::basic_istream<char, std::char_traits<char> >",
	"std::ostream", "std::basic_ostream<char, std::char_traits<char> >",
	"std::iostream", "std::basic_iostream<char, std::char_traits<char> >",
)

// spelledOut has no abbreviations, and no blanks between closing brackets, whose number depends on them.
func spelledOut(name string) string {
	return strings.ReplaceAll(spellOut.Replace(name), " >", ">")
}

// Every dynamic symbol of libstdc++ is demangled as binutils does it, but for three classes:
//
//   - abbreviated: the mangling has abbreviations for std::string and the streams. binutils spells them out where they stand before
//     a member's name; the library does so for constructors only. The short form is the better one in a profile.
//   - enclosing: c++filt -p leaves out a function's own parameters but keeps those of the function around a local name
//     (f(int)::x); Simple leaves out both. With the library's option for it off, they agree.
//   - newer: the mangling is newer than the binutils at hand, which returns it raw.
func TestAgainstBinutils(t *testing.T) {
	libraries, _ := filepath.Glob("/usr/lib/*/libstdc++.so.6")
	if len(libraries) == 0 {
		t.Fatal("libstdc++.so.6 is not installed; test/setup.sh installs what the tests need")
	}
	names := symbolsOf(t, libraries[0], (*elf.File).DynamicSymbols)
	for _, form := range []struct {
		name    string
		ours    func(string) string
		options []string
	}{
		{"Simple", Simple, []string{"-p"}},
		{"Full", Full, nil},
	} {
		equal, unchanged, abbreviated, enclosing, newer, other := 0, 0, 0, 0, 0, 0
		for i, want := range filter(t, names, form.options...) {
			raw := names[i]
			got := form.ours(raw)
			switch {
			case got == want && got == raw:
				unchanged++
			case got == want:
				equal++
			case spelledOut(got) == spelledOut(want):
				abbreviated++
			case form.name == "Simple" && lib.Filter(raw, lib.NoParams) == want:
				enclosing++
			case want == raw:
				newer++
			default:
				if other++; other < 10 {
					t.Errorf("%s(%q)\n got %q\nwant %q", form.name, raw, got, want)
				}
			}
		}
		t.Logf("%s: %d symbols of %s compared: %d equal, %d unchanged in both, %d abbreviated, %d enclosing, %d newer, %d other",
			form.name, len(names), libraries[0], equal, unchanged, abbreviated, enclosing, newer, other)
		if equal < len(names)/2 {
			t.Errorf("%s: only %d of %d symbols compare", form.name, equal, len(names))
		}
	}
}

const rustProgram = `
pub mod geo {
    pub struct Circle(pub f64);
    pub trait Shape { fn area(&self) -> f64; }
    impl Shape for Circle { #[inline(never)] fn area(&self) -> f64 { self.0 * 3.0 } }
    #[inline(never)] pub fn total<T: Shape, const N: usize>(shapes: &[T; N]) -> f64 {
        shapes.iter().map(|s| std::hint::black_box(s.area())).sum()
    }
}
fn main() { println!("{}", geo::total(&[geo::Circle(1.0), geo::Circle(2.0)])); }
`

// emptyThenDigit matches v0 names of items inside a closure: the closure's empty identifier (0, or s_0) is followed by the digits of
// the item's length, and the library reads both as one number. They stay raw.
var emptyThenDigit = regexp.MustCompile(`^_R.*[A-Za-z_]0[0-9]+_*[A-Za-z_]`)

func TestRust(t *testing.T) {
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		rustc = "/root/.cargo/bin/rustc"
		if _, err := os.Stat(rustc); err != nil {
			t.Fatal("rustc is not installed; test/setup.sh installs what the tests need")
		}
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "shapes.rs")
	if err := os.WriteFile(source, []byte(rustProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mangling string
		prefix   string
		want     []string
	}{
		{"legacy", "_ZN", []string{"shapes::main", "shapes::geo::total", "<shapes::geo::Circle as shapes::geo::Shape>::area"}},
		{"v0", "_R", []string{"shapes::main", "shapes::geo::total::<shapes::geo::Circle, 2>", "<shapes::geo::Circle as shapes::geo::Shape>::area"}},
	} {
		binary := filepath.Join(dir, tt.mangling)
		out, err := exec.Command(rustc, "-C", "opt-level=1", "-C", "symbol-mangling-version="+tt.mangling, "-o", binary, source).CombinedOutput()
		if tt.mangling == "legacy" && bytes.Contains(out, []byte("unstable")) {
			// rustc 1.95, whose default is v0, has moved legacy behind -Z, which a stable compiler takes only like this.
			cmd := exec.Command(rustc, "-Z", "unstable-options", "-C", "opt-level=1", "-C", "symbol-mangling-version=legacy", "-o", binary, source)
			cmd.Env = append(os.Environ(), "RUSTC_BOOTSTRAP=1")
			out, err = cmd.CombinedOutput()
		}
		if err != nil {
			t.Fatalf("rustc: %v\n%s", err, out)
		}
		found := make(map[string]bool)
		mangled, known := 0, 0
		for _, raw := range symbolsOf(t, binary, (*elf.File).Symbols) {
			name := Simple(raw)
			if name == raw {
				switch {
				case emptyThenDigit.MatchString(raw):
					known++
				case strings.HasPrefix(raw, tt.prefix):
					t.Errorf("%q is left raw", raw)
				}
				continue
			}
			mangled++
			found[name] = true
			if strings.HasPrefix(raw, "_ZN") && strings.Contains(raw, "17h") && strings.Contains(name, "::h") && len(name[strings.LastIndex(name, "::h"):]) == 19 {
				t.Errorf("%q keeps its hash: %q", raw, name)
			}
			if strings.Contains(name, "$") || strings.HasPrefix(raw, "_R") && strings.Contains(name, "[") && crateHash(name) {
				t.Errorf("%q is not readable: %q", raw, name)
			}
		}
		for _, want := range tt.want {
			if !found[want] {
				t.Errorf("%s: no symbol is shown as %q", tt.mangling, want)
			}
		}
		t.Logf("%s: %d Rust names, %d left raw for the library's known mistake", tt.mangling, mangled, known)
	}
}

// crateHash tells a crate disambiguator, shapes[3f2a9c81d0e4b576], from slice types.
func crateHash(name string) bool {
	for _, part := range strings.Split(name, "[")[1:] {
		inside, _, closed := strings.Cut(part, "]")
		if _, err := strconv.ParseUint(inside, 16, 64); closed && err == nil && len(inside) > 8 {
			return true
		}
	}
	return false
}

// substitution is the n-th back reference of the C++ mangling: S_, S0_, ... SZ_, S10_.
func substitution(n int) string {
	if n == 0 {
		return "S_"
	}
	return "S" + strings.ToUpper(strconv.FormatInt(int64(n-1), 36)) + "_"
}

// grow repeats step, which sees its number, until the name is as long as the bound allows.
func grow(prefix string, step func(i int) string, suffix string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for i := 0; ; i++ {
		next := step(i)
		if b.Len()+len(next)+len(suffix) > maxMangledBytes {
			return b.String() + suffix
		}
		b.WriteString(next)
	}
}

// hostileNames are built to expand exponentially, to recurse deeply, or to make the library copy much.
func hostileNames() map[string]string {
	nest := func(open, inner, end string) string {
		n := (maxMangledBytes - 32) / (len(open) + len(end))
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	twice := func(open string, first int, end string) func(int) string {
		return func(i int) string { s := substitution(i + first); return open + s + s + end }
	}
	return map[string]string{
		"templates of templates": grow("_Z1f1AIiE", twice("S_I", 1, "E"), ""),
		"in the function's name": "_Z1fI" + grow("1AIiE", twice("S_I", 1, "E"), "")[:maxMangledBytes-16] + "EvT_",
		"functions of functions": grow("_Z1fFivE", twice("F", 0, "E"), ""),
		"member pointers":        grow("_Z1fMii", twice("M", 0, ""), ""),
		"packs of packs":         grow("_Z1fIJEEvDpT_", twice("DpM", 1, ""), ""),
		"nested packs":           "_Z1fIJiiiiiiiiiiEEv" + nest("DpFvT_", "", "E"),
		"wide pack":              "_Z1fIJ" + strings.Repeat("i", maxPackWork-16) + "EEvDpFvT_E",
		"wide packs":             "_Z1fIJ" + strings.Repeat("i", maxPackWork/3-40) + "EEvDpFvT_DpFvT_DpFvT_EEE",
		"pack of another":        "_Z1fIJ" + strings.Repeat("i", maxPackWork/4-24) + "EJ" + strings.Repeat("i", maxPackWork/4-16) + "EEvDpFvT_DpFvT0_T_EE",
		"pointers":               "_Z1f" + nest("P", "i", ""),
		"function pointers":      "_Z1f" + nest("PF", "i", "vE"),
		"nested templates":       "_Z1f" + nest("1AI", "i", "E"),
		"nested locals":          "_Z" + nest("Z", "1fv", "E1g"),
		"conversions":            "_Z" + nest("cv", "i", ""),
		"lambdas":                "_Z1f" + nest("1AIUl", "i", "E_E"),
		"rust references":        "_RINvC1a1f" + nest("R", "l", "") + "E",
		"rust tuples":            grow("_RINvC1a1fTllE", func(int) string { return "TB7_B7_E" }, "E"), // the first one again and again
		"rust tuples of tuples":  rustTuples(),
	}
}

// rustTuples is a v0 name in which each tuple is two of the one before.
func rustTuples() string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	backref := func(at int) string {
		s := ""
		for v := at - 1; ; v /= 62 {
			s = digits[v%62:v%62+1] + s
			if v < 62 {
				return "B" + s + "_"
			}
		}
	}
	name, at := "INvC1a1fTllE", len("INvC1a1f")
	for len(name) < maxMangledBytes-32 {
		here := len(name)
		name += "T" + backref(at) + backref(at) + "E"
		at = here
	}
	return "_R" + name + "E"
}

func TestHostileNamesAreBounded(t *testing.T) {
	for what, raw := range hostileNames() {
		if len(raw) > maxMangledBytes {
			t.Fatalf("%s: %d bytes", what, len(raw))
		}
		for form, ours := range map[string]func(string) string{"Simple": Simple, "Full": Full} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			name := ours(raw)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			garbage := after.TotalAlloc - before.TotalAlloc
			t.Logf("%-6s %-24s %d -> %d bytes (raw: %v), %v, %d KB allocated", form, what, len(raw), len(name), name == raw, took.Round(time.Microsecond), garbage>>10)
			if len(name) > max(len(raw), maxNameBytes) {
				t.Errorf("%s(%s) has %d bytes", form, what, len(name))
			}
			// The measured worst is 0.15 s and 160 MB. The allocations are the firm bound: under the race detector on a busy machine
			// the time is up to fifty times as long.
			if took > 20*time.Second || garbage > 256<<20 {
				t.Errorf("%s(%s) took %v and %d MB", form, what, took, garbage>>20)
			}
		}
	}
}

func TestTooLong(t *testing.T) {
	long := "_Z" + strconv.Itoa(2*maxMangledBytes) + strings.Repeat("a", 2*maxMangledBytes) + "v"
	if Simple(long) != long || Full(long) != long {
		t.Error("a name beyond the input bound was demangled")
	}
	// Two bytes a Circle: only the form without template arguments fits.
	wide := grow("_Z4areaI6Circle", func(int) string { return "S_" }, "EvT_")
	if got := Simple(wide); got != "area" {
		t.Errorf("Simple = %.80q", got)
	}
	if got := Full(wide); got != "area" {
		t.Errorf("Full = %.80q", got)
	}
}

// Whatever the name: no panic, a result within the bounds, and in time; what has no mangling prefix is not touched.
func FuzzDemangle(f *testing.F) {
	for _, raw := range []string{
		"_ZN3geo4areaINS_6CircleELi7EEEdRKT_", "_Z3foov.part.0.cold", "_ZZN1A1fEiENKUlvE_clEv@plt", "_Z1fIJiiEEvDpFvT_E",
		"_ZN4core3fmt5write17h0123456789abcdefE.llvm.1", "_RINvCs1234_4main4areahE", "_RINvC1a1fTllETB7_B7_EE", "___Z3foov_block_invoke",
		"_GLOBAL__I__Z3foov", "_Z1f1AIiES_IS0_S0_E", "_ZDaB1a", "_Z1fIiEDTfp_ET_", "main.main", "_ZcvT_IiEv", "_Z.", "_R.a..",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		// The fuzzer forgives an input that hangs; this does not.
		watchdog := time.AfterFunc(3*time.Second, func() { panic("still demangling " + strconv.Quote(raw)) })
		defer watchdog.Stop()
		for form, name := range map[string]string{"Simple": Simple(raw), "Full": Full(raw)} {
			if len(name) > max(len(raw), maxNameBytes) {
				t.Fatalf("%s: %d bytes from %d", form, len(name), len(raw))
			}
			if (name == "") != (raw == "") {
				t.Fatalf("%s(%q) = %q", form, raw, name)
			}
			if name != raw && !strings.HasPrefix(raw, "_") {
				t.Fatalf("%s(%q) = %q", form, raw, name)
			}
		}
	})
}

func BenchmarkSimple(b *testing.B) {
	for name, raw := range map[string]string{
		"go":   "net/http.(*conn).serve",
		"cpp":  "_ZNSt6vectorINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESaIS5_EE9push_backERKS5_",
		"rust": "_ZN4core3ptr31drop_in_place$LT$std..rt..X$GT$17h0123456789abcdefE",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Simple(raw)
			}
		})
	}
}
