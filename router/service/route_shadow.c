#include "router/service/route_shadow.h"

#include <math.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/gate/eval_check.h"

/* Of a request that is compared, and handed on to its shadow when it has ended. */
struct route_shadow {
    bool follows_policy; /* the answer is the policy's; else the baseline's */
    bool is_same;        /* both sides come out at the baseline's tier */
    size_t policy_tier;
    struct buffer text; /* the real answer's */
};

static void count(const struct route_service *service, enum route_shadow_count outcome)
{
    metric_add(&route_metrics_counts(service->route_metrics)->shadows[outcome], 1);
}

void route_shadow_free(struct route_shadow *shadow)
{
    if (shadow == NULL)
        return;
    buffer_free(&shadow->text);
    mem_free(shadow);
}

void route_shadow_prepare(struct stream *stream, bool follows_policy, size_t policy_tier)
{
    const struct route_question *question = &stream->question;
    const struct request_signals *signals = &question->signals;
    const struct route_hints *hints = &question->hints;
    bool is_text = signals->n_images + signals->n_audio + signals->n_files + signals->n_tools == 0 &&
                   !signals->calls_tools && stream->n_choices == 1 && !stream->takes_ids_only;
    bool is_free = hints->route == WISH_AUTO && hints->max_cost < 0 && !question->decision.local_only;
    if (question->json == NULL || !is_text || !is_free)
        return;
    struct route_shadow *shadow = mem_alloc(sizeof *shadow);
    if (shadow == NULL) {
        count(stream->service, ROUTE_SHADOW_REFUSED);
        return;
    }
    *shadow = (struct route_shadow){.follows_policy = follows_policy,
                                    .policy_tier = policy_tier,
                                    .text = {.limit_bytes = SHADOW_TEXT_BYTES_MAX}};
    stream->shadow = shadow;
}

/* A shadow's own answer lies in its queue, which nobody reads. */
bool route_shadow_take_locked(struct stream *stream, const struct event *event)
{
    if (stream->is_shadow) {
        if (!stream_is_full_locked(stream))
            return true;
        stream_fail_locked(stream, err_new(ERR_RESOURCE_EXHAUSTED, "a shadow's answer is too long"),
                           FINISH_ERROR);
        return false;
    }
    if (stream->shadow && !buffer_append(&stream->shadow->text, event->text, event->text_bytes)) {
        route_shadow_free(stream->shadow);
        stream->shadow = NULL;
        count(stream->service, ROUTE_SHADOW_REFUSED);
    }
    return true;
}

void route_shadow_forget_locked(struct stream *stream)
{
    if (stream->shadow && !stream->is_shadow)
        buffer_clear(&stream->shadow->text);
}

bool route_shadow_escalates_locked(struct stream *stream, size_t tier)
{
    if (tier != stream->snapshot->baseline)
        return false;
    stream->shadow->is_same = true;
    stream_fail_locked(stream, err_new(ERR_CANCELLED, "both sides come to the same tier"), FINISH_ABORT);
    return true;
}

/* --- beginning */

/* What was understood of the request; strings of the original's are not the shadow's. */
static void copy_question(struct stream *stream, const struct stream *original, size_t tier)
{
    struct route_question *question = &stream->question;
    *question = original->question;
    json_incref(question->json);
    for (size_t i = 0; i < POLICY_TIERS_MAX; i++) {
        question->why_not[i] = NULL;
        if (question->input.cannot_cross[i])
            question->input.cannot_cross[i] = "it cannot cross";
    }
    question->input.signals = &question->signals;
    question->input.hints = &question->hints;
    question->input.tenant = stream->tenant;
    question->input.model = question->input.intent = question->decision.rule = "";
    stream->tier = tier;
    stream->reason = "shadow";
}

static void time_is_up(struct stream *stream)
{
    stream_fail_locked(stream, err_new(ERR_DEADLINE_EXCEEDED, "the shadow took too long"), FINISH_ERROR);
}

static err_t make_shadow(const struct stream *original, size_t tier, struct stream **out)
{
    struct request request = *original->request;
    request.request_id = NULL;
    request.tenant = original->tenant;
    request.priority = REQUEST_PRIORITY_LIMIT;
    request.deadline_ns = clock_now_ns(original->service->clock) + SHADOW_TIME_MS_MAX * ROUTE_NS_PER_MS;
    TRY(route_make_stream(original->service, &request, original, out));
    copy_question(*out, original, tier);
    return err_ok();
}

/* Engines that run first what came first do not look at priorities: nobody shall wait behind a shadow. */
static bool is_busy(const struct stream *original, size_t tier)
{
    const struct route_upstream *first = &original->snapshot->tiers[tier].upstreams[0];
    struct local_view view;
    return first->is_local && local_fleet_view(snapshot_fleet(original->snapshot), first->local, &view) &&
           view.loads.requests_waiting > 0;
}

