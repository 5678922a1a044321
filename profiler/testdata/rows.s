# SPDX-License-Identifier: Apache-2.0
# A function of x86-64 whose frame changes with each of its instructions, so that its table has as many rows.
# --defsym instructions=N says how many, an even number.
	.section .note.GNU-stack, "", @progbits
	.text
function:
	.fill instructions, 1, 0x90
	.section .eh_frame, "a", @progbits
cie:
	.long 2f - 1f
1:	.long 0
	.byte 1
	.string "zR"
	.uleb128 1
	.sleb128 -8
	.uleb128 16
	.uleb128 1
	.byte 0x1b # DW_EH_PE_pcrel | DW_EH_PE_sdata4
	.byte 0x0c, 7, 8 # DW_CFA_def_cfa rsp, 8
	.byte 0x90, 1 # DW_CFA_offset rip, 1
	.balign 8
2:	.long 4f - 3f
3:	.long 3b - cie
	.long function - .
	.long instructions
	.uleb128 0
	.rept instructions / 2
	.ascii "\x41\x0e\x10\x41\x0e\x08" # DW_CFA_advance_loc 1, DW_CFA_def_cfa_offset 16, and the same with 8
	.endr
	.balign 8
4:
