// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// More than 100,000 distinct user stacks, each of which says whether it is genuine.
//
//   manystacks FIRST COUNT NANOS_EACH [THREADS]
//
// A code is 32 bits: a number of 17 bits and a checksum of 15. One stack is 32 calls, one for each bit of the code from
// the lowest, to one_K or zero_K where K is the bit's place; the innermost calls the leaf, which burns NANOS_EACH of
// CPU time (a little more than one sampling period). Only codes with the right checksum are ever run. A stack that was
// cut, mixed from two or given to the wrong hash has a wrong depth, a gap in its places or, but for one case in
// 32,768, a wrong checksum.
//
// The numbers FIRST .. FIRST+COUNT-1 are shared out among the threads. At the end one line:
//   {"first":0,"count":120000,"ran":120000,"total":36012345678}
// ran is less than count after a SIGTERM: thread T of N ran FIRST+T, FIRST+T+N, ...
#define _GNU_SOURCE
#include "truth.h"

#include <pthread.h>

#define KEEP __attribute__((noinline, noclone))

typedef uint64_t walk(uint32_t code, uint64_t nanos);

static uint64_t rounds_per_micro = 1;

KEEP uint64_t leaf(uint32_t code, uint64_t nanos)
{
	volatile uint64_t sum = code;
	for (uint64_t i = 0; i < nanos * rounds_per_micro / 1000; i++)
		sum = sum * 31 + i;
	return sum;
}

// one_31 and zero_31 call the leaf, every other pair the next: all 64 have a frame and no tail call.
#define LEVEL(PLACE, NEXT_ONE, NEXT_ZERO)                                                                             \
	KEEP uint64_t one_##PLACE(uint32_t code, uint64_t nanos)                                                      \
	{                                                                                                             \
		volatile uint64_t sum = (code >> 1 & 1 ? NEXT_ONE : NEXT_ZERO)(code >> 1, nanos);                     \
		return sum;                                                                                           \
	}                                                                                                             \
	KEEP uint64_t zero_##PLACE(uint32_t code, uint64_t nanos)                                                     \
	{                                                                                                             \
		volatile uint64_t sum = (code >> 1 & 1 ? NEXT_ONE : NEXT_ZERO)(code >> 1, nanos) + PLACE;             \
		return sum;                                                                                           \
	}
#define DOWN(PLACE, NEXT) LEVEL(PLACE, one_##NEXT, zero_##NEXT)

LEVEL(31, leaf, leaf)
DOWN(30, 31) DOWN(29, 30) DOWN(28, 29) DOWN(27, 28) DOWN(26, 27) DOWN(25, 26) DOWN(24, 25) DOWN(23, 24)
DOWN(22, 23) DOWN(21, 22) DOWN(20, 21) DOWN(19, 20) DOWN(18, 19) DOWN(17, 18) DOWN(16, 17) DOWN(15, 16)
DOWN(14, 15) DOWN(13, 14) DOWN(12, 13) DOWN(11, 12) DOWN(10, 11) DOWN(9, 10) DOWN(8, 9) DOWN(7, 8)
DOWN(6, 7) DOWN(5, 6) DOWN(4, 5) DOWN(3, 4) DOWN(2, 3) DOWN(1, 2) DOWN(0, 1)

// The upper 15 bits of number * 0x9e3779b1, a multiplicative hash: neighbours differ in about half of the bits. The
// test computes the same.
static uint32_t code_of(uint32_t number)
{
	return number | (number * 0x9e3779b1u >> 17) << 17;
}

static uint32_t first, count, thread_count = 1;
static uint64_t nanos_each;
static uint32_t ran;

KEEP void *run(void *argument)
{
	for (uint32_t i = (uint32_t)(uintptr_t)argument; i < count && !truth_stopping; i += thread_count) {
		uint32_t code = code_of(first + i);
		volatile uint64_t sum = (code & 1 ? one_0 : zero_0)(code, nanos_each);
		(void)sum;
		__atomic_fetch_add(&ran, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

// The leaf counts rounds and reads no clock, whose frames would stand in the samples: rounds are measured here.
static void measure_rounds(void)
{
	uint64_t best = 0;
	for (int i = 0; i < 5; i++) {
		uint64_t before = truth_clock(CLOCK_THREAD_CPUTIME_ID);
		volatile uint64_t sum = 0;
		for (uint64_t j = 0; j < 1000000; j++)
			sum = sum * 31 + j;
		uint64_t rounds = 1000000000u / (truth_clock(CLOCK_THREAD_CPUTIME_ID) - before);
		best = rounds > best ? rounds : best;
	}
	rounds_per_micro = best ? best : 1;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	if (argc < 4) {
		fprintf(stderr, "usage: manystacks FIRST COUNT NANOS_EACH [THREADS]\n");
		return 2;
	}
	first = (uint32_t)atol(argv[1]);
	count = (uint32_t)atol(argv[2]);
	nanos_each = (uint64_t)atoll(argv[3]);
	thread_count = argc > 4 ? (uint32_t)atoi(argv[4]) : 1;
	if (first + count > 1 << 17 || thread_count < 1 || thread_count > 64) {
		fprintf(stderr, "manystacks: a number has 17 bits, and there are 1 to 64 threads\n");
		return 2;
	}
	measure_rounds();
	truth_ready();
	for (uint32_t i = 0; i < thread_count; i++)
		if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i))
			return 1;
	for (uint32_t i = 0; i < thread_count; i++)
		pthread_join(threads[i], NULL);
	printf("{\"first\":%u,\"count\":%u,\"ran\":%u,\"total\":%llu}\n", first, count, ran,
	       (unsigned long long)truth_clock(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
