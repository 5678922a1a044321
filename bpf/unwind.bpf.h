/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a walk looks up: the code range and the rule of an address, and the stack.
 *
 * The larger steps are global functions, which the verifier looks at once, by
 * themselves, however often they are called. Such a function takes numbers only
 * (pointers are too new), so the walk is in this CPU's scratch. Where branches
 * would multiply what the verifier has to follow, arithmetic takes their place.
 */
#ifndef PILOTLIGHT_UNWIND_BPF_H
#define PILOTLIGHT_UNWIND_BPF_H

#include "kernel.bpf.h"

#include <bpf/bpf_helpers.h>

#include "arena.bpf.h"
#include "scratch.bpf.h"
#include "types.bpf.h"

/*
 * Key: thread group id, value: struct process. Go puts a process in when it is
 * sampled for the first time. 16,384 elements, 2.0 MB: more processes than are
 * sampled at a time on most hosts, and one that is not any more makes room. The
 * stacks of what does not fit are copied (cold.bpf.h), or keep their leaf alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct process);
} processes SEC(".maps");

/*
 * Key 0, value: how often processes was changed, which is written when a change is done. Who knows what processes said of one, and that
 * there was no change since, need not look again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u32);
} process_changes SEC(".maps");

static __always_inline u32 changes_of_processes(void)
{
	u32 zero = 0;
	const volatile u32 *changes = bpf_map_lookup_elem(&process_changes, &zero);

	return changes ? *changes : 0;
}

/* All ones where a < b, else 0; both are less than 2^63. */
static __always_inline u64 less(u64 a, u64 b)
{
	u64 mask = (u64)((s64)(a - b) >> 63);

	asm volatile("" : "+r"(mask)); /* or the compiler makes a branch of it */
	return mask;
}

/*
 * What a walk touches of memory that is seldom in a cache, and its end: test/bench puts something in their place, which counts
 * cache lines.
 */
#ifndef TOUCH
#define TOUCH(kind, at, bytes)
#define WALKED(w)
#define REMEMBERS true
#endif

#define PAGE_BITS 12
/* A code is a kind in its top 3 bits, and 17 bits by kind. */
#define CODE_KIND_SHIFT (LIMIT_RULE_BITS - 3)
#define CODE_KIND_NONE 0
#define CODE_KIND_TABLE 7

/*
 * The slots of a frame: how many words below the CFA fp is saved, 0: it is not. The return address is at the CFA - 8, on
 * arm64 above fp. The flag says that the CFA was reckoned from fp, else it was from sp.
 */
#define SLOTS_BY_FP (1 << 15)
#define SLOTS_UNKNOWN 0xffff /* by a rule of the table */
#define PC_MASK ((1ULL << 48) - 1)
#define RANGE_BYTES sizeof(struct code_range)
#define SHARD_BYTES sizeof(struct shard)

/* Bisection halves at most so many. */
#define RANGE_STEPS 17 /* LIMIT_CODE_RANGES */
#define ROW_STEPS 13   /* rows of a block: at most one for each address */

static __always_inline bool holds(const struct code_range *r, u64 address)
{
	return address - r->start < (u64)r->pages << PAGE_BITS;
}

static __always_inline const struct code_range *range_at(const struct shard *s, u32 first, u32 i)
{
	u64 offset = (u64)(first & SHARD_MASK) * sizeof(u32) + (u64)i * RANGE_BYTES;

	return (const void *)s + (offset & (SHARD_BYTES - RANGE_BYTES));
}

/* Finds the code range of an address: s->walk.place.range. Not 0 where it is in none. */
__noinline int find_range(u64 address)
{
	struct scratch *s = this_cpu_scratch();
	const struct code_range *r;
	const struct shard *shard;
	u32 n, low = 0;

	if (!s)
		return 1;
	shard = shard_of(s->walk.process.ranges);
	if (!shard)
		return 1;
	n = s->walk.process.count;
	for (u32 i = 0; i < RANGE_STEPS; i++) {
		u32 half = n >> 1;

		if (!half)
			break;
		r = range_at(shard, s->walk.process.ranges, low + half);
		TOUCH(RANGES, s->walk.process.ranges * 4ULL + (low + half) * RANGE_BYTES, sizeof(r->start));
		low += half & ~less(address, r->start);
		n -= half;
	}
	r = range_at(shard, s->walk.process.ranges, low);
	TOUCH(RANGES, s->walk.process.ranges * 4ULL + low * RANGE_BYTES, RANGE_BYTES);
	if (!s->walk.process.count || !holds(r, address))
		return 1;
	s->walk.place.range = *r;
	return 0;
}

