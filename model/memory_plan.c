#include "model/memory_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include "base/checked.h"

#define MIB (1024.0 * 1024.0)

struct act_spec model_act_spec(const struct model_config *config, const struct shard *shard,
                               const struct memory_plan *plan, enum model_act act)
{
    size_t rows = plan->max_num_batched_tokens, hidden = config->hidden_size;
    const struct act_spec specs[MODEL_ACTS] = {
        [MODEL_ACT_RESIDUAL] = {ACT_RESIDUAL, rows, hidden},
        [MODEL_ACT_NORMED] = {ACT_HIDDEN, rows, hidden},
        [MODEL_ACT_DELTA] = {ACT_HIDDEN, rows, hidden},
        [MODEL_ACT_QKV] = {ACT_HIDDEN, rows, model_config_qkv_rows(config)},
        [MODEL_ACT_ATTENTION] = {ACT_HIDDEN, rows, model_config_attention_width(config)},
        [MODEL_ACT_GATE_UP] = {ACT_HIDDEN, rows, 2 * (size_t)config->intermediate_size},
        [MODEL_ACT_MLP] = {ACT_HIDDEN, rows, config->intermediate_size},
        [MODEL_ACT_OUTPUT_RESIDUAL] = {ACT_RESIDUAL, plan->logits_rows, hidden},
        [MODEL_ACT_OUTPUT_ATTENTION] = {ACT_HIDDEN, plan->logits_rows, model_config_attention_width(config)},
        [MODEL_ACT_OUTPUT_HIDDEN] = {ACT_HIDDEN, plan->logits_rows, hidden},
        [MODEL_ACT_LOGITS_PART] = {ACT_LOGITS, plan->logits_rows, shard->n_ranks > 1 ? shard->n_tokens : 0},
        [MODEL_ACT_LOGITS] = {ACT_LOGITS, plan->logits_rows, config->vocab_size},
    };
    return specs[act];
}

enum kv_dtype model_kv_dtype(enum model_kv_cache kv_cache, enum model_dtype dtype)
{
    switch (kv_cache) {
    case MODEL_KV_BF16:
        return KV_BF16;
    case MODEL_KV_FP8:
        return KV_FP8;
    case MODEL_KV_INT8:
        return KV_INT8;
    case MODEL_KV_AUTO:
        break;
    }
    return dtype == MODEL_DTYPE_F32 ? KV_F32 : KV_BF16;
}

const char *model_kv_dtype_name(enum kv_dtype dtype)
{
    static const char *const names[] = {
        [KV_F32] = "float32", [KV_BF16] = "bfloat16", [KV_FP8] = "fp8", [KV_INT8] = "int8"};
    return names[dtype];
}

struct kv_desc model_kv_desc(const struct model_config *config, enum kv_dtype dtype, uint32_t n_blocks)
{
    return (struct kv_desc){.dtype = dtype,
                            .n_blocks = n_blocks,
                            .block_tokens = MODEL_BLOCK_TOKENS,
                            .n_kv_heads = config->n_kv_heads,
                            .head_dim = config->head_dim,
                            .group = 0};
}

struct step_capacity model_step_capacity(const struct memory_plan *plan)
{
    return (struct step_capacity){
        .rows = plan->max_num_batched_tokens,
        .seqs = plan->max_num_seqs,
        .outputs = plan->max_num_batched_tokens,
        .copies = plan->max_num_seqs,
        .blocks_per_seq = (uint32_t)div_up(plan->max_model_len, MODEL_BLOCK_TOKENS),
        .kv_groups = 1,
    };
}

static size_t largest_weight(const struct model_config *config, const struct shard *shard,
                             const struct memory_plan *plan)
{
    static const enum model_act layers[][2] = {{MODEL_ACT_NORMED, MODEL_ACT_QKV},
                                               {MODEL_ACT_ATTENTION, MODEL_ACT_DELTA},
                                               {MODEL_ACT_NORMED, MODEL_ACT_GATE_UP},
                                               {MODEL_ACT_MLP, MODEL_ACT_DELTA}};
    size_t largest = 0;
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        size_t n_in = model_act_spec(config, shard, plan, layers[i][0]).width;
        size_t n = n_in * model_act_spec(config, shard, plan, layers[i][1]).width;
        largest = n > largest ? n : largest;
    }
    return largest;
}

