/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The walk over a user stack by unwind tables: from the registers of the
 * interrupted thread from frame to frame, to the root. It mirrors Walker of
 * profiler/unwind, which says the same at leisure.
 *
 * A frame is one call of a global function, so the loop over 1,024 frames costs
 * the verifier a few instructions a frame, on all kernels: no tail calls and no
 * bpf_loop are needed.
 *
 * The outer frames of a thread seldom change from sample to sample, so its last walk is
 * remembered: up to 64 frames from the root. When a walk comes to one of them, with the
 * sp and pc that it had, it reads the slots from there to the root. If each holds the
 * return address that it held, and each fp that a frame was reckoned from is what it was,
 * and the code ranges are of the same generation, the frames are taken as they were
 * (join), without a look at ranges and tables. Never among them are frames that were
 * interrupted or that a rule of the table left, whose slots are not kept, and what such
 * frames called; nor walks that did not end at the code of a root, or have raw frames.
 * The last code that the thread was in is remembered too, its range and the row of the
 * table: it is most often there still.
 */
#ifndef PILOTLIGHT_WALK_BPF_H
#define PILOTLIGHT_WALK_BPF_H

#include "kernel.bpf.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "stack.bpf.h"
#include "unwind.bpf.h"

#if defined(__TARGET_ARCH_x86)
#include "walk_amd64.bpf.h"
#elif defined(__TARGET_ARCH_arm64)
#include "walk_arm64.bpf.h"
#endif

const volatile u32 task_pt_regs; /* the kernel has bpf_task_pt_regs */

const volatile u32 remembered_walks = LIMIT_REMEMBERED_WALKS; /* a power of two */

/*
 * Key: the last bits of a thread's id, in the initial namespace; value: the last walk of such a thread on this CPU. Written and read here. Size set by Go:
 * 64 elements, 138 KB a CPU, are more threads than take turns on one; where there are more than 64 CPUs, fewer. Where two have the same bits, or a thread came from another CPU,
 * the next walk goes all the way. A hash of all threads cost two cold cache lines more, and other CPUs could change what is read.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LIMIT_REMEMBERED_WALKS);
	__type(key, u32);
	__type(value, struct remembered_walk);
} remembered SEC(".maps");

static __always_inline struct remembered_walk *remembered_of(u32 tid)
{
	u32 slot = tid & (remembered_walks - 1);

	return bpf_map_lookup_elem(&remembered, &slot);
}

/* Loops over frames are nested, so that the verifier sees few rounds of those that do much. */
#define FRAMES_AT_ONCE 4

/* Where a remembered frame lies in its walk. */
#define REMEMBERED_AT(i) (__builtin_offsetof(struct remembered_walk, frame) + (i) * sizeof(struct remembered_frame))

#define LAST_MASK (LIMIT_REMEMBERED_FRAMES - 1)
_Static_assert(!(LIMIT_REMEMBERED_FRAMES & LAST_MASK), "a mask");

/* The compiler would leave the mask out where it is sure of the number, of which the verifier is not. */
static __always_inline u64 last_index(u64 i)
{
	asm volatile("%0 &= %1" : "+r"(i) : "i"(LAST_MASK));
	return i;
}

/* The register of a rule, as it is in this frame. */
static __always_inline bool rule_register(struct walk *w, u32 number, u64 *value)
{
	switch (number) {
	case RULE_SP:
		*value = w->sp;
		return true;
	case RULE_FP:
		*value = w->fp;
		return true;
	case RULE_BASE:
		*value = w->base;
		return w->base_known;
	}
	*value = 0;
	return false;
}

/*
 * Finds the value that a register has in the caller: in w->value, which holds the one it has in this frame. A reason, or 0.
 */
