/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The arena: memory that Go writes and programs read, which grows while they
 * run. Unwind tables and the code ranges of processes lie in it. An array map
 * cannot grow and may have 4 MiB only on old kernels, so the arena is an array of
 * such arrays. A position is the number of a 4-byte word: the shard, then 20 bits.
 *
 * What Go has published does not change, and is given out again only some time
 * after the last word of it is gone from the maps: a walk never sees it change.
 */
#ifndef PILOTLIGHT_ARENA_BPF_H
#define PILOTLIGHT_ARENA_BPF_H

#include <bpf/bpf_helpers.h>

#include "types.bpf.h"

#define SHARD_BITS 20
#define SHARD_MASK (LIMIT_SHARD_WORDS - 1)
_Static_assert(LIMIT_SHARD_WORDS == 1 << SHARD_BITS, "a position is a shard and 20 bits");

struct shard {
	u32 words[LIMIT_SHARD_WORDS];
};

struct arena_shard {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u32[LIMIT_SHARD_WORDS]); /* struct shard, which would be without size here */
};

/* Key: number of a shard, value: its map. Go puts shards in as they are needed; 4 MiB each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, LIMIT_SHARDS);
	__type(key, u32);
	__array(values, struct arena_shard);
} arena SEC(".maps");

static __always_inline const struct shard *shard_of(u32 position)
{
	u32 number = position >> SHARD_BITS, zero = 0;
	void *map = bpf_map_lookup_elem(&arena, &number);

	return map ? bpf_map_lookup_elem(map, &zero) : 0;
}

/* The word at a position within a shard. */
static __always_inline u32 shard_word(const struct shard *s, u32 position)
{
	return s->words[position & SHARD_MASK];
}

#endif
