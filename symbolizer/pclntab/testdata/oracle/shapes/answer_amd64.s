#include "textflag.h"

// func Answer(x int) int
TEXT ·Answer(SB), NOSPLIT, $0-16
	MOVQ x+0(FP), AX
	ADDQ $42, AX
	MOVQ AX, ret+8(FP)
	RET
