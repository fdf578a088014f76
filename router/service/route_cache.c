/* Answers that were given before, or are being given to somebody else. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "router/service/route_internal.h"

enum { RECORD_BYTES_MAX = 4 << 20 };

/* A record has texts and calls of tools, and no token ids or logprobs. */
static bool may_be_kept(const struct stream *stream)
{
    const struct sampling_params *sampling = &stream->request->sampling;
    const json_t *json = stream->question.json;
    bool wants_more = (sampling->set & SAMPLING_LOGPROBS && sampling->logprobs >= 0) ||
                      (sampling->set & SAMPLING_PROMPT_LOGPROBS && sampling->prompt_logprobs >= 0);
    return json && !stream->takes_ids_only && !wants_more &&
           !json_is_true(json_object_get(json, "logprobs")) &&
           !json_is_true(json_object_get(json, "return_token_ids"));
}

/* --- a record as an answer */

static err_t give_piece(void *context, const struct answer_piece *piece)
{
    struct stream *stream = context;
    struct tool_call call;
    struct event event;
    if (!event_of_piece(piece, &call, &event) || piece->choice_index >= stream->n_choices)
        return err_ok();
    bool fits = event.kind == EVENT_FINISHED ? stream_keep_final_locked(stream, &event)
                                             : stream_push_locked(stream, &event);
    answer_keep_take(&stream->keep, &event);
    return fits ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
}

static err_t pass_over(void *context, const struct answer_piece *piece)
{
    (void)context;
    (void)piece;
    return err_ok();
}

static void name_answerer(struct stream *stream, const struct answer_facts *facts)
{
    const char *slash = strchr(facts->model, '/');
    int provider_bytes = slash ? (int)(slash - facts->model) : 0;
    snprintf(stream->provider_name, sizeof stream->provider_name, "%.*s", provider_bytes, facts->model);
    snprintf(stream->model_name, sizeof stream->model_name, "%s", slash ? slash + 1 : facts->model);
    snprintf(stream->fingerprint, sizeof stream->fingerprint, "%s", facts->fingerprint);
}

/* The facts stand at the record's end, and the first event tells who answered: so it is read twice. */
static void replay(struct stream *stream, const char *bytes, size_t size, const char *how)
{
    struct answer_sink nobody = {.take = pass_over}, sink = {.take = give_piece, .context = stream};
    struct answer_facts facts;
    stream->is_hidden = true;
    stream->source.cache = how;
    stream->source.reason = stream->reason;
    stream->source.rule = stream->question.decision.rule;
    err_t e = answer_record_replay(bytes, size, &nobody, &facts);
    if (e.code == ERR_OK) {
        name_answerer(stream, &facts);
        e = answer_record_replay(bytes, size, &sink, &facts);
    }
    if (stream->phase == STREAM_ENDED)
        return;
    if (e.code != ERR_OK || __builtin_popcountll(stream->finished_choices) < (int)stream->n_choices) {
        stream_fail_locked(stream, err_new(ERR_INTERNAL, "a kept answer is not whole"), FINISH_ERROR);
        return;
    }
    struct usage usage = usage_of_answer(&facts.usage);
    for (struct event_node *node = stream->finals; node; node = node->next) {
        node->event.usage = usage;
        usage.completion_tokens = 0;
    }
    stream->usage = facts.usage;
    stream->first_event_ns = clock_now_ns(stream->service->clock);
    stream->cost = route_cost_locked(stream); /* a classifier may have cost something */
    stream_finish_locked(stream);
}

/* It is answered for itself, and for those who wait for it where it leads. */
static void miss(struct stream *stream, bool leads)
{
    metric_add(&route_metrics_counts(stream->service->route_metrics)->cache[ROUTE_CACHE_MISS], 1);
    stream->source.cache = "miss";
    stream->is_leading = leads;
    stream->is_recording = leads;
    stream->record.bytes.limit_bytes = RECORD_BYTES_MAX;
}

