/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The cold path: see struct stack_copy. */
#ifndef PILOTLIGHT_COLD_BPF_H
#define PILOTLIGHT_COLD_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "scratch.bpf.h"
#include "types.bpf.h"

const volatile u32 copies_per_second; /* of one process */
const volatile u32 copies_wakeup_bytes; /* wake the reader once so much is waiting */

/*
 * Stacks on their way to user space. Written here, read by the sampler package. Size set by Go: 512 KiB a CPU, from
 * 1 MiB to 16 MiB. A copy is 6 KB on average and 19 KB at most.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} copies SEC(".maps");

/*
 * Key: thread group id. 1,024 elements (80 KB): more processes than begin in a
 * second; one that was pushed out begins with a new budget.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct copy_budget);
} copy_budgets SEC(".maps");

/* How many stacks of the process were copied in this second, with this one; 0: no more may be. */
static __always_inline u64 count_copy(u32 tgid, u64 now)
{
	struct copy_budget *budget = bpf_map_lookup_elem(&copy_budgets, &tgid), fresh = {now, 1};

	if (!copies_per_second)
		return 0;
	if (!budget) {
		bpf_map_update_elem(&copy_budgets, &tgid, &fresh, BPF_ANY);
		return 1;
	}
	if (now - budget->since >= 1000000000) {
		budget->since = now;
		budget->copies = 0;
	}
	if (budget->copies >= copies_per_second)
		return 0;
	return ++budget->copies;
}

/*
 * Copies what there is of the stack, a page at a time: one large read fails where the stack ends, and so does that of a
 * page that nobody has touched yet. Returns the number of bytes up to the end of the last page that was read.
 */
__noinline u32 copy_stack(void)
{
	struct scratch *s = this_cpu_scratch();
	u32 done = 0, bytes = 0;

	if (!s)
		return 0;
	s->copy.present = 0;
	for (u32 i = 0; i <= LIMIT_COPY_BYTES / 4096; i++) {
		u64 address = s->copy.sp - LIMIT_COPY_BELOW + done;
		u32 piece = 4096 - (address & 4095);

		if (done >= LIMIT_COPY_BYTES || piece > 4096)
			break;
		if (!bpf_probe_read_user(&s->copy.stack[done & (LIMIT_COPY_BYTES - 1)], piece, (void *)address)) {
			s->copy.present |= 1 << i;
			bytes = done + piece;
		}
		done += piece;
	}
	return bytes < LIMIT_COPY_BYTES ? bytes : LIMIT_COPY_BYTES;
}

/*
 * Follows the chain of frame pointers, and puts the links that lie outside of the copied bytes behind these. Where code keeps
 * no frame pointers the chain is nonsense and soon over; the walk does not look at it then. Returns the bytes of bytes and links.
 */
__noinline u32 copy_links(void)
{
	struct scratch *s = this_cpu_scratch();
	struct copy_link link;
	u64 pair[2], offset;
	u32 at;

	if (!s)
		return 0;
	s->copy.links = 0;
	link.address = s->copy.fp;
	for (u32 i = 0; i < LIMIT_COPY_LINKS; i++) {
		if (!link.address || link.address & 7 || bpf_probe_read_user(pair, sizeof(pair), (void *)link.address))
			break;
		offset = link.address - (s->copy.sp - LIMIT_COPY_BELOW);
		if (offset >= s->copy.bytes || s->copy.bytes - offset < sizeof(pair)) {
			link.fp = pair[0];
			link.ra = pair[1];
			at = s->copy.bytes + s->copy.links * sizeof(link);
			if (at > LIMIT_COPY_BYTES + (LIMIT_COPY_LINKS - 1) * sizeof(link))
				break;
			__builtin_memcpy(s->copy.stack + at, &link, sizeof(link));
			s->copy.links++;
		}
		if (pair[0] == link.address)
			break;
		link.address = pair[0];
	}
	return s->copy.bytes + s->copy.links * sizeof(link);
}

/* Sends the registers of the walk, before its first step, and the stack. A reason, or 0. */
static __always_inline int send_copy(struct scratch *s, u64 now, u32 tgid)
{
	u64 count = count_copy(tgid, now), flags = BPF_RB_NO_WAKEUP;
	u32 size;

	if (!count)
		return REASON_COLD_LIMITED;
	s->copy.time_ns = now;
	s->copy.cpu = bpf_get_smp_processor_id();
	s->copy.bytes = (copy_stack() + 7) & ~7U;
	if (!s->copy.bytes)
		return REASON_STACK_UNREADABLE;
	/* The sooner its code is known, the fewer are copied; of a process that is sampled once nobody needs to know. */
	if ((count > 1 && !(count & (count - 1))) ||
	    bpf_ringbuf_query(&copies, BPF_RB_AVAIL_DATA) >= copies_wakeup_bytes)
		flags = BPF_RB_FORCE_WAKEUP;
	size = __builtin_offsetof(struct stack_copy, stack) + copy_links();
	asm volatile(
		""
		: "+r"(size)); /* or the compiler looks at another sum, and 5.10 does not see what that says of this one */
	if (size > sizeof(struct stack_copy) + LIMIT_COPY_LINKS * sizeof(struct copy_link))
		return REASON_STACK_UNREADABLE;
	return bpf_ringbuf_output(&copies, &s->copy, size, flags) ? REASON_COLD_LIMITED : REASON_NONE;
}

#endif
