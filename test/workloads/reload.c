// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Loads a library, calls it, and unloads it, all the time, two libraries in turn and ever elsewhere, so that the same address holds
// now this code, now that; built without frame pointers:
//
//   reload LIBRARY LIBRARY
//
// The stack is main, run, call, and what is in the library: see layers.c.
#include "truth.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define KEEP __attribute__((noinline, noclone))

KEEP uint64_t call(uint64_t (*enter)(uint64_t x), uint64_t x)
{
	volatile uint64_t got = enter(x);
	return got;
}

KEEP void run(char **libraries)
{
	uint64_t random = 88172645463325252ULL;
	volatile uint64_t sum = 0;
	for (int i = 0; !truth_stopping; i = !i) {
		// What is mapped before the library moves it.
		size_t pages = 1 + truth_random(&random) % 64;
		void *shift = mmap(NULL, pages << 12, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		void *library = dlopen(libraries[i], RTLD_NOW);
		uint64_t (*enter)(uint64_t) = library ? (uint64_t(*)(uint64_t))dlsym(library, "enter") : NULL;
		if (!enter) {
			fprintf(stderr, "reload: %s\n", dlerror());
			exit(1);
		}
		sum += call(enter, (uint64_t)i);
		dlclose(library);
		munmap(shift, pages << 12);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: reload LIBRARY LIBRARY\n");
		return 2;
	}
	truth_ready();
	run(argv + 1);
	return 0;
}
