// SPDX-License-Identifier: Apache-2.0

// Calls in all the shapes of frames that compilers make. It is stepped through instruction by instruction.
#define _GNU_SOURCE
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

#ifndef ROOM
#define ROOM 40000 // far apart
#endif

static volatile uint64_t sink;

// A leaf without a frame.
KEEP uint64_t leaf(uint64_t x) { return x * 31 + sink; }

// As many registers as there are, so that all of them are saved.
KEEP uint64_t many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	uint64_t g = leaf(a), h = leaf(b), i = leaf(c), j = leaf(d), k = leaf(e), l = leaf(f);
	return leaf(g + a) ^ leaf(h + b) ^ leaf(i + c) ^ leaf(j + d) ^ leaf(k + e) ^ leaf(l + f);
}

// Arguments on the stack: pushed, and dropped after the call.
KEEP uint64_t stacked(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h, uint64_t i)
{
	return leaf(a + b + c + d + e + f + g + h + i);
}

// A frame whose size is not known when it is compiled.
KEEP uint64_t dynamic(size_t n)
{
	char *room = alloca(n);
	memset(room, (int)n, n);
	return stacked(room[0], 2, 3, 4, 5, 6, 7, 8, leaf(n)) + (uint64_t)room[n - 1];
}

// A frame that is aligned anew.
KEEP uint64_t aligned(uint64_t x)
{
	uint64_t room[8] __attribute__((aligned(64)));
	for (int i = 0; i < 8; i++)
		room[i] = leaf(x + i);
	return room[x & 7] + dynamic(100 + (x & 31)) + room[3];
}

// A large frame, beyond what one instruction probes.
KEEP uint64_t large(uint64_t x)
{
	volatile char room[ROOM];
	room[x % sizeof room] = 1;
	return aligned(x) + room[0];
}

KEEP uint64_t recurse(int depth) { return depth == 0 ? large(7) : recurse(depth - 1) + leaf(depth); }

static int compare(const void *a, const void *b)
{
	return (int)(leaf(*(const uint64_t *)a) & 0xff) - (int)(leaf(*(const uint64_t *)b) & 0xff);
}

static void handler(int signal)
{
	sink += many(signal, 2, 3, 4, 5, 6);
}

#ifdef UNTOLD // on x86-64
// A trampoline of which no call frame information tells, as musl has it.
void restore(void);
__asm__(".pushsection .text\n"
	"nop\n"
	".globl restore\n"
	".type restore, @function\n"
	"restore: mov $15, %rax\n"
	"syscall\n"
	".size restore, . - restore\n"
	".popsection\n");

KEEP void handle_untold(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		unsigned long mask;
	} action = { handler, 0x04000000 /* SA_RESTORER */, restore, 0 };
	syscall(SYS_rt_sigaction, SIGUSR2, &action, NULL, 8);
	raise(SIGUSR2);
}
#else
static void handle_untold(void) {}
#endif

static jmp_buf back;

KEEP void jump(int depth)
{
	if (depth == 0)
		longjmp(back, 1);
	jump(depth - 1);
	sink++;
}

KEEP void stop(void)
{
	jump(3);
	abort();
}

// Its last instruction is the call: the return address is the next function's.
KEEP __attribute__((noreturn)) void leave(void)
{
	printf("%d\n", (int)(sink != 0));
	exit(0);
}

int main(void)
{
	uint64_t numbers[] = { 5, 3, 9, 1 };
	struct timespec now;
	signal(SIGUSR1, handler);
again:
	sink = recurse(5);
	sink += many(1, 2, 3, 4, 5, 6);
	qsort(numbers, 4, sizeof numbers[0], compare);
	raise(SIGUSR1);
	handle_untold();
	clock_gettime(CLOCK_MONOTONIC, &now); // in the vdso
	if (setjmp(back) == 0)
		stop();
	sink += strlen(getenv("PATH") ? getenv("PATH") : "") + now.tv_sec;
#ifdef FOR_EVER
	goto again;
#endif
	leave();
}
