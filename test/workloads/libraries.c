// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Maps a file that nobody saw before, deletes it, and calls it, one after the other; then it waits for SECONDS:
//
//   libraries FOLDER COUNT ROUNDS SECONDS
//
// The files are copies of this binary in FOLDER, lib-STAMP, written ahead. Each has a name of its own for its function,
// library_burn_STAMP, that burns for ROUNDS; the stamp is 16 hexadecimal digits. At the end one line:
//   {"files":2000,"nanos":153123456}
// nanos is the CPU time in which all of them were mapped, deleted and run.
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK "library_burn_"
#define DIGITS 16

// The one function of its section. It uses nothing but registers and the stack: it runs wherever it is put.
__attribute__((noinline, noclone, section("copied"))) uint64_t library_burn_0000000000000000(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds; i++)
		sum = sum * 31 + i;
	return sum;
}

extern const char __start_copied[], __stop_copied[];

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static char *read_image(size_t *size)
{
	struct stat status;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &status))
		die("/proc/self/exe");
	char *image = malloc(*size = (size_t)status.st_size);
	if (!image || read(file, image, *size) != (ssize_t)*size)
		die("reading /proc/self/exe");
	close(file);
	return image;
}

static void path_of(char *path, size_t size, const char *folder, int number)
{
	snprintf(path, size, "%s/lib-%0*x", folder, DIGITS, number);
}

static void write_copies(const char *folder, int count)
{
	static const char zeros[] = MARK "0000000000000000";
	size_t size, places = 0;
	char *image = read_image(&size), *place[8], path[4096], stamp[DIGITS + 1];
	for (char *at = image; places < 8 && (at = memmem(at, size - (size_t)(at - image), zeros, sizeof(zeros) - 1)); at++)
		place[places++] = at + sizeof(MARK) - 1;
	for (int i = 1; i <= count; i++) {
		snprintf(stamp, sizeof(stamp), "%0*x", DIGITS, i);
		for (size_t j = 0; j < places; j++)
			memcpy(place[j], stamp, DIGITS);
		path_of(path, sizeof(path), folder, i);
		int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
		if (file < 0 || write(file, image, size) != (ssize_t)size || close(file))
			die(path);
	}
	free(image);
}

// Where the pages that hold the section lie in the file, and the section in them.
static struct {
	off_t offset;
	size_t length, entry;
} text;

static int find_text(struct dl_phdr_info *info, size_t size, void *data)
{
	uintptr_t start = (uintptr_t)__start_copied, end = (uintptr_t)__stop_copied, page = (uintptr_t)sysconf(_SC_PAGESIZE);
	(void)size;
	(void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type != PT_LOAD || start < at || end > at + segment->p_filesz)
			continue;
		uintptr_t offset = segment->p_offset + (start - at);
		text.entry = offset % page;
		text.offset = (off_t)(offset - text.entry);
		text.length = (text.entry + (end - start) + page - 1) & -page;
		return 1;
	}
	return 0;
}

static void call(const char *folder, int number, uint64_t rounds)
{
	char path[4096];
	path_of(path, sizeof(path), folder, number);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	char *code = mmap(NULL, text.length, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, text.offset);
	if (file < 0 || code == MAP_FAILED || unlink(path))
		die(path);
	close(file);
	volatile uint64_t sum = ((uint64_t(*)(uint64_t))(void *)(code + text.entry))(rounds);
	(void)sum;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: libraries FOLDER COUNT ROUNDS SECONDS\n");
		return 2;
	}
	int count = atoi(argv[2]);
	uint64_t rounds = strtoull(argv[3], NULL, 10);
	write_copies(argv[1], count);
	if (!dl_iterate_phdr(find_text, NULL))
		die("/proc/self/exe");
	truth_ready();
	uint64_t begun = truth_clock(CLOCK_PROCESS_CPUTIME_ID);
	for (int i = 1; i <= count && !truth_stopping; i++)
		call(argv[1], i, rounds);
	printf("{\"files\":%d,\"nanos\":%llu}\n", count, (unsigned long long)(truth_clock(CLOCK_PROCESS_CPUTIME_ID) - begun));
	fflush(stdout);
	sleep((unsigned)atoi(argv[4]));
	return 0;
}
