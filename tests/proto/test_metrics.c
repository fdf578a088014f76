/* The table of metrics: buckets, recording by many threads, the text that Prometheus reads, and the docs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "base/mapped_file.h"
#include "proto/identity.h"
#include "proto/metrics_text.h"
#include "proto/tenant_service.h"
#include "tests/proto/fake_service.h"

enum { TEXT_BYTES_MAX = 1 << 20 };

static void buckets_are_inclusive_and_ascend(void **state)
{
    (void)state;
    static const struct metric_buckets *const all[] = {
        &METRIC_BUCKETS_FIRST_TOKEN, &METRIC_BUCKETS_BETWEEN_TOKENS, &METRIC_BUCKETS_REQUEST,
        &METRIC_BUCKETS_STEP,        &METRIC_BUCKETS_STEP_TOKENS,    &METRIC_BUCKETS_TOKENS,
        &METRIC_BUCKETS_CHOICES};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const struct metric_buckets *b = all[i];
        assert_in_range(b->n, 1, METRIC_BUCKETS_MAX);
        assert_int_equal(metric_bucket(b, 0), 0);
        assert_int_equal(metric_bucket(b, UINT64_MAX), b->n);
        for (uint32_t j = 0; j < b->n; j++) {
            assert_int_equal(metric_bucket(b, b->bounds[j]), j);
            assert_int_equal(metric_bucket(b, b->bounds[j] + 1), j + 1);
        }
    }
}

/* --- many threads at once, and one that reads */

enum { THREADS = 4, ROUNDS = 50000 };
static struct metrics shared;
static _Atomic bool recording_ended;

static void *record_all(void *argument)
{
    uintptr_t thread = (uintptr_t)argument;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        metric_record(&shared.request_prompt_tokens, &METRIC_BUCKETS_TOKENS, i % 100, 1);
        metric_add(&shared.answers[metric_answer_grpc((int)thread)], 1);
        metric_add(&shared.streams_open[METRIC_DOOR_HTTP], 1);
        metric_subtract(&shared.streams_open[METRIC_DOOR_HTTP], 1);
        if (thread == 0) /* the one and only recorder there */
            metric_record_alone(&shared.step_time, &METRIC_BUCKETS_STEP, i);
    }
    return NULL;
}

static void *read_all(void *argument)
{
    (void)argument;
    struct buffer text = {.limit_bytes = TEXT_BYTES_MAX};
    static const struct metric_readings readings;
    while (!atomic_load(&recording_ended)) {
        buffer_clear(&text);
        assert_true(metrics_write(&shared, &readings, "m", 100, &text));
    }
    buffer_free(&text);
    return NULL;
}

static uint64_t total_of(const struct metric_histogram *histogram)
{
    uint64_t total = 0;
    for (int i = 0; i <= METRIC_BUCKETS_MAX; i++)
        total += metric_read(&histogram->counts[i]);
    return total;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS], reader;
    assert_int_equal(pthread_create(&reader, NULL, read_all, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, record_all, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&recording_ended, true);
    pthread_join(reader, NULL);
    assert_int_equal(total_of(&shared.request_prompt_tokens), THREADS * ROUNDS);
    assert_int_equal(metric_read(&shared.request_prompt_tokens.sum), (uint64_t)THREADS * ROUNDS / 100 * 4950);
    assert_int_equal(total_of(&shared.step_time), ROUNDS);
    assert_int_equal(metric_read(&shared.step_time.sum), (uint64_t)ROUNDS * (ROUNDS - 1) / 2);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(metric_read(&shared.answers[i]), ROUNDS);
    assert_int_equal(metric_read(&shared.streams_open[METRIC_DOOR_HTTP]), 0);
}

/* --- the text */

static char *render(const struct metrics *metrics, const struct metric_readings *readings, const char *model,
                    uint32_t max_model_len)
{
    struct buffer text = {.limit_bytes = TEXT_BYTES_MAX};
    assert_true(metrics_write(metrics, readings, model, max_model_len, &text));
    return text.data;
}

