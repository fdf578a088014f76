#include "server/doors.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "api/metrics.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "base/log.h"
#include "proto/admin_door.h"
#include "proto/grpc_door.h"
#include "proto/grpc_runtime.h"
#include "proto/http_door.h"
#include "proto/listen_address.h"
#include "server/file_budget.h"
#include "server/memory_return.h"
#include "server/service_notify.h"
#include "server/stop_signals.h"

#define REFRESH_INTERVAL_NS INT64_C(1000000000) /* of files that may have changed */
/* For connections that are being made, then that wait to be accepted, then whose first request is on its way.
 */
#define HALF_MADE_NS        INT64_C(20000000)
#define PENDING_NS          INT64_C(5000000)
#define PENDING_TURNS       200
#define FIRST_REQUEST_NS    INT64_C(100000000)

/* Signals and the end of the last generation bump it; static because the signals' thread outlives the doors.
 */
static struct event_count changed;

struct doors {
    struct doors_options options; /* connections within the limit of open files */
    struct access access;
    struct grpc_door *grpc;
    struct http_door *http;   /* NULL = not wanted */
    struct admin_door *admin; /* likewise */
};

struct doors_options doors_options_default(void)
{
    struct grpc_door_options door = grpc_door_options_default();
    struct http_door_options http = http_door_options_default();
    struct admin_door_options admin = admin_door_options_default();
    return (struct doors_options){
        .host = door.host,
        .port = door.port,
        .http = true,
        .http_port = http.port,
        .max_http_connections = http.max_connections,
        .metrics = true,
        .metrics_host = admin.host,
        .metrics_port = admin.port,
        .shutdown_timeout_ns = INT64_C(30000000000),
        .max_grpc_connections = door.max_connections,
        .max_connection_calls = door.max_streams,
        .max_calls = door.max_calls,
        .max_message_bytes = door.max_message_bytes,
        .version = "",
    };
}

/* The operator's listener, which has neither TLS nor keys in any case. */
static err_t check_metrics_bind(const struct doors_options *options)
{
    bool loopback;
    if (!options->metrics)
        return err_ok();
    TRY(listen_is_loopback(options->metrics_host, &loopback));
    if (!loopback && !options->access.allow_insecure_bind)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--metrics-host %s can be reached from other machines, without TLS or authentication; "
                       "say --allow-insecure-bind if whoever reaches it may read the metrics",
                       options->metrics_host);
    return err_ok();
}

static err_t check_bind(const struct doors_options *options)
{
    bool loopback;
    TRY(access_check(&options->access, options->host));
    TRY(check_metrics_bind(options));
    TRY(listen_is_loopback(options->host, &loopback));
    if (!loopback && !grpc_runtime_is_current())
        log_warn(
            "serve",
            "gRPC core %s lacks fixes of known denial-of-service faults; put a proxy in front of a network "
            "that is not trusted",
            grpc_runtime_version());
    return err_ok();
}

/* Written aside and renamed, so that a reader sees all of it or nothing. */
static err_t write_port_file(const char *flag, const char *path, uint16_t port)
{
    char aside[4096];
    int length = snprintf(aside, sizeof aside, "%s.%ld", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof aside)
        return err_new(ERR_INVALID_ARGUMENT, "%s: the path is too long", flag);
    FILE *file = fopen(aside, "we");
    if (!file)
        return err_new(ERR_IO, "%s %s: %s", flag, path, strerror(errno));
    bool written = fprintf(file, "%u\n", port) > 0;
    if (fclose(file) != 0 || !written || rename(aside, path) != 0) {
        err_t e = err_new(ERR_IO, "%s %s: %s", flag, path, strerror(errno));
        (void)unlink(aside);
        return e;
    }
    return err_ok();
}

/* For a person at a terminal: a first request, as it is typed. */
static void print_example(const struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    const struct model_info *model = service->vtable->model_info(service);
    if (!doors->http || !isatty(STDOUT_FILENO))
        return;
    char address[LISTEN_HOST_BYTES_MAX + 16];
    listen_format_address(options->host, http_door_port(doors->http), address, sizeof address);
    bool chats = model->has_chat_template || service->vtable->passes_on;
    const char *ask = chats                  ? "\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]"
                      : model->has_tokenizer ? "\"prompt\": \"The train to\""
                                             : "\"prompt\": [1, 2, 3]";
    (void)printf(
        "%s is ready; try:\n  curl %s://%s/v1/%scompletions%s -H 'Content-Type: application/json' -d '{%s, "
        "\"max_tokens\": 24}'\n",
        model->model, options->access.cert_file ? "https" : "http", address, chats ? "chat/" : "",
        doors->access.identity ? " -H 'Authorization: Bearer YOUR-KEY'" : "", ask);
}

