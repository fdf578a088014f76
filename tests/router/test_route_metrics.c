/* What a router counts: its text, its labels, and that docs/metrics.md has each row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "router/service/route_metrics.h"

enum { TEXT_BYTES_MAX = 1 << 20 };

static void assert_line(const char *text, const char *line)
{
    if (strstr(text, line) == NULL)
        fail_msg("\"%s\" is not in:\n%s", line, text);
}

static void every_count_is_in_the_text(void **state)
{
    (void)state;
    struct route_metrics *metrics;
    assert_int_equal(route_metrics_open(&metrics).code, ERR_OK);
    struct route_counts *counts = route_metrics_counts(metrics);
    metric_add(&counts->decisions[REASON_OVERFLOW], 3);
    metric_add(&counts->cache[ROUTE_CACHE_SHARED], 2);
    metric_add(&counts->cascades[ROUTE_CASCADE_ESCALATED], 4);
    metric_add(&counts->hedges[ROUTE_HEDGE_WON], 1);
    metric_add(&counts->saved[0], 1500000000);
    struct upstream_counts *upstream = route_metrics_upstream(metrics, "openai", "gpt-\"5\"");
    metric_add(&upstream->calls[0], 7);
    metric_add(&upstream->spent[0], 2500);
    upstream_counts_breaker(upstream, BREAKER_OPEN);
    upstream_counts_call(upstream, ERR_UNAVAILABLE, -1, 400000000);
    upstream_counts_call(upstream, ERR_OK, 3000000, 600000000);
    upstream_counts_call(upstream, ERR_CANCELLED, -1, -1);
    struct route_readings readings = {.reserved = 42, .stage = ROLLOUT_CANARY, .log_lines_lost = 9};
    struct buffer text = {.limit_bytes = TEXT_BYTES_MAX};
    assert_true(route_metrics_write(metrics, &readings, &text));
#define MODEL "provider=\"openai\",model=\"gpt-\\\"5\\\"\""
    static const char *const LINES[] = {
        "# HELP bantam:router_decisions_total Decisions of the policy, by what decided.\n"
        "# TYPE bantam:router_decisions_total counter\n",
        "\nbantam:router_decisions_total{reason=\"overflow\"} 3\n",
        "\nbantam:router_decisions_total{reason=\"default\"} 0\n",
        "\nbantam:router_refused_total 0\n",
        "\nbantam:router_cache_total{cache=\"shared\"} 2\n",
        "\nbantam:router_cascades_total{outcome=\"escalated\"} 4\n",
        "\nbantam:router_hedges_total{outcome=\"won\"} 1\n",
        "\nbantam:router_saved_dollars_total 1.500000000\n",
        "\nbantam:router_calls_total{" MODEL "} 7\n",
        "\nbantam:router_spent_dollars_total{" MODEL "} 0.000002500\n",
        "\nbantam:router_breaker_state{" MODEL "} 2\n",
        "\nbantam:router_call_errors_total{" MODEL ",code=\"UNAVAILABLE\"} 1\n",
        "\nbantam:router_first_token_seconds_bucket{" MODEL ",le=\"0.001\"} 0\n",
        "\nbantam:router_first_token_seconds_bucket{" MODEL ",le=\"0.005\"} 1\n",
        "\nbantam:router_call_seconds_count{" MODEL "} 2\n",
        "\nbantam:router_call_seconds_sum{" MODEL "} 1.000000000\n",
        "\nbantam:router_reserved_dollars 0.000000042\n",
        "\nbantam:router_rollout_stage{stage=\"canary\"} 1\n",
        "\nbantam:router_rollout_stage{stage=\"promoted\"} 0\n",
        "\nbantam:router_log_lines_lost_total 9\n",
    };
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++)
        assert_line(text.data, LINES[i]);
    assert_null(strstr(text.data, "CANCELLED"));
    assert_null(strstr(text.data, "provider=\"other\""));
    buffer_free(&text);
    route_metrics_close(metrics);
}

static void a_model_keeps_its_counts(void **state)
{
    (void)state;
    struct route_metrics *metrics;
    assert_int_equal(route_metrics_open(&metrics).code, ERR_OK);
    char name[] = "demo";
    struct upstream_counts *upstream = route_metrics_upstream(metrics, "local", name);
    name[0] = 'x'; /* names are copied */
    assert_ptr_equal(route_metrics_upstream(metrics, "local", "demo"), upstream);
    assert_ptr_not_equal(route_metrics_upstream(metrics, "other", "demo"), upstream);
    route_metrics_close(metrics);
}

