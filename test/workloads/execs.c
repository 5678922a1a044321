// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A parent of short-lived children.
//
//   execs same|fresh|mntns RATE SECONDS [FOLDER]   children that burn 20 ms of CPU in their own binary
//   execs program RATE SECONDS FILE                children that exec FILE (and end at once)
//   execs forks COUNT                              children that end without an exec, one after the other
//   execs wait                                     none: waits for a line "forks COUNT" on stdin, any number of times
//
//   same    every child is this very binary
//   fresh   every child is a binary never seen before: a copy in FOLDER with a function name of its own, removed
//           when the child has ended
//   mntns   as fresh, in a mount namespace and on a tmpfs that die with the child
//
// A child's stack is child_main -> child_work -> child_burn_STAMP. The stamp is 16 hexadecimal digits, zeros in this
// binary; a copy has its own, written over every occurrence in the file (.strtab; .dynstr if built so). The build id
// stays the same in all copies, on purpose: who takes it for an identity gives one child the names of another.
//
// "ready" is printed before the first child, and at the end one line:
//   {"children":300,"cpu_nanos":6012345678,"failed":0,"pids":[1234,1235],"cpu":[20112345,20098765],"stamps":["00..01","00..02"]}
// cpu is what the kernel says of each child (wait4): user and system time, its fork, copy and exec included.
#define _GNU_SOURCE
#include "truth.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

#define BURN_NANOS 20000000u
#define MARK "child_burn_"
#define DIGITS 16
#define MAX_CHILDREN 65536

// --- the child

KEEP uint64_t child_burn_0000000000000000(uint64_t nanos)
{
	volatile uint64_t sum = 1;
	// 20,000 rounds are some 100 us, so that the clock's own frames are well below 1 % of the samples
	for (uint64_t end = truth_clock(CLOCK_THREAD_CPUTIME_ID) + nanos; truth_clock(CLOCK_THREAD_CPUTIME_ID) < end;)
		for (int i = 0; i < 20000; i++)
			sum = sum * 31 + (uint64_t)i;
	return sum;
}

KEEP uint64_t child_work(uint64_t nanos)
{
	volatile uint64_t sum = child_burn_0000000000000000(nanos);
	return sum;
}

KEEP int child_main(void)
{
	volatile uint64_t sum = child_work(BURN_NANOS);
	(void)sum;
	return 0;
}

// --- the parent

static struct {
	pid_t pid;
	uint64_t cpu_nanos;
	char stamp[DIGITS + 1];
} children[MAX_CHILDREN];
static int started, failed;

// Where the parent keeps the copies, each until its child has ended; NULL where it keeps none.
static const char *copies;

static char *image;
static size_t image_size;

static void die(const char *what)
{
	fprintf(stderr, "execs: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void read_image(void)
{
	struct stat status;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &status))
		die("/proc/self/exe");
	image_size = (size_t)status.st_size;
	image = malloc(image_size);
	if (!image || read(file, image, image_size) != (ssize_t)image_size)
		die("reading /proc/self/exe");
	close(file);
}

// Writes a copy of this binary whose function has the stamp in its name.
static void write_copy(const char *path, const char *stamp)
{
	static const char zeros[] = MARK "0000000000000000";
	int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	if (file < 0)
		die(path);
	char *copy = malloc(image_size);
	if (!copy)
		die("malloc");
	memcpy(copy, image, image_size);
	for (char *at = copy; (at = memmem(at, image_size - (size_t)(at - copy), zeros, sizeof(zeros) - 1));)
		memcpy(at + sizeof(MARK) - 1, stamp, DIGITS);
	if (write(file, copy, image_size) != (ssize_t)image_size || close(file))
		die(path);
	free(copy);
}

static void exec_child(const char *path)
{
	execl(path, "child", "child", (char *)NULL);
	die(path);
}

static void path_of(char *path, size_t size, const char *folder, const char *stamp)
{
	snprintf(path, size, "%s/child-%s", folder, stamp);
}

