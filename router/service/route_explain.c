/* What the router would do, has spent and sees, as JSON. */
#include <stdio.h>
#include <string.h>
#include "router/providers/json_text.h"
#include "router/service/route_internal.h"

enum { TRACE_BYTES_MAX = 16 << 10 };

/* Sets nothing when there is no memory: json_text_append then refuses a NULL root, or a field is missing. */
static void set(json_t *object, const char *name, json_t *value)
{
    (void)json_object_set_new(object, name, value);
}

static void set_text(json_t *object, const char *name, const char *text)
{
    set(object, name, json_string(text ? text : ""));
}

static void set_count(json_t *object, const char *name, uint64_t count)
{
    set(object, name, json_integer((json_int_t)count));
}

static void set_money(json_t *object, const char *name, nanodollars amount)
{
    set(object, name, amount < 0 ? json_null() : json_real((double)amount / NANODOLLARS_PER_DOLLAR));
}

static err_t write_json(json_t *root, struct buffer *out)
{
    err_t e = root ? json_text_append_decimal(out, root)
                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    json_decref(root);
    return e;
}

/* --- why */

static json_t *signals_of(const struct route_question *question)
{
    const struct request_signals *signals = &question->signals;
    json_t *out = json_object();
    set_count(out, "prompt_tokens", question->prompt_tokens);
    set_count(out, "max_tokens", signals->max_tokens);
    set_count(out, "turns", signals->n_turns);
    set_count(out, "tools", signals->n_tools);
    set_count(out, "images", signals->n_images);
    set_count(out, "audio", signals->n_audio);
    set_count(out, "files", signals->n_files);
    set_count(out, "budget_percent", question->input.budget_percent);
    set(out, "schema", json_boolean(signals->has_schema));
    set(out, "code", json_boolean(signals->has_code));
    set(out, "tool_calls", json_boolean(signals->calls_tools));
    set_text(out, "script", SCRIPT_NAMES[signals->script]);
    set_text(out, "language", LANGUAGE_NAMES[signals->language]);
    set_text(out, "wish", ROUTE_WISH_NAMES[question->hints.route]);
    set_count(out, "complexity", question->hints.complexity);
    set_text(out, "task", question->hints.task);
    return out;
}

/* What a provider said of its limits last, and how long it is not asked. */
static void set_limits(json_t *object, struct route_service *service, struct upstream_state *state)
{
    struct rate_limits limits = upstream_limits(&service->upstreams, state);
    json_t *remaining = json_object();
    for (int i = 0; i < EGRESS_RATES; i++) {
        if (limits.remaining[i] >= 0)
            set(remaining, EGRESS_RATE_NAMES[i], json_integer(limits.remaining[i]));
    }
    set(object, "remaining", remaining);
    set(object, "rests_ms",
        json_integer(rate_limits_wait_ns(&limits, clock_now_ns(service->clock)) / ROUTE_NS_PER_MS));
}

static json_t *tiers_of(struct route_service *service, const struct route_snapshot *snapshot,
                        const struct route_question *question)
{
    const struct policy_input *input = &question->input;
    json_t *list = json_array();
    for (size_t t = 0; t < snapshot->n_tiers; t++) {
        const struct route_tier *tier = &snapshot->tiers[t];
        json_t *one = json_object(), *models = json_array();
        set_text(one, "name", tier->tier->name);
        set(one, "up", json_boolean(!input->is_down[t]));
        set(one, "first_token_ms", input->ttft_ms[t] < 0 ? json_null() : json_integer(input->ttft_ms[t]));
        set(one, "cannot_cross", input->cannot_cross[t] ? json_string(input->cannot_cross[t]) : json_null());
        for (size_t i = 0; i < tier->tier->n_models; i++) {
            json_t *model = json_object();
            set_text(model, "name", tier->tier->models[i]);
            set(model, "takes", json_boolean(question->can_take[t] & 1u << i));
            set_money(model, "most", route_question_estimate(question, &tier->upstreams[i]));
            if (!tier->upstreams[i].is_local)
                set_limits(model, service, tier->upstreams[i].state);
            (void)json_array_append_new(models, model);
        }
        set(one, "models", models);
        (void)json_array_append_new(list, one);
    }
    return list;
}

