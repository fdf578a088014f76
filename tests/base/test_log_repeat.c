#include "base/log_repeat.h"
#include "tests/base/cmocka_base.h"

static void test_one_in_an_interval(void **state)
{
    (void)state;
    struct log_repeat repeat = {0};
    uint64_t n_silent = 99;
    assert_true(log_repeat_due(&repeat, 5, &n_silent)); /* the first at once */
    assert_int_equal(n_silent, 0);
    for (int64_t i = 0; i < 1000; i++)
        assert_false(log_repeat_due(&repeat, 5 + i * (LOG_REPEAT_NS / 1000), &n_silent));
    assert_true(log_repeat_due(&repeat, 5 + LOG_REPEAT_NS, &n_silent));
    assert_int_equal(n_silent, 1000);
    assert_false(log_repeat_due(&repeat, 6 + LOG_REPEAT_NS, &n_silent));
    assert_true(log_repeat_due(&repeat, 5 + 3 * LOG_REPEAT_NS, &n_silent));
    assert_int_equal(n_silent, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_in_an_interval)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
