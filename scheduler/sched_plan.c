#include "scheduler/sched_internal.h"

/* A head of the queue that could not be admitted is looked up in the prefix cache again after so many plans
 * at the latest, even if too few blocks are free for what it needed last time. */
enum { ADMISSION_RETRY_PLANS = 16 };

/* Of the plan being made. */
struct planning {
    uint32_t budget;                          /* rows left */
    bool is_blocked;                          /* somebody waits for blocks: nobody after it takes any */
    uint32_t n_active;                        /* running and not paused */
    uint32_t n_ending;                        /* running, all draws in flight: will leave by itself */
    uint32_t n_ending_blocks;                 /* theirs */
    uint32_t n_owed_blocks;                   /* that active requests still need for tokens known now */
    uint32_t next_paused_victim, next_victim; /* indices into running, one past */
};

static bool is_ending(const struct sched *sched, const struct slot *slot)
{
    const struct request *request = &sched->requests[slot->handle];
    return request->n_drawn + slot->n_pending >= request->ask.max_output;
}

static bool is_paused(const struct sched *sched, const struct slot *slot)
{
    return sched->requests[slot->handle].is_paused;
}

/* Positions whose token exists, here or in the slot, and that no plan has named. */
static uint32_t rows_wanted(const struct sched *sched, const struct slot *slot)
{
    if (is_ending(sched, slot) || is_paused(sched, slot))
        return 0;
    uint32_t n_rows = sched->requests[slot->handle].n_known + slot->n_pending - slot->n_planned;
    ASSERT(n_rows > 0 && (slot->n_pending == 0 || n_rows == 1));
    return n_rows;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Splits the budget over the running requests: decode rows first, then prefill, or (decode_first false)
 * strictly in order. */
static void give_rows(struct sched *sched, struct planning *p, bool decode_first)
{
    uint32_t budget = sched->config.token_budget;
    p->n_ending_blocks = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        struct slot *slot = &sched->slots[sched->running[i]];
        slot->n_rows = 0;
        if (is_ending(sched, slot))
            p->n_ending_blocks += slot->n_blocks;
        if (decode_first && budget > 0 && rows_wanted(sched, slot) == 1) {
            slot->n_rows = 1;
            budget--;
        }
    }
    for (uint32_t i = 0; i < sched->n_running && budget > 0; i++) {
        struct slot *slot = &sched->slots[sched->running[i]];
        if (slot->n_rows > 0)
            continue;
        slot->n_rows = min_u32(min_u32(rows_wanted(sched, slot), sched->config.prefill_chunk), budget);
        budget -= slot->n_rows;
    }
}

static bool is_victim(const struct sched *sched, uint32_t slot, bool paused)
{
    const struct slot *s = &sched->slots[slot];
    return s->state == SLOT_ATTACHED && is_paused(sched, s) == paused && !is_ending(sched, s);
}

/* Who gives its blocks to running[needy]: the last paused one, else the last one behind it. */
static uint32_t next_victim(struct sched *sched, struct planning *p, uint32_t needy)
{
    while (p->next_paused_victim > 0) {
        uint32_t slot = sched->running[--p->next_paused_victim];
        if (is_victim(sched, slot, true))
            return slot;
    }
    while (p->next_victim > needy + 1) {
        uint32_t slot = sched->running[--p->next_victim];
        if (is_victim(sched, slot, false))
            return slot;
    }
    return SLOT_NONE;
}

/* Blocks that come back with the steps in flight (at most: some may have other owners). */
static uint32_t n_returning_blocks(const struct sched *sched, const struct planning *p)
{
    return sched->n_draining_blocks + p->n_ending_blocks;
}

/* Preempts until n_blocks are free. False when they will only be free later. */
static bool make_room(struct sched *sched, struct planning *p, uint32_t needy, uint32_t n_blocks)
{
    while (block_pool_n_free(&sched->pool) < n_blocks) {
        if (block_pool_n_free(&sched->pool) + n_returning_blocks(sched, p) >= n_blocks)
            return false;
        uint32_t victim = next_victim(sched, p, needy);
        if (victim == SLOT_NONE)
            return false;
        request_preempt(sched, victim);
    }
    return true;
}

static void take_blocks(struct sched *sched, uint32_t slot, uint32_t n_blocks)
{
    struct slot *s = &sched->slots[slot];
    uint32_t *table = sched_table(sched, slot);
    ASSERT(s->n_blocks + n_blocks <= sched->table_stride);
    for (uint32_t i = 0; i < n_blocks; i++)
        table[s->n_blocks++] = prefix_cache_take_block(&sched->cache);
}

/* In order of the running, so that the first ones take from the last. A request that gets no blocks keeps
 * what it has and sits this step out. */
static void give_blocks(struct sched *sched, struct planning *p)
{
    p->next_paused_victim = p->next_victim = sched->n_running;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        struct slot *slot = &sched->slots[sched->running[i]];
        if (slot->state != SLOT_ATTACHED || slot->n_rows == 0)
            continue;
        uint32_t n_blocks = sched_blocks_for(sched, slot->n_planned + slot->n_rows);
        if (n_blocks <= slot->n_blocks)
            continue;
        if (!p->is_blocked && make_room(sched, p, i, n_blocks - slot->n_blocks)) {
            take_blocks(sched, sched->running[i], n_blocks - slot->n_blocks);
        } else {
            slot->n_rows = 0;
            p->is_blocked = true;
        }
    }
}

