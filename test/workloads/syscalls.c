// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Time in the kernel, under known user functions:
//
//   syscalls [SECONDS]
//
//   read_blocks 40 %  reads /dev/zero in blocks of 1 MiB: nearly all of it is the kernel clearing the buffer
//   get_random  30 %  getrandom in blocks of 64 KiB
//   read_libc   10 %  the same as read_blocks through libc's read(), a frameless leaf: a walk by frame pointers goes
//                     from read() to this function's caller, past this function
//   compute     20 %  no system call
//
// The first two make the system call themselves, so that their own frame is the one the kernel was entered from.
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

enum { BLOCK = 1 << 20, RANDOM_BLOCK = 64 << 10 };

static char buffer[BLOCK];
static int zero;

static inline long call(long number, long a, long b, long c)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#endif
}

KEEP long read_blocks(uint64_t rounds)
{
	volatile long sum = 0;
	for (uint64_t i = 0; i < rounds; i++)
		sum += call(SYS_read, zero, (long)buffer, BLOCK);
	return sum;
}

KEEP long get_random(uint64_t rounds)
{
	volatile long sum = 0;
	for (uint64_t i = 0; i < rounds; i++)
		sum += call(SYS_getrandom, (long)buffer, RANDOM_BLOCK, 0);
	return sum;
}

KEEP long read_libc(uint64_t rounds)
{
	volatile long sum = 0;
	for (uint64_t i = 0; i < rounds; i++)
		sum += read(zero, buffer, BLOCK);
	return sum;
}

KEEP long compute(uint64_t rounds)
{
	volatile long sum = 1;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * 31 + (long)i;
	return sum;
}

KEEP void work(int part, uint64_t rounds)
{
	volatile long sum;
	if (part == 0)
		sum = read_blocks(rounds);
	else if (part == 1)
		sum = get_random(rounds);
	else if (part == 2)
		sum = read_libc(rounds);
	else
		sum = compute(rounds);
	(void)sum;
}

int main(int argc, char **argv)
{
	struct part parts[] = {
		{ "read_blocks", 40, 0, 0 },
		{ "get_random", 30, 0, 0 },
		{ "read_libc", 10, 0, 0 },
		{ "compute", 20, 0, 0 },
	};
	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0) {
		perror("/dev/zero");
		return 1;
	}
	truth_run(parts, 4, argc > 1 ? atof(argv[1]) : 0, work);
	return 0;
}
