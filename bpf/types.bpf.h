/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the C and the Go side say to each other: records, keys, counters,
 * reasons and limits. Go gets all of them by generation (bpf2go), so there is
 * one definition of each.
 *
 * Glossary
 *   frame   one 64-bit word: the kind in the top 4 bits, the rest by kind.
 *   stack   frames, innermost first, of one side (user or kernel).
 *   key     64-bit hash of a stack's frames, seeded; 0 means "no stack".
 *   sample  one interrupt that counted as work of a task we want to see.
 */
#ifndef PILOTLIGHT_TYPES_BPF_H
#define PILOTLIGHT_TYPES_BPF_H

#include "kernel.bpf.h"

enum limit {
	/* Frames of one side's stack. */
	LIMIT_STACK_FRAMES = 1024,
	/*
	 * Frames that the kernel's own walk gives: its default (sysctl
	 * kernel.perf_event_max_stack).
	 */
	LIMIT_KERNEL_WALK_FRAMES = 127,
	/*
	 * Frames in one element of stack_traces. Most stacks are shorter than
	 * 32; a deeper one takes a chain of elements.
	 */
	LIMIT_CHUNK_FRAMES = 32,
	/* in the first, short read of a stack */
	LIMIT_SHORT_FRAMES = 16,
	LIMIT_CHUNKS = 32, /* ceil(LIMIT_STACK_FRAMES / LIMIT_CHUNK_FRAMES) */
	/*
	 * An arena's shard: as large as array maps may be before 5.17
	 * (KMALLOC_MAX_SIZE). 12 of them are 48 MiB; the other maps take 13 MB
	 * where there are two CPUs. 8 M rows take nine.
	 */
	LIMIT_SHARD_WORDS = 1 << 20,
	LIMIT_SHARDS = 12,
	/*
	 * Of one process: two for each mapping that is kept of it. A list lies
	 * within a shard, of which the first has no position 0.
	 */
	LIMIT_CODE_RANGES = 131071,
	LIMIT_BLOCK_BITS = 12, /* of an address that lie within a block of an unwind table */
	LIMIT_RULE_BITS = 20, /* of a row that are its rule */
	LIMIT_WINDOW_WORDS = 256, /* of a stack that are read at once */
	LIMIT_SHORT_WINDOW_WORDS = 64, /* where nobody knows how much of it will be needed */
	LIMIT_REMEMBERED_FRAMES = 64, /* of a thread's last walk, from the root on */
	LIMIT_REMEMBERED_WALKS = 64, /* of a CPU */
	LIMIT_COPY_BYTES = 16 << 10, /* of a stack that go to user space */
	/*
	 * Of those, below the stack pointer: in epilogues rules still look for
	 * registers where they were popped from.
	 */
	LIMIT_COPY_BELOW = 128,
	LIMIT_COPY_LINKS = 128, /* of a stack's chain of frame pointers, outside of what was copied */
	LIMIT_CGROUP_DEPTH = 32,
	LIMIT_PID_LEVELS = 33, /* MAX_PID_NS_LEVEL below the initial namespace */
	LIMIT_GO_LABELS = 32, /* of a goroutine that are looked at */
	LIMIT_GO_BUCKETS = 8, /* of a map of them: each holds 8 */
	/*
	 * Of further labels that go with a sample: of all together, each with two bytes for its lengths, of a key, and of a value,
	 * of which the rest is left out. A label that has no room is left out.
	 */
	LIMIT_LABELS_BYTES = 256,
	LIMIT_KEY_BYTES = 63,
	LIMIT_VALUE_BYTES = 127,
	LIMIT_COMM = 16, /* TASK_COMM_LEN */
};

/* The top 4 bits of a frame. */
enum frame_kind {
	FRAME_KIND_NONE = 0,
	FRAME_KIND_RAW = 1,    /* user address, not yet normalised: 60 bits of address */
	FRAME_KIND_KERNEL = 2, /* kernel address: its low 60 bits, the rest are ones */
	FRAME_KIND_NATIVE = 3, /* 24 bits of file id, 36 bits of file offset */
};

/*
 * Why something is missing. One list for the whole program: the C side, the
 * Go side, the frames of a profile, the metrics and the comments.
 */
enum reason {
	REASON_NONE = 0,

	/* A sample is lost. */
	REASON_RING_FULL,     /* no room in the ring buffer (or, in an NMI, its lock was taken) */
	REASON_BAD_RECORD, /* a record from the ring does not have the agreed size. If it was a copied stack, that is lost, the sample stays */

