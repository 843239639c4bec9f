/* Sleep by the kernel's clock. libfaketime interprets the absolute times of the monotonic clock, by
 * which Python sleeps, as times of the clock that it changed, and refuses them after a jump. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request,
                    struct timespec *remaining) {
  return syscall(SYS_clock_nanosleep, clock, flags, request, remaining) == 0 ? 0 : errno;
}
