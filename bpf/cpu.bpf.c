// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * The CPU sampler: one perf event a CPU runs on_sample, which takes the kernel
 * and the user stack of the task that it hit, puts each stack that is new into
 * stack_traces, and sends a record of 104 bytes through the ring; 368 where a goroutine has labels.
 */
#include "kernel.bpf.h"

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "namespace.bpf.h"
#include "scratch.bpf.h"
#include "stack.bpf.h"
#include "types.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set by Go before the load; the verifier then drops the branches that are off. */
const volatile u64 stack_secret;
const volatile u32 exclude_tgid;       /* 0: nobody is left out */
const volatile u32 filter_targets;     /* only processes in targets */
const volatile u64 filter_cgroup;      /* id of the wanted cgroup, 0: all */
const volatile s32 cgroup_subsys = -1; /* cgroup v1: index of the controller whose hierarchy counts; -1: v2 */
const volatile u64 softirq_start;      /* the kernel function that runs softirqs */
const volatile u64 softirq_size;       /* 0: not known, idle tasks never count */
const volatile u32 max_frames =
	LIMIT_KERNEL_WALK_FRAMES; /* what the kernel's walk can give: sysctl kernel.perf_event_max_stack, if lower */
const volatile u32 walks; /* user stacks are walked here, by unwind tables; else by the kernel, by frame pointers */
const volatile u32 copy_all; /* copies every stack, so that the walk can be compared */
const volatile u32 ring_wakeup_bytes; /* wake the reader once so much is waiting */
const volatile u32 task_btf; /* the kernel has bpf_get_current_task_btf */
const volatile u32 cgroup_level; /* v2: how deep filter_cgroup is below the root; 0: not known, or no helper for it */

/*
 * Samples on their way to Go. Written here, read by the sampler package. Size
 * set by Go: two seconds of samples, from 256 KiB (2,300 records) to 16 MiB. The
 * reader comes by the clock, five times a second; only a ring that fills
 * sooner wakes it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} samples SEC(".maps");

/*
 * Key: key of a stack (or of its further chunks), value: struct stack_chunk.
 * Written here when a stack is met for the first time; Go reads an element when it
 * meets a key that it does not know. The least recently used go when it is
 * full: a stack that is pushed out before Go read it is counted as
 * stack_evicted. Size set by Go: 16,384 elements, 5.5 MB, are more distinct
 * stacks than a busy host shows between two reads.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct stack_chunk);
} stack_traces SEC(".maps");

/*
 * Key: cgroup id, value: is it below filter_cgroup? A cgroup never moves, so
 * an answer holds for ever. Written here; used with a cgroup target only.
 * 1,024 elements (70 KB): more cgroups than are active within a second; one
 * that was pushed out is walked again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u8);
} cgroup_matches SEC(".maps");

#include "cold.bpf.h"
#include "walk.bpf.h"
#include "span.bpf.h"

/* Names the types that no variable has, so that they are in this object's BTF and Go gets them. */
const struct labelled_sample *const unused_labelled_sample __attribute__((unused));
const struct sample *const unused_sample __attribute__((unused));
const enum limit *const unused_limit __attribute__((unused));
const enum frame_kind *const unused_frame_kind __attribute__((unused));
const enum reason *const unused_reason __attribute__((unused));
const enum sample_flag *const unused_sample_flag __attribute__((unused));
const struct unwind_rule *const unused_unwind_rule __attribute__((unused));
const struct code_range *const unused_code_range __attribute__((unused));
const struct stack_copy *const unused_stack_copy __attribute__((unused));
const struct copy_link *const unused_copy_link __attribute__((unused));
const enum process_flag *const unused_process_flag __attribute__((unused));
const enum span_source *const unused_span_source __attribute__((unused));
const enum span_flag *const unused_span_flag __attribute__((unused));
const enum rule_kind *const unused_rule_kind __attribute__((unused));
const enum rule_cfa *const unused_rule_cfa __attribute__((unused));
const enum rule_saved *const unused_rule_saved __attribute__((unused));
const enum rule_register *const unused_rule_register __attribute__((unused));
const enum rule_none *const unused_rule_none __attribute__((unused));

