#include "scheduler/sched_internal.h"

#include <string.h>

static uint32_t check_list(const struct block_pool *pool, const struct block_list *list,
                           const struct block_links *links, bool is_cached)
{
    uint32_t n = 0, prev = BLOCK_NONE;
    for (uint32_t block = list->head; block != BLOCK_NONE; block = links->next[block]) {
        ASSERT(block < pool->n_blocks && n < pool->n_blocks);
        ASSERT(links->prev[block] == prev);
        ASSERT(pool->n_owners[block] == 0 && pool->is_cached[block] == is_cached);
        prev = block;
        n++;
    }
    ASSERT(list->tail == prev && list->n == n);
    return n;
}

/* Each block is free once or owned exactly as often as tables name it. */
static void check_blocks(const struct sched *sched)
{
    const struct block_pool *pool = &sched->pool;
    uint32_t *owners = sched->check_owners;
    memset(owners, 0, pool->n_blocks * sizeof *owners);
    uint32_t n_draining = 0, n_draining_blocks = 0, n_free_slots = 0;
    for (uint32_t i = 0; i < sched->config.max_seqs; i++) {
        const struct slot *slot = &sched->slots[i];
        n_free_slots += slot->state == SLOT_FREE;
        if (slot->state == SLOT_FREE)
            continue;
        if (slot->state == SLOT_DRAINING) {
            n_draining++;
            n_draining_blocks += slot->n_blocks;
        }
        ASSERT(slot->n_blocks <= sched->table_stride);
        for (uint32_t j = 0; j < slot->n_blocks; j++) {
            ASSERT(sched_table(sched, i)[j] < pool->n_blocks);
            owners[sched_table(sched, i)[j]]++;
        }
    }
    ASSERT(n_free_slots == sched->n_free_slots);
    ASSERT(n_draining == sched->n_draining && n_draining_blocks == sched->n_draining_blocks);

    uint32_t n_used = 0;
    for (uint32_t block = 0; block < pool->n_blocks; block++) {
        ASSERT(owners[block] == pool->n_owners[block]);
        ASSERT(owners[block] <= 1 || pool->is_cached[block]);
        n_used += owners[block] > 0;
    }
    uint32_t n_plain = check_list(pool, &pool->plain, &pool->links, false);
    uint32_t n_cached = check_list(pool, &pool->cached, &pool->links, true);
    ASSERT(n_plain + n_cached + n_used == pool->n_blocks);
}

static bool is_in_bucket(const struct prefix_cache *cache, uint32_t block)
{
    uint32_t i = cache->buckets[cache->entries[block].hash.low & (cache->n_buckets - 1)];
    while (i != BLOCK_NONE && i != block)
        i = cache->entries[i].bucket_next;
    return i == block;
}

static void check_prefix_cache(const struct sched *sched)
{
    const struct prefix_cache *cache = &sched->cache;
    const struct block_pool *pool = &sched->pool;
    if (!cache->enabled) {
        ASSERT(pool->cached.n == 0);
        return;
    }
    uint32_t n_entries = 0, n_tenant_entries = 0, n_free = 0;
    for (uint32_t block = 0; block < pool->n_blocks; block++) {
        const struct prefix_entry *entry = &cache->entries[block];
        ASSERT((entry->serial != 0) == pool->is_cached[block]);
        if (entry->serial == 0)
            continue;
        n_entries++;
        ASSERT(entry->serial <= cache->last_serial && entry->parent_serial < entry->serial);
        ASSERT(is_in_bucket(cache, block));
        ASSERT(prefix_cache_find_tenant(cache, entry->salt) == entry->tenant);
    }
    for (uint32_t i = 0; i < pool->n_blocks; i++) {
        const struct prefix_tenant *tenant = &cache->tenants[i];
        n_tenant_entries += tenant->n_entries;
        n_free += check_list(pool, &tenant->free, &cache->links, true);
        ASSERT(tenant->free.n <= tenant->n_entries);
        ASSERT(cache->tenant_free_blocks_max == 0 || tenant->free.n <= cache->tenant_free_blocks_max);
    }
    ASSERT(n_tenant_entries == n_entries && n_free == pool->cached.n);
}

static void check_slot(const struct sched *sched, uint32_t index)
{
    const struct slot *slot = &sched->slots[index];
    const struct request *request = &sched->requests[slot->handle];
    uint32_t block_tokens = sched->config.block_tokens;
    ASSERT(slot->n_cached <= slot->n_computed && slot->n_computed <= slot->n_planned);
    ASSERT(slot->n_planned <= slot->n_blocks * block_tokens);
    ASSERT(slot->n_registered * block_tokens <= slot->n_computed);
    ASSERT(slot->last_step_id <= sched->last_planned_id);
    /* What is still to be written belongs to nobody else. */
    for (uint32_t i = slot->n_computed / block_tokens; i < slot->n_blocks; i++)
        ASSERT(sched->pool.n_owners[sched_table(sched, index)[i]] == 1);
    if (slot->state == SLOT_DRAINING) {
        ASSERT(slot->last_step_id > sched->last_committed_id);
        return;
    }
    ASSERT(request->state == REQUEST_RUNNING && request->slot == index);
    ASSERT(slot->n_pending <= sched_n_in_flight(sched));
    ASSERT(request->n_drawn + slot->n_pending <= request->ask.max_output);
    ASSERT(slot->n_planned < request->n_known + slot->n_pending);
    ASSERT(slot->n_pending == 0 || slot->n_planned + 1 == request->n_known + slot->n_pending);
    ASSERT(slot->n_computed < request->n_known);
}

