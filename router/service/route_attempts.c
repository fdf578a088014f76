/* Who is asked next: the chain of attempts of a request, until one of them is committed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "router/service/route_internal.h"
#include "router/service/route_shadow.h"

enum { BACKOFF_DOUBLINGS_MAX = 5 };

static const struct route_config *config_of(const struct stream *stream)
{
    return snapshot_config(stream->snapshot);
}

static int64_t now_of(const struct stream *stream)
{
    return clock_now_ns(stream->service->clock);
}

/* --- one attempt */

static bool has_tries(const struct stream *stream)
{
    uint32_t most = config_of(stream)->retries.max;
    return stream->tier_tries < (most > 0 ? most : 1) && stream->n_attempts < ATTEMPTS_MAX;
}

/* Nobody was asked after all. */
static void take_back(struct route_attempt *attempt, err_t e)
{
    struct stream *stream = attempt->stream;
    struct upstream_report report = {
        .ticket = attempt->ticket, .code = e.code, .first_token_ns = -1, .whole_ns = -1};
    attempt->is_live = false;
    stream->n_live--;
    upstream_called(&stream->service->upstreams, attempt->upstream->state, &report, now_of(stream));
    atomic_fetch_sub(&stream->n_refs, 1); /* never the last: the caller has one */
}

err_t route_left_alone(struct route_service *service, const struct route_upstream *upstream)
{
    const char *name = upstream->state->name;
    int64_t wait_ns = upstream_wait_ns(&service->upstreams, upstream->state, clock_now_ns(service->clock));
    if (wait_ns == 0)
        return err_new(ERR_UNAVAILABLE, "%s failed several times and is left alone for a while", name);
    err_t e = err_new(
        ERR_RESOURCE_EXHAUSTED,
        "%s has nothing left of a limit, or asked to be left alone: it is not asked before then", name);
    e.retry_after_ms = wait_ns / ROUTE_NS_PER_MS + 1;
    return e;
}

