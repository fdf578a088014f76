/* What the simulated world is made of: its requests, the store's content, and the steps on their way. */
#pragma once

#include "base/philox.h"
#include "scheduler/sched_internal.h"
#include "tests/scheduler/simulator.h"

enum {
    SIM_TOKENS_MAX = 96, /* of a request */
    SIM_REQUESTS_MAX = 48,
    SIM_SEQS_MAX = 8,
    SIM_BLOCKS_MAX = 64,
    SIM_BLOCK_TOKENS_MAX = 16,
    SIM_TOO_LONG = 5, /* tokens over max_model_len that a request may ask for */
};

enum { SIM_KEY_FIELDS = 5 };
struct sim_key {
    int64_t fields[SIM_KEY_FIELDS];
};

enum sim_state {
    SIM_FUTURE,
    SIM_LIVE,
    SIM_ENDED, /* finished or cancelled, not released */
    SIM_RELEASED,
    SIM_REFUSED,
};

struct sim_request {
    struct sched_request ask;
    enum sim_state state;
    bool is_cancelled, is_paused, is_running;
    uint32_t handle, generation;
    uint32_t n_given;    /* n_prompt + n_output */
    uint32_t n_total;    /* with max_output */
    uint32_t n_wanted;   /* draws after which it stops by itself, <= max_output */
    uint32_t n_accepted; /* draws that counted */
    uint32_t n_planned;  /* positions, of this generation */
    uint32_t n_pending;  /* draws in flight, of this generation */
    uint32_t n_in_flight;
    bool was_preempted;
    struct sim_key key;
    uint32_t expected[SIM_TOKENS_MAX + SIM_TOO_LONG];   /* every token that it has or will draw */
    uint64_t content[SIM_TOKENS_MAX + SIM_TOO_LONG];    /* what its KV row at each position must hold */
    uint32_t tokens[SIM_TOKENS_MAX + SIM_TOO_LONG + 1]; /* the scheduler's; the last one is a guard */
};

struct sim_seq {
    struct sched_plan_seq plan;
    uint32_t blocks[SIM_TOKENS_MAX];
    uint32_t drawn;
};

struct sim_step {
    uint64_t id;
    uint32_t n_seqs;
    bool is_executed;
    struct sim_seq seqs[SIM_SEQS_MAX];
};

/* What a listener knows of the prefix cache. */
struct sim_mirror_entry {
    uint64_t serial, parent_serial, salt;
    uint32_t block, adapter;
    uint32_t tokens[SIM_BLOCK_TOKENS_MAX];
};
struct sim_mirror {
    uint64_t last_serial;
    uint32_t n_entries;
    struct sim_mirror_entry entries[SIM_BLOCKS_MAX];
};

struct sim {
    uint64_t seed;
    bool trace;
    struct rng rng;
    struct sim_counts *counts;
    struct sched *sched;
    struct sched_config config;
    uint64_t hash;
    int64_t now_ns;

    /* What kind of life this is. */
    bool is_hungry; /* short prompts and long outputs, more than the store holds */
    uint32_t vocabulary, n_roots, n_salts, n_adapters, n_draw_seeds;
    uint32_t arrival_percent, cancel_percent, pause_percent, stop_percent, several_percent, lazy_percent;

    uint32_t n_requests, n_submitted;
    struct sim_request requests[SIM_REQUESTS_MAX];

    uint64_t store[SIM_BLOCKS_MAX][SIM_BLOCK_TOKENS_MAX];     /* content of the KV store */
    uint64_t committed[SIM_BLOCKS_MAX][SIM_BLOCK_TOKENS_MAX]; /* of it, by committed steps */
    uint32_t slot_drawn[SIM_SEQS_MAX];                        /* what each sampling slot drew last */
    uint64_t slot_owner[SIM_SEQS_MAX];                        /* id << 32 | generation */

    uint32_t n_steps; /* in flight */
    struct sim_step steps[SCHED_STEPS_IN_FLIGHT_MAX];

    struct sim_mirror mirror;
};

/* What stands in the room for output before it is drawn: a token like any other, but a wrong one. */
static inline uint32_t sim_unknown_token(const struct sim *sim, const struct sim_request *r,
                                         uint32_t position)
{
    return position < r->n_total ? (r->expected[position] + 1) % sim->vocabulary : sim->vocabulary;
}

_Noreturn void sim_fail(const struct sim *sim, int line, const char *what);
#define SIM_CHECK(sim, condition)                                                                            \
    ((condition) ? (void)0 : sim_fail((sim), __LINE__, __FILE__ ": " #condition))

bool sim_chance(struct sim *sim, uint32_t percent);

/* Draws the configuration and all requests. */
void sim_make_world(struct sim *sim);

struct prefix_observer sim_mirror_observer(struct sim *sim);
/* What the events told is what the cache holds. */
void sim_mirror_check(struct sim *sim);

/* What a KV row holds: everything before it and its token. */
static inline uint64_t sim_mix(uint64_t before, uint64_t token)
{
    uint64_t x = before ^ (token + 0x9e3779b97f4a7c15u + (before << 6) + (before >> 2));
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
