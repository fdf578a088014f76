#include "benchmarks/decode_bench.h"

#include "base/alloc.h"
#include "base/event_count.h"
#include "benchmarks/bench_data.h"

enum {
    DECODE_SETTLE_STEPS = 8,
    DECODE_LAG_STEPS = 128,
    DECODE_FAR_BEHIND_STEPS = 32, /* with twice as many not read, a sequence is paused: engine/stream.h */
    DECODE_TRIES = 16,
};

struct decode_run {
    const struct decode_options *options;
    struct service *service;
    uint64_t seed;
    struct stream **streams; /* [batch] */
    bool *has_first;         /* [batch] */
    uint32_t prompt_len, output_len;
    uint32_t spare_steps; /* of output_len, beyond what a reader who misses nothing needs */
    uint32_t n_first;
    uint64_t n_tokens;  /* of all sequences, so far */
    uint64_t n_settled; /* n_tokens at which the measured part may begin; UINT64_MAX = not known yet */
    uint64_t n_unseen;  /* steps that were over when the reader came for the next one */
    uint64_t farthest;  /* most steps that one read took, in the measured part */
    bool ended;         /* some sequence */
};

static err_t plan_lengths(struct decode_run *run)
{
    const struct decode_options *options = run->options;
    if (options->step_tokens <= options->batch)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--max-num-batched-tokens %u leaves no room for prompts beside %u decoding sequences",
                       options->step_tokens, options->batch);
    uint32_t before_middle = DECODE_SETTLE_STEPS + options->n_steps / 2;
    if (options->context <= before_middle)
        return err_new(ERR_INVALID_ARGUMENT,
                       "a context of %u has no room for a prompt: %u steps need more than %u tokens",
                       options->context, options->n_steps, before_middle);
    run->prompt_len = options->context - before_middle;
    if (options->shared_prefix_len >= run->prompt_len)
        return err_new(ERR_INVALID_ARGUMENT, "--shared-prefix-len %u is not below the prompts' %u tokens",
                       options->shared_prefix_len, run->prompt_len);
    /* The first sequence decodes while the others' prompts come in, and must not end before the last has been
     * measured, even by a reader that falls behind for a while. Whoever is not needed any more is cancelled.
     */
    uint64_t room = options->step_tokens - options->batch;
    uint64_t prefill_steps = ((uint64_t)options->batch * run->prompt_len + room - 1) / room;
    uint64_t needed = prefill_steps + DECODE_SETTLE_STEPS + options->n_steps;
    uint64_t wanted = needed + options->n_steps + DECODE_LAG_STEPS;
    uint32_t longest = run->service->vtable->model_info(run->service)->max_model_len;
    uint32_t left = longest > run->prompt_len ? longest - run->prompt_len : 1;
    run->output_len = wanted < left ? (uint32_t)wanted : left;
    run->spare_steps = run->output_len > needed ? run->output_len - (uint32_t)needed : 0;
    return err_ok();
}

/* One prompt before the others, so that these find the prefix in the cache. */
static err_t run_first(struct decode_run *run, struct bench_prompt prompt)
{
    prompt.output_len = 1;
    struct request request = bench_prompt_request(&prompt, 0);
    struct event_count *news = run->service->vtable->progress(run->service);
    struct stream *stream;
    TRY(run->service->vtable->submit(run->service, &request, &stream));
    struct event event = {0};
    while (event.kind != EVENT_FINISHED) {
        uint32_t seen = event_count_read(news);
        while (event.kind != EVENT_FINISHED && run->service->vtable->stream_next(stream, &event))
            continue;
        if (event.kind != EVENT_FINISHED)
            (void)event_count_wait(news, seen, -1);
    }
    run->service->vtable->stream_release(stream);
    return event.finish_reason == FINISH_ERROR ? event.error : err_ok();
}

static err_t submit_batch(struct decode_run *run)
{
    const struct decode_options *options = run->options;
    const struct random_data_options random = {
        .num_prompts = options->batch,
        .input_len = run->prompt_len,
        .output_len = run->output_len,
        .vocab_size = run->service->vtable->model_info(run->service)->vocab_size,
        .prefix_len = options->shared_prefix_len,
        .num_prefixes = 1,
        .seed = run->seed,
    };
    struct bench_data data;
    err_t e = bench_data_random(&random, &data);
    if (e.code == ERR_OK && options->shared_prefix_len > 0)
        e = run_first(run, data.prompts[0]);
    for (uint32_t i = 0; i < options->batch && e.code == ERR_OK; i++) {
        struct request request = bench_prompt_request(&data.prompts[i], 0);
        e = run->service->vtable->submit(run->service, &request, &run->streams[i]);
    }
    bench_data_free(&data);
    return e;
}

