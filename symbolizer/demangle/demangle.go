// Package demangle turns the symbol names of C++ and Rust into what a person reads in a profile.
//
// The caller supplies the raw name as it stands in a symbol table; nothing says which language it comes from.
// Mangled names are known by their prefixes: _Z (C++ and older Rust), _R (Rust v0), and the few that
// compilers derive from C++ names (_GLOBAL__I__Z..., ___Z..._block_invoke). All others are returned as they are,
// Go and C names among them.
//
// The names come from binaries that nobody vouches for. A name of a few hundred bytes can stand for one of 2^100: the
// mangling refers back to earlier parts. So the input, the output and thereby the time are bounded, and whatever cannot
// be demangled within the bounds is returned raw. There is no cache: callers demangle a name once, when they
// first read it.
//
// The parsing is that of github.com/ianlancetaylor/demangle. This package chooses the form, and holds the library to
// the bounds.
package demangle

import (
	"strings"

	lib "github.com/ianlancetaylor/demangle"
)

const (
	// maxMangledBytes bounds the input; longer names are returned raw. The longest dynamic symbol of LLVM, librustc and
	// libstdc++ has 657 bytes. The library copies what a substitution refers to and parses local names more than
	// once, so that its time grows at least with the square of the length: TestHostileNamesAreBounded prints it.
	maxMangledBytes = 2 << 10

	// maxPackWork bounds the length times the number of pack expansions (Dp, sp); beyond it names are returned raw.
	// The library expands a pack by copying the pattern for each argument, nested patterns again and
	// again: 10 s and 4.8 GB of garbage for 4 KiB of nested expansions. The time measured is about 0.13 us times the square
	// of this product, so 0.2 s. LLVM's dynamic symbols have at most 2 expansions.
	maxPackWork = 1200

	// maxNameBytesLog2 bounds the output: the library stops printing at 2^12 bytes. A longer name is given in a
	// shorter form, the last being the raw name: no result is longer than this, or than the input.
	maxNameBytesLog2 = 12
	maxNameBytes     = 1 << maxNameBytesLog2
)

var (
	fullOptions   = []lib.Option{lib.MaxLength(maxNameBytesLog2)}
	simpleOptions = []lib.Option{lib.NoParams, lib.NoEnclosingParams, lib.MaxLength(maxNameBytesLog2)}
	bareOptions   = []lib.Option{lib.NoParams, lib.NoEnclosingParams, lib.NoTemplateParams, lib.MaxLength(maxNameBytesLog2)}
)

// Simple returns the form for pprof's Function.Name: C++ with template arguments, but without parameters and return type
// (those of an enclosing function included); Rust without hash and crate disambiguators.
//
//	_ZN3geo4areaINS_6CircleELi7EEEdRKT_         geo::area<geo::Circle, 7>
//	_ZN3foo3barEi.constprop.0.cold              foo::bar [clone .constprop.0] [clone .cold]
//	_ZN4core3fmt5write17h0123456789abcdefE      core::fmt::write
//	_RINvCs1234_4main4areahE                    main::area::<u8>
//	main.(*Server).handle                       main.(*Server).handle
//
// Clones keep their suffix, because a cold part or a specialised copy is code of its own; a suffix that only makes the
// name unique in the linker's eyes (.llvm.123, .__uniq.456, .lto_priv.0) is dropped. A name too long for the bound loses its
// template arguments. Parameters are not even parsed, so a name with broken ones is demangled here and raw in [Full].
func Simple(raw string) string {
	return format(raw, simpleOptions, bareOptions)
}

// Full returns the form with parameters, and with the return type where the mangling has it (templates):
//
//	_ZN3geo4areaINS_6CircleELi7EEEdRKT_         double geo::area<geo::Circle, 7>(geo::Circle const&)
//
// For Rust, whose mangling has no parameters, it is the same as [Simple], and so it is for a name too long for the bound.
func Full(raw string) string {
	return format(raw, fullOptions, simpleOptions, bareOptions)
}

