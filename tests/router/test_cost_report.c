/* Cost reports: sums, what the frontier would have cost, estimates, volumes, and both forms. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "router/money/cost_report.h"

#define DOLLAR NANODOLLARS_PER_DOLLAR

/* 2 $ a million tokens read, 8 $ written. */
static const struct cost_options FRONTIER = {.frontier_provider = "openai",
                                             .frontier_model = "big",
                                             .frontier = {2 * DOLLAR, -1, -1, 8 * DOLLAR, 0},
                                             .has_frontier = true};

static struct cost_report report_of(const struct cost_options *options)
{
    return (struct cost_report){.options = *options, .e = err_ok()};
}

static void give(struct cost_report *report, const char *tenant, const char *provider, const char *model,
                 uint64_t n_calls, uint64_t n_unknown, nanodollars cost)
{
    struct ledger_line line = {.day = "2026-11-27",
                               .tenant = tenant,
                               .provider = provider,
                               .model = model,
                               .n_calls = n_calls,
                               .n_unknown = n_unknown,
                               .n_uncounted = n_unknown,
                               .input_tokens = 1000 * n_calls,
                               .output_tokens = 100 * n_calls,
                               .cost = cost};
    cost_report_line(report, &line);
}

static void the_frontier_is_reckoned_from_tokens(void **state)
{
    (void)state;
    struct cost_report report = report_of(&FRONTIER);
    give(&report, "hr", "local", "demo", 90, 0, DOLLAR / 100);
    give(&report, "hr", "openai", "big", 10, 0, DOLLAR / 2); /* its own cost stands */
    give(&report, "hr", "openai", "other", 1, 0, DOLLAR);
    assert_int_equal(report.lines[0].sum.frontier, 90 * (1000 * 2000 + 100 * 8000));
    assert_int_equal(report.lines[1].sum.frontier, DOLLAR / 2);
    assert_int_equal(report.lines[2].sum.frontier, 1000 * 2000 + 100 * 8000);
    assert_int_equal(report.total.n_calls, 101);
    assert_int_equal(report.total.cost, DOLLAR / 100 + DOLLAR / 2 + DOLLAR);
    cost_report_free(&report);

    struct cost_options each = FRONTIER;
    each.frontier.request = 5;
    report = report_of(&each);
    give(&report, "hr", "local", "demo", 90, 10, 0); /* 80 that are known */
    assert_int_equal(report.total.frontier, 90 * (1000 * 2000 + 100 * 8000) + 80 * 5);
    cost_report_free(&report);
}

static void volumes_are_of_the_same_mix(void **state)
{
    (void)state;
    struct cost_sum sum = {.n_calls = 3};
    assert_int_equal(cost_of_volume(&sum, 10, 10000), 33333);
    assert_int_equal(cost_of_volume(&sum, MONEY_MAX, 10000000), MONEY_MAX);
    sum.n_calls = 0;
    assert_int_equal(cost_of_volume(&sum, 0, 10000), 0);
}

static void assert_table(const struct cost_report *report, const char *expected)
{
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(cost_report_table(report, &text).code, ERR_OK);
    assert_string_equal(text.data, expected);
    buffer_free(&text);
}

static void a_table_says_what_is_an_estimate(void **state)
{
    (void)state;
    struct cost_options options = FRONTIER;
    options.engine_per_day = 96 * DOLLAR / 10;
    struct cost_report report = report_of(&options);
    give(&report, "", "local", "demo", 90, 0, DOLLAR / 100);
    give(&report, "hr", "openai", "big", 10, 2, DOLLAR / 2);
    assert_table(
        &report,
        "day         tenant  answered by  calls   input  output      cost  frontier alone     saved\n"
        "2026-11-27  -       local/demo      90   90000    9000   $0.0100         $0.2520   $0.2420\n"
        "2026-11-27  hr      openai/big      10   10000    1000  ~$0.5000        ~$0.5000  ~$0.0000\n"
        "total                              100  100000   10000  ~$0.5100        ~$0.7520  ~$0.2420\n"
        "\nA day of as many calls of this mix:\n"
        "       calls              cost    frontier alone             saved\n"
        "       10000         ~$51.0000         ~$75.2000         ~$24.2000\n"
        "      100000        ~$510.0000        ~$752.0000        ~$242.0000\n"
        "     1000000       ~$5100.0000       ~$7520.0000       ~$2420.0000\n"
        "    10000000      ~$51000.0000      ~$75200.0000      ~$24200.0000\n"
        "\n~ has estimates in it: of 2 calls nobody has told the cost.\n"
        "Of 2 calls nobody has told the tokens: the frontier alone would have cost more.\n"
        "Local calls are charged for the time that they took; engines that run all day cost $9.6000 a day in "
        "any case.\n");
    cost_report_free(&report);
}

