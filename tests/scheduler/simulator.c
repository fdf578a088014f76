#include "tests/scheduler/simulator.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "tests/scheduler/sim_world.h"

static volatile uint64_t seed_now;

_Noreturn void sim_fail(const struct sim *sim, int line, const char *what)
{
    fprintf(stderr, "seed %" PRIu64 ": line %d: %s does not hold\n", sim->seed, line, what);
    abort();
}

/* Of a sanitizer, when the program is built with one. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void report_seed(void)
{
    fflush(stdout);
    fprintf(stderr,
            "failed at seed %" PRIu64 "; replay: simulator --first-seed %" PRIu64 " --seeds 1 --trace\n",
            seed_now, seed_now);
}

static void on_signal(int signal_number)
{
    report_seed();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void sim_report_aborts(void)
{
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(report_seed);
    else
        signal(SIGSEGV, on_signal);
}

static void check_scheduler(struct sim *sim)
{
    sched_check_invariants(sim->sched);
    sim_mirror_check(sim);
}

#define TRACE(sim, ...) ((sim)->trace ? (void)printf(__VA_ARGS__) : (void)0)

static struct sim_request *request_of(struct sim *sim, const struct sched_plan_seq *seq)
{
    SIM_CHECK(sim, seq->id >= 1000 && seq->id < 1000 + sim->n_requests);
    return &sim->requests[seq->id - 1000];
}

/* The order of the contract, told a second time. */
static bool comes_before(const struct sim_key *a, const struct sim_key *b)
{
    for (int i = 0; i < SIM_KEY_FIELDS; i++) {
        if (a->fields[i] != b->fields[i])
            return a->fields[i] < b->fields[i];
    }
    return false;
}

static bool is_current(const struct sim_request *r, uint32_t generation)
{
    return r->state == SIM_LIVE && r->is_running && r->generation == generation;
}

static bool is_ending(const struct sim_request *r)
{
    return r->n_accepted + r->n_pending == r->ask.max_output;
}

/* ---- what happens from outside ---- */

static void submit_next(struct sim *sim)
{
    uint32_t index = sim->n_submitted++;
    struct sim_request *r = &sim->requests[index];
    r->ask.arrival_ns = sim->now_ns;
    uint32_t n_held = 0;
    for (uint32_t i = 0; i < index; i++)
        n_held += sim->requests[i].state == SIM_LIVE || sim->requests[i].state == SIM_ENDED;
    enum err_code expected = ERR_OK;
    if (r->n_total > sim->config.max_model_len)
        expected = ERR_INVALID_ARGUMENT;
    else if (n_held == sim->config.max_requests)
        expected = ERR_RESOURCE_EXHAUSTED;
    err_t e = sched_submit(sim->sched, &r->ask, &r->handle);
    SIM_CHECK(sim, e.code == expected);
    TRACE(sim, "submit %" PRIu64 ": %u given, %u at most, wants %u, salt %" PRIu64 " -> %s\n", r->ask.id,
          r->n_given, r->ask.max_output, r->n_wanted, r->ask.salt, err_code_name(e.code));
    sim->counts->submitted++;
    sim->counts->refused_full += expected == ERR_RESOURCE_EXHAUSTED;
    sim->counts->refused_too_long += expected == ERR_INVALID_ARGUMENT;
    if (expected != ERR_OK) {
        r->state = SIM_REFUSED;
        return;
    }
    r->state = SIM_LIVE;
    bool by_priority = sim->config.policy == SCHED_PRIORITY;
    r->key = (struct sim_key){{by_priority ? r->ask.priority : 0,
                               by_priority && r->ask.deadline_ns == 0 ? 1 : 0, /* no deadline: last */
                               by_priority ? r->ask.deadline_ns : 0, r->ask.arrival_ns, index}};
}

static void end_request(struct sim_request *r)
{
    r->state = SIM_ENDED;
    r->is_running = false;
}

