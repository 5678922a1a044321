// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// Two threads that begin a span about every millisecond, publish it as OpenTelemetry's thread context (OTEP 4947), and burn CPU
// until it ends. Of nine spans in a row of one thread the last is none: the thread works for nobody.
//
//   spans FILE [LIBRARY]
//
// The ids are made of the thread and the number of the span: a span's is "ps" 00 00, then 16 bits of thread and 16 of
// number, each trace's "pilotlight" 00 00, then 16 bits of thread and the number of its first span of eight. At the end
// it writes a line for each into FILE: thread, number (or -1), and when it began and ended, in ns of CLOCK_MONOTONIC. The begin
// is read before the context is published, and is the end of what was before.
//
// With -DLIBRARY the variable is in a shared library, which is loaded by its name; with -DCONTEXT this is that library.
#include <stdint.h>

struct context {
	uint8_t trace_id[16];
	uint8_t span_id[8];
	uint8_t valid;
	uint8_t flags;
	uint16_t size;
};

#if defined(CONTEXT)

__attribute__((visibility("default"))) __thread struct context *volatile otel_thread_ctx_v1;
// So large that glibc gives no thread a place for it ahead.
#ifdef LARGE
__attribute__((visibility("default"))) __thread char spans_ballast[1 << 16];
#endif

__attribute__((visibility("default"))) void spans_publish(struct context *context)
{
	otel_thread_ctx_v1 = context;
}

#else

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "truth.h"

#if defined(LIBRARY)
static void (*publish)(struct context *);
#else
__attribute__((visibility("default"))) __thread struct context *volatile otel_thread_ctx_v1;

static void publish(struct context *context)
{
	otel_thread_ctx_v1 = context;
}
#endif

#define THREADS 2
#define MOST 60000

struct span {
	int number;
	uint64_t begin, end;
};

static struct span spans[THREADS][MOST];
static int counts[THREADS];

static void put16(uint8_t *to, int n)
{
	to[0] = (uint8_t)(n >> 8);
	to[1] = (uint8_t)n;
}

__attribute__((noinline)) static uint64_t burn(uint64_t until)
{
	volatile uint64_t sum = 1;
	uint64_t now;
	do {
		for (int i = 0; i < 2000; i++)
			sum = sum * 31 + (uint64_t)i;
		now = truth_clock(CLOCK_MONOTONIC);
	} while (now < until);
	return now;
}

static void *work(void *argument)
{
	int thread = (int)(intptr_t)argument;
	struct context contexts[2] = { 0 };
	uint64_t random = 88172645463325252ULL + (uint64_t)thread, now = truth_clock(CLOCK_MONOTONIC);
	for (int i = 0; i < MOST && !truth_stopping; i++) {
		struct span *span = &spans[thread][i];
		struct context *context = &contexts[i & 1];
		span->number = i % 9 == 8 ? -1 : i;
		memcpy(context->trace_id, "pilotlight\0\0", 12);
		put16(context->trace_id + 12, thread);
		put16(context->trace_id + 14, i / 9 * 9);
		memcpy(context->span_id, "ps\0\0", 4);
		put16(context->span_id + 4, thread);
		put16(context->span_id + 6, i);
		context->valid = 1;
		span->begin = now;
		publish(span->number < 0 ? NULL : context);
		now = span->end = burn(now + 500000 + truth_random(&random) % 1000000);
		counts[thread] = i + 1;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
#if defined(LIBRARY)
	void *library = dlopen(argv[2], RTLD_NOW);
	if (!library || !(publish = (void (*)(struct context *))dlsym(library, "spans_publish"))) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
#endif
	truth_ready();
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	FILE *file = fopen(argv[1], "w");
	if (!file)
		return 1;
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < counts[i]; j++)
			fprintf(file, "%d %d %llu %llu\n", i, spans[i][j].number, (unsigned long long)spans[i][j].begin,
				(unsigned long long)spans[i][j].end);
	return fclose(file) != 0;
}

#endif
