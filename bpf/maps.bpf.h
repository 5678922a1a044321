/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that several objects share. Sizes marked "set by Go" are given at load time, see load.go. */
#ifndef PILOTLIGHT_MAPS_BPF_H
#define PILOTLIGHT_MAPS_BPF_H

#include <bpf/bpf_helpers.h>

#include "types.bpf.h"

/*
 * Key 0, value: the counters of this CPU. Written by the programs, read by Go;
 * never reset. Size: one element of 256 bytes a CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_counters);
} counters SEC(".maps");

/*
 * Key: thread group id, value: struct target. Go puts the wanted processes in
 * before sampling starts, on_fork adds their descendants, on_free takes a
 * process out when its last reference goes. Size set by Go: the number of wanted pids, or 16,384 where
 * descendants are wanted too. Preallocated, as perf_event programs demand
 * before 6.1.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct target);
} targets SEC(".maps");

static __always_inline struct cpu_counters *this_cpu_counters(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

#endif
