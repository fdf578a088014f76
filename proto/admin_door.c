#include "proto/admin_door.h"

#include <stdatomic.h>
#include "base/alloc.h"
#include "proto/codec_openai.h"
#include "proto/http_door_internal.h"
#include "proto/http_server.h"
#include "proto/orca_report.h"
#include "proto/metrics_text.h"

#define CLOSE_GRACE_NS INT64_C(200000000)
enum { SMALL_ANSWER_BYTES_MAX = 64 << 10 };

struct admin_door {
    struct service *service;
    struct admin_door_options options;
    struct http_server *server;
    struct event_count progress; /* never bumped by anybody else: every answer is complete at once */
    _Atomic bool not_ready;
};

typedef void admin_route_fn(struct admin_door *door, struct http_exchange *exchange);

struct admin_door_options admin_door_options_default(void)
{
    return (struct admin_door_options){
        .host = "127.0.0.1", .port = 8002, .version = "", .allow_orders = true};
}

/* --- routes */

static void get_metrics(struct admin_door *door, struct http_exchange *exchange)
{
    http_answer_metrics(door->service, door->options.version, exchange);
}

static void get_health(struct admin_door *door, struct http_exchange *exchange)
{
    http_answer_health(door->service, exchange);
}

static void get_ready(struct admin_door *door, struct http_exchange *exchange)
{
    if (atomic_load(&door->not_ready))
        http_refuse_with(exchange, 503, "the server is shutting down");
    else
        get_health(door, exchange);
}

/* The names are those of LoadsResponse (bantam.fbs). */
static void get_loads(struct admin_door *door, struct http_exchange *exchange)
{
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    struct loads l;
    door->service->vtable->loads(door->service, &l);
    bool good = buffer_append_format(
        &body,
        "{\"num_waiting_reqs\":%u,\"num_running_reqs\":%u,\"num_paused_reqs\":%u,\"max_running_requests\":%u,"
        "\"kv_blocks_total\":%u,\"kv_blocks_used\":%u,\"kv_blocks_cached\":%u,\"kv_block_tokens\":%u,"
        "\"utilization\":%.6g,\"gen_throughput\":%.6g,\"predicted_ttft_ns\":%lld,\"heartbeat_age_ns\":%lld,"
        "\"step_running\":%s,\"failed\":%s,\"draining\":%s}\n",
        l.requests_waiting, l.requests_running, l.requests_paused, l.max_num_seqs, l.kv_blocks_total,
        l.kv_blocks_used, l.kv_blocks_cached, l.kv_block_tokens, load_utilization(&l), l.tokens_per_s,
        (long long)l.predicted_ttft_ns, (long long)l.heartbeat_age_ns, l.step_running ? "true" : "false",
        l.failed ? "true" : "false", atomic_load(&door->not_ready) ? "true" : "false");
    if (good)
        http_exchange_respond(exchange, 200, HTTP_JSON, body.data, body.size);
    else
        http_refuse_with(exchange, 500, "no memory for the answer");
    buffer_free(&body);
}

static void post_drain(struct admin_door *door, struct http_exchange *exchange)
{
    static const char drains[] = "{\"status\":\"draining\"}\n";
    if (!door->options.allow_orders || !door->options.drain) {
        http_refuse_with(exchange, 403, "orders are taken on a loopback address alone (--metrics-host)");
        return;
    }
    http_exchange_respond(exchange, 202, HTTP_JSON, drains, sizeof drains - 1);
    door->options.drain(door->options.context);
}

static const struct admin_route {
    const char *path;
    bool posts; /* a page in a browser cannot send JSON to another site without asking; else GET and HEAD */
    admin_route_fn *handle;
} routes[] = {
    {"/metrics", false, get_metrics}, {"/health", false, get_health}, {"/ready", false, get_ready},
    {"/loads", false, get_loads},     {"/drain", true, post_drain},
};

static void handle(void *context, struct http_exchange *exchange)
{
    struct admin_door *door = context;
    struct http_text path = http_exchange_head(exchange)->path;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (http_text_is(path, routes[i].path)) {
            if (http_check_method(exchange, routes[i].posts))
                routes[i].handle(door, exchange);
            return;
        }
    const struct extra_route *extra = extra_route_find(&door->options.extra, path);
    if (extra) {
        extra->handle(extra->context, exchange);
        return;
    }
    http_refuse_with(exchange, 404, "known paths: /metrics, /health, /ready, /loads, /drain");
}

static void pump(void *context, struct http_exchange *exchange)
{
    const struct admin_door *door = context;
    const struct extra_route *extra =
        extra_route_find(&door->options.extra, http_exchange_head(exchange)->path);
    if (extra && extra->pump)
        extra->pump(extra->context, exchange);
}

static void ended(void *context, struct http_exchange *exchange)
{
    const struct admin_door *door = context;
    const struct extra_route *extra =
        extra_route_find(&door->options.extra, http_exchange_head(exchange)->path);
    if (extra && extra->ended)
        extra->ended(extra->context, exchange);
}

/* --- opening and closing */

err_t admin_door_open(struct service *service, const struct admin_door_options *options,
                      struct admin_door **out)
{
    struct admin_door *door = mem_alloc(sizeof *door);
    if (!door)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the metrics' listener");
    door->service = service;
    door->options = *options;
    struct http_door_options limits = http_door_options_default();
    limits.host = options->host;
    limits.port = options->port;
    limits.n_loop_threads = limits.n_worker_threads = 1;
    limits.max_connections = 64;
    limits.max_message_bytes = 1 << 10;
    limits.max_pending_bytes = 64 << 10;
    limits.max_output_bytes = 8 << 20;
    limits.body_timeout_ms = limits.write_timeout_ms = 10000;
    limits.idle_timeout_ms = 120000; /* longer than people scrape at */
    const struct http_server_options server = {
        .progress = &door->progress,
        .context = door,
        .handle = handle,
        .pump = pump,
        .ended = ended,
    };
    err_t e = http_open_transport(&limits, &server, &door->server);
    if (e.code != ERR_OK) {
        mem_free(door);
        return e;
    }
    *out = door;
    return e;
}

uint16_t admin_door_port(const struct admin_door *door)
{
    return http_server_port(door->server);
}

void admin_door_not_ready(struct admin_door *door)
{
    atomic_store(&door->not_ready, true);
}

void admin_door_close(struct admin_door *door)
{
    if (!door)
        return;
    http_server_close(door->server, CLOSE_GRACE_NS);
    mem_free(door);
}