/* False: the service drains. */
static bool enter_list(struct stream *stream)
{
    struct route_service *service = stream->service;
    pthread_mutex_lock(&service->lock);
    bool may_run = !service->is_draining;
    if (may_run) {
        stream_ref(stream);
        stream->next_shadow = service->shadows;
        service->shadows = stream;
    }
    pthread_mutex_unlock(&service->lock);
    return may_run;
}

static void leave_list(struct stream *stream)
{
    struct route_service *service = stream->service;
    pthread_mutex_lock(&service->lock);
    struct stream **link = &service->shadows;
    while (*link != stream)
        link = &(*link)->next_shadow;
    *link = stream->next_shadow;
    pthread_mutex_unlock(&service->lock);
    stream_unref(stream);
}

static void begin(struct stream *original, size_t tier)
{
    struct stream *stream = NULL;
    err_t e = is_busy(original, tier) ? err_new(ERR_RESOURCE_EXHAUSTED, "requests wait at the engine")
                                      : make_shadow(original, tier, &stream);
    if (e.code == ERR_OK) {
        stream->shadow = original->shadow;
        original->shadow = NULL;
    }
    if (e.code != ERR_OK || !enter_list(stream)) {
        count(original->service, ROUTE_SHADOW_REFUSED);
        if (stream)
            stream_unref(stream);
        return;
    }
    pthread_mutex_lock(&stream->lock);
    if (stream->phase != STREAM_ENDED) {
        e = route_prepare_holding(stream);
        ASSERT(e.code == ERR_OK); /* a shadow is not watched */
        stream->is_hidden = true;
        stream_set_timer(stream, &stream->deadline, stream->request->deadline_ns, time_is_up);
        route_begin_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    stream_unref(stream);
}

static void tell_score(const struct stream *stream, double score, enum route_shadow_count outcome)
{
    struct route_counts *counts = route_metrics_counts(stream->service->route_metrics);
    rollout_score(snapshot_rollout(stream->snapshot), score);
    metric_add(&counts->shadow_scores[0], (uint64_t)llround(score * 1e9));
    count(stream->service, outcome);
}

void route_shadow_begin(struct stream *stream)
{
    const struct route_shadow *shadow = stream->shadow;
    bool is_whole = stream->end_error.code == ERR_OK && stream->end_reason == FINISH_STOP && stream->winner &&
                    stream->failed_tiers == 0;
    if (shadow == NULL || !is_whole)
        return;
    size_t baseline = stream->snapshot->baseline;
    if ((shadow->follows_policy ? stream->tier : shadow->policy_tier) == baseline)
        tell_score(stream, 1, ROUTE_SHADOW_SAME);
    else
        begin(stream, shadow->follows_policy ? baseline : shadow->policy_tier);
}

/* --- comparing */

static bool text_of(const struct stream *stream, struct buffer *out)
{
    bool fits = buffer_append_text(out, "");
    for (const struct event_node *node = stream->first; node && fits; node = node->next)
        fits = buffer_append(out, node->event.text, node->event.text_bytes);
    return fits;
}

/* The baseline's is what is expected. */
static double agreement(const struct buffer *baseline, const struct buffer *policy)
{
    struct eval_check check = eval_check_like(baseline->data ? baseline->data : "", baseline->size);
    return eval_check_score(&check, policy->data ? policy->data : "", policy->size);
}

void route_shadow_ended(struct stream *stream)
{
    ASSERT(stream->is_shadow);
    const struct route_shadow *shadow = stream->shadow;
    struct buffer text = {.limit_bytes = SHADOW_TEXT_BYTES_MAX};
    pthread_mutex_lock(&stream->lock);
    bool is_whole = stream->end_error.code == ERR_OK && text_of(stream, &text);
    pthread_mutex_unlock(&stream->lock);
    if (shadow->is_same)
        tell_score(stream, 1, ROUTE_SHADOW_SAME);
    else if (is_whole)
        tell_score(stream,
                   shadow->follows_policy ? agreement(&text, &shadow->text) : agreement(&shadow->text, &text),
                   ROUTE_SHADOW_SCORED);
    else
        count(stream->service, ROUTE_SHADOW_FAILED);
    buffer_free(&text);
    leave_list(stream);
}

void route_shadow_cancel_all(struct route_service *service)
{
    struct stream *list[SHADOWS_AT_ONCE_MAX];
    size_t n = 0;
    pthread_mutex_lock(&service->lock);
    service->is_draining = true;
    for (struct stream *stream = service->shadows; stream; stream = stream->next_shadow) {
        ASSERT(n < SHADOWS_AT_ONCE_MAX);
        stream_ref(stream);
        list[n++] = stream;
    }
    pthread_mutex_unlock(&service->lock);
    for (size_t i = 0; i < n; i++) {
        stream_cancel_request(list[i]);
        stream_unref(list[i]);
    }
}
