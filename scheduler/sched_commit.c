#include "scheduler/sched_internal.h"

#include <string.h>

/* Appends what the request drew. True when it wants nothing more. */
static bool accept_result(struct sched *sched, struct request *request, const struct sched_result *result)
{
    struct slot *slot = &sched->slots[request->slot];
    ASSERT(slot->n_pending > 0);
    slot->n_pending--;
    ASSERT(result->n_tokens >= 1 && result->n_tokens <= request->ask.max_output - request->n_drawn);
    /* A later step in flight was planned for the position after exactly one token. */
    ASSERT(result->n_tokens == 1 || slot->last_step_id == sched->last_committed_id);
    memcpy(&request->ask.tokens[request->n_known], result->token_ids,
           result->n_tokens * sizeof *result->token_ids);
    request->n_known += result->n_tokens;
    request->n_drawn += result->n_tokens;
    return result->finished || request->n_drawn == request->ask.max_output;
}

static void commit_seq(struct sched *sched, const struct step_seq *seq, const struct sched_result *result)
{
    struct request *request = &sched->requests[seq->handle];
    struct slot *slot = &sched->slots[seq->slot];
    ASSERT(slot->handle == seq->handle && slot->state != SLOT_FREE);
    slot->n_computed = seq->end_position;
    request->n_steps_in_flight--;

    bool has_finished = false;
    if (result != NULL && sched_is_current(sched, seq->handle, seq->generation))
        has_finished = accept_result(sched, request, result);
    slot_register_blocks(sched, seq->slot);
    if (has_finished) {
        running_remove(sched, seq->slot);
        slot_detach(sched, seq->slot);
        sched->n_paused -= request->is_paused;
        request->state = REQUEST_ENDING;
    } else {
        slot_try_free(sched, seq->slot);
    }
    request_try_release(sched, seq->handle);
}

void sched_commit(struct sched *sched, uint64_t step_id, const struct sched_result *results,
                  uint32_t n_results)
{
    ASSERT(sched_n_in_flight(sched) > 0 && step_id == sched->last_committed_id + 1);
    const struct step *step = &sched->steps[step_id % SCHED_STEPS_IN_FLIGHT_MAX];
    ASSERT(step->id == step_id);
    sched->last_committed_id = step_id;
    uint32_t next = 0;
    for (uint32_t i = 0; i < step->n_seqs; i++) {
        const struct step_seq *seq = &step->seqs[i];
        const struct sched_result *result = NULL;
        if (seq->samples) {
            ASSERT(next < n_results);
            result = &results[next++];
            ASSERT(result->handle == seq->handle && result->generation == seq->generation);
        }
        commit_seq(sched, seq, result);
    }
    ASSERT(next == n_results);
    sched->is_stalled = false;
}
