/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Included before all else into the CPU sampler, this makes it count the cache lines that each walk touches. See lines.go.
 * With -DFORGET no walk is remembered.
 */
#include "kernel.bpf.h"

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum {
	TOUCHED_RANGES,
	TOUCHED_INDEX,
	TOUCHED_ROWS,
	TOUCHED_RULES,
	TOUCHED_STACK,
	TOUCHED_REMEMBERED,
	TOUCHED_KINDS,
};

#define TOUCHED_MOST 512
#define TOUCHED_SLOTS 2048

/* Mirrored by lines.go. */
struct touched {
	u64 walks[TOUCHED_MOST]; /* by the lines that they touched, of all kinds */
	u64 lines[8]; /* by kind, of all walks */
	u64 walk; /* the number of this one */
	u64 here; /* the lines of this walk */
	u64 slot[TOUCHED_SLOTS]; /* lines that it has touched; two of one slot take turns, and count too often, which is rare */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct touched);
} touched SEC(".maps");

__noinline int touch(u32 kind, u64 at, u32 bytes)
{
	u32 zero = 0;
	struct touched *t = bpf_map_lookup_elem(&touched, &zero);
	u64 line = at >> 6, last = (at + bytes - 1) >> 6, tag;

	if (!t)
		return 0;
	for (u32 i = 0; i <= 32; i++, line++) {
		if (line > last)
			break;
		tag = (t->walk << 48) ^ (line << 3) ^ kind;
		if (t->slot[(line * 8 + kind * 37) % TOUCHED_SLOTS] == tag)
			continue;
		t->slot[(line * 8 + kind * 37) % TOUCHED_SLOTS] = tag;
		t->lines[kind & 7]++;
		t->here++;
	}
	return 0;
}

__noinline int walked(void)
{
	u32 zero = 0;
	struct touched *t = bpf_map_lookup_elem(&touched, &zero);

	if (!t)
		return 0;
	if (t->here < TOUCHED_MOST)
		t->walks[t->here]++;
	t->here = 0;
	t->walk++;
	return 0;
}

#define TOUCH(kind, at, bytes) touch(TOUCHED_##kind, at, bytes)
#define WALKED(w) walked()
#ifdef FORGET
#define REMEMBERS false
#else
#define REMEMBERS true
#endif
