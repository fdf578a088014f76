#include <dirent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/spin_barrier.h"
#include "base/thread_pool.h"
#include "tests/base/cmocka_base.h"

enum { N_RUNS = 2000, N_PHASES = 200, MAX_TESTED = 8 };

struct counters {
    struct thread_pool *pool;
    int calls[MAX_TESTED]; /* each written by its own thread: TSan sees a missing hand-over */
    int phase[MAX_TESTED];
    int n_bad;
};

static void count_call(void *context, int thread_index, int n_threads)
{
    struct counters *counters = context;
    if (n_threads == thread_pool_size(counters->pool))
        counters->calls[thread_index]++;
}

static void test_each_thread_runs_once(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, MAX_TESTED};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct counters counters = {.n_bad = 0};
        assert_error(ERR_OK, thread_pool_create(sizes[s], &counters.pool));
        assert_int_equal(thread_pool_size(counters.pool), sizes[s]);
        for (int run = 1; run <= N_RUNS; run++) {
            thread_pool_run(counters.pool, count_call, &counters);
            for (int i = 0; i < sizes[s]; i++)
                assert_int_equal(counters.calls[i], run);
        }
        thread_pool_destroy(counters.pool);
    }
}

/* Every thread writes its phase, and after a barrier reads everybody's. */
static void walk_phases(void *context, int thread_index, int n_threads)
{
    struct counters *counters = context;
    int n_bad = 0;
    for (int phase = 1; phase <= N_PHASES; phase++) {
        counters->phase[thread_index] = phase;
        thread_pool_barrier(counters->pool);
        for (int i = 0; i < n_threads; i++)
            n_bad += counters->phase[i] != phase;
        thread_pool_barrier(counters->pool);
    }
    if (n_bad > 0)
        __atomic_fetch_add(&counters->n_bad, n_bad, __ATOMIC_RELAXED);
}

static void test_barrier(void **state)
{
    (void)state;
    for (int size = 1; size <= 4; size++) {
        struct counters counters = {.n_bad = 0};
        assert_error(ERR_OK, thread_pool_create(size, &counters.pool));
        for (int run = 0; run < 5; run++)
            thread_pool_run(counters.pool, walk_phases, &counters);
        assert_int_equal(counters.n_bad, 0);
        thread_pool_destroy(counters.pool);
    }
}

static void test_bad_sizes(void **state)
{
    (void)state;
    struct thread_pool *pool;
    assert_error(ERR_INVALID_ARGUMENT, thread_pool_create(-1, &pool));
    assert_null(pool);
    assert_error(ERR_INVALID_ARGUMENT, thread_pool_create(THREAD_POOL_MAX + 1, &pool));
    assert_null(pool);
    thread_pool_destroy(NULL);
}

static void test_zero_means_one_per_cpu(void **state)
{
    (void)state;
    struct thread_pool *pool;
    assert_error(ERR_OK, thread_pool_create(0, &pool));
    int n_cpus = usable_cpu_count();
    assert_int_equal(thread_pool_size(pool), n_cpus < THREAD_POOL_MAX ? n_cpus : THREAD_POOL_MAX);
    thread_pool_destroy(pool);
}

