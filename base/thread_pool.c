#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/crowding.h"
#include "base/numa.h"
#include "base/spin_barrier.h"

enum { SHARES_PER_SAMPLE = 8 }; /* so that the looks at the clock are few beside short operations */

struct worker {
    struct thread_pool *pool;
    pthread_t thread;
    atomic_bool joins; /* set when it is put in: its next run is the one behind joined_at */
    _Atomic uint32_t joined_at;
    int index;
    int node;       /* the kernel's number */
    cpu_set_t cpus; /* where pool->is_pinned: the one of this worker */
};

struct thread_pool {
    int n_threads;
    int n_started; /* workers alive */
    int64_t spin_ns;
    thread_pool_fn *fn;
    void *context;
    atomic_bool stop;
    struct event_count start;  /* bumped once a run */
    struct event_count done;   /* bumped by the last worker of a run */
    struct event_count joined; /* bumped when workers are put in */
    _Atomic int n_active;      /* threads that take part, the first ones; changes between runs */
    struct crowding crowding;
    uint32_t n_shares;
    struct spin_barrier barrier;
    bool is_pinned; /* on one node, to a CPU each while all take part */
    cpu_set_t all_cpus;
    int n_nodes, caller_node; /* caller_node: of thread 0, the kernel's number */
    cpu_set_t caller_cpus;    /* of thread 0, where n_nodes > 1 */
    pthread_t placed_caller;
    bool has_placed_caller;
    _Atomic int n_running;   /* workers that have not finished the run */
    struct worker workers[]; /* n_threads - 1 */
};

static void wait_until_put_in(const struct worker *worker)
{
    struct thread_pool *pool = worker->pool;
    for (;;) {
        uint32_t seen = event_count_read(&pool->joined);
        if (pool->stop || pool->n_active > worker->index)
            return;
        (void)event_count_wait(&pool->joined, seen, -1);
    }
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct thread_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        event_count_wait_past(&pool->start, seen, pool->spin_ns);
        if (pool->stop)
            return NULL;
        bool is_active = pool->n_active > worker->index; /* in this order: see put_in */
        if (worker->joins) {
            worker->joins = false;
            seen = worker->joined_at;
            continue;
        }
        seen++; /* a run is over only when those who take part have finished it: none can be missed */
        if (!is_active) {
            wait_until_put_in(worker);
            continue;
        }
        pool->fn(pool->context, worker->index, pool->n_active);
        if (atomic_fetch_sub_explicit(&pool->n_running, 1, memory_order_acq_rel) == 1)
            event_count_bump(&pool->done);
    }
}

/* While somebody is left out, the others go where there is room. */
static void move_workers(struct thread_pool *pool, bool all_take_part)
{
    for (int i = 0; pool->is_pinned && i < pool->n_threads - 1; i++) {
        const struct worker *worker = &pool->workers[i];
        const cpu_set_t *cpus = all_take_part ? &worker->cpus : &pool->all_cpus;
        (void)pthread_setaffinity_np(worker->thread, sizeof *cpus, cpus);
    }
}

/* Between runs. Who is left out hears of it at the start of the next run, or much later when the kernel has
 * put it aside: by then it may be in again, for runs behind joined_at. */
static void put_in(struct thread_pool *pool, int n_active)
{
    int before = pool->n_active;
    if (before == n_active)
        return;
    for (int i = before; i < n_active; i++) {
        pool->workers[i - 1].joined_at = event_count_read(&pool->start);
        pool->workers[i - 1].joins = true;
    }
    if (before == pool->n_threads || n_active == pool->n_threads)
        move_workers(pool, n_active == pool->n_threads);
    pool->n_active = n_active;
    if (n_active > before)
        event_count_bump(&pool->joined);
}

/* On one node: one CPU of the process's mask for each thread, only when there are exactly as many: then the
 * process owns them. With CPUs to spare the kernel knows better which are idle, and two processes would both
 * pin to the first ones. On several nodes threads stay at least on theirs, for there is the memory that they
 * read. */
static void place_workers(struct thread_pool *pool, int n_cpus)
{
    cpu_set_t mask;
    struct numa_topology topology;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return;
    numa_detect(&mask, &topology);
    bool several = topology.n_nodes > 1 && pool->n_threads > 1;
    if (!several && (pool->n_threads > n_cpus || CPU_COUNT(&mask) != pool->n_threads))
        return;
    pool->is_pinned = !several;
    pool->all_cpus = mask;
    for (int i = 0; i < pool->n_threads; i++) {
        cpu_set_t cpus;
        int node = topology.nodes[numa_thread_node(&topology, i, pool->n_threads, &cpus)].id;
        if (i > 0) {
            pool->n_nodes += several && node != thread_pool_node(pool, i - 1);
            pool->workers[i - 1].node = node;
            pool->workers[i - 1].cpus = cpus;
            (void)pthread_setaffinity_np(pool->workers[i - 1].thread, sizeof cpus, &cpus);
        } else { /* the caller's affinity is the caller's: thread_pool_place_caller */
            pool->caller_node = node;
            pool->caller_cpus = cpus;
        }
    }
}

int thread_pool_node_count(const struct thread_pool *pool)
{
    return pool->n_nodes;
}

int thread_pool_node(const struct thread_pool *pool, int thread_index)
{
    ASSERT(thread_index >= 0 && thread_index < pool->n_threads);
    return thread_index == 0 ? pool->caller_node : pool->workers[thread_index - 1].node;
}

