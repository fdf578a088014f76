#include "base/spin_barrier.h"

void spin_barrier_init(struct spin_barrier *barrier, int n_threads, int64_t spin_ns)
{
    *barrier = (struct spin_barrier){.n_threads = n_threads, .spin_ns = spin_ns};
}

void spin_barrier_wait(struct spin_barrier *barrier)
{
    if (barrier->n_threads == 1)
        return;
    uint32_t seen = event_count_read(&barrier->passed);
    if (atomic_fetch_add_explicit(&barrier->n_arrived, 1, memory_order_acq_rel) + 1 == barrier->n_threads) {
        atomic_store_explicit(&barrier->n_arrived, 0, memory_order_relaxed);
        event_count_bump(&barrier->passed);
    } else {
        event_count_wait_past(&barrier->passed, seen, barrier->spin_ns);
    }
}