// format tries the forms until one fits.
func format(raw string, forms ...[]lib.Option) string {
	if !isMangled(raw) || len(raw) > maxMangledBytes || packWork(raw) > maxPackWork {
		return raw
	}
	mangled, suffix := cutSuffix(raw)
	for _, options := range forms {
		name, ok := demangle(mangled, options)
		if !ok && mangled != raw {
			// A dot inside of an identifier: then there is no suffix.
			mangled, suffix = raw, ""
			name, ok = demangle(mangled, options)
		}
		if !ok {
			return raw
		}
		// The library cuts at the bound, so a name that reaches it is not known to be whole.
		if name += suffix; len(name) < maxNameBytes {
			return name
		}
	}
	return raw
}

// demangle calls the library. Its internal consistency checks panic, and they are reached by input, not only by its own
// mistakes, so a panic means what an error means. (A stack overflow could not be recovered from; the recursion is no
// deeper than the input is long.)
func demangle(mangled string, options []lib.Option) (name string, ok bool) {
	defer func() {
		if recover() != nil {
			name, ok = "", false
		}
	}()
	name, err := lib.ToString(mangled, options...)
	return name, err == nil && name != ""
}

func isMangled(raw string) bool {
	if len(raw) < 3 || raw[0] != '_' {
		return false
	}
	return raw[1] == 'Z' || raw[1] == 'R' || strings.HasPrefix(raw, "___Z") || strings.HasPrefix(raw, "_GLOBAL_")
}

// packWork is too high where an identifier happens to hold the letters of an expansion, never too low.
func packWork(raw string) int {
	return len(raw) * (strings.Count(raw, "Dp") + strings.Count(raw, "sp"))
}

// cutSuffix separates what compilers, linkers and disassemblers append to a mangled name, and returns it
// as it is to be shown.
//
//	_Z3fooi.isra.0.cold   " [clone .isra.0] [clone .cold]"
//	_Z3fooi.llvm.123      ""
//	_Z3fooi@plt           "@plt"
func cutSuffix(raw string) (mangled, suffix string) {
	mangled = raw
	if at := strings.IndexByte(mangled, '@'); at >= 0 {
		mangled, suffix = mangled[:at], mangled[at:]
	}
	end := legacyRustLen(mangled)
	if end == 0 {
		end = strings.IndexByte(mangled, '.')
	}
	if end < 0 || strings.HasSuffix(mangled, ".") || strings.Contains(mangled[end:], "..") {
		return mangled, suffix // no dot, or one without a word behind it
	}
	return mangled[:end], showClones(mangled[end:]) + suffix
}

// legacyRustLen returns the length of a name in Rust's older mangling without what follows it, or 0 if it is none. Its
// identifiers hold dots, so that the first dot says nothing; its end does: 17h, 16 hexadecimal digits, E.
func legacyRustLen(raw string) int {
	const hashBytes = len("17h0123456789abcdefE")
	end := len(raw)
	if dot := strings.LastIndex(raw, "E."); dot >= 0 {
		end = dot + 1
	}
	if strings.HasPrefix(raw, "_ZN") && end > hashBytes && raw[end-1] == 'E' && raw[end-hashBytes:end-hashBytes+3] == "17h" {
		return end
	}
	return 0
}

// showClones writes ".isra.0.cold" in the way of c++filt, " [clone .isra.0] [clone .cold]", without the suffixes that only
// make a name unique.
func showClones(suffix string) string {
	var b strings.Builder
	for suffix != "" {
		end := cloneLen(suffix)
		clone := suffix[:end]
		suffix = suffix[end:]
		kind, _, _ := strings.Cut(clone[1:], ".")
		switch kind {
		case "llvm", "__uniq", "lto_priv":
		default:
			b.WriteString(" [clone " + clone + "]")
		}
	}
	return b.String()
}

// cloneLen is the length of the first clone of ".isra.0.cold": a dotted word and the dotted numbers behind it. suffix does not
// end with a dot.
func cloneLen(suffix string) int {
	end := 1
	for end < len(suffix) {
		if suffix[end] == '.' && (suffix[end+1] < '0' || suffix[end+1] > '9') {
			break
		}
		end++
	}
	return end
}