static void cancel(struct sim *sim, struct sim_request *r)
{
    TRACE(sim, "cancel %" PRIu64 "\n", r->ask.id);
    struct sim_counts *counts = sim->counts;
    counts->cancelled_after_end += r->state == SIM_ENDED;
    counts->cancelled_waiting += r->state == SIM_LIVE && !r->is_running;
    counts->cancelled_running += r->state == SIM_LIVE && r->is_running;
    counts->cancelled_in_flight += r->state == SIM_LIVE && r->n_in_flight > 0;
    sched_cancel(sim->sched, r->handle);
    SIM_CHECK(sim, !sched_is_current(sim->sched, r->handle, r->generation));
    if (r->state == SIM_LIVE) {
        r->is_cancelled = true;
        end_request(r);
    }
}

static void set_paused(struct sim *sim, struct sim_request *r, bool paused)
{
    TRACE(sim, "%s %" PRIu64 "\n", paused ? "pause" : "resume", r->ask.id);
    sim->counts->paused += paused && r->state == SIM_LIVE;
    sched_pause(sim->sched, r->handle, paused);
    if (r->state == SIM_LIVE)
        r->is_paused = paused;
}

/* A submitted request whose handle is still valid, or NULL. */
static struct sim_request *pick_request(struct sim *sim)
{
    if (sim->n_submitted == 0)
        return NULL;
    struct sim_request *r = &sim->requests[rng_below(&sim->rng, sim->n_submitted)];
    return r->state == SIM_LIVE || r->state == SIM_ENDED ? r : NULL;
}

static void release_all(struct sim *sim)
{
    uint64_t id;
    while (sched_pop_released(sim->sched, &id)) {
        struct sim_request *r = &sim->requests[id - 1000];
        TRACE(sim, "released %" PRIu64 " with %u\n", id, r->n_accepted);
        SIM_CHECK(sim, r->state == SIM_ENDED && r->n_in_flight == 0);
        SIM_CHECK(sim, r->is_cancelled || r->n_accepted == r->n_wanted);
        uint32_t n_known = r->n_given + r->n_accepted;
        SIM_CHECK(sim, memcmp(r->tokens, r->expected, n_known * sizeof *r->tokens) == 0);
        SIM_CHECK(sim, r->tokens[n_known] == sim_unknown_token(sim, r, n_known) &&
                           r->tokens[r->n_total] == sim_unknown_token(sim, r, r->n_total));
        r->state = SIM_RELEASED;
    }
}

static void disturb(struct sim *sim)
{
    while (sim->n_submitted < sim->n_requests && sim_chance(sim, sim->arrival_percent))
        submit_next(sim);
    struct sim_request *r = pick_request(sim);
    if (r != NULL && sim_chance(sim, sim->cancel_percent)) {
        cancel(sim, r);
        if (sim_chance(sim, 30))
            cancel(sim, r);
    }
    r = pick_request(sim);
    if (r != NULL && sim_chance(sim, sim->pause_percent))
        set_paused(sim, r, true);
    for (int i = 0; i < 2 && sim->pause_percent > 0; i++) {
        r = pick_request(sim);
        if (r != NULL && r->is_paused && sim_chance(sim, 50))
            set_paused(sim, r, false);
    }
    if (sim_chance(sim, 1)) {
        sched_reset_prefix_cache(sim->sched);
        sim->counts->cache_resets++;
    }
    if (!sim_chance(sim, sim->lazy_percent))
        release_all(sim);
}

/* ---- planning ---- */