struct backend_needs model_backend_needs(const struct model_config *config, const struct shard *shard,
                                         const struct memory_plan *plan)
{
    struct backend_needs needs = {
        .step = model_step_capacity(plan),
        .qkv = {config->n_heads, config->n_kv_heads, config->head_dim},
        .vocab_size = config->vocab_size,
        .logits_rows = plan->logits_rows,
        .largest_weight = largest_weight(config, shard, plan),
    };
    for (int act = 0; act < MODEL_ACT_OUTPUT_RESIDUAL; act++) {
        size_t width = model_act_spec(config, shard, plan, (enum model_act)act).width;
        bool is_input = act == MODEL_ACT_NORMED || act == MODEL_ACT_ATTENTION || act == MODEL_ACT_MLP;
        if (is_input && width > needs.widest_in)
            needs.widest_in = width;
        if (!is_input && width > needs.widest_out)
            needs.widest_out = width;
    }
    return needs;
}

struct planner {
    const struct model_config *config;
    const struct shard *shard;
    const struct weight_list *list;
    const struct backend *backend;
    enum kv_dtype kv_dtype;
    const struct model_options *options;
    uint64_t limit_bytes;
};

static uint64_t weights_total(const struct planner *planner)
{
    static const float not_read_yet; /* only that there is a bias counts here */
    uint64_t bytes = 0;
    for (size_t i = 0; i < planner->list->n_matrices; i++) {
        const struct weight_source *source = &planner->list->matrices[i];
        struct weight_desc desc = weight_source_desc(source);
        if (source->n_biases > 0)
            desc.bias = &not_read_yet;
        bytes += planner->backend->vtable->weight_bytes(planner->backend, &desc);
    }
    for (size_t i = 0; i < planner->list->n_vectors; i++) {
        const struct weight_source *source = &planner->list->vectors[i];
        if (source->n_parts > 0)
            bytes += planner->backend->vtable->vector_bytes(planner->backend, source->n_in);
    }
    return bytes;
}