static json_t *decision_of(const struct route_snapshot *snapshot, const struct policy_decision *decision)
{
    json_t *out = json_object();
    set_text(out, "tier", snapshot->tiers[decision->tier].tier->name);
    set_text(out, "reason", POLICY_REASON_NAMES[decision->reason]);
    set_text(out, "rule", decision->rule);
    set(out, "local_only", json_boolean(decision->local_only));
    set(out, "refused", json_boolean(decision->is_refused));
    return out;
}

/* Would it be asked, and can it be: does an engine know its labels' tokens by now, is a provider up? */
static json_t *classifier_of(struct route_service *service, const struct route_snapshot *snapshot,
                             const struct request *request, const struct route_question *question)
{
    const struct classifier_config *config = &snapshot_config(snapshot)->classifier;
    if (config->model == NULL)
        return json_null();
    bool is_ready = config->provider ? !service->is_offline &&
                                           upstream_breaker(&service->upstreams, snapshot->classifies.state,
                                                            clock_now_ns(service->clock)) != BREAKER_OPEN
                                     : classifier_is_ready(snapshot->classifier);
    json_t *out = json_object();
    bool may_be = config->provider ? question->json && !question->decision.local_only && !service->is_offline
                                   : request->prompt_kind != PROMPT_TOKEN_IDS;
    set_text(out, "model", config->model);
    set(out, "ready", json_boolean(is_ready));
    set(out, "asked", json_boolean(may_be && route_classify_matters(snapshot, question)));
    return out;
}

static err_t explain(struct route_service *service, struct route_snapshot *snapshot,
                     const struct request *request, struct buffer *out)
{
    struct question_context context = {.snapshot = snapshot,
                                       .upstreams = &service->upstreams,
                                       .ledger = service->ledger,
                                       .is_offline = service->is_offline,
                                       .now_ns = clock_now_ns(service->clock)};
    struct route_question question;
    struct buffer trace = {.limit_bytes = TRACE_BYTES_MAX};
    err_t e = route_question_read(&context, request, &question);
    if (e.code == ERR_OK) {
        route_question_decide(&question, &context, &trace);
        json_t *root = json_object();
        set(root, "decision", decision_of(snapshot, &question.decision));
        set(root, "signals", signals_of(&question));
        set(root, "classifier", classifier_of(service, snapshot, request, &question));
        set(root, "tiers", tiers_of(service, snapshot, &question));
        set(root, "trace", json_stringn(trace.data ? trace.data : "", trace.size));
        set_text(root, "policy", snapshot_config(snapshot)->policy_id);
        e = write_json(root, out);
    }
    buffer_free(&trace);
    route_question_free(&question);
    return e;
}

err_t route_service_explain(struct route_service *service, const struct request *request, struct buffer *out)
{
    struct route_snapshot *snapshot = route_snapshot_of(service);
    err_t e = explain(service, snapshot, request, out);
    route_snapshot_unref(snapshot);
    return e;
}

/* --- money */

static json_t *span_of(const struct ledger_balance *balance, nanodollars limit)
{
    json_t *out = json_object();
    nanodollars left = limit - money_add(balance->spent, balance->reserved);
    set_money(out, "spent", balance->spent);
    set_money(out, "reserved", balance->reserved);
    set(out, "limit", limit == 0 ? json_null() : json_real((double)limit / NANODOLLARS_PER_DOLLAR));
    if (limit > 0)
        set_money(out, "left", left > 0 ? left : 0);
    return out;
}

