// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A library for reload.c. With -DSECOND the frames have other sizes, and other names: enter, first_outer, first_inner, first_spin, or
// enter, second_outer, second_inner, second_spin.
#include <alloca.h>
#include <stdint.h>

#define KEEP __attribute__((noinline, noclone))

#ifdef SECOND
#define NAME(name) second_##name
#define BYTES 2000
#else
#define NAME(name) first_##name
#define BYTES 80
#endif

static KEEP uint64_t NAME(spin)(uint64_t x)
{
	for (int i = 0; i < 20000000; i++)
		x = (x << 3 ^ x >> 5) + (uint64_t)i;
	return x;
}

static KEEP uint64_t NAME(inner)(uint64_t x)
{
	volatile unsigned char room[BYTES];
	room[x % BYTES] = 1;
	return NAME(spin)(x) + room[x % BYTES];
}

static KEEP uint64_t NAME(outer)(uint64_t x)
{
	volatile unsigned char *room = alloca(BYTES + (x & 63));
	room[x & 63] = 1;
	return NAME(inner)(x) + room[x & 63];
}

uint64_t enter(uint64_t x)
{
	volatile uint64_t got = NAME(outer)(x);
	return got;
}