static err_t start_attempt(struct stream *stream, size_t tier, size_t index, bool is_hedge)
{
    struct upstream_table *table = &stream->service->upstreams;
    const struct route_upstream *upstream = &stream->snapshot->tiers[tier].upstreams[index];
    struct route_attempt *attempt = mem_alloc(sizeof *attempt);
    if (attempt == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    uint64_t ticket = upstream_ask(table, upstream->state, now_of(stream));
    if (ticket == 0) {
        mem_free(attempt);
        return route_left_alone(stream->service, upstream);
    }
    *attempt = (struct route_attempt){.next = stream->attempts,
                                      .stream = stream,
                                      .upstream = upstream,
                                      .tier = tier,
                                      .number = ++stream->n_attempts,
                                      .is_live = true,
                                      .is_hedge = is_hedge,
                                      .is_held = stream->is_cascaded && upstream->is_local,
                                      .reason = stream->is_shadow ? "shadow"
                                                : is_hedge        ? "hedge"
                                                                  : stream->reason,
                                      .ticket = ticket,
                                      .started_ns = now_of(stream),
                                      .n_live_at_start = upstream_live(table, upstream->state),
                                      .outcome = LEDGER_RELEASED,
                                      .cost = 0};
    stream->attempts = attempt;
    stream->n_live++;
    stream_ref(stream);
    err_t e = upstream->is_local ? route_local_start(attempt) : route_provider_start(attempt);
    if (e.code != ERR_OK)
        take_back(attempt, e);
    else
        stream->n_unsettled++;
    return e;
}

/* Its end comes later, and nobody waits for it. */
static void drop(struct route_attempt *attempt)
{
    attempt->is_dropped = true;
    attempt->stream->n_live--;
    attempt_cancel(attempt);
}

void route_drop_live_locked(struct stream *stream, const struct route_attempt *but)
{
    for (struct route_attempt *attempt = stream->attempts; attempt; attempt = attempt->next)
        if (attempt->is_live && attempt != but && !attempt->is_dropped)
            drop(attempt);
}

void route_resume_locked(struct stream *stream)
{
    struct route_attempt *attempt = stream->winner;
    if (attempt == NULL || !attempt->is_paused || !attempt->is_live)
        return;
    attempt->is_paused = false;
    if (attempt->upstream->is_local)
        local_call_resume(attempt->call);
    else
        egress_resume(stream->service->egress, attempt->egress_number);
}

/* --- a second one beside a slow one */

/* May a second call go to that model? Then its estimate is set aside. */
static bool may_afford(struct stream *stream, size_t index, nanodollars *estimate)
{
    const struct hedge_config *hedge = &config_of(stream)->hedge;
    *estimate =
        route_question_estimate(&stream->question, &stream->snapshot->tiers[hedge->to].upstreams[index]);
    return (hedge->max_cost == 0 || *estimate <= hedge->max_cost) &&
           hedge_purse_take(&stream->service->hedges, *estimate, hedge->per_day, route_unix_ms(NULL));
}

static void hedge_due(struct stream *stream)
{
    const struct hedge_config *hedge = &config_of(stream)->hedge;
    struct route_service *service = stream->service;
    struct route_counts *counts = route_metrics_counts(service->route_metrics);
    if (stream->phase != STREAM_CALLING || stream->winner || stream->n_live != 1)
        return;
    double most = hedge->max_share * (double)atomic_load(&service->n_submitted);
    if ((double)atomic_load(&service->n_hedged) + 1 > most)
        return;
    const struct policy_tier *tier = stream->snapshot->tiers[hedge->to].tier;
    bool is_too_dear = false;
    for (size_t i = 0; i < tier->n_models; i++) {
        if (!(stream->question.can_take[hedge->to] & 1u << i))
            continue;
        nanodollars estimate = 0;
        if (!may_afford(stream, i, &estimate)) {
            is_too_dear = true;
            continue;
        }
        if (start_attempt(stream, hedge->to, i, true).code != ERR_OK) {
            hedge_purse_settle(&service->hedges, estimate, 0, route_unix_ms(NULL));
            continue;
        }
        stream->attempts->hedge_estimate = estimate;
        atomic_fetch_add(&service->n_hedged, 1);
        stream->was_hedged = true;
        return;
    }
    if (is_too_dear)
        metric_add(&counts->hedges[ROUTE_HEDGE_TOO_DEAR], 1);
}

/* May it leave the tier that it is in for that one, for a reason that is not in the policy? */
static bool may_go_to(const struct stream *stream, size_t tier)
{
    const struct policy_input *input = &stream->question.input;
    return !stream->question.decision.local_only && stream->question.hints.route != WISH_LOCAL &&
           input->cannot_cross[tier] == NULL && !input->is_broke && !input->is_down[tier] &&
           !(stream->failed_tiers & 1u << tier);
}

static void watch_slowness(struct stream *stream)
{
    const struct hedge_config *hedge = &config_of(stream)->hedge;
    if (!hedge->is_set || stream->is_shadow || stream->tier != hedge->tier || stream->was_hedged ||
        stream->winner || !may_go_to(stream, hedge->to))
        return;
    int64_t after_ns = hedge->after_ms * ROUTE_NS_PER_MS;
    if (after_ns == 0)
        after_ns =
            upstream_first_token_ns(&stream->service->upstreams, stream->attempts->upstream->state, 0.95);
    if (after_ns > 0)
        stream_set_timer(stream, &stream->hedge, now_of(stream) + after_ns, hedge_due);
}

/* --- the next one */

/* The next model of the tier that can be asked; false: none for now. */
static bool try_tier(struct stream *stream)
{
    const struct policy_tier *tier = stream->snapshot->tiers[stream->tier].tier;
    while (stream->position < tier->n_models && has_tries(stream)) {
        size_t i = route_question_model(&stream->question, stream->tier, stream->position++);
        if (!(stream->question.can_take[stream->tier] & 1u << i))
            continue;
        uint32_t before = stream->n_attempts;
        err_t e = start_attempt(stream, stream->tier, i, false);
        stream->tier_tries += stream->n_attempts - before;
        if (e.code == ERR_OK) {
            stream->phase = STREAM_CALLING;
            watch_slowness(stream);
            return true;
        }
        stream->last_error = e;
        if (e.code == ERR_RESOURCE_EXHAUSTED && e.retry_after_ms > 0) {
            stream->tier_tries++; /* so that it does not wait for ever */
            stream->may_rest = true;
        }
        if (e.code == ERR_QUOTA_EXCEEDED) {
            stream->question.input.is_broke = true;
            return false;
        }
    }
    return false;
}

/* Where the policy sends what this tier has failed to answer; false: nowhere that was not tried, and the
 * decision stays the one by which it went here, with what was known then: the log has both. */
static bool next_tier(struct stream *stream)
{
    struct question_context context = stream_context(stream);
    struct route_question *question = &stream->question;
    struct policy_input *input = &question->input;
    if (stream->is_shadow)
        return false;
    const struct policy_decision before = question->decision;
    bool was_down[POLICY_TIERS_MAX];
    memcpy(was_down, input->is_down, sizeof was_down);
    stream->failed_tiers |= 1u << stream->tier;
    for (size_t i = 0; i < stream->snapshot->n_tiers; i++)
        input->is_down[i] = input->is_down[i] || (stream->failed_tiers & 1u << i);
    route_question_decide(question, &context, NULL);
    const struct policy_decision *decision = &question->decision;
    if (decision->is_refused || (stream->failed_tiers & 1u << decision->tier)) {
        if (stream->last_error.code == ERR_OK)
            stream->last_error = route_question_refusal(question);
        question->decision = before;
        memcpy(input->is_down, was_down, sizeof was_down);
        return false;
    }
    metric_add(&route_metrics_counts(stream->service->route_metrics)->fallbacks[0], 1);
    stream->tier = decision->tier;
    stream->position = stream->tier_tries = 0;
    stream->may_rest = false;
    stream->reason = POLICY_REASON_NAMES[decision->reason];
    return true;
}

static void advance(struct stream *stream);

/* Half of the wait is fixed, half drawn, so that those that failed together do not come back together. */
static int64_t backoff_ms(const struct stream *stream)
{
    uint32_t doublings = stream->tier_tries > 0 ? stream->tier_tries - 1 : 0;
    if (doublings > BACKOFF_DOUBLINGS_MAX)
        doublings = BACKOFF_DOUBLINGS_MAX;
    int64_t whole = config_of(stream)->retries.backoff_ms << doublings;
    uint64_t word = (uint64_t)now_of(stream) * UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)stream;
    int64_t wait = whole / 2 + (int64_t)(word >> 33) % (whole / 2 + 1);
    return wait > stream->last_error.retry_after_ms ? wait : stream->last_error.retry_after_ms;
}

