// SPDX-License-Identifier: Apache-2.0
// What a workload says about itself, so that a profile of it can be judged.
//
// A workload burns CPU in slices of a few milliseconds. A slice stays inside one named function (a part), and
// CLOCK_THREAD_CPUTIME_ID is read before and after it, never within: the burning code makes no system call, so
// a sample of it has no kernel frame but an interrupt's. About every 100 ms the workload prints one line:
//
//   {"monotonic":5123456789,"total":901234567,"cpu":{"burn_a":450000000,"burn_b":270000000,"burn_c":180000000}}
//
// monotonic is CLOCK_MONOTONIC in nanoseconds; the others are cumulative CPU nanoseconds: of the process, and of
// each part. Cumulative, so that the split of any window is the difference of two lines. The line before the first
// is "ready". SIGTERM, SIGINT or the end of the given seconds end the workload after one last line.
//
// Slice lengths are random, 2.5 to 7.5 ms: a fixed length beats with the sampling period (10 ms a round is
// almost exactly five periods of 499 Hz), and the samples would then favour one part.
#ifndef TRUTH_H
#define TRUTH_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct part {
	const char *name;
	double weight;           // the share of CPU time it aims at
	uint64_t nanos;          // the CPU time it has burned; written by one thread, read by the reporting one
	double rounds_per_nano;  // learned from its last slice
};

static volatile sig_atomic_t truth_stopping;
static uint64_t truth_random_state = 88172645463325252ULL;

static inline uint64_t truth_clock(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// xorshift64*: the order must be irregular, not unpredictable.
static inline uint64_t truth_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ULL;
}

static inline void truth_stop(int signal)
{
	(void)signal;
	truth_stopping = 1;
}

static inline void truth_ready(void)
{
	signal(SIGTERM, truth_stop);
	signal(SIGINT, truth_stop);
	puts("ready");
	fflush(stdout);
}

// The part that is furthest behind its weight.
static inline struct part *truth_next(struct part *parts, int count)
{
	struct part *next = parts;
	for (int i = 1; i < count; i++)
		if ((double)parts[i].nanos * next->weight < (double)next->nanos * parts[i].weight)
			next = &parts[i];
	return next;
}

// How many rounds of the part's loop last 2.5 to 7.5 ms of CPU time.
static inline uint64_t truth_rounds(const struct part *part, uint64_t *random_state)
{
	if (part->rounds_per_nano == 0)
		return 1;
	double nanos = 2.5e6 + (double)(truth_random(random_state) % 5000000u);
	double rounds = nanos * part->rounds_per_nano;
	return rounds < 1 ? 1 : (uint64_t)rounds;
}

static inline void truth_burned(struct part *part, uint64_t rounds, uint64_t nanos)
{
	part->rounds_per_nano = (double)rounds / (double)(nanos ? nanos : 1);
	__atomic_fetch_add(&part->nanos, nanos, __ATOMIC_RELAXED);
}

static inline void truth_report(const struct part *parts, int count)
{
	printf("{\"monotonic\":%llu,\"total\":%llu,\"cpu\":{",
	       (unsigned long long)truth_clock(CLOCK_MONOTONIC),
	       (unsigned long long)truth_clock(CLOCK_PROCESS_CPUTIME_ID));
	for (int i = 0; i < count; i++)
		printf("%s\"%s\":%llu", i ? "," : "", parts[i].name,
		       (unsigned long long)__atomic_load_n(&parts[i].nanos, __ATOMIC_RELAXED));
	puts("}}");
	fflush(stdout);
}

// Runs slices until it is told to stop or the seconds are over (0: no end). `slice` is the first named function
// of every slice's stack.
static inline void truth_run(struct part *parts, int count, double seconds,
			     void (*slice)(int part, uint64_t rounds))
{
	truth_ready();
	uint64_t started = truth_clock(CLOCK_MONOTONIC), reported = 0;
	for (;;) {
		uint64_t now = truth_clock(CLOCK_MONOTONIC);
		int done = truth_stopping || (seconds > 0 && (double)(now - started) >= seconds * 1e9);
		if (done || now - reported >= 100000000u) {
			truth_report(parts, count);
			reported = now;
		}
		if (done)
			return;
		struct part *next = truth_next(parts, count);
		uint64_t rounds = truth_rounds(next, &truth_random_state);
		uint64_t before = truth_clock(CLOCK_THREAD_CPUTIME_ID);
		slice((int)(next - parts), rounds);
		truth_burned(next, rounds, truth_clock(CLOCK_THREAD_CPUTIME_ID) - before);
	}
}

#endif
