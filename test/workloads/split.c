// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Three functions, 50/30/20, each called by main -> work -> middle -> burn_x:
//
//   split [SECONDS]
//
// With -DFRAMELESS, burn_c spends its time in frameless_leaf, a leaf that touches no stack: gcc gives it no frame
// even with -mno-omit-leaf-frame-pointer, and a walk by frame pointers then goes from the leaf to middle, past burn_c.
#include "truth.h"

#define KEEP __attribute__((noinline, noclone))

// The store to the stack in each loop is what makes gcc set up a frame for these leaves. The three bodies differ,
// so that no linker folds them into one.
KEEP uint64_t burn_a(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * 31 + i;
	return sum;
}

KEEP uint64_t burn_b(uint64_t rounds)
{
	volatile uint64_t sum = 2;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = (sum ^ i) * 17;
	return sum;
}

#ifdef FRAMELESS
KEEP uint64_t frameless_leaf(uint64_t rounds)
{
	uint64_t sum = 3;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = (sum << 3 ^ sum >> 5) + i;
	return sum;
}

KEEP uint64_t burn_c(uint64_t rounds)
{
	volatile uint64_t sum = frameless_leaf(rounds);
	return sum;
}
#else
KEEP uint64_t burn_c(uint64_t rounds)
{
	volatile uint64_t sum = 3;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = (sum << 3 ^ sum >> 5) + i;
	return sum;
}
#endif

// Each caller stores what it gets, so that no call is a tail call.
KEEP uint64_t middle(int part, uint64_t rounds)
{
	volatile uint64_t sum;
	if (part == 0)
		sum = burn_a(rounds);
	else if (part == 1)
		sum = burn_b(rounds);
	else
		sum = burn_c(rounds);
	return sum;
}

KEEP void work(int part, uint64_t rounds)
{
	volatile uint64_t sum = middle(part, rounds);
	(void)sum;
}

int main(int argc, char **argv)
{
	struct part parts[] = {
		{ "burn_a", 50, 0, 0 },
		{ "burn_b", 30, 0, 0 },
		{ "burn_c", 20, 0, 0 },
	};
	truth_run(parts, 3, argc > 1 ? atof(argv[1]) : 0, work);
	return 0;
}
