/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ids of the span that the interrupted thread works for: out of its thread context (OTEP 4947), or out of the
 * labels of the goroutine that it runs. Whatever is read, the process may have put there: all of it is
 * numbers, each loop has an end, and what does not look like ids is none.
 *
 * The thread itself was interrupted, so that what it alone writes stands still.
 */
#ifndef PILOTLIGHT_SPAN_BPF_H
#define PILOTLIGHT_SPAN_BPF_H

#include <bpf/bpf_helpers.h>

#include "scratch.bpf.h"
#include "types.bpf.h"
#include "walk.bpf.h"

enum span_result {
	SPAN_TAKEN,
	SPAN_NONE,
	SPAN_UNREADABLE,
	SPAN_REFUSED,
};

/* The record of OTEP 4947, up to what follows the ids. */
struct thread_context {
	struct span_ids ids;
	u8 valid; /* 1: it is */
	u8 trace_flags;
};

/*
 * A TLS descriptor: what the loader wrote for the code to call. The argument is how far the variable is from the thread pointer; or,
 * where it lies in a block that each thread gets when it needs it, points to the number of the module and the offset in its block.
 */
struct tls_descriptor {
	u64 resolver;
	u64 argument;
};

struct tls_index {
	u64 module;
	u64 offset;
};

/* No pointer is as small: programs begin at 4 MiB at least, and blocks of static thread-local memory are smaller. */
#define TLS_FARTHEST (4 << 20)

/* What glibc writes in the place of a block that the thread does not have yet. */
#define DTV_UNALLOCATED ~0ULL

static __always_inline bool read_word(u64 *word, u64 address)
{
	return !bpf_probe_read_user(word, sizeof(*word), (const void *)address);
}

/*
 * Finds a thread-local variable in a block that each thread gets when it needs it. The dtv of the thread lists these: an element is 16 bytes,
 * the first of them the address, and how many there are stands before the first (glibc); or it is 8 bytes, and the first one is how many (musl).
 */
static __always_inline int find_in_module(const struct process *p, u64 thread, u64 module, u64 offset, u64 *address)
{
	bool musl = p->span_flags & SPAN_MUSL;
	u64 dtv, count, block;

	if (!read_word(&dtv, thread + (musl ? DTV_AT_MUSL : DTV_AT)) || !read_word(&count, musl ? dtv : dtv - 16))
		return SPAN_UNREADABLE;
	if (!module || module > count)
		return SPAN_NONE; /* loaded since this thread asked for any */
	if (!read_word(&block, dtv + module * (musl ? 8 : 16)))
		return SPAN_UNREADABLE;
	if (!block || block == DTV_UNALLOCATED)
		return SPAN_NONE;
	*address = block + offset;
	return SPAN_TAKEN;
}

/* Finds where the thread keeps the pointer to its context. */
static __always_inline int find_thread_local(const struct process *p, u64 *address)
{
	u64 thread = thread_pointer(task_btf), word;
	struct tls_descriptor descriptor;
	struct tls_index index;

	switch (p->span_source) {
	case SPAN_SOURCE_STATIC:
		*address = thread + p->span_at;
		return SPAN_TAKEN;
	case SPAN_SOURCE_SLOT:
		if (!read_word(&word, p->span_at))
			return SPAN_UNREADABLE;
		*address = thread + word;
		return SPAN_TAKEN;
	case SPAN_SOURCE_MODULE:
		if (!read_word(&word, p->span_at))
			return SPAN_UNREADABLE;
		return find_in_module(p, thread, word, p->span_offset, address);
	case SPAN_SOURCE_DESCRIPTOR:
		if (bpf_probe_read_user(&descriptor, sizeof(descriptor), (const void *)p->span_at))
			return SPAN_UNREADABLE;
		if (descriptor.argument + TLS_FARTHEST < 2 * TLS_FARTHEST) {
			*address = thread + descriptor.argument;
			return SPAN_TAKEN;
		}
		if (bpf_probe_read_user(&index, sizeof(index), (const void *)descriptor.argument))
			return SPAN_UNREADABLE;
		return find_in_module(p, thread, index.module, index.offset, address);
	}
	return SPAN_NONE;
}

/* Reads the thread's context. A global function: see unwind.bpf.h. */
__noinline int read_thread_context(void)
{
	struct scratch *s = this_cpu_scratch();
	struct thread_context context;
	u64 address = 0;
	int result;

	if (!s)
		return SPAN_NONE;
	result = find_thread_local(&s->walk.process, &address);
	if (result != SPAN_TAKEN)
		return result;
	if (!read_word(&address, address))
		return SPAN_UNREADABLE;
	if (!address)
		return SPAN_NONE;
	if (bpf_probe_read_user(&context, sizeof(context), (const void *)address))
		return SPAN_UNREADABLE;
	if (context.valid != 1)
		return SPAN_NONE; /* or it is being written */
	s->span = context.ids;
	return SPAN_TAKEN;
}

/*
 * Makes bytes of hexadecimal text; false where it is none. Without branches, of which 32 rounds would have 2^32 ways: a letter's bit 6 is set, and
 * what comes out is written as text again and compared.
 */
