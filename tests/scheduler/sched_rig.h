/* A small bench for tests of single promises: a scheduler, requests with plain prompts, steps by hand. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "scheduler/sched_internal.h"

enum { RIG_TOKENS_MAX = 128, RIG_SEQS_MAX = 16, RIG_REQUESTS_MAX = 32 };

struct rig {
    struct sched *sched;
    struct sched_config config;
    struct {
        uint32_t handle;
        uint32_t tokens[RIG_TOKENS_MAX];
    } requests[RIG_REQUESTS_MAX]; /* by id */
};

/* A copy of a plan. */
struct rig_step {
    uint64_t id;
    uint32_t n_seqs, n_rows, n_preempted;
    struct sched_plan_seq seqs[RIG_SEQS_MAX];
    uint64_t preempted_ids[RIG_SEQS_MAX];
};

/* Roomy: budget 64, 8 seqs, 16 requests, blocks of 4 tokens, 64 blocks, 100 tokens, one step in flight, fcfs,
 * prefix cache. */
struct sched_config rig_config(void);
void rig_open(struct rig *rig, const struct sched_config *config);
void rig_close(struct rig *rig);

/* A request whose prompt is the tokens first_token, first_token + 1, ...; the rest of the fields may be set.
 */
struct sched_request rig_request(struct rig *rig, uint64_t id, uint32_t n_prompt, uint32_t first_token,
                                 uint32_t max_output);
/* Asserts that it is taken. */
void rig_submit(struct rig *rig, const struct sched_request *request);
/* Both at once. */
void rig_add(struct rig *rig, uint64_t id, uint32_t n_prompt, uint32_t first_token, uint32_t max_output);
uint32_t rig_handle(const struct rig *rig, uint64_t id);

/* Plans, checks the invariants. */
struct rig_step rig_plan(struct rig *rig);
/* Commits: each sampling seq drew `token`; the one with the id `finished_id` says that it has finished. */
void rig_commit(struct rig *rig, const struct rig_step *step, uint32_t token, uint64_t finished_id);
/* Plans and commits one step. */
struct rig_step rig_step(struct rig *rig, uint32_t token);
/* Steps until nothing runs or waits; false after 1,000 steps. */
bool rig_run_out(struct rig *rig);

/* NULL when the step does not have the request. */
const struct sched_plan_seq *rig_find(const struct rig_step *step, uint64_t id);
struct sched_stats rig_stats(const struct rig *rig);
/* Pops one; 0 when there is none. */
uint64_t rig_pop(struct rig *rig);