/* Waits before the tier is asked again; false: that is of no use. */
static bool rest(struct stream *stream)
{
    if (stream->is_shadow || !stream->may_rest || !has_tries(stream) ||
        stream->question.can_take[stream->tier] == 0)
        return false;
    int64_t wait_ms = backoff_ms(stream), due_ns = now_of(stream) + wait_ms * ROUTE_NS_PER_MS;
    if (wait_ms > RETRY_WAIT_MS_MAX || due_ns >= stream->request->deadline_ns)
        return false;
    stream->may_rest = false;
    stream->position = 0;
    stream->phase = STREAM_RESTING;
    stream_set_timer(stream, &stream->step, due_ns, advance);
    return true;
}

/* What a provider has against our key or our account is no business of the client's. */
static err_t public_error(err_t e)
{
    switch (e.code) {
    case ERR_UNAUTHENTICATED:
    case ERR_PERMISSION_DENIED:
    case ERR_NOT_FOUND:
    case ERR_FAILED_PRECONDITION:
    case ERR_DATA_LOSS:
    case ERR_CANCELLED:
    case ERR_IO:
        e.code = ERR_UNAVAILABLE;
        return e;
    default:
        return e;
    }
}

static void advance(struct stream *stream)
{
    for (;;) {
        bool is_local = stream->snapshot->tiers[stream->tier].tier->is_local;
        if (try_tier(stream))
            return;
        if (is_local && next_tier(stream)) /* another tier now is better than this one later */
            continue;
        if (rest(stream))
            return;
        if (!is_local && next_tier(stream))
            continue;
        break;
    }
    err_t e =
        stream->last_error.code != ERR_OK ? stream->last_error : route_question_refusal(&stream->question);
    stream_fail_locked(stream, public_error(e), FINISH_ERROR);
}

void route_begin_locked(struct stream *stream)
{
    stream->position = stream->tier_tries = 0;
    advance(stream);
}

/* --- what comes back */