static __always_inline bool in_user_mode(struct perf_event_data *ctx)
{
#if defined(__TARGET_ARCH_x86)
	return ctx->regs[17] & 3; /* cs: the privilege level */
#elif defined(__TARGET_ARCH_arm64)
	return (ctx->regs[33] & 0xf) == 0; /* pstate: exception level 0 */
#endif
}

/* Is the function that runs softirqs among the addresses of the kernel's walk? */
__noinline int has_softirq(u32 frames)
{
	struct scratch *s = this_cpu_scratch();

	if (!s)
		return 0;
	for (u32 i = 0; i < LIMIT_KERNEL_WALK_FRAMES; i++) {
		if (i >= frames)
			break;
		if (s->frames[i] - softirq_start < softirq_size)
			return 1;
	}
	return 0;
}

/*
 * The idle task is work only where an interrupt made it run softirqs. The
 * preempt count would say so at once, but its place differs by architecture
 * and version, and kernels built without KALLSYMS_ALL do not let a program
 * refer to it (seen on 6.18); the function on the stack is there on all.
 */
static __always_inline bool serving_softirq(struct perf_event_data *ctx, struct scratch *w)
{
	long size;

	if (!softirq_size)
		return false;
	size = bpf_get_stack(ctx, w->frames, LIMIT_KERNEL_WALK_FRAMES * sizeof(u64), 0);
	return size > 0 && has_softirq((u64)size / sizeof(u64));
}

/*
 * There are two ways to read the running task. From bpf_get_current_task_btf (5.11) the
 * verifier knows the type that a pointer points to, and plain loads will do; they
 * also work where lockdown=confidentiality forbids bpf_probe_read_kernel, which
 * BPF_CORE_READ calls. The verifier does not look at the way that task_btf rules
 * out, so a kernel that does not know or allow the helper takes the program.
 */
static __always_inline u32 current_exec_id(void)
{
	struct task_struct *task;

	if (task_btf)
		return bpf_get_current_task_btf()->self_exec_id;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, self_exec_id);
}

static __always_inline u64 current_start_time(void)
{
	struct task_struct *task;

	if (task_btf)
		return bpf_get_current_task_btf()->group_leader->start_time;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, group_leader, start_time);
}

/* The cgroup of the running task, in the hierarchy that counts. */
static __always_inline struct cgroup *current_cgroup(void)
{
	struct cgroup_subsys_state *css = 0;
	struct task_struct *task;
	struct css_set *cset;

	if (task_btf) {
		cset = bpf_get_current_task_btf()->cgroups;
		return cgroup_subsys < 0 ? cset->dfl_cgrp : cset->subsys[cgroup_subsys & 31]->cgroup;
	}
	task = (void *)bpf_get_current_task();
	cset = BPF_CORE_READ(task, cgroups);
	if (cgroup_subsys < 0)
		return BPF_CORE_READ(cset, dfl_cgrp);
	bpf_core_read(&css, sizeof(css), &cset->subsys[cgroup_subsys & 31]);
	return BPF_CORE_READ(css, cgroup);
}

static __always_inline u64 cgroup_id(struct cgroup *cgroup)
{
	return task_btf ? cgroup->kn->id : BPF_CORE_READ(cgroup, kn, id);
}

static __always_inline u64 current_cgroup_id(void)
{
	return cgroup_subsys < 0 ? bpf_get_current_cgroup_id() : cgroup_id(current_cgroup());
}

