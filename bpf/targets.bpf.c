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
#include "namespace.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Key: thread group id in the initial pid namespace, value: that in the
 * namespace that is sampled. A task has lost its numbers in other namespaces
 * when on_free comes, so on_exit_raw puts them in before and on_free_raw takes
 * them out. Size set by Go where a namespace is sampled: 16,384 (1 MB), more
 * processes than wait to be reaped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} exited SEC(".maps");

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
static __always_inline int forget(u32 tgid, u64 start_time)
{
	struct target *target = bpf_map_lookup_elem(&targets, &tgid);

	if (target && (!target->start_time || target->start_time == start_time))
		bpf_map_delete_elem(&targets, &tgid);
	return 0;
}

/*
 * Both come in two forms, of which Go loads one. tp_btf demands that the kernel holds its own BTF,
 * and needs no helper to read a task; raw_tp runs everywhere, but for lockdown=confidentiality. It also
 * serves a pid namespace, whose numbers take a helper to read on any kernel.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	return follow(parent->tgid, child->tgid, child->start_time);
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct *task)
{
	if (task->pid != task->tgid) /* a thread, the process may live on */
		return 0;
	return forget(task->tgid, task->start_time);
}

static __always_inline u32 process_number(struct task_struct *task)
{
	return pid_namespace_inode ? namespace_pid_tgid(task) >> 32 : BPF_CORE_READ(task, tgid);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return follow(process_number(parent), process_number(child), BPF_CORE_READ(child, start_time));
}

/* Loaded for a pid namespace only. */
SEC("raw_tp/sched_process_exit")
int BPF_PROG(on_exit_raw, struct task_struct *task)
{
	u32 pid = BPF_CORE_READ(task, pid), tgid = BPF_CORE_READ(task, tgid), number = process_number(task);

	if (number && pid == tgid)
		bpf_map_update_elem(&exited, &tgid, &number, BPF_ANY);
	return 0;
}

SEC("raw_tp/sched_process_free")
int BPF_PROG(on_free_raw, struct task_struct *task)
{
	u32 pid = BPF_CORE_READ(task, pid), tgid = BPF_CORE_READ(task, tgid), number = tgid, *known;

	if (pid != tgid)
		return 0;
	if (pid_namespace_inode) {
		known = bpf_map_lookup_elem(&exited, &tgid);
		if (!known)
			return 0;
		number = *known;
		bpf_map_delete_elem(&exited, &tgid);
	}
	return forget(number, BPF_CORE_READ(task, start_time));
}
