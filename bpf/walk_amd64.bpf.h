/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The registers and the rule codes of x86-64; walk_arm64.bpf.h is its mirror. */
#ifndef PILOTLIGHT_WALK_AMD64_BPF_H
#define PILOTLIGHT_WALK_AMD64_BPF_H

#define POINTER_MASK ~0ULL
#define RA_IN_BASE false
#define KERNEL_STACK_BYTES (16 << 10) /* on kernels without bpf_task_pt_regs */

#define USER_CS_32 0x23

/* user_regs_struct, by words */
#define CONTEXT_BP 4
#define CONTEXT_BX 5
#define CONTEXT_IP 16
#define CONTEXT_CS 17
#define CONTEXT_SP 19

/* How glibc and musl lay out what lies at the thread pointer. */
#define DTV_AT 8
#define DTV_AT_MUSL 8

static __always_inline u64 thread_pointer(bool task_btf)
{
	struct task_struct *task;

	if (task_btf)
		return bpf_get_current_task_btf()->thread.fsbase;
	task = (void *)bpf_get_current_task();
	return BPF_CORE_READ(task, thread.fsbase);
}

static __always_inline void set_registers(struct walk *w, u64 ip, u64 sp, u64 bp, u64 bx, u64 cs)
{
	w->pc = ip;
	w->sp = sp;
	w->fp = bp;
	w->base = bx;
	w->compat = cs == USER_CS_32;
}

static __always_inline void registers_of_context(struct walk *w, struct perf_event_data *ctx)
{
	set_registers(w, ctx->regs[CONTEXT_IP], ctx->regs[CONTEXT_SP], ctx->regs[CONTEXT_BP], ctx->regs[CONTEXT_BX],
		      ctx->regs[CONTEXT_CS]);
}

static __always_inline void registers_of_task(struct walk *w, struct pt_regs *regs)
{
	set_registers(w, regs->ip, regs->sp, regs->bp, regs->bx, regs->cs);
}

static __always_inline void registers_by_helper(struct walk *w, struct pt_regs *regs)
{
	set_registers(w, BPF_CORE_READ(regs, ip), BPF_CORE_READ(regs, sp), BPF_CORE_READ(regs, bp),
		      BPF_CORE_READ(regs, bx), BPF_CORE_READ(regs, cs));
}

/* Kinds of codes; the doc of profiler/unwind draws them. */
enum code_kind {
	CODE_SP = 1,
	CODE_FP = 2,
	CODE_SP_BOTH = 3,
	CODE_FP_BOTH = 4,
	CODE_SP_BASE = 5,
	CODE_SP_FIRST = 6,
};

/* Leaves a frame by the code of a row. A reason, or 0. */
static __always_inline int leave_by_code(struct scratch *s, u32 code)
{
	u32 kind = code >> CODE_KIND_SHIFT, a = (code >> 5 & 0xfff) * 8, b = (code & 31) * 8;
	struct walk *w = &s->walk;
	u32 fp_below, base_below, low; /* how far below the CFA they are saved, 0: they are not */
	u64 cfa, ra, fp, base;
	bool by_fp;

	by_fp = kind == CODE_FP || kind == CODE_FP_BOTH;
	cfa = (by_fp ? w->fp : w->sp) + a;
	if (cfa < w->sp || (cfa == w->sp && !w->interrupted))
		return REASON_NOT_ADVANCING;
	fp_below = kind == CODE_FP_BOTH || kind == CODE_SP_FIRST ? 16 : kind == CODE_SP_BASE ? 0 : b;
	base_below = kind >= CODE_FP_BOTH ? b : kind == CODE_SP_BOTH ? b + 8 : 0;
	low = fp_below > base_below ? fp_below : base_below;
	if (!reach_window(s, cfa - (low > 8 ? low : 8), cfa))
		return REASON_STACK_UNREADABLE;
	ra = window_word(s, cfa - 8);
	fp = window_word(s, cfa - fp_below);
	base = window_word(s, cfa - base_below);
	if (fp_below)
		w->fp = fp;
	if (base_below) {
		w->base = base;
		w->base_known = 1;
	}
	w->pc = ra;
	w->sp = cfa;
	w->interrupted = 0;
	w->slots = fp_below / 8 | (by_fp ? SLOTS_BY_FP : 0);
	return REASON_NONE;
}

/* Does the remembered frame lead to the caller still? What it saved of fp becomes w->fp. */
static __always_inline bool leads_to(struct scratch *s, const struct remembered_frame *f,
				     const struct remembered_frame *caller)
{
	u64 cfa = caller->sp, below = (f->pc_slots >> 48 & 0xff) * 8, fp;

	if ((f->pc_slots >> 48 & SLOTS_BY_FP) && s->walk.fp != f->fp)
		return false;
	if (!reach_window(s, cfa - (below > 8 ? below : 8), cfa))
		return false;
	fp = window_word(s, cfa - below);
	if (below)
		s->walk.fp = fp;
	return (window_word(s, cfa - 8) & PC_MASK) == (caller->pc_slots & PC_MASK);
}

#endif
