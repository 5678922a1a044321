// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Exceptions through ten frames that have something to destroy; built without frame pointers:
//
//   throws [ROUNDS]
//
// ROUNDS is how long it works before each exception; without, it does nothing but throw. The stack is
//
//   main, run, catching, frame_0, frame_1, ..., frame_9
//
// and inside of one of these what throws, unwinds, destroys and catches.
#include "truth.h"

#include <stdexcept>
#include <string>

#define KEEP __attribute__((noinline))

static volatile uint64_t sink;
static uint64_t rounds;

// Something to destroy.
struct Guard {
	std::string name;
	KEEP explicit Guard(uint64_t x) : name(40, (char)('a' + x % 16)) {}
	KEEP ~Guard() { sink = sink + name.size(); }
};

extern "C" {

KEEP void work()
{
	for (uint64_t i = 0; i < rounds; i++)
		sink = sink * 31 + i;
}

KEEP uint64_t frame_9(uint64_t x)
{
	Guard guard(x);
	work();
	if (x % 2 == 1)
		throw std::runtime_error(guard.name);
	throw 7;
}

#define FRAME(n, next) \
	KEEP uint64_t frame_##n(uint64_t x) \
	{ \
		Guard guard(x); \
		return frame_##next(x) + guard.name.size(); \
	}

FRAME(8, 9)
FRAME(7, 8)
FRAME(6, 7)

// Passes it on.
KEEP uint64_t frame_5(uint64_t x)
{
	try {
		return frame_6(x) + 1;
	} catch (int) {
		sink = sink + 1;
		throw;
	}
}

FRAME(4, 5)
FRAME(3, 4)
FRAME(2, 3)
FRAME(1, 2)
FRAME(0, 1)

KEEP uint64_t catching(uint64_t x)
{
	try {
		return frame_0(x);
	} catch (const std::exception &e) {
		return x + e.what()[0];
	} catch (int n) {
		return x + (uint64_t)n;
	}
}

KEEP void run()
{
	for (uint64_t x = 0; !truth_stopping; x++)
		sink = sink + catching(x);
}
}

int main(int argc, char **argv)
{
	if (argc > 1)
		rounds = strtoull(argv[1], nullptr, 10);
	truth_ready();
	run();
	return 0;
}
