/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Working memory of a CPU: a program's own stack ends at 512 bytes. */
#ifndef PILOTLIGHT_SCRATCH_BPF_H
#define PILOTLIGHT_SCRATCH_BPF_H

#include <bpf/bpf_helpers.h>

#include "types.bpf.h"

/* What was found of a piece of code: its range, and the row of the table that holds at some addresses of it. */
struct code_place {
	struct code_range range;
	u64 row_start; /* address */
	u32 row_bytes; /* 0: no row */
	u32 code; /* of the row's rule */
};

/* How far a walk over a user stack is. */
struct walk {
	u64 pc; /* where the frame's code goes on */
	u64 sp;
	u64 fp;
	u64 base; /* rbx; arm64: lr */
	u64 key;  /* of the frames until now, as far as stack_key_step leads */
	u64 window; /* address of the piece of the stack that is in scratch.window */
	u64 ahead; /* address up to which the stack may be read in large pieces; 0: nowhere */
	u32 window_bytes;
	u32 frames;
	u32 reads; /* of the stack */
	u32 unremembered; /* so many frames from the leaf on: up to the last that was interrupted or left by a rule of the table */
	u32 own_frames; /* those that the walk took itself, the others are remembered ones; 0: all */
	u32 candidate; /* the remembered frame that the walk may come to next */
	u32 changes; /* of processes, when the walk began */
	u32 window_at; /* how many frames were left or looked at when the window was read */
	u16 slots; /* where the last frame's registers were saved, see leave_by_code; SLOTS_UNKNOWN: by another rule */
	u8 interrupted; /* the instruction at pc was not executed yet; else a call stands before it */
	u8 base_known;
	u8 compat; /* a 32-bit program */
	u8 raw; /* frames are raw */
	u8 reason; /* why it ended, enum reason; 0: at the root */
	u8 value_known;
	struct code_place place; /* of the last frame, most often of the next one too */
	struct process process;
	u64 goroutine; /* arm64: what the register holds in which Go's code keeps its g */
	u64 value; /* of a register in the caller, while a rule is followed */
	struct unwind_rule rule;
};

/* A frame of a walk, as it was before it was left, and where what leads to the caller stands. */
struct remembered_frame {
	u64 frame;
	u64 sp;
	u64 fp;
	u64 pc_slots; /* 48 bits of pc, then slots, see leave_by_code */
};

/* The last walk of a thread, the root's frame last. Frames before first are of no walk. */
struct remembered_walk {
	u32 tid;
	u32 first;
	u32 changes; /* of processes: until there is another one, process is what they say */
	u32 pad;
	struct process process; /* by whose code ranges it went */
	struct code_place place; /* where the thread was */
	struct remembered_frame frame[LIMIT_REMEMBERED_FRAMES];
};

/* The ids of a span, as they go with a sample. */
struct span_ids {
	u8 trace_id[16];
	u8 span_id[8];
};

/* A string of Go's. */
struct go_string {
	u64 text;
	u64 bytes;
};

struct go_label {
	struct go_string key;
	struct go_string value;
};

/* A bucket of a map of strings by strings, before Go 1.24. */
struct go_bucket {
	u8 tophash[8]; /* of each element; less than GO_MIN_TOPHASH: there is none */
	struct go_string key[8];
	struct go_string value[8];
	u64 overflow;
};

/* 32 KB a CPU. */
struct scratch {
	struct walk walk; /* this and the next are what every walk needs, and the beginning of frames and last */
	u64 window[LIMIT_WINDOW_WORDS];
	struct stack_chunk chunk;
	struct span_ids span;
	struct go_bucket bucket;
	u8 text[32]; /* of a label */
	u32 label_bytes; /* of labels */
	u32 pad;
	u8 labels
		[2 *
		 LIMIT_LABELS_BYTES]; /* twice, because the verifier does not know that the last label ends with them */
	u64 frames[LIMIT_STACK_FRAMES];
	union {
		struct stack_copy copy;
		struct {
			u8 before[__builtin_offsetof(struct stack_copy, stack)];
			/* while it walks: the last frames, by their numbers */
			struct remembered_frame last[LIMIT_REMEMBERED_FRAMES];
		};
	};
	u8 overhang
		[4096]; /* links follow the copied bytes; and the verifier does not know that the last piece of these ends with them */
};

_Static_assert(LIMIT_COPY_LINKS * sizeof(struct copy_link) <= 4096, "links fit behind a copy");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *this_cpu_scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

#endif