/* Takes those that were preempted out of `running`, and sums up the others. */
static void count_running(struct sched *sched, struct planning *p)
{
    p->budget = sched->config.token_budget;
    p->n_active = p->n_ending = p->n_owed_blocks = 0;
    uint32_t n_running = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        struct slot *slot = &sched->slots[sched->running[i]];
        if (slot->state != SLOT_ATTACHED)
            continue;
        sched->running[n_running++] = sched->running[i];
        p->n_ending += is_ending(sched, slot);
        if (is_paused(sched, slot))
            continue;
        p->budget -= slot->n_rows;
        p->n_active++;
        uint32_t n_known = sched->requests[slot->handle].n_known;
        uint32_t n_blocks = sched_blocks_for(sched, n_known);
        p->n_owed_blocks += n_blocks > slot->n_blocks ? n_blocks - slot->n_blocks : 0;
    }
    sched->n_running = n_running;
}

static void plan_running(struct sched *sched, struct planning *p, bool decode_first)
{
    p->is_blocked = false;
    give_rows(sched, p, decode_first);
    give_blocks(sched, p);
    count_running(sched, p);
}

/* Blocks that the head of the queue must leave free: what the active ones still need for tokens known now,
 * and one for each to grow (at most 1/16 of all), or admitting it would only get it preempted again. */
static uint32_t blocks_to_leave(const struct sched *sched, const struct planning *p)
{
    return p->n_owed_blocks + min_u32(p->n_active, sched->pool.n_blocks / 16 + 1);
}

struct admission {
    uint32_t n_hits; /* blocks found; they are in the table of the topmost free slot */
    uint32_t n_need; /* blocks that must be free, those to leave included */
    struct prefix_chain chain;
};

static struct admission look_up_prefix(const struct sched *sched, const struct planning *p,
                                       const struct request *request)
{
    struct admission a = {0};
    const struct sched_request *ask = &request->ask;
    uint32_t block_tokens = sched->config.block_tokens;
    uint32_t *table = sched_table(sched, sched->free_slots[sched->n_free_slots - 1]);
    uint32_t n_free_hits = 0;
    a.chain = prefix_cache_start(&sched->cache, ask->salt, ask->adapter);
    /* The last token is computed in any case: its logits are wanted. */
    uint32_t n_max = ask->skip_cache_read ? 0 : (request->n_known - 1) / block_tokens;
    while (a.n_hits < n_max) {
        uint32_t block =
            prefix_cache_find(&sched->cache, &a.chain, &ask->tokens[(size_t)a.n_hits * block_tokens]);
        if (block == BLOCK_NONE)
            break;
        table[a.n_hits++] = block;
        n_free_hits += sched->pool.n_owners[block] == 0;
    }
    a.n_need = sched_blocks_for(sched, request->n_known) - a.n_hits + n_free_hits + blocks_to_leave(sched, p);
    return a;
}

static void admit(struct sched *sched, struct planning *p, uint32_t handle, const struct admission *a)
{
    struct request *request = &sched->requests[handle];
    request_queue_remove(&sched->queue, handle);
    uint32_t slot = slot_attach(sched, handle);
    struct slot *s = &sched->slots[slot];
    const uint32_t *table = sched_table(sched, slot);
    for (uint32_t i = 0; i < a->n_hits; i++)
        prefix_cache_own_block(&sched->cache, table[i]);
    s->n_blocks = s->n_registered = a->n_hits;
    s->n_cached = s->n_planned = s->n_computed = a->n_hits * sched->config.block_tokens;
    s->chain = a->chain;
    s->n_rows = min_u32(min_u32(request->n_known - s->n_cached, sched->config.prefill_chunk), p->budget);
    take_blocks(sched, slot, sched_blocks_for(sched, s->n_planned + s->n_rows) - s->n_blocks);

    p->budget -= s->n_rows;
    p->n_active++;
    p->n_owed_blocks += sched_blocks_for(sched, request->n_known) - s->n_blocks;
    if (!request->was_admitted && !request->ask.skip_cache_read && sched->cache.enabled) {
        sched->n_prefix_query_tokens += request->n_known;
        sched->n_prefix_hit_tokens += s->n_cached;
    }
    request->was_admitted = true;
}

/* The last paused request gives its slot and blocks to the head of the queue. */
static bool preempt_paused(struct sched *sched)
{
    for (uint32_t i = sched->n_running; i > 0; i--) {
        uint32_t slot = sched->running[i - 1];
        if (is_victim(sched, slot, true)) {
            running_remove(sched, slot);
            request_preempt(sched, slot);
            return true;
        }
    }
    return false;
}

