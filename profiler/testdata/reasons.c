// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/*
 * reasons MODE [FILE]: burns CPU in a way that leaves something missing, until
 * it is killed. Built with frame pointers.
 *
 *   burn    nothing is missing
 *   deep    300 frames
 *   abyss   1,100 frames: more than a walk gives (max_depth)
 *   jit     code in anonymous memory without a perf map (no_symbol)
 *   memfd   code in a file that has no name, which can be written elsewhere, as .NET makes it
 *   nonelf  code mapped from FILE, which is no ELF file (file_unreadable)
 *   untold  a function of the shared library FILE, which tells nothing of frames (no_table)
 *   astray  a frame whose return address is nonsense (unmapped_pc)
 *   bare    a function that nothing tells of (no_rule)
 *   based   code in anonymous memory, called by a function whose frame is found by rbx (unknown_register)
 *   lost    a frame pointer to where no memory is (stack_unreadable)
 *   back    a frame pointer to below the stack pointer (not_advancing)
 *   compat  32-bit code in this 64-bit program (compat_task)
 *   stacks  a new stack with each leaf call: 2^16 paths of 16 calls (stack_evicted with a small map)
 *   forks   children that live 2 ms, without an exec
 *   execs   the same, with one (cold_limited)
 *   storm   the same, each after more records than the side-band holds (process_unknown with a reader that is held up)
 *   gone    code from FILE, which is removed and unmapped 20 ms after it was made (file_gone with such a reader)
 *   remap   maps the code of FILE again at the same place a few thousand times a second (stale_mapping with held samples)
 *   crowd   a new mapping of the program's own code, of CROWD, with each leaf call
 *   kernel  most of the time in system calls (kernel_unreadable where the kernel gives no stack)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
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

#ifndef CROWD
#define CROWD 20000
#endif
#define CROWD_STEP 16384
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

/*
 * void outer(uint32_t rounds): push %rbp; mov %rsp, %rbp; call spin; pop %rbp; ret
 * void spin(uint32_t rounds): push %rbp; mov %rsp, %rbp; 1: dec %edi; jnz 1b; pop %rbp; ret
 */
static const unsigned char made[] = {
	0x55, 0x48, 0x89, 0xe5, 0xe8, 0x02, 0x00, 0x00, 0x00, 0x5d, 0xc3, /* outer */
	0x55, 0x48, 0x89, 0xe5, 0xff, 0xcf, 0x75, 0xfc, 0x5d, 0xc3, /* spin */
};

KEEP void run(void *code, uint32_t rounds)
{
	volatile int after = 0;

	((void (*)(uint32_t))code)(rounds);
	after++;
}

/* A page of code from an empty file, which stays open, so that its inode number is not given again. */
static void *map_code(int fd)
{
	void *code;

	if (fd < 0 || write(fd, made, sizeof(made)) != sizeof(made) || ftruncate(fd, 4096))
		exit(1);
	code = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (code == MAP_FAILED)
		exit(1);
	return code;
}

static int create(const char *path)
{
	return open(path, O_RDWR | O_CREAT | O_TRUNC, 0755);
}

/* A page of code from nowhere. */
static void *make_code(void)
{
	void *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (code == MAP_FAILED)
		exit(1);
	return memcpy(code, made, sizeof(made));
}

/* The function that a shared library has. */
static void *load_code(const char *path)
{
	void *library = dlopen(path, RTLD_NOW), *code = library ? dlsym(library, "untold") : 0;

	if (!code)
		exit(1);
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
	void *code = map_code(create(path));

	unlink(path);
	run(code, 20000000);
	munmap(code, 4096);
}

KEEP void astray(void)
{
	volatile uint64_t *frame = __builtin_frame_address(0);
	uint64_t caller = frame[1];

	frame[1] = 0x1234567;
	burn(10000000);
	frame[1] = caller;
}

/* The loop runs with another frame pointer, then the own one comes back: no signal must come meanwhile. */
KEEP void burn_with(uint64_t frame_pointer)
{
	__asm__ volatile("mov %%rbp, %%r12; mov %0, %%rbp; mov $0x10000000, %%eax; 1: dec %%eax; jnz 1b; mov %%r12, %%rbp"
			 : : "r"(frame_pointer) : "eax", "r12", "memory");
}

/*
 * void based(void *code, uint32_t rounds), whose CFI says that its frame is found by rbx, and void bare(uint32_t
 * rounds), without any CFI: behind the other, or it would be taken for a part of crtbegin.o.
 */
