#include "benchmarks/throughput.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "base/program_memory.h"
#include "benchmarks/bench_data.h"

struct offline_prompt {
    struct stream *stream;
    int64_t first_token_ns; /* -1 = not yet */
    bool done;
};

struct bench {
    const struct throughput_options *options;
    struct service *service;
    struct offline_prompt *prompts; /* [num_prompts] */
    uint32_t n_first, n_done;
    int64_t started_ns;
    struct throughput_result *result;
};

static err_t submit_all(struct bench *bench, const struct bench_data *data)
{
    for (uint32_t i = 0; i < bench->options->num_prompts; i++) {
        struct request request = bench_prompt_request(&data->prompts[i], 0);
        TRY(bench->service->vtable->submit(bench->service, &request, &bench->prompts[i].stream));
        bench->prompts[i].first_token_ns = -1;
    }
    return err_ok();
}

static err_t take_event(struct bench *bench, struct offline_prompt *prompt, const struct event *event,
                        int64_t now_ns)
{
    struct throughput_result *result = bench->result;
    result->output_tokens += event->n_token_ids;
    if (event->n_token_ids && prompt->first_token_ns < 0) {
        prompt->first_token_ns = now_ns - bench->started_ns;
        if (++bench->n_first == bench->options->num_prompts)
            result->prefill_ns = prompt->first_token_ns;
    } else if (bench->n_first == bench->options->num_prompts) {
        result->decoded_tokens += event->n_token_ids;
    }
    if (event->kind == EVENT_FINISHED) {
        prompt->done = true;
        bench->n_done++;
        if (event->finish_reason == FINISH_ERROR)
            return event->error;
    }
    return err_ok();
}

static err_t read_all(struct bench *bench)
{
    const struct service_vtable *vtable = bench->service->vtable;
    struct event_count *progress = vtable->progress(bench->service);
    while (bench->n_done < bench->options->num_prompts) {
        uint32_t seen = event_count_read(progress);
        int64_t now_ns = vtable->now_ns(bench->service);
        struct event event;
        for (uint32_t i = 0; i < bench->options->num_prompts; i++)
            while (!bench->prompts[i].done && vtable->stream_next(bench->prompts[i].stream, &event))
                TRY(take_event(bench, &bench->prompts[i], &event, now_ns));
        if (bench->n_done < bench->options->num_prompts)
            (void)event_count_wait(progress, seen, -1);
    }
    return err_ok();
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void summarise(struct bench *bench, struct engine *engine, const struct engine_loop_stats *before)
{
    struct throughput_result *result = bench->result;
    const struct throughput_options *options = bench->options;
    uint32_t n = options->num_prompts;
    result->input_tokens = (uint64_t)n * options->input_len;
    result->prefill_tok_s = (double)result->input_tokens * 1e9 / (double)result->prefill_ns;
    int64_t decode_ns = result->elapsed_ns - result->prefill_ns;
    result->decode_tok_s = result->decoded_tokens && decode_ns > 0
                               ? (double)result->decoded_tokens * 1e9 / (double)decode_ns
                               : 0;
    result->output_tok_s = (double)result->output_tokens * 1e9 / (double)result->elapsed_ns;
    int64_t *ttft = mem_alloc_array(n, sizeof *ttft);
    for (uint32_t i = 0; ttft && i < n; i++)
        ttft[i] = bench->prompts[i].first_token_ns;
    if (ttft) {
        qsort(ttft, n, sizeof *ttft, compare_ns);
        result->ttft_p50_ns = ttft[(n - 1) / 2];
        result->ttft_p99_ns = ttft[(size_t)(n - 1) * 99 / 100];
    }
    mem_free(ttft);
    result->peak_rss_bytes = program_peak_bytes();
    struct engine_loop_stats after;
    engine_loop_stats_read(engine, &after);
    result->loop = (struct engine_loop_stats){
        .steps = after.steps - before->steps,
        .overhead_ns = after.overhead_ns - before->overhead_ns,
        .execute_ns = after.execute_ns - before->execute_ns,
        .prefill_rows = after.prefill_rows - before->prefill_rows,
        .decode_rows = after.decode_rows - before->decode_rows,
    };
}

err_t throughput_run(struct engine *engine, const struct throughput_options *options,
                     struct throughput_result *out)
{
    *out = (struct throughput_result){0};
    struct bench bench = {.options = options, .service = engine_service(engine), .result = out};
    bench.prompts = mem_alloc_array(options->num_prompts, sizeof *bench.prompts);
    const struct random_data_options random = {
        .num_prompts = options->num_prompts,
        .input_len = options->input_len,
        .output_len = options->output_len,
        .vocab_size = bench.service->vtable->model_info(bench.service)->vocab_size,
        .prefix_len = options->shared_prefix_len,
        .num_prefixes = 1,
        .seed = options->seed,
    };
    struct bench_data data;
    err_t e = bench_data_random(&random, &data);
    if (e.code == ERR_OK && !bench.prompts)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %u prompts", options->num_prompts);
    struct engine_loop_stats before;
    engine_loop_stats_read(engine, &before);
    bench.started_ns = bench.service->vtable->now_ns(bench.service);
    if (e.code == ERR_OK)
        e = submit_all(&bench, &data);
    uint64_t allocations = mem_alloc_count();
    if (e.code == ERR_OK)
        e = read_all(&bench);
    out->loop_allocations = mem_alloc_count() - allocations;
    out->elapsed_ns = bench.service->vtable->now_ns(bench.service) - bench.started_ns;
    for (uint32_t i = 0; bench.prompts && i < options->num_prompts; i++)
        if (bench.prompts[i].stream)
            bench.service->vtable->stream_release(bench.prompts[i].stream);
    if (e.code == ERR_OK)
        summarise(&bench, engine, &before);
    mem_free(bench.prompts);
    bench_data_free(&data);
    return e;
}
