// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * target DEPTH: burns one CPU DEPTH calls below main, with frame pointers,
 * until it is killed. The leaf looks at a small array, as real code has data.
 */
#include <stdlib.h>

static volatile unsigned long data[512];

__attribute__((noinline)) static void leaf(unsigned long rounds)
{
	volatile unsigned long sum = 0;

	for (unsigned long i = 0; i < rounds; i++)
		sum += data[i & 511]++;
}

__attribute__((noinline)) static void descend(int depth)
{
	volatile int here = depth;

	if (depth <= 0)
		leaf(1000000);
	else
		descend(depth - 1);
	here++; /* work after the call: no tail call */
}

int main(int argc, char **argv)
{
	int depth = argc > 1 ? atoi(argv[1]) : 10;

	for (;;)
		descend(depth);
}
