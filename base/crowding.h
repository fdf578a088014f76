/* How many threads of a pool should share its work while other programs want the CPUs too. Threads that meet
 * after every operation wait for the one that the kernel has put aside, some milliseconds each time: of short
 * operations two threads then do a fraction of what one does. Nothing here reads a clock or starts a thread.
 *
 * An operation was stalled when thread 0 waited for the others several times as long as its own part took:
 * slower cores and uneven shares are not stalls. With the share s of the time stalled, n threads do the work
 * of (1 - s) * n; where that is well below n - 1, one leaves. It comes back to try after a rest, which
 * doubles each time that it was too early. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    CROWDING_SAMPLES = 64,                 /* operations between two decisions, at least */
    CROWDING_WINDOW_NS = 10 * 1000 * 1000, /* of their time, at least */
    CROWDING_STALL_TIMES = 4,              /* of thread 0's own part, and at least: */
    CROWDING_STALL_NS = 100 * 1000,
    CROWDING_REST_MIN_MS = 200,
    CROWDING_REST_MAX_MS = 5000,
};

struct crowding {
    int n_threads, n_active; /* n_active: in 1..n_threads */
    int n_samples;
    int64_t busy_ns, stalled_ns; /* of the samples */
    int64_t rest_ms, rest_until_ns;
    bool is_trying; /* a thread has come back */
};

void crowding_init(struct crowding *crowding, int n_threads);
/* One operation that ended at now_ns: thread 0's part of it, and how long it then waited for the others.
 * Returns n_active for those that follow. */
int crowding_sample(struct crowding *crowding, int64_t now_ns, int64_t own_ns, int64_t wait_ns);