err_t route_service_budget(struct route_service *service, const char *tenant, struct buffer *out)
{
    struct ledger_balance today, this_month;
    struct route_snapshot *snapshot = route_snapshot_of(service);
    const struct ledger_budget *own = route_config_budget(snapshot_config(snapshot), tenant);
    struct ledger_budget budget = own ? *own : (struct ledger_budget){0};
    route_snapshot_unref(snapshot);
    TRY(ledger_balance(service->ledger, tenant, &today, &this_month));
    json_t *root = json_object();
    set_text(root, "tenant", tenant);
    set(root, "day", span_of(&today, budget.per_day));
    set(root, "month", span_of(&this_month, budget.per_month));
    return write_json(root, out);
}

/* --- what it sees */

static json_t *milliseconds(int64_t duration_ns)
{
    return duration_ns < 0 ? json_null() : json_real((double)duration_ns / (double)ROUTE_NS_PER_MS);
}

static json_t *engine_of(const struct route_snapshot *snapshot, const struct route_upstream *upstream)
{
    json_t *out = json_object();
    struct local_view view;
    set_text(out, "model", upstream->state->name);
    if (!local_fleet_view(snapshot_fleet(snapshot), upstream->local, &view))
        return out;
    const struct loads *loads = &view.loads;
    double used = loads->kv_blocks_total > 0 ? (double)loads->kv_blocks_used / loads->kv_blocks_total : 0;
    set_count(out, "replicas", view.n_replicas);
    set_count(out, "up", view.n_up);
    set_count(out, "waiting", loads->requests_waiting);
    set_count(out, "running", loads->requests_running);
    set(out, "kv_used", json_real(used));
    set(out, "predicted_ttft_ms", milliseconds(view.predicted_ttft_ns));
    return out;
}

static json_t *provider_of(struct route_service *service, const struct route_upstream *upstream)
{
    json_t *out = json_object();
    struct upstream_table *table = &service->upstreams;
    struct upstream_state *state = upstream->state;
    enum breaker_state breaker = upstream_breaker(table, state, clock_now_ns(service->clock));
    set_text(out, "model", state->name);
    set_text(out, "breaker", breaker_state_name(breaker));
    set_count(out, "calls", metric_read(&state->counts->calls[0]));
    set_count(out, "answers", metric_read(&state->counts->answers[0]));
    set_count(out, "under_way", upstream_live(table, state));
    set(out, "first_token_ms", milliseconds(upstream_first_token_ns(table, state, 0.5)));
    set(out, "first_token_ms_p95", milliseconds(upstream_first_token_ns(table, state, 0.95)));
    set_money(out, "spent_dollars", (nanodollars)metric_read(&state->counts->spent[0]));
    set_limits(out, service, state);
    return out;
}

/* A model may stand in several tiers, and is told once. */
static bool was_told(const struct route_snapshot *snapshot, size_t tier, size_t index)
{
    const struct upstream_state *state = snapshot->tiers[tier].upstreams[index].state;
    for (size_t t = 0; t <= tier; t++) {
        size_t n = t < tier ? snapshot->tiers[t].tier->n_models : index;
        for (size_t i = 0; i < n; i++) {
            if (snapshot->tiers[t].upstreams[i].state == state)
                return true;
        }
    }
    return false;
}

static void set_upstreams(json_t *root, struct route_service *service, const struct route_snapshot *snapshot)
{
    const struct route_counts *counts = route_metrics_counts(service->route_metrics);
    json_t *local = json_array(), *providers = json_array(), *answers = json_object(), *money = json_object();
    uint64_t here = 0, there = 0;
    nanodollars spent = 0;
    for (size_t t = 0; t < snapshot->n_tiers; t++) {
        for (size_t i = 0; i < snapshot->tiers[t].tier->n_models; i++) {
            const struct route_upstream *upstream = &snapshot->tiers[t].upstreams[i];
            if (was_told(snapshot, t, i))
                continue;
            *(upstream->is_local ? &here : &there) += metric_read(&upstream->state->counts->answers[0]);
            spent += (nanodollars)metric_read(&upstream->state->counts->spent[0]);
            if (upstream->is_local)
                (void)json_array_append_new(local, engine_of(snapshot, upstream));
            else
                (void)json_array_append_new(providers, provider_of(service, upstream));
        }
    }
    set_count(answers, "local", here);
    set_count(answers, "frontier", there);
    set_count(answers, "cache",
              metric_read(&counts->cache[ROUTE_CACHE_HIT]) + metric_read(&counts->cache[ROUTE_CACHE_SHARED]));
    set_money(money, "spent_dollars", spent);
    set_money(money, "reserved_dollars", route_reserved(service));
    set_money(money, "saved_dollars", (nanodollars)metric_read(&counts->saved[0]));
    set(root, "local", local);
    set(root, "providers", providers);
    set(root, "answers", answers);
    set(root, "money", money);
}

