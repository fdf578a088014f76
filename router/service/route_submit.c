/* A request comes in: it is looked at, decided and begun. */
#include <stdio.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "router/providers/json_text.h"
#include "router/service/answer_check.h"
#include "router/local/request_copy.h"
#include "router/service/request_weight.h"
#include "router/service/route_internal.h"
#include "router/service/route_shadow.h"

/* What engines know better is theirs to refuse: the router cannot tell whose vocabulary will count. */
static const struct validate_limits LIMITS = {
    .vocab_size = UINT32_MAX,
    .max_model_len = UINT32_MAX,
    .max_n = SAMPLING_N_MAX,
    .has_tokenizer = true,
    .has_chat_template = true,
};

/* A place among the shadows, which go by the configuration of what they are compared with. */
static err_t take_shadow_place(struct route_service *service)
{
    err_t e = err_ok();
    pthread_mutex_lock(&service->lock);
    if (service->is_draining)
        e = err_new(ERR_UNAVAILABLE, "the router is stopping");
    else if (service->n_shadows >= SHADOWS_AT_ONCE_MAX)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "%d shadows are under way, which is the limit",
                    SHADOWS_AT_ONCE_MAX);
    else
        service->n_shadows++;
    pthread_mutex_unlock(&service->lock);
    return e;
}

/* A place among the requests, which free_stream gives back. */
static err_t take_place(struct route_service *service, struct route_snapshot **snapshot)
{
    err_t e = err_ok();
    pthread_mutex_lock(&service->lock);
    if (service->is_draining)
        e = err_new(ERR_UNAVAILABLE, "the router is stopping");
    else if (service->n_streams >= service->max_requests)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "%u requests are under way, which is the limit",
                    service->max_requests);
    if (e.code == ERR_OK) {
        service->n_streams++;
        *snapshot = route_snapshot_ref(service->snapshot);
    }
    pthread_mutex_unlock(&service->lock);
    return e;
}

static uint32_t choices_of(const struct request *request)
{
    return (request->sampling.set & SAMPLING_N) && request->sampling.n > 0 ? request->sampling.n : 1;
}

