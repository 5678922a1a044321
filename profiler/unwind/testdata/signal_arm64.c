// SPDX-License-Identifier: Apache-2.0

// A signal interrupts a function of arm64 that has not saved its return address. The handler writes what a walk from it needs, in words of
// 8 bytes: its pc, sp, x29 and x30, and the stack from sp to its end.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

static volatile uint64_t sink;
static uint64_t end; // of the stack that is written

// Of the trampoline nothing tells, as in musl and in the vdso.
void restore(void);
__asm__("restore: mov x8, #139\n"
	"svc #0\n");

KEEP void handler(int signal)
{
	uint64_t registers[4];
	__asm__ volatile("adr %0, .\n"
			 "mov %1, sp\n"
			 "mov %2, x29\n"
			 "mov %3, x30\n"
			 : "=&r"(registers[0]), "=&r"(registers[1]), "=&r"(registers[2]), "=&r"(registers[3]));
	if (write(1, registers, sizeof registers) < 0 || write(1, (void *)registers[1], end - registers[1]) < 0)
		_exit(1);
	_exit(signal != SIGUSR1);
}

// It calls nothing, and so has its return address in x30 alone.
KEEP void leaf(uint64_t pid)
{
	register uint64_t x0 __asm__("x0") = pid;
	register uint64_t x1 __asm__("x1") = SIGUSR1;
	register uint64_t x8 __asm__("x8") = SYS_kill;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x1), "r"(x8) : "memory");
}

KEEP void middle(uint64_t pid)
{
	leaf(pid);
	sink++;
}

int main(int argc, char **argv)
{
	(void)argc;
	end = (uint64_t)argv; // above it is no frame
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		unsigned long mask;
	} action = { handler, 0x04000000 /* SA_RESTORER */, restore, 0 };
	syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8);
	middle(getpid());
	return 1;
}
