/* The gRPC door, in front of any service: the RPCs of proto/bantam.fbs, of proto/vllm_engine.proto and
 * proto/bantam_v1.proto, grpc.health.v1 and grpc.reflection. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/error.h"

struct grpc_door;
struct identity;
struct tls_files;

/* What gRPC core's threads, connections and buffers take in ordinary use, for the memory plan; at worst
 * max_pending_bytes and memory_quota_bytes more. */
enum { GRPC_DOOR_BYTES = 4 << 20 };

struct grpc_door_options {
    const char *host;          /* name or address to listen on */
    struct tls_files *tls;     /* borrowed; NULL = clear text */
    struct identity *identity; /* who may call; borrowed; NULL = everyone */
    uint16_t port;             /* 0 = any free one */
    const char *version;       /* of this program, for ServerInfo; static */
    int n_queue_threads;       /* that poll gRPC */
    int n_worker_threads;      /* that tokenise long prompts */
    size_t max_message_bytes;  /* of a request */
    size_t max_pending_bytes;  /* of all requests that were not submitted yet */
    size_t max_metadata_bytes; /* of a request's headers */
    uint32_t max_streams;      /* calls at once on one connection */
    uint32_t max_calls;        /* calls at once on all */
    size_t memory_quota_bytes; /* of gRPC's own buffers */
    int64_t keepalive_time_ms, keepalive_timeout_ms;
    int64_t handshake_timeout_ms; /* from a connection to HTTP/2's settings, TLS included */
    int64_t send_timeout_ms; /* for a client to take a message of more than a MiB; then the call is cut */
    int64_t max_connection_age_ms, max_connection_age_grace_ms; /* 0 = no limit; see grpc_server.h */
};

/* 127.0.0.1, port 50051, 2 queue threads (1 where there are two CPUs or fewer), 2 workers, 4 MiB messages,
 * 256 MiB of them at once, 16 KiB headers, 1,024 calls a connection, 4,096 in all, 1 GiB, keepalive after 30
 * s of silence with 20 s to answer, 10 s for a handshake, 60 s for a large answer. */
struct grpc_door_options grpc_door_options_default(void);

/* Opens the door: from here on it answers. service is borrowed and must outlive it. IO when the address
 * cannot be had. */
err_t grpc_door_open(struct service *service, const struct grpc_door_options *options,
                     struct grpc_door **out) ERR_MUST_CHECK;
uint16_t grpc_door_port(const struct grpc_door *door);

/* Health turns NOT_SERVING and watchers are told; calls are served as before. Idempotent. */
void grpc_door_not_ready(struct grpc_door *door);
/* The three of listen_drain.h, in this order. Every balancer takes a refused connection for a reason to try
 * the next server; the connections that exist are served as before. */
void grpc_door_hold_connections(struct grpc_door *door);
uint32_t grpc_door_pending_connections(const struct grpc_door *door);
void grpc_door_refuse_connections(struct grpc_door *door);
/* grpc_door_not_ready, then clients get GOAWAY and nothing more is accepted: core ends a call that
 * crosses the GOAWAY with CANCELLED. What was accepted goes on. `idle` (borrowed until grpc_door_close) is
 * bumped when no generation is left. Once. */
void grpc_door_drain(struct grpc_door *door, struct event_count *idle);
/* Generations under way. */
uint32_t grpc_door_active(const struct grpc_door *door);

/* Ends what is still under way (UNAVAILABLE), then frees everything. */
void grpc_door_close(struct grpc_door *door);
