// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// packets: sends datagrams on the loopback to a hundred sockets at once, which nobody reads, until SIGTERM. Sending one costs
// little; handing it to all sockets is half a millisecond of softirq work on a slow machine, for whatever CPU takes the packet. Most
// come alone, and some in numbers that a CPU leaves to its ksoftirqd: more than twice the 64 that it takes at a time. The pauses
// between are random. It says "ready" when all sockets are there.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "truth.h"

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)))
		perror("packets: socket"), _exit(1);
	return fd;
}

int main(void)
{
	struct sockaddr_in all = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7fffffff)}; /* 127.255.255.255 */
	socklen_t size = sizeof(all);
	for (int i = 0; i < 100; i++) {
		int fd = new_socket();
		if (bind(fd, (struct sockaddr *)&all, size) || getsockname(fd, (struct sockaddr *)&all, &size))
			return perror("packets: bind"), 1;
	}
	int sender = new_socket();
	puts("ready");
	fflush(stdout);
	uint64_t random = 1;
	for (unsigned n = 1;; n++) {
		struct timespec pause = {0, 1000000 + (long)(truth_random(&random) % 6000000)};
		nanosleep(&pause, NULL);
		for (int burst = n % 32 ? 1 : 130; burst > 0; burst--)
			if (sendto(sender, "x", 1, 0, (struct sockaddr *)&all, size) != 1)
				return perror("packets: sendto"), 1;
	}
}