/* Those preempted are the last by policy, the paused ones first. */
static void check_preempted(struct sim *sim, const struct sched_plan *plan)
{
    bool is_victim[SIM_REQUESTS_MAX] = {false};
    bool any_active = false;
    for (uint32_t i = 0; i < plan->n_preempted; i++) {
        uint32_t index = (uint32_t)(plan->preempted_ids[i] - 1000);
        struct sim_request *r = &sim->requests[index];
        SIM_CHECK(sim, r->state == SIM_LIVE && r->is_running && !is_victim[index] && !is_ending(r));
        is_victim[index] = true;
        any_active |= !r->is_paused;
        sim->counts->preempted++;
        sim->counts->preempted_in_flight += r->n_in_flight > 0;
        sim->counts->preempted_paused += r->is_paused;
        TRACE(sim, "  preempts %" PRIu64 "\n", r->ask.id);
    }
    for (uint32_t i = 0; i < plan->n_preempted; i++) {
        const struct sim_request *v = &sim->requests[plan->preempted_ids[i] - 1000];
        for (uint32_t j = 0; j < sim->n_submitted; j++) {
            const struct sim_request *r = &sim->requests[j];
            if (r->state != SIM_LIVE || !r->is_running || is_ending(r) || is_victim[j])
                continue;
            bool is_next_in_line = r->is_paused == v->is_paused && comes_before(&v->key, &r->key);
            SIM_CHECK(sim, !is_next_in_line && !(r->is_paused && any_active));
        }
    }
    for (uint32_t j = 0; j < sim->n_submitted; j++) {
        struct sim_request *r = &sim->requests[j];
        if (!is_victim[j])
            continue;
        r->is_running = false;
        r->was_preempted = true;
        r->n_pending = r->n_planned = 0;
    }
}

static void check_new_seq(struct sim *sim, struct sim_request *r, const struct sched_plan_seq *seq)
{
    SIM_CHECK(sim, !r->is_running && seq->slot_is_new);
    SIM_CHECK(sim, seq->generation != r->generation || !r->was_preempted);
    SIM_CHECK(sim, seq->first_position == seq->n_cached);
    SIM_CHECK(sim, seq->n_cached % sim->config.block_tokens == 0 && seq->n_cached < seq->n_tokens_known);
    SIM_CHECK(sim, seq->n_cached == 0 || (sim->config.prefix_cache && !r->ask.skip_cache_read));
    /* A block is shared only when a committed step has computed all of it. */
    for (uint32_t i = 0; i < seq->n_cached; i++) {
        uint32_t block = seq->blocks[i / sim->config.block_tokens];
        SIM_CHECK(sim, sim->committed[block][i % sim->config.block_tokens] == r->content[i]);
    }
    sim->counts->cached_positions += seq->n_cached;
    sim->counts->cached_after_preemption += r->was_preempted ? seq->n_cached : 0;
    sim->counts->readmitted_while_draining += r->n_in_flight > 0;
    r->is_running = true;
    r->generation = seq->generation;
    r->n_planned = seq->n_cached;
    r->n_pending = 0;
}

static void check_seq(struct sim *sim, const struct sched_plan_seq *seq)
{
    struct sim_request *r = request_of(sim, seq);
    const struct sched_config *c = &sim->config;
    SIM_CHECK(sim, r->state == SIM_LIVE && !r->is_paused && r->handle == seq->handle);
    SIM_CHECK(sim, sched_is_current(sim->sched, seq->handle, seq->generation));
    if (!r->is_running)
        check_new_seq(sim, r, seq);
    else
        SIM_CHECK(sim, !seq->slot_is_new && r->generation == seq->generation);
    uint32_t end = seq->first_position + seq->n_rows;
    uint32_t n_known = r->n_given + r->n_accepted;
    uint32_t chunk = c->prefill_chunk == 0 ? c->token_budget : c->prefill_chunk;
    SIM_CHECK(sim, seq->first_position == r->n_planned && seq->n_rows >= 1 && seq->n_rows <= chunk);
    SIM_CHECK(sim, seq->tokens == r->tokens && seq->n_tokens_known == n_known);
    SIM_CHECK(sim, end <= n_known + r->n_pending && r->n_accepted + r->n_pending < r->ask.max_output);
    SIM_CHECK(sim, seq->samples == (end == n_known + r->n_pending));
    SIM_CHECK(sim, seq->last_from_slot == (end > n_known) && end <= n_known + 1);
    SIM_CHECK(sim, memcmp(r->tokens, r->expected, n_known * sizeof *r->tokens) == 0);
    SIM_CHECK(sim, r->tokens[n_known] == sim_unknown_token(sim, r, n_known));
    SIM_CHECK(sim, seq->n_blocks == (end + c->block_tokens - 1) / c->block_tokens);
    for (uint32_t i = 0; i < seq->n_blocks; i++) {
        SIM_CHECK(sim, seq->blocks[i] < c->n_blocks);
        for (uint32_t j = 0; j < i; j++)
            SIM_CHECK(sim, seq->blocks[i] != seq->blocks[j]);
    }
    for (uint32_t i = 0; i < sim->n_steps; i++) {
        for (uint32_t j = 0; j < sim->steps[i].n_seqs; j++) {
            const struct sched_plan_seq *other = &sim->steps[i].seqs[j].plan;
            bool is_same = other->id == seq->id && other->generation == seq->generation;
            SIM_CHECK(sim, (other->slot == seq->slot) == is_same);
        }
    }
    r->n_planned = end;
    r->n_pending += seq->samples;
    r->n_in_flight++;
    sim->counts->rows_from_slot += seq->last_from_slot;
}

