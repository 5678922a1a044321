// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A program that loads a library while it is being profiled:
//
//   late LIBRARY
//
// It burns in host_burn alone until SIGUSR1, then loads the library and gives plugin_leaf 60 % of all its time.
#include "truth.h"

#include <dlfcn.h>

#define KEEP __attribute__((noinline, noclone))

static volatile sig_atomic_t load_asked;
static const char *library;
static uint64_t (*plugin_burn)(uint64_t rounds);
static struct part parts[] = {
	{ "host_burn", 100, 0, 0 },
	{ "plugin_leaf", 0, 0, 0 },
};

static void ask_load(int signal)
{
	(void)signal;
	load_asked = 1;
}

KEEP uint64_t host_burn(uint64_t rounds)
{
	volatile uint64_t sum = 2;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = (sum ^ i) * 17;
	return sum;
}

static void load(void)
{
	void *handle = dlopen(library, RTLD_NOW);
	if (handle)
		plugin_burn = (uint64_t(*)(uint64_t))dlsym(handle, "plugin_burn");
	if (!plugin_burn) {
		fprintf(stderr, "late: %s\n", dlerror());
		exit(1);
	}
	// It starts with nothing burned, so it runs alone until it has caught up.
	parts[0].weight = 40;
	parts[1].weight = 60;
}

KEEP void work(int part, uint64_t rounds)
{
	volatile uint64_t sum = part == 0 ? host_burn(rounds) : plugin_burn(rounds);
	(void)sum;
	if (load_asked && !plugin_burn)
		load();
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: late LIBRARY\n");
		return 2;
	}
	library = argv[1];
	signal(SIGUSR1, ask_load);
	truth_run(parts, 2, 0, work);
	return 0;
}
