// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// The library that late.c loads after its start.
#include <stdint.h>

__attribute__((noinline, noclone)) uint64_t plugin_leaf(uint64_t rounds)
{
	volatile uint64_t sum = 1;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * 31 + i;
	return sum;
}

uint64_t plugin_burn(uint64_t rounds)
{
	volatile uint64_t sum = plugin_leaf(rounds);
	return sum;
}
