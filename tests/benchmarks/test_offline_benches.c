/* The benches that need no server: counts add up, and the loop allocates nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/event_count.h"
#include "benchmarks/decode_bench.h"
#include "benchmarks/latency_bench.h"
#include "benchmarks/loop_overhead.h"
#include "benchmarks/throughput.h"

static void loop_allocates_nothing(void **state)
{
    (void)state;
    struct loop_overhead_result result;
    assert_int_equal(loop_overhead_run(64, 100, 200, &result).code, ERR_OK);
    assert_int_equal(result.tokens, 64 * 200);
    assert_int_equal(result.allocations, 0);
    assert_true(result.steps >= 199); /* the last step is counted after its tokens are out */
    assert_true(result.overhead_us_per_step > 0);
}

static struct engine *open_small_llama(void)
{
    struct engine_options options = engine_options_default();
    options.model.directory = TEST_DATA_DIR "/parity/checkpoints/llama-gqa";
    options.skip_tokenizer_init = true;
    struct engine *engine;
    assert_int_equal(engine_open(&options, NULL, &engine).code, ERR_OK);
    return engine;
}

static void throughput_counts_tokens(void **state)
{
    (void)state;
    struct engine *engine = open_small_llama();
    struct throughput_options work = {
        .input_len = 20, .output_len = 7, .num_prompts = 5, .shared_prefix_len = 16};
    struct throughput_result result;
    assert_int_equal(throughput_run(engine, &work, &result).code, ERR_OK);
    assert_int_equal(result.input_tokens, 100);
    assert_int_equal(result.output_tokens, 35);
    assert_true(result.decoded_tokens <= 30);
    assert_true(result.prefill_ns > 0 && result.prefill_ns <= result.elapsed_ns);
    assert_true(result.ttft_p50_ns <= result.ttft_p99_ns);
    /* What is counted is of one run alone. How many steps several prompts take is up to when each of them
       arrives, so the second run has one prompt, of seven steps; the last step of a run is counted after its
       tokens are out. */
    assert_true(result.loop.steps >= 6);
    work.num_prompts = 1;
    assert_int_equal(throughput_run(engine, &work, &result).code, ERR_OK);
    assert_in_range(result.loop.steps, 6, 8);
    work.input_len = 1 << 20; /* longer than the model */
    assert_int_equal(throughput_run(engine, &work, &result).code, ERR_INVALID_ARGUMENT);
    engine_close(engine);
}

static void make_prompts(struct engine *engine, uint32_t n, uint32_t input_len, struct bench_data *data)
{
    const struct random_data_options random = {
        .num_prompts = n,
        .input_len = input_len,
        .output_len = 6,
        .vocab_size = engine_service(engine)->vtable->model_info(engine_service(engine))->vocab_size,
        .prefix_len = 32,
        .num_prefixes = 1,
    };
    assert_int_equal(bench_data_random(&random, data).code, ERR_OK);
}

/* Every request is timed from its scheduled arrival, also when it had to wait for another in the client. */
static void latency_counts_from_the_schedule(void **state)
{
    (void)state;
    enum { N = 20, WARMUPS = 2 };
    struct engine *engine = open_small_llama();
    struct bench_data data;
    make_prompts(engine, WARMUPS + N, 40, &data);
    struct load_options options = {.arrivals = {.request_rate = 1e5, .burstiness = 1, .seed = 3},
                                   .max_concurrency = 1};
    int64_t starts_ns[N];
    arrivals_fill(&options.arrivals, N, starts_ns);
    struct load_result result;
    assert_int_equal(latency_bench_run(engine, &options, &data, WARMUPS, &result).code, ERR_OK);
    assert_int_equal(result.n, N);
    assert_int_equal(result.max_concurrent_requests, 1);
    int64_t before_ns = 0;
    for (size_t i = 0; i < N; i++) {
        const struct load_request_result *request = &result.requests[i];
        assert_null(request->error);
        assert_int_equal(request->start_ns, starts_ns[i]);
        assert_int_equal(request->input_len, 40);
        assert_int_equal(request->output_len, 6);
        assert_int_equal(request->cached_len, 32);
        assert_true(request->ttft_ns > 0 && request->ttft_ns <= request->e2el_ns);
        assert_true(request->start_ns + request->ttft_ns >= before_ns); /* one at a time */
        before_ns = request->start_ns + request->e2el_ns;
    }
    assert_true(result.duration_ns >= before_ns);
    assert_int_equal(result.itl_ms.count, N * 5);
    struct buffer report = {.limit_bytes = 1 << 20};
    assert_true(load_report_json(&options, &result, true, &report));
    assert_non_null(strstr(report.data, "\"total_cached_tokens\":640"));
    assert_null(strstr(report.data, "start_to_ready_s"));
    buffer_free(&report);
    load_result_free(&result);
    bench_data_free(&data);
    engine_close(engine);
}