/* Finds the code of the rule that holds at an address of s->walk.place.range, and which others it holds at. */
__noinline u32 find_code(u64 address)
{
	struct scratch *s = this_cpu_scratch();
	const struct shard *shard;
	u32 low, end, n, index, key;
	struct code_place *p;

	if (!s)
		return RULE_NONE_GAP;
	p = &s->walk.place;
	index = p->range.index;
	p->row_bytes = 0;
	shard = shard_of(index);
	if (!shard)
		return RULE_NONE_GAP;
	index += (address - p->range.start) >> LIMIT_BLOCK_BITS;
	TOUCH(INDEX, index * 4ULL, 2 * sizeof(u32));
	low = shard_word(shard, index);
	end = shard_word(shard, index + 1);
	n = end - low;
	key = (address << LIMIT_RULE_BITS) | ((1U << LIMIT_RULE_BITS) - 1);
	for (u32 i = 0; i < ROW_STEPS; i++) {
		u32 half = n >> 1;

		if (!half)
			break;
		TOUCH(ROWS, (low + half) * 4ULL, sizeof(u32));
		low += half & ~less(key, shard_word(shard, low + half));
		n -= half;
	}
	TOUCH(ROWS, low * 4ULL, sizeof(u32));
	index = shard_word(shard, low);
	/* Before the first row of a block, and in a block without any, there is none. */
	if (!n || key < index)
		return RULE_NONE_GAP;
	end = low + 1 < end ? shard_word(shard, low + 1) >> LIMIT_RULE_BITS : 1U << LIMIT_BLOCK_BITS;
	p->row_start = (address & ~((1ULL << LIMIT_BLOCK_BITS) - 1)) | index >> LIMIT_RULE_BITS;
	p->row_bytes = end - (index >> LIMIT_RULE_BITS);
	p->code = index & ((1U << LIMIT_RULE_BITS) - 1);
	return p->code;
}

#define LONG_WINDOW_FRAMES 4

/*
 * Reads a piece of the stack, from an address up: the next frames lie there
 * too, and each read costs as much as a frame. Where the stack ends within, what
 * is before the end of the page. Not 0 where there is nothing.
 */
__noinline int read_window(u64 address)
{
	struct scratch *s = this_cpu_scratch();
	u64 size = LIMIT_SHORT_WINDOW_WORDS * sizeof(u64), ahead;
	u32 at;

	/* A walk that jumps about is no real one, and each read costs as much as a frame. */
	if (unlikely(!s || s->walk.reads >= LIMIT_STACK_FRAMES))
		return 1;
	/* Where a long one held few frames, others lie as far apart. */
	at = s->walk.frames + s->walk.candidate;
	if (s->walk.window_bytes > size && at - s->walk.window_at < LONG_WINDOW_FRAMES)
		s->walk.ahead = 0;
	s->walk.window_at = at;
	ahead = s->walk.ahead - address;
	if (s->walk.ahead > address && ahead > size)
		size = ahead < sizeof(s->window) ? ahead : sizeof(s->window);
	s->walk.window = address;
	s->walk.window_bytes = 0;
	s->walk.reads++;
	if (unlikely(bpf_probe_read_user(s->window, size, (void *)address))) {
		u64 rest = (4096 - (address & 4095)) & ~7U;

		if (!rest || rest >= size)
			return 1;
		size = rest;
		if (bpf_probe_read_user(s->window, size, (void *)address))
			return 1;
	}
	TOUCH(STACK, address, size);
	s->walk.window_bytes = size;
	return 0;
}

/*
 * Puts the words of the stack from low to high into the window, if they are not there; false where they
 * cannot be read.
 */
static __always_inline bool reach_window(struct scratch *s, u64 low, u64 high)
{
	u64 first = low - s->walk.window;

	if (!(first & 7) && first < s->walk.window_bytes && high - s->walk.window <= s->walk.window_bytes)
		return true;
	return !read_window(low) && high - low <= s->walk.window_bytes;
}

/* A word of the window. */
static __always_inline u64 window_word(struct scratch *s, u64 address)
{
	return s->window[((address - s->walk.window) / sizeof(u64)) & (LIMIT_WINDOW_WORDS - 1)];
}

static __always_inline bool read_stack(struct scratch *s, u64 address, u64 *value)
{
	if (!reach_window(s, address, address + 8))
		return false;
	*value = window_word(s, address);
	return true;
}

#endif