/* Of one matrix at a time. */
static uint64_t loading_total(const struct planner *planner)
{
    uint64_t most = 0;
    for (size_t i = 0; i < planner->list->n_matrices; i++) {
        uint64_t bytes = weight_source_stage_bytes(&planner->list->matrices[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static uint64_t activations_total(const struct planner *planner, const struct memory_plan *plan)
{
    const struct backend_vtable *vtable = planner->backend->vtable;
    uint64_t bytes = 0;
    for (int act = 0; act < MODEL_ACTS; act++) {
        struct act_spec spec = model_act_spec(planner->config, planner->shard, plan, (enum model_act)act);
        if (spec.width == 0)
            continue;
        bytes += vtable->act_bytes(planner->backend, spec.role, spec.rows, spec.width);
    }
    bytes += (planner->config->has_local_rope ? 2 : 1) *
             vtable->rope_bytes(planner->backend, planner->config->head_dim / 2, plan->max_model_len);
    struct backend_needs needs = model_backend_needs(planner->config, planner->shard, plan);
    return bytes + vtable->scratch_bytes(planner->backend, &needs);
}

/* UINT64_MAX where the sum is beyond 64 bits: the largest shapes with the longest contexts are. */
static uint64_t add_saturated(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t kv_total(const struct planner *planner, uint32_t n_blocks)
{
    struct kv_desc desc = model_kv_desc(planner->config, planner->kv_dtype, n_blocks);
    uint64_t layer_bytes = planner->backend->vtable->kv_bytes(planner->backend, &desc), bytes;
    return __builtin_mul_overflow(layer_bytes, planner->config->n_layers, &bytes) ? UINT64_MAX : bytes;
}

static uint32_t blocks_for(uint32_t n_tokens)
{
    return (uint32_t)div_up(n_tokens, MODEL_BLOCK_TOKENS);
}

/* Fills the byte counts for plan's max_model_len, max_num_seqs and num_kv_blocks. */
static void add_up(const struct planner *planner, struct memory_plan *plan)
{
    plan->activations_bytes = activations_total(planner, plan);
    plan->sampler_bytes = planner->backend->vtable->sampler_bytes(
        planner->backend, plan->max_num_seqs, planner->config->vocab_size, plan->max_model_len);
    plan->kv_bytes = kv_total(planner, plan->num_kv_blocks);
    const struct model_options *options = planner->options;
    if (planner->backend->vtable->is_host_memory) {
        plan->engine_bytes = options->engine_bytes ? options->engine_bytes(options->engine_context, plan) : 0;
        plan->program_bytes = options->program_bytes;
    }
    bool loading = planner->backend->vtable->is_host_memory && plan->loading_bytes > plan->engine_bytes;
    uint64_t rest_bytes =
        add_saturated(loading ? plan->loading_bytes : plan->engine_bytes, plan->program_bytes);
    plan->total_bytes = add_saturated(
        add_saturated(plan->weights_bytes + plan->activations_bytes + plan->sampler_bytes, plan->kv_bytes),
        rest_bytes);
}

/* Whether n_seqs sequences, one of them max_model_len long, fit with n_blocks (0 = what that one takes). */
static bool fits(const struct planner *planner, struct memory_plan plan, uint32_t max_model_len,
                 uint32_t n_seqs, uint32_t n_blocks)
{
    plan.max_model_len = max_model_len;
    plan.max_num_seqs = n_seqs;
    plan.num_kv_blocks = n_blocks ? n_blocks : blocks_for(max_model_len);
    add_up(planner, &plan);
    return plan.total_bytes < UINT64_MAX && plan.total_bytes <= planner->limit_bytes;
}

/* The greatest x in [low, high] with fits_x true, where it is true up to some point; low - 1 when none is. */
enum plan_unknown { PLAN_MODEL_LEN, PLAN_SEQS, PLAN_BLOCKS };

static uint32_t greatest_fit(const struct planner *planner, const struct memory_plan *plan,
                             enum plan_unknown unknown, uint32_t low, uint32_t high)
{
    uint32_t best = low - 1;
    while (low <= high) {
        uint32_t middle = low + (high - low) / 2;
        bool ok = fits(planner, *plan, unknown == PLAN_MODEL_LEN ? middle : plan->max_model_len,
                       unknown == PLAN_SEQS ? middle : plan->max_num_seqs,
                       unknown == PLAN_BLOCKS ? middle : plan->num_kv_blocks);
        if (ok) {
            best = middle;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    return best;
}

/* Of a card what the process holds beside it is no part, and which of them is too small is said. */
static err_t short_of_memory(const struct planner *planner, const struct memory_plan *plan,
                             const char *advice)
{
    const struct backend *backend = planner->backend;
    bool on_host = backend->vtable->is_host_memory;
    char host[96] = "", card[160] = "";
    if (on_host)
        snprintf(host, sizeof host, ", engine %.1f MiB, program %.1f MiB", (double)plan->engine_bytes / MIB,
                 (double)plan->program_bytes / MIB);
    else
        snprintf(card, sizeof card, " on %.96s, which has %.1f MiB for a model",
                 backend->vtable->library(backend)->card, (double)plan->available_bytes / MIB);
    return err_new(
        ERR_RESOURCE_EXHAUSTED,
        "not enough memory%s: weights %.1f MiB, activations %.1f MiB, sampling %.1f MiB%s and %.1f "
        "MiB of KV cache for --max-model-len %u and --max-num-seqs %u take %.1f MiB of %.1f MiB; "
        "%s%s",
        card, (double)plan->weights_bytes / MIB, (double)plan->activations_bytes / MIB,
        (double)plan->sampler_bytes / MIB, host, (double)plan->kv_bytes / MIB, plan->max_model_len,
        plan->max_num_seqs, (double)plan->total_bytes / MIB, (double)planner->limit_bytes / MIB, advice,
        on_host ? "" : "; --device cpu runs without the GPU");
}

static err_t too_little_memory(const struct planner *planner, const struct memory_plan *wanted)
{
    struct memory_plan plan = *wanted;
    if (plan.num_kv_blocks == 0)
        plan.num_kv_blocks = blocks_for(plan.max_model_len);
    add_up(planner, &plan);
    plan.num_kv_blocks = wanted->num_kv_blocks;
    uint32_t len = greatest_fit(planner, &plan, PLAN_MODEL_LEN, 1, plan.max_model_len);
    uint32_t seqs = greatest_fit(planner, &plan, PLAN_SEQS, 1, plan.max_num_seqs);
    char advice[200];
    if (plan.num_kv_blocks > 0 && fits(planner, plan, plan.max_model_len, plan.max_num_seqs, 1))
        snprintf(advice, sizeof advice, "%u KV blocks would fit",
                 greatest_fit(planner, &plan, PLAN_BLOCKS, 1, plan.num_kv_blocks));
    else if (len >= MODEL_BLOCK_TOKENS && seqs >= 1)
        snprintf(advice, sizeof advice, "--max-model-len %u or --max-num-seqs %u would fit", len, seqs);
    else if (len >= MODEL_BLOCK_TOKENS)
        snprintf(advice, sizeof advice, "--max-model-len %u would fit", len);
    else if (seqs >= 1)
        snprintf(advice, sizeof advice, "--max-num-seqs %u would fit", seqs);
    else
        snprintf(advice, sizeof advice,
                 "no length fits: use --quantization, fewer --max-num-batched-tokens, or more memory");
    return short_of_memory(planner, &plan, advice);
}

static err_t check_options(const struct model_options *options, const struct model_config *config,
                           struct memory_plan *plan)
{
    plan->max_num_seqs = options->max_num_seqs ? options->max_num_seqs : MODEL_DEFAULT_SEQS;
    plan->max_num_batched_tokens =
        options->max_num_batched_tokens ? options->max_num_batched_tokens : MODEL_DEFAULT_BATCHED_TOKENS;
    if (plan->max_num_seqs > MODEL_SEQS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--max-num-seqs %u exceeds the limit of %d", plan->max_num_seqs,
                       MODEL_SEQS_MAX);
    if (plan->max_num_batched_tokens > MODEL_BATCHED_TOKENS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--max-num-batched-tokens %u exceeds the limit of %d",
                       plan->max_num_batched_tokens, MODEL_BATCHED_TOKENS_MAX);
    if (options->max_model_len > config->max_position_embeddings)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "--max-model-len %u exceeds the model's %u (\"max_position_embeddings\" of config.json)",
            options->max_model_len, config->max_position_embeddings);
    uint64_t held_tokens = (uint64_t)options->num_kv_blocks * MODEL_BLOCK_TOKENS;
    if (options->num_kv_blocks && options->max_model_len > held_tokens)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--max-model-len %u does not fit in %u KV blocks: they hold %" PRIu64 " tokens",
                       options->max_model_len, options->num_kv_blocks, held_tokens);
    plan->max_model_len = options->max_model_len ? options->max_model_len : config->max_position_embeddings;
    if (options->num_kv_blocks && plan->max_model_len > held_tokens)
        plan->max_model_len = (uint32_t)held_tokens;
    plan->num_kv_blocks = options->num_kv_blocks;
    return err_ok();
}

/* As many as the backend likes, but no more than a step of single tokens has. */
static uint32_t logits_rows(uint32_t rows_max, const struct memory_plan *plan)
{
    uint32_t useful = plan->max_num_seqs > LOGITS_ROWS_MIN ? plan->max_num_seqs : LOGITS_ROWS_MIN;
    return rows_max < useful ? rows_max : useful;
}

err_t memory_plan_compute(const struct model_options *options, const struct model_config *config,
                          const struct shard *shard, const struct weight_list *list,
                          const struct backend *backend, struct memory_plan *out)
{
    *out = (struct memory_plan){.n_ranks = shard->n_ranks, .block_tokens = MODEL_BLOCK_TOKENS};
    TRY(check_options(options, config, out));
    out->available_bytes = backend->vtable->memory_available(backend);
    out->logits_rows = logits_rows(backend->vtable->logits_rows_max, out);
    struct planner planner = {.config = config,
                              .shard = shard,
                              .list = list,
                              .backend = backend,
                              .kv_dtype = model_kv_dtype(options->kv_cache, list->dtype),
                              .options = options,
                              .limit_bytes = options->memory_limit_bytes};
    if (planner.limit_bytes == 0)
        planner.limit_bytes = out->available_bytes / 100 * backend->vtable->memory_share_percent;
    out->weights_bytes = weights_total(&planner);
    out->loading_bytes = loading_total(&planner);

    if (!fits(&planner, *out, out->max_model_len, out->max_num_seqs, out->num_kv_blocks)) {
        if (options->max_model_len || options->num_kv_blocks)
            return too_little_memory(&planner, out);
        uint32_t len = greatest_fit(&planner, out, PLAN_MODEL_LEN, 1, out->max_model_len);
        if (len < MODEL_BLOCK_TOKENS)
            return too_little_memory(&planner, out);
        out->max_model_len = len / MODEL_BLOCK_TOKENS * MODEL_BLOCK_TOKENS;
    }
    if (out->num_kv_blocks == 0) {
        uint64_t useful = (uint64_t)out->max_num_seqs * blocks_for(out->max_model_len);
        out->num_kv_blocks = greatest_fit(&planner, out, PLAN_BLOCKS, blocks_for(out->max_model_len),
                                          useful < UINT32_MAX / 2 ? (uint32_t)useful : UINT32_MAX / 2);
    }
    add_up(&planner, out);
    out->kv_bytes_per_token = (kv_total(&planner, 2) - kv_total(&planner, 1)) / MODEL_BLOCK_TOKENS;
    out->max_concurrency = (double)out->num_kv_blocks / (double)blocks_for(out->max_model_len);
    return err_ok();
}

void memory_plan_print(const struct memory_plan *plan, char *text, size_t text_bytes)
{
    char ranks[64] = "", host[96] = "";
    if (plan->n_ranks > 1)
        snprintf(ranks, sizeof ranks, " of each of %u ranks", plan->n_ranks);
    if (plan->engine_bytes + plan->program_bytes > 0)
        snprintf(host, sizeof host, " + engine %.1f MiB + program %.1f MiB", (double)plan->engine_bytes / MIB,
                 (double)plan->program_bytes / MIB);
    snprintf(
        text, text_bytes,
        "memory plan%s: weights %.1f MiB + activations %.1f MiB + sampling %.1f MiB + KV cache %.1f MiB%s = "
        "%.1f MiB (available %.1f MiB)\n"
        "KV cache: %u blocks of %u tokens, %" PRIu64 " bytes a token; longest request %u tokens, %.1f of "
        "them at once\n"
        "a step: up to %u tokens of up to %u sequences",
        ranks, (double)plan->weights_bytes / MIB, (double)plan->activations_bytes / MIB,
        (double)plan->sampler_bytes / MIB, (double)plan->kv_bytes / MIB, host,
        (double)plan->total_bytes / MIB, (double)plan->available_bytes / MIB, plan->num_kv_blocks,
        plan->block_tokens, plan->kv_bytes_per_token, plan->max_model_len, plan->max_concurrency,
        plan->max_num_batched_tokens, plan->max_num_seqs);
}
