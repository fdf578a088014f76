/* An attempt that an engine beside the router answers. */
#include <stdio.h>
#include "base/assert.h"
#include "router/service/route_internal.h"

static bool on_event(void *context, const struct event *event)
{
    struct route_attempt *attempt = context;
    struct stream *stream = attempt->stream;
    pthread_mutex_lock(&stream->lock);
    bool goes_on = route_take_locked(attempt, event);
    attempt->is_paused = !goes_on;
    pthread_mutex_unlock(&stream->lock);
    return goes_on;
}

static int64_t span(int64_t from_ns, int64_t to_ns)
{
    return from_ns > 0 && to_ns >= from_ns ? to_ns - from_ns : -1;
}

/* Usage as choices told it: the prompt is the same for all of them. */
static void take_usage(struct route_attempt *attempt)
{
    attempt->usage = (struct answer_usage){-1, -1, -1, -1, -1};
    const struct stream *stream = attempt->stream;
    for (const struct event_node *node = stream->finals; node && stream->winner == attempt;
         node = node->next) {
        const struct usage *usage = &node->event.usage;
        if (usage->is_unknown)
            continue;
        struct answer_usage *sum = &attempt->usage;
        sum->input_tokens = usage->prompt_tokens;
        sum->cached_tokens = usage->cached_tokens;
        sum->output_tokens = (sum->output_tokens < 0 ? 0 : sum->output_tokens) + usage->completion_tokens;
    }
}

/* What its tokenizer makes of a text's bytes, for the next ones. An engine that cuts a prompt counts the
 * rest. */
static void learn_length(const struct route_attempt *attempt)
{
    const struct route_question *question = &attempt->stream->question;
    int64_t tokens = attempt->usage.input_tokens - (int64_t)question->turn_tokens;
    bool is_cut = attempt->stream->request->sampling.set & SAMPLING_TRUNCATE_PROMPT_TOKENS;
    if (attempt->usage.input_tokens > 0 && question->prompt_bytes > 0 && !is_cut)
        upstream_counted(attempt->upstream->state, question->input.tenant, question->prompt_bytes,
                         tokens > 0 ? (uint64_t)tokens : 0);
}

static void on_end(void *context, const struct local_result *result)
{
    struct route_attempt *attempt = context;
    struct stream *stream = attempt->stream;
    struct attempt_end end = {
        .error = result->error,
        .may_retry = result->may_retry,
        .is_its_fault = result->is_its_fault,
        .first_token_ns = span(result->started_ns, result->first_token_ns),
        .whole_ns = span(result->started_ns, result->ended_ns),
    };
    if (result->n_handovers > 0)
        metric_add(&route_metrics_counts(stream->service->route_metrics)->handovers[0], result->n_handovers);
    pthread_mutex_lock(&stream->lock);
    take_usage(attempt);
    learn_length(attempt);
    attempt->has_entry = true;
    attempt->outcome = LEDGER_SETTLED;
    attempt->cost = route_local_cost(attempt, end.whole_ns);
    if (result->fingerprint && result->fingerprint[0] && stream->winner == attempt &&
        stream->phase != STREAM_ENDED)
        snprintf(stream->fingerprint, sizeof stream->fingerprint, "%s", result->fingerprint);
    route_ended_locked(attempt, &end);
    struct local_call *call = attempt->call;
    attempt->call = NULL;
    pthread_mutex_unlock(&stream->lock);
    local_call_release(call);
    route_settle(attempt);
}

static const struct local_handler HANDLER = {on_event, on_end};

/* The fleet knows what the engine calls its model; a cascade needs the two best tokens of each place. */
err_t route_local_start(struct route_attempt *attempt)
{
    struct stream *stream = attempt->stream;
    struct request own = *stream->request;
    own.model = NULL;
    own.tenant = stream->tenant;
    if (attempt->is_held && (!(own.sampling.set & SAMPLING_LOGPROBS) || own.sampling.logprobs < 0)) {
        own.sampling.set |= SAMPLING_LOGPROBS;
        own.sampling.logprobs = 2;
    }
    return local_call_start(snapshot_fleet(stream->snapshot), attempt->upstream->local, &own, &HANDLER,
                            attempt, &attempt->call);
}

void attempt_cancel(struct route_attempt *attempt)
{
    ASSERT(attempt->is_live);
    if (attempt->upstream->is_local)
        local_call_cancel(attempt->call);
    else
        egress_cancel(attempt->stream->service->egress, attempt->egress_number);
}