static err_t read_all(struct decode_run *run)
{
    const struct decode_options *options = run->options;
    struct event event;
    uint64_t n_steps = 0;
    for (uint32_t i = 0; i < options->batch; i++) {
        uint64_t before = run->n_tokens;
        while (!run->ended && run->service->vtable->stream_next(run->streams[i], &event)) {
            run->n_tokens += event.n_token_ids;
            if (event.n_token_ids && !run->has_first[i]) {
                run->has_first[i] = true;
                run->n_first++;
            }
            run->ended = event.kind == EVENT_FINISHED;
            if (run->ended && event.finish_reason == FINISH_ERROR)
                return event.error;
        }
        if (n_steps < run->n_tokens - before)
            n_steps = run->n_tokens - before;
    }
    if (n_steps > 1)
        run->n_unseen += n_steps - 1;
    if (run->farthest < n_steps)
        run->farthest = n_steps;
    if (run->n_first == options->batch && run->n_settled == UINT64_MAX)
        run->n_settled = run->n_tokens + (uint64_t)DECODE_SETTLE_STEPS * options->batch;
    return err_ok();
}

static err_t measure(struct decode_run *run, struct decode_result *out)
{
    const struct decode_options *options = run->options;
    struct event_count *news = run->service->vtable->progress(run->service);
    uint64_t began_tokens = 0, wanted = (uint64_t)options->n_steps * options->batch;
    int64_t began_ns = -1;
    for (;;) {
        uint32_t seen = event_count_read(news);
        int64_t now_ns = run->service->vtable->now_ns(run->service);
        uint64_t before = run->n_tokens;
        TRY(read_all(run));
        if (run->ended && (began_ns < 0 || run->n_tokens == began_tokens))
            return err_new(
                ERR_FAILED_PRECONDITION,
                "a sequence of %u + %u tokens ended before all of the batch of %u decoded: a lower "
                "context, or a higher --max-num-batched-tokens or --max-model-len, would help",
                run->prompt_len, run->output_len, options->batch);
        if (began_ns < 0 && run->n_tokens >= run->n_settled && run->n_tokens > before) {
            began_ns = now_ns;
            began_tokens = run->n_tokens;
            run->farthest = 0;
        } else if (began_ns >= 0 && (run->ended || run->n_tokens - began_tokens >= wanted)) {
            out->tokens = run->n_tokens - began_tokens;
            out->elapsed_ns = now_ns - began_ns;
            break;
        }
        (void)event_count_wait(news, seen, -1);
    }
    double outputs = (double)began_tokens + (double)out->tokens / 2;
    out->mean_context = (double)run->prompt_len + outputs / options->batch;
    out->tok_s = (double)out->tokens * 1e9 / (double)out->elapsed_ns;
    out->ms_per_step = (double)out->elapsed_ns / 1e6 / (double)out->tokens * options->batch;
    return err_ok();
}

/* *again: the measured part is short, or not to be had, or may have had paused sequences in it, for no other
 * reason than that this thread was kept from reading. */
static err_t run_once(struct service *service, const struct decode_options *options, uint64_t seed,
                      struct decode_result *out, bool *again)
{
    *out = (struct decode_result){0};
    *again = false;
    struct decode_run run = {.options = options, .service = service, .seed = seed, .n_settled = UINT64_MAX};
    TRY(plan_lengths(&run));
    struct loads before, after;
    service->vtable->loads(service, &before);
    run.streams = mem_alloc_array(options->batch, sizeof *run.streams);
    run.has_first = mem_alloc_array(options->batch, sizeof *run.has_first);
    err_t e = err_ok();
    if (!run.streams || !run.has_first)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %u streams", options->batch);
    if (e.code == ERR_OK)
        e = submit_batch(&run);
    if (e.code == ERR_OK) {
        e = measure(&run, out);
        bool is_short = out->tokens < (uint64_t)options->n_steps * options->batch;
        *again = run.farthest > DECODE_FAR_BEHIND_STEPS ||
                 (run.ended && is_short && run.n_unseen > run.spare_steps);
    }
    service->vtable->loads(service, &after);
    out->preemptions = after.preemptions_total - before.preemptions_total;
    for (uint32_t i = 0; run.streams && i < options->batch; i++)
        if (run.streams[i])
            service->vtable->stream_release(run.streams[i]);
    mem_free(run.streams);
    mem_free(run.has_first);
    return e;
}

err_t decode_bench_run(struct service *service, const struct decode_options *options,
                       struct decode_result *out)
{
    bool again = true;
    err_t e = err_ok();
    for (uint64_t i = 0; i < DECODE_TRIES && again; i++) /* other prompts, not in the prefix cache yet */
        e = run_once(service, options, options->seed + (i << 32), out, &again);
    return e;
}
