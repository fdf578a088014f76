/* What is written of a request that has ended, on the worker. */
#include <stddef.h>
#include <string.h>
#include <time.h>
#include "base/assert.h"
#include "router/service/route_internal.h"
#include "router/service/route_shadow.h"

int64_t route_unix_ms(void *ignored)
{
    (void)ignored;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t span_us(int64_t from_ns, int64_t to_ns)
{
    return to_ns == 0 ? -1 : (to_ns - from_ns) / 1000;
}

/* Strings live as long as the request. */
static struct decision_entry entry_of(const struct stream *stream)
{
    const struct route_snapshot *snapshot = stream->snapshot;
    const struct route_question *question = &stream->question;
    const struct sampling_params *sampling = &stream->request->sampling;
    bool is_answered = stream->end_error.code == ERR_OK, is_estimate;
    nanodollars booked = route_booked_locked(stream, &is_estimate);
    return (struct decision_entry){
        .unix_ms = stream->unix_ms,
        .id = stream->decision_id,
        .request_id = stream->request->request_id,
        .tenant = question->input.tenant,
        .model = question->input.model,
        .provider = stream->provider_name,
        .answered_by = stream->model_name,
        .tier = snapshot->tiers[stream->tier].tier->name,
        .reason = stream->reason,
        .rule = question->decision.rule,
        .cache = stream->source.cache,
        .policy_id = snapshot_config(snapshot)->policy_id,
        .fingerprint = stream->fingerprint,
        .stage = ROLLOUT_STAGE_NAMES[rollout_stage_now(snapshot_rollout(snapshot))],
        .error = is_answered ? "" : err_code_name(stream->end_error.code),
        .finish_reason = finish_reason_name(stream->end_reason),
        .seed = sampling->set & SAMPLING_SEED ? sampling->seed : 0,
        .local_only = question->decision.local_only,
        .escalated = stream->was_escalated,
        .hedged = stream->was_hedged,
        .attempts = stream->n_attempts,
        .difficulty = question->input.difficulty,
        .confidence = stream->estimate < 0 ? -1 : 1 - stream->estimate,
        .prompt_tokens = question->prompt_tokens,
        .predicted_ttft_ms = question->input.ttft_ms[stream->tier],
        .queue_us = -1,
        .first_token_us = span_us(stream->submitted_ns, stream->first_event_ns),
        .total_us = span_us(stream->submitted_ns, stream->ended_ns),
        .usage = stream->usage,
        .cost = booked,
        .cost_is_estimate = is_estimate,
        .frontier_cost = route_frontier_cost(stream),
        .input = &question->input,
        .n_tiers = snapshot->n_tiers,
        .request = question->json,
    };
}

static void count_saved(const struct stream *stream)
{
    nanodollars there = route_frontier_cost(stream);
    if (stream->end_error.code == ERR_OK && stream->cost >= 0 && there > stream->cost)
        metric_add(&route_metrics_counts(stream->service->route_metrics)->saved[0],
                   (uint64_t)(there - stream->cost));
}

/* With what was answered; an answer that broke off is none. */
static void write_answered_locked(struct stream *stream, struct decision_log *log)
{
    struct decision_entry entry = entry_of(stream);
    struct buffer answer = {.limit_bytes = 2 * ANSWER_KEEP_BYTES_MAX};
    if (stream->end_error.code == ERR_OK && answer_keep_write(&stream->keep, &answer)) {
        entry.answer = answer.data ? answer.data : "";
        entry.answer_bytes = answer.size;
    }
    decision_log_write(log, &entry);
    buffer_free(&answer);
    answer_keep_forget(&stream->keep);
}

/* All that it cost is known, as far as anybody tells. */
static void write_line_locked(struct stream *stream)
{
    struct decision_log *log = snapshot_log(stream->snapshot);
    stream->line_is_due = false;
    stream->cost = route_cost_locked(stream);
    count_saved(stream);
    if (log)
        write_answered_locked(stream, log);
}

void route_settled(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    ASSERT(stream->n_unsettled > 0);
    if (--stream->n_unsettled == 0 && stream->line_is_due)
        write_line_locked(stream);
    pthread_mutex_unlock(&stream->lock);
}

static void write_end(struct worker_job *job)
{
    struct stream *stream = (struct stream *)((char *)job - offsetof(struct stream, end_job));
    route_cache_done(stream);
    pthread_mutex_lock(&stream->lock);
    stream->line_is_due = true;
    if (stream->n_unsettled == 0)
        write_line_locked(stream);
    pthread_mutex_unlock(&stream->lock);
    route_shadow_begin(stream);
    stream_unref(stream);
}

static void end_shadow(struct worker_job *job)
{
    struct stream *stream = (struct stream *)((char *)job - offsetof(struct stream, end_job));
    route_shadow_ended(stream);
    stream_unref(stream);
}

void route_post_end_locked(struct stream *stream)
{
    stream_ref(stream);
    stream->end_job.run = stream->is_shadow ? end_shadow : write_end;
    if (stream->is_leading) /* others wait for its answer */
        route_worker_post(stream->service->worker, &stream->end_job);
    else
        route_worker_post_later(stream->service->worker, &stream->end_job);
}

void route_log_refusal(struct stream *stream, const err_t *error)
{
    struct decision_log *log = snapshot_log(stream->snapshot);
    stream->end_error = *error;
    if (log == NULL)
        return;
    struct decision_entry entry = entry_of(stream);
    decision_log_write(log, &entry);
}
