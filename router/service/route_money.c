/* What requests cost: reserved before a provider hears of them, settled when a call is over. */
#include <stdio.h>
#include "base/log.h"
#include "router/service/route_internal.h"

#define NS_PER_HOUR INT64_C(3600000000000)

/* As the ledger has it. */
static nanodollars booked(const struct route_attempt *attempt)
{
    return attempt->outcome == LEDGER_UNKNOWN ? attempt->estimate : attempt->cost;
}

static struct ledger_call call_of(const struct route_attempt *attempt)
{
    const struct stream *stream = attempt->stream;
    return (struct ledger_call){
        .request_id = stream->decision_id,
        .attempt = attempt->number,
        .tenant = stream->question.input.tenant,
        .provider = attempt->upstream->provider_name,
        .model = attempt->upstream->model_name,
        .reason = attempt->reason,
    };
}

err_t route_reserve(struct route_attempt *attempt)
{
    struct stream *stream = attempt->stream;
    struct ledger_call call = call_of(attempt);
    TRY(ledger_reserve(stream->service->ledger, &call, attempt->estimate,
                       route_config_budget(snapshot_config(stream->snapshot), call.tenant), &attempt->entry));
    attempt->has_entry = true;
    atomic_fetch_add(&stream->service->reserved, attempt->estimate);
    return err_ok();
}

nanodollars route_reserved(struct route_service *service)
{
    return atomic_load(&service->reserved);
}

void route_unreserve(struct route_attempt *attempt)
{
    atomic_fetch_sub(&attempt->stream->service->reserved, attempt->estimate);
    err_t e = ledger_settle(attempt->stream->service->ledger, attempt->entry, LEDGER_RELEASED, 0, NULL);
    if (e.code != ERR_OK)
        log_warn("route", "what was reserved stays so until the next start: %s", e.message);
}

/* On the worker: nobody waits for the disk. */
static void settle(struct worker_job *job)
{
    struct route_attempt *attempt = (struct route_attempt *)job;
    struct stream *stream = attempt->stream;
    struct ledger *ledger = stream->service->ledger;
    err_t e = err_ok();
    if (attempt->upstream->is_local) {
        struct ledger_call call = call_of(attempt);
        e = ledger_record(ledger, &call, attempt->cost, &attempt->usage);
    } else if (attempt->has_entry) {
        nanodollars cost = attempt->cost > 0 ? attempt->cost : 0;
        atomic_fetch_sub(&stream->service->reserved, attempt->estimate);
        e = ledger_settle_soon(ledger, attempt->entry, attempt->outcome, cost, &attempt->usage);
    }
    if (attempt->outcome == LEDGER_UNKNOWN)
        log_warn("route", "%s did not say what its call %s/%u used: its estimate stands in the ledger",
                 attempt->upstream->state->name, stream->decision_id, attempt->number);
    if (e.code != ERR_OK)
        log_warn("route", "call %s/%u is not in the ledger as it should be: %s", stream->decision_id,
                 attempt->number, e.message);
    route_settled(stream);
    stream_unref(stream);
}

void route_settle(struct route_attempt *attempt)
{
    attempt->job.run = settle;
    route_worker_post_later(attempt->stream->service->worker, &attempt->job);
}

/* An engine answers many at once: a call's share of its time is one of those that were under way with it. */
nanodollars route_local_cost(const struct route_attempt *attempt, int64_t whole_ns)
{
    const struct route_upstream *upstream = attempt->upstream;
    if (whole_ns < 0 || upstream->nanodollars_per_hour == 0)
        return 0;
    uint32_t n_live = upstream_live(&attempt->stream->service->upstreams, upstream->state);
    double shared_by = (attempt->n_live_at_start + n_live) / 2.0;
    double hours = (double)whole_ns / (double)NS_PER_HOUR;
    return (nanodollars)((double)upstream->nanodollars_per_hour * hours / (shared_by < 1 ? 1 : shared_by));
}

/* Nothing is known of one that is still under way, but that an engine without a price costs nothing. */
nanodollars route_cost_locked(const struct stream *stream)
{
    nanodollars sum = 0;
    for (const struct route_attempt *attempt = stream->attempts; attempt; attempt = attempt->next) {
        const struct route_upstream *upstream = attempt->upstream;
        bool is_open = attempt->is_live && (!upstream->is_local || upstream->nanodollars_per_hour > 0);
        if (is_open || attempt->cost < 0)
            return -1;
        sum = money_add(sum, attempt->cost);
    }
    return sum;
}

nanodollars route_booked_locked(const struct stream *stream, bool *is_estimate)
{
    nanodollars sum = 0;
    *is_estimate = false;
    for (const struct route_attempt *attempt = stream->attempts; attempt; attempt = attempt->next) {
        sum = money_add(sum, booked(attempt));
        *is_estimate = *is_estimate || attempt->outcome == LEDGER_UNKNOWN;
    }
    return sum;
}

void route_count_spent(const struct route_attempt *attempt)
{
    nanodollars cost = booked(attempt);
    if (attempt->is_hedge)
        hedge_purse_settle(&attempt->stream->service->hedges, attempt->hedge_estimate, cost > 0 ? cost : 0,
                           route_unix_ms(NULL));
    if (cost > 0)
        metric_add(&attempt->upstream->state->counts->spent[0], (uint64_t)cost);
}

nanodollars route_frontier_cost(const struct stream *stream)
{
    const struct route_tier *last = &stream->snapshot->tiers[stream->snapshot->n_tiers - 1];
    nanodollars cost;
    if (last->tier->is_local || !price_cost(&last->upstreams[0].model->price, &stream->usage, &cost))
        return -1;
    return cost;
}
