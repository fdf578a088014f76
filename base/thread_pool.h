/* A fixed set of threads for data-parallel kernels. thread_pool_run calls fn once on each thread (the caller
 * is thread 0) and returns when all are done; thread_pool_share on fewer while they would only wait for each
 * other (crowding.h; on one memory node). Workers spin for a short while, then sleep on a futex, so an idle
 * engine uses no CPU. One caller at a time. Threads are pinned to the CPUs of the process's affinity mask
 * when there are exactly as many and all take part; on a machine of several memory nodes (numa.h) otherwise
 * to the CPUs of a node, the first threads to the first. */
#pragma once

#include <stddef.h>
#include "base/error.h"

struct thread_pool;

enum { THREAD_POOL_MAX = 256 };

typedef void thread_pool_fn(void *context, int thread_index, int n_threads);

/* n_threads >= 1, the caller included; 0 = one per usable CPU (affinity and cgroup quota respected). */
err_t thread_pool_create(int n_threads, struct thread_pool **out) ERR_MUST_CHECK;
void thread_pool_destroy(struct thread_pool *pool);
int thread_pool_size(const struct thread_pool *pool);
/* Memory nodes that threads were placed on; 1 = nothing was placed. Which one, by the kernel's number, thread
 * i is on; non-decreasing in i. */
int thread_pool_node_count(const struct thread_pool *pool);
int thread_pool_node(const struct thread_pool *pool, int thread_index);
/* From the thread that calls thread_pool_run in the long run: puts it where thread 0 belongs. Cheap when it
 * is there, and nothing where there is one node. */
void thread_pool_place_caller(struct thread_pool *pool);
void thread_pool_run(struct thread_pool *pool, thread_pool_fn *fn, void *context);
/* The same for work that any number of threads can divide: on the first n_threads of them, which fn is told.
 */
void thread_pool_share(struct thread_pool *pool, thread_pool_fn *fn, void *context);
/* Within the fn of thread_pool_run: waits until every thread has reached the same barrier. */
void thread_pool_barrier(struct thread_pool *pool);

/* Thread i's share of [0, n): begins and ends on multiples of `grain` (but for n itself). The same split for
 * the same arguments, so that a thread reads the same rows in every run of all of them. */
void thread_split(size_t n, size_t grain, int thread_index, int n_threads, size_t *begin, size_t *end);

/* CPUs that this process may use: affinity mask, lowered by a cgroup CPU quota. At least 1. */
int usable_cpu_count(void);
