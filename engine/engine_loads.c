/* What the loop counts, and how others read it. */
#include <string.h>
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

void engine_count_step(struct engine *engine, int64_t now_ns, uint32_t n_drawn)
{
    struct engine_counters *counters = &engine->counters;
    atomic_fetch_add(&counters->steps, 1);
    atomic_fetch_add(&counters->generation_tokens, n_drawn);
    engine->window_tokens += n_drawn;
    count_window(engine, now_ns);
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

/* Steps that the waiting ones need before a newcomer's first token, at the smoothed time of a step. */
static int64_t predict_ttft_ns(const struct engine *engine, uint32_t waiting)
{
    int64_t step_ns = atomic_load(&engine->counters.step_ns);
    if (step_ns <= 0)
        return -1;
    uint64_t requests = atomic_load(&engine->counters.requests);
    uint64_t prompt = requests ? atomic_load(&engine->counters.prompt_tokens) / requests : 0;
    uint64_t budget = engine->info->max_num_batched_tokens;
    uint64_t steps = 1 + ((uint64_t)waiting + 1) * prompt / budget;
    return (int64_t)steps * step_ns;
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
