// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// load PROCESSES THREADS PERCENT: so many processes of so many threads, each thread of which burns PERCENT (a decimal number) of
// a CPU in slices of 1 to 5 ms with sleeps between them, until the first process gets SIGTERM. It says "ready" when all
// run, and then nothing: /proc knows what each process has burned.
//
// Built with frame pointers: main or thread -> work -> burn_load.
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "truth.h"

static double percent;

__attribute__((noinline, noclone)) static uint64_t burn_load(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds; i++)
		sum = sum * 31 + i;
	return sum;
}

__attribute__((noinline, noclone)) static void *work(void *seed)
{
	uint64_t random = (uintptr_t)seed * 0x9e3779b97f4a7c15ULL + 1;
	double rounds_per_nano = 0.05, sleep_before = (double)(truth_random(&random) % 1000) / 1000;
	for (;;) {
		uint64_t slice = 1000000 + truth_random(&random) % 4000000;
		uint64_t pause = (uint64_t)(sleep_before * (double)slice * (100 / percent - 1));
		struct timespec t = {(time_t)(pause / 1000000000u), (long)(pause % 1000000000u)};
		if (pause)
			nanosleep(&t, NULL);
		sleep_before = 1;
		uint64_t before = truth_clock(CLOCK_THREAD_CPUTIME_ID);
		uint64_t rounds = (uint64_t)((double)slice * rounds_per_nano);
		burn_load(rounds);
		uint64_t took = truth_clock(CLOCK_THREAD_CPUTIME_ID) - before;
		if (took)
			rounds_per_nano = (double)rounds / (double)took;
	}
	return NULL;
}

static void run(unsigned long number, unsigned long threads)
{
	for (unsigned long i = 1; i < threads; i++) {
		pthread_t thread;
		pthread_attr_t attr;
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 65536);
		if (pthread_create(&thread, &attr, work, (void *)(number * threads + i)))
			perror("load: pthread_create"), _exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4 || (percent = atof(argv[3])) <= 0 || percent > 100)
		return fprintf(stderr, "usage: load PROCESSES THREADS PERCENT\n"), 2;
	unsigned long processes = strtoul(argv[1], NULL, 10), threads = strtoul(argv[2], NULL, 10), number = 0;
	pid_t parent = getpid();
	int ready[2];
	if (pipe(ready))
		return perror("load: pipe"), 1;
	for (unsigned long i = 1; i < processes && !number; i++) {
		pid_t child = fork();
		if (child < 0)
			return perror("load: fork"), 1;
		if (!child)
			number = i;
	}
	if (number) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			return 1;
	}
	run(number, threads);
	if (write(ready[1], "x", 1) != 1)
		return 1;
	char byte;
	for (unsigned long i = 0; !number && i < processes; i++)
		if (read(ready[0], &byte, 1) != 1)
			return 1;
	if (!number) {
		puts("ready");
		fflush(stdout);
	}
	work((void *)(number * threads));
}
