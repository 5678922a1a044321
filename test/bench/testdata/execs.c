// SPDX-License-Identifier: Apache-2.0
//go:build ignore

/* execs RATE: execs itself RATE times a second; each child ends at once. Until it is killed. */
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int argc, char **argv)
{
	if (argc < 2)
		return 0; /* a child */
	struct timespec pause = { 0, 1000000000 / atoi(argv[1]) };
	char *args[] = { argv[0], NULL };

	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		pid_t pid;

		if (posix_spawn(&pid, argv[0], NULL, NULL, args, environ))
			return 1;
		waitpid(pid, NULL, 0);
		next.tv_nsec += pause.tv_nsec;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}
