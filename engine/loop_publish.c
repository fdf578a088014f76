/* Results of a step -> token records, finishes, and the scheduler's commit. */
#include <math.h>
#include <string.h>
#include "base/assert.h"
#include "engine/engine_state.h"

static struct position_logprobs logprobs_of(const struct step_result *result)
{
    struct position_logprobs out = {
        .chosen = {result->chosen.token_id, result->chosen.logprob},
        .rank = result->rank,
        .n_top = result->n_top,
    };
    for (uint32_t i = 0; i < result->n_top; i++)
        out.top[i] = (struct token_logprob){result->top[i].token_id, result->top[i].logprob};
    return out;
}

static bool ends_answer(const struct choice *choice, uint32_t token)
{
    for (size_t i = 0; i < choice->sampler.n_stop_ids; i++)
        if (choice->sampler.stop_ids[i] == token)
            return choice->n_output >= choice->stream->sampling.min_tokens;
    return false;
}

static void push_record(struct engine *engine, struct choice *choice, const struct step_result *result,
                        bool stops, int64_t now_ns)
{
    struct token_record_with_logprobs item = {.record = {.token_id = result->token_ids[0], .stops = stops}};
    if (choice->stream->sampling.logprobs >= 0)
        item.logprobs = logprobs_of(result);
    /* The ring cannot be full: a choice pauses while there is still room for every step in flight. */
    bool pushed = spsc_ring_push(choice->ring, &item);
    ASSERT(pushed);
    engine->published = true;
    size_t reserve = engine->sched_config.max_steps_in_flight;
    if (spsc_ring_count(choice->ring) + reserve >= CHOICE_RING_TOKENS && choice->stalled_since_ns < 0) {
        choice->stalled_since_ns = now_ns;
        atomic_store(&choice->paused, true);
        metric_add(&engine->metrics.slow_reader_pauses[0], 1);
        sched_pause(engine->sched, choice->handle, true);
    }
}

static void publish_prompt_logprobs(const struct step *step, const struct flight_seq *seq)
{
    struct position_logprobs *all = seq->choice->stream->prompt_logprobs;
    if (seq->first_position == 0) {
        all[0] = (struct position_logprobs){.chosen = {seq->choice->tokens[0], NAN}};
    }
    for (uint32_t i = seq->first_output; i < seq->output; i++)
        all[seq->first_position + (i - seq->first_output) + 1] = logprobs_of(&step->results[i]);
}

/* STEP_RESULT_OK when every number of the sequence's results can be used. */
static enum step_result_status results_status(const struct step *step, const struct flight_seq *seq)
{
    uint32_t end = seq->output + (seq->samples ? 1 : 0);
    for (uint32_t i = seq->first_output; i < end; i++)
        if (step->results[i].status != STEP_RESULT_OK)
            return step->results[i].status;
    return STEP_RESULT_OK;
}

static void fail_choice(struct engine *engine, struct choice *choice, enum step_result_status status)
{
    err_t e =
        status == STEP_RESULT_FORBIDDEN
            ? err_new(ERR_INVALID_ARGUMENT,
                      "the request's allowed_token_ids, bad_words and min_tokens together forbid every "
                      "token at output %u",
                      choice->n_output)
            : err_new(ERR_INTERNAL, "the model's logits were not finite at output %u", choice->n_output);
    choice_finish(choice, FINISH_ERROR, -1, &e);
    sched_cancel(engine->sched, choice->handle);
    engine->published = true;
}

/* The drawn token of a sequence whose result counts. Fills *out for the scheduler. */
static void publish_token(struct engine *engine, struct choice *choice, const struct step_result *result,
                          const struct flight_seq *seq, int64_t now_ns, struct sched_result *out)
{
    uint32_t token = result->token_ids[0];
    choice->n_output++;
    engine_count_token(engine, choice, now_ns);
    if (choice->first_token_ns < 0)
        choice->first_token_ns = now_ns;
    choice->last_token_ns = now_ns;
    bool stops = ends_answer(choice, token);
    bool full = choice->n_output >= choice->stream->sampling.max_tokens;
    push_record(engine, choice, result, stops, now_ns);
    *out = (struct sched_result){
        .handle = seq->handle,
        .generation = seq->generation,
        .n_tokens = 1,
        .token_ids = &result->token_ids[0],
        .finished = stops || full,
    };
    if (stops)
        choice_finish(choice, FINISH_STOP, token, NULL);
    else if (full)
        choice_finish(choice, FINISH_LENGTH, -1, NULL);
}

void engine_publish_step(struct engine *engine, struct flight *flight, int64_t now_ns)
{
    const struct step *step = flight->step;
    uint32_t n_results = 0, n_drawn = 0;
    for (uint32_t i = 0; i < flight->n_seqs; i++) {
        const struct flight_seq *seq = &flight->seqs[i];
        bool current = sched_is_current(engine->sched, seq->handle, seq->generation);
        enum step_result_status status = current ? results_status(step, seq) : STEP_RESULT_OK;
        if (status != STEP_RESULT_OK) {
            fail_choice(engine, seq->choice, status);
            current = false;
        }
        /* A recomputed prompt gives the same again, and the reader may be at it already. */
        bool wants_prompt = seq->choice->index == 0 && seq->choice->stream->prompt_logprobs;
        if (current && wants_prompt && seq->choice->first_token_ns < 0)
            publish_prompt_logprobs(step, seq);
        if (!seq->samples)
            continue;
        const struct step_result *result = &step->results[seq->output];
        struct sched_result *out = &engine->results[n_results++];
        if (current) {
            publish_token(engine, seq->choice, result, seq, now_ns, out);
            n_drawn++;
        } else {
            *out = (struct sched_result){.handle = seq->handle,
                                         .generation = seq->generation,
                                         .n_tokens = 1,
                                         .token_ids = &result->token_ids[0]};
        }
    }
    sched_commit(engine->sched, step->id, engine->results, n_results);
    engine_count_step(engine, now_ns, step->n_rows, n_drawn);
}