static void test_cpu_count_follows_the_affinity_mask(void **state)
{
    (void)state;
    cpu_set_t before, one;
    if (sched_getaffinity(0, sizeof before, &before) != 0)
        skip();
    assert_in_range(usable_cpu_count(), 1, CPU_COUNT(&before));
    int first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(usable_cpu_count(), 1);
    /* More threads than CPUs still work, without spinning. */
    struct counters counters = {.n_bad = 0};
    assert_error(ERR_OK, thread_pool_create(3, &counters.pool));
    for (int run = 0; run < 50; run++)
        thread_pool_run(counters.pool, walk_phases, &counters);
    assert_int_equal(counters.n_bad, 0);
    thread_pool_destroy(counters.pool);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

/* Without memory: an error, no leak; allocations that only help to count CPUs may fail unnoticed. */
static void test_creation_without_memory(void **state)
{
    (void)state;
    int n_failed = 0;
    for (int nth = 0; nth < 16; nth++) {
        struct thread_pool *pool;
        mem_fail_nth(nth);
        err_t e = thread_pool_create(2, &pool);
        mem_fail_nth(-1);
        if (e.code == ERR_OK) {
            thread_pool_destroy(pool);
            continue;
        }
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        assert_null(pool);
        n_failed++;
    }
    assert_true(n_failed > 0);
}

/* Number of this process's threads with the pool's name in the given state, from /proc. */
static int count_workers(char wanted_state)
{
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    int n_found = 0;
    for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        char path[320], line[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *file = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (file == NULL)
            continue;
        const char *end = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
        n_found += end != NULL && strstr(line, "(bantam-") != NULL && end[2] == wanted_state;
        fclose(file);
    }
    closedir(tasks);
    return n_found;
}

/* Two threads: where there are two CPUs, a pool that spins. */
static void test_idle_workers_sleep(void **state)
{
    (void)state;
    struct counters counters = {.n_bad = 0};
    assert_error(ERR_OK, thread_pool_create(2, &counters.pool));
    thread_pool_run(counters.pool, count_call, &counters);
    int64_t deadline_ns = clock_now_ns(clock_monotonic()) + (int64_t)300 * 1000000000;
    while (count_workers('S') < 1) {
        assert_true(clock_now_ns(clock_monotonic()) < deadline_ns);
        sched_yield();
    }
    /* And wake again. */
    thread_pool_run(counters.pool, count_call, &counters);
    assert_int_equal(counters.calls[1], 2);
    thread_pool_destroy(counters.pool);
    /* Before that it spins, unless the thread that it waits for may need its CPU. */
    assert_true(spin_time_ns(2, 2) > 0 && spin_time_ns(2, 2) <= 1000000);
    assert_int_equal(spin_time_ns(3, 2), 0);
}

/* A run of thread_pool_share in which one thread takes long beside the others. */
struct shared {
    int n_threads; /* of the run, as thread 0 was told */
    int calls[MAX_TESTED], told[MAX_TESTED];
    int stalled; /* that thread; 0: none */
};

static void take_part(void *context, int thread_index, int n_threads)
{
    struct shared *shared = context;
    shared->calls[thread_index]++;
    shared->told[thread_index] = n_threads;
    if (thread_index == 0)
        shared->n_threads = n_threads;
    bool stalls = thread_index > 0 && thread_index == shared->stalled;
    int64_t until_ns = stalls ? clock_now_ns(clock_monotonic()) + 200 * 1000 : 0;
    while (clock_now_ns(clock_monotonic()) < until_ns) {
    }
}

/* Each of the first n_threads once, and nobody else. */
static void share_once(struct thread_pool *pool, struct shared *shared, bool with_all)
{
    memset(shared->calls, 0, sizeof shared->calls);
    if (with_all)
        thread_pool_run(pool, take_part, shared);
    else
        thread_pool_share(pool, take_part, shared);
    assert_in_range(shared->n_threads, with_all ? thread_pool_size(pool) : 1, thread_pool_size(pool));
    for (int i = 0; i < MAX_TESTED; i++) {
        assert_int_equal(shared->calls[i], i < shared->n_threads);
        assert_true(i >= shared->n_threads || shared->told[i] == shared->n_threads);
    }
}

/* Stalled by the last thread until it is left out, with runs of all in between; then free until one comes
 * back. */
static void test_who_stalls_is_left_out(void **state)
{
    (void)state;
    for (int size = 2; size <= 4; size++) {
        struct thread_pool *pool;
        struct shared shared = {.stalled = size - 1, .n_threads = size};
        assert_error(ERR_OK, thread_pool_create(size, &pool));
        for (int i = 0; shared.n_threads == size; i++) {
            assert_true(i < 200000); /* some hundred times what it takes */
            if (i % 100 == 99)
                share_once(pool, &shared, true);
            share_once(pool, &shared, false);
        }
        shared.stalled = 0;
        for (int before = size; shared.n_threads <= before;) {
            before = shared.n_threads;
            share_once(pool, &shared, false);
        }
        share_once(pool, &shared, true);
        thread_pool_destroy(pool);
    }
}

/* The shares cover [0, n) in order without gaps, begin on grains, and differ by one grain at most. */
static void test_split(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 15, 16, 17, 100, 1000, 4096, SIZE_MAX};
    static const size_t grains[] = {1, 3, 16, 64};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t g = 0; g < sizeof grains / sizeof grains[0]; g++) {
            for (int n_threads = 1; n_threads <= 20; n_threads++) {
                size_t expected_begin = 0, least = SIZE_MAX, most = 0;
                for (int i = 0; i < n_threads; i++) {
                    size_t begin, end;
                    thread_split(sizes[s], grains[g], i, n_threads, &begin, &end);
                    assert_true(begin == expected_begin && begin <= end);
                    assert_true(begin % grains[g] == 0 || begin == sizes[s]);
                    expected_begin = end;
                    size_t n_grains = (end - begin) / grains[g] + ((end - begin) % grains[g] != 0);
                    least = n_grains < least ? n_grains : least;
                    most = n_grains > most ? n_grains : most;
                }
                assert_true(expected_begin == sizes[s]);
                assert_true(most - least <= 1);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_thread_runs_once),
        cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_bad_sizes),
        cmocka_unit_test(test_zero_means_one_per_cpu),
        cmocka_unit_test(test_cpu_count_follows_the_affinity_mask),
        cmocka_unit_test(test_creation_without_memory),
        cmocka_unit_test(test_idle_workers_sleep),
        cmocka_unit_test(test_who_stalls_is_left_out),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
