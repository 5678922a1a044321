// Package callframe reads call frame information as it stands in a file: .eh_frame, which programs themselves unwind by, and
// .debug_frame. Both tell of each function where it starts, how long it is, and by instructions where its caller's registers are.
// What the instructions mean is no matter of this package.
//
// Both sections are lists of entries, a [CIE] for what many functions have in common and an FDE for each function. They differ in how entries
// refer to each other:
//
//	.eh_frame                                       .debug_frame
//	length u32 (or ~0 u32, length u64)              the same
//	id u32: 0 in a CIE, in an FDE how far           id u32 (u64 where the length is): ~0 in a CIE,
//	        before this field its CIE stands                in an FDE the offset of its CIE
//
// An [Index] is the sorted table beside .eh_frame, by which a program finds the function of an address.
//
// Whoever made a file chose these bytes: what one look-up or one entry costs is bounded here; how many entries are read is bounded by
// who reads them.
package callframe
