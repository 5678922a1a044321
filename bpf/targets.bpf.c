// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Keeps the set of wanted processes true while it changes: descendants join
 * before their first instruction, and the dead leave. Loaded only where processes are the target.
 */
#include "kernel.bpf.h"

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The child exists but has not run yet; whoever its parent becomes later, it stays a descendant. */
static __always_inline int follow(u32 tgid, u32 child_tgid, u64 child_start_time)
{
	struct cpu_counters *c = this_cpu_counters();
	struct target *target, added = {};

	if (!c || tgid == child_tgid) /* a new thread */
		return 0;
	target = bpf_map_lookup_elem(&targets, &tgid);
	if (!target || !target->children)
		return 0;
	added.start_time = child_start_time;
	added.children = 1;
	if (bpf_map_update_elem(&targets, &child_tgid, &added, BPF_ANY))
		c->target_map_full++;
	else
		c->target_added++;
	return 0;
}

/*
 * The task's last reference is gone, so no sample of it can come. The start
 * time tells a process from a later one of the same number.
 */
static __always_inline int forget(u32 pid, u32 tgid, u64 start_time)
{
	struct target *target;

	if (pid != tgid) /* a thread, the process may live on */
		return 0;
	target = bpf_map_lookup_elem(&targets, &tgid);
	if (target && (!target->start_time || target->start_time == start_time))
		bpf_map_delete_elem(&targets, &tgid);
	return 0;
}

/*
 * Both come in two forms, of which Go loads one. tp_btf demands that the kernel holds its own BTF,
 * and needs no helper to read a task; raw_tp runs everywhere, but for lockdown=confidentiality.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	return follow(parent->tgid, child->tgid, child->start_time);
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct *task)
{
	return forget(task->pid, task->tgid, task->start_time);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return follow(BPF_CORE_READ(parent, tgid), BPF_CORE_READ(child, tgid), BPF_CORE_READ(child, start_time));
}

SEC("raw_tp/sched_process_free")
int BPF_PROG(on_free_raw, struct task_struct *task)
{
	return forget(BPF_CORE_READ(task, pid), BPF_CORE_READ(task, tgid), BPF_CORE_READ(task, start_time));
}
