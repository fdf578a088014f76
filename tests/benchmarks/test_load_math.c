/* Percentiles as numpy's, arrivals at the rate asked for, prompts that repeat by seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/stop.h"
#include "benchmarks/arrivals.h"
#include "benchmarks/bench_data.h"
#include "benchmarks/load_result.h"

static void close_to(double got, double expected, double tolerance)
{
    if (fabs(got - expected) > tolerance)
        fail_msg("got %.12g, expected %.12g", got, expected);
}

/* Expected values: numpy.mean, std, percentile of the same list. */
static void stats_are_those_of_numpy(void **state)
{
    (void)state;
    const double values[] = {7, 1, 3, 10, 2.5, 8};
    struct samples samples = {0};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(samples_add(&samples, values[i]).code, ERR_OK);
    samples_sort(&samples);
    close_to(samples_mean(&samples), 5.25, 1e-12);
    close_to(samples_std(&samples), 3.2627953250753157, 1e-12);
    close_to(samples_percentile(&samples, 0), 1, 0);
    close_to(samples_percentile(&samples, 50), 5, 1e-12);
    close_to(samples_percentile(&samples, 90), 9, 1e-12);
    close_to(samples_percentile(&samples, 99), 9.9, 1e-12);
    close_to(samples_percentile(&samples, 100), 10, 0);
    samples_free(&samples);
    close_to(samples_percentile(&samples, 50), 0, 0);
}

static double mean_and_variation(const int64_t *starts, size_t n, double *variation)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        double gap = (double)(starts[i] - (i ? starts[i - 1] : 0)) / 1e9;
        sum += gap;
        squares += gap * gap;
    }
    double mean = sum / (double)n;
    *variation = sqrt(squares / (double)n - mean * mean) / mean;
    return mean;
}

/* The gaps of a gamma distribution of shape b vary by 1 / sqrt(b) of their mean. */
static void arrivals_keep_rate_and_shape(void **state)
{
    (void)state;
    enum { N = 20000 };
    int64_t *starts = mem_alloc_array(N, sizeof *starts);
    const double shapes[] = {0.25, 1, 4};
    for (size_t i = 0; i < 3; i++) {
        struct arrival_options options = {.request_rate = 50, .burstiness = shapes[i], .seed = 7};
        arrivals_fill(&options, N, starts);
        double variation;
        close_to(mean_and_variation(starts, N, &variation), 1.0 / 50, 1e-6);
        close_to(variation * sqrt(shapes[i]), 1, 0.05);
        for (size_t k = 1; k < N; k++)
            assert_true(starts[k] >= starts[k - 1]);
    }
    struct arrival_options at_once = {.request_rate = 0, .burstiness = 1};
    arrivals_fill(&at_once, N, starts);
    assert_int_equal(starts[N - 1], 0);
    mem_free(starts);
}

/* Half-way up a linear ramp from 10 to 30 the rate is 20. */
static void ramps_grow(void **state)
{
    (void)state;
    enum { N = 40000, WINDOW = 2000 };
    int64_t *starts = mem_alloc_array(N, sizeof *starts);
    const struct {
        enum ramp_kind kind;
        double middle;
    } cases[] = {{RAMP_LINEAR, 20}, {RAMP_EXPONENTIAL, sqrt(10.0 * 30)}};
    for (size_t i = 0; i < 2; i++) {
        struct arrival_options options = {
            .burstiness = 1, .ramp = cases[i].kind, .ramp_start = 10, .ramp_end = 30, .seed = 3};
        arrivals_fill(&options, N, starts);
        double seconds = (double)(starts[N / 2 + WINDOW] - starts[N / 2 - WINDOW]) / 1e9;
        close_to(2 * WINDOW / seconds / cases[i].middle, 1, 0.06);
    }
    mem_free(starts);
}

/* n answers of a token that take latency_ms each, the last but one of which fails. */
static void make_load(struct load_result *result, size_t n, int64_t gap_ms, int64_t latency_ms)
{
    assert_int_equal(load_result_init(n, result).code, ERR_OK);
    for (size_t i = 0; i < n; i++) {
        int64_t start_ns = (int64_t)i * gap_ms * 1000000;
        load_result_start(result, i, start_ns);
        result->duration_ns = start_ns + latency_ms * 1000000;
        assert_int_equal(load_result_tokens(result, i, 1, result->duration_ns).code, ERR_OK);
    }
    load_result_fail(result, n - 2, "lost");
}

