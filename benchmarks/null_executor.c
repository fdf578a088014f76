#include "benchmarks/null_executor.h"

static const struct executor_info *info(void *context)
{
    return &((struct null_executor *)context)->info;
}

static err_t create_step(void *context, struct step **out)
{
    const struct executor_info *const i = info(context);
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

static err_t forward(void *context, struct step *step)
{
    (void)step;
    const struct null_executor *null_model = context;
    if (null_model->forward)
        null_model->forward(null_model->context);
    return err_ok();
}

static err_t sample(void *context, struct step *step, const uint32_t *const *masks)
{
    (void)masks;
    const struct null_executor *null_model = context;
    uint32_t token = null_model->token ? null_model->token(null_model->context) : 1;
    for (uint32_t i = 0; i < step->n_outputs; i++)
        step->results[i] = (struct step_result){.n_tokens = 1, .token_ids = {token}};
    return err_ok();
}

static err_t collect(void *context, struct step *step)
{
    (void)context, (void)step;
    return err_ok();
}

static const struct executor_vtable NULL_EXECUTOR = {
    .info = info,
    .step_create = create_step,
    .step_destroy = destroy_step,
    .slot_set = set_slot,
    .forward = forward,
    .sample = sample,
    .collect = collect,
};

struct executor null_executor_of(struct null_executor *null_model)
{
    return (struct executor){.vtable = &NULL_EXECUTOR, .context = null_model};
}
