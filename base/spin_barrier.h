/* A barrier for a fixed number of threads that meet often: it spins for a while, then sleeps. */
#pragma once

#include "base/event_count.h"

struct spin_barrier {
    int n_threads;
    int64_t spin_ns;
    struct event_count passed; /* bumped by the last thread to arrive */
    _Atomic int n_arrived;
};

/* spin_ns: see spin_time_ns. */
void spin_barrier_init(struct spin_barrier *barrier, int n_threads, int64_t spin_ns);
/* Returns when all n_threads have come here; what they wrote before is then visible. Any of the threads. */
void spin_barrier_wait(struct spin_barrier *barrier);

/* How long a wait of one of n_threads should spin before it sleeps: longer than the gaps between the kernels
 * of a step, short against a step; 0 with more threads than CPUs, where the thread waited for may need this
 * very CPU. n_cpus: of usable_cpu_count. */
static inline int64_t spin_time_ns(int n_threads, int n_cpus)
{
    enum { SPIN_NS = 50 * 1000 };
    return n_threads <= n_cpus ? SPIN_NS : 0;
}