static __noinline bool walk_cgroup(u64 id)
{
	struct cgroup *cgroup = current_cgroup();
	u8 match = 0;

	for (int i = 0; i < LIMIT_CGROUP_DEPTH && cgroup; i++) {
		if (cgroup_id(cgroup) == filter_cgroup) {
			match = 1;
			break;
		}
		cgroup = task_btf ? cgroup->self.parent->cgroup : BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	bpf_map_update_elem(&cgroup_matches, &id, &match, BPF_ANY);
	return match;
}

static __always_inline bool in_wanted_cgroup(u64 id)
{
	u8 *match;

	if (cgroup_level)
		return bpf_get_current_ancestor_cgroup_id(cgroup_level) == filter_cgroup;
	match = bpf_map_lookup_elem(&cgroup_matches, &id);
	return match ? *match : walk_cgroup(id);
}

/*
 * The same raw addresses mean other code in another process and after an exec,
 * so both are in the key of a stack that holds some. The start time, which would
 * tell a reused pid as well, is left to Go, which compares the process anyway:
 * fetching it from the leader cost half a microsecond of cold cache lines.
 */
static __always_inline u64 owner_of(u32 tgid, u32 exec_id)
{
	return (u64)exec_id << 32 | tgid;
}

struct stack_result {
	u64 key;
	u8 flags; /* enum sample_flag */
	u8 reason;
};

/* Puts one chunk of the stack in scratch.frames into stack_traces. A global function: see unwind.bpf.h. */
__noinline int put_chunk(u64 key, u32 index)
{
	struct scratch *s = this_cpu_scratch();

	if (!s || index >= LIMIT_CHUNKS)
		return 1;
	key = stack_chunk_key(key, index);
	s->chunk.index = index;
	__builtin_memcpy(s->chunk.frame, &s->frames[index * LIMIT_CHUNK_FRAMES], sizeof(s->chunk.frame));
	return bpf_map_update_elem(&stack_traces, &key, &s->chunk, BPF_ANY) != 0;
}

/* The first chunk goes in last, so whoever finds it finds the rest. */
__noinline int put_chunks(u64 key, u32 frames)
{
	u32 last = (frames - 1) / LIMIT_CHUNK_FRAMES;

	for (u32 i = 0; i < LIMIT_CHUNKS; i++) {
		if (i > last)
			break;
		if (put_chunk(key, last - i))
			return 1;
	}
	return 0;
}

/* Puts the stack in s->frames into stack_traces, if it is not there. */
static __always_inline u64 put_stack(struct scratch *s, u64 key, u32 frames, u64 owner, struct stack_counters *c)
{
	key = stack_key_end(key, frames, owner);
	if (!unlikely(!bpf_map_lookup_elem(&stack_traces, &key))) {
		c->known++;
		return key;
	}
	s->chunk.frames = frames;
	s->chunk.owner = owner;
	if (put_chunks(key, frames)) {
		c->map_full++;
		return 0;
	}
	c->fresh++;
	return key;
}

/* A kernel thread has no user side, nor has a task whose memory is gone in its exit. */
static __always_inline bool has_user_side(void)
{
	struct task_struct *task;

	if (task_btf) {
		task = bpf_get_current_task_btf();
		return task->mm && !(task->flags & (PF_KTHREAD | PF_USER_WORKER));
	}
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, mm) && !(BPF_CORE_READ(task, flags) & (PF_KTHREAD | PF_USER_WORKER));
}

/* Marks the addresses of the kernel's walk with their kind, and begins the key. A global function: see walk_frames. */
__noinline u64 hash_frames(u32 frames, u64 kind)
{
	struct scratch *s = this_cpu_scratch();
	u64 key = stack_secret;

	if (!s)
		return 0;
	for (u32 i = 0; i < LIMIT_KERNEL_WALK_FRAMES; i++) {
		if (i >= frames)
			break;
		s->frames[i] = (s->frames[i] & FRAME_PAYLOAD_MASK) | kind;
		key = stack_key_step(key, s->frames[i]);
	}
	return key;
}

/*
 * One side's stack by the kernel's walk, which is there unless it is the user's. The first read is a short one:
 * bpf_get_stack clears what it does not fill, and at low rates each cold cache line costs more than a frame.
 * With 16 frames instead of 32 the whole program took 3.9 us instead of 4.8 at
 * 97 Hz; a stack that is deeper is walked again, in lines that are warm by then.
 */
static __always_inline struct stack_result take_stack(struct perf_event_data *ctx, struct scratch *s, u64 flags,
						      u64 kind, u64 owner, u8 is_new, struct stack_counters *c,
						      enum reason unreadable)
{
	struct stack_result result = {};
	u64 fresh = c->fresh, key;
	long size;
	u32 frames;

