#include "benchmarks/loop_overhead.h"

#include "base/alloc.h"
#include "benchmarks/throughput.h"

enum { OVERHEAD_VOCAB = 32000, OVERHEAD_MODEL_LEN = 8192, OVERHEAD_BATCHED_TOKENS = 2048 };

static const struct executor_info *info(void *context)
{
    return context;
}

static err_t create_step(void *context, struct step **out)
{
    const struct executor_info *const i = context;
    struct step_capacity capacity = {
        .rows = i->max_num_batched_tokens,
        .seqs = i->max_num_seqs,
        .outputs = i->max_num_batched_tokens,
        .copies = i->max_num_seqs,
        .blocks_per_seq = i->max_model_len / i->block_tokens,
        .kv_groups = 1,
    };
    return step_create(&capacity, out);
}

static void destroy_step(void *context, struct step *step)
{
    (void)context;
    step_destroy(step);
}

static void set_slot(void *context, uint32_t slot, const struct sampler_params *params,
                     const struct sampler_history *history)
{
    (void)context, (void)slot, (void)params, (void)history;
}

static err_t nothing(void *context, struct step *step)
{
    (void)context, (void)step;
    return err_ok();
}

static err_t sample_constant(void *context, struct step *step, const uint32_t *const *masks)
{
    (void)context, (void)masks;
    for (uint32_t i = 0; i < step->n_outputs; i++)
        step->results[i] = (struct step_result){.n_tokens = 1, .token_ids = {1}};
    return err_ok();
}

static const struct executor_vtable STUB = {
    .info = info,
    .step_create = create_step,
    .step_destroy = destroy_step,
    .slot_set = set_slot,
    .forward = nothing,
    .sample = sample_constant,
    .collect = nothing,
};

err_t loop_overhead_run(uint32_t n_seqs, uint32_t input_len, uint32_t output_len,
                        struct loop_overhead_result *out)
{
    struct executor_info stub_info = {
        .architecture = "none",
        .dtype = "none",
        .quantization = "none",
        .vocab_size = OVERHEAD_VOCAB,
        .max_model_len = OVERHEAD_MODEL_LEN,
        .num_kv_blocks = n_seqs * ((input_len + output_len) / 16 + 2),
        .block_tokens = 16,
        .max_num_seqs = n_seqs,
        .max_num_batched_tokens = OVERHEAD_BATCHED_TOKENS,
        .steps_in_flight = 1,
    };
    struct executor executor = {.vtable = &STUB, .context = &stub_info};
    struct engine_options options = engine_options_default();
    struct engine *engine;
    TRY(engine_open_executor(&options, &executor, NULL, &engine));
    struct throughput_options work = {
        .input_len = input_len, .output_len = output_len, .num_prompts = n_seqs};
    struct throughput_result result;
    err_t e = throughput_run(engine, &work, &result);
    engine_close(engine);
    if (e.code != ERR_OK)
        return e;
    *out = (struct loop_overhead_result){
        .n_seqs = n_seqs,
        .steps = result.loop.steps,
        .tokens = result.output_tokens,
        .overhead_us_per_step = (double)result.loop.overhead_ns / 1e3 / (double)result.loop.steps,
        .elapsed_s = (double)result.elapsed_ns / 1e9,
        .allocations = result.loop_allocations,
    };
    return e;
}