static void check_plan(struct sim *sim, const struct sched_plan *plan)
{
    uint32_t n_rows = 0;
    bool any_new = false;
    struct sim_key last_new = {0};
    for (uint32_t i = 0; i < plan->n_seqs; i++) {
        const struct sched_plan_seq *seq = &plan->seqs[i];
        const struct sim_request *r = request_of(sim, seq);
        n_rows += seq->n_rows;
        for (uint32_t j = 0; j < i; j++)
            SIM_CHECK(sim, plan->seqs[j].id != seq->id && plan->seqs[j].slot != seq->slot);
        if (i > 0) {
            const struct sched_plan_seq *before = &plan->seqs[i - 1];
            bool same_kind = (before->n_rows == 1) == (seq->n_rows == 1);
            SIM_CHECK(sim,
                      same_kind ? comes_before(&request_of(sim, before)->key, &r->key) : before->n_rows == 1);
        }
        if (seq->slot_is_new && (!any_new || comes_before(&last_new, &r->key)))
            last_new = r->key;
        any_new |= seq->slot_is_new;
        check_seq(sim, seq);
    }
    SIM_CHECK(sim, n_rows == plan->n_rows && n_rows <= sim->config.token_budget);
    SIM_CHECK(sim, plan->n_seqs <= sim->config.max_seqs);
    /* Nobody who waits is passed by one behind it. */
    for (uint32_t i = 0; i < sim->n_submitted && any_new; i++) {
        const struct sim_request *r = &sim->requests[i];
        if (r->state == SIM_LIVE && !r->is_running && !r->is_paused)
            SIM_CHECK(sim, comes_before(&last_new, &r->key));
    }
}

static void hash_plan(struct sim *sim, const struct sched_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_preempted; i++)
        sim->hash = sim_mix(sim->hash, plan->preempted_ids[i]);
    for (uint32_t i = 0; i < plan->n_seqs; i++) {
        const struct sched_plan_seq *s = &plan->seqs[i];
        uint64_t words[] = {plan->step_id,     s->id,       s->generation,     s->slot,
                            s->first_position, s->n_rows,   s->samples,        s->last_from_slot,
                            s->slot_is_new,    s->n_cached, s->n_tokens_known, s->n_blocks};
        sim->hash = hash64(words, sizeof words, sim->hash);
        sim->hash = hash64(s->blocks, s->n_blocks * sizeof *s->blocks, sim->hash);
    }
}

static void keep_step(struct sim *sim, const struct sched_plan *plan)
{
    struct sim_step *step = &sim->steps[sim->n_steps++];
    step->id = plan->step_id;
    step->n_seqs = plan->n_seqs;
    step->is_executed = false;
    TRACE(sim, "step %" PRIu64 ":", plan->step_id);
    for (uint32_t i = 0; i < plan->n_seqs; i++) {
        const struct sched_plan_seq *seq = &plan->seqs[i];
        step->seqs[i].plan = *seq;
        memcpy(step->seqs[i].blocks, seq->blocks, seq->n_blocks * sizeof *seq->blocks);
        TRACE(sim, " %s%" PRIu64 "@%u %u+%u%s", seq->slot_is_new ? "new " : "", seq->id, seq->slot,
              seq->first_position, seq->n_rows, seq->samples ? "*" : "");
    }
    TRACE(sim, "\n");
}

