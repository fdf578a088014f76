/* Time as an interface: the real one is monotonic, tests pass a virtual one. */
#pragma once

#include <stdint.h>

/* now_ns: nanoseconds since an arbitrary start, never going back. Any thread. */
struct clock {
    int64_t (*now_ns)(void *context);
    void *context;
};

static inline int64_t clock_now_ns(const struct clock *clock)
{
    return clock->now_ns(clock->context);
}

/* CLOCK_MONOTONIC. The pointer is static. */
const struct clock *clock_monotonic(void);

/* A clock that a test moves by hand. */
struct virtual_clock {
    struct clock clock; /* clock.context points to this struct: initialise with virtual_clock_init */
    int64_t now_ns;
};
void virtual_clock_init(struct virtual_clock *clock, int64_t start_ns);