/* The lines of one metric, its HELP and TYPE included, compared whole. */
static void assert_block(const char *text, const char *expected)
{
    if (!strstr(text, expected)) {
        const char *name = expected + strlen("# HELP ");
        char head[160];
        (void)snprintf(head, sizeof head, "# HELP %.*s ", (int)strcspn(name, " "), name);
        const char *found = strstr(text, head);
        print_error("expected:\n%s\nthere is:\n%.1500s\n", expected, found ? found : "nothing");
    }
    assert_non_null(strstr(text, expected));
}

static void text_is_what_prometheus_reads(void **state)
{
    (void)state;
    struct metrics *metrics = mem_alloc(sizeof *metrics);
    struct metric_readings *readings = mem_alloc(sizeof *readings);
    metric_record(&metrics->request_params_n, &METRIC_BUCKETS_CHOICES, 1, 3);
    metric_record(&metrics->request_params_n, &METRIC_BUCKETS_CHOICES, 10, 1);
    metric_record(&metrics->request_params_n, &METRIC_BUCKETS_CHOICES, 21, 1);
    metric_record_alone(&metrics->step_time, &METRIC_BUCKETS_STEP, 1500000);
    metric_record(&metrics->request_prompt_tokens, &METRIC_BUCKETS_TOKENS, 7, 1);
    metric_record(&metrics->request_prompt_tokens, &METRIC_BUCKETS_TOKENS, 60, 1);
    metric_add(&metrics->request_success[metric_reason(FINISH_ABORT)], 2);
    metric_add(&metrics->sent_bytes[METRIC_DOOR_HTTP], 12345678901234);
    metric_add(&metrics->loop_overhead[0], 2000000003);
    readings->kv_cache_usage = 0.25;
    readings->open_files = 17;
    (void)snprintf(readings->build, sizeof readings->build, "version=\"1\"");
    char *text = render(metrics, readings, "a\"b\\c\nd", 50);
#define M_LABEL "model_name=\"a\\\"b\\\\c\\nd\""
    assert_block(text, "# HELP vllm:request_params_n The parameter n of accepted requests.\n"
                       "# TYPE vllm:request_params_n histogram\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"1.0\"} 3\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"2.0\"} 3\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"5.0\"} 3\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"10.0\"} 4\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"20.0\"} 4\n"
                       "vllm:request_params_n_bucket{" M_LABEL ",le=\"+Inf\"} 5\n"
                       "vllm:request_params_n_count{" M_LABEL "} 5\n"
                       "vllm:request_params_n_sum{" M_LABEL "} 34\n# HELP");
    /* Buckets above the model's length are left out, what is in them is not. */
    assert_block(text, "# HELP vllm:request_prompt_tokens Prompt tokens of a choice that ended.\n"
                       "# TYPE vllm:request_prompt_tokens histogram\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"1.0\"} 0\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"2.0\"} 0\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"5.0\"} 0\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"10.0\"} 1\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"20.0\"} 1\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"50.0\"} 1\n"
                       "vllm:request_prompt_tokens_bucket{" M_LABEL ",le=\"+Inf\"} 2\n");
    assert_block(text, "bantam:step_time_seconds_bucket{" M_LABEL ",le=\"0.001\"} 0\n"
                       "bantam:step_time_seconds_bucket{" M_LABEL ",le=\"0.002\"} 1\n");
    assert_block(text, "bantam:step_time_seconds_sum{" M_LABEL "} 0.001500000\n");
    assert_block(text, "# TYPE vllm:request_success_total counter\n"
                       "vllm:request_success_total{" M_LABEL ",finished_reason=\"stop\"} 0\n"
                       "vllm:request_success_total{" M_LABEL ",finished_reason=\"length\"} 0\n"
                       "vllm:request_success_total{" M_LABEL ",finished_reason=\"abort\"} 2\n"
                       "vllm:request_success_total{" M_LABEL ",finished_reason=\"error\"} 0\n");
    assert_block(text, "bantam:sent_bytes_total{" M_LABEL ",door=\"http\"} 12345678901234\n");
    assert_block(text, "bantam:loop_overhead_seconds_total{" M_LABEL "} 2.000000003\n");
    assert_block(text, "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{" M_LABEL "} 0.25\n");
    assert_block(text, "# TYPE process_open_fds gauge\nprocess_open_fds 17\n");
    assert_block(text, "bantam:build_info{version=\"1\"} 1\n");
    mem_free(text);
    mem_free(readings);
    mem_free(metrics);
}

