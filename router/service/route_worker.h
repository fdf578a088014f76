/* The router's own thread, for what nobody should wait for: jobs in the order in which they were posted (the
 * ledger's entries, the log, the end of a request), and what is due at some time (a retry, a deadline). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/error.h"
#include "clients/c/timer_heap.h"

struct route_worker;

/* Inside whatever it is about, which must live until run is called. */
struct worker_job {
    struct worker_job *next; /* the worker's */
    void (*run)(struct worker_job *job);
};

/* Likewise. Zero-initialise. */
struct worker_timer {
    struct timer_node node; /* the worker's; first member */
    bool is_set;            /* the worker's */
    void (*fire)(struct worker_timer *timer);
};

/* What several jobs leave to be done once; NULL = nothing. */
struct worker_after {
    void (*run)(void *context);
    void *context;
};
err_t route_worker_open(const struct clock *clock, const struct worker_after *after,
                        struct route_worker **out) ERR_MUST_CHECK;
/* Runs what was posted; no timer may be set. NULL is fine. */
void route_worker_close(struct route_worker *worker);

/* Any thread. A job is posted once at a time. */
void route_worker_post(struct route_worker *worker, struct worker_job *job);
/* The same for what may wait two milliseconds, so that a busy router does not wake its thread for each. */
void route_worker_post_later(struct route_worker *worker, struct worker_job *job);
/* Any thread; the timer is not set. */
void route_worker_set(struct route_worker *worker, struct worker_timer *timer, int64_t due_ns);
/* Any thread. False: it was not set, or fires now. */
bool route_worker_unset(struct route_worker *worker, struct worker_timer *timer);