static __always_inline bool decode_hex(const u8 *text, u8 *bytes, u32 count)
{
	u32 wrong = 0;

	for (u32 i = 0; i < count; i++) {
		u32 value = 0;

		for (u32 j = 0; j < 2; j++) {
			u32 c = text[2 * i + j], digit = ((c & 15) + 9 * (c >> 6)) & 15;

			wrong |= (c | (c >> 6 & 1) << 5) ^ ('0' + digit + ('a' - '0' - 10) * ((digit + 6) >> 4));
			value = value << 4 | digit;
		}
		bytes[i] = value;
	}
	return !wrong;
}

#define KEY_TRACE_ID 0x64695f6563617274ULL /* "trace_id" */
#define KEY_SPAN_ID 0x0064695f6e617073ULL /* "span_id" */

_Static_assert(LIMIT_LABELS_BYTES + 2 + LIMIT_KEY_BYTES + LIMIT_VALUE_BYTES <= 2 * LIMIT_LABELS_BYTES,
	       "the last label has room");

/* Takes a label that is none of the ids, if there is room for it. A global function: see unwind.bpf.h. */
__noinline int take_further_label(u64 key, u64 key_bytes, u64 value, u64 value_bytes)
{
	struct scratch *s = this_cpu_scratch();
	u64 at;

	if (!s)
		return 0;
	at = s->label_bytes;
	if (value_bytes > LIMIT_VALUE_BYTES)
		value_bytes = LIMIT_VALUE_BYTES;
	if (!key_bytes || key_bytes > LIMIT_KEY_BYTES || at + 2 + key_bytes + value_bytes > LIMIT_LABELS_BYTES)
		return 0;
	/* The compiler knows these bounds, and 5.10 does not. */
	asm volatile("%0 &= %1" : "+r"(at) : "i"(LIMIT_LABELS_BYTES - 1));
	asm volatile("%0 &= %1" : "+r"(key_bytes) : "i"(LIMIT_KEY_BYTES));
	asm volatile("%0 &= %1" : "+r"(value_bytes) : "i"(LIMIT_VALUE_BYTES));
	s->labels[at] = key_bytes;
	s->labels[at + 1] = value_bytes;
	if (bpf_probe_read_user(&s->labels[at + 2], key_bytes, (const void *)key) ||
	    bpf_probe_read_user(&s->labels[at + 2 + key_bytes], value_bytes, (const void *)value))
		return 0;
	s->label_bytes = at + 2 + key_bytes + value_bytes;
	return 0;
}

/* Takes a label of a goroutine: one of the ids, or another. Not 0 where something is wrong with it. A global function: see unwind.bpf.h. */
__noinline int take_label(u64 key, u64 key_bytes, u64 value, u64 value_bytes)
{
	struct scratch *s = this_cpu_scratch();
	u64 name = 0;

	if (!s)
		return 0;
	if (key_bytes == 8) {
		if (bpf_probe_read_user(&name, 8, (const void *)key))
			return SPAN_UNREADABLE;
		if (name != KEY_TRACE_ID)
			return take_further_label(key, key_bytes, value, value_bytes);
		if (value_bytes != 2 * sizeof(s->span.trace_id))
			return SPAN_REFUSED;
		if (bpf_probe_read_user(s->text, 2 * sizeof(s->span.trace_id), (const void *)value))
			return SPAN_UNREADABLE;
		return decode_hex(s->text, s->span.trace_id, sizeof(s->span.trace_id)) ? 0 : SPAN_REFUSED;
	}
	if (key_bytes == 7) {
		if (bpf_probe_read_user(&name, 7, (const void *)key))
			return SPAN_UNREADABLE;
		if (name != KEY_SPAN_ID)
			return take_further_label(key, key_bytes, value, value_bytes);
		if (value_bytes != 2 * sizeof(s->span.span_id))
			return SPAN_REFUSED;
		if (bpf_probe_read_user(s->text, 2 * sizeof(s->span.span_id), (const void *)value))
			return SPAN_UNREADABLE;
		return decode_hex(s->text, s->span.span_id, sizeof(s->span.span_id)) ? 0 : SPAN_REFUSED;
	}
	return take_further_label(key, key_bytes, value, value_bytes);
}

/* Takes the ids out of a slice of labels: Go 1.24 and newer. A global function: see unwind.bpf.h. */
__noinline int take_label_slice(u64 labels)
{
	u64 slice[2]; /* address, length */
	struct go_label label;
	int result;

	if (bpf_probe_read_user(slice, sizeof(slice), (const void *)labels))
		return SPAN_UNREADABLE;
	for (u32 i = 0; i < LIMIT_GO_LABELS; i++) {
		if (i >= slice[1])
			break;
		if (bpf_probe_read_user(&label, sizeof(label), (const void *)(slice[0] + i * sizeof(label))))
			return SPAN_UNREADABLE;
		result = take_label(label.key.text, label.key.bytes, label.value.text, label.value.bytes);
		if (result)
			return result;
	}
	return SPAN_TAKEN;
}

