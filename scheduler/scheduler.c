#include "scheduler/scheduler.h"

#include <inttypes.h>
#include "scheduler/sched_internal.h"

static err_t check_range(const char *name, uint32_t value, uint32_t min, uint32_t max)
{
    if (value < min || value > max)
        return err_new(ERR_INVALID_ARGUMENT, "scheduler: %s is %" PRIu32 ", must be %" PRIu32 "..%" PRIu32,
                       name, value, min, max);
    return err_ok();
}

static err_t check_config(const struct sched_config *config)
{
    TRY(check_range("token_budget", config->token_budget, 1, SCHED_TOKEN_BUDGET_MAX));
    TRY(check_range("max_seqs", config->max_seqs, 1, SCHED_SEQS_MAX));
    TRY(check_range("max_requests", config->max_requests, 1, SCHED_REQUESTS_MAX));
    TRY(check_range("prefill_chunk", config->prefill_chunk, 0, SCHED_TOKEN_BUDGET_MAX));
    TRY(check_range("block_tokens", config->block_tokens, 1, BLOCK_TOKENS_MAX));
    TRY(check_range("n_blocks", config->n_blocks, 1, SCHED_BLOCKS_MAX));
    TRY(check_range("max_model_len", config->max_model_len, 2, SCHED_MODEL_LEN_MAX));
    TRY(check_range("max_steps_in_flight", config->max_steps_in_flight, 1, SCHED_STEPS_IN_FLIGHT_MAX));
    TRY(check_range("policy", (uint32_t)config->policy, SCHED_FCFS, SCHED_PRIORITY));
    return err_ok();
}

static void sched_carve(struct sched *sched, struct carver *carver)
{
    const struct sched_config *config = &sched->config;
    uint32_t longest = (uint32_t)div_up(config->max_model_len, config->block_tokens);
    sched->table_stride = longest < config->n_blocks ? longest : config->n_blocks;
    block_pool_carve(&sched->pool, carver, config->n_blocks);
    prefix_cache_carve(&sched->cache, carver, config->n_blocks);
    request_queue_carve(&sched->queue, carver, config->max_requests);
    sched->requests = carve(carver, config->max_requests, sizeof *sched->requests);
    sched->free_handles = carve(carver, config->max_requests, sizeof *sched->free_handles);
    sched->released = carve(carver, config->max_requests, sizeof *sched->released);
    sched->slots = carve(carver, config->max_seqs, sizeof *sched->slots);
    sched->tables = carve(carver, config->max_seqs, sched->table_stride * sizeof *sched->tables);
    sched->free_slots = carve(carver, config->max_seqs, sizeof *sched->free_slots);
    sched->running = carve(carver, config->max_seqs, sizeof *sched->running);
    for (uint32_t i = 0; i < SCHED_STEPS_IN_FLIGHT_MAX; i++)
        sched->steps[i].seqs = carve(carver, config->max_seqs, sizeof *sched->steps[i].seqs);
    sched->plan_seqs = carve(carver, config->max_seqs, sizeof *sched->plan_seqs);
    sched->preempted_ids = carve(carver, config->max_seqs, sizeof *sched->preempted_ids);
    sched->check_owners = carve(carver, config->n_blocks, sizeof *sched->check_owners);
}

static void sched_set_config(struct sched *sched, const struct sched_config *config, struct hash128 hash_mask)
{
    sched->config = *config;
    if (sched->config.prefill_chunk == 0)
        sched->config.prefill_chunk = config->token_budget;
    sched->cache.enabled = config->prefix_cache;
    sched->cache.block_tokens = config->block_tokens;
    sched->cache.tenant_free_blocks_max = config->tenant_cached_blocks_max;
    sched->cache.key[0] = config->hash_key[0];
    sched->cache.key[1] = config->hash_key[1];
    sched->cache.hash_mask = hash_mask;
    sched->cache.observer = config->prefix_observer;
}

size_t sched_bytes(const struct sched_config *config)
{
    struct sched measured = {0};
    struct carver carver = {0};
    sched_set_config(&measured, config, (struct hash128){0, 0});
    (void)carve(&carver, 1, sizeof measured);
    sched_carve(&measured, &carver);
    return carver.bytes;
}

err_t sched_create_masked(const struct sched_config *config, struct hash128 hash_mask, struct sched **out)
{
    *out = NULL;
    TRY(check_config(config));
    struct carver carver = {0};
    TRY(arena_create(sched_bytes(config), &carver.arena));
    struct sched *sched = carve(&carver, 1, sizeof *sched);
    sched->arena = carver.arena;
    sched_set_config(sched, config, hash_mask);
    sched_carve(sched, &carver);
    arena_seal(sched->arena);

    sched->cache.pool = &sched->pool;
    block_pool_init(&sched->pool);
    prefix_cache_init(&sched->cache);
    request_queue_init(&sched->queue, config->max_requests);
    sched->n_free_handles = config->max_requests;
    for (uint32_t i = 0; i < config->max_requests; i++)
        sched->free_handles[i] = config->max_requests - 1 - i;
    sched->n_free_slots = config->max_seqs;
    for (uint32_t i = 0; i < config->max_seqs; i++)
        sched->free_slots[i] = config->max_seqs - 1 - i;
    sched->plan.seqs = sched->plan_seqs;
    sched->plan.preempted_ids = sched->preempted_ids;
    *out = sched;
    return err_ok();
}

err_t sched_create(const struct sched_config *config, struct sched **out)
{
    return sched_create_masked(config, (struct hash128){UINT64_MAX, UINT64_MAX}, out);
}

void sched_destroy(struct sched *sched)
{
    if (sched != NULL)
        arena_destroy(sched->arena);
}

