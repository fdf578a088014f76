/* A counter that threads can wait on (futex): one bump wakes all waiters. The producer pays one atomic add,
 * and a system call only when somebody sleeps. Any thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct event_count {
    _Atomic uint32_t value;
    _Atomic uint32_t n_waiters;
};

static inline uint32_t event_count_read(const struct event_count *event)
{
    return atomic_load_explicit(&event->value, memory_order_seq_cst);
}
void event_count_bump(struct event_count *event);
/* Returns when value != seen, or after timeout_ns (negative: no timeout); may wake early. True when value !=
 * seen. */
bool event_count_wait(struct event_count *event, uint32_t seen, int64_t timeout_ns);
/* Returns when value != seen; spins for about spin_ns (0 = not at all) before it sleeps. */
void event_count_wait_past(struct event_count *event, uint32_t seen, int64_t spin_ns);