/* A buffer that is too small is said to be. */
static void text_that_does_not_fit_is_an_error(void **state)
{
    (void)state;
    static const struct metrics metrics;
    static const struct metric_readings readings;
    char *whole = render(&metrics, &readings, "m", 1000);
    struct buffer small = {.limit_bytes = strlen(whole) - 1};
    assert_false(metrics_write(&metrics, &readings, "m", 1000, &small));
    buffer_free(&small);
    mem_free(whole);
}

static size_t lines_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* Whatever clients do, there are as many series as at the start, and no two are the same. */
static void series_are_a_fixed_set(void **state)
{
    (void)state;
    struct metrics *metrics = mem_alloc(sizeof *metrics);
    static const struct metric_readings readings;
    char *before = render(metrics, &readings, "m", 4096);
    for (int status = -5; status < 1000; status++) {
        metric_add(&metrics->answers[metric_answer_http(status)], 1);
        metric_add(&metrics->answers[metric_answer_grpc(status)], 1);
    }
    for (int code = ERR_OK + 1; code <= ERR_INTERNAL; code++)
        for (int door = 0; door < METRIC_DOORS_COUNT; door++)
            metric_add(&metrics->refusals[metric_refusal((enum metric_door)door, (enum err_code)code)], 1);
    char *after = render(metrics, &readings, "m", 4096);
    assert_int_equal(lines_of(before), lines_of(after));
    assert_non_null(strstr(after, "door=\"http\",code=\"other\"} 985\n"));
    assert_non_null(strstr(after, "door=\"grpc\",code=\"UNKNOWN\"} 989\n"));
    assert_non_null(
        strstr(after, "bantam:refusals_total{model_name=\"m\",door=\"http\",code=\"INTERNAL\"} 1\n"));
    char labels[METRIC_SERIES_ANSWER + METRIC_SERIES_REFUSAL][64];
    size_t n = 0;
    for (size_t i = 0; i < METRIC_SERIES_ANSWER; i++)
        metric_answer_labels(i, labels[n++], sizeof labels[0]);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(labels[i], labels[j]);
    mem_free(before);
    mem_free(after);
    mem_free(metrics);
}

static void a_service_is_read(void **state)
{
    (void)state;
    struct fake_service *fake;
    assert_int_equal(fake_service_open(&(struct fake_options){0}, &fake).code, ERR_OK);
    struct buffer text = {.limit_bytes = METRICS_TEXT_BYTES_MAX};
    assert_true(metrics_write_service(fake_service_of(fake), "1.2.3", &text));
    assert_non_null(strstr(text.data, "\nvllm:num_requests_running{model_name=\"fake\"} 0\n"));
    assert_non_null(strstr(text.data, "bantam:build_info{version=\"1.2.3\"} 1\n"));
    assert_non_null(strstr(text.data, "dtype=\"float32\""));
    const char *resident = strstr(text.data, "\nprocess_resident_memory_bytes ");
    assert_non_null(resident);
    assert_true(strtod(resident + strlen("\nprocess_resident_memory_bytes "), NULL) > 100000);
    const char *start = strstr(text.data, "\nprocess_start_time_seconds ");
    assert_non_null(start);
    assert_true(strtod(start + strlen("\nprocess_start_time_seconds "), NULL) > 1.6e9);
    buffer_free(&text);
    fake_service_close(fake);
}

static bool add_line(struct service *service, struct buffer *out)
{
    return service->vtable->metrics_text != NULL && buffer_append_text(out, "own_total 7\n");
}

