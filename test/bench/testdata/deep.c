// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * deep: burns one CPU 32 calls below main, without frame pointers, until it is
 * killed: 35 frames with leaf, main and the two of libc and one of crt1. The
 * frames are of 8 to 250 bytes, and some keep registers, as real code's are and do.
 */
static volatile unsigned long data[512];

__attribute__((noinline)) static unsigned long leaf(unsigned long rounds)
{
	volatile unsigned long sum = 0;

	for (unsigned long i = 0; i < rounds; i++)
		sum += data[i & 511]++;
	return sum;
}

#define LEVEL(name, next, size)                                                                            \
	__attribute__((noinline)) static unsigned long name(unsigned long a, unsigned long b)              \
	{                                                                                                  \
		volatile char room[size];                                                                  \
		unsigned long c = data[a & 511], d = data[b & 511];                                        \
                                                                                                           \
		room[0] = (char)a;                                                                         \
		return next(b, a + 1) + (size % 3 ? c : c ^ d ^ a) + (unsigned long)room[0];               \
	}

static unsigned long bottom(unsigned long a, unsigned long b)
{
	return leaf(1000000 + (a & b & 1));
}

#define FOUR(a, b, c, d, next) LEVEL(d, next, 8) LEVEL(c, d, 33) LEVEL(b, c, 100) LEVEL(a, b, 250)
FOUR(l28, l29, l30, l31, bottom)
FOUR(l24, l25, l26, l27, l28)
FOUR(l20, l21, l22, l23, l24)
FOUR(l16, l17, l18, l19, l20)
FOUR(l12, l13, l14, l15, l16)
FOUR(l08, l09, l10, l11, l12)
FOUR(l04, l05, l06, l07, l08)
FOUR(l00, l01, l02, l03, l04)

int main(void)
{
	for (unsigned long i = 0;; i++)
		data[i & 511] += l00(i, i >> 1);
}