static void on_ready(struct response_waiter *waiter, const char *bytes, size_t size, bool leads)
{
    struct stream *stream = (struct stream *)((char *)waiter - offsetof(struct stream, waiter));
    pthread_mutex_lock(&stream->lock);
    stream->is_waiting = false;
    bool waits = stream->phase == STREAM_WAITING;
    if (waits && bytes) {
        metric_add(&route_metrics_counts(stream->service->route_metrics)->cache[ROUTE_CACHE_SHARED], 1);
        replay(stream, bytes, size, "shared");
    } else if (waits) {
        miss(stream, leads);
        route_begin_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    if (leads && !waits) /* it has left meanwhile: the next one */
        response_cache_done(stream->cache, &stream->key, RESPONSE_LEFT, NULL, 0);
    stream_unref(stream);
}

/* --- asking */

static err_t make_key(struct stream *stream, bool *is_kept)
{
    size_t model = route_question_model(&stream->question, stream->tier, 0);
    const struct route_upstream *first = &stream->snapshot->tiers[stream->tier].upstreams[model];
    struct local_view view;
    const char *fingerprint = "";
    stream->key_upstream = first;
    if (first->is_local && local_fleet_view(snapshot_fleet(stream->snapshot), first->local, &view) &&
        view.has_info && view.info.fingerprint)
        fingerprint = view.info.fingerprint;
    struct response_question question = {
        .request = stream->question.json,
        .tenant = stream->question.input.tenant,
        .cache_salt = stream->request->cache_salt,
        .model = first->state->name,
        .fingerprint = fingerprint,
    };
    return response_cache_key(stream->cache, &question, &stream->key, is_kept);
}

enum route_cache_turn route_cache_ask_locked(struct stream *stream)
{
    struct route_caches *caches = snapshot_caches(stream->snapshot);
    stream->source.cache = "off";
    stream->cache = stream->question.decision.local_only ? caches->private_ones : caches->all;
    bool is_kept = false, is_alone = false;
    if (stream->cache == NULL || !may_be_kept(stream))
        return ROUTE_CACHE_GOES_ON;
    err_t e = make_key(stream, &is_kept);
    if (e.code != ERR_OK)
        log_warn("route", "an answer is not looked for among those kept: %s", e.message);
    if (e.code != ERR_OK || !is_kept)
        return ROUTE_CACHE_GOES_ON;
    struct buffer answer = {.limit_bytes = RECORD_BYTES_MAX * 2};
    stream->waiter.ready = on_ready;
    stream->phase = STREAM_WAITING;
    stream_ref(stream);
    stream->is_waiting = true;
    enum response_turn turn =
        response_cache_ask(stream->cache, &stream->key, &stream->waiter, &answer, &is_alone);
    if (turn == RESPONSE_WAIT)
        return ROUTE_CACHE_WAITS;
    stream->is_waiting = false;
    atomic_fetch_sub(&stream->n_refs, 1); /* never the last: the caller has one */
    if (turn == RESPONSE_HIT) {
        metric_add(&route_metrics_counts(stream->service->route_metrics)->cache[ROUTE_CACHE_HIT], 1);
        replay(stream, answer.data ? answer.data : "", answer.size, "hit");
    } else {
        miss(stream, !is_alone);
    }
    buffer_free(&answer);
    return turn == RESPONSE_HIT ? ROUTE_CACHE_ANSWERED : ROUTE_CACHE_GOES_ON;
}

/* --- keeping */

static void put_text(struct stream *stream, const struct event *event, enum answer_piece_kind kind,
                     const char *text, size_t text_bytes)
{
    if (text == NULL || text_bytes == 0)
        return;
    answer_record_piece(&stream->record, &(struct answer_piece){.kind = kind,
                                                                .choice_index = event->choice_index,
                                                                .text = text,
                                                                .text_bytes = text_bytes});
}

static enum answer_finish answer_finish_of(enum finish_reason reason)
{
    switch (reason) {
    case FINISH_STOP:
        return ANSWER_STOP;
    case FINISH_LENGTH:
        return ANSWER_LENGTH;
    case FINISH_TOOL_CALLS:
        return ANSWER_TOOL_CALLS;
    case FINISH_CONTENT_FILTER:
        return ANSWER_CONTENT_FILTER;
    default:
        return ANSWER_UNFINISHED;
    }
}

void route_cache_record_locked(struct stream *stream, const struct event *event)
{
    if (!stream->is_recording)
        return;
    put_text(stream, event, ANSWER_REASONING, event->reasoning, event->reasoning_bytes);
    put_text(stream, event, ANSWER_TEXT, event->text, event->text_bytes);
    put_text(stream, event, ANSWER_REFUSAL, event->refusal, event->refusal_bytes);
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        answer_record_piece(&stream->record,
                            &(struct answer_piece){.kind = ANSWER_TOOL_CALL,
                                                   .choice_index = event->choice_index,
                                                   .text = call->arguments ? call->arguments : "",
                                                   .text_bytes = call->arguments_bytes,
                                                   .tool_index = call->index,
                                                   .tool_id = call->id,
                                                   .tool_name = call->name});
    }
    if (event->kind != EVENT_FINISHED)
        return;
    enum answer_finish finish = answer_finish_of(event->finish_reason);
    stream->is_recording = finish != ANSWER_UNFINISHED;
    answer_record_piece(&stream->record, &(struct answer_piece){.kind = ANSWER_FINISH,
                                                                .choice_index = event->choice_index,
                                                                .text = "",
                                                                .finish = finish});
}

void route_cache_restart_record_locked(struct stream *stream)
{
    answer_record_free(&stream->record);
    stream->record = (struct answer_record){.bytes = {.limit_bytes = RECORD_BYTES_MAX}};
}

/* An answer that came from elsewhere, since the one who was to answer was down, is nobody's to keep. */
void route_cache_close_record_locked(struct stream *stream)
{
    bool is_his = stream->winner->upstream == stream->key_upstream || stream->was_escalated;
    if (!stream->is_recording || !is_his || stream->failed_tiers != 0) {
        stream->is_recording = false;
        return;
    }
    struct answer_facts facts = {.model = stream->winner->upstream->state->name,
                                 .id = "",
                                 .fingerprint = stream->fingerprint,
                                 .usage = stream->usage};
    stream->is_recording = answer_record_end(&stream->record, &facts);
}

/* A client that leaves, or whose time is up, has nothing against its question. */
static enum response_end end_without_record(const struct stream *stream)
{
    if (stream->end_error.code == ERR_OK)
        return RESPONSE_NOT_HIS;
    bool has_left = stream->end_reason == FINISH_ABORT || stream->ended_ns >= stream->request->deadline_ns;
    return has_left ? RESPONSE_LEFT : RESPONSE_FAILED;
}

void route_cache_done(struct stream *stream)
{
    if (!stream->is_leading)
        return;
    stream->is_leading = false;
    bool is_whole = stream->is_recording && stream->end_error.code == ERR_OK;
    response_cache_done(stream->cache, &stream->key, is_whole ? RESPONSE_WHOLE : end_without_record(stream),
                        is_whole ? stream->record.bytes.data : NULL, stream->record.bytes.size);
}
