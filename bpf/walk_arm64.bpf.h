/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The registers and the rule codes of arm64; walk_amd64.bpf.h is its mirror. */
#ifndef PILOTLIGHT_WALK_ARM64_BPF_H
#define PILOTLIGHT_WALK_ARM64_BPF_H

/* The bits of a return address that are no signature. */
#define POINTER_MASK ((1ULL << 48) - 1)
/* A call leaves the return address in lr, which is known in an interrupted frame only. */
#define RA_IN_BASE true
#define KERNEL_STACK_BYTES (16 << 10)

#define PSTATE_32 0x10

/* user_pt_regs, by words */
#define CONTEXT_G 28 /* in Go's code */
#define CONTEXT_FP 29
#define CONTEXT_LR 30
#define CONTEXT_SP 31
#define CONTEXT_PC 32
#define CONTEXT_PSTATE 33

/* How glibc and musl lay out what lies at the thread pointer. */
#define DTV_AT 0
#define DTV_AT_MUSL -8

/*
 * It is in a register that programs cannot read. The kernel has what it was when the thread was last switched away from;
 * no thread changes it, once it has begun.
 */
static __always_inline u64 thread_pointer(bool task_btf)
{
	struct task_struct *task;

	if (task_btf)
		return bpf_get_current_task_btf()->thread.uw.tp_value;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, thread.uw.tp_value);
}

static __always_inline void set_registers(struct walk *w, u64 pc, u64 sp, u64 fp, u64 lr, u64 g, u64 pstate)
{
	w->goroutine = g;
	w->pc = pc;
	w->sp = sp;
	w->fp = fp;
	w->base = lr;
	w->compat = (pstate & PSTATE_32) != 0;
}

static __always_inline void registers_of_context(struct walk *w, struct perf_event_data *ctx)
{
	set_registers(w, ctx->regs[CONTEXT_PC], ctx->regs[CONTEXT_SP], ctx->regs[CONTEXT_FP], ctx->regs[CONTEXT_LR],
		      ctx->regs[CONTEXT_G], ctx->regs[CONTEXT_PSTATE]);
}

static __always_inline void registers_of_task(struct walk *w, struct pt_regs *regs)
{
	set_registers(w, regs->pc, regs->sp, regs->regs[CONTEXT_FP], regs->regs[CONTEXT_LR], regs->regs[CONTEXT_G],
		      regs->pstate);
}

static __always_inline void registers_by_helper(struct walk *w, struct pt_regs *regs)
{
	set_registers(w, BPF_CORE_READ(regs, pc), BPF_CORE_READ(regs, sp), BPF_CORE_READ(regs, regs[CONTEXT_FP]),
		      BPF_CORE_READ(regs, regs[CONTEXT_LR]), BPF_CORE_READ(regs, regs[CONTEXT_G]),
		      BPF_CORE_READ(regs, pstate));
}

/* Kinds of codes; the doc of profiler/unwind draws them. */
enum code_kind {
	CODE_LEAF = 1,
	CODE_SP = 2,
	CODE_FP = 3,
};

/* Leaves a frame by the code of a row. A reason, or 0. A frame that is left by lr is an interrupted one. */
static __always_inline int leave_by_code(struct scratch *s, u32 code)
{
	u32 kind = code >> CODE_KIND_SHIFT, a = code >> 6 & 0x7ff;
	struct walk *w = &s->walk;
	u64 cfa, ra = w->base, fp = w->fp, pair;

	if (kind == CODE_LEAF)
		cfa = w->sp + (u64)(code & 0x1ffff) * 8;
	else
		cfa = (kind == CODE_FP ? w->fp : w->sp) + (u64)a * 8;
	if (cfa < w->sp || (cfa == w->sp && !w->interrupted))
		return REASON_NOT_ADVANCING;
	if (kind == CODE_LEAF) {
		if (!w->base_known)
			return REASON_UNKNOWN_REGISTER;
	} else {
		pair = cfa - ((s64)a + ((s64)((u64)code << 58) >> 58)) * 8;
		if (!reach_window(s, pair, pair + 16))
			return REASON_STACK_UNREADABLE;
		fp = window_word(s, pair);
		ra = window_word(s, pair + 8);
		if (cfa - pair < 8ULL * SLOTS_BY_FP)
			w->slots = (cfa - pair) / 8 | (kind == CODE_FP ? SLOTS_BY_FP : 0);
	}
	w->pc = ra & POINTER_MASK;
	w->fp = fp;
	w->sp = cfa;
	w->base_known = 0;
	w->interrupted = 0;
	return REASON_NONE;
}

/* Does the remembered frame lead to the caller still? What it saved of fp becomes w->fp. */
static __always_inline bool leads_to(struct scratch *s, const struct remembered_frame *f,
				     const struct remembered_frame *caller)
{
	u64 pair = caller->sp - (f->pc_slots >> 48 & (SLOTS_BY_FP - 1)) * 8;

	if ((f->pc_slots >> 48 & SLOTS_BY_FP) && s->walk.fp != f->fp)
		return false;
	if (!reach_window(s, pair, pair + 16))
		return false;
	s->walk.fp = window_word(s, pair);
	return (window_word(s, pair + 8) & PC_MASK) == (caller->pc_slots & PC_MASK);
}

#endif
