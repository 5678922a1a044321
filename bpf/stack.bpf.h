/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The key of a stack. Mirrored by StackKey in stack.go, which a test holds
 * against this file compiled natively.
 */
#ifndef PILOTLIGHT_STACK_BPF_H
#define PILOTLIGHT_STACK_BPF_H

#include "types.bpf.h"

#define FRAME_KIND_SHIFT 60
#define FRAME_PAYLOAD_MASK ((1ULL << FRAME_KIND_SHIFT) - 1)

#define STACK_KEY_MULTIPLIER 0x9e3779b97f4a7c15ULL

/*
 * One step: a xor, a multiplication by an odd number and a shift-xor. Each is
 * a bijection of the state, so no difference is ever lost on the way; the seed
 * holds a secret, so nobody outside can look for frames that collide.
 */
static __attribute__((always_inline)) inline u64 stack_key_step(u64 key, u64 word)
{
	key = (key ^ word) * STACK_KEY_MULTIPLIER;
	return key ^ (key >> 32);
}

/*
 * The key begins as the secret of this start. Whose frames they are is known
 * when all were seen. 0 says "no stack", so the one key in 2^64 that would be 0
 * becomes 1.
 */
static __attribute__((always_inline)) inline u64 stack_key_end(u64 key, u32 frames, u64 owner)
{
	key = stack_key_step(stack_key_step(key, frames), owner);
	return key ? key : 1;
}

static __attribute__((always_inline)) inline u64 stack_chunk_key(u64 key, u32 index)
{
	return index ? stack_key_step(key, index) : key;
}

#endif
