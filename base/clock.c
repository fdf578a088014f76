#include "base/clock.h"

#include <time.h>

static int64_t monotonic_now_ns(void *context)
{
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

const struct clock *clock_monotonic(void)
{
    static const struct clock monotonic = {monotonic_now_ns, NULL};
    return &monotonic;
}

static int64_t virtual_now_ns(void *context)
{
    const struct virtual_clock *clock = context;
    return clock->now_ns;
}

void virtual_clock_init(struct virtual_clock *clock, int64_t start_ns)
{
    clock->clock = (struct clock){virtual_now_ns, clock};
    clock->now_ns = start_ns;
}
