// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * The least that a sampler can do: look whether the process is wanted, and
 * send a record of the same size through a ring. What pilotlight costs beyond
 * this is the price of stacks.
 */
#include "kernel.bpf.h"

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "types.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct target);
} wanted SEC(".maps");

SEC("perf_event")
int on_empty(struct perf_event_data *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tgid = pid_tgid >> 32;
	struct sample *s;

	if (!bpf_map_lookup_elem(&wanted, &tgid))
		return 0;
	s = bpf_ringbuf_reserve(&records, sizeof(*s), 0);
	if (!s)
		return 0;
	__builtin_memset(s, 0, sizeof(*s));
	s->time_ns = bpf_ktime_get_ns();
	s->pid = tgid;
	s->tid = pid_tgid;
	s->value = ctx->sample_period;
	bpf_get_current_comm(s->comm, sizeof(s->comm));
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
	return 0;
}