// Runs in the forked child; never returns.
static void become(const char *mode, const char *folder, const char *stamp)
{
	char path[4096];
	if (!strcmp(mode, "forks"))
		_exit(0);
	if (!strcmp(mode, "same"))
		exec_child("/proc/self/exe");
	if (!strcmp(mode, "program")) {
		execl(folder, folder, (char *)NULL);
		die(folder);
	}
	if (!strcmp(mode, "mntns")) {
		if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("none", folder, "tmpfs", 0, "size=4m"))
			die("private tmpfs");
		path_of(path, sizeof(path), folder, stamp);
		write_copy(path, stamp);
	}
	path_of(path, sizeof(path), folder, stamp);
	exec_child(path);
}

static void reap(int flags)
{
	struct rusage usage;
	int status;
	for (pid_t pid; (pid = wait4(-1, &status, flags, &usage)) > 0;) {
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			failed++;
		int i = started - 1;
		while (children[i].pid != pid)
			i--;
		children[i].cpu_nanos = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
					(uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
		if (copies) {
			char path[4096];
			path_of(path, sizeof(path), copies, children[i].stamp);
			unlink(path);
		}
	}
}

static void start(const char *mode, const char *folder)
{
	if (started == MAX_CHILDREN) {
		fprintf(stderr, "execs: more than %d children\n", MAX_CHILDREN);
		exit(1);
	}
	char *stamp = children[started].stamp;
	int own_copy = !strcmp(mode, "fresh") || !strcmp(mode, "mntns");
	snprintf(stamp, DIGITS + 1, "%0*x", DIGITS, own_copy ? started + 1 : 0);
	if (copies) {
		// written before the fork: a binary that is open for writing anywhere cannot be executed
		char path[4096];
		path_of(path, sizeof(path), copies, stamp);
		write_copy(path, stamp);
	}
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		become(mode, folder, stamp);
	children[started++].pid = pid;
}

static void run_at_rate(const char *mode, double rate, double seconds, const char *folder)
{
	uint64_t begin = truth_clock(CLOCK_MONOTONIC);
	copies = !strcmp(mode, "fresh") ? folder : NULL;
	for (int i = 0; i < rate * seconds && !truth_stopping; i++) {
		start(mode, folder);
		uint64_t due = begin + (uint64_t)((i + 1) / rate * 1e9);
		struct timespec at = { (time_t)(due / 1000000000u), (long)(due % 1000000000u) };
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR && !truth_stopping)
			;
		reap(WNOHANG);
	}
	reap(0);
}

static void run_forks(int count)
{
	started = failed = 0;
	for (int i = 0; i < count && !truth_stopping; i++) {
		start("forks", NULL);
		reap(0);
	}
}

static void report(void)
{
	uint64_t total = 0;
	for (int i = 0; i < started; i++)
		total += children[i].cpu_nanos;
	printf("{\"children\":%d,\"cpu_nanos\":%llu,\"failed\":%d,\"pids\":[", started, (unsigned long long)total, failed);
	for (int i = 0; i < started; i++)
		printf("%s%d", i ? "," : "", children[i].pid);
	printf("],\"cpu\":[");
	for (int i = 0; i < started; i++)
		printf("%s%llu", i ? "," : "", (unsigned long long)children[i].cpu_nanos);
	printf("],\"stamps\":[");
	for (int i = 0; i < started; i++)
		printf("%s\"%s\"", i ? "," : "", children[i].stamp);
	puts("]}");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "child"))
		return child_main();
	const char *mode = argc > 1 ? argv[1] : "";
	truth_ready();
	if (!strcmp(mode, "wait") && argc == 2) {
		for (int count; scanf(" forks %d", &count) == 1;) {
			run_forks(count);
			report();
		}
		return 0;
	}
	if (!strcmp(mode, "forks") && argc == 3) {
		run_forks(atoi(argv[2]));
	} else if (argc >= 4 && (!strcmp(mode, "same") || argc == 5)) {
		read_image();
		run_at_rate(mode, atof(argv[2]), atof(argv[3]), argc == 5 ? argv[4] : NULL);
	} else {
		fprintf(stderr, "usage: execs same RATE SECONDS | fresh|mntns RATE SECONDS FOLDER | program RATE SECONDS FILE | forks COUNT | wait\n");
		return 2;
	}
	report();
	return failed != 0;
}
