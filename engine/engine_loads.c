/* What the loop counts, and how others read it. */
#include <string.h>
#include "api/request_log.h"
#include "engine/engine_state.h"

static const int64_t NS_PER_S = 1000000000;

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Tokens per second over windows of at least a second. */
static void count_window(struct engine *engine, int64_t now_ns)
{
    int64_t window_ns = now_ns - engine->window_start_ns;
    if (window_ns < NS_PER_S)
        return;
    double rate = (double)engine->window_tokens * (double)NS_PER_S / (double)window_ns;
    atomic_store(&engine->counters.tokens_per_s_bits, bits_of(rate));
    engine->window_start_ns = now_ns;
    engine->window_tokens = 0;
}

void engine_count_step(struct engine *engine, int64_t now_ns, uint32_t n_rows, uint32_t n_drawn)
{
    struct engine_counters *counters = &engine->counters;
    metric_record_alone(&engine->metrics.iteration_tokens, &METRIC_BUCKETS_STEP_TOKENS, n_rows);
    atomic_fetch_add(&counters->steps, 1);
    atomic_fetch_add(&counters->generation_tokens, n_drawn);
    engine->window_tokens += n_drawn;
    count_window(engine, now_ns);
}

static uint64_t span_ns(int64_t begin_ns, int64_t end_ns)
{
    return end_ns > begin_ns ? (uint64_t)(end_ns - begin_ns) : 0;
}

void engine_count_token(struct engine *engine, const struct choice *choice, int64_t now_ns)
{
    if (choice->first_token_ns < 0)
        metric_record_alone(&engine->metrics.time_to_first_token, &METRIC_BUCKETS_FIRST_TOKEN,
                            span_ns(choice->stream->submitted_ns, now_ns));
    else
        metric_record_alone(&engine->metrics.inter_token_latency, &METRIC_BUCKETS_BETWEEN_TOKENS,
                            span_ns(choice->last_token_ns, now_ns));
}

void engine_count_turn(struct engine *engine, int64_t turn_ns, int64_t executed_ns)
{
    struct engine_counters *counters = &engine->counters;
    atomic_fetch_add(&counters->overhead_ns, turn_ns - executed_ns);
    int64_t smoothed_ns = atomic_load(&counters->step_ns);
    atomic_store(&counters->step_ns, smoothed_ns ? smoothed_ns + (turn_ns - smoothed_ns) / 8 : turn_ns);
    metric_record_alone(&engine->metrics.step_time, &METRIC_BUCKETS_STEP, span_ns(0, turn_ns));
    metric_add(&engine->metrics.loop_overhead[0], span_ns(executed_ns, turn_ns));
}

void engine_count_request(struct engine *engine, const struct sampling_params *params)
{
    metric_record(&engine->metrics.request_params_n, &METRIC_BUCKETS_CHOICES, params->n, 1);
    metric_record(&engine->metrics.request_params_max_tokens, &METRIC_BUCKETS_TOKENS, params->max_tokens, 1);
}

static struct request_log_name log_name(const struct engine *engine, const struct stream *stream)
{
    return (struct request_log_name){
        .id = stream->request_id,
        .tenant = stream->tenant,
        .model = engine->model_info.model,
        .door = stream->door,
    };
}

void engine_count_left(struct engine *engine, const struct stream *stream)
{
    metric_add(&engine->metrics.request_success[metric_reason(FINISH_ABORT)],
               stream->n_choices - stream->n_done);
    const struct request_log_name name = log_name(engine, stream);
    for (uint32_t i = 0; i < stream->n_choices; i++) {
        const struct choice *choice = &stream->choices[i];
        if (!choice->reader_done)
            request_log_left(&name, i, stream->n_prompt, choice->n_delivered);
    }
}

void engine_count_finish(struct engine *engine, const struct choice *choice, const struct event *finish)
{
    struct metrics *m = &engine->metrics;
    const struct timings *timings = &finish->timings;
    const struct usage *usage = &finish->usage;
    const struct request_log_name name = log_name(engine, choice->stream);
    request_log_finished(&name, finish);
    metric_add(&m->request_success[metric_reason(finish->finish_reason)], 1);
    metric_record(&m->e2e_latency, &METRIC_BUCKETS_REQUEST,
                  span_ns(choice->stream->submitted_ns, clock_now_ns(engine->clock)), 1);
    metric_record(&m->request_prompt_tokens, &METRIC_BUCKETS_TOKENS, usage->prompt_tokens, 1);
    metric_record(&m->request_generation_tokens, &METRIC_BUCKETS_TOKENS, usage->completion_tokens, 1);
    if (timings->queue_ns < 0)
        return; /* never scheduled */
    metric_record(&m->queue_time, &METRIC_BUCKETS_REQUEST, span_ns(0, timings->queue_ns), 1);
    metric_record(&m->prefill_kv_computed, &METRIC_BUCKETS_TOKENS,
                  usage->prompt_tokens - usage->cached_tokens, 1);
    if (timings->prefill_ns < 0)
        return; /* no token */
    uint64_t decode_ns = span_ns(0, timings->decode_ns);
    metric_record(&m->prefill_time, &METRIC_BUCKETS_REQUEST, span_ns(0, timings->prefill_ns), 1);
    metric_record(&m->decode_time, &METRIC_BUCKETS_REQUEST, decode_ns, 1);
    metric_record(&m->inference_time, &METRIC_BUCKETS_REQUEST, span_ns(0, timings->prefill_ns) + decode_ns,
                  1);
    if (usage->completion_tokens > 1)
        metric_record(&m->time_per_output_token, &METRIC_BUCKETS_BETWEEN_TOKENS,
                      decode_ns / (usage->completion_tokens - 1), 1);
}

