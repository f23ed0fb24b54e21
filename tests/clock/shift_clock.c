/* Shifts the wall clock of a process by SHIFT_CLOCK_SECONDS. The tests compile it as a library for LD_PRELOAD. Other clocks stay as they are. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    const char *seconds = getenv("SHIFT_CLOCK_SECONDS");
    if (!failed && clock == CLOCK_REALTIME && seconds) now->tv_sec += atol(seconds);
    return failed;
}