	/* A stack, or the rest of one, is lost; the sample stays. */
	REASON_STACK_MAP_FULL, /* stack_traces refused the stack */
	REASON_STACK_EVICTED, /* the stack was pushed out before it was read, or its key does not fit its frames */
	REASON_USER_UNREADABLE, /* the kernel could not give the user stack */
	REASON_KERNEL_UNREADABLE,
	REASON_MAX_DEPTH, /* deeper than LIMIT_STACK_FRAMES */

	/* Frames that cannot be placed or named. */
	REASON_UNMAPPED_PC, /* no mapping holds the address: the walk went astray */
	REASON_NO_TABLE, /* the file there tells nothing of its frames */
	REASON_TABLE_PENDING, /* what the file tells of its frames is not compiled yet */
	REASON_NO_RULE, /* the file tells nothing of the frames of that code */
	REASON_UNKNOWN_REGISTER, /* the rule needs a register whose value is not known there */
	REASON_STACK_UNREADABLE, /* a place on the stack, where the rule looks, is not there or not in memory */
	REASON_NOT_ADVANCING, /* the caller's frame would begin before its callee's: a broken stack, or a broken rule */
	REASON_COMPAT_TASK, /* a 32-bit program */
	REASON_COLD_LIMITED, /* too many stacks of the process, whose code is not known yet, were copied in this second, or there was no room */
	REASON_STALE_MAPPING, /* the mapping in force at the time of the sample is not known any more */
	REASON_PROCESS_UNKNOWN, /* the process was gone before anything was known of it */
	REASON_FILE_GONE, /* the mapped file could not be opened any more */
	REASON_FILE_UNREADABLE, /* the mapped file is not an ELF file that can be read */
	REASON_NO_SYMBOL, /* the file is known, but nothing in it names the address */

	/* A stack is lost in the history on disk, or in an answer from it; the sample stays. */
	REASON_HISTORY_FULL, /* the date has as many new stacks as the history keeps of one, or its program as many as it may have of them */
	REASON_HISTORY_DAMAGED, /* the file that held the stack cannot be read */
	REASON_HISTORY_RARE, /* the answer would have too many stacks: few of its samples have this one */

	REASON_COUNT,
};

/*
 * How a frame is left, where the rule does not fit the bits of a row: struct
 * unwind_rule mirrors Rule of profiler/unwind, whose doc explains it. An element
 * of a table in the arena.
 */
enum rule_kind {
	RULE_GAP = 0,
	RULE_OUTERMOST = 1,
	RULE_STEP = 2,
	RULE_SIGNAL_FRAME = 3,
	RULE_STACK_SWITCH = 4,
	RULE_GOROUTINE = 5,
};

enum rule_cfa {
	RULE_CFA_REGISTER = 0,
	RULE_CFA_MEMORY = 1,
	RULE_CFA_PLT = 2,
};

enum rule_saved {
	RULE_UNCHANGED = 0,
	RULE_AT_CFA = 1,
	RULE_AT_BASE = 2,
	RULE_IN_BASE = 3,
};

/* The registers that a walk carries along. */
enum rule_register {
	RULE_SP = 0,
	RULE_FP = 1,
	RULE_BASE = 2, /* rbx; arm64: lr */
	RULE_REGISTERS,
};

struct unwind_saved {
	u8 kind; /* enum rule_saved */
	u8 base; /* enum rule_register */
	u16 pad;
	s32 offset;
};

struct unwind_rule {
	u8 kind; /* enum rule_kind */
	u8 cfa; /* enum rule_cfa */
	u8 cfa_base; /* enum rule_register */
	u8 pad;
	s32 offset;
	s32 add;
	struct unwind_saved ra;
	struct unwind_saved fp;
	struct unwind_saved base;
};
_Static_assert(sizeof(struct unwind_rule) == 36, "nine words");

/* Codes of rules whose kind is 0: no rule, and why. */
enum rule_none {
	RULE_NONE_GAP = 0,
	RULE_NONE_OUTERMOST = 1,
	RULE_NONE_NO_TABLE = 2,
	RULE_NONE_PENDING = 3,
};

/*
 * A piece of one process's code: where it is mapped, what its frames are, and how
 * they are left. Those of a process lie in the arena in the order of their
 * addresses, so that the piece of an address is found by bisection. Positions
 * are those of 4-byte words in the arena: the shard, then 20 bits.
 */