static void report_has(const struct load_options *options, struct load_result *result, const char *has,
                       const char *lacks)
{
    struct buffer json = {.limit_bytes = 1 << 16}, text = {.limit_bytes = 1 << 16};
    assert_true(load_report_json(options, result, false, &json) && load_report_text(options, result, &text));
    if (has && !strstr(json.data, has))
        fail_msg("no %s in %s", has, json.data);
    if (lacks)
        assert_null(strstr(json.data, lacks));
    assert_int_equal(strstr(text.data, "steady ") != NULL, has != NULL);
    buffer_free(&json);
    buffer_free(&text);
}

/* Ten a second for ten seconds, two seconds each: in the second half of the arrivals, (5 s, 10 s], fifty end.
 * All of them by the time until the last one would be 8.3. */
static void steady_throughput_has_no_beginning_and_no_end(void **state)
{
    (void)state;
    struct load_options options = {.arrivals = {.request_rate = 10, .burstiness = 1}};
    struct load_result result;
    make_load(&result, 101, 100, 2000);
    report_has(&options, &result, "\"steady_s\":5.000000,\"steady_request_throughput\":10}", NULL);
    load_result_fail(&result, 40, "lost"); /* ends at 6 s */
    load_result_fail(&result, 90, "lost"); /* at 11 s */
    report_has(&options, &result, "\"steady_request_throughput\":9.8}", NULL);
    options.arrivals = (struct arrival_options){.burstiness = 1}; /* all at once */
    report_has(&options, &result, NULL, "steady");
    options.arrivals = (struct arrival_options){
        .request_rate = 10, .burstiness = 1, .ramp = RAMP_LINEAR, .ramp_start = 1, .ramp_end = 20};
    report_has(&options, &result, NULL, "steady");
    load_result_free(&result);
}

/* Of a load that was stopped: what the report has of requests under way, it says. */
static void what_was_under_way_counts_in_itl(void **state)
{
    (void)state;
    const struct load_options options = {.arrivals = {.burstiness = 1}};
    struct load_result result;
    assert_int_equal(load_result_init(3, &result).code, ERR_OK);
    for (size_t i = 0; i < 2; i++) { /* two tokens each, 10 and 30 ms apart */
        load_result_start(&result, i, 0);
        assert_int_equal(load_result_tokens(&result, i, 1, 5000000).code, ERR_OK);
        assert_int_equal(load_result_tokens(&result, i, 1, i == 0 ? 15000000 : 35000000).code, ERR_OK);
    }
    load_result_usage(&result, 0, &(struct usage){.prompt_tokens = 1, .completion_tokens = 2});
    load_result_end(&result, 0);
    load_result_cut(&result);
    struct buffer json = {.limit_bytes = 1 << 16}, text = {.limit_bytes = 1 << 16};
    assert_true(load_report_json(&options, &result, false, &json) &&
                load_report_text(&options, &result, &text));
    static const char *const HAS[] = {
        "\"completed\":1,",    "\"total_output_tokens\":2,", "\"max_output_tokens_per_s\":4,",
        "\"mean_itl_ms\":20,", "\"mean_tpot_ms\":10,",       "\"interrupted\":true,\"num_prompts\":3"};
    for (size_t i = 0; i < sizeof HAS / sizeof *HAS; i++)
        if (!strstr(json.data, HAS[i]))
            fail_msg("no %s in %s", HAS[i], json.data);
    assert_non_null(strstr(text.data, "after 1 of 3 requests: those under way count in ITL alone"));
    buffer_free(&json);
    buffer_free(&text);
    load_result_free(&result);
}

/* However far the next start is: somebody may wish to stop, and nothing wakes the load for that. */
static void a_wish_to_stop_is_looked_for(void **state)
{
    (void)state;
    _Atomic bool stop = false;
    assert_false(stop_is_wished(NULL) || stop_is_wished(&stop));
    stop = true;
    assert_true(stop_is_wished(&stop));
    assert_int_equal(load_wait_ns(0), 0);
    assert_int_equal(load_wait_ns(5), 5);
    assert_int_equal(load_wait_ns(-1), 100000000);
    assert_int_equal(load_wait_ns(INT64_MAX), 100000000);
}

