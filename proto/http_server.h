/* The transport: an HTTP/1.1 server over libevent that knows messages and bytes, not what they mean.
 *
 * Loop threads own connections: each accepts, reads, writes and times its own. A connection has one request
 * under way, an exchange; what a client sends behind it waits, at most max_head_bytes of it. A request whose
 * body is large is handled on a worker thread, so that a long prompt delays nobody's tokens.
 *
 * An exchange is touched by one thread at a time: by `handle` (or work given away with
 * http_exchange_offload), else by its loop, which calls `pump` after each bump of options.progress,
 * after http_exchange_wake and whenever the client has taken what was sent, until the answer is complete.
 * `ended` is the last call for every exchange that was handled: the answer has left, or the client has gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/metrics.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/event_count.h"
#include "proto/http_parser.h"
#include "proto/identity.h"
#include "proto/loop_hooks.h"

struct http_server;
struct http_exchange;
struct tls_files; /* proto/tls_files.h */

enum {
    HTTP_THREADS_MAX = 16,
    HTTP_LISTEN_ADDRESSES_MAX = 8,     /* of one host name */
    HTTP_INLINE_BODY_BYTES = 16 << 10, /* larger bodies are handled on a worker */
    HTTP_REFUSALS_MAX = 64, /* connections past the limit that are told so at once (not under TLS), or a
                               quarter of the limit; more are cut */
    HTTP_BODY_FIRST_BYTES = 4 << 10, /* what a body is given before it has arrived */
};

struct http_server_options {
    const char *host; /* name or address, no port */
    uint16_t port;    /* 0 = any free one */
    int n_loop_threads, n_worker_threads;
    uint32_t max_connections;
    size_t max_head_bytes;    /* request line and headers */
    size_t max_body_bytes;    /* of a request */
    size_t max_pending_bytes; /* of all bodies that are held at once */
    size_t max_stream_bytes;  /* that wait for one client before its stream pauses */
    size_t max_output_bytes;  /* that wait for all clients; then whole answers are refused */
    int64_t head_timeout_ms;  /* from the first byte (or the connection's start) to the end of the head */
    int64_t body_timeout_ms;  /* from there to the end of the body */
    int64_t idle_timeout_ms;  /* between two requests */
    int64_t write_timeout_ms; /* without a byte taken by the client, or with more than HTTP_SLOW_BYTES left */
    int64_t max_connection_age_ms; /* give or take a tenth; the answer after it closes; 0 = no limit */
    struct metrics *metrics;       /* borrowed: where the HTTP door counts; NULL = nowhere */

    struct tls_files *tls;        /* borrowed; NULL = clear text */
    struct event_count *progress; /* borrowed: bumped when streams may have something new */
    void *context;                /* of the callbacks */
    /* When the head has come, before the body: whether the request may come in; if not, it was answered. NULL
     * = every one may. */
    bool (*admit)(void *context, struct http_exchange *exchange);
    void (*handle)(void *context, struct http_exchange *exchange);
    void (*pump)(void *context, struct http_exchange *exchange);
    void (*ended)(void *context, struct http_exchange *exchange);
    struct loop_hooks hooks;
    /* The JSON body of a refusal that the transport itself makes. */
    void (*describe_fault)(int status, const char *why, struct buffer *body);
};

/* Starts listening. IO (the address cannot be had; says why), INVALID_ARGUMENT, RESOURCE_EXHAUSTED. */
err_t http_server_open(const struct http_server_options *options, struct http_server **out) ERR_MUST_CHECK;
uint16_t http_server_port(const struct http_server *server);
/* From now on every answer that has not begun says Connection: close. Idempotent. */
void http_server_drain(struct http_server *server);
/* Pumps every exchange once more, gives clients up to grace_ns to take what was sent, then ends every
 * connection and thread and frees. Whatever `pump` leaves incomplete is cut off. */
void http_server_close(struct http_server *server, int64_t grace_ns);

/* --- the request: valid until `ended` */
const struct http_head *http_exchange_head(const struct http_exchange *exchange);
/* The body; http_exchange_drop_body frees it early. */
const char *http_exchange_body(const struct http_exchange *exchange, size_t *size_bytes);
void http_exchange_drop_body(struct http_exchange *exchange);
/* Who sends it, of the door's making: zero until set. */
struct caller *http_exchange_caller(struct http_exchange *exchange);
/* The names in the client's verified certificate; NULL = it has shown none. */
const struct peer_names *http_exchange_peer(const struct http_exchange *exchange);
void *http_exchange_user(const struct http_exchange *exchange);
void http_exchange_set_user(struct http_exchange *exchange, void *user);

/* --- the answer: by the thread that has the exchange */
/* Before the answer begins. name is static; the value is copied (control characters make it vanish). */
void http_exchange_header(struct http_exchange *exchange, const char *name, const char *value);
/* A whole answer, and the end of it. content_type is static; NULL = no body. */
void http_exchange_respond(struct http_exchange *exchange, int status, const char *content_type,
                           const void *body, size_t body_bytes);
/* A streamed answer: begin, send as often as there is something, end. */
void http_exchange_begin(struct http_exchange *exchange, int status, const char *content_type);
void http_exchange_send(struct http_exchange *exchange, const void *data, size_t size_bytes);
void http_exchange_end(struct http_exchange *exchange);
bool http_exchange_begun(const struct http_exchange *exchange);
bool http_exchange_complete(const struct http_exchange *exchange);
/* May a stream send more, or does enough wait for the client already? From pump. */
bool http_exchange_can_send(const struct http_exchange *exchange);
/* From pump: `work` runs on a worker, which then has the exchange; pump follows. */
void http_exchange_offload(struct http_exchange *exchange,
                           void (*work)(void *context, struct http_exchange *exchange));
/* Any thread, from `handle` to `ended`: pump follows on its loop, progress or not. */
void http_exchange_wake(struct http_exchange *exchange);
/* The connection is closed after this answer. */
void http_exchange_close_after(struct http_exchange *exchange);