static char *dropped_names(const struct provider_dropped *dropped)
{
    struct buffer names = {.limit_bytes = 4096};
    for (int i = 0; i < PROVIDER_PARAMETER_COUNT; i++) {
        if (dropped->parameters & parameter_bit((enum provider_parameter)i))
            (void)buffer_append_format(&names, "%s%s", names.size > 0 ? "," : "",
                                       provider_parameter_name((enum provider_parameter)i));
    }
    return names.data;
}

static void set_source(struct stream *stream, const struct route_attempt *attempt)
{
    const struct route_upstream *upstream = attempt->upstream;
    snprintf(stream->provider_name, sizeof stream->provider_name, "%s", upstream->provider_name);
    snprintf(stream->model_name, sizeof stream->model_name, "%s", upstream->model_name);
    stream->source.reason = attempt->reason;
    stream->source.rule = stream->question.decision.rule;
    if (attempt->dropped.parameters && stream->dropped == NULL)
        stream->dropped = dropped_names(&attempt->dropped);
    stream->source.dropped = stream->dropped && attempt->dropped.parameters ? stream->dropped : "";
    stream->fingerprint[0] = '\0';
    struct local_view view;
    if (upstream->is_local && local_fleet_view(snapshot_fleet(stream->snapshot), upstream->local, &view) &&
        view.has_info && view.info.fingerprint)
        snprintf(stream->fingerprint, sizeof stream->fingerprint, "%s", view.info.fingerprint);
}

/* A stream begins for its reader. */
static void count_slo(const struct stream *stream)
{
    int64_t most_ms = policy_ttft_over_ms(config_of(stream)->policy);
    if (most_ms < 0 || stream->wants_whole || stream->is_shadow)
        return;
    bool is_over = now_of(stream) - stream->submitted_ns > most_ms * ROUTE_NS_PER_MS;
    metric_add(&route_metrics_counts(stream->service->route_metrics)
                    ->slo[is_over ? ROUTE_SLO_OVER : ROUTE_SLO_WITHIN],
               1);
}

static void commit(struct stream *stream)
{
    stream->phase = STREAM_COMMITTED;
    count_slo(stream);
    stream_show_locked(stream);
}

static void hold_due(struct stream *stream);

/* The first one that answers is the one that does. */
static void choose(struct stream *stream, struct route_attempt *attempt)
{
    struct route_counts *counts = route_metrics_counts(stream->service->route_metrics);
    stream->winner = attempt;
    stream->tier = attempt->tier;
    route_drop_live_locked(stream, attempt);
    stream_unset_timer(stream, &stream->hedge);
    if (stream->was_hedged)
        metric_add(&counts->hedges[attempt->is_hedge ? ROUTE_HEDGE_WON : ROUTE_HEDGE_LOST], 1);
    set_source(stream, attempt);
    if (attempt->is_held && !attempt->is_hedge && config_of(stream)->cascade.hold_ms > 0)
        stream_set_timer(stream, &stream->step,
                         now_of(stream) + config_of(stream)->cascade.hold_ms * ROUTE_NS_PER_MS, hold_due);
    else if (!attempt->is_held && !stream->is_checked)
        commit(stream);
}

/* The cascade's word on the tokens that are held. False: another one answers. */
static bool judge(struct stream *stream, struct route_attempt *attempt)
{
    const struct cascade_config *cascade = &config_of(stream)->cascade;
    struct route_counts *counts = route_metrics_counts(stream->service->route_metrics);
    bool escalates = cascade_decide(&stream->margins, &stream->snapshot->confidence, cascade->escalate_over,
                                    &stream->estimate) &&
                     may_go_to(stream, cascade->to);
    attempt->is_held = false;
    stream->is_cascaded = false;
    stream_unset_timer(stream, &stream->step);
    if (!stream->is_shadow)
        metric_add(&counts->cascades[escalates ? ROUTE_CASCADE_ESCALATED : ROUTE_CASCADE_KEPT], 1);
    else if (escalates && route_shadow_escalates_locked(stream, cascade->to))
        return false;
    if (!escalates) {
        if (!stream->is_checked)
            commit(stream);
        return true;
    }
    if (attempt->is_live)
        drop(attempt);
    stream_forget_held_locked(stream);
    stream->is_hidden = stream->is_checked;
    stream->winner = NULL;
    stream->was_escalated = true;
    stream->reason = "cascade";
    stream->tier = cascade->to;
    stream->may_rest = false;
    route_begin_locked(stream);
    return false;
}