static void plan_step(struct sim *sim)
{
    bool has_work = sched_has_work(sim->sched);
    const struct sched_plan *plan = sched_plan(sim->sched, sim->now_ns);
    SIM_CHECK(sim, has_work || (plan->n_seqs == 0 && plan->n_preempted == 0));
    check_preempted(sim, plan);
    check_plan(sim, plan);
    hash_plan(sim, plan);
    check_scheduler(sim);
    struct sched_stats stats;
    sched_get_stats(sim->sched, &stats);
    uint32_t quota = sim->config.tenant_cached_blocks_max;
    SIM_CHECK(sim, quota == 0 || stats.blocks_cached <= quota * sim->n_salts);
    if (plan->n_seqs > 0) {
        SIM_CHECK(sim, sim->n_steps < sim->config.max_steps_in_flight);
        SIM_CHECK(sim, plan->step_id == sim->counts->steps + 1);
        sim->counts->steps++;
        sim->counts->rows += plan->n_rows;
        keep_step(sim, plan);
        return;
    }
    SIM_CHECK(sim, plan->n_rows == 0 && !sched_has_work(sim->sched));
    sim->counts->empty_plans++;
    if (sim->n_steps > 0)
        return;
    for (uint32_t i = 0; i < sim->n_submitted; i++)
        SIM_CHECK(sim, sim->requests[i].state != SIM_LIVE || sim->requests[i].is_paused);
}

/* ---- the device ---- */

static uint64_t *row_of(struct sim *sim, const struct sim_seq *seq, uint32_t position)
{
    uint32_t block = seq->blocks[position / sim->config.block_tokens];
    return &sim->store[block][position % sim->config.block_tokens];
}

/* Whatever attention would read of this sequence up to `end` is its own prefix. */
static void check_store(struct sim *sim, const struct sim_seq *seq, uint32_t end)
{
    const struct sim_request *r = request_of(sim, &seq->plan);
    for (uint32_t i = 0; i < end; i++)
        SIM_CHECK(sim, *row_of(sim, seq, i) == r->content[i]);
}

static void write_rows(struct sim *sim, struct sim_seq *seq)
{
    const struct sched_plan_seq *plan = &seq->plan;
    const struct sim_request *r = request_of(sim, plan);
    uint64_t owner = plan->id << 32 | plan->generation;
    if (plan->slot_is_new)
        sim->slot_owner[plan->slot] = owner;
    SIM_CHECK(sim, sim->slot_owner[plan->slot] == owner);
    uint32_t end = plan->first_position + plan->n_rows;
    for (uint32_t i = plan->first_position; i < end; i++) {
        bool from_slot = plan->last_from_slot && i + 1 == end;
        uint32_t token = from_slot ? sim->slot_drawn[plan->slot] : r->tokens[i];
        uint64_t before = i > 0 ? *row_of(sim, seq, i - 1) : sim_mix(r->ask.salt, r->ask.adapter);
        *row_of(sim, seq, i) = sim_mix(before, token);
    }
}

static void execute(struct sim *sim, struct sim_step *step)
{
    for (uint32_t i = 0; i < step->n_seqs; i++)
        check_store(sim, &step->seqs[i], step->seqs[i].plan.first_position);
    for (uint32_t i = 0; i < step->n_seqs; i++)
        write_rows(sim, &step->seqs[i]);
    /* Nobody wrote over anybody else's rows. */
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        struct sim_seq *seq = &step->seqs[i];
        uint32_t end = seq->plan.first_position + seq->plan.n_rows;
        check_store(sim, seq, end);
        if (!seq->plan.samples)
            continue;
        seq->drawn = request_of(sim, &seq->plan)->expected[end];
        sim->slot_drawn[seq->plan.slot] = seq->drawn;
    }
    step->is_executed = true;
}