__noinline int find_saved(u32 kind, u32 base, u64 offset, u64 cfa)
{
	struct scratch *s = this_cpu_scratch();
	struct walk *w;
	u64 at = cfa;

	if (!s)
		return REASON_NO_RULE;
	w = &s->walk;
	switch (kind) {
	case RULE_UNCHANGED:
		return REASON_NONE;
	case RULE_IN_BASE:
		w->value_known = rule_register(w, base, &w->value);
		return REASON_NONE;
	case RULE_AT_BASE:
		if (!rule_register(w, base, &at))
			return REASON_UNKNOWN_REGISTER;
	}
	w->value_known = 1;
	return read_stack(s, at + offset, &w->value) ? REASON_NONE : REASON_STACK_UNREADABLE;
}

/*
 * Goes from a stack of Go's runtime back to the goroutine that the thread runs: from where the thread keeps its g to the m of
 * that, on to the m's current g, and to what was saved there of its registers. A reason, or 0; -1: it runs none.
 */
__noinline int leave_to_goroutine(void)
{
	struct scratch *s = this_cpu_scratch();
	u64 g, m, saved[8]; /* sp, pc, ..., and fp among the others */
	struct walk *w;

	if (!s)
		return REASON_NO_RULE;
	w = &s->walk;
	w->reads += 4;
	if (w->reads > LIMIT_STACK_FRAMES)
		return REASON_STACK_UNREADABLE;
	g = thread_pointer(task_btf) + (s64)w->rule.offset;
	if (bpf_probe_read_user(&g, sizeof(g), (void *)g) ||
	    bpf_probe_read_user(&m, sizeof(m), (void *)(g + (s64)w->rule.add)) ||
	    bpf_probe_read_user(&g, sizeof(g), (void *)(m + (s64)w->rule.base.offset)))
		return REASON_STACK_UNREADABLE;
	if (!g)
		return -1;
	if (bpf_probe_read_user(saved, sizeof(saved), (void *)(g + (s64)w->rule.ra.offset)))
		return REASON_STACK_UNREADABLE;
	w->sp = saved[0];
	w->pc = saved[1] & POINTER_MASK;
	w->fp = *(u64 *)((void *)saved + (w->rule.fp.offset & (sizeof(saved) - 8)));
	w->base_known = 0;
	w->interrupted = 0;
	return REASON_NONE;
}

/* Leaves a frame by a rule of the table, one of the few that do not fit a row. A reason, or 0; -1: the root. */
__noinline int leave_by_table(u32 number)
{
	struct scratch *s = this_cpu_scratch();
	u64 cfa, ra, fp, position;
	struct unwind_rule *rule;
	const struct shard *shard;
	struct walk *w;
	int reason;

	if (!s)
		return REASON_NO_RULE;
	w = &s->walk;
	shard = shard_of(w->place.range.rules);
	position = (u64)(w->place.range.rules & SHARD_MASK) * sizeof(u32) +
		   (u64)(number & ((1U << CODE_KIND_SHIFT) - 1)) * sizeof(*rule);
	if (!shard || position > SHARD_BYTES - sizeof(*rule))
		return REASON_NO_RULE;
	TOUCH(RULES, (u64)(w->place.range.rules & ~SHARD_MASK) * 4 + position, sizeof(*rule));
	w->rule = *(const struct unwind_rule *)((const void *)shard + position);
	rule = &w->rule;
	if (rule->kind == RULE_GOROUTINE)
		return leave_to_goroutine();

	if (!rule_register(w, rule->cfa_base, &cfa))
		return REASON_UNKNOWN_REGISTER;
	cfa += (s64)rule->offset;
	if (rule->cfa == RULE_CFA_MEMORY) {
		if (!read_stack(s, cfa, &cfa))
			return REASON_STACK_UNREADABLE;
		cfa += (s64)rule->add;
	} else if (rule->cfa == RULE_CFA_PLT && (w->pc & 15) >= (u64)rule->add) {
		cfa += 8;
	}
	if (rule->kind == RULE_STEP && (cfa < w->sp || (cfa == w->sp && !w->interrupted)))
		return REASON_NOT_ADVANCING;

	w->value = w->base;
	w->value_known = RA_IN_BASE && w->base_known;
	reason = find_saved(rule->ra.kind, rule->ra.base, (s64)rule->ra.offset, cfa);
	if (reason)
		return reason;
	if (!w->value_known)
		return REASON_UNKNOWN_REGISTER;
	ra = w->value;

	w->value = w->fp;
	reason = find_saved(rule->fp.kind, rule->fp.base, (s64)rule->fp.offset, cfa);
	if (reason)
		return reason;
	if (!w->value_known)
		return REASON_UNKNOWN_REGISTER;
	fp = w->value;

	w->value = w->base;
	w->value_known = w->base_known && !RA_IN_BASE; /* a call changes arm64's */
	reason = find_saved(rule->base.kind, rule->base.base, (s64)rule->base.offset, cfa);
	if (reason)
		return reason;
	w->base = w->value;
	w->base_known = w->value_known;
	w->pc = ra & POINTER_MASK;
	w->fp = fp;
	w->sp = cfa;
	w->interrupted = rule->kind == RULE_SIGNAL_FRAME;
	return REASON_NONE;
}

