/* Who runs next. A pure step function over preallocated state: no threads, no clock, no I/O, no allocation
 * after sched_create. One thread. Time comes in as now_ns.
 *
 * There are no prefill and decode phases: every request has tokens that are computed and tokens that are
 * wanted, and a step hands out one token budget: running requests first (by policy), then waiting ones.
 * Blocks of block_tokens positions; each has one owner count. A request out of blocks preempts the last one
 * by policy, which is recomputed later. Full blocks are registered in the prefix cache when the step that
 * computed them commits.
 *
 * Up to max_steps_in_flight steps are planned and not yet committed; they are committed in the order of
 * planning. A token not yet known to the host is named by the request's slot. Blocks go back when the last
 * step that names them has committed. A result for a request that was preempted, cancelled or finished since
 * is dropped (generation).
 *
 * Preemption: a running request that needs a block takes from the paused ones first, then from the last one
 * by policy behind it, never from one before it; when none is left it sits the step out and keeps what it
 * has, and nobody after it takes a block. The first running one by policy therefore always moves on.
 * Admission: only the head of the queue, which is never passed by; it needs room for all its known tokens
 * beside what the running ones still need; it takes slots and blocks from paused requests and from nobody
 * else (a waiting request of better priority does not preempt a running one).
 *
 *   submit -> waiting -> running (has a slot and blocks) -> finished | cancelled -> released
 *                 ^--- preempted ---' */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "scheduler/prefix_observer.h"

struct sched;

enum sched_policy {
    SCHED_FCFS,
    SCHED_PRIORITY, /* lower priority value first, then earlier deadline, then arrival */
};                  /* equal arrival_ns: the one submitted first */

enum { SCHED_STEPS_IN_FLIGHT_MAX = 2 };

struct sched_config {
    uint32_t token_budget;        /* rows of one step */
    uint32_t max_seqs;            /* running requests = slots */
    uint32_t max_requests;        /* waiting, running, and ended but not yet popped as released */
    uint32_t prefill_chunk;       /* most prefill tokens of one request in a step; 0 = token_budget */
    uint32_t block_tokens;        /* 16 */
    uint32_t n_blocks;            /* of the KV store */
    uint32_t max_model_len;       /* tokens of one request */
    uint32_t max_steps_in_flight; /* 1..SCHED_STEPS_IN_FLIGHT_MAX */
    enum sched_policy policy;
    bool prefix_cache;
    uint32_t tenant_cached_blocks_max; /* free blocks that one salt may keep cached; 0 = no quota */
    uint64_t hash_key[2];              /* secret */
    struct prefix_observer prefix_observer;
};

struct sched_request {
    uint64_t id; /* the caller's; comes back in plans and in sched_pop_released */
    int32_t priority;
    int64_t arrival_ns, deadline_ns; /* deadline_ns: 0 = none. It only orders: the caller cancels */
    uint64_t salt;                   /* of the tenant: prefixes are shared within one salt only */
    uint32_t adapter;                /* likewise */
    uint32_t *tokens; /* [n_prompt + n_output + max_output] the caller's, until released: prompt, then output
                         already known (n_output, for a hand-over), then room: commit appends here */
    uint32_t n_prompt, n_output;
    uint32_t max_output;  /* further tokens that it may draw, >= 1 */
    bool skip_cache_read; /* computes every position itself (prompt logprobs); still registers its blocks */
};

/* One request's share of a step. */
struct sched_plan_seq {
    uint64_t id;
    uint32_t handle, generation;
    uint32_t slot;           /* [0, max_seqs): its sampling slot */
    uint32_t first_position; /* of its rows */
    uint32_t n_rows;
    bool samples;        /* the last row yields the next token */
    bool last_from_slot; /* the last row's token is not in tokens yet: it is what the slot drew last */
    bool slot_is_new; /* admitted, or back after preemption, with this step: the slot must be set first from
                         tokens [0, n_tokens_known) */
    uint32_t n_tokens_known; /* entries of tokens that are valid now */
    uint32_t n_cached; /* positions that came from the prefix cache at this admission: whole blocks, less than
                          n_tokens_known; after a preemption they may pass n_prompt */
    const uint32_t *tokens; /* the request's */
    const uint32_t *blocks; /* [n_blocks] block ids covering positions 0..first_position + n_rows - 1; these
                               stay as they are until the step has committed */
    uint32_t n_blocks;
};

