/* The HTTP door: OpenAI's chat completions and completions, models, tokenize and detokenize, health, in front
 * of any service. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/error.h"
#include "proto/extra_routes.h"
#include "proto/loop_hooks.h"

struct http_door;
struct identity;
struct tls_files;

/* What its threads, connections and buffers take in ordinary use, for the memory plan; at worst
 * max_pending_bytes and max_output_bytes more. */
enum { HTTP_DOOR_BYTES = 4 << 20 };

struct http_door_options {
    const char *host;          /* name or address to listen on */
    struct tls_files *tls;     /* borrowed; NULL = clear text */
    struct identity *identity; /* who may come in; borrowed; NULL = everyone */
    uint16_t port;             /* 0 = any free one */
    const char *version;       /* of this program; static */
    int n_loop_threads;        /* that serve connections */
    int n_worker_threads;      /* that parse and tokenise long requests and write long answers */
    uint32_t max_connections;
    size_t max_message_bytes; /* of a request's body */
    size_t max_head_bytes;    /* of its request line and headers */
    size_t max_pending_bytes; /* of all bodies that were not submitted yet */
    size_t max_stream_bytes;  /* that wait for one client before its stream pauses */
    size_t max_output_bytes;  /* that wait for all clients; then whole answers are refused */
    int64_t head_timeout_ms, body_timeout_ms, idle_timeout_ms;
    int64_t write_timeout_ms;      /* without a byte taken by the client: then the connection is cut */
    int64_t max_connection_age_ms; /* the answer after it closes the connection; 0 = no limit */
    bool metrics;                  /* /metrics here too */
    struct extra_routes extra;     /* beside its own */
    struct loop_hooks hooks;       /* of its loops */
};

/* 127.0.0.1, port 8000, 2 loops, 2 workers, 1,024 connections, 4 MiB bodies, 16 KiB heads, 256 MiB of bodies
 * at once, 64 KiB a stream, 256 MiB of output; 10 s for a head, 60 s for a body, 75 s between requests, 60 s
 * for a client that reads nothing. */
struct http_door_options http_door_options_default(void);

/* Opens the door: from here on it answers. service is borrowed and must outlive it. IO when the address
 * cannot be had. */
err_t http_door_open(struct service *service, const struct http_door_options *options,
                     struct http_door **out) ERR_MUST_CHECK;
uint16_t http_door_port(const struct http_door *door);

/* /ready answers 503; requests are served as before. Idempotent. */
void http_door_not_ready(struct http_door *door);
/* /ready answers 503, new requests are refused with 503, and every answer closes its connection; what was
 * accepted goes on. `idle` (borrowed until http_door_close) is bumped
 * when no generation is left. Once. */
void http_door_drain(struct http_door *door, struct event_count *idle);
/* Generations under way, until the last byte of their answer has left. */
uint32_t http_door_active(const struct http_door *door);

/* Ends what is still under way (503, or an error in its stream), then frees everything. */
void http_door_close(struct http_door *door);
