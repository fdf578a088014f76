/* What clients come in by, from flags to drained: gRPC, HTTP and the operator's listener in front of any
 * service. An engine (`bantam serve`) and a router (`bantam route`) stand behind the same ones. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/error.h"
#include "proto/extra_routes.h"
#include "proto/loop_hooks.h"
#include "server/access.h"

struct doors_options {
    const char *host;      /* name or address to listen on */
    uint16_t port;         /* of gRPC; 0 = any free one */
    const char *port_file; /* the port is written there when ready, for programs; NULL = not */
    bool http;             /* open the HTTP door too */
    uint16_t http_port;    /* 0 = any free one */
    const char *http_port_file;
    bool metrics; /* open the operator's listener (metrics, health, loads, drain) */
    const char *metrics_host;
    uint16_t metrics_port; /* 0 = any free one */
    const char *metrics_port_file;
    bool http_metrics;            /* /metrics on the HTTP door too, though other machines reach it */
    struct access_options access; /* TLS, keys, tenants, open binds */
    int64_t drain_delay_ns;       /* told to stop, it says NOT_SERVING and goes on serving for so long */
    int64_t max_connection_age_ms, max_connection_age_grace_ms; /* 0 = no limit */
    int64_t shutdown_timeout_ns;   /* how long a drain waits for what is in flight */
    uint32_t max_connection_calls; /* of gRPC: at once on one connection */
    uint32_t max_calls;            /* at once on all; more than the engine queues is refused by the engine */
    uint32_t max_grpc_connections, max_http_connections; /* fewer where the limit of open files is too low */
    size_t max_message_bytes;                            /* of a request */
    int64_t send_timeout_ns; /* for a client that takes nothing of an answer; 0 = the doors' own */
    const char *version;     /* of this program; static */
    struct extra_routes http_extra,
        operator_extra;           /* paths beside the doors' own; borrowed until doors_close */
    struct loop_hooks http_loops; /* of the HTTP door, its service's own; doors_run has ended them */
    /* Files of the service's own, while it serves: on the thread of doors_run, about once a second, and at
     * once with in_any_case after SIGHUP. NULL = there are none. */
    void (*refresh)(void *context, bool in_any_case);
    void *context;
};

/* 127.0.0.1, ports 50051, 8000 and 8002 (metrics), no delay, no limit of age, 30 s, 1,024 calls a connection,
 * 4,096 in all, 1,024 HTTP connections, 4 MiB.
 */
struct doors_options doors_options_default(void);

struct doors;

/* All that can be wrong before there is a service: where to listen, certificates, keys. Begins to wait for
 * signals: call it before other threads exist, once in a process; it blocks SIGTERM and SIGINT, and SIGHUP
 * where there are files to read again, for the whole process. The options' strings are borrowed until
 * doors_close. INVALID_ARGUMENT names the flags. */
err_t doors_prepare(const struct doors_options *options, struct doors **out) ERR_MUST_CHECK;
/* What they take in ordinary use, for a memory plan. */
uint64_t doors_bytes(const struct doors *doors);
/* Opens the doors, prints "listening on HOST:PORT", "listening on http://HOST:PORT" (https with TLS) and
 * "metrics on http://HOST:PORT/metrics" to stdout, on a terminal a first request too, and serves until
 * SIGTERM or SIGINT. Then it drains: health NOT_SERVING, after drain_delay_ns no new requests, what is in
 * flight finishes within shutdown_timeout_ns; a second signal ends either wait. Requests that had to be cut
 * off are counted in the log. Files of certificates and keys are looked at once a second, and at SIGHUP. OK
 * after a stop by signal. Nobody uses the service any more when it returns. Once. */
err_t doors_run(struct doors *doors, struct service *service) ERR_MUST_CHECK;
void doors_close(struct doors *doors); /* NULL is fine */