static void hold_due(struct stream *stream)
{
    struct route_attempt *attempt = stream->winner;
    if (attempt && attempt->is_held && stream->phase == STREAM_CALLING)
        (void)judge(stream, attempt);
}

/* The cascade's own logprobs are nothing that the client asked for. */
static struct event without_logprobs(const struct stream *stream, const struct event *event)
{
    struct event own = *event;
    const struct sampling_params *sampling = &stream->request->sampling;
    bool asked = (sampling->set & SAMPLING_LOGPROBS) && sampling->logprobs >= 0;
    if (!asked)
        own.n_logprobs = 0;
    return own;
}

/* The end's own token counts too, as it does for `bantam eval`; the call's end, which follows, judges then.
 */
static bool take_held(struct route_attempt *attempt, const struct event *event)
{
    struct stream *stream = attempt->stream;
    uint32_t most = config_of(stream)->cascade.hold_tokens;
    for (size_t i = 0; i < event->n_logprobs && stream->margins.n < most; i++)
        cascade_add(&stream->margins, &event->logprobs[i]);
    if (stream->margins.n < most || event->kind != EVENT_TOKENS)
        return true;
    return judge(stream, attempt);
}

bool route_take_locked(struct route_attempt *attempt, const struct event *event)
{
    struct stream *stream = attempt->stream;
    if (attempt->is_dropped || stream->phase == STREAM_ENDED)
        return true;
    if (attempt->first_event_ns == 0)
        attempt->first_event_ns = now_of(stream);
    if (stream->winner == NULL) {
        choose(stream, attempt);
        stream->first_event_ns = attempt->first_event_ns;
    }
    ASSERT(stream->winner == attempt);
    struct event own = attempt->upstream->is_local ? without_logprobs(stream, event) : *event;
    bool fits = own.kind == EVENT_FINISHED ? stream_keep_final_locked(stream, &own)
                                           : stream_push_locked(stream, &own);
    if (!fits)
        return true;
    route_cache_record_locked(stream, &own);
    answer_watch_take(&stream->watch, &own);
    answer_keep_take(&stream->keep, &own);
    if (!route_shadow_take_locked(stream, &own))
        return true;
    if (attempt->is_held && !take_held(attempt, event))
        return true;
    if (stream->is_hidden && stream->is_checked && stream_is_full_locked(stream)) {
        stream->is_checked = false; /* too much to be held: it goes on, and ends with an error */
        stream->watch.is_too_much = true;
        if (!attempt->is_held)
            commit(stream);
    }
    return !stream_is_full_locked(stream);
}

/* Its reader has it all, and is told at the end. */
static bool check_watched(struct route_attempt *attempt)
{
    struct stream *stream = attempt->stream;
    err_t e = answer_watch_check(&stream->watch, stream->question.json);
    if (e.code == ERR_OK)
        return true;
    ASSERT(stream->phase == STREAM_COMMITTED);
    stream_forget_finals_locked(stream);
    stream_fail_locked(stream, public_error(err_prefix(e, "%s", attempt->upstream->state->name)),
                       FINISH_ERROR);
    return false;
}

static void complete(struct stream *stream)
{
    stream->usage = stream->winner->usage;
    stream->cost = route_cost_locked(stream);
    if (__builtin_popcountll(stream->finished_choices) < (int)stream->n_choices) {
        stream_fail_locked(stream, err_new(ERR_UNAVAILABLE, "fewer choices were answered than asked for"),
                           FINISH_ERROR);
        return;
    }
    stream_show_locked(stream);
    route_cache_close_record_locked(stream);
    if (!stream->is_shadow)
        metric_add(&stream->winner->upstream->state->counts->answers[0], 1);
    stream_finish_locked(stream);
}

/* An engine has counted the tokens, and has too little room for them: another tier may have more, if the
 * policy that knows their number sends the request there. Else all stays as it was decided, as does what had
 * to stay here by the smaller number. */