err_t sched_check_fits(const struct sched_config *config, uint64_t n_tokens)
{
    if (n_tokens > config->max_model_len)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%" PRIu64 " tokens (prompt and most output) exceed max_model_len %" PRIu32, n_tokens,
                       config->max_model_len);
    /* The last token is drawn and never computed. */
    uint64_t n_positions = n_tokens > 1 ? n_tokens - 1 : 1;
    uint64_t n_blocks = (n_positions + config->block_tokens - 1) / config->block_tokens;
    if (n_blocks > config->n_blocks)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%" PRIu64 " tokens (prompt and most output) need %" PRIu64 " KV blocks of %" PRIu32
                       " tokens, the store has %" PRIu32,
                       n_tokens, n_blocks, config->block_tokens, config->n_blocks);
    return err_ok();
}

static struct request_key make_key(const struct sched *sched, const struct sched_request *ask)
{
    struct request_key key = {.arrival_ns = ask->arrival_ns, .sequence = sched->last_sequence};
    if (sched->config.policy == SCHED_PRIORITY) {
        key.priority = ask->priority;
        key.deadline_ns = ask->deadline_ns == 0 ? INT64_MAX : ask->deadline_ns;
    }
    return key;
}

err_t sched_submit(struct sched *sched, const struct sched_request *ask, uint32_t *handle)
{
    uint64_t n_known = (uint64_t)ask->n_prompt + ask->n_output;
    if (ask->n_prompt == 0 || ask->max_output == 0 || ask->tokens == NULL)
        return err_new(ERR_INVALID_ARGUMENT,
                       "request %" PRIu64 ": needs tokens, n_prompt >= 1 and max_output >= 1, has %" PRIu32
                       " and %" PRIu32,
                       ask->id, ask->n_prompt, ask->max_output);
    TRY(sched_check_fits(&sched->config, n_known + ask->max_output));
    if (sched->n_free_handles == 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "queue is full: %" PRIu32 " requests are waiting or running",
                       sched->config.max_requests);

    *handle = sched->free_handles[--sched->n_free_handles];
    struct request *request = &sched->requests[*handle];
    uint32_t generation = request->generation + 1;
    *request = (struct request){
        .ask = *ask,
        .state = REQUEST_WAITING,
        .generation = generation,
        .n_known = (uint32_t)n_known,
        .slot = SLOT_NONE,
    };
    sched->last_sequence++;
    sched->queue.keys[*handle] = make_key(sched, ask);
    request_queue_push(&sched->queue, *handle);
    sched->n_waiting++;
    sched->is_stalled = false;
    return err_ok();
}

static struct request *request_of(const struct sched *sched, uint32_t handle)
{
    ASSERT(handle < sched->config.max_requests);
    ASSERT(sched->requests[handle].state != REQUEST_FREE);
    return &sched->requests[handle];
}

void sched_cancel(struct sched *sched, uint32_t handle)
{
    struct request *request = request_of(sched, handle);
    if (request->state == REQUEST_WAITING) {
        request_queue_remove(&sched->queue, handle);
        sched->n_waiting--;
    } else if (request->state == REQUEST_RUNNING) {
        running_remove(sched, request->slot);
        slot_detach(sched, request->slot);
    } else {
        return;
    }
    sched->n_paused -= request->is_paused;
    request->state = REQUEST_ENDING;
    request_try_release(sched, handle);
    sched->is_stalled = false;
}

void sched_pause(struct sched *sched, uint32_t handle, bool paused)
{
    struct request *request = request_of(sched, handle);
    bool is_live = request->state == REQUEST_WAITING || request->state == REQUEST_RUNNING;
    if (!is_live || request->is_paused == paused)
        return;
    request->is_paused = paused;
    sched->n_paused = paused ? sched->n_paused + 1 : sched->n_paused - 1;
    if (request->state == REQUEST_WAITING) {
        if (paused)
            request_queue_remove(&sched->queue, handle);
        else
            request_queue_push(&sched->queue, handle);
    }
    sched->is_stalled = false;
}

bool sched_is_current(const struct sched *sched, uint32_t handle, uint32_t generation)
{
    return handle < sched->config.max_requests && sched->requests[handle].state == REQUEST_RUNNING &&
           sched->requests[handle].generation == generation;
}

bool sched_pop_released(struct sched *sched, uint64_t *id)
{
    if (sched->n_released == 0)
        return false;
    uint32_t handle = sched->released[sched->first_released];
    sched->first_released = (sched->first_released + 1) % sched->config.max_requests;
    sched->n_released--;
    *id = sched->requests[handle].ask.id;
    sched->requests[handle].state = REQUEST_FREE;
    sched->free_handles[sched->n_free_handles++] = handle;
    return true;
}

void sched_get_stats(const struct sched *sched, struct sched_stats *out)
{
    *out = (struct sched_stats){
        .n_waiting = sched->n_waiting,
        .n_running = sched->n_running,
        .n_paused = sched->n_paused,
        .n_steps_in_flight = sched_n_in_flight(sched),
        .blocks_total = sched->pool.n_blocks,
        .blocks_used = sched->pool.n_blocks - block_pool_n_free(&sched->pool),
        .blocks_cached = sched->pool.cached.n,
        .preemptions = sched->n_preemptions,
        .prefix_query_tokens = sched->n_prefix_query_tokens,
        .prefix_hit_tokens = sched->n_prefix_hit_tokens,
        .steps = sched->last_planned_id,
        .rows = sched->n_rows_planned,
    };
}

void sched_reset_prefix_cache(struct sched *sched)
{
    if (sched->cache.enabled)
        prefix_cache_reset(&sched->cache);
}
