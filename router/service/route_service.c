#include "router/service/route_service.h"

#include <string.h>
#include <sys/random.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "router/service/route_internal.h"
#include "router/service/route_shadow.h"

static void drain(struct service *service)
{
    route_shadow_cancel_all((struct route_service *)service);
}

static uint32_t in_flight(struct service *service)
{
    struct route_service *own = (struct route_service *)service;
    pthread_mutex_lock(&own->lock);
    uint32_t n = own->n_streams;
    pthread_mutex_unlock(&own->lock);
    return n;
}

static struct event_count *progress(struct service *service)
{
    return &((struct route_service *)service)->progress;
}

static struct metrics *metrics(struct service *service)
{
    return &((struct route_service *)service)->metrics;
}

static int64_t now_ns(struct service *service)
{
    return clock_now_ns(((struct route_service *)service)->clock);
}

static bool metrics_text(struct service *service, struct buffer *out)
{
    struct route_service *own = (struct route_service *)service;
    struct route_snapshot *snapshot = route_snapshot_of(own);
    struct decision_log *log = snapshot_log(snapshot);
    struct route_readings readings = {
        .reserved = route_reserved(own),
        .stage = rollout_stage_now(snapshot_rollout(snapshot)),
        .log_lines_lost = log ? decision_log_lost(log) : 0,
    };
    route_snapshot_unref(snapshot);
    pthread_mutex_lock(&own->lock);
    readings.held_bytes = own->held_bytes;
    pthread_mutex_unlock(&own->lock);
    return route_metrics_write(own->route_metrics, &readings, out);
}

static const struct service_vtable ROUTE_SERVICE = {
    .submit = route_submit,
    .stream_next = stream_next_event,
    .stream_cancel = stream_cancel_request,
    .stream_release = stream_release_request,
    .stream_watch = stream_watch_events,
    .stream_request_id = stream_id,
    .abort = route_abort,
    .progress = progress,
    .model_info = route_model_info,
    .loads = route_loads,
    .now_ns = now_ns,
    .tokenize = route_tokenize,
    .detokenize = route_detokenize,
    .drain = drain,
    .in_flight = in_flight,
    .metrics = metrics,
    .metrics_text = metrics_text,
    .model_card = route_model_card,
    .passes_on = true,
};

struct service *route_service_of(struct route_service *service)
{
    return &service->service;
}

/* An engine has come or gone: whoever waits for something may look again. */
static void fleet_changed(void *context)
{
    struct route_service *service = context;
    event_count_bump(&service->progress);
    event_count_bump(&service->classify_wake);
}

static struct snapshot_options snapshot_options_of(struct route_service *service)
{
    return (struct snapshot_options){.clock = service->clock,
                                     .upstreams = &service->upstreams,
                                     .fleet_changed = fleet_changed,
                                     .context = service};
}

static err_t open_ledger(struct route_service *service, const struct route_config *config)
{
    uint64_t n_lost;
    struct ledger_options options = {
        .path = config->ledger_path ? config->ledger_path : ":memory:",
        .unix_ms = route_unix_ms,
        .keep_days = config->ledger_keep_days,
        .durable = config->ledger_durable,
    };
    TRY(ledger_open(&options, &n_lost, &service->ledger));
    if (n_lost > 0)
        log_warn("route", "%llu calls were under way when the router last ended: charged in full",
                 (unsigned long long)n_lost);
    return err_ok();
}

/* The ends of many calls go into the journal at once. */
static void flush_ledger(void *context)
{
    struct route_service *service = context;
    err_t e = ledger_flush(service->ledger);
    if (e.code != ERR_OK)
        log_warn("route", "calls that are over are not in the ledger's journal yet: %s", e.message);
}