__asm__(".pushsection .text\n"
	"based:\n"
	"	.cfi_startproc\n"
	"	push %rbx\n"
	"	.cfi_def_cfa_offset 16\n"
	"	.cfi_offset %rbx, -16\n"
	"	mov %rsp, %rbx\n"
	"	.cfi_def_cfa %rbx, 16\n"
	"	mov %rdi, %rax; mov %esi, %edi; call *%rax\n"
	"	pop %rbx\n"
	"	.cfi_def_cfa %rsp, 8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	.type based, @function; .size based, . - based\n"
	"bare:\n"
	"	dec %edi; jnz bare; ret\n"
	"	.type bare, @function; .size bare, . - bare\n"
	".popsection");
void bare(uint32_t rounds);
void based(void *code, uint32_t rounds);

/* Never comes back: a far return to the code segment of 32-bit programs. */
static void compat(void)
{
	static const unsigned char forever[] = { 0xeb, 0xfe }; /* 1: jmp 1b */
	void *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (code == MAP_FAILED)
		exit(1);
	memcpy(code, forever, sizeof(forever));
	__asm__ volatile("push $0x23; push %0; lretq" : : "r"(code) : "memory");
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

/* Maps the pages that burn is in CROWD times, none beside another. */
static char *crowd(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	uintptr_t here = (uintptr_t)burn, start, end, offset = 0;
	int fd = open("/proc/self/exe", O_RDONLY);
	char line[512], permissions[8], *area;

	if (!maps || fd < 0)
		exit(1);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s %lx", &start, &end, permissions, &offset) == 4 && start <= here && here < end)
			break;
	offset += (here - start) & ~4095ul;
	area = mmap(0, (size_t)CROWD * CROWD_STEP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		exit(1);
	for (size_t i = 0; i < CROWD; i++)
		if (mmap(area + i * CROWD_STEP, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, offset) == MAP_FAILED)
			exit(1);
	close(fd);
	fclose(maps);
	return area + (here & 4095);
}

KEEP uint64_t visit(char *crowd, uint32_t i)
{
	volatile uint64_t sum = ((uint64_t(*)(uint64_t))(crowd + (size_t)(i % CROWD) * CROWD_STEP))(200000);

	return sum + 1;
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

	if (!strcmp(mode, "jit") || !strcmp(mode, "based"))
		code = make_code();
	if (!strcmp(mode, "memfd"))
		code = map_code(memfd_create("code", 0));
	if (!strcmp(mode, "nonelf") || !strcmp(mode, "remap"))
		code = map_code(create(file));
	if (!strcmp(mode, "untold"))
		code = load_code(file);
	if (!strcmp(mode, "brief"))
		child();
	if (!strcmp(mode, "storm"))
		stay();
	if (!strcmp(mode, "crowd"))
		code = crowd();
	for (uint32_t i = 0;; i++) {
		if (!strcmp(mode, "burn"))
			burn(10000000);
		else if (!strcmp(mode, "deep"))
			deep(300);
		else if (!strcmp(mode, "abyss"))
			deep(1100);
		else if (!strcmp(mode, "remap"))
			remap(code, file);
		else if (!strcmp(mode, "crowd"))
			visit(code, i * 2654435761u);
		else if (!strcmp(mode, "based"))
			based(code, 1 << 28);
		else if (code)
			run(code, 1 << 28);
		else if (!strcmp(mode, "gone"))
			gone(file);
		else if (!strcmp(mode, "kernel"))
			kernel();
		else if (!strcmp(mode, "astray"))
			astray();
		else if (!strcmp(mode, "bare"))
			bare(1 << 28);
		else if (!strcmp(mode, "lost"))
			burn_with(1ull << 62);
		else if (!strcmp(mode, "back"))
			burn_with((uint64_t)__builtin_frame_address(0) - (1 << 20));
		else if (!strcmp(mode, "compat"))
			compat();
		else if (!strcmp(mode, "stacks"))
			next(i * 2654435761u, 16);
		else if (!strcmp(mode, "forks") || !strcmp(mode, "storm")) {
			if (mode[0] == 's')
				storm();
			if (!fork())
				child();
			wait(0);
		} else if (!strcmp(mode, "execs")) {
			if (!fork()) {
				execl("/proc/self/exe", argv[0], "brief", (char *)0);
				_exit(1);
			}
			wait(0);
		} else {
			fprintf(stderr, "reasons: unknown mode %s\n", mode);
			return 2;
		}
	}
}