void engine_count_state(struct engine *engine)
{
    struct engine_counters *counters = &engine->counters;
    struct sched_stats stats;
    sched_get_stats(engine->sched, &stats);
    atomic_store_explicit(&counters->waiting, stats.n_waiting, memory_order_relaxed);
    atomic_store_explicit(&counters->running, stats.n_running, memory_order_relaxed);
    atomic_store_explicit(&counters->paused, stats.n_paused, memory_order_relaxed);
    atomic_store_explicit(&counters->blocks_used, stats.blocks_used, memory_order_relaxed);
    atomic_store_explicit(&counters->blocks_cached, stats.blocks_cached, memory_order_relaxed);
    atomic_store_explicit(&counters->prefix_queries, stats.prefix_query_tokens, memory_order_relaxed);
    atomic_store_explicit(&counters->prefix_hits, stats.prefix_hit_tokens, memory_order_relaxed);
    if (stats.n_running == 0)
        count_window(engine, clock_now_ns(engine->clock));
}

/* Steps that the waiting ones need before a newcomer's first token, at the smoothed time of a step. What the
 * prefix cache has given so far it is expected to give again. */
static int64_t predict_ttft_ns(const struct engine *engine, uint32_t waiting)
{
    int64_t step_ns = atomic_load(&engine->counters.step_ns);
    if (step_ns <= 0)
        return -1;
    uint64_t requests = atomic_load(&engine->counters.requests);
    uint64_t hits = atomic_load(&engine->counters.prefix_hits);
    uint64_t tokens = atomic_load(&engine->counters.prompt_tokens);
    uint64_t prompt = requests && tokens > hits ? (tokens - hits) / requests : 0;
    uint64_t budget = engine->info->max_num_batched_tokens;
    uint64_t steps = 1 + ((uint64_t)waiting + 1) * prompt / budget;
    return (int64_t)steps * step_ns;
}

int64_t engine_least_wait_ns(const struct engine *engine, uint32_t *waiting)
{
    *waiting = atomic_load(&engine->counters.waiting);
    if (*waiting == 0 || engine->options.policy != ENGINE_FCFS)
        return 0;
    int64_t predicted_ns = predict_ttft_ns(engine, *waiting);
    return predicted_ns > 0 ? predicted_ns / 2 : 0;
}

void engine_loads(struct service *service, struct loads *out)
{
    struct engine *engine = (struct engine *)service;
    const struct engine_counters *counters = &engine->counters;
    engine_collect_garbage(engine);
    /* Before the total: never more than were there. */
    uint64_t n_finished = atomic_load(&counters->finished);
    *out = (struct loads){
        .requests_waiting = atomic_load(&counters->waiting),
        .requests_running = atomic_load(&counters->running),
        .requests_paused = atomic_load(&counters->paused),
        .max_num_seqs = engine->info->max_num_seqs,
        .kv_blocks_total = engine->info->num_kv_blocks,
        .kv_blocks_used = atomic_load(&counters->blocks_used),
        .kv_blocks_cached = atomic_load(&counters->blocks_cached),
        .kv_block_tokens = engine->info->block_tokens,
        .prefix_queries_tokens = atomic_load(&counters->prefix_queries),
        .prefix_hit_tokens = atomic_load(&counters->prefix_hits),
        .prompt_tokens_total = atomic_load(&counters->prompt_tokens),
        .generation_tokens_total = atomic_load(&counters->generation_tokens),
        .requests_total = atomic_load(&counters->requests),
        .requests_finished = n_finished,
        .preemptions_total = atomic_load(&counters->preemptions),
        .steps_total = atomic_load(&counters->steps),
        .tokens_per_s = double_of(atomic_load(&counters->tokens_per_s_bits)),
        .step_running = atomic_load(&counters->step_running),
        .failed = atomic_load(&engine->failed),
    };
    out->predicted_ttft_ns = predict_ttft_ns(engine, out->requests_waiting);
    int64_t heartbeat_ns = atomic_load(&counters->heartbeat_ns); /* before the clock: never in the future */
    out->heartbeat_age_ns = clock_now_ns(engine->clock) - heartbeat_ns;
}