static json_t *counts_of(const metric_cell *cells, const char *const *names, size_t n)
{
    json_t *out = json_object();
    for (size_t i = 0; i < n; i++)
        set_count(out, names[i], metric_read(&cells[i]));
    return out;
}

static json_t *rollout_of(const struct route_snapshot *snapshot)
{
    json_t *out = json_object();
    struct buffer why = {.limit_bytes = TRACE_BYTES_MAX};
    rollout_why(snapshot_rollout(snapshot), &why);
    set_text(out, "stage", ROLLOUT_STAGE_NAMES[rollout_stage_now(snapshot_rollout(snapshot))]);
    set(out, "why", json_stringn(why.data ? why.data : "", why.size));
    buffer_free(&why);
    return out;
}

/* How soon streams are to begin, and how many did. */
static json_t *slo_of(const struct route_counts *counts, const struct route_snapshot *snapshot)
{
    static const char *const OUTCOMES[] = {"within", "over"};
    int64_t ttft_ms = policy_ttft_over_ms(snapshot_config(snapshot)->policy);
    json_t *out = counts_of(counts->slo, OUTCOMES, ROUTE_SLO_COUNTS);
    set(out, "ttft_ms", ttft_ms < 0 ? json_null() : json_integer(ttft_ms));
    return out;
}

err_t route_service_state(struct route_service *service, struct buffer *out)
{
    static const char *const CACHE[] = {"hit", "shared", "miss"}, *const CASCADE[] = {"kept", "escalated"},
                             *const HEDGE[] = {"won", "lost", "too_dear"},
                             *const SHADOW[] = {"scored", "same", "failed", "refused"};
    const struct route_counts *counts = route_metrics_counts(service->route_metrics);
    struct route_snapshot *snapshot = route_snapshot_of(service);
    json_t *root = json_object(), *requests = json_object();
    int64_t uptime_ns = clock_now_ns(service->clock) - service->opened_ns;
    set(root, "uptime_s", json_integer(uptime_ns / 1000000000));
    set(root, "offline", json_boolean(service->is_offline));
    set_text(root, "policy", snapshot_config(snapshot)->policy_id);
    set_count(requests, "all", atomic_load(&service->n_submitted));
    set_count(requests, "running", service->service.vtable->in_flight(&service->service));
    set(root, "requests", requests);
    set(root, "decisions", counts_of(counts->decisions, POLICY_REASON_NAMES, POLICY_REASONS));
    set_count(root, "refused", metric_read(&counts->refused[0]));
    set_count(root, "fallbacks", metric_read(&counts->fallbacks[0]));
    set_count(root, "handovers", metric_read(&counts->handovers[0]));
    set(root, "cache", counts_of(counts->cache, CACHE, ROUTE_CACHE_COUNTS));
    set(root, "cascades", counts_of(counts->cascades, CASCADE, ROUTE_CASCADE_COUNTS));
    set(root, "hedges", counts_of(counts->hedges, HEDGE, ROUTE_HEDGE_COUNTS));
    set_upstreams(root, service, snapshot);
    set(root, "shadows", counts_of(counts->shadows, SHADOW, ROUTE_SHADOW_COUNTS));
    set(root, "rollout", rollout_of(snapshot));
    set(root, "slo", slo_of(counts, snapshot));
    err_t e = write_json(root, out);
    route_snapshot_unref(snapshot);
    return e;
}