struct code_range {
	u64 start; /* address, at a multiple of 4,096 */
	u64 frame; /* what to add to an address to get its frame */
	u32 pages; /* of 4,096 bytes */
	u32 index; /* of the table: position of the entry of the block at start; 0: callers holds for every address */
	u32 rules; /* position of the table's rules */
	u32 callers; /* the code that holds for return addresses, 0: look into the table */
};
_Static_assert(sizeof(struct code_range) == 32, "two in a cache line");

enum process_flag {
	PROCESS_COPY =
		1 << 0, /* its mappings change all the time: copy its stacks as well, in case a walk went by what was */
};

/*
 * Where the threads of a process keep the ids of the span that they work for. With the thread context of OpenTelemetry
 * (OTEP 4947) that is a thread-local pointer to a struct thread_context; the first kinds say how to come to the pointer. What
 * span_at and span_offset are depends on the kind.
 */
enum span_source {
	SPAN_SOURCE_NONE = 0,
	SPAN_SOURCE_STATIC, /* at span_at from the thread pointer */
	SPAN_SOURCE_SLOT, /* as far from the thread pointer as the word at address span_at says */
	SPAN_SOURCE_MODULE, /* span_offset into the thread's block of the module whose number is at address span_at */
	SPAN_SOURCE_DESCRIPTOR, /* at address span_at is a TLS descriptor, see struct tls_descriptor */
	SPAN_SOURCE_GO, /* the labels of the goroutine whose g is named at span_at from the thread pointer */
	SPAN_SOURCE_GO_REGISTER, /* the same, the g is in a register (arm64) */
};

enum span_flag {
	SPAN_MUSL = 1 << 0, /* the thread's blocks are listed as musl does, not as glibc */
	SPAN_GO_MAP = 1 << 1, /* the labels are a map, as before Go 1.24, not a slice */
};

/*
 * A process whose code ranges are known. The check tells a value that is read
 * while it is replaced: values are reused at once. It is the exclusive or of
 * all other words.
 */
struct process {
	u32 tgid;
	u32 exec_id; /* of the program that the ranges are those of */
	u32 generation; /* never 0, no two values of the map have the same */
	u32 ranges; /* position of the first */
	u32 count;
	u32 flags; /* enum process_flag */
	u32 check;
	u8 span_source; /* enum span_source */
	u8 span_flags; /* enum span_flag */
	u16 go_m; /* offsets: of g.m, m.curg and g.labels */
	u64 span_at;
	u32 span_offset;
	u16 go_curg;
	u16 go_labels;
};
#define PROCESS_WORDS 12
_Static_assert(sizeof(struct process) == PROCESS_WORDS * sizeof(u32),
	       "no padding, or the check is of what nobody wrote");

/* What became of one side's stacks. The terms add up to the samples taken (truncated ones are new or known too). */
struct stack_counters {
	u64 fresh; /* met for the first time: put into stack_traces */
	u64 known; /* its key was there */
	u64 none; /* no such side: user mode has no kernel stack, a kernel thread no user stack */
	u64 unreadable; /* bpf_get_stack failed, or gave nothing of a side that is there */
	u64 map_full; /* stack_traces refused it */
	u64 truncated; /* the walk ended before the root */
	u64 copied; /* went to user space to be walked there */
	u64 joined; /* of those walked here: the outer frames were those of the last walk of the thread still */
};

/* What became of the ids of spans, in processes that have some. */
struct span_counters {
	u64 taken; /* they went with the sample */
	u64 none; /* the thread works for no span */
	u64 unreadable; /* a place that leads to them is not in memory */
	u64 refused; /* what is there are no ids */
};

/*
 * Per CPU. Every term is counted where it happens, none is computed from
 * another: seen = filtered_* + idle + taken, taken = submitted + lost_ring_full.
 */
struct cpu_counters {
	u64 seen; /* the program ran */
	u64 filtered_target; /* not one of the wanted processes */
	u64 filtered_cgroup; /* not in the wanted cgroup */
	u64 filtered_self; /* the agent itself, left out */
	u64 filtered_namespace; /* has no number in the pid namespace that is sampled */
	u64 idle; /* the CPU had nothing to do */
	u64 taken; /* work of a wanted task */
	u64 submitted; /* a record went into the ring */
	u64 lost_ring_full;
	struct stack_counters user;
	struct stack_counters kernel;
	struct span_counters span;
	u64 target_added; /* descendants put into targets */
	u64 target_map_full; /* descendants that did not fit: they are not sampled */
	u64 run_time_ns; /* between entry and exit of on_sample, by its own clock */
};

