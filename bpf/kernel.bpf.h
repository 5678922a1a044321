/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel structures that the programs look into. Only the fields in
 * use are declared; CO-RE finds their real offsets in the running kernel's BTF
 * at load time, so no vmlinux.h (3 MB, of one kernel) is needed.
 */
#ifndef PILOTLIGHT_KERNEL_BPF_H
#define PILOTLIGHT_KERNEL_BPF_H

#include <stdbool.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

/*
 * Which way a branch seldom goes. Most of what a sample costs at low rates are cold cache lines, of code as well: what is seldom needed is
 * not to lie among what always is.
 */
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id; /* since 5.5; also the inode number of the cgroup's directory */
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* really CGROUP_SUBSYS_COUNT of them */
	struct cgroup *dfl_cgrp;
};

struct ns_common {
	u32 inum; /* the inode number that /proc/PID/ns/ shows */
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	s32 nr;
	struct pid_namespace *ns;
};

struct pid {
	u32 level;              /* of the namespace that it was made in; 0: the initial one */
	struct upid numbers[1]; /* really level + 1 of them, the initial namespace's first */
};

struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long fsbase; /* the thread pointer, as arch_prctl has set it */
#elif defined(__TARGET_ARCH_arm64)
	struct {
		unsigned long tp_value; /* the thread pointer, as it was when the thread ran before */
	} uw;
#endif
};

struct mm_struct {
	unsigned long start_stack; /* drawn by each exec, kept by forks */
};

struct task_struct {
	s32 pid;
	s32 tgid;
	u64 start_time; /* CLOCK_MONOTONIC, ns */
	u64 self_exec_id; /* goes up by one with each exec; 64 bits wide since 5.7 */
	u32 flags;        /* PF_* */
	struct mm_struct *mm;
	void *stack; /* the kernel's, from its lowest address on */
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct pid *thread_pid; /* gone when the task was reaped */
	struct css_set *cgroups;
	struct thread_struct thread;
};

/* The registers of user mode, where the kernel keeps them. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp;
	unsigned long bx;
	unsigned long ip;
	unsigned long cs;
	unsigned long sp;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};
#endif

#pragma clang attribute pop

/* Bits of task_struct.flags. */
#define PF_USER_WORKER 0x00004000 /* since 6.4: runs in the kernel only, for a process (io_uring, vhost) */
#define PF_KTHREAD 0x00200000

/* The context of a perf_event program begins with the architecture's user_pt_regs; only sample_period after it is read. */
#if defined(__TARGET_ARCH_x86)
#define USER_PT_REGS_WORDS 21
#elif defined(__TARGET_ARCH_arm64)
#define USER_PT_REGS_WORDS 34
#else
#error "only amd64 and arm64"
#endif

struct perf_event_data {
	u64 regs[USER_PT_REGS_WORDS];
	u64 sample_period;
	u64 addr;
};

#endif
