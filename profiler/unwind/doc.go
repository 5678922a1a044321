// Package unwind says how a stack frame is left: at each code address of a file, where the caller's frame begins and where
// the saved registers lie. It compiles what compilers leave in ELF files (.eh_frame, .debug_frame, Go's pclntab) into a [Table]
// that is small enough to be in memory for every file that runs on a host, and flat enough to be searched inside of a BPF program.
//
// The caller supplies an [objfile.File], whose bytes are not trusted: memory is bounded by named limits and by the size
// of the sections, every loop makes progress, and what cannot be understood becomes a gap that is counted
// in [Stats], not an error.
//
// What these sources leave out is known by its instructions where they say enough: trampolines of signals, procedure linkage tables, the calls
// at musl's roots, arm64's vdso functions without a frame, on x86-64 what compilers add to every program, and code with frame pointers such as
// V8's builtins. Of the code between functions [maxSearch] bytes are searched at most; all else that nothing tells of is a gap.
//
// It refuses files whose code spans more than [maxSpan] bytes or needs more than [maxRows] rows.
//
// # Glossary
//
//   - CFA, canonical frame address: the value that the stack pointer has in the caller after the call returned (x86-64: the
//     address above the return address).
//   - row: a rule, and the first file offset that it holds for. It ends where the next row begins.
//   - rule: how CFA, return address and saved registers are found. Register numbers are those of DWARF.
//
// # Format
//
// Addresses are file offsets, so that a table serves every process, wherever the file is mapped. The code is cut into
// blocks of 4 KiB. The index holds for each block the number of its first row, and one more entry for the end; a block begins with
// a row of its own even where a rule holds on from the block before, so that a search never leaves its block. A block without
// a row holds no rules at all.
//
//	index  u32   │ 0 │ 31 │ 96 │ 96 │ 140 │ ...          block b has rows index[b] to index[b+1]-1
//	               │    │
//	rows   u32   │ row row row ... │ row row ...         sorted within a block
//
//	        31            20 19                    0
//	row   │ offset in block │      rule code        │
//
// Most rules fit the 20 bits of the code, and so cost no further cache line: a kind (3 bits) and its payload (17 bits). The
// stack counts in words of 8 bytes.
//
//	kind 0  no rule      payload 0: a gap; 1: the outermost frame, which nobody called
//	kind 7  table        payload is an index into the rules of the file: see [Rule]
//
//	x86-64, return address at CFA-8            payload
//	kind 1  CFA = rsp + 8a                     a: 12 bits, b: 5 bits; rbp at CFA-8b, unchanged if b is 0
//	kind 2  CFA = rbp + 8a                     likewise
//	kind 3  CFA = rsp + 8a                     rbp at CFA-8b, rbx at CFA-8(b+1)
//	kind 4  CFA = rbp + 8a                     rbp at CFA-16, rbx at CFA-8b
//	kind 5  CFA = rsp + 8a                     rbp unchanged, rbx at CFA-8b
//	kind 6  CFA = rsp + 8a                     rbp at CFA-16, rbx at CFA-8b
//
//	arm64                                      payload
//	kind 1  CFA = sp + 8a                      a: 17 bits; return address in lr, fp unchanged
//	kind 2  CFA = sp + 8a                      a: 11 bits, d: 6 bits, signed; fp at CFA-8(a+d), return address above it
//	kind 3  CFA = fp + 8a                      likewise
package unwind

// Bounds on what one file makes us allocate.
const (
	// maxSection bounds what is read at once of a file: a section of unwind information, inflated if it has to be. Chromium, the
	// largest known, has 20 MB.
	maxSection = 64 << 20
	// maxSegments bounds the executable segments; linkers make one or two.
	maxSegments = 64
	// maxFunctions bounds the functions; libLLVM has 118,000.
	maxFunctions = 4 << 20
	// maxCIE bounds one of the entries that functions have in common; compilers write 30 bytes.
	maxCIE = 4 << 10
	// maxCIEs bounds the entries that functions have in common: one for each file that was compiled, or less.
	maxCIEs = 1 << 16
	// maxRows bounds the rows; libLLVM has a million.
	maxRows = 8 << 20
	// maxRules is what the payload of a code can tell apart; libLLVM has some hundred.
	maxRules = 1 << 17
	// maxSpan bounds the distance of the first code from the last, and so the index (1 MiB at most).
	maxSpan = 1 << 30
	// maxRemembered bounds the stack of DW_CFA_remember_state. Compilers use one.
	maxRemembered = 16
)
