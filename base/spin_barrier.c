#include "base/spin_barrier.h"

#include "base/thread_pool.h"

enum { SPIN_NS = 50 * 1000 };

int64_t spin_time_ns(int n_threads)
{
    return n_threads <= usable_cpu_count() ? SPIN_NS : 0;
}

void spin_barrier_init(struct spin_barrier *barrier, int n_threads)
{
    *barrier = (struct spin_barrier){.n_threads = n_threads, .spin_ns = spin_time_ns(n_threads)};
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
