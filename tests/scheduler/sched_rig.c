#include "tests/scheduler/sched_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct sched_config rig_config(void)
{
    return (struct sched_config){
        .token_budget = 64,
        .max_seqs = 8,
        .max_requests = 16,
        .block_tokens = 4,
        .n_blocks = 64,
        .max_model_len = 100,
        .max_steps_in_flight = 1,
        .policy = SCHED_FCFS,
        .prefix_cache = true,
        .hash_key = {1, 2},
    };
}

void rig_open(struct rig *rig, const struct sched_config *config)
{
    *rig = (struct rig){.config = *config};
    err_t e = sched_create(config, &rig->sched);
    assert_int_equal(e.code, ERR_OK);
}

void rig_close(struct rig *rig)
{
    sched_check_invariants(rig->sched);
    sched_destroy(rig->sched);
}

struct sched_request rig_request(struct rig *rig, uint64_t id, uint32_t n_prompt, uint32_t first_token,
                                 uint32_t max_output)
{
    assert_true(id < RIG_REQUESTS_MAX && n_prompt + max_output <= RIG_TOKENS_MAX);
    uint32_t *tokens = rig->requests[id].tokens;
    for (uint32_t i = 0; i < n_prompt; i++)
        tokens[i] = first_token + i;
    return (struct sched_request){.id = id, .tokens = tokens, .n_prompt = n_prompt, .max_output = max_output};
}

void rig_submit(struct rig *rig, const struct sched_request *request)
{
    err_t e = sched_submit(rig->sched, request, &rig->requests[request->id].handle);
    assert_int_equal(e.code, ERR_OK);
}

void rig_add(struct rig *rig, uint64_t id, uint32_t n_prompt, uint32_t first_token, uint32_t max_output)
{
    struct sched_request request = rig_request(rig, id, n_prompt, first_token, max_output);
    rig_submit(rig, &request);
}

uint32_t rig_handle(const struct rig *rig, uint64_t id)
{
    return rig->requests[id].handle;
}

struct rig_step rig_plan(struct rig *rig)
{
    const struct sched_plan *plan = sched_plan(rig->sched, 0);
    struct rig_step step = {.id = plan->step_id,
                            .n_seqs = plan->n_seqs,
                            .n_rows = plan->n_rows,
                            .n_preempted = plan->n_preempted};
    assert_true(plan->n_seqs <= RIG_SEQS_MAX && plan->n_preempted <= RIG_SEQS_MAX);
    memcpy(step.seqs, plan->seqs, plan->n_seqs * sizeof *plan->seqs);
    memcpy(step.preempted_ids, plan->preempted_ids, plan->n_preempted * sizeof *plan->preempted_ids);
    sched_check_invariants(rig->sched);
    return step;
}

void rig_commit(struct rig *rig, const struct rig_step *step, uint32_t token, uint64_t finished_id)
{
    struct sched_result results[RIG_SEQS_MAX];
    uint32_t n_results = 0;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const struct sched_plan_seq *seq = &step->seqs[i];
        if (seq->samples)
            results[n_results++] = (struct sched_result){seq->handle, seq->generation, 1, &token,
                                                         finished_id != 0 && seq->id == finished_id};
    }
    sched_commit(rig->sched, step->id, results, n_results);
    sched_check_invariants(rig->sched);
}

struct rig_step rig_step(struct rig *rig, uint32_t token)
{
    struct rig_step step = rig_plan(rig);
    if (step.n_seqs > 0)
        rig_commit(rig, &step, token, 0);
    return step;
}

bool rig_run_out(struct rig *rig)
{
    for (int i = 0; i < 1000; i++) {
        struct sched_stats stats = rig_stats(rig);
        if (stats.n_waiting + stats.n_running == 0)
            return true;
        (void)rig_step(rig, 5);
    }
    return false;
}

const struct sched_plan_seq *rig_find(const struct rig_step *step, uint64_t id)
{
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        if (step->seqs[i].id == id)
            return &step->seqs[i];
    }
    return NULL;
}

struct sched_stats rig_stats(const struct rig *rig)
{
    struct sched_stats stats;
    sched_get_stats(rig->sched, &stats);
    return stats;
}

uint64_t rig_pop(struct rig *rig)
{
    uint64_t id = 0;
    return sched_pop_released(rig->sched, &id) ? id : 0;
}
