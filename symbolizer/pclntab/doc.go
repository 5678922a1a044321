// Package pclntab names code addresses of Go binaries from the table that the Go linker puts into every
// one of them, stripped or not: function, file, line and start line, with inlined calls expanded.
//
// The caller supplies an [objfile.File]; the package keeps it and reads from it on each look-up. It holds
// no copy of the table (30 MB in a large binary): a sparse index of the functions and a few cached
// blocks are all, see [Table.Bytes]. The file's bytes are not trusted: whatever they say, a look-up ends within a
// fixed number of steps and answers "not found" at worst.
//
// Tables of Go 1.18 and newer, 64-bit little-endian, one text section. Older and other ones are refused
// with [ErrUnsupported].
//
// # Format
//
// The header stands at the start of .gopclntab; all offsets count from its first byte.
//
//	 0  magic u32            f0 ff ff ff: Go 1.18, 1.19; f1 ff ff ff: Go 1.20 and newer
//	 4  0 0 quantum u8 8     quantum: 1 on amd64, 4 on arm64; 8 is the size of a pointer
//	 8  nfunc u64
//	16  nfiles u64
//	24  textStart u64        an address; 0 (no longer written) from Go 1.26
//	32  funcnametab u64 ──▶  NUL-terminated names
//	40  cutab u64       ──▶  u32 per (compilation unit, file): offset into filetab, or ^0
//	48  filetab u64     ──▶  NUL-terminated paths
//	56  pctab u64       ──▶  pc-value tables
//	64  functab u64     ──▶  nfunc × {entry u32, func u32}, end u32, then the func records
//
// Code positions are offsets from text (runtime.text), func counts from the start of functab. A func record:
//
//	 0  entry u32            28  npcdata u32
//	 4  name i32             32  cu u32, index of its first entry in cutab
//	 8  -                    36  startLine i32 (from Go 1.20; what follows moves up by 4)
//	12  -                    36  funcID u8, flag u8, pad u8, nfuncdata u8
//	16  pcsp u32             40  pcdata   npcdata × u32, offsets into pctab
//	20  pcfile u32               funcdata nfuncdata × u32, offsets from gofunc, or ^0
//	24  pcln u32
//
// A pc-value table is a list of pairs of varints: the zig-zag difference of the value (which starts at -1), then
// the number of quanta for which the new value holds. A difference of 0 that is not the first ends it:
//
//	02 05 04 03 00           value 0 for 5 quanta, 2 for 3 quanta
//
// pcfile gives the file within the compilation unit, pcln the line, pcdata[2] the index into the inline tree of
// the innermost inlined call. The tree is an array at gofunc+funcdata[3]:
//
//	Go 1.20   0 funcID u8, pad    4 name i32    8 parentPC i32    12 startLine i32
//	Go 1.18   0 parent i16    2 funcID u8    4 file i32    8 line i32    12 name i32    16 parentPC i32
//
// parentPC is the offset from the function's entry of an instruction whose position is that of the call, so the
// same tables answer again, there, for the caller.
//
// text and gofunc are not in the table: they stand in runtime.firstmoduledata, which no header points to. It is found by
// its first word, a pointer to the pclntab header (see moduledata.go).
package pclntab