static uint32_t draw_count(struct sim *sim, const struct sim_request *r)
{
    uint32_t n_left = r->n_wanted - r->n_accepted;
    if (sim->config.max_steps_in_flight > 1 || n_left == 1 || !sim_chance(sim, sim->several_percent))
        return 1;
    sim->counts->several_tokens++;
    return 1 + rng_below(&sim->rng, n_left);
}

static void commit_row(struct sim *sim, const struct sim_seq *seq, uint32_t position)
{
    uint32_t block = seq->blocks[position / sim->config.block_tokens];
    sim->committed[block][position % sim->config.block_tokens] =
        request_of(sim, &seq->plan)->content[position];
}

static void commit_step(struct sim *sim)
{
    struct sim_step *step = &sim->steps[0];
    struct sched_result results[SIM_SEQS_MAX];
    uint32_t n_results = 0;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const struct sim_seq *seq = &step->seqs[i];
        struct sim_request *r = request_of(sim, &seq->plan);
        r->n_in_flight--;
        for (uint32_t j = 0; j < seq->plan.n_rows; j++)
            commit_row(sim, seq, seq->plan.first_position + j);
        SIM_CHECK(sim, memcmp(seq->blocks, seq->plan.blocks, seq->plan.n_blocks * sizeof *seq->blocks) == 0);
        if (!seq->plan.samples)
            continue;
        struct sched_result *result = &results[n_results++];
        *result = (struct sched_result){seq->plan.handle, seq->plan.generation, 1, &seq->drawn, false};
        bool counts = is_current(r, seq->plan.generation);
        SIM_CHECK(sim, counts == sched_is_current(sim->sched, seq->plan.handle, seq->plan.generation));
        sim->counts->results_dropped += !counts;
        if (!counts)
            continue;
        result->n_tokens = draw_count(sim, r);
        result->token_ids = &r->expected[r->n_given + r->n_accepted];
        SIM_CHECK(sim, *result->token_ids == seq->drawn);
        r->n_accepted += result->n_tokens;
        r->n_pending--;
        if (r->n_accepted < r->n_wanted)
            continue;
        result->finished = r->n_wanted < r->ask.max_output || sim_chance(sim, 50);
        sim->counts->finished++;
        sim->counts->finished_early += r->n_wanted < r->ask.max_output;
        end_request(r);
    }
    TRACE(sim, "commit %" PRIu64 "\n", step->id);
    sched_commit(sim->sched, step->id, results, n_results);
    check_scheduler(sim);
    sim->n_steps--;
    memmove(&sim->steps[0], &sim->steps[1], sim->n_steps * sizeof sim->steps[0]);
}

/* One of: plan, execute, commit; whatever is possible, in a random order. */
static void advance(struct sim *sim)
{
    struct sim_step *to_execute = NULL;
    for (uint32_t i = 0; i < sim->n_steps && to_execute == NULL; i++)
        to_execute = sim->steps[i].is_executed ? NULL : &sim->steps[i];
    bool may_plan = sim->n_steps < sim->config.max_steps_in_flight;
    if ((may_plan && sim_chance(sim, 60)) || sim->n_steps == 0)
        plan_step(sim);
    else if (to_execute != NULL && (sim_chance(sim, 50) || to_execute == &sim->steps[0]))
        execute(sim, to_execute);
    else
        commit_step(sim);
}

