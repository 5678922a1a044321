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
	/*
	 * Frames a walk by frame pointers can give: the kernel's own default
	 * (sysctl kernel.perf_event_max_stack).
	 */
	LIMIT_STACK_FRAMES = 127,
	/*
	 * Frames in one element of stack_traces. Most stacks are shorter than
	 * 32; a deeper one takes a chain of elements.
	 */
	LIMIT_CHUNK_FRAMES = 32,
	LIMIT_SHORT_FRAMES = 16,
	/* in the first, short read of a stack */
	LIMIT_CHUNKS = 4, /* ceil(LIMIT_STACK_FRAMES / LIMIT_CHUNK_FRAMES) */
	LIMIT_CGROUP_DEPTH = 32,
	LIMIT_PID_LEVELS = 33, /* MAX_PID_NS_LEVEL below the initial namespace */
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
	REASON_BAD_RECORD,    /* a record from the ring does not have the agreed size */

	/* A stack, or the rest of one, is lost; the sample stays. */
	REASON_STACK_MAP_FULL,   /* stack_traces refused the stack */
	REASON_STACK_EVICTED,    /* the stack was pushed out before it was read, or its key does not fit its frames */
	REASON_USER_UNREADABLE,  /* the kernel could not give the user stack */
	REASON_KERNEL_UNREADABLE,
	REASON_MAX_DEPTH,        /* deeper than LIMIT_STACK_FRAMES */

	/* Frames that cannot be placed or named. */
	REASON_UNMAPPED_PC,    /* no mapping holds the address: the walk went astray */
	REASON_STALE_MAPPING,  /* the mapping in force at the time of the sample is not known any more */
	REASON_PROCESS_UNKNOWN,/* the process was gone before anything was known of it */
	REASON_FILE_GONE,      /* the mapped file could not be opened any more */
	REASON_FILE_UNREADABLE,/* the mapped file is not an ELF file that can be read */
	REASON_NO_SYMBOL,      /* the file is known, but nothing in it names the address */

	REASON_COUNT,
};

/* What became of one side's stacks. The terms add up to the samples taken (truncated ones are new or known too). */
struct stack_counters {
	u64 fresh;      /* met for the first time: put into stack_traces */
	u64 known;      /* its key was there */
	u64 none;       /* no such side: user mode has no kernel stack, a kernel thread no user stack */
	u64 unreadable; /* bpf_get_stack failed, or gave nothing of a side that is there */
	u64 map_full;   /* stack_traces refused it */
	u64 truncated;  /* deeper than LIMIT_STACK_FRAMES */
};

/*
 * Per CPU. Every term is counted where it happens, none is computed from
 * another: seen = filtered_* + idle + taken, taken = submitted + lost_ring_full.
 */
struct cpu_counters {
	u64 seen;            /* the program ran */
	u64 filtered_target; /* not one of the wanted processes */
	u64 filtered_cgroup; /* not in the wanted cgroup */
	u64 filtered_self;   /* the agent itself, left out */
	u64 filtered_namespace; /* has no number in the pid namespace that is sampled */
	u64 idle;            /* the CPU had nothing to do */
	u64 taken;           /* work of a wanted task */
	u64 submitted;       /* a record went into the ring */
	u64 lost_ring_full;
	struct stack_counters user;
	struct stack_counters kernel;
	u64 target_added;    /* descendants put into targets */
	u64 target_map_full; /* descendants that did not fit: they are not sampled */
	u64 run_time_ns;     /* between entry and exit of on_sample, by its own clock */
};

enum sample_flag {
	SAMPLE_USER_STACK_NEW = 1 << 0,
	SAMPLE_KERNEL_STACK_NEW = 1 << 1,
	SAMPLE_KERNEL_MODE = 1 << 2,
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
	u32 generation; /* of the mappings that the user frames were normalised with; 0 while they are raw */
	u16 cpu;
	u8 user_reason; /* enum reason: why the stack is missing or cut */
	u8 kernel_reason;
	u32 exec_id; /* goes up by one with each exec of the task */
	u32 flags;   /* enum sample_flag */
	char comm[LIMIT_COMM];
	u8 trace_id[16];
	u8 span_id[8];
};
_Static_assert(sizeof(struct sample) == 104, "64 bytes, the thread's name and the room for trace and span id");

/*
 * An element of stack_traces. A stack of up to 32 frames is one element under
 * its key K; a deeper one goes on under stack_chunk_key(K, 1), (K, 2), ...
 * All elements are written before the sample that names them.
 *
 * The seed stands beside the frames so that Go can compute the key again from
 * what it read: an element that was replaced half way shows.
 */
struct stack_chunk {
	u16 frames; /* of the whole stack */
	u16 index;  /* of this chunk */
	u32 pad;
	u64 seed;
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