static void a_table_without_a_frontier_compares_nothing(void **state)
{
    (void)state;
    struct cost_report report = report_of(&(struct cost_options){.tenant = "hr"});
    assert_table(&report, "There is no call in these days.\n");
    give(&report, "it", "openai", "big", 10, 0, DOLLAR);
    give(&report, "hr", "openai", "big", 10, 0, DOLLAR);
    assert_int_equal(report.n_lines, 1);
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(cost_report_table(&report, &text).code, ERR_OK);
    assert_null(strstr(text.data, "saved"));
    assert_null(strstr(text.data, " \n"));
    assert_non_null(strstr(text.data, "Nothing is compared"));
    buffer_free(&text);
    struct buffer small = {.limit_bytes = 100};
    assert_int_equal(cost_report_table(&report, &small).code, ERR_RESOURCE_EXHAUSTED);
    buffer_free(&small);
    cost_report_free(&report);
}

static void json_has_whole_numbers(void **state)
{
    (void)state;
    struct cost_report report = report_of(&FRONTIER);
    give(&report, "a\"b", "local", "demo", 90, 1, DOLLAR / 100);
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(cost_report_json(&report, &text).code, ERR_OK);
    json_t *all = json_loadb(text.data, text.size, 0, NULL);
    const char *tenant;
    json_int_t cost, frontier, saved, estimated, volume, then;
    assert_int_equal(json_unpack(all, "{s:[{s:s,s:I,s:I}],s:{s:I,s:I},s:[*]}", "lines", "tenant", &tenant,
                                 "cost_nanodollars", &cost, "calls_with_estimated_cost", &estimated, "total",
                                 "frontier_nanodollars", &frontier, "saved_nanodollars", &saved,
                                 "projection"),
                     0);
    assert_string_equal(tenant, "a\"b");
    assert_int_equal(cost, DOLLAR / 100);
    assert_int_equal(estimated, 1);
    assert_int_equal(frontier - saved, cost);
    json_t *volumes = json_object_get(all, "projection");
    assert_int_equal(json_array_size(volumes), COST_VOLUMES);
    assert_int_equal(json_unpack(json_array_get(volumes, 3), "{s:I,s:I}", "calls_per_day", &volume,
                                 "frontier_nanodollars", &then),
                     0);
    assert_int_equal(volume, 10000000);
    assert_int_equal(then, 10000000 * (frontier / 90));
    json_decref(all);
    buffer_free(&text);
    cost_report_free(&report);
}

static void too_many_lines_are_refused(void **state)
{
    (void)state;
    struct cost_report report = report_of(&FRONTIER);
    for (int i = 0; i <= COST_LINES_MAX; i++)
        give(&report, "hr", "local", "demo", 1, 0, 1);
    assert_int_equal(report.e.code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(report.n_lines, COST_LINES_MAX);
    cost_report_free(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_frontier_is_reckoned_from_tokens),
        cmocka_unit_test(volumes_are_of_the_same_mix),
        cmocka_unit_test(a_table_says_what_is_an_estimate),
        cmocka_unit_test(a_table_without_a_frontier_compares_nothing),
        cmocka_unit_test(json_has_whole_numbers),
        cmocka_unit_test(too_many_lines_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