static void random_prompts_share_what_they_should(void **state)
{
    (void)state;
    struct random_data_options options = {.num_prompts = 6,
                                          .input_len = 40,
                                          .output_len = 5,
                                          .vocab_size = 1000,
                                          .prefix_len = 24,
                                          .num_prefixes = 2,
                                          .seed = 11,
                                          .prefix_seed = 11};
    struct bench_data a, b;
    assert_int_equal(bench_data_random(&options, &a).code, ERR_OK);
    assert_int_equal(bench_data_random(&options, &b).code, ERR_OK);
    for (size_t i = 0; i < 6; i++) {
        assert_memory_equal(a.prompts[i].token_ids, b.prompts[i].token_ids, 40 * sizeof(uint32_t));
        for (size_t k = 0; k < 40; k++)
            assert_true(a.prompts[i].token_ids[k] < 1000);
        assert_memory_equal(a.prompts[i].token_ids, a.prompts[i % 2].token_ids, 24 * sizeof(uint32_t));
    }
    assert_memory_not_equal(a.prompts[0].token_ids, a.prompts[1].token_ids, 24 * sizeof(uint32_t));
    assert_memory_not_equal(a.prompts[0].token_ids + 24, a.prompts[2].token_ids + 24, 16 * sizeof(uint32_t));
    bench_data_free(&b);
    options.seed = 12; /* the shared parts stay, the rest is new */
    assert_int_equal(bench_data_random(&options, &b).code, ERR_OK);
    assert_memory_equal(a.prompts[3].token_ids, b.prompts[3].token_ids, 24 * sizeof(uint32_t));
    assert_memory_not_equal(a.prompts[3].token_ids + 24, b.prompts[3].token_ids + 24, 16 * sizeof(uint32_t));
    bench_data_free(&a);
    bench_data_free(&b);
}

static void lengths_are_drawn_from_a_range(void **state)
{
    (void)state;
    enum { N = 4000, LEAST = 3, MOST = 6 };
    struct random_data_options options = {.num_prompts = N,
                                          .input_len = 1,
                                          .output_len = MOST,
                                          .output_len_min = LEAST,
                                          .vocab_size = 10,
                                          .num_prefixes = 1,
                                          .seed = 5};
    struct bench_data data;
    size_t seen[MOST + 1] = {0};
    assert_int_equal(bench_data_random(&options, &data).code, ERR_OK);
    for (size_t i = 0; i < N; i++) {
        assert_in_range(data.prompts[i].output_len, LEAST, MOST);
        seen[data.prompts[i].output_len]++;
    }
    for (size_t n = LEAST; n <= MOST; n++)
        assert_in_range(seen[n], N / 4 - 150, N / 4 + 150);
    bench_data_free(&data);
    options.output_len_min = 0;
    options.num_prompts = 10;
    assert_int_equal(bench_data_random(&options, &data).code, ERR_OK);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(data.prompts[i].output_len, MOST);
    bench_data_free(&data);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static void files_are_read_and_repeated(void **state)
{
    (void)state;
    char path[] = "/tmp/bantam-bench-data-XXXXXX"; /* its own: two runs of the test may meet */
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(close(descriptor), 0);
    write_file(path, "{\"prompt\": \"one\"}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"two\"}], "
                     "\"output_tokens\": 3}\n");
    struct bench_data data;
    assert_int_equal(bench_data_file(path, 5, 9, &data).code, ERR_OK);
    assert_int_equal(data.count, 5);
    assert_string_equal(data.prompts[4].text, "one");
    assert_string_equal(data.prompts[3].text, "two");
    assert_true(data.prompts[3].as_message && !data.prompts[4].as_message);
    assert_int_equal(data.prompts[3].output_len, 3);
    assert_int_equal(data.prompts[4].output_len, 9);
    bench_data_free(&data);
    write_file(path, "{\"prompt\": \"one\"}\n[1]\n");
    err_t e = bench_data_file(path, 5, 9, &data);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "line 2"));
    bench_data_free(&data);
    write_file(path, "\n");
    assert_int_equal(bench_data_file(path, 5, 9, &data).code, ERR_INVALID_ARGUMENT);
    bench_data_free(&data);
    assert_int_equal(remove(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_are_those_of_numpy),
        cmocka_unit_test(arrivals_keep_rate_and_shape),
        cmocka_unit_test(ramps_grow),
        cmocka_unit_test(steady_throughput_has_no_beginning_and_no_end),
        cmocka_unit_test(what_was_under_way_counts_in_itl),
        cmocka_unit_test(a_wish_to_stop_is_looked_for),
        cmocka_unit_test(random_prompts_share_what_they_should),
        cmocka_unit_test(lengths_are_drawn_from_a_range),
        cmocka_unit_test(files_are_read_and_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
