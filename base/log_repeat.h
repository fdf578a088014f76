/* Lines that others can bring about as often as they like: at most one in LOG_REPEAT_NS, which says how many
 * were left out. The caller serialises. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/log.h"

#define LOG_REPEAT_NS INT64_C(10000000000)

/* Zero at first. */
struct log_repeat {
    bool said;
    int64_t said_ns;
    uint64_t n_silent; /* left out since */
};

/* Whether to say it now; *n_silent: how often it was not said since the last time. */
static inline bool log_repeat_due(struct log_repeat *repeat, int64_t now_ns, uint64_t *n_silent)
{
    if (repeat->said && now_ns - repeat->said_ns < LOG_REPEAT_NS) {
        repeat->n_silent++;
        return false;
    }
    *n_silent = repeat->n_silent;
    *repeat = (struct log_repeat){.said = true, .said_ns = now_ns};
    return true;
}