static bool goes_where_it_fits(struct stream *stream, const struct route_attempt *attempt, const err_t *e)
{
    struct question_context context = stream_context(stream);
    struct route_question *question = &stream->question;
    const struct policy_decision before = question->decision, *decision = &question->decision;
    uint64_t n_tokens, guess = question->prompt_tokens;
    if (!attempt->upstream->is_local || stream->is_shadow || !validate_is_too_long(e, &n_tokens))
        return false;
    question->prompt_tokens = question->input.prompt_tokens = n_tokens;
    route_question_decide(question, &context, NULL);
    if (decision->is_refused || decision->tier <= attempt->tier || before.local_only ||
        stream->failed_tiers & 1u << decision->tier) {
        question->decision = before;
        question->prompt_tokens = question->input.prompt_tokens = guess;
        return false;
    }
    stream->failed_tiers |= 1u << attempt->tier;
    metric_add(&route_metrics_counts(stream->service->route_metrics)->fallbacks[0], 1);
    stream->tier = decision->tier;
    stream->reason = POLICY_REASON_NAMES[decision->reason];
    stream->may_rest = false;
    return true;
}

/* A request that is wrong is so everywhere; but where an engine had begun to answer, it was a provider's form
 * or taste that it was wrong for. */
static bool is_hopeless(const struct route_attempt *attempt, const err_t *e)
{
    bool was_answered = attempt->stream->was_escalated && !attempt->upstream->is_local;
    return !was_answered && (e->code == ERR_INVALID_ARGUMENT || e->code == ERR_OUT_OF_RANGE);
}

static void failed(struct route_attempt *attempt, const struct attempt_end *end)
{
    struct stream *stream = attempt->stream;
    if (stream->winner == attempt && stream->phase == STREAM_COMMITTED) {
        stream_fail_locked(stream, public_error(end->error), FINISH_ERROR);
        return;
    }
    if (stream->winner == attempt) {
        stream->winner = NULL;
        stream_forget_held_locked(stream);
        stream->margins = (struct cascade_margins){0};
    }
    stream->last_error = end->error;
    stream->may_rest = end->may_retry;
    if (!end->may_retry) {
        size_t index = (size_t)(attempt->upstream - stream->snapshot->tiers[attempt->tier].upstreams);
        stream->question.can_take[attempt->tier] &= (uint8_t) ~(1u << index);
    }
    if (stream->n_live > 0)
        return; /* the other one may yet do */
    stream_unset_timer(stream, &stream->hedge);
    stream_unset_timer(stream, &stream->step);
    if (goes_where_it_fits(stream, attempt, &end->error))
        route_begin_locked(stream);
    else if (is_hopeless(attempt, &end->error))
        stream_fail_locked(stream, end->error, FINISH_ERROR);
    else
        advance(stream);
}

void route_ended_locked(struct route_attempt *attempt, const struct attempt_end *end)
{
    struct stream *stream = attempt->stream;
    struct upstream_report report = {
        .ticket = attempt->ticket,
        .code = attempt->is_dropped && end->error.code != ERR_OK ? ERR_CANCELLED : end->error.code,
        /* The fleet keeps away from single engines by itself. */
        .is_its_fault = end->is_its_fault && !attempt->is_dropped && !attempt->upstream->is_local,
        .first_token_ns = end->first_token_ns,
        .whole_ns = end->error.code == ERR_OK ? end->whole_ns : -1,
        .retry_after_ns = end->error.code == ERR_OK ? 0 : end->error.retry_after_ms * ROUTE_NS_PER_MS,
    };
    if (stream->is_shadow && attempt->upstream->is_local)
        report.first_token_ns = report.whole_ns = -1;
    attempt->is_live = false;
    stream->n_live -= !attempt->is_dropped;
    upstream_called(&stream->service->upstreams, attempt->upstream->state, &report, now_of(stream));
    route_count_spent(attempt);
    if (attempt->is_dropped || stream->phase == STREAM_ENDED)
        return;
    if (end->error.code != ERR_OK) {
        failed(attempt, end);
        return;
    }
    if (stream->winner == NULL)
        choose(stream, attempt);
    if (attempt->is_held && !judge(stream, attempt))
        return;
    if (stream->is_checked) {
        struct attempt_end unfit = {.error = answer_watch_check(&stream->watch, stream->question.json),
                                    .may_retry = true};
        if (unfit.error.code != ERR_OK) {
            failed(attempt, &unfit);
            return;
        }
    } else if (!check_watched(attempt)) {
        return;
    }
    complete(stream);
}
