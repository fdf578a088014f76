/* A wish to stop, set by whoever has it and looked at now and then by whoever works. Any thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* NULL = nobody can wish it. */
static inline bool stop_is_wished(const _Atomic bool *stop)
{
    return stop != NULL && atomic_load_explicit(stop, memory_order_relaxed);
}
