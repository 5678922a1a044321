// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A program that tells others who it is, as OpenTelemetry's SDKs do (OTEP 4719: process context):
//
//   context memfd|anon SERVICE...
//
// It burns in context_burn. At the start, and at each SIGUSR1, it publishes the next SERVICE as its service.name, beside
// service.version=1; "-" publishes nothing. The header is in a memfd, or in anonymous memory that only its name (prctl,
// CONFIG_ANON_VMA_NAME) tells apart. The payload of each is written to a page of its own.
#define _GNU_SOURCE
#include "truth.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

struct context {
	char signature[8];
	uint32_t version;
	uint32_t payload_size;
	uint64_t published;
	uint64_t payload;
};

static volatile sig_atomic_t asked = 1;
static int anonymous;
static char **services;
static volatile struct context *context;
static struct part parts[] = {{"context_burn", 100, 0, 0}};

static void ask(int signal)
{
	(void)signal;
	asked = 1;
}

// field appends field number n, which is a string or a message of less than 128 bytes.
static uint8_t *field(uint8_t *at, int n, const void *content, size_t size)
{
	*at++ = (uint8_t)(n << 3 | 2);
	*at++ = (uint8_t)size;
	memcpy(at, content, size);
	return at + size;
}

// attribute appends one to a Resource: attributes = 1 { key = 1, value = 2 { string_value = 1 } }.
static uint8_t *attribute(uint8_t *at, const char *key, const char *value)
{
	uint8_t text[128], pair[128];
	size_t text_size = (size_t)(field(text, 1, value, strlen(value)) - text);
	uint8_t *end = field(pair, 1, key, strlen(key));
	end = field(end, 2, text, text_size);
	return field(at, 1, pair, (size_t)(end - pair));
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *page(int fd)
{
	void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static void publish(const char *service)
{
	uint8_t resource[128], *payload = page(-1);
	uint8_t *end = attribute(resource, "service.name", service);
	end = attribute(end, "service.version", "1");
	end = field(payload, 1, resource, (size_t)(end - resource));
	uint32_t size = (uint32_t)(end - payload);
	int first = context == NULL;
	if (first) {
		int fd = -1;
		if (!anonymous) {
			fd = memfd_create("OTEL_CTX", MFD_CLOEXEC);
			if (fd < 0 || ftruncate(fd, 4096))
				fail("memfd");
		}
		context = page(fd);
		if (fd >= 0)
			close(fd);
		if (madvise((void *)context, 4096, MADV_DONTFORK))
			fail("madvise");
	}
	context->published = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	context->version = 2;
	context->payload_size = size;
	context->payload = (uint64_t)(uintptr_t)payload;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	context->published = truth_clock(CLOCK_MONOTONIC);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (first)
		memcpy((void *)context->signature, "OTEL_CTX", 8);
	// Many kernels cannot: a memfd is found by its own name.
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, context, 4096, "OTEL_CTX") && anonymous)
		fail("prctl");
}

__attribute__((noinline, noclone)) void context_burn(uint64_t rounds)
{
	volatile uint64_t sum = 2;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = (sum ^ i) * 17;
}

void work(int part, uint64_t rounds)
{
	(void)part;
	if (asked && *services) {
		asked = 0;
		if (strcmp(*services, "-"))
			publish(*services);
		services++;
	}
	context_burn(rounds);
}

int main(int argc, char **argv)
{
	if (argc < 3 || (strcmp(argv[1], "memfd") && strcmp(argv[1], "anon"))) {
		fprintf(stderr, "usage: context memfd|anon SERVICE...\n");
		return 2;
	}
	anonymous = !strcmp(argv[1], "anon");
	services = argv + 2;
	signal(SIGUSR1, ask);
	truth_run(parts, 1, 0, work);
	return 0;
}