#define GO_MIN_TOPHASH 5

/* Takes the ids out of a bucket of a map of labels; its overflow is in the scratch then. A global function: see unwind.bpf.h. */
__noinline int take_label_bucket(u64 address)
{
	struct scratch *s = this_cpu_scratch();
	int result;

	if (!s)
		return 0;
	if (bpf_probe_read_user(&s->bucket, sizeof(s->bucket), (const void *)address))
		return SPAN_UNREADABLE;
	for (u32 i = 0; i < 8; i++) {
		if (s->bucket.tophash[i] < GO_MIN_TOPHASH)
			continue;
		result = take_label(s->bucket.key[i].text, s->bucket.key[i].bytes, s->bucket.value[i].text,
				    s->bucket.value[i].bytes);
		if (result)
			return result;
	}
	return 0;
}

/* The beginning of a map's header, before Go 1.24. */
struct go_map {
	u64 count;
	u8 flags;
	u8 bucket_bits;
	u16 overflows;
	u32 seed;
	u64 buckets;
	u64 old_buckets; /* half as many, while the map grows; or as many, while it is put in order */
};
#define GO_SAME_SIZE_GROW 8

/* Takes the ids out of a map of labels: before Go 1.24. Of maps with many labels some buckets are looked at. A global function: see unwind.bpf.h. */
__noinline int take_label_map(u64 labels)
{
	struct scratch *s = this_cpu_scratch();
	u64 address, next, old, buckets, olds;
	struct go_map map;
	int result;

	if (!s)
		return SPAN_NONE;
	if (!read_word(&address, labels))
		return SPAN_UNREADABLE;
	if (!address)
		return SPAN_NONE;
	if (bpf_probe_read_user(&map, sizeof(map), (const void *)address))
		return SPAN_UNREADABLE;
	next = map.buckets;
	old = map.old_buckets;
	buckets = 1ULL << (map.bucket_bits & 31);
	olds = !old ? 0 : map.flags & GO_SAME_SIZE_GROW ? buckets : buckets / 2;
	address = 0; /* of an overflow */
	for (u32 i = 0; i < LIMIT_GO_BUCKETS; i++) {
		if (!address) {
			if (buckets && next) {
				address = next;
				next += sizeof(struct go_bucket);
				buckets--;
			} else if (olds) {
				address = old;
				old += sizeof(struct go_bucket);
				olds--;
			} else {
				break;
			}
		}
		result = take_label_bucket(address);
		if (result)
			return result;
		address = s->bucket.overflow;
	}
	return SPAN_TAKEN;
}

/* Finds the labels of the goroutine that the thread runs; on a stack of the runtime's own, of that which it runs for. */
static __always_inline int find_labels(const struct walk *w, u64 *labels)
{
	u64 g = w->goroutine, m, current;

	if (w->process.span_source == SPAN_SOURCE_GO && !read_word(&g, thread_pointer(task_btf) + w->process.span_at))
		return SPAN_UNREADABLE;
	if (!g)
		return SPAN_NONE; /* not one of Go's threads */
	if (!read_word(labels, g + w->process.go_labels))
		return SPAN_UNREADABLE;
	if (*labels)
		return SPAN_TAKEN;
	if (!read_word(&m, g + w->process.go_m) || !read_word(&current, m + w->process.go_curg))
		return SPAN_UNREADABLE;
	if (!current || current == g)
		return SPAN_NONE;
	if (!read_word(labels, current + w->process.go_labels))
		return SPAN_UNREADABLE;
	return *labels ? SPAN_TAKEN : SPAN_NONE;
}

/* Reads the labels of the goroutine. A global function: see unwind.bpf.h. */
__noinline int read_goroutine(void)
{
	struct scratch *s = this_cpu_scratch();
	u64 labels = 0;
	int result;

	if (!s)
		return SPAN_NONE;
	result = find_labels(&s->walk, &labels);
	if (result != SPAN_TAKEN)
		return result;
	return s->walk.process.span_flags & SPAN_GO_MAP ? take_label_map(labels) : take_label_slice(labels);
}

static __always_inline bool is_zero(const struct span_ids *ids)
{
	const u64 *words = (const void *)ids;

	return !(words[0] | words[1] | words[2]);
}

/* Puts the ids of the thread's span into the scratch, zeros where it has none, and further labels. */
static __always_inline void take_span(struct scratch *s, struct span_counters *c)
{
	int result;

	__builtin_memset(&s->span, 0, sizeof(s->span));
	s->label_bytes = 0;
	result = s->walk.process.span_source >= SPAN_SOURCE_GO ? read_goroutine() : read_thread_context();
	if (result == SPAN_TAKEN && is_zero(&s->span))
		result = SPAN_NONE;
	c->taken += result == SPAN_TAKEN;
	c->none += result == SPAN_NONE;
	c->unreadable += result == SPAN_UNREADABLE;
	c->refused += result == SPAN_REFUSED;
	if (result != SPAN_TAKEN)
		__builtin_memset(&s->span, 0, sizeof(s->span));
}

#endif
