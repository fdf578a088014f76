/* An attempt that a provider answers. */
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "router/policy/privacy.h"
#include "router/providers/provider_call.h"
#include "router/service/route_internal.h"

enum finish_reason finish_of_answer(enum answer_finish finish)
{
    switch (finish) {
    case ANSWER_UNFINISHED:
        return FINISH_NONE;
    case ANSWER_STOP:
        return FINISH_STOP;
    case ANSWER_LENGTH:
        return FINISH_LENGTH;
    case ANSWER_TOOL_CALLS:
        return FINISH_TOOL_CALLS;
    case ANSWER_CONTENT_FILTER:
        return FINISH_CONTENT_FILTER;
    }
    return FINISH_NONE;
}

static uint32_t count_of(int64_t tokens)
{
    return tokens < 0 ? 0 : tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

struct usage usage_of_answer(const struct answer_usage *usage)
{
    return (struct usage){
        .prompt_tokens = count_of(usage->input_tokens),
        .completion_tokens = count_of(usage->output_tokens),
        .cached_tokens = count_of(usage->cached_tokens),
        .is_unknown = usage->input_tokens < 0 || usage->output_tokens < 0,
    };
}

bool event_of_piece(const struct answer_piece *piece, struct tool_call *call, struct event *out)
{
    *out = (struct event){
        .kind = EVENT_TOKENS, .choice_index = piece->choice_index, .text = "", .stop_token_id = -1};
    switch (piece->kind) {
    case ANSWER_TEXT:
        out->text = piece->text;
        out->text_bytes = piece->text_bytes;
        return true;
    case ANSWER_REFUSAL:
        out->refusal = piece->text;
        out->refusal_bytes = piece->text_bytes;
        return true;
    case ANSWER_REASONING:
        out->reasoning = piece->text;
        out->reasoning_bytes = piece->text_bytes;
        return true;
    case ANSWER_TOOL_CALL:
        *call = (struct tool_call){piece->tool_index, piece->tool_id, piece->tool_name,
                                   piece->text ? piece->text : "", piece->text_bytes};
        out->tool_calls = call;
        out->n_tool_calls = 1;
        return true;
    case ANSWER_LOGPROBS:
        return false;
    case ANSWER_FINISH:
        out->kind = EVENT_FINISHED;
        out->finish_reason = finish_of_answer(piece->finish);
        out->timings = (struct timings){-1, -1, -1};
        return true;
    }
    return false;
}

/* Ends are kept in the queue of ends until the usage is known, which comes after them. */
static err_t on_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct route_attempt *attempt = context;
    struct stream *stream = attempt->stream;
    struct tool_call call;
    struct event event;
    if (!event_of_piece(piece, &call, &event) || piece->choice_index >= stream->n_choices)
        return err_ok();
    pthread_mutex_lock(&stream->lock);
    bool goes_on = route_take_locked(attempt, &event);
    /* More pieces come with the one that was too many: that they have room makes nobody go on. */
    attempt->is_paused = attempt->is_paused || !goes_on;
    *pause = *pause || !goes_on;
    pthread_mutex_unlock(&stream->lock);
    return err_ok();
}

/* Counts are of the whole call: the first choice carries them, so that sums over choices are right. */
static void tell_usage(struct stream *stream, const struct answer_usage *usage)
{
    struct usage told = usage_of_answer(usage);
    for (struct event_node *node = stream->finals; node; node = node->next) {
        node->event.usage = told;
        told.completion_tokens = 0;
    }
}

void route_take_result(struct route_attempt *attempt, const struct provider_result *result)
{
    bool is_success = result->head.status >= 200 && result->head.status < 300;
    attempt->usage = result->usage;
    attempt->cost = 0;
    attempt->outcome = LEDGER_RELEASED;
    if (!result->times.was_sent || (result->head.status != 0 && !is_success))
        return;
    attempt->outcome = LEDGER_SETTLED;
    if (!price_cost(&attempt->upstream->model->price, &result->usage, &attempt->cost)) {
        attempt->outcome = LEDGER_UNKNOWN;
        attempt->cost = -1;
    }
}

static int64_t span(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns >= from_ns ? to_ns - from_ns : -1;
}

static void on_end(void *context, const struct provider_result *result)
{
    struct route_attempt *attempt = context;
    struct stream *stream = attempt->stream;
    struct attempt_end end = {.error = result->error,
                              .may_retry = result->may_retry,
                              .is_its_fault = result->is_its_fault,
                              .whole_ns = span(result->times.started_ns, result->times.ended_ns)};
    if (end.error.code != ERR_OK)
        end.error = err_prefix(end.error, "%s", attempt->upstream->state->name);
    pthread_mutex_lock(&stream->lock);
    /* A whole answer comes all at once: that says nothing of how soon another would begin. */
    end.first_token_ns = stream->wants_whole ? -1 : span(attempt->started_ns, attempt->first_event_ns);
    route_take_result(attempt, result);
    if (stream->winner == attempt && stream->phase != STREAM_ENDED) {
        tell_usage(stream, &result->usage);
        snprintf(stream->fingerprint, sizeof stream->fingerprint, "%s", result->fingerprint);
    }
    attempt->egress_number = 0;
    route_ended_locked(attempt, &end);
    pthread_mutex_unlock(&stream->lock);
    route_settle(attempt);
}

/* What is left of its limits is known before the answer is. */
static void on_head(void *context, const struct egress_head *head)
{
    const struct route_attempt *attempt = context;
    struct route_service *service = attempt->stream->service;
    upstream_told(&service->upstreams, attempt->upstream->state, head, clock_now_ns(service->clock));
}

static const struct provider_handler HANDLER = {on_head, on_piece, on_end};

err_t route_provider_start(struct route_attempt *attempt)
{
    struct stream *stream = attempt->stream;
    struct route_service *service = stream->service;
    struct shareable shareable;
    if (!privacy_release(&stream->question.decision, service->is_offline, stream->question.json, &shareable))
        return err_new(ERR_PERMISSION_DENIED, "this request must not leave the machine");
    attempt->estimate = route_question_estimate(&stream->question, attempt->upstream);
    attempt->model = *attempt->upstream->model;
    attempt->model.output_limit = route_question_output_limit(&stream->question, &attempt->model);
    err_t e = route_reserve(attempt);
    if (e.code == ERR_OK) {
        e = provider_call_start(service->egress, attempt->upstream->provider, &attempt->model, &shareable,
                                !stream->wants_whole, &HANDLER, attempt, &attempt->dropped,
                                &attempt->egress_number);
        if (e.code != ERR_OK)
            route_unreserve(attempt);
    }
    shareable_free(&shareable);
    return e;
}