void thread_pool_place_caller(struct thread_pool *pool)
{
    pthread_t caller = pthread_self();
    if (pool->n_nodes == 1 || (pool->has_placed_caller && pthread_equal(caller, pool->placed_caller)))
        return;
    pool->placed_caller = caller;
    pool->has_placed_caller = true;
    (void)pthread_setaffinity_np(caller, sizeof pool->caller_cpus, &pool->caller_cpus);
}

static int start_workers(struct thread_pool *pool)
{
    /* Signals are for the threads that asked for them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = 0;
    for (int i = 0; i < pool->n_threads - 1 && failure == 0; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){.pool = pool, .index = i + 1};
        failure = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (failure != 0)
            break;
        pool->n_started++;
        char name[24]; /* the kernel takes 15 bytes: "bantam-255" fits */
        snprintf(name, sizeof name, "bantam-%d", i + 1);
        (void)pthread_setname_np(worker->thread, name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

err_t thread_pool_create(int n_threads, struct thread_pool **out)
{
    *out = NULL;
    if (n_threads < 0 || n_threads > THREAD_POOL_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%d threads: expected 0 (one per CPU) to %d", n_threads,
                       THREAD_POOL_MAX);
    int n_cpus = usable_cpu_count();
    if (n_threads == 0)
        n_threads = n_cpus < THREAD_POOL_MAX ? n_cpus : THREAD_POOL_MAX;
    struct thread_pool *pool = mem_alloc(sizeof *pool + (size_t)(n_threads - 1) * sizeof pool->workers[0]);
    if (pool == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a pool of %d threads", n_threads);
    pool->n_threads = n_threads;
    pool->n_active = n_threads;
    crowding_init(&pool->crowding, n_threads);
    pool->n_nodes = 1;
    pool->spin_ns = spin_time_ns(n_threads, n_cpus);
    spin_barrier_init(&pool->barrier, n_threads, pool->spin_ns);
    int failure = start_workers(pool);
    if (failure != 0) {
        thread_pool_destroy(pool);
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start %d threads: %s", n_threads, strerror(failure));
    }
    if (n_threads > 1)
        place_workers(pool, n_cpus);
    *out = pool;
    return err_ok();
}

void thread_pool_destroy(struct thread_pool *pool)
{
    if (pool == NULL)
        return;
    pool->stop = true;
    event_count_bump(&pool->start);
    event_count_bump(&pool->joined);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    mem_free(pool);
}

int thread_pool_size(const struct thread_pool *pool)
{
    return pool->n_threads;
}

/* own_end_ns: when the caller's part was done; NULL: nobody asks. */
static void run_on(struct thread_pool *pool, thread_pool_fn *fn, void *context, int n_active,
                   int64_t *own_end_ns)
{
    uint32_t seen = event_count_read(&pool->done);
    put_in(pool, n_active);
    if (n_active > 1) {
        ASSERT(atomic_load_explicit(&pool->n_running, memory_order_relaxed) == 0);
        pool->fn = fn;
        pool->context = context;
        atomic_store_explicit(&pool->n_running, n_active - 1, memory_order_relaxed);
        event_count_bump(&pool->start); /* publishes the words above */
    }
    fn(context, 0, n_active);
    if (own_end_ns != NULL)
        *own_end_ns = clock_now_ns(clock_monotonic());
    if (n_active > 1)
        event_count_wait_past(&pool->done, seen, pool->spin_ns);
}

void thread_pool_run(struct thread_pool *pool, thread_pool_fn *fn, void *context)
{
    run_on(pool, fn, context, pool->n_threads, NULL);
}

void thread_pool_share(struct thread_pool *pool, thread_pool_fn *fn, void *context)
{
    /* On several nodes each has its rows in memory of its own: none is left out, and n_active stays. */
    bool is_fixed = pool->n_threads == 1 || pool->n_nodes > 1;
    if (is_fixed || ++pool->n_shares % SHARES_PER_SAMPLE != 0) {
        run_on(pool, fn, context, pool->crowding.n_active, NULL);
        return;
    }
    int64_t began_ns = clock_now_ns(clock_monotonic()), own_end_ns;
    run_on(pool, fn, context, pool->crowding.n_active, &own_end_ns);
    int64_t now_ns = clock_now_ns(clock_monotonic());
    (void)crowding_sample(&pool->crowding, now_ns, own_end_ns - began_ns, now_ns - own_end_ns);
}

void thread_pool_barrier(struct thread_pool *pool)
{
    spin_barrier_wait(&pool->barrier);
}

void thread_split(size_t n, size_t grain, int thread_index, int n_threads, size_t *begin, size_t *end)
{
    ASSERT(grain > 0);
    ASSERT(n_threads > 0);
    ASSERT(thread_index >= 0 && thread_index < n_threads);
    size_t n_grains = n / grain + (n % grain != 0);
    size_t share = n_grains / (size_t)n_threads;
    size_t n_larger = n_grains % (size_t)n_threads; /* the first ones take one more */
    size_t i = (size_t)thread_index;
    size_t first = i * share + (i < n_larger ? i : n_larger);
    size_t last = first + share + (i < n_larger ? 1 : 0);
    *begin = first < n_grains ? first * grain : n;
    *end = last < n_grains ? last * grain : n;
}
