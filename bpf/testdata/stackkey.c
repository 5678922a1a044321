/*
 * The keys of stacks by stack.bpf.h, compiled natively: reads stacks as words
 * (secret, owner, number of frames, frames) and writes the key and the keys of the
 * further chunks of each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stack.bpf.h"

static int read_word(u64 *word)
{
	return fread(word, sizeof(*word), 1, stdin) == 1;
}

int main(void)
{
	u64 secret, owner, frames, frame, out[LIMIT_CHUNKS];

	while (read_word(&secret)) {
		u64 key = secret;

		if (!read_word(&owner) || !read_word(&frames))
			return EXIT_FAILURE;
		for (u64 i = 0; i < frames; i++) {
			if (!read_word(&frame))
				return EXIT_FAILURE;
			key = stack_key_step(key, frame);
		}
		key = stack_key_end(key, frames, owner);
		for (u32 i = 0; i < LIMIT_CHUNKS; i++)
			out[i] = stack_chunk_key(key, i);
		if (fwrite(out, sizeof(out), 1, stdout) != 1)
			return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
