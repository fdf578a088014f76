/* The model behind the executor's slots. */
#include "base/alloc.h"
#include "engine/engine_state.h"

struct model_executor {
    struct model *model;
    struct executor_info info;
};

static const struct executor_info *info(void *context)
{
    return &((struct model_executor *)context)->info;
}

static err_t create_step(void *context, struct step **out)
{
    return model_step_create(((struct model_executor *)context)->model, out);
}

static void destroy_step(void *context, struct step *step)
{
    model_step_destroy(((struct model_executor *)context)->model, step);
}

static void set_slot(void *context, uint32_t slot, const struct sampler_params *params,
                     const struct sampler_history *history)
{
    model_slot_set(((struct model_executor *)context)->model, slot, params, history);
}

static err_t forward(void *context, struct step *step)
{
    return model_forward(((struct model_executor *)context)->model, step);
}

static err_t sample(void *context, struct step *step, const uint32_t *const *masks)
{
    return model_sample(((struct model_executor *)context)->model, step, masks);
}

static err_t collect(void *context, struct step *step)
{
    return model_collect(((struct model_executor *)context)->model, step);
}

static bool tend(void *context)
{
    return model_tend(((struct model_executor *)context)->model);
}

static const struct executor_vtable MODEL_EXECUTOR = {
    .info = info,
    .step_create = create_step,
    .step_destroy = destroy_step,
    .slot_set = set_slot,
    .forward = forward,
    .sample = sample,
    .collect = collect,
    .tend = tend,
};

struct executor_info executor_sizes_of_plan(const struct memory_plan *plan)
{
    return (struct executor_info){
        .max_model_len = plan->max_model_len,
        .num_kv_blocks = plan->num_kv_blocks,
        .block_tokens = plan->block_tokens,
        .max_num_seqs = plan->max_num_seqs,
        .max_num_batched_tokens = plan->max_num_batched_tokens,
        .steps_in_flight = 1, /* ops run at once: a second step in flight would only wait */
    };
}

err_t executor_over_model(struct model *model, struct executor *out)
{
    struct model_executor *context = mem_alloc(sizeof *context);
    if (!context)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the executor");
    const struct model_description *description = model_describe(model);
    const struct memory_plan *plan = model_memory_plan(model);
    context->model = model;
    context->info = executor_sizes_of_plan(plan);
    context->info.architecture = description->architecture;
    context->info.dtype = description->dtype;
    context->info.kv_dtype = description->kv_dtype;
    context->info.quantization = description->quantization;
    context->info.vocab_size = description->vocab_size;
    context->info.n_parameters = description->n_parameters;
    context->info.weights_fingerprint = description->weights_fingerprint;
    context->info.arithmetic_fingerprint = description->arithmetic_fingerprint;
    context->info.steps_in_flight = model_steps_in_flight(model);
    *out = (struct executor){.vtable = &MODEL_EXECUTOR, .context = context};
    return err_ok();
}

void executor_over_model_free(struct executor *executor)
{
    mem_free(executor->context);
    *executor = (struct executor){0};
}