	size = bpf_get_stack(ctx, s->frames, LIMIT_SHORT_FRAMES * sizeof(u64), flags);
	if (size == LIMIT_SHORT_FRAMES * sizeof(u64))
		size = bpf_get_stack(ctx, s->frames, LIMIT_KERNEL_WALK_FRAMES * sizeof(u64), flags);
	if (size <= 0) {
		/*
		 * Empty is right only where there is no such side. Elsewhere the kernel gave nothing: it walks
		 * no frame at all with kernel.perf_event_max_stack=0, and an event can leave out call chains.
		 */
		if (size == 0 && (flags & BPF_F_USER_STACK) && !has_user_side()) {
			c->none++;
		} else {
			c->unreadable++;
			result.reason = unreadable;
		}
		return result;
	}
	frames = (u64)size / sizeof(u64);
	key = hash_frames(frames, kind);
	if (frames >= max_frames) {
		c->truncated++;
		result.reason = REASON_MAX_DEPTH;
	}
	result.key = put_stack(s, key, frames, owner, c);
	if (!result.key)
		result.reason = REASON_STACK_MAP_FULL;
	result.flags = c->fresh != fresh ? is_new : 0;
	return result;
}

/* The user stack by our own walk, or by a copy of it where what the walk needs is not here yet. */
static __always_inline struct stack_result walk_stack(struct perf_event_data *ctx, struct scratch *s, u64 now,
						      bool user_mode, u32 tgid, u32 exec_id, u32 *generation,
						      struct stack_counters *c)
{
	struct stack_result result = {};
	struct walk *w = &s->walk;
	u64 fresh = c->fresh;
	bool cold, copy = copy_all;
	int uncopied = REASON_NONE;

	begin_walk(ctx, s, user_mode);
	if (unlikely(w->compat)) {
		take_leaf(s, REASON_COMPAT_TASK);
	} else if (!unlikely(!find_code_of(w, bpf_get_current_pid_tgid(), tgid, exec_id))) {
		copy |= w->process.flags & PROCESS_COPY;
		walk_frames(bpf_get_current_pid_tgid());
		if (!unlikely(!still_published(w)))
			*generation = w->process.generation;
		else
			take_back(s, REASON_STALE_MAPPING);
		c->joined += w->own_frames != 0;
	} else {
		take_leaf(s, REASON_COLD_LIMITED);
	}
	cold = w->reason == REASON_COLD_LIMITED || w->reason == REASON_UNMAPPED_PC ||
	       w->reason == REASON_TABLE_PENDING || w->reason == REASON_STALE_MAPPING;
	if (unlikely(cold || copy)) {
		uncopied = send_copy(s, now, tgid);
		if (!uncopied)
			result.flags = SAMPLE_COPY;
		if (!uncopied && cold) {
			c->copied++;
			return result;
		}
		if (w->reason == REASON_COLD_LIMITED)
			w->reason = uncopied;
	}
	c->truncated += w->reason != REASON_NONE;
	result.reason = w->reason;
	result.key = put_stack(s, w->key, w->frames, w->raw ? owner_of(tgid, exec_id) : 0, c);
	if (!result.key)
		result.reason = REASON_STACK_MAP_FULL;
	if (c->fresh != fresh)
		result.flags |= SAMPLE_USER_STACK_NEW;
	return result;
}

/*
 * A process that on_fork put in is known by its start time too: on_free takes it
 * out only some time after its number can be given again.
 */
static __always_inline bool is_target(u32 tgid)
{
	const struct target *target = bpf_map_lookup_elem(&targets, &tgid);

	if (!target)
		return false;
	return !target->start_time || target->start_time == current_start_time();
}

static __always_inline bool wanted(struct cpu_counters *c, u64 *pid_tgid, u64 *cgroup_id)
{
	u32 tgid;

	if (unlikely(pid_namespace_inode)) {
		*pid_tgid = namespace_pid_tgid((void *)bpf_get_current_task());
		if (!*pid_tgid) {
			c->filtered_namespace++;
			return false;
		}
	}
	tgid = *pid_tgid >> 32;
	if (exclude_tgid && tgid == exclude_tgid) {
		c->filtered_self++;
		return false;
	}
	if (filter_targets && !is_target(tgid)) {
		c->filtered_target++;
		return false;
	}
	*cgroup_id = current_cgroup_id();
	if (unlikely(filter_cgroup && !in_wanted_cgroup(*cgroup_id))) {
		c->filtered_cgroup++;
		return false;
	}
	return true;
}