static void latency_says_what_cannot_run(void **state)
{
    (void)state;
    struct engine *engine = open_small_llama();
    struct bench_data data;
    make_prompts(engine, 3, 300, &data); /* longer than the model */
    struct load_options options = {.arrivals = {.burstiness = 1}};
    struct load_result result;
    assert_int_equal(latency_bench_run(engine, &options, &data, 0, &result).code, ERR_INVALID_ARGUMENT);
    load_result_free(&result);
    assert_int_equal(latency_bench_run(engine, &options, &data, 3, &result).code, ERR_INVALID_ARGUMENT);
    load_result_free(&result);
    bench_data_free(&data);
    engine_close(engine);
}

static void decode_measures_a_full_batch(void **state)
{
    (void)state;
    struct engine *engine = open_small_llama();
    struct decode_options work = {.batch = 6, .context = 60, .n_steps = 10, .step_tokens = 512};
    struct decode_result result;
    assert_int_equal(decode_bench_run(engine_service(engine), &work, &result).code, ERR_OK);
    assert_true(result.tokens >= 60 && result.elapsed_ns > 0 && result.tok_s > 0);
    assert_true(result.mean_context >= 55 && result.mean_context <= 256);
    assert_int_equal(result.preemptions, 0);
    work.batch = 1;
    assert_int_equal(decode_bench_run(engine_service(engine), &work, &result).code, ERR_OK);
    work.step_tokens = 1;
    assert_int_equal(decode_bench_run(engine_service(engine), &work, &result).code, ERR_INVALID_ARGUMENT);
    work = (struct decode_options){.batch = 1, .context = 20, .n_steps = 64, .step_tokens = 512};
    assert_int_equal(decode_bench_run(engine_service(engine), &work, &result).code, ERR_INVALID_ARGUMENT);
    engine_close(engine);
}

/* A reader who is kept from reading, so many times, until FAR_BEHIND tokens of each sequence wait for him. */
static unsigned put_off, n_submitted;
static struct stream *first_stream;
static bool is_new_round; /* nothing was taken from first_stream yet */
static uint64_t n_made_before, n_taken;
static struct service *decoding;
static const struct service_vtable *engine_vtable;
enum { DECODE_BATCH = 6, FAR_BEHIND = 50 };

static bool is_far_behind(void)
{
    struct loads loads;
    decoding->vtable->loads(decoding, &loads);
    return loads.generation_tokens_total - n_made_before >= n_taken + (uint64_t)DECODE_BATCH * FAR_BEHIND ||
           loads.requests_running + loads.requests_waiting == 0;
}

static bool stream_next_late(struct stream *stream, struct event *out)
{
    if (put_off > 0 && stream == first_stream && is_new_round) {
        struct event_count *news = decoding->vtable->progress(decoding);
        uint32_t seen = event_count_read(news);
        for (; !is_far_behind(); seen = event_count_read(news))
            (void)event_count_wait(news, seen, 1000 * 1000); /* counts may follow the news */
        put_off--;
    }
    bool has_event = engine_vtable->stream_next(stream, out);
    is_new_round = !has_event;
    n_taken += has_event ? out->n_token_ids : 0;
    return has_event;
}

static err_t submit_counted(struct service *service, const struct request *request, struct stream **out)
{
    struct loads loads;
    service->vtable->loads(service, &loads);
    err_t e = engine_vtable->submit(service, request, out);
    if (n_submitted++ % DECODE_BATCH == 0) {
        first_stream = *out;
        n_made_before = loads.generation_tokens_total;
        n_taken = 0;
    }
    return e;
}

static void decode_is_done_anew_for_a_late_reader(void **state)
{
    (void)state;
    struct engine *engine = open_small_llama();
    decoding = engine_service(engine);
    engine_vtable = decoding->vtable;
    struct service_vtable late = *engine_vtable;
    late.stream_next = stream_next_late;
    late.submit = submit_counted;
    decoding->vtable = &late;
    struct decode_options work = {.batch = DECODE_BATCH, .context = 60, .n_steps = 10, .step_tokens = 512};
    struct decode_result result;
    put_off = 3;
    assert_int_equal(decode_bench_run(decoding, &work, &result).code, ERR_OK);
    assert_int_equal(put_off, 0);
    assert_true(n_submitted >= 2 * DECODE_BATCH && result.tokens >= 60);
    n_submitted = 0; /* he always is: it ends all the same */
    put_off = 1000;
    assert_int_equal(decode_bench_run(decoding, &work, &result).code, ERR_OK);
    assert_int_equal(n_submitted, 16 * DECODE_BATCH);
    assert_true(result.tokens > 0);
    decoding->vtable = engine_vtable;
    engine_close(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loop_allocates_nothing),
        cmocka_unit_test(throughput_counts_tokens),
        cmocka_unit_test(latency_counts_from_the_schedule),
        cmocka_unit_test(latency_says_what_cannot_run),
        cmocka_unit_test(decode_measures_a_full_batch),
        cmocka_unit_test(decode_is_done_anew_for_a_late_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
