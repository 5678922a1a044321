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
 *   storm   the same, each after more records than the side-band holds (process_unknown with a reader that is held up)
 *   gone    code from FILE, which is removed and unmapped 20 ms after it was made (file_gone with such a reader)
 *   remap   maps the code of FILE again at the same place a few thousand times a second (stale_mapping with held samples)
 *   kernel  most of the time in system calls (kernel_unreadable where the kernel gives no stack)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

/* void spin(uint32_t rounds): 1: dec %edi; jnz 1b; ret */
static const unsigned char spin[] = { 0xff, 0xcf, 0x75, 0xfc, 0xc3 };

KEEP void run(void *code, uint32_t rounds)
{
	volatile int after = 0;

	((void (*)(uint32_t))code)(rounds);
	after++;
}

/*
 * A page of code from a file, or from memory where it has no name. The file stays open, so that its inode
 * number is not given again.
 */
static void *map_code(const char *path)
{
	int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0755) : -1;
	void *code;

	if (path && (fd < 0 || write(fd, spin, sizeof(spin)) != sizeof(spin) || ftruncate(fd, 4096)))
		exit(1);
	code = mmap(0, 4096, PROT_READ | PROT_EXEC | (path ? 0 : PROT_WRITE),
		    MAP_PRIVATE | (path ? 0 : MAP_ANONYMOUS), fd, 0);
	if (code == MAP_FAILED)
		exit(1);
	if (!path)
		memcpy(code, spin, sizeof(spin));
	return code;
}

static void remap(void *code, const char *path)
{
	int fd = open(path, O_RDONLY);

	if (mmap(code, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED)
		exit(1);
	close(fd);
	run(code, 1000000);
}

static void gone(const char *path)
{
	void *code = map_code(path);

	unlink(path);
	run(code, 20000000);
	munmap(code, 4096);
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

KEEP void kernel(void)
{
	static char page[1 << 20];
	int fd = open("/dev/zero", O_RDONLY);

	for (int i = 0; i < 1000; i++)
		if (read(fd, page, sizeof(page)) != sizeof(page))
			exit(1);
	close(fd);
}

/* Keeps to this CPU, so that all records go through its ring. */
static void stay(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* A record of 40 bytes for each name: more than 64 KiB of them. */
static void storm(void)
{
	for (int i = 0; i < 3000; i++)
		prctl(PR_SET_NAME, i & 1 ? "reasons" : "storm");
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
	const char *file = argc > 2 ? argv[2] : 0;
	void *code = 0;

	if (!strcmp(mode, "jit") || !strcmp(mode, "nonelf") || !strcmp(mode, "remap"))
		code = map_code(file);
	if (!strcmp(mode, "storm"))
		stay();
	for (uint32_t i = 0;; i++) {
		if (!strcmp(mode, "burn"))
			burn(10000000);
		else if (!strcmp(mode, "deep"))
			deep(300);
		else if (!strcmp(mode, "remap"))
			remap(code, file);
		else if (code)
			run(code, 1 << 28);
		else if (!strcmp(mode, "gone"))
			gone(file);
		else if (!strcmp(mode, "kernel"))
			kernel();
		else if (!strcmp(mode, "astray"))
			astray();
		else if (!strcmp(mode, "stacks"))
			next(i * 2654435761u, 16);
		else if (!strcmp(mode, "forks") || !strcmp(mode, "storm")) {
			if (mode[0] == 's')
				storm();
			if (!fork())
				child();
			wait(0);
		} else {
			fprintf(stderr, "reasons: unknown mode %s\n", mode);
			return 2;
		}
	}
}