_Static_assert(sizeof(struct span_ids) ==
		       sizeof(((struct sample *)0)->trace_id) + sizeof(((struct sample *)0)->span_id),
	       "both ids are copied at once");

/* Takes room for a sample with labels, which are put there. */
static __always_inline struct sample *reserve_labelled(struct scratch *s)
{
	struct labelled_sample *l = bpf_ringbuf_reserve(&samples, sizeof(*l), 0);

	if (!l)
		return 0;
	l->bytes = s->label_bytes;
	l->pad = 0;
	__builtin_memcpy(l->labels, s->labels, sizeof(l->labels));
	return &l->sample;
}

static __always_inline void send(struct perf_event_data *ctx, struct cpu_counters *c, struct scratch *w, u64 now,
				 u64 pid_tgid, u64 cgroup_id)
{
	u32 tgid = pid_tgid >> 32, exec_id = current_exec_id(), generation = 0;
	struct stack_result kernel = {}, user;
	bool user_mode = in_user_mode(ctx);
	struct sample *s;
	bool spans;
	u64 wakeup;

	if (user_mode)
		c->kernel.none++;
	else
		kernel = take_stack(ctx, w, 0, (u64)FRAME_KIND_KERNEL << FRAME_KIND_SHIFT, 0, SAMPLE_KERNEL_STACK_NEW,
				    &c->kernel, REASON_KERNEL_UNREADABLE);
	if (walks && (user_mode || has_user_side()))
		user = walk_stack(ctx, w, now, user_mode, tgid, exec_id, &generation, &c->user);
	else
		user = take_stack(ctx, w, BPF_F_USER_STACK, (u64)FRAME_KIND_RAW << FRAME_KIND_SHIFT,
				  owner_of(tgid, exec_id), SAMPLE_USER_STACK_NEW, &c->user, REASON_USER_UNREADABLE);
	/* Its process, or the one that it was forked from, is known then. */
	spans = generation && w->walk.process.span_source;
	if (unlikely(spans))
		take_span(w, &c->span);

	s = unlikely(spans && w->label_bytes) ? reserve_labelled(w) : bpf_ringbuf_reserve(&samples, sizeof(*s), 0);
	if (unlikely(!s)) {
		c->lost_ring_full++;
		return;
	}
	s->time_ns = now;
	s->user_stack = user.key;
	s->kernel_stack = kernel.key;
	s->cgroup_id = cgroup_id;
	s->value = ctx->sample_period;
	s->pid = tgid;
	s->tid = pid_tgid;
	s->generation = generation;
	s->exec_id = exec_id;
	s->cpu = bpf_get_smp_processor_id();
	s->flags = user.flags | kernel.flags | (user_mode ? 0 : SAMPLE_KERNEL_MODE);
	s->user_reason = user.reason;
	s->kernel_reason = kernel.reason;
	bpf_get_current_comm(s->comm, sizeof(s->comm));
	if (unlikely(spans))
		__builtin_memcpy(s->trace_id, &w->span, sizeof(w->span));
	else
		__builtin_memset(s->trace_id, 0, sizeof(w->span));

	wakeup = bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) >= ring_wakeup_bytes ? BPF_RB_FORCE_WAKEUP
										     : BPF_RB_NO_WAKEUP;
	bpf_ringbuf_submit(s, wakeup);
	c->submitted++;
}

SEC("perf_event")
int on_sample(struct perf_event_data *ctx)
{
	u64 now = bpf_ktime_get_ns(), pid_tgid = bpf_get_current_pid_tgid(), cgroup_id = 0;
	struct cpu_counters *c = this_cpu_counters();
	struct scratch *w = this_cpu_scratch();

	if (!c || !w)
		return 0;
	c->seen++;
	if (!pid_tgid && !serving_softirq(ctx, w)) {
		c->idle++;
	} else if (wanted(c, &pid_tgid, &cgroup_id)) {
		c->taken++;
		send(ctx, c, w, now, pid_tgid, cgroup_id);
	}
	c->run_time_ns += bpf_ktime_get_ns() - now;
	return 0;
}
