#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "tests/scheduler/simulator.h"

/* A sanitizer makes a seed some ten times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { N_SEEDS = 2000 };
#else
enum { N_SEEDS = 10000 };
#endif

static void test_same_seed_same_trace(void **state)
{
    (void)state;
    struct sim_counts counts = {0};
    uint64_t hash_before = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        uint64_t hash = simulate(seed, false, &counts);
        assert_int_equal(hash, simulate(seed, false, &counts));
        assert_int_not_equal(hash, hash_before);
        hash_before = hash;
    }
}

/* Every seed holds, and together they went through everything that can happen. */
static void test_many_seeds(void **state)
{
    (void)state;
    struct sim_counts c = {0};
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++)
        simulate(seed, false, &c);
    assert_true(c.finished > 10 * N_SEEDS && c.finished_early > N_SEEDS);
    assert_true(c.refused_full > 0 && c.refused_too_long > 0);
    assert_true(c.cancelled_waiting > 0 && c.cancelled_running > 0);
    assert_true(c.cancelled_in_flight > 0 && c.cancelled_after_end > 0);
    assert_true(c.preempted > N_SEEDS && c.preempted_in_flight > 0 && c.preempted_paused > 0);
    assert_true(c.results_dropped > 0);
    assert_true(c.paused > 0 && c.cached_positions > N_SEEDS && c.cached_after_preemption > 0);
    assert_true(c.rows_from_slot > N_SEEDS && c.several_tokens > 0 && c.cache_resets > 0);
    assert_true(c.prefixes_stored > N_SEEDS && c.prefixes_removed > N_SEEDS);
}

int main(void)
{
    sim_report_aborts();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_trace),
        cmocka_unit_test(test_many_seeds),
    };
    return cmocka_run_group_tests_name("simulator", tests, NULL, NULL);
}
