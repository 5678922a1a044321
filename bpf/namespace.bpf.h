/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The numbers that tasks have in the pid namespace that is sampled: that of an
 * agent in a container without the host's. bpf_get_ns_current_pid_tgid would
 * give them for tasks whose own namespace it is, not for those in namespaces
 * below it, which have a number there too, nor for other tasks than the running one.
 */
#ifndef PILOTLIGHT_NAMESPACE_BPF_H
#define PILOTLIGHT_NAMESPACE_BPF_H

#include <bpf/bpf_core_read.h>

#include "types.bpf.h"

/* Set by Go before the load. 0: the initial namespace, and nothing here is called. */
const volatile u32 pid_namespace_inode;

/* Where among its numbers a pid has the one in the sampled namespace; negative: nowhere. */
static __always_inline int namespace_level(struct pid *pid)
{
	u32 level = BPF_CORE_READ(pid, level);
	struct pid_namespace *ns;

	for (int i = 0; i < LIMIT_PID_LEVELS; i++) {
		bpf_core_read(&ns, sizeof(ns), &pid->numbers[level].ns);
		if (BPF_CORE_READ(ns, ns.inum) == pid_namespace_inode)
			return level;
		if (!level--)
			break;
	}
	return -1;
}

static __always_inline u32 number_at(struct pid *pid, u32 level)
{
	u32 number;

	bpf_core_read(&number, sizeof(number), &pid->numbers[level].nr);
	return number;
}

/*
 * Both numbers as bpf_get_current_pid_tgid gives them; 0 where the task has
 * none. A task that was reaped has none any more: the last microseconds
 * of a process whose parent does not wait for it are not seen.
 */
static __noinline u64 namespace_pid_tgid(struct task_struct *task)
{
	struct pid *leader = BPF_CORE_READ(task, group_leader, thread_pid), *thread = BPF_CORE_READ(task, thread_pid);
	int level = namespace_level(leader);

	if (level < 0)
		return 0;
	return (u64)number_at(leader, level) << 32 | number_at(thread, level);
}

#endif