/* No more arrivals, cancels or pauses: everybody left must finish within a bound. */
static void drain(struct sim *sim, uint64_t first_step)
{
    uint64_t n_tokens = 0;
    for (uint32_t i = 0; i < sim->n_requests; i++) {
        struct sim_request *r = &sim->requests[i];
        if (r->state != SIM_LIVE)
            continue;
        if (r->is_paused)
            set_paused(sim, r, false);
        n_tokens += r->n_given + r->n_wanted;
    }
    for (;;) {
        struct sched_stats stats;
        sched_get_stats(sim->sched, &stats);
        if (stats.n_waiting + stats.n_running + stats.n_steps_in_flight == 0)
            break;
        /* Somebody who is not preempted any more computes a position in nearly every step. */
        SIM_CHECK(sim, sim->counts->steps - first_step <= n_tokens + n_tokens / 4 + 16);
        advance(sim);
    }
    uint64_t n_steps = sim->counts->steps - first_step;
    if (n_tokens > 0 && 1000 * n_steps / n_tokens > sim->counts->most_steps_per_thousand_tokens)
        sim->counts->most_steps_per_thousand_tokens = 1000 * n_steps / n_tokens;
    release_all(sim);
}

static void check_end(struct sim *sim)
{
    struct sched_stats stats;
    sched_get_stats(sim->sched, &stats);
    SIM_CHECK(sim, stats.blocks_used == 0 && stats.n_running == 0 && stats.n_waiting == 0);
    SIM_CHECK(sim, stats.n_paused == 0 && stats.n_steps_in_flight == 0);
    SIM_CHECK(sim, stats.steps == sim->counts->steps && stats.rows == sim->counts->rows);
    SIM_CHECK(sim, stats.preemptions == sim->counts->preempted);
    for (uint32_t i = 0; i < sim->n_requests; i++)
        SIM_CHECK(sim, sim->requests[i].state == SIM_RELEASED || sim->requests[i].state == SIM_REFUSED);
    sched_reset_prefix_cache(sim->sched);
    sched_get_stats(sim->sched, &stats);
    SIM_CHECK(sim, stats.blocks_cached == 0);
    check_scheduler(sim);
}

static void add_counts(struct sim_counts *total, const struct sim_counts *one)
{
    const uint64_t *from = (const uint64_t *)one;
    uint64_t *to = (uint64_t *)total;
    uint64_t most = total->most_steps_per_thousand_tokens;
    for (size_t i = 0; i < sizeof *total / sizeof *to; i++)
        to[i] += from[i];
    total->most_steps_per_thousand_tokens =
        one->most_steps_per_thousand_tokens > most ? one->most_steps_per_thousand_tokens : most;
}

uint64_t simulate(uint64_t seed, bool trace, struct sim_counts *counts)
{
    seed_now = seed;
    struct sim *sim = mem_alloc(sizeof *sim);
    ASSERT(sim != NULL);
    struct sim_counts own = {0};
    sim->seed = seed;
    sim->trace = trace;
    sim->counts = &own;
    sim->rng = rng_make(seed);
    sim_make_world(sim);
    const struct sched_config *c = &sim->config;
    TRACE(
        sim,
        "seed %" PRIu64
        ": budget %u, seqs %u, requests %u, chunk %u, %u blocks of %u, len %u, depth %u, %s, %s, quota %u\n",
        seed, c->token_budget, c->max_seqs, c->max_requests, c->prefill_chunk, c->n_blocks, c->block_tokens,
        c->max_model_len, c->max_steps_in_flight, c->policy == SCHED_FCFS ? "fcfs" : "priority",
        c->prefix_cache ? "cache" : "no cache", c->tenant_cached_blocks_max);
    uint64_t n_allocations = mem_alloc_count();
    while (sim->n_submitted < sim->n_requests) {
        sim->now_ns += rng_below(&sim->rng, 3);
        disturb(sim);
        check_scheduler(sim);
        advance(sim);
    }
    for (uint32_t i = rng_below(&sim->rng, 60); i > 0; i--) {
        disturb(sim);
        advance(sim);
    }
    drain(sim, own.steps);
    check_end(sim);
    SIM_CHECK(sim, mem_alloc_count() == n_allocations);
    uint64_t hash = sim->hash;
    sched_destroy(sim->sched);
    mem_free(sim);
    add_counts(counts, &own);
    return hash;
}
