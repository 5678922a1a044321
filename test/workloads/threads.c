// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Named threads that all burn in the same function, 60/30/10: only the `thread` label tells them apart.
//
//   threads [SECONDS]
//
// Each thread sleeps after a slice in proportion to its weight, so that the shares hold on one CPU as on many.
#define _GNU_SOURCE
#include "truth.h"

#include <pthread.h>

#define KEEP __attribute__((noinline, noclone))

// The part's name is the thread's name; at most 15 bytes, the kernel's limit.
static struct part parts[] = {
	{ "worker-large", 60, 0, 0 },
	{ "worker-medium", 30, 0, 0 },
	{ "worker-small", 10, 0, 0 },
};

KEEP uint64_t burn(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * 31 + i;
	return sum;
}

KEEP void *worker(void *argument)
{
	struct part *part = argument;
	uint64_t random_state = 88172645463325252ULL + (uint64_t)(part - parts);
	pthread_setname_np(pthread_self(), part->name);
	while (!truth_stopping) {
		uint64_t rounds = truth_rounds(part, &random_state);
		uint64_t before = truth_clock(CLOCK_THREAD_CPUTIME_ID);
		volatile uint64_t sum = burn(rounds);
		(void)sum;
		uint64_t nanos = truth_clock(CLOCK_THREAD_CPUTIME_ID) - before;
		truth_burned(part, rounds, nanos);
		// busy for a weight'th of 125 % of the time: all three together use 0.8 of one CPU
		double idle = (double)nanos * (125 / part->weight - 1);
		struct timespec pause = { (time_t)(idle / 1e9), (long)idle % 1000000000 };
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0;
	pthread_t threads[3];
	truth_ready();
	uint64_t started = truth_clock(CLOCK_MONOTONIC);
	for (int i = 0; i < 3; i++)
		if (pthread_create(&threads[i], NULL, worker, &parts[i]))
			return 1;
	while (!truth_stopping) {
		struct timespec pause = { 0, 100000000 };
		nanosleep(&pause, NULL);
		if (seconds > 0 && (double)(truth_clock(CLOCK_MONOTONIC) - started) >= seconds * 1e9)
			truth_stopping = 1;
		truth_report(parts, 3);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	truth_report(parts, 3);
	return 0;
}
