/* Whole nano-dollars, and the cost of calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "router/money/money.h"

static nanodollars dollars(const char *text)
{
    nanodollars amount = -1;
    err_t e = money_parse(text, &amount);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return amount;
}

static void amounts_are_read_exactly(void **state)
{
    (void)state;
    assert_int_equal(dollars("0"), 0);
    assert_int_equal(dollars("3"), 3000000000);
    assert_int_equal(dollars("0.0375"), 37500000);
    assert_int_equal(dollars("0.000000001"), 1);
    assert_int_equal(dollars("007.10"), 7100000000);
    assert_int_equal(dollars("1000000000"), MONEY_MAX);
    const char *BAD[] = {"",
                         "-1",
                         "+1",
                         "1.",
                         ".5",
                         "1e3",
                         "0x1",
                         "$1",
                         "1 ",
                         "0.0000000001",
                         "1000000000.1",
                         "nan",
                         "99999999999999999999",
                         "1,5"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        nanodollars amount;
        assert_int_equal(money_parse(BAD[i], &amount).code, ERR_INVALID_ARGUMENT);
    }
}

static void amounts_are_written_for_people(void **state)
{
    (void)state;
    const struct {
        nanodollars amount;
        const char *text;
    } CASES[] = {
        {0, "$0.00"},
        {1, "$0.000000001"},
        {37500000, "$0.0375"},
        {12 * NANODOLLARS_PER_DOLLAR, "$12.00"},
        {100000000, "$0.10"},
        {-1500000000, "-$1.50"},
        {MONEY_MAX, "$1000000000.00"},
        {INT64_MIN, "-$9223372036.854775808"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[MONEY_TEXT_BYTES];
        money_format(CASES[i].amount, text);
        assert_string_equal(text, CASES[i].text);
    }
}

static void a_call_costs_what_its_tokens_cost(void **state)
{
    (void)state;
    struct price price = {.input = dollars("3"),
                          .cached_input = dollars("0.3"),
                          .cache_write = dollars("3.75"),
                          .output = dollars("15"),
                          .request = dollars("0.01")};
    struct answer_usage usage = {.input_tokens = 1000,
                                 .cached_tokens = 600,
                                 .cache_write_tokens = 100,
                                 .output_tokens = 200,
                                 .reasoning_tokens = -1};
    nanodollars cost;
    assert_true(price_cost(&price, &usage, &cost));
    /* 300 x 3 + 600 x 0.3 + 100 x 3.75 + 200 x 15 millionths of a dollar, and a cent. */
    assert_int_equal(cost, 900000 + 180000 + 375000 + 3000000 + 10000000);

    price.cached_input = price.cache_write = -1;
    assert_true(price_cost(&price, &usage, &cost));
    assert_int_equal(cost, 3000000 + 3000000 + 10000000);
    usage.cached_tokens = 5000; /* more than there were */
    assert_true(price_cost(&price, &usage, &cost));
    assert_int_equal(cost, 3000000 + 3000000 + 10000000);
}

static void a_cost_is_rounded_up_once(void **state)
{
    (void)state;
    struct price price = {.input = 1, .cached_input = -1, .cache_write = -1, .output = 1};
    struct answer_usage usage = {1, -1, -1, 1, -1};
    nanodollars cost;
    assert_true(price_cost(&price, &usage, &cost));
    assert_int_equal(cost, 1);
    usage = (struct answer_usage){0, 0, 0, 0, 0};
    assert_true(price_cost(&price, &usage, &cost));
    assert_int_equal(cost, 0);
    price.input = price.output = MONEY_MAX;
    usage = (struct answer_usage){INT64_MAX, -1, -1, INT64_MAX, -1};
    assert_true(price_cost(&price, &usage, &cost));
    assert_int_equal(cost, MONEY_MAX);
}

static void a_missing_count_is_not_nought(void **state)
{
    (void)state;
    struct price price = {.input = 1, .output = 1};
    nanodollars cost;
    assert_false(price_cost(&price, &(struct answer_usage){-1, -1, -1, 5, -1}, &cost));
    assert_false(price_cost(&price, &(struct answer_usage){5, -1, -1, -1, -1}, &cost));
}

static void an_estimate_is_never_below_the_cost(void **state)
{
    (void)state;
    struct price price = {.input = dollars("3"),
                          .cached_input = dollars("0.3"),
                          .cache_write = dollars("3.75"),
                          .output = dollars("15"),
                          .request = 7};
    nanodollars estimate = price_estimate(&price, 1000, 200);
    for (int64_t cached = 0; cached <= 1000; cached += 100) {
        for (int64_t written = 0; written <= 1000 - cached; written += 100) {
            nanodollars cost;
            assert_true(price_cost(&price, &(struct answer_usage){1000, cached, written, 200, 0}, &cost));
            assert_true(cost <= estimate);
        }
    }
    assert_int_equal(price_estimate(&price, UINT64_MAX, UINT64_MAX), MONEY_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amounts_are_read_exactly),
        cmocka_unit_test(amounts_are_written_for_people),
        cmocka_unit_test(a_call_costs_what_its_tokens_cost),
        cmocka_unit_test(a_cost_is_rounded_up_once),
        cmocka_unit_test(a_missing_count_is_not_nought),
        cmocka_unit_test(an_estimate_is_never_below_the_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
