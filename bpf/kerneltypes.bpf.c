// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Are these the types of the running kernel? Run once, by Go, where they come
 * from a file: offsets of another kernel would pass the verifier and read
 * something else.
 */
#include "kernel.bpf.h"

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "types.bpf.h"

#define INITIAL_PID_NAMESPACE 0xeffffffc /* its inode number, the same on all kernels */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Returns 1 where what is read of the running task is what the helpers say of it. */
SEC("raw_tp")
int check_types(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	u64 pid_tgid = bpf_get_current_pid_tgid(), start_time = BPF_CORE_READ(task, group_leader, start_time);
	u32 tgid = pid_tgid >> 32;

	return BPF_CORE_READ(task, pid) == (s32)pid_tgid && BPF_CORE_READ(task, tgid) == (s32)tgid &&
	       BPF_CORE_READ(task, group_leader, pid) == (s32)tgid && start_time && start_time <= bpf_ktime_get_ns() &&
	       BPF_CORE_READ(task, self_exec_id) >> 32 == 0 &&
	       BPF_CORE_READ(task, thread_pid, level) < LIMIT_PID_LEVELS &&
	       BPF_CORE_READ(task, thread_pid, numbers[0].nr) == (s32)pid_tgid &&
	       BPF_CORE_READ(task, thread_pid, numbers[0].ns, ns.inum) == INITIAL_PID_NAMESPACE &&
	       BPF_CORE_READ(cgroup, kn, id) == bpf_get_current_cgroup_id() &&
	       BPF_CORE_READ(cgroup, self.cgroup) == cgroup;
}
