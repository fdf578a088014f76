/* The breaker in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "router/providers/circuit_breaker.h"

#define SECOND_NS INT64_C(1000000000)

static const struct breaker_options OPTIONS = {
    .failures_to_open = 3, .successes_to_close = 2, .open_ns = 30 * SECOND_NS};

static void fail_once(struct circuit_breaker *breaker, int64_t now_ns)
{
    uint64_t ticket = breaker_ask(breaker, now_ns);
    assert_true(ticket != 0);
    breaker_failed(breaker, ticket, &OPTIONS, now_ns, 0);
}

static void succeed_once(struct circuit_breaker *breaker, int64_t now_ns)
{
    uint64_t ticket = breaker_ask(breaker, now_ns);
    assert_true(ticket != 0);
    breaker_succeeded(breaker, ticket, &OPTIONS);
}

static void failures_in_a_row_open_it(void **state)
{
    (void)state;
    struct circuit_breaker breaker = {0};
    for (int i = 0; i < 10; i++) { /* never three in a row */
        fail_once(&breaker, 0);
        fail_once(&breaker, 0);
        succeed_once(&breaker, 0);
    }
    for (int i = 0; i < 3; i++)
        fail_once(&breaker, 5 * SECOND_NS);
    assert_int_equal(breaker_state_at(&breaker, 5 * SECOND_NS), BREAKER_OPEN);
    assert_false(breaker_ask(&breaker, 35 * SECOND_NS - 1));
    assert_int_equal(breaker.n_opened, 1);
}

static struct circuit_breaker opened_at_zero(void)
{
    struct circuit_breaker breaker = {0};
    for (int i = 0; i < 3; i++)
        fail_once(&breaker, 0);
    return breaker;
}

static void one_call_at_a_time_tries_again(void **state)
{
    (void)state;
    struct circuit_breaker breaker = opened_at_zero();
    int64_t now_ns = 30 * SECOND_NS;
    assert_int_equal(breaker_state_at(&breaker, now_ns), BREAKER_HALF_OPEN);
    uint64_t ticket = breaker_ask(&breaker, now_ns);
    assert_true(ticket != 0 && breaker_ask(&breaker, now_ns) == 0);
    breaker_succeeded(&breaker, ticket, &OPTIONS);
    assert_int_equal(breaker_state_at(&breaker, now_ns), BREAKER_HALF_OPEN);
    succeed_once(&breaker, now_ns);
    assert_int_equal(breaker_state_at(&breaker, now_ns), BREAKER_CLOSED);
    assert_true(breaker_ask(&breaker, now_ns) != 0 && breaker_ask(&breaker, now_ns) != 0);
}

static void a_try_that_fails_opens_it_again(void **state)
{
    (void)state;
    struct circuit_breaker breaker = opened_at_zero();
    fail_once(&breaker, 40 * SECOND_NS);
    assert_false(breaker_ask(&breaker, 70 * SECOND_NS - 1));
    assert_int_equal(breaker.n_opened, 2);
    /* A try whose client left says nothing: the next one tries. */
    uint64_t ticket = breaker_ask(&breaker, 70 * SECOND_NS);
    assert_true(ticket != 0);
    breaker_gave_up(&breaker, ticket);
    succeed_once(&breaker, 70 * SECOND_NS);
    fail_once(&breaker, 71 * SECOND_NS); /* one success is not enough, and does not count later */
    succeed_once(&breaker, 101 * SECOND_NS);
    assert_int_equal(breaker_state_at(&breaker, 101 * SECOND_NS), BREAKER_HALF_OPEN);
}

static void another_upstream_begins_closed(void **state)
{
    (void)state;
    struct circuit_breaker breaker = {0};
    uint64_t early = breaker_ask(&breaker, 0);
    for (int i = 0; i < 3; i++)
        fail_once(&breaker, 0);
    assert_int_equal(breaker_ask(&breaker, 1), 0);
    uint64_t last_one = breaker.n_opened + 1;
    breaker_forget(&breaker);
    assert_int_equal(breaker_state_at(&breaker, 1), BREAKER_CLOSED);
    for (int i = 0; i < 10; i++) { /* what is heard of the last one says nothing of this one */
        breaker_failed(&breaker, early, &OPTIONS, 1, 0);
        breaker_failed(&breaker, last_one, &OPTIONS, 1, 0);
    }
    assert_int_equal(breaker_state_at(&breaker, 1), BREAKER_CLOSED);
    for (int i = 0; i < 3; i++)
        fail_once(&breaker, 1);
    assert_int_equal(breaker_state_at(&breaker, 1), BREAKER_OPEN);
}

static void nothing_shortens_the_time_it_is_open(void **state)
{
    (void)state;
    struct circuit_breaker breaker = {0};
    for (int i = 0; i < 2; i++)
        fail_once(&breaker, 0);
    uint64_t early = breaker_ask(&breaker, 0), ticket = breaker_ask(&breaker, 0);
    breaker_failed(&breaker, ticket, &OPTIONS, 0, 100 * SECOND_NS);
    /* A call that went out before it opened comes back now, in whatever way. */
    breaker_failed(&breaker, early, &OPTIONS, SECOND_NS, 0);
    breaker_succeeded(&breaker, early, &OPTIONS);
    breaker_gave_up(&breaker, early);
    assert_false(breaker_ask(&breaker, 100 * SECOND_NS - 1));
    ticket = breaker_ask(&breaker, 100 * SECOND_NS);
    assert_true(ticket != 0);
    breaker_succeeded(&breaker, early, &OPTIONS);
    breaker_gave_up(&breaker, early);
    assert_false(breaker_ask(&breaker, 100 * SECOND_NS));
    breaker_failed(&breaker, ticket, &OPTIONS, 100 * SECOND_NS, INT64_MAX);
    assert_false(breaker_ask(&breaker, INT64_MAX - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_in_a_row_open_it),
        cmocka_unit_test(one_call_at_a_time_tries_again),
        cmocka_unit_test(a_try_that_fails_opens_it_again),
        cmocka_unit_test(another_upstream_begins_closed),
        cmocka_unit_test(nothing_shortens_the_time_it_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