/* Behind quotas as well. */
static void a_service_adds_its_own(void **state)
{
    (void)state;
    struct fake_service *fake;
    struct identity *identity;
    struct tenant_service *tenants;
    static const char *const KEYS[] = {"sk-a-key-that-nobody-guesses"};
    const struct identity_options options = {.keys = KEYS, .n_keys = 1, .clock = clock_monotonic()};
    assert_int_equal(fake_service_open(&(struct fake_options){0}, &fake).code, ERR_OK);
    assert_int_equal(identity_open(&options, &identity).code, ERR_OK);
    assert_int_equal(tenant_service_open(fake_service_of(fake), identity, &tenants).code, ERR_OK);
    struct service *service = fake_service_of(fake), *guarded = tenant_service_of(tenants);
    const struct service_vtable *of_fake = service->vtable;
    struct buffer text = {.limit_bytes = METRICS_TEXT_BYTES_MAX};
    assert_true(metrics_write_service(guarded, "1.2.3", &text));
    assert_null(strstr(text.data, "own_total"));
    struct service_vtable with_text = *of_fake;
    with_text.metrics_text = add_line;
    service->vtable = &with_text;
    struct service *const BOTH[] = {service, guarded};
    for (size_t i = 0; i < 2; i++) {
        buffer_clear(&text);
        assert_true(metrics_write_service(BOTH[i], "1.2.3", &text));
        assert_non_null(strstr(text.data, "\nown_total 7\n"));
    }
    service->vtable = of_fake;
    buffer_free(&text);
    tenant_service_close(tenants);
    identity_close(identity);
    fake_service_close(fake);
}

/* --- the docs */

#define LABELS_MODEL                                    "`model_name`"
#define LABELS_REASON                                   "`model_name`, `finished_reason`"
#define LABELS_DOOR                                     "`model_name`, `door`"
#define LABELS_ANSWER                                   "`model_name`, `door`, `code`"
#define LABELS_REFUSAL                                  "`model_name`, `door`, `code`"
#define LABELS_PROCESS                                  ""
#define LABELS_INFO                                     "as told"
#define DOC_COUNTER(series, name, help)                 DOC_PLAIN("counter", series, name, help)
#define DOC_GAUGE(series, name, help)                   DOC_PLAIN("gauge", series, name, help)
#define DOC_READ_COUNTER(series, name, help)            DOC_PLAIN("counter", series, name, help)
#define DOC_READ_GAUGE(series, name, help)              DOC_PLAIN("gauge", series, name, help)
#define DOC_INFO(series, name, help)                    DOC_PLAIN("gauge", series, name, help)
#define DOC_PLAIN(type, series, name, help)             "| `" name "` | " type " | " LABELS_##series " | " help " |\n"
#define DOC_HISTOGRAM(series, name, help)               "| `" name "` | histogram | `model_name` | " help " |\n"
#define DOC_ROW(kind, symbol, series, unit, name, help) DOC_##kind(series, name, help)

static void docs_have_the_table(void **state)
{
    (void)state;
    static const char table[] = METRIC_TABLE(DOC_ROW);
    char *docs;
    size_t size_bytes;
    assert_int_equal(file_read(SOURCE_DIR "/docs/metrics.md", TEXT_BYTES_MAX, &docs, &size_bytes).code,
                     ERR_OK);
    if (!strstr(docs, table)) /* cmocka's own printing cuts long texts off */
        (void)fprintf(stderr, "docs/metrics.md must have these rows:\n%s", table);
    assert_non_null(strstr(docs, table));
    mem_free(docs);
}

static double cpu_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* For docs/metrics.md, by hand: BANTAM_TEST_MEASURE=1. */
static void measure_recording(void **state)
{
    (void)state;
    enum { N = 20000000 };
    if (!getenv("BANTAM_TEST_MEASURE"))
        return;
    static struct metrics metrics;
    for (int round = 0; round < 3; round++) {
        double begin_ns = cpu_ns();
        for (uint64_t i = 0; i < N; i++)
            metric_record_alone(&metrics.inter_token_latency, &METRIC_BUCKETS_BETWEEN_TOKENS,
                                20000000 + i % 64);
        double alone_ns = cpu_ns();
        for (uint64_t i = 0; i < N; i++)
            metric_record(&metrics.e2e_latency, &METRIC_BUCKETS_REQUEST, 20000000 + i % 64, 1);
        double any_ns = cpu_ns();
        print_message("a value: %.2f ns by one thread, %.2f ns by any\n", (alone_ns - begin_ns) / N,
                      (any_ns - alone_ns) / N);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_inclusive_and_ascend),
        cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(text_is_what_prometheus_reads),
        cmocka_unit_test(text_that_does_not_fit_is_an_error),
        cmocka_unit_test(series_are_a_fixed_set),
        cmocka_unit_test(a_service_is_read),
        cmocka_unit_test(a_service_adds_its_own),
        cmocka_unit_test(docs_have_the_table),
        cmocka_unit_test(measure_recording),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
