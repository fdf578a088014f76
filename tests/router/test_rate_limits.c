/* What a provider says of its limits, and how long it is left alone for that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "router/providers/rate_limits.h"

#define MS INT64_C(1000000)

static struct egress_head told(enum egress_rate_kind kind, int64_t remaining, int64_t reset_ms)
{
    struct egress_head head = {.status = 200};
    for (int i = 0; i < EGRESS_RATES; i++)
        head.rates[i] = (struct egress_rate){-1, -1};
    head.rates[kind] = (struct egress_rate){remaining, reset_ms};
    return head;
}

static void nothing_is_known_at_first(void **state)
{
    (void)state;
    struct rate_limits limits;
    rate_limits_open(&limits);
    for (int i = 0; i < EGRESS_RATES; i++)
        assert_int_equal(limits.remaining[i], -1);
    assert_int_equal(rate_limits_wait_ns(&limits, 5 * MS), 0);
}

static void what_is_used_up_is_waited_for(void **state)
{
    (void)state;
    struct rate_limits limits;
    rate_limits_open(&limits);
    struct egress_head head = told(EGRESS_TOKENS, 0, 40);
    rate_limits_take(&limits, &head, 100 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 110 * MS), 30 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 140 * MS), 0);
    head = told(EGRESS_REQUESTS, 0, 10); /* the later one counts, whichever is told last */
    rate_limits_take(&limits, &head, 110 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 110 * MS), 30 * MS);
    head = told(EGRESS_REQUESTS, 7, 10); /* says nothing of tokens */
    rate_limits_take(&limits, &head, 110 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 110 * MS), 30 * MS);
    head = told(EGRESS_TOKENS, 1, 40); /* another answer knows better */
    rate_limits_take(&limits, &head, 110 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 110 * MS), 0);
    assert_int_equal(limits.remaining[EGRESS_TOKENS], 1);
    assert_int_equal(limits.remaining[EGRESS_REQUESTS], 7);
}

static void without_a_time_there_is_no_waiting(void **state)
{
    (void)state;
    struct rate_limits limits;
    rate_limits_open(&limits);
    struct egress_head head = told(EGRESS_REQUESTS, 0, -1);
    rate_limits_take(&limits, &head, 100 * MS);
    assert_int_equal(limits.remaining[EGRESS_REQUESTS], 0);
    assert_int_equal(rate_limits_wait_ns(&limits, 100 * MS), 0);
    head = told(EGRESS_REQUESTS, -1, 50); /* a reset alone */
    rate_limits_take(&limits, &head, 100 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 100 * MS), 0);
}

static void who_asks_to_be_left_alone_is(void **state)
{
    (void)state;
    struct rate_limits limits;
    rate_limits_open(&limits);
    rate_limits_leave_alone(&limits, 50 * MS, 100 * MS);
    rate_limits_leave_alone(&limits, 10 * MS, 110 * MS);    /* does not take it back */
    struct egress_head head = told(EGRESS_REQUESTS, 9, 10); /* nor does this */
    rate_limits_take(&limits, &head, 110 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 110 * MS), 40 * MS);
    assert_int_equal(rate_limits_wait_ns(&limits, 150 * MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_at_first),
        cmocka_unit_test(what_is_used_up_is_waited_for),
        cmocka_unit_test(without_a_time_there_is_no_waiting),
        cmocka_unit_test(who_asks_to_be_left_alone_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
