// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A process whose executable memory changes all the time:
//
//   mapchurn
//
// Some sixty times a second each, at addresses that are hardly ever used twice, it
//
//   mapped_burn   maps the text of this very binary again, burns in it, and unmaps it, as a plugin that is loaded and unloaded
//   jit_burn      replaces one of 256 copies of that text in anonymous memory (mmap, write, mprotect, munmap), tells of the
//                 new one in /tmp/perf-PID.map as jit_burn_NUMBER, and burns in any of them, as a JIT does
//
// The map is written anew every 1024 copies; SIGTERM removes it.
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))
#define SLOTS 256
#define COPIES_PER_MAP 1024

// The one function of its section, so that the section's bounds are its own. It uses nothing but registers and the
// stack: it runs wherever it is put.
KEEP __attribute__((section("churned"))) uint64_t mapped_burn(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * 31 + i;
	return sum;
}

typedef uint64_t burn_fn(uint64_t rounds);
extern const char __start_churned[], __stop_churned[];

static uintptr_t page;
static uint64_t random_state = 0x9e3779b97f4a7c15;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

// One of 2^28 pages from 2^44 on, where nothing else is.
static void *random_address(void)
{
	return (void *)((1ULL << 44) + truth_random(&random_state) % (1ULL << 28) * page);
}

static void pause_millis(long millis)
{
	struct timespec time = { 0, millis * 1000000 };
	nanosleep(&time, NULL);
}

// --- text of this binary

static struct {
	int file;
	off_t offset;   // of the pages that hold the section
	size_t length;
	size_t entry;   // of the function in them
} text;

static int find_text(struct dl_phdr_info *info, size_t size, void *data)
{
	uintptr_t start = (uintptr_t)__start_churned, end = (uintptr_t)__stop_churned;
	(void)size;
	(void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type != PT_LOAD || start < at || end > at + segment->p_filesz)
			continue;
		off_t offset = (off_t)(segment->p_offset + (start - at));
		text.offset = offset & -(off_t)page;
		text.entry = (size_t)(offset - text.offset);
		text.length = (text.entry + (end - start) + page - 1) & -page;
		return 1;
	}
	return 0;
}

KEEP uint64_t burn_mapped(uint64_t rounds)
{
	char *code = mmap(random_address(), text.length, PROT_READ | PROT_EXEC, MAP_PRIVATE, text.file, text.offset);
	if (code == MAP_FAILED)
		die("mmap of the text");
	volatile uint64_t sum = ((burn_fn *)(void *)(code + text.entry))(rounds);
	munmap(code, text.length);
	return sum;
}

// --- copies

static struct {
	char *code;
	unsigned number;
} slots[SLOTS];
static unsigned copies;
static char map_path[64], new_map_path[sizeof(map_path) + 4];
static FILE *map;

static void tell(int slot)
{
	fprintf(map, "%lx %lx jit_burn_%u\n", (unsigned long)slots[slot].code,
		(unsigned long)(__stop_churned - __start_churned), slots[slot].number);
	fflush(map);
}

// Begins a new map of the copies that are there, and puts it in the old one's place at once.
static void begin_map(void)
{
	if (map)
		fclose(map);
	if (!(map = fopen(new_map_path, "w")))
		die(new_map_path);
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].code)
			tell(i);
	if (rename(new_map_path, map_path))
		die(map_path);
}

static void compile(int slot)
{
	size_t length = (size_t)(__stop_churned - __start_churned);
	if (slots[slot].code)
		munmap(slots[slot].code, length);
	char *code = mmap(random_address(), length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		die("mmap of a copy");
	memcpy(code, __start_churned, length);
	__builtin___clear_cache(code, code + length);
	if (mprotect(code, length, PROT_READ | PROT_EXEC))
		die("mprotect");
	slots[slot].code = code;
	slots[slot].number = copies++;
	if (copies % COPIES_PER_MAP)
		tell(slot);
	else
		begin_map();
}

KEEP uint64_t burn_jit(uint64_t rounds)
{
	compile((int)(copies % SLOTS));
	volatile uint64_t sum = ((burn_fn *)(void *)slots[truth_random(&random_state) % SLOTS].code)(rounds);
	return sum;
}

KEEP void churn(int part, uint64_t rounds)
{
	volatile uint64_t sum = part ? burn_jit(rounds) : burn_mapped(rounds);
	(void)sum;
	pause_millis(3);
}

int main(void)
{
	struct part parts[] = {
		{ "mapped_burn", 50, 0, 0 },
		{ "jit_burn", 50, 0, 0 },
	};
	page = (uintptr_t)sysconf(_SC_PAGESIZE);
	if ((text.file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) < 0 || !dl_iterate_phdr(find_text, NULL))
		die("/proc/self/exe");
	snprintf(map_path, sizeof(map_path), "/tmp/perf-%d.map", (int)getpid());
	snprintf(new_map_path, sizeof(new_map_path), "%s.new", map_path);
	begin_map();
	for (int i = 0; i < SLOTS; i++)
		compile(i);
	truth_run(parts, 2, 0, churn);
	unlink(map_path);
	return 0;
}
