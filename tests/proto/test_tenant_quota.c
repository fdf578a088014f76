/* Quotas in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "proto/tenant_quota.h"

#define SECOND_NS INT64_C(1000000000)
#define MINUTE_NS (60 * SECOND_NS)

static bool admit(struct tenant_quota *quota, const struct tenant_limits *limits, int64_t now_ns)
{
    struct quota_refusal refusal;
    return quota_admit(quota, limits, 0, now_ns, &refusal);
}

static void no_limit_lets_everything_in(void **state)
{
    (void)state;
    struct tenant_limits limits = {0};
    struct tenant_quota quota = {0};
    for (int i = 0; i < 10000; i++)
        assert_true(admit(&quota, &limits, 0));
    quota_charge(&quota, &limits, INT64_MAX, 0);
    assert_true(admit(&quota, &limits, 0));
    assert_int_equal(quota_view_requests(&quota, &limits, 0).limit, 0);
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).limit, 0);
}

static void concurrent_requests_are_counted(void **state)
{
    (void)state;
    struct tenant_limits limits = {.max_concurrent = 2};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    assert_true(admit(&quota, &limits, 0));
    assert_true(admit(&quota, &limits, 0));
    assert_false(quota_admit(&quota, &limits, 0, 0, &refusal));
    assert_int_equal(refusal.kind, QUOTA_CONCURRENT);
    assert_int_equal(refusal.retry_after_ns, 0);
    quota_leave(&quota);
    assert_true(admit(&quota, &limits, 0));
    assert_false(admit(&quota, &limits, 100 * MINUTE_NS));
}

static void requests_come_back_steadily(void **state)
{
    (void)state;
    struct tenant_limits limits = {.requests_per_minute = 6};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    int64_t now_ns = 77; /* any start */
    for (int i = 0; i < 6; i++)
        assert_true(admit(&quota, &limits, now_ns));
    for (int i = 0; i < 100; i++) { /* being refused costs nothing */
        assert_false(quota_admit(&quota, &limits, 0, now_ns, &refusal));
        assert_int_equal(refusal.kind, QUOTA_REQUESTS);
        assert_int_equal(refusal.retry_after_ns, 10 * SECOND_NS);
    }
    assert_false(admit(&quota, &limits, now_ns + 10 * SECOND_NS - 1));
    assert_true(admit(&quota, &limits, now_ns + 10 * SECOND_NS));
    assert_false(admit(&quota, &limits, now_ns + 10 * SECOND_NS));
    /* A long pause gives a minute's worth and no more. */
    now_ns += 1000 * MINUTE_NS;
    for (int i = 0; i < 6; i++)
        assert_true(admit(&quota, &limits, now_ns));
    assert_false(admit(&quota, &limits, now_ns));
}

static void debt_of_tokens_is_waited_for(void **state)
{
    (void)state;
    struct tenant_limits limits = {.tokens_per_minute = 600};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    assert_true(quota_admit(&quota, &limits, 100, 0, &refusal));
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).remaining, 500);
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).reset_ns, 10 * SECOND_NS);
    quota_charge(&quota, &limits, 700, 0); /* more than there is: 200 of debt */
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).remaining, 0);
    assert_false(quota_admit(&quota, &limits, 0, 0, &refusal));
    assert_int_equal(refusal.kind, QUOTA_TOKENS);
    assert_int_equal(refusal.retry_after_ns, 201 * SECOND_NS / 10);
    assert_false(admit(&quota, &limits, 201 * SECOND_NS / 10 - 1));
    assert_true(admit(&quota, &limits, 201 * SECOND_NS / 10));
}

/* Whatever is asked, in an hour nobody gets more than the rate, and a tenant that always asks gets all of it.
 */
static void a_rate_is_kept_over_time(void **state)
{
    (void)state;
    struct tenant_limits limits = {.requests_per_minute = 90, .tokens_per_minute = 6000};
    struct tenant_quota quota = {0};
    int64_t n_tokens = 0, n_requests = 0, hour_ns = 60 * MINUTE_NS;
    for (int64_t now_ns = 0; now_ns < hour_ns; now_ns += SECOND_NS / 20) {
        struct quota_refusal refusal;
        if (!quota_admit(&quota, &limits, 50, now_ns, &refusal))
            continue;
        n_requests++;
        n_tokens += 50 + n_requests % 100;
        quota_charge(&quota, &limits, n_requests % 100, now_ns);
        quota_leave(&quota);
    }
    assert_in_range(n_tokens, 60 * 6000, 61 * 6000 + 150);
    assert_true(n_requests <= 61 * 90);
}