struct sched_plan {
    uint64_t step_id; /* 1, 2, ... */
    uint32_t n_seqs, n_rows;
    const struct sched_plan_seq *seqs; /* those of one row first (so: all decode), then the longer ones, each
                                          in order of policy; valid until the next sched_plan */
    uint32_t n_preempted;              /* by this plan */
    const uint64_t *preempted_ids;
};

/* What a planned sequence with `samples` drew. */
struct sched_result {
    uint32_t handle, generation;
    uint32_t n_tokens; /* >= 1, at most what max_output leaves; more than 1 (the others were not computed yet
                          and will be) only when no later step in flight names the request */
    const uint32_t *token_ids;
    bool finished; /* the caller saw a stop: nothing more is wanted */
};

struct sched_stats {
    uint32_t n_waiting, n_running, n_paused;
    uint32_t n_steps_in_flight;
    uint32_t blocks_total, blocks_used /* owner count > 0 */, blocks_cached /* free and holding a prefix */;
    uint64_t preemptions, steps, rows;
    uint64_t prefix_query_tokens, prefix_hit_tokens; /* first admissions that read the cache */
};

/* ERR_INVALID_ARGUMENT names the field. Everything is allocated here. */
err_t sched_create(const struct sched_config *config, struct sched **out) ERR_MUST_CHECK;
void sched_destroy(struct sched *sched);
/* What sched_create will allocate, for a configuration that it accepts. */
size_t sched_bytes(const struct sched_config *config);

/* Copies *request. RESOURCE_EXHAUSTED: max_requests reached. INVALID_ARGUMENT: can never fit (longer than
 * max_model_len, or more blocks than there are), or a count is 0. */
err_t sched_submit(struct sched *sched, const struct sched_request *request, uint32_t *handle) ERR_MUST_CHECK;
/* Whether a request of this many tokens in all (prompt, known output, max_output) can ever run: the same test
 * as in sched_submit. The last one is drawn and never computed, so that it needs no place in a block. */
err_t sched_check_fits(const struct sched_config *config, uint64_t n_tokens) ERR_MUST_CHECK;

/* Idempotent in every state until the handle's release. What a step in flight draws for it is dropped. */
void sched_cancel(struct sched *sched, uint32_t handle);
/* A paused request is not planned (its reader is slow) and is the first to be preempted. Steps in flight
 * still count for it. Idempotent; nothing once the request has ended. */
void sched_pause(struct sched *sched, uint32_t handle, bool paused);

/* Whether a result of this generation still counts: not cancelled, preempted or finished since. */
bool sched_is_current(const struct sched *sched, uint32_t handle, uint32_t generation);

/* The next step; n_seqs = 0 when nothing can run now or max_steps_in_flight are uncommitted. Never plans past
 * a request's max_output. An empty plan is not a step (step_id 0) and is not committed; it may have
 * preempted. With no step in flight and somebody runnable the plan is never empty. now_ns: for policies that
 * look at the time; these two do not. */
const struct sched_plan *sched_plan(struct sched *sched, int64_t now_ns);
/* True when sched_plan might plan something: a step may be added and somebody is runnable. False after an
 * empty plan until something happens (submit, cancel, pause, commit), so that a loop does not spin. */
bool sched_has_work(const struct sched *sched);

/* Results of the oldest uncommitted step: for each of its seqs with `samples`, in plan order (also for those
 * that are not current any more; only their handle and generation are looked at). Appends accepted tokens to
 * the requests' tokens, registers full blocks, frees what only this step held. A finished request (by
 * `finished` or by max_output) gives its blocks back once no step names it. */
void sched_commit(struct sched *sched, uint64_t step_id, const struct sched_result *results,
                  uint32_t n_results);

/* Requests whose tokens the scheduler will not touch again (finished or cancelled, no step in flight names
 * them); the handle is free after this. False when there is none. */
bool sched_pop_released(struct sched *sched, uint64_t *id);

void sched_get_stats(const struct sched *sched, struct sched_stats *out);
/* Forgets every cached prefix that nobody uses. (Prefixes in use stay, and can be hit.) */
void sched_reset_prefix_cache(struct sched *sched);
/* Aborts when an invariant is broken (tests call it at every step): owner counts, free list, tables, budgets.
 */
void sched_check_invariants(const struct sched *sched);
