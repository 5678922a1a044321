// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * reasons MODE [FILE]: burns CPU in a way that leaves something missing, until
 * it is killed. Built with frame pointers.
 *
 *   burn    nothing is missing
 *   deep    300 frames: more than a walk gives (max_depth)
 *   jit     code in anonymous memory without a perf map (no_symbol)
 *   nonelf  code mapped from FILE, which is no ELF file (file_unreadable)
 *   astray  a frame pointer into a frame whose return address is nonsense (unmapped_pc)
 *   stacks  a new stack with each leaf call: 2^16 paths of 16 calls (stack_evicted with a small map)
 *   forks   children that live 2 ms, without an exec
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

KEEP uint64_t burn(uint64_t rounds)
{
	volatile uint64_t sum = 1;

	for (uint64_t i = 0; i < rounds; i++)
		sum = sum * 31 + i;
	return sum;
}

KEEP uint64_t deep(int depth)
{
	volatile uint64_t sum = depth ? deep(depth - 1) : burn(10000000);

	return sum + 1;
}

/* for (i = 0; i < 2^28; i++); return: mov $0x10000000,%eax; 1: dec %eax; jnz 1b; ret */
static const unsigned char spin[] = { 0xb8, 0, 0, 0, 0x10, 0xff, 0xc8, 0x75, 0xfc, 0xc3 };

KEEP void run(void *code)
{
	volatile int after = 0;

	((void (*)(void))code)();
	after++;
}

KEEP void astray(void)
{
	volatile uint64_t frame[2] = { 0, 0x1234567 };

	/* rbp points at a frame that returns to nowhere; the loop runs, then rbp comes back. */
	__asm__ volatile("mov %%rbp, %%r12; mov %0, %%rbp; mov $0x10000000, %%eax; 1: dec %%eax; jnz 1b; mov %%r12, %%rbp"
			 : : "r"(frame) : "eax", "r12", "memory");
}

KEEP uint64_t left(uint32_t path, int depth);
KEEP uint64_t right(uint32_t path, int depth);

static inline uint64_t next(uint32_t path, int depth)
{
	if (!depth)
		return burn(20000);
	return path & 1 ? left(path >> 1, depth - 1) : right(path >> 1, depth - 1);
}

KEEP uint64_t left(uint32_t path, int depth)
{
	volatile uint64_t sum = next(path, depth);

	return sum + 1;
}

KEEP uint64_t right(uint32_t path, int depth)
{
	volatile uint64_t sum = next(path, depth);

	return sum + 2;
}

static void child(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	uint64_t end = t.tv_sec * 1000000000ull + t.tv_nsec + 2000000;
	do {
		burn(10000);
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while (t.tv_sec * 1000000000ull + t.tv_nsec < end);
	_exit(0);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	void *code = 0;

	if (!strcmp(mode, "jit") || !strcmp(mode, "nonelf")) {
		int fd = mode[0] == 'n' ? open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0755) : -1;

		if (fd >= 0 && (write(fd, spin, sizeof(spin)) != sizeof(spin) || ftruncate(fd, 4096)))
			return 1;
		code = mmap(0, 4096, PROT_READ | PROT_EXEC | (fd < 0 ? PROT_WRITE : 0), fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE, fd, 0);
		if (code == MAP_FAILED)
			return 1;
		if (fd < 0)
			memcpy(code, spin, sizeof(spin));
	}
	for (uint32_t i = 0;; i++) {
		if (!strcmp(mode, "burn"))
			burn(10000000);
		else if (!strcmp(mode, "deep"))
			deep(300);
		else if (code)
			run(code);
		else if (!strcmp(mode, "astray"))
			astray();
		else if (!strcmp(mode, "stacks"))
			next(i * 2654435761u, 16);
		else if (!strcmp(mode, "forks")) {
			if (!fork())
				child();
			wait(0);
		} else {
			fprintf(stderr, "reasons: unknown mode %s\n", mode);
			return 2;
		}
	}
}
