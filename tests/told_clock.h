/* A clock that goes on as a test's kernels say: what a worker measures by it is the same on every machine, however
 * busy. The linker puts it before the C library's (Makefile). */
#ifndef TILEBOOK_TESTS_TOLD_CLOCK_H
#define TILEBOOK_TESTS_TOLD_CLOCK_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "bench/commands.h"
#include "tuner/worker.h"

static uint64_t told_ns; /* 0: as late as it is */

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time) {
    if (!told_ns) return __real_clock_gettime(clock, time);
    *time = (struct timespec){(time_t)(told_ns / 1000000000), (long)(told_ns % 1000000000)};
    return 0;
}

/* What a kernel has taken. */
static inline void take_us(unsigned us) {
    told_ns += 1000 * (uint64_t)us;
}

/* A worker of these kernels by this clock, where the arguments ask for one; its exit code, -1 where they do not. */
static inline int serve_told(int argc, char **argv, const struct kernel *const *kernels) {
    struct error error;
    if (argc != 3 || strcmp(argv[1], WORKER_COMMAND)) return -1;
    told_ns = 1;
    return worker_serve(argv[2], kernels, &error) ? 1 : 0;
}

#endif
