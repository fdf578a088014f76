/* The scheduler's state, for its own files and its tests.
 *
 * A request is what somebody wants; a slot is what is being done about it: the block table, how far it is
 * planned and computed, and what its running steps still name. A request that is preempted, cancelled or
 * finished leaves its slot at once; the slot then drains: it keeps its blocks until the last step naming it
 * has committed. So a preempted request may already run in another slot while the old one drains.
 *
 * Files: scheduler.c (create, submit, cancel, pause, release), sched_slots.c (slots and blocks: attach,
 * detach, preempt), sched_plan.c, sched_commit.c, sched_check.c (invariants). */
#pragma once

#include "base/arena.h"
#include "base/assert.h"
#include "scheduler/prefix_cache.h"
#include "scheduler/request_queue.h"
#include "scheduler/scheduler.h"

#define SLOT_NONE UINT32_MAX

/* Named limits of the configuration; they also keep every size computed from it far from an overflow. */
enum {
    SCHED_TOKEN_BUDGET_MAX = 1 << 20,
    SCHED_SEQS_MAX = 1 << 16,
    SCHED_REQUESTS_MAX = 1 << 20,
    SCHED_BLOCKS_MAX = 1 << 28,
    SCHED_MODEL_LEN_MAX = 1 << 28,
};

enum request_state {
    REQUEST_FREE = 0, /* the handle is unused */
    REQUEST_WAITING,  /* in the queue, unless paused */
    REQUEST_RUNNING,  /* has a slot */
    REQUEST_ENDING,   /* finished or cancelled; a step in flight names it */
    REQUEST_RELEASED, /* in the queue of sched_pop_released */
};

struct request {
    struct sched_request ask;
    enum request_state state;
    bool is_paused;
    bool was_admitted;   /* at least once: a further admission is a recomputation */
    uint32_t generation; /* goes on counting over the uses of a handle */
    uint32_t n_known;    /* entries of ask.tokens that are valid */
    uint32_t n_drawn;    /* of them, drawn here */
    uint32_t slot;       /* while running */
    uint32_t n_steps_in_flight;
    /* Memory of a failed admission, so that a long prefix is not looked up at every plan. */
    uint32_t admission_need; /* blocks that were wanted */
    uint32_t n_admissions_skipped;
};

enum slot_state {
    SLOT_FREE = 0,
    SLOT_ATTACHED, /* its request runs */
    SLOT_DRAINING, /* its request left; a step in flight names it */
};

struct slot {
    enum slot_state state;
    bool is_new; /* not in any plan yet */
    uint32_t handle;
    uint32_t n_blocks;     /* of its table */
    uint32_t n_cached;     /* positions from the prefix cache */
    uint32_t n_planned;    /* positions named by plans or cached */
    uint32_t n_computed;   /* positions committed or cached */
    uint32_t n_pending;    /* draws of steps in flight */
    uint32_t n_rows;       /* in the plan being made */
    uint64_t last_step_id; /* that names it */
    uint32_t n_known_last; /* the request's n_known when it left the slot */
    uint32_t n_registered; /* blocks walked by `chain` */
    struct prefix_chain chain;
};

/* What a step in flight named. */
struct step_seq {
    uint32_t handle, generation, slot;
    uint32_t end_position; /* first position + rows */
    bool samples;
};

struct step {
    uint64_t id;
    uint32_t n_seqs;
    struct step_seq *seqs; /* [max_seqs] */
};

struct sched {
    struct sched_config config;
    struct arena *arena;
    uint32_t table_stride; /* blocks of the longest request */
    struct block_pool pool;
    struct prefix_cache cache;

    struct request *requests; /* [max_requests] */
    struct request_queue queue;
    uint64_t last_sequence;
    uint32_t n_free_handles;
    uint32_t *free_handles; /* [max_requests] stack */
    uint32_t n_released, first_released;
    uint32_t *released; /* [max_requests] ring of handles */
    uint32_t n_waiting, n_paused;

    struct slot *slots; /* [max_seqs] */
    uint32_t *tables;   /* [max_seqs][table_stride] */
    uint32_t n_free_slots;
    uint32_t *free_slots; /* [max_seqs] stack */
    uint32_t n_running;
    uint32_t *running; /* [max_seqs] slots in the order of their requests; while a plan is being made it may
                          hold slots that left */
    uint32_t n_draining, n_draining_blocks;

    struct step steps[SCHED_STEPS_IN_FLIGHT_MAX]; /* by id modulo */
    uint64_t last_planned_id, last_committed_id;
    bool is_stalled; /* the last plan was empty and nothing has happened since */

    struct sched_plan plan;
    struct sched_plan_seq *plan_seqs; /* [max_seqs] */
    uint64_t *preempted_ids;          /* [max_seqs] */

    uint64_t n_preemptions, n_prefix_query_tokens, n_prefix_hit_tokens, n_rows_planned;
    uint32_t *check_owners; /* [n_blocks] scratch of sched_check_invariants */
};

/* sched_create with a weakened hash: equal hashes of different prefixes become common. For tests. */
err_t sched_create_masked(const struct sched_config *config, struct hash128 hash_mask,
                          struct sched **out) ERR_MUST_CHECK;

static inline uint32_t sched_n_in_flight(const struct sched *sched)
{
    return (uint32_t)(sched->last_planned_id - sched->last_committed_id);
}

static inline uint32_t sched_blocks_for(const struct sched *sched, uint32_t n_positions)
{
    return (uint32_t)div_up(n_positions, sched->config.block_tokens);
}

static inline uint32_t *sched_table(const struct sched *sched, uint32_t slot)
{
    return &sched->tables[(size_t)slot * sched->table_stride];
}

static inline const struct request_key *sched_slot_key(const struct sched *sched, uint32_t slot)
{
    return &sched->queue.keys[sched->slots[slot].handle];
}

/* Gives the request a free slot (the one on top of the stack) and its place among the running. */
uint32_t slot_attach(struct sched *sched, uint32_t handle);
/* The request leaves its slot, which is freed now or when its last step commits. The request's state and
 * `running` are the caller's. */
void slot_detach(struct sched *sched, uint32_t slot);
/* Frees a draining slot that no step in flight names. */
void slot_try_free(struct sched *sched, uint32_t slot);
/* Registers the slot's full blocks whose positions are committed and whose tokens are known. */
void slot_register_blocks(struct sched *sched, uint32_t slot);
/* Takes a slot out of `running`. */
void running_remove(struct sched *sched, uint32_t slot);

/* The running request goes back to waiting and loses its slot; noted in the plan being made. `running` is the
 * caller's. */
void request_preempt(struct sched *sched, uint32_t slot);
/* Hands an ending request that no step names to sched_pop_released. */
void request_try_release(struct sched *sched, uint32_t handle);
