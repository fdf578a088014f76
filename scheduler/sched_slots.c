#include "scheduler/sched_internal.h"

#include <string.h>

uint32_t slot_attach(struct sched *sched, uint32_t handle)
{
    struct request *request = &sched->requests[handle];
    ASSERT(sched->n_free_slots > 0 && request->state == REQUEST_WAITING);
    uint32_t slot = sched->free_slots[--sched->n_free_slots];
    ASSERT(sched->slots[slot].state == SLOT_FREE);
    sched->slots[slot] = (struct slot){.state = SLOT_ATTACHED, .is_new = true, .handle = handle};
    request->state = REQUEST_RUNNING;
    request->slot = slot;
    sched->n_waiting--;

    uint32_t i = sched->n_running++;
    const struct request_key *key = &sched->queue.keys[handle];
    for (; i > 0 && request_key_before(key, sched_slot_key(sched, sched->running[i - 1])); i--)
        sched->running[i] = sched->running[i - 1];
    sched->running[i] = slot;
    return slot;
}

void running_remove(struct sched *sched, uint32_t slot)
{
    uint32_t i = 0;
    while (sched->running[i] != slot) {
        i++;
        ASSERT(i < sched->n_running);
    }
    sched->n_running--;
    memmove(&sched->running[i], &sched->running[i + 1], (sched->n_running - i) * sizeof *sched->running);
}

void slot_detach(struct sched *sched, uint32_t slot)
{
    struct slot *s = &sched->slots[slot];
    struct request *request = &sched->requests[s->handle];
    ASSERT(s->state == SLOT_ATTACHED && request->slot == slot);
    request->generation++;
    request->slot = SLOT_NONE;
    s->state = SLOT_DRAINING;
    s->n_known_last = request->n_known;
    sched->n_draining++;
    sched->n_draining_blocks += s->n_blocks;
    slot_try_free(sched, slot);
}

void slot_try_free(struct sched *sched, uint32_t slot)
{
    struct slot *s = &sched->slots[slot];
    if (s->state != SLOT_DRAINING || s->last_step_id > sched->last_committed_id)
        return;
    /* Last block first: a block is then never evicted while one that stands behind it is kept. */
    const uint32_t *table = sched_table(sched, slot);
    for (uint32_t i = s->n_blocks; i > 0; i--)
        prefix_cache_release_block(&sched->cache, table[i - 1]);
    sched->n_draining--;
    sched->n_draining_blocks -= s->n_blocks;
    s->state = SLOT_FREE;
    sched->free_slots[sched->n_free_slots++] = slot;
}

void slot_register_blocks(struct sched *sched, uint32_t slot)
{
    struct slot *s = &sched->slots[slot];
    const struct request *request = &sched->requests[s->handle];
    if (!sched->cache.enabled || s->state == SLOT_FREE)
        return;
    uint32_t n_known = s->state == SLOT_ATTACHED ? request->n_known : s->n_known_last;
    uint32_t n_positions = s->n_computed < n_known ? s->n_computed : n_known;
    uint32_t block_tokens = sched->config.block_tokens;
    uint32_t n_full = n_positions / block_tokens;
    if (s->n_registered >= n_full)
        return;
    /* When somebody else's copy of this prefix was registered first and is evicted by now, ours takes over.
     */
    if (!prefix_cache_is_live(&sched->cache, &s->chain)) {
        s->chain = prefix_cache_start(&sched->cache, request->ask.salt, request->ask.adapter);
        s->n_registered = 0;
    }
    const uint32_t *table = sched_table(sched, slot);
    for (; s->n_registered < n_full; s->n_registered++)
        prefix_cache_register(&sched->cache, &s->chain, table[s->n_registered],
                              &request->ask.tokens[(size_t)s->n_registered * block_tokens]);
}

void request_preempt(struct sched *sched, uint32_t slot)
{
    uint32_t handle = sched->slots[slot].handle;
    struct request *request = &sched->requests[handle];
    slot_detach(sched, slot);
    request->state = REQUEST_WAITING;
    request->admission_need = 0;
    request->n_admissions_skipped = 0;
    sched->n_waiting++;
    if (!request->is_paused)
        request_queue_push(&sched->queue, handle);
    sched->n_preemptions++;
    sched->preempted_ids[sched->plan.n_preempted++] = request->ask.id;
}

void request_try_release(struct sched *sched, uint32_t handle)
{
    struct request *request = &sched->requests[handle];
    if (request->state != REQUEST_ENDING || request->n_steps_in_flight > 0)
        return;
    request->state = REQUEST_RELEASED;
    uint32_t max_requests = sched->config.max_requests;
    sched->released[(sched->first_released + sched->n_released++) % max_requests] = handle;
}
