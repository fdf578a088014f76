/* A barrier for a fixed number of threads that meet often: it spins for a while, then sleeps. */
#pragma once

#include "base/event_count.h"

struct spin_barrier {
    int n_threads;
    int64_t spin_ns;
    struct event_count passed; /* bumped by the last thread to arrive */
    _Atomic int n_arrived;
};

/* With more threads than CPUs the thread waited for may need this very CPU: no spinning then. */
void spin_barrier_init(struct spin_barrier *barrier, int n_threads);
/* Returns when all n_threads have come here; what they wrote before is then visible. Any of the threads. */
void spin_barrier_wait(struct spin_barrier *barrier);
/* How long a wait of one of n_threads should spin before it sleeps: longer than the gaps between the kernels of
 * a step, short against a step; 0 with more threads than CPUs. */
int64_t spin_time_ns(int n_threads);