static uint32_t count_paused_blocks(const struct sched *sched)
{
    uint32_t n_blocks = 0;
    for (uint32_t i = 0; i < sched->n_running; i++) {
        if (is_victim(sched, sched->running[i], true))
            n_blocks += sched->slots[sched->running[i]].n_blocks;
    }
    return n_blocks;
}

/* Whether a lookup may help: blocks came free since the last one, or it is long ago. */
static bool is_worth_a_lookup(const struct sched *sched, const struct planning *p, struct request *request,
                              uint32_t n_paused_blocks)
{
    uint32_t n_free = block_pool_n_free(&sched->pool) + n_paused_blocks;
    if (p->n_active == 0 || request->admission_need <= n_free ||
        request->n_admissions_skipped >= ADMISSION_RETRY_PLANS)
        return true;
    request->n_admissions_skipped++;
    return false;
}

/* Only the head of the queue is ever admitted, so that a large request is not passed for ever. */
static bool admit_head(struct sched *sched, struct planning *p)
{
    uint32_t handle = sched->queue.heap[0];
    struct request *request = &sched->requests[handle];
    for (;;) {
        uint32_t n_paused_blocks = sched->n_paused > 0 ? count_paused_blocks(sched) : 0;
        if (sched->n_free_slots > 0) {
            if (!is_worth_a_lookup(sched, p, request, n_paused_blocks))
                return false;
            struct admission a = look_up_prefix(sched, p, request);
            uint32_t n_free = block_pool_n_free(&sched->pool);
            if (a.n_need <= n_free) {
                admit(sched, p, handle, &a);
                return true;
            }
            request->admission_need = a.n_need;
            request->n_admissions_skipped = 0;
            uint32_t n_later = n_free + n_returning_blocks(sched, p);
            if (a.n_need <= n_later || a.n_need > n_later + n_paused_blocks)
                return false;
        } else if (sched->n_draining + p->n_ending > 0) {
            return false;
        }
        if (!preempt_paused(sched))
            return false;
    }
}

static void emit_seq(struct sched *sched, struct step *step, uint32_t slot)
{
    struct slot *s = &sched->slots[slot];
    struct request *request = &sched->requests[s->handle];
    uint32_t end_position = s->n_planned + s->n_rows;
    bool samples = end_position == request->n_known + s->n_pending;
    sched->plan_seqs[step->n_seqs] = (struct sched_plan_seq){
        .id = request->ask.id,
        .handle = s->handle,
        .generation = request->generation,
        .slot = slot,
        .first_position = s->n_planned,
        .n_rows = s->n_rows,
        .samples = samples,
        .last_from_slot = end_position > request->n_known,
        .slot_is_new = s->is_new,
        .n_tokens_known = request->n_known,
        .n_cached = s->n_cached,
        .tokens = request->ask.tokens,
        .blocks = sched_table(sched, slot),
        .n_blocks = sched_blocks_for(sched, end_position),
    };
    step->seqs[step->n_seqs++] = (struct step_seq){
        .handle = s->handle,
        .generation = request->generation,
        .slot = slot,
        .end_position = end_position,
        .samples = samples,
    };
    sched->plan.n_rows += s->n_rows;
    s->n_planned = end_position;
    s->n_pending += samples;
    s->last_step_id = step->id;
    s->is_new = false;
    request->n_steps_in_flight++;
}

static void emit_step(struct sched *sched)
{
    struct step *step = &sched->steps[(sched->last_planned_id + 1) % SCHED_STEPS_IN_FLIGHT_MAX];
    step->id = sched->last_planned_id + 1;
    step->n_seqs = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < sched->n_running; i++) {
            uint32_t n_rows = sched->slots[sched->running[i]].n_rows;
            if (pass == 0 ? n_rows == 1 : n_rows > 1)
                emit_seq(sched, step, sched->running[i]);
        }
    }
    sched->plan.n_seqs = step->n_seqs;
    if (step->n_seqs == 0) {
        sched->is_stalled = true;
        return;
    }
    sched->plan.step_id = step->id;
    sched->last_planned_id = step->id;
    sched->n_rows_planned += sched->plan.n_rows;
}

const struct sched_plan *sched_plan(struct sched *sched, int64_t now_ns)
{
    (void)now_ns; /* both policies order by what was set at submission */
    struct sched_plan *plan = &sched->plan;
    plan->step_id = 0;
    plan->n_seqs = plan->n_rows = plan->n_preempted = 0;
    if (!sched_has_work(sched))
        return plan;

    struct planning p = {0};
    plan_running(sched, &p, true);
    /* When the only ones with rows wait for blocks of one that got no rows, nothing would ever move: the
     * first one then goes first. */
    if (p.budget == sched->config.token_budget && p.n_active > 0 && sched_n_in_flight(sched) == 0)
        plan_running(sched, &p, false);
    if (!p.is_blocked && plan->n_preempted == 0) {
        while (p.budget > 0 && sched->queue.n > 0 && admit_head(sched, &p)) {
        }
    }
    emit_step(sched);
    return plan;
}

bool sched_has_work(const struct sched *sched)
{
    return !sched->is_stalled && sched_n_in_flight(sched) < sched->config.max_steps_in_flight &&
           sched->n_running + sched->queue.n > 0;
}