/* What the code of no rule says; -1: the root. */
static __always_inline int no_rule(u32 code)
{
	switch (code) {
	case RULE_NONE_OUTERMOST:
		return -1;
	case RULE_NONE_NO_TABLE:
		return REASON_NO_TABLE;
	case RULE_NONE_PENDING:
		return REASON_TABLE_PENDING;
	}
	return REASON_NO_RULE;
}

/* Ends the walk. */
static __always_inline int walk_ends(struct walk *w, u8 reason)
{
	w->reason = reason;
	return 1;
}

/* Takes the frame that the thread is in alone. */
static __always_inline void take_leaf(struct scratch *s, u8 reason)
{
	struct walk *w = &s->walk;

	s->frames[0] = (w->pc & FRAME_PAYLOAD_MASK) | ((u64)FRAME_KIND_RAW << FRAME_KIND_SHIFT);
	w->key = stack_key_step(w->key, s->frames[0]);
	w->frames = 1;
	w->raw = 1;
	w->reason = reason;
}

/* Takes one frame, and goes to its caller. Not 0 where the walk ends. */
__noinline int walk_frame(void)
{
	struct scratch *s = this_cpu_scratch();
	struct walk *w;
	struct remembered_frame *last;
	u64 address, frame, pc;
	bool by_callers;
	u8 interrupted;
	u32 code;
	int reason;

	if (!s)
		return 1;
	w = &s->walk;
	if (unlikely(!w->pc && w->frames)) { /* kernels and loaders leave a zero above the outermost frame */
		w->unremembered = w->frames;
		return walk_ends(w, REASON_NONE);
	}
	if (unlikely(w->frames >= LIMIT_STACK_FRAMES))
		return walk_ends(w, REASON_MAX_DEPTH);
	address = w->pc - !w->interrupted;
	if (unlikely(!holds(&w->place.range, address) && find_range(address))) {
		if (!w->frames) /* where the program is, is worth showing */
			take_leaf(s, REASON_UNMAPPED_PC);
		return walk_ends(w, REASON_UNMAPPED_PC);
	}
	by_callers = !w->place.range.index || (w->place.range.callers && !w->interrupted && w->fp);
	if (by_callers)
		code = w->place.range.callers;
	else
		code = address - w->place.row_start < w->place.row_bytes ? w->place.code : find_code(address);
	pc = w->pc;
	last = &s->last[last_index(w->frames)];
	last->sp = w->sp;
	last->fp = w->fp;
	interrupted = w->interrupted;
	w->slots = SLOTS_UNKNOWN;
	if (unlikely(code >> CODE_KIND_SHIFT == CODE_KIND_TABLE))
		reason = leave_by_table(code);
	else if (unlikely(code >> CODE_KIND_SHIFT == CODE_KIND_NONE))
		reason = no_rule(code);
	else
		reason = leave_by_code(s, code);
	if (by_callers)
		w->base_known = 0; /* such code may have changed it */

	/* Nobody called a signal's trampoline: it is where the handler returns to, and a call ends there no more than anywhere. */
	frame = (!reason && w->interrupted ? pc : address) + w->place.range.frame;
	s->frames[w->frames & (LIMIT_STACK_FRAMES - 1)] = frame;
	w->key = stack_key_step(w->key, frame);
	last->frame = frame;
	last->pc_slots = (pc & PC_MASK) | (u64)w->slots << 48;
	w->frames++;
	w->raw |= frame >> FRAME_KIND_SHIFT == FRAME_KIND_RAW;
	if (interrupted || (w->slots == SLOTS_UNKNOWN && code >> CODE_KIND_SHIFT == CODE_KIND_TABLE))
		w->unremembered = w->frames;
	if (unlikely(reason))
		return walk_ends(w, reason < 0 ? REASON_NONE : reason);
	return 0;
}

