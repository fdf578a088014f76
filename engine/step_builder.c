/* A plan in the scheduler's words -> a step in the model's. */
#include <string.h>
#include "base/assert.h"
#include "engine/engine_state.h"

static void set_slot(struct engine *engine, const struct sched_plan_seq *seq, const struct choice *choice)
{
    struct sampler_history history = {
        .prompt_ids = seq->tokens,
        .n_prompt = choice->n_prompt,
        .output_ids = seq->tokens + choice->n_prompt,
        .n_output = seq->n_tokens_known - choice->n_prompt,
    };
    engine->executor.vtable->slot_set(engine->executor.context, seq->slot, &choice->sampler, &history);
}

static void add_rows(struct step *step, const struct sched_plan_seq *seq)
{
    for (uint32_t i = 0; i < seq->n_rows; i++) {
        uint32_t position = seq->first_position + i;
        bool known = position < seq->n_tokens_known;
        ASSERT(known || (seq->last_from_slot && i + 1 == seq->n_rows));
        step->rows[step->n_rows++] = (struct step_row){
            .token = known ? seq->tokens[position] : 0,
            .position = position,
            .seq = step->n_seqs,
            .flags = known ? 0 : STEP_ROW_TOKEN_FROM_SLOT,
        };
    }
}

/* Prompt positions p whose next token's logprob is wanted: 0 <= p < n_prompt - 1. */
static void add_prompt_outputs(struct step *step, const struct sched_plan_seq *seq,
                               const struct choice *choice, uint32_t first_row)
{
    for (uint32_t i = 0; i < seq->n_rows; i++) {
        uint32_t position = seq->first_position + i;
        if (position + 1 >= choice->n_prompt)
            break;
        step->outputs[step->n_outputs++] = (struct step_output){
            .row = first_row + i,
            .kind = STEP_OUTPUT_LOGPROBS,
            .target = seq->tokens[position + 1],
            .n_logprobs = choice->stream->sampling.prompt_logprobs,
        };
    }
}

static void add_seq(struct engine *engine, struct flight *flight, const struct sched_plan_seq *seq)
{
    struct step *step = flight->step;
    struct choice *choice = (struct choice *)(uintptr_t)seq->id;
    uint32_t first_row = step->n_rows;
    struct flight_seq *entry = &flight->seqs[flight->n_seqs++];
    *entry = (struct flight_seq){
        .choice = choice,
        .handle = seq->handle,
        .generation = seq->generation,
        .first_output = step->n_outputs,
        .first_position = seq->first_position,
        .samples = seq->samples,
    };
    if (seq->slot_is_new)
        set_slot(engine, seq, choice);
    add_rows(step, seq);
    if (choice->index == 0 && choice->stream->prompt_logprobs)
        add_prompt_outputs(step, seq, choice, first_row);
    entry->output = step->n_outputs;
    if (seq->samples)
        step->outputs[step->n_outputs++] = (struct step_output){
            .row = step->n_rows - 1,
            .kind = STEP_OUTPUT_SAMPLE,
            .n_logprobs = choice->stream->sampling.logprobs,
        };
    memcpy(step_block_table(step, 0, step->n_seqs), seq->blocks, seq->n_blocks * sizeof *seq->blocks);
    step->seqs[step->n_seqs++] = (struct step_seq){
        .first_row = first_row,
        .n_rows = seq->n_rows,
        .n_context = seq->first_position + seq->n_rows,
        .sampling_slot = seq->slot,
        .adapter_slot = STEP_NO_SLOT,
    };
}

void engine_build_step(struct engine *engine, const struct sched_plan *plan, struct flight *flight)
{
    struct step *step = flight->step;
    step->id = plan->step_id;
    step->n_rows = step->n_seqs = step->n_outputs = step->n_copies = 0;
    flight->n_seqs = 0;
    int64_t now_ns = clock_now_ns(engine->clock);
    uint64_t prefill = 0, decode = 0;
    for (uint32_t i = 0; i < plan->n_seqs; i++) {
        const struct sched_plan_seq *seq = &plan->seqs[i];
        struct choice *choice = (struct choice *)(uintptr_t)seq->id;
        if (choice->first_scheduled_ns < 0) {
            choice->first_scheduled_ns = now_ns;
            /* Of a handed-over answer some output may be cached too. */
            choice->n_cached = seq->n_cached < choice->n_prompt ? seq->n_cached : choice->n_prompt;
        }
        if (seq->n_rows == 1 && seq->samples)
            decode++;
        else
            prefill += seq->n_rows;
        add_seq(engine, flight, seq);
    }
    ASSERT(step->n_rows == plan->n_rows && step->n_rows <= step->capacity.rows);
    atomic_fetch_add(&engine->counters.prefill_rows, prefill);
    atomic_fetch_add(&engine->counters.decode_rows, decode);
}