static void check_requests(const struct sched *sched)
{
    uint32_t n_states[REQUEST_RELEASED + 1] = {0}, n_queued = 0, n_paused = 0;
    for (uint32_t handle = 0; handle < sched->config.max_requests; handle++) {
        const struct request *request = &sched->requests[handle];
        bool is_queued = sched->queue.positions[handle] != QUEUE_POSITION_NONE;
        bool is_live = request->state == REQUEST_WAITING || request->state == REQUEST_RUNNING;
        n_states[request->state]++;
        n_queued += is_queued;
        n_paused += is_live && request->is_paused;
        ASSERT(is_queued == (request->state == REQUEST_WAITING && !request->is_paused));
        ASSERT((request->state == REQUEST_RUNNING) == (request->slot != SLOT_NONE) ||
               request->state == REQUEST_FREE);
        ASSERT(request->state != REQUEST_ENDING || request->n_steps_in_flight > 0);
        ASSERT(request->n_steps_in_flight <= sched_n_in_flight(sched));
        ASSERT(request->state == REQUEST_FREE ||
               request->n_known == request->ask.n_prompt + request->ask.n_output + request->n_drawn);
        if (is_live)
            ASSERT(request->n_drawn < request->ask.max_output);
        if (request->state == REQUEST_RUNNING) {
            ASSERT(request->slot < sched->config.max_seqs);
            ASSERT(sched->slots[request->slot].state == SLOT_ATTACHED);
            ASSERT(sched->slots[request->slot].handle == handle);
        }
    }
    ASSERT(n_states[REQUEST_FREE] == sched->n_free_handles);
    ASSERT(n_states[REQUEST_WAITING] == sched->n_waiting);
    ASSERT(n_states[REQUEST_RUNNING] == sched->n_running);
    ASSERT(n_states[REQUEST_RELEASED] == sched->n_released);
    ASSERT(n_queued == sched->queue.n && n_paused == sched->n_paused);
}

static void check_orders(const struct sched *sched)
{
    const struct request_queue *queue = &sched->queue;
    for (uint32_t i = 0; i < queue->n; i++) {
        ASSERT(queue->positions[queue->heap[i]] == i);
        ASSERT(i == 0 ||
               request_key_before(&queue->keys[queue->heap[(i - 1) / 2]], &queue->keys[queue->heap[i]]));
    }
    for (uint32_t i = 0; i < sched->n_running; i++) {
        ASSERT(sched->slots[sched->running[i]].state == SLOT_ATTACHED);
        ASSERT(i == 0 || request_key_before(sched_slot_key(sched, sched->running[i - 1]),
                                            sched_slot_key(sched, sched->running[i])));
    }
}

static void check_steps(const struct sched *sched)
{
    ASSERT(sched_n_in_flight(sched) <= sched->config.max_steps_in_flight);
    for (uint64_t id = sched->last_committed_id + 1; id <= sched->last_planned_id; id++) {
        const struct step *step = &sched->steps[id % SCHED_STEPS_IN_FLIGHT_MAX];
        ASSERT(step->id == id && step->n_seqs > 0 && step->n_seqs <= sched->config.max_seqs);
        for (uint32_t i = 0; i < step->n_seqs; i++) {
            const struct step_seq *seq = &step->seqs[i];
            const struct slot *slot = &sched->slots[seq->slot];
            /* The slot and its blocks stay until this step commits. */
            ASSERT(slot->state != SLOT_FREE && slot->handle == seq->handle && slot->last_step_id >= id);
            ASSERT(seq->end_position <= slot->n_planned);
            ASSERT(sched->requests[seq->handle].n_steps_in_flight > 0);
            for (uint32_t j = 0; j < i; j++)
                ASSERT(step->seqs[j].handle != seq->handle && step->seqs[j].slot != seq->slot);
        }
    }
    ASSERT(sched->plan.n_rows <= sched->config.token_budget);
}

void sched_check_invariants(const struct sched *sched)
{
    check_blocks(sched);
    check_prefix_cache(sched);
    for (uint32_t i = 0; i < sched->config.max_seqs; i++) {
        if (sched->slots[i].state != SLOT_FREE)
            check_slot(sched, i);
    }
    check_requests(sched);
    check_orders(sched);
    check_steps(sched);
}