/* The user registers of a task that is in the kernel: they lie at the end of its kernel stack. */
static __always_inline void registers_in_kernel(struct walk *w)
{
	struct task_struct *task;
	struct pt_regs *regs;

	if (task_pt_regs) {
		registers_of_task(w, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
		return;
	}
	task = (void *)bpf_get_current_task();
	regs = (void *)BPF_CORE_READ(task, stack) + KERNEL_STACK_BYTES - bpf_core_type_size(struct pt_regs);
	registers_by_helper(w, regs);
}

/* Forgets a walk: the leaf alone is sure. */
static __always_inline void take_back(struct scratch *s, u8 reason)
{
	s->walk.key = stack_secret;
	s->walk.pc = s->copy.pc;
	s->walk.own_frames = 0;
	take_leaf(s, reason);
}

/* Begins a walk at the user registers, which are kept for a copy as well. */
static __always_inline void begin_walk(struct perf_event_data *ctx, struct scratch *s, bool user_mode)
{
	struct walk *w = &s->walk;

	w->place.range.pages = 0;
	w->place.row_bytes = 0;
	w->window_bytes = 0;
	w->ahead = 0;
	w->key = stack_secret;
	w->frames = 0;
	w->reads = 0;
	w->raw = 0;
	w->reason = REASON_NONE;
	w->interrupted = 1;
	w->base_known = 1;
	w->unremembered = 0;
	w->own_frames = 0;
	w->candidate = LIMIT_REMEMBERED_FRAMES;
	if (user_mode)
		registers_of_context(w, ctx);
	else
		registers_in_kernel(w);
	s->copy.pc = w->pc;
	s->copy.sp = w->sp;
	s->copy.fp = w->fp;
	s->copy.base = w->base;
}

/* The exclusive or of all words: 0 where they belong together. */
static __always_inline u32 sum_of_words(const struct process *p)
{
	const u32 *words = (const void *)p;
	u32 sum = 0;

	for (int i = 0; i < PROCESS_WORDS; i++)
		sum ^= words[i];
	return sum;
}

/* Finds what is known of a process that runs the program of an exec id. */
static __always_inline bool find_process(struct process *p, u32 tgid, u32 exec_id)
{
	const struct process *known = bpf_map_lookup_elem(&processes, &tgid);

	if (!known)
		return false;
	*p = *known;
	return !sum_of_words(p) && p->tgid == tgid && p->exec_id == exec_id;
}

/*
 * Finds what is known of the process that this one was forked from: until one of them execs, they have the same code at the same addresses. What
 * either maps from then on the other does not; user space looks whether frames of another's list are there.
 */
static __always_inline bool find_parent(struct process *p, u32 exec_id)
{
	struct task_struct *task, *parent;
	u64 stack, parents_stack;
	u32 tgid;

	if (task_btf) {
		task = bpf_get_current_task_btf();
		parent = task->group_leader->real_parent;
		tgid = parent->tgid;
		stack = task->mm->start_stack;
		parents_stack = parent->mm->start_stack;
	} else {
		task = (void *)bpf_get_current_task();
		parent = BPF_CORE_READ(task, group_leader, real_parent);
		tgid = BPF_CORE_READ(parent, tgid);
		stack = BPF_CORE_READ(task, mm, start_stack);
		parents_stack = BPF_CORE_READ(parent, mm, start_stack);
	}
	if (!stack || stack != parents_stack)
		return false;
	if (pid_namespace_inode)
		tgid = namespace_pid_tgid(parent) >> 32;
	return find_process(p, tgid, exec_id);
}

/*
 * Finds what is known of the process of the running thread: most often it is what its last walk went by. That is in one place with the rest
 * that is remembered of the thread, where processes takes three cache lines more.
 */
static __always_inline bool find_code_of(struct walk *w, u32 tid, u32 tgid, u32 exec_id)
{
	const struct remembered_walk *r = remembered_of(tid);

	w->changes = changes_of_processes();
	if (r && r->tid == tid && r->changes == w->changes && r->process.tgid == tgid &&
	    r->process.exec_id == exec_id) {
		w->process = r->process;
		return true;
	}
	return find_process(&w->process, tgid, exec_id) || find_parent(&w->process, exec_id);
}

/*
 * Is what the walk went by in force still? It may have been replaced meanwhile; and where the CPU stood still for longer
 * than the grace, as virtual ones do, its memory was given out again.
 */
static __always_inline bool still_published(const struct walk *w)
{
	const struct process *p = &w->process, *known;

	if (changes_of_processes() == w->changes)
		return true;
	known = bpf_map_lookup_elem(&processes, &p->tgid);
	return known && known->generation == p->generation;
}

/* Do the next frames from the candidate on lead to one another still? Not 0 where they do not. */
__noinline int still_leads(u32 tid)
{
	const struct remembered_walk *r = remembered_of(tid);
	struct scratch *s = this_cpu_scratch();

	if (!s || !r)
		return 1;
	for (u32 i = 0; i < FRAMES_AT_ONCE; i++) {
		u32 at = s->walk.candidate;

		if (at >= LIMIT_REMEMBERED_FRAMES - 1)
			break;
		TOUCH(REMEMBERED, REMEMBERED_AT(at), 2 * sizeof(r->frame[0]));
		s->walk.candidate = at + 1; /* what is beyond may be as it was, where this is not */
		if (!leads_to(s, &r->frame[last_index(at)], &r->frame[last_index(at + 1)]))
			return 1;
	}
	return 0;
}

/*
 * The walk is at a frame that was there in the thread's last one. Where the slots of all frames from there to the root
 * still hold what they held, these are the same frames: they are taken as they were, and the walk is over.
 */
__noinline int join(u32 tid)
{
	const struct remembered_walk *r = remembered_of(tid);
	struct scratch *s = this_cpu_scratch();
	struct walk *w;
	u64 key, fp;
	int failed = 0;
	u32 at, n;

	if (!s || !r)
		return 0;
	w = &s->walk;
	at = w->candidate;
	if (w->frames + LIMIT_REMEMBERED_FRAMES - at > LIMIT_STACK_FRAMES)
		return 0;
	fp = w->fp;
	for (u32 i = 0; i < LIMIT_REMEMBERED_FRAMES / FRAMES_AT_ONCE; i++) {
		if (failed || w->candidate >= LIMIT_REMEMBERED_FRAMES - 1)
			break;
		failed = still_leads(tid);
	}
	w->fp = fp;
	if (failed || w->candidate < LIMIT_REMEMBERED_FRAMES - 1)
		return 0;
	w->candidate = at;
	n = LIMIT_REMEMBERED_FRAMES - at;
	key = w->key;
	for (u32 i = 0; i < LIMIT_REMEMBERED_FRAMES; i++) {
		u64 frame = r->frame[last_index(at + i)].frame;

		if (i >= n)
			break;
		TOUCH(REMEMBERED, REMEMBERED_AT(at + i), sizeof(frame));
		s->frames[(w->frames + i) & (LIMIT_STACK_FRAMES - 1)] = frame;
		key = stack_key_step(key, frame);
	}
	w->own_frames = w->frames;
	w->frames += n;
	w->key = key;
	return 1;
}

/* Remembers the frames that the walk took itself. */
__noinline int remember(u32 tid)
{
	struct remembered_walk *r = remembered_of(tid);
	struct scratch *s = this_cpu_scratch();
	u32 end = LIMIT_REMEMBERED_FRAMES, taken, n;
	struct walk *w;

	if (!s || !r)
		return 0;
	w = &s->walk;
	taken = w->frames;
	if (w->own_frames) {
		taken = w->own_frames;
		end = w->candidate;
	}
	n = taken - (w->unremembered < taken ? w->unremembered : taken);
	if (end > LIMIT_REMEMBERED_FRAMES)
		return 0;
	if (n > end)
		n = end;
	for (u32 i = 0; i < LIMIT_REMEMBERED_FRAMES; i++) {
		if (i >= n)
			break;
		TOUCH(REMEMBERED, REMEMBERED_AT(end - 1 - i), sizeof(r->frame[0]));
		r->frame[last_index(end - 1 - i)] = s->last[last_index(taken - 1 - i)];
	}
	r->first = end - n;
	return 1;
}

/* Takes some frames. Not 0 where the walk is over. */
__noinline int walk_some(u32 tid)
{
	const struct remembered_walk *r = remembered_of(tid);
	struct scratch *s = this_cpu_scratch();
	struct walk *w;

	if (!s || !r)
		return 1;
	w = &s->walk;
	for (u32 i = 0; i < FRAMES_AT_ONCE; i++) {
		u32 at = w->candidate;
		const struct remembered_frame *f;

		TOUCH(REMEMBERED, REMEMBERED_AT(at), sizeof(*f));
		/* There may be fewer frames below than there were. */
		for (u32 j = 0; j < 3; j++)
			at += less(r->frame[last_index(at)].sp, w->sp) & (at < LIMIT_REMEMBERED_FRAMES);
		w->candidate = at;
		f = &r->frame[last_index(at)];
		if (at < LIMIT_REMEMBERED_FRAMES &&
		    !((f->sp ^ w->sp) | ((f->pc_slots ^ w->pc) & PC_MASK) | w->interrupted) && join(tid))
			return 1;
		if (walk_frame())
			return 1;
	}
	return 0;
}

/*
 * Up to where the stack may be read in large pieces: to the root, most of whose frames are there still. Not where
 * frames are so large that most of it would be what they hold.
 */
static __always_inline u64 worth_reading(const struct remembered_walk *r)
{
	u64 root = r->frame[LIMIT_REMEMBERED_FRAMES - 1].sp, frames = LIMIT_REMEMBERED_FRAMES - r->first;

	return root - r->frame[last_index(r->first)].sp <= frames * LIMIT_SHORT_WINDOW_WORDS * sizeof(u64) ? root : 0;
}

/* Takes the frame that the thread is in: most often in the code where it was the last time. Not 0 where the walk is over. */
static __always_inline int walk_leaf(struct scratch *s, u32 tid)
{
	struct remembered_walk *r = remembered_of(tid);
	struct walk *w = &s->walk;
	int over;

	if (!r)
		return 1;
	TOUCH(REMEMBERED, 0, __builtin_offsetof(struct remembered_walk, frame));
	if (r->tid == tid && r->process.generation == w->process.generation) {
		w->candidate = r->first;
		w->place = r->place;
		w->ahead = worth_reading(r);
	} else {
		r->first = LIMIT_REMEMBERED_FRAMES;
		r->tid = tid;
		r->process = w->process;
	}
	r->changes = w->changes;
	over = walk_frame();
	r->place = w->place;
	return over;
}

/* Takes all frames. Its loop is a global function's, so that old verifiers do not follow it once for each way that leads there. */
__noinline int walk_frames(u32 tid)
{
	struct scratch *s = this_cpu_scratch();

	if (!s)
		return 1;
	if (!walk_leaf(s, tid))
		for (u32 i = 0; i <= LIMIT_STACK_FRAMES / FRAMES_AT_ONCE; i++)
			if (walk_some(tid))
				break;
	if (REMEMBERS && s->walk.reason == REASON_NONE && !s->walk.raw)
		remember(tid);
	WALKED(&s->walk);
	return 0;
}

#endif
