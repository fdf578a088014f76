#include "server/serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/event_count.h"
#include "base/log.h"
#include "proto/grpc_door.h"
#include "proto/grpc_runtime.h"
#include "proto/listen_address.h"
#include "server/service_notify.h"
#include "server/stop_signals.h"

/* Signals and the end of the last generation bump it; static because the signals' thread outlives serve_run.
 */
static struct event_count changed;

struct serve_options serve_options_default(void)
{
    struct grpc_door_options door = grpc_door_options_default();
    return (struct serve_options){
        .host = door.host,
        .port = door.port,
        .shutdown_timeout_ns = INT64_C(30000000000),
        .max_connection_calls = door.max_streams,
        .max_calls = door.max_calls,
        .max_message_bytes = door.max_message_bytes,
        .version = "",
    };
}

/* Nobody but this machine may reach a server without TLS and authentication, unless told so. */
static err_t check_bind(const struct serve_options *options)
{
    bool loopback;
    TRY(listen_is_loopback(options->host, &loopback));
    if (!loopback && !options->allow_insecure_bind)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "--host %s can be reached from other machines, without TLS or authentication; put a proxy "
            "in front of 127.0.0.1, or say --allow-insecure-bind",
            options->host);
    if (!grpc_runtime_is_current())
        log_line(
            loopback ? LOG_INFO : LOG_WARN, "serve",
            "gRPC core %s lacks fixes of known denial-of-service faults; put a proxy in front of a network "
            "that is not trusted",
            grpc_runtime_version());
    return err_ok();
}

/* Written aside and renamed, so that a reader sees all of it or nothing. */
static err_t write_port_file(const char *path, uint16_t port)
{
    char aside[4096];
    int length = snprintf(aside, sizeof aside, "%s.%ld", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof aside)
        return err_new(ERR_INVALID_ARGUMENT, "--port-file: the path is too long");
    FILE *file = fopen(aside, "we");
    if (!file)
        return err_new(ERR_IO, "--port-file %s: %s", path, strerror(errno));
    bool written = fprintf(file, "%u\n", port) > 0;
    if (fclose(file) != 0 || !written || rename(aside, path) != 0) {
        err_t e = err_new(ERR_IO, "--port-file %s: %s", path, strerror(errno));
        (void)unlink(aside);
        return e;
    }
    return err_ok();
}

static err_t announce(const struct serve_options *options, const struct grpc_door *door)
{
    uint16_t port = grpc_door_port(door);
    char address[LISTEN_HOST_BYTES_MAX + 16];
    listen_format_address(options->host, port, address, sizeof address);
    if (options->port_file)
        TRY(write_port_file(options->port_file, port));
    (void)printf("listening on %s\n", address);
    (void)fflush(stdout);
    service_notify("READY=1");
    return err_ok();
}

static void wait_for_signal(void)
{
    while (stop_signals_seen() == 0) {
        uint32_t seen = event_count_read(&changed);
        if (stop_signals_seen() == 0)
            event_count_wait(&changed, seen, -1);
    }
}

/* Until nothing is in flight, the time is over, or a second signal came. */
static void wait_until_drained(const struct grpc_door *door, int64_t timeout_ns)
{
    const struct clock *clock = clock_monotonic();
    int64_t end_ns = clock_now_ns(clock) + timeout_ns;
    for (;;) {
        uint32_t seen = event_count_read(&changed);
        int64_t left_ns = end_ns - clock_now_ns(clock);
        if (grpc_door_active(door) == 0 || left_ns <= 0 || stop_signals_seen() > 1)
            return;
        event_count_wait(&changed, seen, left_ns);
    }
}

static void drain(struct grpc_door *door, const struct serve_options *options)
{
    service_notify("STOPPING=1");
    log_info("serve",
             "stopping: waiting up to %lld s for %u requests in flight; a second signal ends the wait",
             (long long)(options->shutdown_timeout_ns / 1000000000), grpc_door_active(door));
    grpc_door_drain(door, &changed);
    wait_until_drained(door, options->shutdown_timeout_ns);
    uint32_t left = grpc_door_active(door);
    if (left > 0)
        log_warn("serve", "%u requests are cut off", left);
    else
        log_info("serve", "drained");
}

static err_t serve_engine(struct engine *engine, const struct serve_options *options)
{
    struct grpc_door_options door_options = grpc_door_options_default();
    door_options.host = options->host;
    door_options.port = options->port;
    door_options.version = options->version;
    door_options.max_message_bytes = options->max_message_bytes;
    door_options.max_streams = options->max_connection_calls;
    door_options.max_calls = options->max_calls;
    struct grpc_door *door;
    TRY(grpc_door_open(engine_service(engine), &door_options, &door));
    stop_signals_arm();
    err_t e = announce(options, door);
    if (e.code == ERR_OK) {
        wait_for_signal();
        drain(door, options);
    }
    grpc_door_close(door);
    return e;
}

err_t serve_run(const struct engine_options *engine_options, const struct serve_options *options,
                void (*on_plan)(const struct memory_plan *plan))
{
    TRY(check_bind(options));
    TRY(stop_signals_start(&changed));
    struct engine_options planned = *engine_options;
    planned.caller_bytes += GRPC_DOOR_BYTES;
    struct engine *engine;
    TRY(engine_open(&planned, on_plan, &engine));
    err_t e = serve_engine(engine, options);
    engine_close(engine);
    if (options->port_file && e.code == ERR_OK)
        (void)unlink(options->port_file);
    return e;
}