static err_t fill_stream(struct stream *stream, const struct request *request)
{
    struct route_service *service = stream->service;
    struct event end = {.kind = EVENT_FINISHED,
                        .text = "",
                        .stop_token_id = -1,
                        .usage = {.is_unknown = true},
                        .timings = {-1, -1, -1}};
    struct request named = *request;
    uint64_t number = atomic_fetch_add(&service->last_number, 1) + 1;
    snprintf(stream->decision_id, sizeof stream->decision_id, "%016llx%08llx",
             (unsigned long long)service->id_salt, (unsigned long long)number);
    if (named.request_id == NULL || named.request_id[0] == '\0')
        named.request_id = stream->decision_id;
    TRY(request_copy(&named, &stream->request, &stream->weight_bytes));
    stream->spare = event_copy(&end);
    if (stream->spare == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    snprintf(stream->tenant, sizeof stream->tenant, "%s", request->tenant ? request->tenant : "");
    stream->n_choices = choices_of(request);
    stream->wants_whole = request->wants_whole;
    stream->takes_ids_only = request->takes_ids_only;
    stream->keep.is_on =
        !stream->is_shadow && !stream->takes_ids_only && snapshot_log(stream->snapshot) != NULL;
    stream->source = (struct answer_source){.provider = stream->provider_name,
                                            .model = stream->model_name,
                                            .reason = "",
                                            .rule = "",
                                            .cache = "off",
                                            .fingerprint = stream->fingerprint,
                                            .dropped = "",
                                            .decision_id = stream->decision_id,
                                            .cost_nanodollars = -1};
    return err_ok();
}

err_t route_make_stream(struct route_service *service, const struct request *request,
                        const struct stream *original, struct stream **out)
{
    struct route_snapshot *snapshot = NULL;
    struct stream *stream = mem_alloc(sizeof *stream);
    if (stream == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    err_t e = original ? take_shadow_place(service) : take_place(service, &snapshot);
    if (e.code != ERR_OK) {
        mem_free(stream);
        return e;
    }
    stream->service = service;
    stream->snapshot = original ? route_snapshot_ref(original->snapshot) : snapshot;
    stream->is_shadow = original != NULL;
    stream->reason = "";
    stream->estimate = -1;
    stream->usage = (struct answer_usage){-1, -1, -1, -1, -1};
    stream->cost = 0;
    stream->last_error = stream->end_error = err_ok();
    stream->submitted_ns = clock_now_ns(service->clock);
    stream->unix_ms = route_unix_ms(NULL);
    atomic_store(&stream->n_refs, 1);
    int failure = pthread_mutex_init(&stream->lock, NULL);
    ASSERT(failure == 0);
    *out = stream;
    return fill_stream(stream, request);
}

/* The gate's artefact is of an engine: the first tier's, as it is now. */
static void tell_engine(const struct route_snapshot *snapshot, struct rollout *rollout)
{
    struct local_view view;
    const struct route_upstream *upstream = &snapshot->tiers[0].upstreams[0];
    if (upstream->is_local && local_fleet_view(snapshot_fleet(snapshot), upstream->local, &view) &&
        view.has_info && view.info.fingerprint != NULL)
        rollout_local_changed(rollout, view.info.fingerprint);
}

/* The baseline answers where the policy is not trusted yet; not what must stay, and not against a wish. */
static void follow_rollout(struct stream *stream)
{
    struct rollout *rollout = snapshot_rollout(stream->snapshot);
    const struct policy_decision *decision = &stream->question.decision;
    size_t baseline = stream->snapshot->baseline;
    if (!snapshot_config(stream->snapshot)->gate.is_set || stream->snapshot->n_tiers == 1 ||
        decision->local_only || stream->question.hints.route != WISH_AUTO)
        return;
    tell_engine(stream->snapshot, rollout);
    struct buffer text = {.limit_bytes = 64 << 20};
    uint64_t key = 0;
    if (stream->question.json && json_text_append_sorted(&text, stream->question.json).code == ERR_OK)
        key = hash64(text.data, text.size, 0);
    buffer_free(&text);
    const struct policy_input *input = &stream->question.input;
    bool is_open = input->cannot_cross[baseline] == NULL && !input->is_down[baseline] &&
                   (stream->snapshot->tiers[baseline].tier->is_local || !input->is_broke);
    struct rollout_choice choice = rollout_choose(rollout, key);
    if (choice.is_shadowed && is_open)
        route_shadow_prepare(stream, choice.follows_policy, stream->tier);
    if (choice.follows_policy || !is_open)
        return;
    stream->tier = baseline;
    stream->reason = "baseline";
}

err_t route_prepare_holding(struct stream *stream)
{
    const struct route_config *config = snapshot_config(stream->snapshot);
    const struct route_question *question = &stream->question;
    const struct cascade_config *cascade = &config->cascade;
    const struct policy_input *input = &question->input;
    const json_t *json = question->json;
    bool is_due = json && answer_check_is_due(json, config->checks_all_calls);
    stream->is_checked = is_due && !json_is_true(json_object_get(json, "stream"));
    stream->is_cascaded = cascade->is_set && stream->tier == cascade->tier && stream->n_choices == 1 &&
                          !question->decision.local_only && question->hints.route == WISH_AUTO &&
                          input->cannot_cross[cascade->to] == NULL && !input->is_broke &&
                          !input->is_down[cascade->to];
    stream->is_hidden = stream->is_checked || stream->is_cascaded;
    bool is_watched = is_due && (stream->is_checked || !stream->is_shadow) && stream->watch.choices == NULL;
    return is_watched ? answer_watch_open(&stream->watch, stream->n_choices, config->checks_all_calls)
                      : err_ok();
}

static err_t read_question(struct stream *stream, const struct request *request)
{
    struct question_context context = stream_context(stream);
    struct request own = *stream->request; /* whose strings live as long as the question */
    own.tenant = stream->tenant;
    own.original = request->original;
    own.hints = request->hints;
    own.n_hints = request->n_hints;
    own.beyond = request->beyond;
    TRY(route_question_read(&context, &own, &stream->question));
    route_question_decide(&stream->question, &context, NULL);
    stream->weight_bytes += sizeof *stream + request_weight(stream->question.json);
    return err_ok();
}

/* The decision is the last word. An error says why it is refused. */
static err_t follow_decision(struct stream *stream)
{
    struct route_counts *counts = route_metrics_counts(stream->service->route_metrics);
    const struct route_question *question = &stream->question;
    stream->tier = question->decision.tier;
    stream->reason = POLICY_REASON_NAMES[question->decision.reason];
    metric_add(&counts->decisions[question->decision.reason], 1);
    if (!question->decision.is_refused) {
        follow_rollout(stream);
        return route_prepare_holding(stream);
    }
    metric_add(&counts->refused[0], 1);
    return route_question_refusal(question);
}

static void go_locked(struct stream *stream)
{
    atomic_fetch_add(&stream->service->n_submitted, 1);
    if (route_cache_ask_locked(stream) == ROUTE_CACHE_GOES_ON)
        route_begin_locked(stream);
}

void route_decide_locked(struct stream *stream)
{
    struct question_context context = stream_context(stream);
    route_question_decide(&stream->question, &context, NULL);
    err_t e = follow_decision(stream);
    if (e.code == ERR_OK)
        go_locked(stream);
    else
        stream_fail_locked(stream, e, FINISH_ERROR);
}

static void deadline_due(struct stream *stream)
{
    stream_fail_locked(stream, err_new(ERR_DEADLINE_EXCEEDED, "the deadline passed"), FINISH_ERROR);
}

/* What fails at once is told at once. refused: the policy would have nobody answer. */
static err_t begin(struct stream *stream, bool *refused)
{
    err_t e = err_ok();
    pthread_mutex_lock(&stream->lock);
    if (stream->phase != STREAM_ENDED && !route_classify_locked(stream)) {
        e = follow_decision(stream);
        *refused = e.code != ERR_OK;
        if (!*refused)
            go_locked(stream);
    }
    if (*refused)
        route_log_refusal(stream, &e);
    else if (stream->phase == STREAM_ENDED)
        e = stream->end_error;
    else if (stream->request->deadline_ns != REQUEST_NO_DEADLINE)
        stream_set_timer(stream, &stream->deadline, stream->request->deadline_ns, deadline_due);
    pthread_mutex_unlock(&stream->lock);
    return e;
}

err_t route_submit(struct service *service, const struct request *request, struct stream **out)
{
    struct route_service *own = (struct route_service *)service;
    struct stream *stream = NULL;
    TRY(validate_request(request, &LIMITS));
    if (request->deadline_ns != REQUEST_NO_DEADLINE && request->deadline_ns <= clock_now_ns(own->clock))
        return err_new(ERR_DEADLINE_EXCEEDED, "the deadline had passed when the request arrived");
    bool refused = false;
    err_t e = route_make_stream(own, request, NULL, &stream);
    if (e.code == ERR_OK)
        e = read_question(stream, request);
    if (e.code == ERR_OK)
        e = stream_enter_table(stream); /* from here on it may be aborted, and is logged */
    if (e.code == ERR_OK) {
        e = begin(stream, &refused);
        if (e.code == ERR_OK)
            *out = stream;
        else if (!refused)
            stream_release_request(stream);
        if (!refused)
            return e;
    }
    if (stream) {
        stream_leave_table(stream);
        stream_unref(stream);
    }
    return e;
}