enum sample_flag {
	SAMPLE_USER_STACK_NEW = 1 << 0,
	SAMPLE_KERNEL_STACK_NEW = 1 << 1,
	SAMPLE_KERNEL_MODE = 1 << 2,
	SAMPLE_COPY = 1 << 3, /* a struct stack_copy of the same time and CPU goes with it */
};

/*
 * One sample, as it crosses the ring. The thread's name travels inline: 12
 * bytes more than an id would take, but no look-up, no map to bound and no
 * name that can be lost.
 */
struct sample {
	u64 time_ns; /* CLOCK_MONOTONIC, the clock of the side-band records */
	u64 user_stack; /* key into stack_traces, 0: none */
	u64 kernel_stack;
	u64 cgroup_id;
	u64 value; /* ns of the CPU clock, or events of the PMU: the event's period */
	u32 pid; /* thread group id, in the pid namespace that is sampled */
	u32 tid; /* 0 where the thread was reaped already (the initial namespace's is always there) */
	/*
	 * struct process's, by which the user stack was walked: its own, or that of the process it was forked from. 0: the process was not known or is a 32-bit one, and
	 * the stack was copied or is its leaf alone; or walks are off, and the kernel walked it. Its frames are raw then.
	 */
	u32 generation;
	u16 cpu;
	u8 user_reason; /* enum reason: why the stack is missing or cut */
	u8 kernel_reason;
	u32 exec_id; /* goes up by one with each exec of the task */
	u32 flags; /* enum sample_flag */
	char comm[LIMIT_COMM];
	u8 trace_id[16]; /* of the span that the thread worked for; zeros: none is known */
	u8 span_id[8];
};
_Static_assert(sizeof(struct sample) == 104, "64 bytes, the thread's name and the room for trace and span id");

/* A sample of a goroutine that has further labels: for each the lengths of key and value, a byte each, then both. */
struct labelled_sample {
	struct sample sample;
	u32 bytes;
	u32 pad;
	u8 labels[LIMIT_LABELS_BYTES];
};

/*
 * The cold path: where the process, its code or the table is not known here yet, the registers and the stack
 * go to user space as they are, and are walked there. Never stored, never logged.
 */
struct stack_copy {
	u64 time_ns; /* of its sample */
	u32 cpu;
	u32 present; /* bit N: the page that is N after that of the first byte could be read */
	u64 pc;
	u64 sp;
	u64 fp;
	u64 base;
	u32 bytes; /* of the stack, a multiple of 8; those of the last word may be beyond what was read */
	u32 links; /* that follow these bytes */
	u8 stack[LIMIT_COPY_BYTES]; /* from sp - LIMIT_COPY_BELOW on */
};

/*
 * A link of the chain of frame pointers: where it lies, the caller's frame pointer, and the return address above it. They
 * lead on where a stack is deeper than a copy, and over to the stack that Go's runtime came from to one of its own.
 */
struct copy_link {
	u64 address;
	u64 fp;
	u64 ra;
};

/* How many stacks of a process were copied in the second that began then. */
struct copy_budget {
	u64 since;
	u64 copies;
};

/*
 * An element of stack_traces. A stack of up to 32 frames is one element under
 * its key K; a deeper one goes on under stack_chunk_key(K, 1), (K, 2), ...
 * All elements are written before the sample that names them.
 *
 * The owner stands beside the frames so that Go can compute the key again from
 * what it read: an element that was replaced half way shows.
 */
struct stack_chunk {
	u16 frames; /* of the whole stack */
	u16 index; /* of this chunk */
	u32 pad;
	u64 owner; /* whose raw frames these are, 0: there are none, and the stack may be anybody's */
	u64 frame[LIMIT_CHUNK_FRAMES];
};
_Static_assert(LIMIT_CHUNKS * LIMIT_CHUNK_FRAMES >= LIMIT_STACK_FRAMES, "the chain holds the deepest stack");

/* A wanted process, by thread group id. */
struct target {
	u64 start_time; /* of the leader; 0 where Go put it in and does not know */
	u32 children; /* descendants are wanted too */
	u32 pad;
};

#endif
