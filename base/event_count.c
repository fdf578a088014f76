#include "base/event_count.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"

enum { PAUSES_PER_LOOK = 16 };

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* The bump and the read of n_waiters, and the waiter's two in the other order, are all sequentially
 * consistent: either the producer sees the waiter, or the waiter (at last in the kernel) sees the new value.
 */
void event_count_bump(struct event_count *event)
{
    atomic_fetch_add_explicit(&event->value, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&event->n_waiters, memory_order_seq_cst) > 0)
        syscall(SYS_futex, &event->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

bool event_count_wait(struct event_count *event, uint32_t seen, int64_t timeout_ns)
{
    if (event_count_read(event) != seen)
        return true;
    if (timeout_ns == 0)
        return false;
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    atomic_fetch_add_explicit(&event->n_waiters, 1, memory_order_seq_cst);
    if (event_count_read(event) == seen)
        syscall(SYS_futex, &event->value, FUTEX_WAIT_PRIVATE, seen, timeout_ns < 0 ? NULL : &timeout, NULL,
                0);
    atomic_fetch_sub_explicit(&event->n_waiters, 1, memory_order_seq_cst);
    return event_count_read(event) != seen;
}

void event_count_wait_past(struct event_count *event, uint32_t seen, int64_t spin_ns)
{
    if (spin_ns > 0) {
        int64_t limit_ns = clock_now_ns(clock_monotonic()) + spin_ns;
        do {
            for (int i = 0; i < PAUSES_PER_LOOK; i++) {
                if (event_count_read(event) != seen)
                    return;
                cpu_pause();
            }
        } while (clock_now_ns(clock_monotonic()) < limit_ns);
    }
    while (!event_count_wait(event, seen, -1)) {
    }
}
