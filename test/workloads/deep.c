// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Calls in frames of all shapes, built without frame pointers. The names tell how a stack has to look:
//
//   deep chain       main, run, level_00, level_01, ..., level_29, spin
//   deep signal      the same, interrupted by on_alarm, alarm_outer, alarm_inner
//   deep altstack    the same; the handler has a stack of its own
//   deep recursion   main, run, 900 times recurse, spin
//   deep threads     worker, level_00, ..., level_29, spin, in two threads
//   deep clocks      main, run, level_00, ..., level_09, clocks, and what is in clock_gettime
//   deep syscalls    main, run, level_00, ..., level_09, syscalls, and read or getppid, and what is in the kernel
#define _GNU_SOURCE
#include "truth.h"

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#ifdef __clang__
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noipa))
#endif

typedef uint64_t function(uint64_t x);

// How deep the chain is, and what is at its end.
static volatile int deepest = 29;
static function *volatile bottom;

// Milliseconds, in a leaf that touches no stack.
KEEP uint64_t spin(uint64_t x)
{
	for (int i = 0; i < 2000000; i++)
		x = (x << 3 ^ x >> 5) + (uint64_t)i;
	return x;
}

KEEP uint64_t clocks(uint64_t x)
{
	struct timespec now = { 0, 0 };
	for (int i = 0; i < 20000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		x += (uint64_t)now.tv_nsec;
	}
	return x;
}

KEEP uint64_t syscalls(uint64_t x)
{
	static int zero = -1;
	char block[4096];
	if (zero < 0)
		zero = open("/dev/zero", O_RDONLY);
	for (int i = 0; i < 1000; i++) {
		x += (uint64_t)getppid();
		if (read(zero, block, sizeof block) > 0)
			x += (uint64_t)block[i];
	}
	return x;
}

// 1##n is decimal, where 08 would be a broken octal number.
#define NEXT(n, next) (deepest + 100 == 1##n ? bottom(x) : level_##next(x))

// Registers are saved, nothing else.
#define PLAIN(n, next) \
	KEEP uint64_t level_##n(uint64_t x) \
	{ \
		uint64_t got = NEXT(n, next); \
		return got * 3 + x; \
	}

// As many registers as there are.
#define MANY(n, next) \
	KEEP uint64_t level_##n(uint64_t x) \
	{ \
		uint64_t a = x * 3, b = x * 5, c = x ^ 7, d = x + 9, e = x << 1, f = x >> 1; \
		uint64_t got = NEXT(n, next); \
		return (got + a) ^ (b + c) ^ (d + e) ^ f; \
	}

// Room of a size that is known.
#define FIXED(n, next, bytes) \
	KEEP uint64_t level_##n(uint64_t x) \
	{ \
		volatile unsigned char room[bytes]; \
		room[x % (bytes)] = (unsigned char)x; \
		uint64_t got = NEXT(n, next); \
		return got + room[x % (bytes)]; \
	}

// Room of a size that is not: the frame is found by a register that keeps its address.
#define DYNAMIC(n, next, bytes) \
	KEEP uint64_t level_##n(uint64_t x) \
	{ \
		volatile unsigned char *room = alloca((bytes) + (x & 63)); \
		room[x & 63] = (unsigned char)x; \
		uint64_t got = NEXT(n, next); \
		return got + room[x & 63]; \
	}

// A frame that is aligned anew.
#define ALIGNED(n, next) \
	KEEP uint64_t level_##n(uint64_t x) \
	{ \
		volatile uint64_t room[8] __attribute__((aligned(64))); \
		room[x & 7] = x; \
		uint64_t got = NEXT(n, next); \
		return got + room[x & 7]; \
	}

static uint64_t level_30(uint64_t x)
{
	abort();
	return x;
}

PLAIN(29, 30)
DYNAMIC(28, 29, 100)
FIXED(27, 28, 24)
MANY(26, 27)
ALIGNED(25, 26)
PLAIN(24, 25)
FIXED(23, 24, 5000)
DYNAMIC(22, 23, 3000)
ALIGNED(21, 22)
MANY(20, 21)
FIXED(19, 20, 8)
PLAIN(18, 19)
DYNAMIC(17, 18, 64)
DYNAMIC(16, 17, 65)
MANY(15, 16)
FIXED(14, 15, 2000)
PLAIN(13, 14)
ALIGNED(12, 13)
FIXED(11, 12, 300)
DYNAMIC(10, 11, 1000)
MANY(09, 10)
PLAIN(08, 09)
ALIGNED(07, 08)
DYNAMIC(06, 07, 80)
FIXED(05, 06, 136)
PLAIN(04, 05)
MANY(03, 04)
DYNAMIC(02, 03, 200)
FIXED(01, 02, 1024)
PLAIN(00, 01)

KEEP uint64_t recurse(uint64_t depth)
{
	volatile uint64_t room[2] = { depth, 0 };
	room[1] = depth == 0 ? spin(1) : recurse(depth - 1);
	return room[0] + room[1];
}

KEEP void run(function *first)
{
	volatile uint64_t sum = 0;
	while (!truth_stopping)
		sum += first(899); // how deep recurse is to go
}

KEEP uint64_t alarm_inner(uint64_t x)
{
	for (int i = 0; i < 500000; i++)
		x = (x << 3 ^ x >> 5) + (uint64_t)i;
	return x;
}

KEEP uint64_t alarm_outer(uint64_t x)
{
	volatile unsigned char *room = alloca(x & 63);
	room[0] = 1;
	return alarm_inner(x) + room[0];
}

static volatile uint64_t alarms;

KEEP void on_alarm(int signal)
{
	alarms += alarm_outer((uint64_t)signal + 32);
}

static void start_alarms(int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	action.sa_flags = SA_RESTART | flags;
	sigaction(SIGALRM, &action, NULL);
	struct itimerval interval = { { 0, 2000 }, { 0, 2000 } };
	setitimer(ITIMER_REAL, &interval, NULL);
}

KEEP void *worker(void *argument)
{
	volatile uint64_t sum = 0;
	while (!truth_stopping)
		sum += level_00(1);
	return argument;
}

static void run_threads(void)
{
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, worker, NULL))
			abort();
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "chain";
	function *first = level_00;
	bottom = spin;
	if (strcmp(mode, "signal") == 0) {
		start_alarms(0);
	} else if (strcmp(mode, "altstack") == 0) {
		stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
		sigaltstack(&stack, NULL);
		start_alarms(SA_ONSTACK);
	} else if (strcmp(mode, "recursion") == 0) {
		first = recurse;
	} else if (strcmp(mode, "clocks") == 0) {
		deepest = 9;
		bottom = clocks;
	} else if (strcmp(mode, "syscalls") == 0) {
		deepest = 9;
		bottom = syscalls;
	}
	truth_ready();
	if (strcmp(mode, "threads") == 0)
		run_threads();
	else
		run(first);
	return 0;
}