static void what_was_not_served_is_given_back(void **state)
{
    (void)state;
    struct tenant_limits limits = {.max_concurrent = 1, .requests_per_minute = 1, .tokens_per_minute = 10};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    for (int i = 0; i < 5; i++) {
        assert_true(quota_admit(&quota, &limits, 300, 0, &refusal));
        quota_withdraw(&quota, &limits, 300, 0);
    }
    assert_int_equal(quota_view_requests(&quota, &limits, 0).remaining, 1);
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).remaining, 10);
    /* Never more than full. */
    quota_charge(&quota, &limits, -1000, 0);
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).remaining, 10);
}

static void extremes_stay_in_range(void **state)
{
    (void)state;
    struct tenant_limits limits = {QUOTA_CONCURRENT_MAX, QUOTA_REQUESTS_MAX, QUOTA_TOKENS_MAX};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    assert_true(quota_admit(&quota, &limits, UINT64_MAX, 0, &refusal));
    for (int i = 0; i < 10; i++)
        quota_charge(&quota, &limits, INT64_MAX, i);
    assert_false(quota_admit(&quota, &limits, 0, 10, &refusal));
    assert_true(refusal.retry_after_ns > 0 && refusal.retry_after_ns <= 11 * MINUTE_NS);
    assert_true(quota_admit(&quota, &limits, 0, INT64_MAX, &refusal));
    quota_charge(&quota, &limits, -INT64_MAX, INT64_MAX);
    assert_int_equal(quota_view_tokens(&quota, &limits, INT64_MAX).remaining, QUOTA_TOKENS_MAX);
    /* A clock that another thread has read earlier takes nothing away. */
    assert_int_equal(quota_view_tokens(&quota, &limits, 0).remaining, QUOTA_TOKENS_MAX);
    /* A debt is forgiven in part: small rates come back after minutes, not years. */
    struct tenant_limits small = {.tokens_per_minute = 1};
    struct tenant_quota poor = {0};
    quota_charge(&poor, &small, 1000000, 0);
    assert_false(quota_admit(&poor, &small, 0, 0, &refusal));
    assert_int_equal(refusal.retry_after_ns, 11 * MINUTE_NS);
}

/* Calls that compute nothing share the rate of requests, and nothing else. */
static void calls_are_requests_alone(void **state)
{
    (void)state;
    struct tenant_limits limits = {.max_concurrent = 1, .requests_per_minute = 4, .tokens_per_minute = 10};
    struct tenant_quota quota = {0};
    struct quota_refusal refusal;
    assert_true(admit(&quota, &limits, 0));
    quota_charge(&quota, &limits, 25, 0);
    for (int i = 0; i < 3; i++) /* beside a request, and in debt */
        assert_true(quota_admit_call(&quota, &limits, 0, &refusal));
    assert_false(quota_admit_call(&quota, &limits, 0, &refusal));
    assert_int_equal(refusal.kind, QUOTA_REQUESTS);
    assert_int_equal(refusal.retry_after_ns, 15 * SECOND_NS);
    assert_true(quota_admit_call(&quota, &limits, 15 * SECOND_NS, &refusal));
    quota_leave(&quota); /* the request's place: calls took none */
    assert_int_equal(quota.n_running, 0);
    struct tenant_limits none = {0};
    for (int i = 0; i < 1000; i++)
        assert_true(quota_admit_call(&quota, &none, 0, &refusal));
}

static void limits_may_change(void **state)
{
    (void)state;
    struct tenant_limits before = {.requests_per_minute = 100}, after = {.requests_per_minute = 2};
    struct tenant_quota quota = {0};
    assert_true(admit(&quota, &before, 0));
    assert_true(admit(&quota, &after, 1));
    assert_true(admit(&quota, &after, 1));
    assert_false(admit(&quota, &after, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_limit_lets_everything_in), cmocka_unit_test(concurrent_requests_are_counted),
        cmocka_unit_test(requests_come_back_steadily), cmocka_unit_test(debt_of_tokens_is_waited_for),
        cmocka_unit_test(a_rate_is_kept_over_time),    cmocka_unit_test(what_was_not_served_is_given_back),
        cmocka_unit_test(extremes_stay_in_range),      cmocka_unit_test(limits_may_change),
        cmocka_unit_test(calls_are_requests_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
