/* How large the loop's own parts are: for their creation, and for the memory plan before it. */
#include "engine/engine_state.h"
#include "model/memory_plan.h"

static uint32_t choose_steps_in_flight(const struct engine_options *options, const struct executor_info *info)
{
    uint32_t steps = options->steps_in_flight ? options->steps_in_flight : info->steps_in_flight;
    return steps < 1 ? 1 : steps > SCHED_STEPS_IN_FLIGHT_MAX ? SCHED_STEPS_IN_FLIGHT_MAX : steps;
}

struct sched_config engine_sched_config(const struct engine_options *options,
                                        const struct executor_info *info)
{
    return (struct sched_config){
        .token_budget = info->max_num_batched_tokens,
        .max_seqs = info->max_num_seqs,
        .max_requests = info->max_num_seqs + options->max_waiting,
        .prefill_chunk = options->prefill_chunk,
        .block_tokens = info->block_tokens,
        .n_blocks = info->num_kv_blocks,
        .max_model_len = info->max_model_len,
        .max_steps_in_flight = choose_steps_in_flight(options, info),
        .policy = options->policy == ENGINE_PRIORITY ? SCHED_PRIORITY : SCHED_FCFS,
        .prefix_cache = !options->disable_prefix_caching,
        .tenant_cached_blocks_max = (uint32_t)(options->tenant_cache_share * info->num_kv_blocks),
    };
}

size_t engine_command_capacity(uint32_t max_choices)
{
    return (size_t)max_choices * COMMANDS_PER_CHOICE + COMMANDS_SPARE;
}

/* The running requests are counted at their longest. Those that wait hold their prompts besides: at most
 * max_waiting of them, each as long as a message may be. */
uint64_t engine_planned_bytes(const void *engine_options, const struct memory_plan *plan)
{
    const struct engine_options *options = engine_options;
    const struct executor_info info = executor_sizes_of_plan(plan);
    const struct sched_config config = engine_sched_config(options, &info);
    const struct step_capacity capacity = model_step_capacity(plan);
    uint64_t bytes =
        sizeof(struct engine) + request_registry_bytes() + sched_bytes(&config) +
        mpsc_ring_bytes(sizeof(struct engine_command), engine_command_capacity(config.max_requests));
    if (config.prefix_cache)
        bytes += kv_hub_bytes(config.n_blocks, config.block_tokens);
    /* The model's plan has the first step. */
    bytes += (config.max_steps_in_flight - 1) * (uint64_t)step_bytes(&capacity);
    uint64_t per_seq = config.max_steps_in_flight * sizeof(struct flight_seq) + sizeof(struct sched_result) +
                       stream_bytes(plan->max_model_len);
    return bytes + config.max_seqs * per_seq;
}