/* config is route_snapshot_open's from here on. */
static err_t open_parts(struct route_service *service, struct route_config *config)
{
    struct egress_options egress = egress_options_default();
    struct snapshot_options options = snapshot_options_of(service);
    hedge_purse_open(&service->hedges);
    err_t e = route_metrics_open(&service->route_metrics);
    if (e.code == ERR_OK)
        upstream_table_open(&service->upstreams, service->route_metrics);
    if (e.code == ERR_OK)
        e = open_ledger(service, config);
    if (e.code == ERR_OK)
        e = route_worker_open(service->clock, &(struct worker_after){flush_ledger, service},
                              &service->worker);
    if (e.code == ERR_OK && !service->is_offline)
        e = egress_open(&egress, &service->egress);
    if (e.code == ERR_OK)
        return route_snapshot_open(&options, config, NULL, &service->snapshot);
    route_config_free(config);
    return e;
}

err_t route_service_open(const struct route_service_options *options, struct route_service **out)
{
    ASSERT(options->config && options->clock && options->max_requests > 0 && options->max_held_bytes > 0);
    struct route_service *service = mem_alloc(sizeof *service);
    if (service == NULL) {
        route_config_free(options->config);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the router");
    }
    service->service.vtable = &ROUTE_SERVICE;
    service->clock = options->clock;
    service->is_offline = options->is_offline;
    service->max_requests = options->max_requests;
    service->max_held_bytes = options->max_held_bytes;
    service->opened_ns = clock_now_ns(options->clock);
    if (getrandom(&service->id_salt, sizeof service->id_salt, 0) != sizeof service->id_salt)
        service->id_salt = (uint64_t)route_unix_ms(NULL);
    int failure = pthread_mutex_init(&service->lock, NULL);
    ASSERT(failure == 0);
    err_t e = open_parts(service, options->config);
    if (e.code != ERR_OK) {
        route_service_close(service);
        return e;
    }
    route_classify_watch(service);
    *out = service;
    return e;
}

static void wait_until_empty(struct route_service *service)
{
    for (;;) {
        uint32_t seen = event_count_read(&service->emptied);
        pthread_mutex_lock(&service->lock);
        bool is_empty = service->n_streams == 0 && service->n_shadows == 0;
        pthread_mutex_unlock(&service->lock);
        if (is_empty)
            return;
        event_count_wait(&service->emptied, seen, -1);
    }
}

void route_service_close(struct route_service *service)
{
    if (service == NULL)
        return;
    route_shadow_cancel_all(service);
    wait_until_empty(service);
    route_classify_stop(service);
    egress_close(
        service->egress); /* whose thread, like the fleet's, may yet be on its way out of the worker */
    route_snapshot_unref(service->snapshot);
    route_worker_close(service->worker);
    ledger_close(service->ledger);
    if (service->route_metrics)
        upstream_table_close(&service->upstreams);
    route_metrics_close(service->route_metrics);
    route_models_free(service);
    hedge_purse_close(&service->hedges);
    pthread_mutex_destroy(&service->lock);
    mem_free(service);
}

void route_service_join(struct route_service *service, struct event_base *base)
{
    if (service->egress && !egress_join(service->egress, base))
        log_warn("route", "no memory or descriptors for calls to providers on a door's own thread");
}

void route_service_leave(struct route_service *service)
{
    if (service->egress)
        egress_leave(service->egress);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

err_t route_service_reload(struct route_service *service, struct route_config *config)
{
    struct route_snapshot *before = route_snapshot_of(service), *after = NULL;
    const struct route_config *old = snapshot_config(before);
    struct snapshot_options options = snapshot_options_of(service);
    int32_t keep_days = config->ledger_keep_days;
    err_t e = err_ok();
    if (!same_text(old->ledger_path, config->ledger_path) || old->ledger_durable != config->ledger_durable) {
        e = err_new(ERR_INVALID_ARGUMENT, "the ledger cannot change while the router runs: start it anew");
        route_config_free(config);
    } else {
        e = route_snapshot_open(&options, config, before, &after);
    }
    if (e.code == ERR_OK) {
        pthread_mutex_lock(&service->lock);
        struct route_snapshot *replaced = service->snapshot;
        service->snapshot = after;
        pthread_mutex_unlock(&service->lock);
        route_snapshot_unref(replaced);
        ledger_keep(service->ledger, keep_days);
        route_classify_watch(service);
    }
    route_snapshot_unref(before);
    return e;
}
