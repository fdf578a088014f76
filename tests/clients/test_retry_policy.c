/* When a call is tried again, and the heap of what waits for it: pure, in no time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "clients/c/retry_policy.h"
#include "clients/c/timer_heap.h"

#define MS INT64_C(1000000)

static const struct bantam_retry_options options = {
    .max_attempts = 4, .backoff_ns = 100 * MS, .backoff_max_ns = 300 * MS, .budget = 10, .budget_ratio = 0.5};

static struct retry_facts refused(grpc_status_code code, uint32_t n_attempts)
{
    return (struct retry_facts){.code = code, .n_attempts = n_attempts, .deadline_ns = INT64_MAX};
}

static int64_t delay_of(const struct retry_facts *facts)
{
    struct retry_budget budget = retry_budget_make(&options);
    struct rng rng = rng_make(7);
    return retry_delay_ns(&options, &budget, &rng, facts);
}

static void only_refusals_are_tried_again(void **state)
{
    (void)state;
    for (int code = 0; code <= 16; code++) {
        struct retry_facts facts = refused((grpc_status_code)code, 1);
        bool retried = code == GRPC_STATUS_UNAVAILABLE || code == GRPC_STATUS_CANCELLED;
        assert_int_equal(delay_of(&facts) >= 0, retried);
        facts.has_pushback = true;
        facts.pushback_ms = 5;
        retried = retried || code == GRPC_STATUS_RESOURCE_EXHAUSTED;
        assert_int_equal(delay_of(&facts) >= 0, retried);
        facts.any_message = true;
        assert_int_equal(delay_of(&facts), RETRY_NEVER);
    }
}

static void pushback_rules(void **state)
{
    (void)state;
    struct retry_facts facts = refused(GRPC_STATUS_UNAVAILABLE, 1);
    facts.has_pushback = true;
    facts.pushback_ms = -1;
    assert_int_equal(delay_of(&facts), RETRY_NEVER);
    facts.pushback_ms = 0;
    assert_int_equal(delay_of(&facts), 0);
    facts.pushback_ms = INT64_MAX;
    assert_true(delay_of(&facts) >= 0);
    facts.pushback_ms = 1000;
    struct retry_budget budget = {0};
    struct rng rng = rng_make(1);
    bool differ = false;
    int64_t first_ns = retry_delay_ns(&options, &budget, &rng, &facts);
    for (int i = 0; i < 1000; i++) {
        int64_t delay_ns = retry_delay_ns(&options, &budget, &rng, &facts);
        assert_in_range(delay_ns, 1000 * MS, 1200 * MS); /* never earlier than told */
        differ |= delay_ns != first_ns;
    }
    assert_true(differ);
}

static void backoff_grows_to_its_maximum(void **state)
{
    (void)state;
    struct rng rng = rng_make(3);
    const int64_t tops[] = {100 * MS, 200 * MS, 300 * MS, 300 * MS};
    for (int round = 0; round < 500; round++)
        for (uint32_t i = 0; i < 4; i++)
            assert_in_range(retry_backoff_ns(&options, &rng, i + 1), tops[i] / 2, tops[i]);
    assert_in_range(retry_backoff_ns(&options, &rng, UINT32_MAX), 150 * MS, 300 * MS);
}

static void attempts_and_deadline_bound_it(void **state)
{
    (void)state;
    struct retry_facts facts = refused(GRPC_STATUS_UNAVAILABLE, 3);
    assert_true(delay_of(&facts) >= 0);
    facts.n_attempts = 4;
    assert_int_equal(delay_of(&facts), RETRY_NEVER);
    facts = refused(GRPC_STATUS_UNAVAILABLE, 1);
    facts.has_pushback = true;
    facts.pushback_ms = 100;
    facts.now_ns = 1000 * MS;
    facts.deadline_ns = 1099 * MS;
    assert_int_equal(delay_of(&facts), RETRY_NEVER);
    facts.deadline_ns = 1121 * MS;
    assert_true(delay_of(&facts) >= 100 * MS);
}

/* Ten tokens: five refusals leave half of them, and that is the end until answers give some back. */
static void budget_ends_a_storm(void **state)
{
    (void)state;
    struct retry_budget budget = retry_budget_make(&options);
    struct rng rng = rng_make(5);
    struct retry_facts facts = refused(GRPC_STATUS_UNAVAILABLE, 1);
    for (int i = 0; i < 4; i++)
        assert_true(retry_delay_ns(&options, &budget, &rng, &facts) >= 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(retry_delay_ns(&options, &budget, &rng, &facts), RETRY_OVER_BUDGET);
    for (int i = 0; i < 12; i++)
        retry_budget_give(&budget);
    assert_int_equal(retry_delay_ns(&options, &budget, &rng, &facts), RETRY_OVER_BUDGET);
    for (int i = 0; i < 1000; i++)
        retry_budget_give(&budget);
    assert_true(budget.tokens <= options.budget);
    assert_true(retry_delay_ns(&options, &budget, &rng, &facts) >= 0);
    budget = (struct retry_budget){0}; /* none: no end */
    for (int i = 0; i < 100; i++)
        assert_true(retry_delay_ns(&options, &budget, &rng, &facts) >= 0);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    struct bantam_retry_options bad = options;
    assert_int_equal(retry_options_check(&bad).code, ERR_OK);
    bad.max_attempts = 0;
    assert_int_equal(retry_options_check(&bad).code, ERR_INVALID_ARGUMENT);
    bad.max_attempts = BANTAM_ATTEMPTS_MAX + 1;
    assert_int_equal(retry_options_check(&bad).code, ERR_INVALID_ARGUMENT);
    bad = options;
    bad.backoff_max_ns = bad.backoff_ns - 1;
    assert_int_equal(retry_options_check(&bad).code, ERR_INVALID_ARGUMENT);
    bad = options;
    bad.budget = -1;
    assert_int_equal(retry_options_check(&bad).code, ERR_INVALID_ARGUMENT);
}

static int compare_due(const void *a, const void *b)
{
    const struct timer_node *x = *(struct timer_node *const *)a, *y = *(struct timer_node *const *)b;
    return (x->due_ns > y->due_ns) - (x->due_ns < y->due_ns);
}

/* Whatever is added and removed, what comes out is in order and complete. */
static void heap_is_a_heap(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct timer_node nodes[N];
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rng rng = rng_make(seed);
        struct timer_heap heap = {NULL};
        struct timer_node *live[N];
        size_t n_live = 0;
        for (size_t i = 0; i < N; i++) {
            timer_heap_add(&heap, &nodes[i], rng_below(&rng, 100));
            live[n_live++] = &nodes[i];
            while (n_live > 0 && rng_below(&rng, 3) == 0) {
                size_t at = rng_below(&rng, (uint32_t)n_live);
                timer_heap_remove(&heap, live[at]);
                live[at] = live[--n_live];
            }
        }
        qsort(live, n_live, sizeof live[0], compare_due);
        for (size_t i = 0; i < n_live; i++) {
            assert_non_null(heap.first);
            assert_int_equal(heap.first->due_ns, live[i]->due_ns);
            timer_heap_remove(&heap, heap.first);
        }
        assert_null(heap.first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_refusals_are_tried_again),
        cmocka_unit_test(pushback_rules),
        cmocka_unit_test(backoff_grows_to_its_maximum),
        cmocka_unit_test(attempts_and_deadline_bound_it),
        cmocka_unit_test(budget_ends_a_storm),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(heap_is_a_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