/* A configuration that is loaded again and again with new names does not grow the text without end. */
static void too_many_models_are_counted_together(void **state)
{
    (void)state;
    struct route_metrics *metrics;
    assert_int_equal(route_metrics_open(&metrics).code, ERR_OK);
    for (int i = 0; i < ROUTE_UPSTREAMS_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%d", i);
        assert_string_equal(route_metrics_upstream(metrics, "p", name)->model, name);
    }
    struct upstream_counts *other = route_metrics_upstream(metrics, "p", "more");
    assert_string_equal(other->provider, "other");
    assert_ptr_equal(route_metrics_upstream(metrics, "p", "still more"), other);
    assert_string_equal(route_metrics_upstream(metrics, "p", "m5")->model, "m5");
    metric_add(&other->calls[0], 3);
    struct route_readings readings = {0};
    struct buffer text = {.limit_bytes = TEXT_BYTES_MAX}, small = {.limit_bytes = 1000};
    assert_true(route_metrics_write(metrics, &readings, &text));
    assert_line(text.data, "\nbantam:router_calls_total{provider=\"other\",model=\"other\"} 3\n");
    assert_false(route_metrics_write(metrics, &readings, &small));
    buffer_free(&text);
    buffer_free(&small);
    route_metrics_close(metrics);
}

/* --- docs/metrics.md has each row as it is in the table */

#define DOC_LABELS_ONE        ""
#define DOC_LABELS_REASON     "`reason`"
#define DOC_LABELS_CACHE      "`cache`"
#define DOC_LABELS_CASCADE    "`outcome`"
#define DOC_LABELS_HEDGE      "`outcome`"
#define DOC_LABELS_CLASSIFIED "`outcome`"
#define DOC_LABELS_SHADOW     "`outcome`"
#define DOC_LABELS_SLO        "`outcome`"
#define DOC_COUNT(symbol, series, unit, name, help)                                                          \
    "| `" name "` | counter | " DOC_LABELS_##series " | " help " |\n",
#define DOC_UPSTREAM(symbol, series, unit, name, help)                                                       \
    "| `" name "` | counter | `provider`, `model` | " help " |\n",
#define DOC_LATENCY(symbol, buckets, unit, name, help)                                                       \
    "| `" name "` | histogram | `provider`, `model` | " help " |\n",
#define DOC_OTHER(which, name, type, labels, help) "| `" name "` | " type " | " labels " | " help " |\n",

static void docs_have_every_row(void **state)
{
    (void)state;
    static const char *const ROWS[] = {ROUTE_COUNT_ROWS(DOC_COUNT) ROUTE_UPSTREAM_ROWS(DOC_UPSTREAM)
                                           ROUTE_LATENCY_ROWS(DOC_LATENCY) ROUTE_OTHER_ROWS(DOC_OTHER)};
    char *docs;
    size_t size;
    assert_int_equal(file_read(SOURCE_DIR "/docs/metrics.md", 1 << 20, &docs, &size).code, ERR_OK);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        if (strstr(docs, ROWS[i]) == NULL)
            fail_msg("docs/metrics.md lacks:\n%s", ROWS[i]);
    }
    mem_free(docs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_count_is_in_the_text),
        cmocka_unit_test(a_model_keeps_its_counts),
        cmocka_unit_test(too_many_models_are_counted_together),
        cmocka_unit_test(docs_have_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