static err_t announce(const struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    uint16_t port = grpc_door_port(doors->grpc);
    char address[LISTEN_HOST_BYTES_MAX + 16];
    if (doors->http && options->http_port_file)
        TRY(write_port_file("--http-port-file", options->http_port_file, http_door_port(doors->http)));
    if (doors->admin && options->metrics_port_file)
        TRY(write_port_file("--metrics-port-file", options->metrics_port_file,
                            admin_door_port(doors->admin)));
    if (options->port_file)
        TRY(write_port_file("--port-file", options->port_file, port));
    listen_format_address(options->host, port, address, sizeof address);
    (void)printf("listening on %s\n", address);
    if (doors->http) {
        listen_format_address(options->host, http_door_port(doors->http), address, sizeof address);
        (void)printf("listening on %s://%s\n", options->access.cert_file ? "https" : "http", address);
    }
    if (doors->admin) {
        listen_format_address(options->metrics_host, admin_door_port(doors->admin), address, sizeof address);
        (void)printf("metrics on http://%s/metrics\n", address);
    }
    print_example(doors, service);
    (void)fflush(stdout);
    service_notify("READY=1");
    return err_ok();
}

/* Meanwhile files that change are read again. */
static void wait_for_signal(const struct doors *doors)
{
    const struct doors_options *options = &doors->options;
    uint32_t n_hangups = stop_signals_hangups();
    struct memory_return memory = {0};
    while (stop_signals_seen() == 0) {
        uint32_t seen = event_count_read(&changed);
        uint32_t n_now = stop_signals_hangups();
        access_refresh(&doors->access, n_now != n_hangups);
        if (options->refresh)
            options->refresh(options->context, n_now != n_hangups);
        n_hangups = n_now;
        (void)memory_return_check(&memory, clock_now_ns(clock_monotonic()));
        if (stop_signals_seen() == 0)
            event_count_wait(&changed, seen, REFRESH_INTERVAL_NS);
    }
}

static uint32_t active_in(const struct doors *doors)
{
    return grpc_door_active(doors->grpc) + (doors->http ? http_door_active(doors->http) : 0);
}

/* For so long, or until a second signal. */
static void wait_for(int64_t duration_ns)
{
    const struct clock *clock = clock_monotonic();
    int64_t end_ns = clock_now_ns(clock) + duration_ns;
    for (;;) {
        uint32_t seen = event_count_read(&changed);
        int64_t left_ns = end_ns - clock_now_ns(clock);
        if (left_ns <= 0 || stop_signals_seen() > 1)
            return;
        event_count_wait(&changed, seen, left_ns);
    }
}

/* Readiness goes first: a balancer that asks now and then sends requests for a while yet. Then new
 * connections are refused, and what young ones have to say is heard, before clients are told to go. */
static void send_balancers_away(const struct doors *doors, int64_t delay_ns)
{
    if (doors->admin)
        admin_door_not_ready(doors->admin);
    if (doors->http)
        http_door_not_ready(doors->http);
    grpc_door_not_ready(doors->grpc);
    wait_for(delay_ns);
    grpc_door_hold_connections(doors->grpc);
    wait_for(HALF_MADE_NS);
    for (int i = 0; i < PENDING_TURNS && grpc_door_pending_connections(doors->grpc) > 0; i++)
        wait_for(PENDING_NS);
    grpc_door_refuse_connections(doors->grpc);
    wait_for(FIRST_REQUEST_NS);
}

/* Until nothing is in flight, the time is over, or a second signal came. */
static void wait_until_drained(const struct doors *doors, int64_t timeout_ns)
{
    const struct clock *clock = clock_monotonic();
    int64_t end_ns = clock_now_ns(clock) + timeout_ns;
    for (;;) {
        uint32_t seen = event_count_read(&changed);
        int64_t left_ns = end_ns - clock_now_ns(clock);
        if (active_in(doors) == 0 || left_ns <= 0 || stop_signals_seen() > 1)
            return;
        event_count_wait(&changed, seen, left_ns);
    }
}

static void drain(const struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    service_notify("STOPPING=1");
    metric_add(&service->vtable->metrics(service)->draining[0], 1);
    send_balancers_away(doors, options->drain_delay_ns);
    log_info("serve",
             "stopping: waiting up to %lld s for %u requests in flight; a second signal ends the wait",
             (long long)(options->shutdown_timeout_ns / 1000000000), active_in(doors));
    if (doors->http)
        http_door_drain(doors->http, &changed);
    grpc_door_drain(doors->grpc, &changed);
    wait_until_drained(doors, options->shutdown_timeout_ns);
    service->vtable->drain(service); /* not before: what the doors had accepted is served */
    uint32_t left = active_in(doors);
    if (left > 0)
        log_warn("serve", "%u requests are cut off", left);
    else
        log_info("serve", "drained");
}

