/* How many threads of a pool should share its work while other programs want the CPUs too. Threads that meet
 * after every operation wait for the one that the kernel has put aside, some milliseconds each time: of short
 * operations two threads then do a fraction of what one does. Nothing here reads a clock or starts a thread.
 *
 * An operation was stalled when thread 0 waited for the others several times as long as its own part took:
 * slower cores and uneven shares are not stalls. With the share s of the time stalled, n threads do the work
 * of (1 - s) * n; where that is well below n - 1, one leaves. Where those that stay do hardly more without
 * it, it is taken back; else it comes back to try after a rest. What was in vain doubles the rest before it
 * is done again. */
#pragma once

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
    int64_t busy_ns, stalled_ns;                                   /* of the samples */
    enum { CROWDING_STEADY, CROWDING_LEFT, CROWDING_TRYING } last; /* what the last decision did */
    int64_t work_before;                                           /* one left: work_done before */
    int64_t rest_ms, leave_from_ns, try_from_ns;
};

void crowding_init(struct crowding *crowding, int n_threads);
/* One operation that ended at now_ns: thread 0's part of it, and how long it then waited for the others.
 * Returns n_active for those that follow. */
int crowding_sample(struct crowding *crowding, int64_t now_ns, int64_t own_ns, int64_t wait_ns);
