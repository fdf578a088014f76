#include "tests/scheduler/sim_world.h"

#include <string.h>

bool sim_chance(struct sim *sim, uint32_t percent)
{
    return rng_below(&sim->rng, 100) < percent;
}

static uint32_t between(struct sim *sim, uint32_t low, uint32_t high)
{
    return low + rng_below(&sim->rng, high - low + 1);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void make_config(struct sim *sim)
{
    static const uint32_t block_tokens[] = {1, 2, 4, 4, 8, 16};
    struct sched_config *c = &sim->config;
    c->token_budget = sim_chance(sim, 30) ? between(sim, 1, 6) : between(sim, 4, 64);
    c->max_seqs = between(sim, sim->is_hungry ? 2 : 1, SIM_SEQS_MAX);
    c->max_requests = sim_chance(sim, 20) ? between(sim, 1, 6) : between(sim, 6, SIM_REQUESTS_MAX);
    c->prefill_chunk = sim_chance(sim, 40) ? 0 : between(sim, 1, 24);
    c->block_tokens = block_tokens[rng_below(&sim->rng, 6)];
    /* Mostly so few blocks that a handful of requests do not fit together. */
    uint32_t longest = SIM_TOKENS_MAX / c->block_tokens;
    c->n_blocks = between(sim, 1, min_u32(sim_chance(sim, 70) ? longest : 4 * longest, SIM_BLOCKS_MAX));
    uint32_t most = min_u32(c->n_blocks * c->block_tokens + 1, SIM_TOKENS_MAX);
    c->max_model_len = between(sim, 2, most);
    if (sim_chance(sim, 60))
        c->max_model_len = most;
    c->max_steps_in_flight = between(sim, 1, 2);
    c->policy = sim_chance(sim, 50) ? SCHED_FCFS : SCHED_PRIORITY;
    c->prefix_cache = sim_chance(sim, 80);
    c->tenant_cached_blocks_max = sim_chance(sim, 50) ? 0 : between(sim, 1, 8);
    c->hash_key[0] = rng_u64(&sim->rng);
    c->hash_key[1] = rng_u64(&sim->rng);
}

static void make_mood(struct sim *sim)
{
    sim->is_hungry = sim_chance(sim, 40);
    sim->vocabulary = between(sim, 2, 50);
    sim->n_roots = between(sim, 1, 4);
    sim->n_salts = sim_chance(sim, 50) ? 1 : between(sim, 2, 4);
    sim->n_adapters = sim_chance(sim, 70) ? 1 : 2;
    sim->n_draw_seeds = between(sim, 1, 4);
    sim->arrival_percent = between(sim, 5, 90);
    sim->cancel_percent = sim_chance(sim, 40) ? 0 : between(sim, 1, 15);
    sim->pause_percent = sim_chance(sim, 50) ? 0 : between(sim, 1, 20);
    sim->stop_percent = between(sim, 0, 80);
    sim->several_percent = sim_chance(sim, 85) ? 0 : between(sim, 5, 60);
    sim->lazy_percent = between(sim, 0, 60);
}

/* Prompts grow out of a few roots, or out of what an earlier request said. */
static void make_prompt(struct sim *sim, struct sim_request *r, uint32_t n_requests_before)
{
    uint32_t n_shared = 0;
    if (n_requests_before > 0 && sim_chance(sim, 40)) {
        const struct sim_request *earlier = &sim->requests[rng_below(&sim->rng, n_requests_before)];
        n_shared = min_u32(between(sim, 0, earlier->n_total), r->n_given);
        memcpy(r->expected, earlier->expected, n_shared * sizeof *r->expected);
        if (sim_chance(sim, 80)) {
            r->ask.salt = earlier->ask.salt;
            r->ask.adapter = earlier->ask.adapter;
        }
    } else {
        uint64_t root = rng_below(&sim->rng, sim->n_roots);
        n_shared = between(sim, 0, r->n_given);
        for (uint32_t i = 0; i < n_shared; i++)
            r->expected[i] = (uint32_t)(sim_mix(root, i) % sim->vocabulary);
    }
    for (uint32_t i = n_shared; i < r->n_given; i++)
        r->expected[i] = rng_below(&sim->rng, sim->vocabulary);
}

static void make_request(struct sim *sim, uint32_t index)
{
    struct sim_request *r = &sim->requests[index];
    struct sched_request *ask = &r->ask;
    uint32_t max_len = sim->config.max_model_len;
    bool too_long = sim_chance(sim, 2);
    r->n_total = too_long ? max_len + between(sim, 1, SIM_TOO_LONG) : between(sim, 2, max_len);
    if (!too_long && sim_chance(sim, 50))
        r->n_total = between(sim, 2, min_u32(max_len, 24));
    ask->max_output = between(sim, 1, min_u32(r->n_total - 1, sim_chance(sim, 50) ? 4 : 40));
    if (sim->is_hungry)
        ask->max_output = r->n_total - between(sim, 1, min_u32(r->n_total - 1, 8));
    r->n_given = r->n_total - ask->max_output;
    ask->n_output = sim_chance(sim, 10) ? rng_below(&sim->rng, r->n_given) : 0;
    ask->n_prompt = r->n_given - ask->n_output;
    r->n_wanted = sim_chance(sim, sim->stop_percent) ? between(sim, 1, ask->max_output) : ask->max_output;

    ask->id = 1000 + index;
    ask->priority = (int32_t)between(sim, 0, 3) - 1;
    ask->deadline_ns = sim_chance(sim, 50) ? 0 : (int64_t)between(sim, 1, 5) * 1000;
    ask->salt = (uint64_t)rng_below(&sim->rng, sim->n_salts) << 40;
    ask->adapter = rng_below(&sim->rng, sim->n_adapters);
    ask->skip_cache_read = sim_chance(sim, 10);
    make_prompt(sim, r, index);

    uint64_t draw_seed = 77 + rng_below(&sim->rng, sim->n_draw_seeds);
    for (uint32_t i = r->n_given; i < r->n_total; i++)
        r->expected[i] = (uint32_t)(sim_mix(draw_seed, i) % sim->vocabulary);
    uint64_t content = sim_mix(ask->salt, ask->adapter);
    for (uint32_t i = 0; i < r->n_total; i++)
        r->content[i] = content = sim_mix(content, r->expected[i]);

    memcpy(r->tokens, r->expected, r->n_given * sizeof *r->tokens);
    for (uint32_t i = r->n_given; i <= r->n_total; i++)
        r->tokens[i] = sim_unknown_token(sim, r, i);
    ask->tokens = r->tokens;
}

void sim_make_world(struct sim *sim)
{
    make_mood(sim);
    make_config(sim);
    struct hash128 mask = {UINT64_MAX, UINT64_MAX};
    if (sim_chance(sim, 25))
        mask = (struct hash128){between(sim, 0, 3), between(sim, 0, 1)};
    sim->config.prefix_observer = sim_mirror_observer(sim);
    err_t e = sched_create_masked(&sim->config, mask, &sim->sched);
    SIM_CHECK(sim, e.code == ERR_OK);
    sim->n_requests = between(sim, 1, SIM_REQUESTS_MAX);
    for (uint32_t i = 0; i < sim->n_requests; i++)
        make_request(sim, i);
}