static err_t open_grpc(struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    struct grpc_door_options door = grpc_door_options_default();
    door.host = options->host;
    door.port = options->port;
    door.version = options->version;
    door.max_message_bytes = options->max_message_bytes;
    door.max_connections = options->max_grpc_connections;
    door.max_streams = options->max_connection_calls;
    door.max_calls = options->max_calls;
    door.max_connection_age_ms = options->max_connection_age_ms;
    door.max_connection_age_grace_ms = options->max_connection_age_grace_ms;
    if (options->send_timeout_ns > 0)
        door.send_timeout_ms = options->send_timeout_ns / 1000000 + 1;
    door.tls = doors->access.tls;
    door.identity = doors->access.identity;
    err_t e = grpc_door_open(service, &door, &doors->grpc);
    return e.code == ERR_OK ? e : err_prefix(e, "gRPC (--port)");
}

static err_t open_http(struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    struct http_door_options door = http_door_options_default();
    bool loopback;
    TRY(listen_is_loopback(options->host, &loopback));
    door.metrics = loopback || options->http_metrics;
    door.max_connection_age_ms = options->max_connection_age_ms;
    door.host = options->host;
    door.port = options->http_port;
    door.version = options->version;
    door.max_message_bytes = options->max_message_bytes;
    door.max_connections = options->max_http_connections;
    if (options->send_timeout_ns > 0)
        door.write_timeout_ms = options->send_timeout_ns / 1000000 + 1;
    door.tls = doors->access.tls;
    door.identity = doors->access.identity;
    door.extra = options->http_extra;
    door.hooks = options->http_loops;
    err_t e = http_door_open(service, &door, &doors->http);
    return e.code == ERR_OK ? e : err_prefix(e, "HTTP (--http-port, or --no-http)");
}

/* POST /drain: as if somebody had sent the signal. */
static void order_drain(void *context)
{
    (void)context;
    (void)kill(getpid(), SIGTERM);
}

/* It sees the service itself, without anybody's quotas in front. */
static err_t open_admin(struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    struct admin_door_options door = admin_door_options_default();
    door.host = options->metrics_host;
    door.port = options->metrics_port;
    door.version = options->version;
    door.drain = order_drain;
    TRY(listen_is_loopback(options->metrics_host, &door.allow_orders));
    door.extra = options->operator_extra;
    err_t e = admin_door_open(service, &door, &doors->admin);
    return e.code == ERR_OK ? e : err_prefix(e, "metrics (--metrics-port, or --no-metrics)");
}

/* Files are raised first, so that neither door finds the process without one. */
static void fit_file_limit(struct doors_options *options)
{
    uint64_t max_files = file_budget_raise();
    if (!options->http)
        options->max_http_connections = 0;
    if (file_budget_fit(max_files, &options->max_grpc_connections, &options->max_http_connections))
        log_warn("serve",
                 "the process may have %llu open files: at most %u gRPC and %u HTTP connections are taken "
                 "(ulimit -Hn, LimitNOFILE=)",
                 (unsigned long long)max_files, options->max_grpc_connections, options->max_http_connections);
}

err_t doors_prepare(const struct doors_options *options, struct doors **out)
{
    TRY(check_bind(options));
    struct doors *doors = mem_alloc(sizeof *doors);
    if (doors == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the doors");
    doors->options = *options;
    err_t e = stop_signals_start(&changed, options->refresh || access_has_files(&options->access));
    if (e.code == ERR_OK)
        e = access_open(&options->access, &doors->access);
    if (e.code != ERR_OK)
        doors_close(doors);
    else
        *out = doors;
    return e;
}

uint64_t doors_bytes(const struct doors *doors)
{
    return (uint64_t)GRPC_DOOR_BYTES + (doors->options.http ? HTTP_DOOR_BYTES : 0) +
           (doors->options.metrics ? ADMIN_DOOR_BYTES : 0);
}

static err_t open_all(struct doors *doors, struct service *service)
{
    struct service *guarded;
    TRY(access_guard(&doors->access, service, &guarded));
    TRY(open_grpc(doors, guarded));
    if (doors->options.http)
        TRY(open_http(doors, guarded));
    if (doors->options.metrics)
        TRY(open_admin(doors, service));
    stop_signals_arm();
    return announce(doors, service);
}

static void forget_port(bool is_open, const char *path)
{
    if (is_open && path)
        (void)unlink(path);
}

err_t doors_run(struct doors *doors, struct service *service)
{
    const struct doors_options *options = &doors->options;
    fit_file_limit(&doors->options);
    err_t e = open_all(doors, service);
    if (e.code == ERR_OK) {
        wait_for_signal(doors);
        drain(doors, service);
    }
    admin_door_close(doors->admin);
    http_door_close(doors->http);
    grpc_door_close(doors->grpc);
    access_close(&doors->access);
    if (e.code != ERR_OK)
        return e;
    forget_port(true, options->port_file);
    forget_port(options->http, options->http_port_file);
    forget_port(options->metrics, options->metrics_port_file);
    return e;
}

void doors_close(struct doors *doors)
{
    if (doors == NULL)
        return;
    access_close(&doors->access);
    mem_free(doors);
}
