/* A small asynchronous gRPC client: many calls over one channel and one completion queue, driven by one
 * thread. It moves bytes; proto/codec_flatbuffers.h says what they mean, and clients/c/bantam_client.h is the
 * client made of both. Everything of a client belongs to the thread that polls it, but for
 * grpc_client_cancel and grpc_client_wake. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <grpc/status.h>
#include "base/error.h"

struct grpc_client;
struct client_call;

#define CLIENT_NO_TIMEOUT INT64_C(-1)

enum {
    CLIENT_METADATA_MAX = 24,         /* entries that a call sends besides gRPC's own */
    CLIENT_METADATA_BYTES_MAX = 8192, /* of one entry's key and value together */
};

/* What goes with a call. Key: lower case; values of keys that end in "-bin" are any bytes, others printable
 * ASCII. */
struct client_metadata {
    const char *key;
    const void *value;
    size_t value_bytes;
};
/* INVALID_ARGUMENT for what gRPC could not send, or keeps for itself. */
err_t client_metadata_check(const struct client_metadata *metadata) ERR_MUST_CHECK;

struct client_status {
    grpc_status_code code;
    const char *message;            /* NUL-terminated, valid during on_done */
    bool has_pushback;              /* the server sent grpc-retry-pushback-ms */
    int64_t pushback_ms;            /* negative: not to be tried again; so is what is no number */
    const struct client_call *call; /* for the two functions below */
};
/* During on_done. A trailer of the answer; false when there is none. The value lives until on_done returns.
 */
bool client_status_trailer(const struct client_status *status, const char *key, const uint8_t **value,
                           size_t *value_bytes);
/* Who answered, as "ipv4:127.0.0.1:50051"; the caller mem_free's it. NULL without memory. */
char *client_status_peer(const struct client_status *status);

/* Called from grpc_client_poll. */
struct client_handler {
    /* One message, valid during the call. False: read no more until grpc_client_resume (flow control then
     * holds the server back). */
    bool (*on_message)(void *context, const uint8_t *bytes, size_t size_bytes);
    /* The end, exactly once; the call is gone afterwards. */
    void (*on_done)(void *context, const struct client_status *status);
};

/* PEM texts, NUL-terminated, read during grpc_client_open. */
struct grpc_client_tls {
    const char *ca_pem;             /* who signs servers' certificates; NULL = the system's authorities */
    const char *cert_pem, *key_pem; /* what the client shows; both or none */
    const char *server_name; /* the name that the server's certificate must have; NULL = the target's */
};

/* What several clients share, so that one thread waits for the events of all of them. */
struct grpc_client_queue;
err_t grpc_client_queue_open(struct grpc_client_queue **out) ERR_MUST_CHECK;
void grpc_client_queue_close(struct grpc_client_queue *queue); /* after its clients; NULL is fine */
/* Runs one event's callbacks; false when there was none within timeout_ns (negative: waits as long as it
 * takes). */
bool grpc_client_queue_poll(struct grpc_client_queue *queue, int64_t timeout_ns);
/* Any thread: a poll that waits, or else the next one, returns true without a callback. */
void grpc_client_queue_wake(struct grpc_client_queue *queue);

struct grpc_client_options {
    struct grpc_client_queue *queue; /* NULL = its own. Polling and closing runs the callbacks of all */
    size_t max_message_bytes;        /* of an answer; 0 = 64 MiB */
    size_t window_bytes; /* the server may send so much of a stream before it is read; 0 = gRPC's choice */
    bool own_connection; /* do not share a TCP connection with other clients of this process */
    const struct grpc_client_tls *tls; /* NULL = clear text */
    const char *balancing;             /* gRPC's policy over the addresses of a name; NULL = "pick_first" */
    const char *user_agent;            /* before gRPC's own; NULL = nothing */
    int64_t keepalive_time_ms, keepalive_timeout_ms; /* 0 = 30 s, 20 s */
    int64_t connect_timeout_ms;                      /* of one attempt; 0 = gRPC's 20 s */
    int64_t reconnect_min_ms, reconnect_max_ms;      /* between attempts; 0 = gRPC's 1 s, 120 s */
};

/* target: "127.0.0.1:50051", or anything that gRPC resolves. Connects lazily: an unreachable server shows as
 * UNAVAILABLE at the first call. INVALID_ARGUMENT for a key pair that gRPC refuses. */
err_t grpc_client_open(const char *target, const struct grpc_client_options *options,
                       struct grpc_client **out) ERR_MUST_CHECK;
/* Cancels what is under way (their on_done is called) and frees everything. */
void grpc_client_close(struct grpc_client *client);

/* Sends one message to `path` and reads the answers. timeout_ns: CLIENT_NO_TIMEOUT or the call's deadline
 * from now. handler and context must live until on_done. */
err_t grpc_client_start(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, const struct client_handler *handler, void *context,
                        struct client_call **out) ERR_MUST_CHECK;
/* The same with metadata, each of which has passed client_metadata_check; copied. */
err_t grpc_client_start_with(struct grpc_client *client, const char *path, const uint8_t *bytes,
                             size_t size_bytes, int64_t timeout_ns, const struct client_metadata *metadata,
                             size_t n_metadata, const struct client_handler *handler, void *context,
                             struct client_call **out) ERR_MUST_CHECK;
/* Any thread, before on_done. */
void grpc_client_cancel(struct client_call *call);
void grpc_client_resume(struct client_call *call);

/* As those of its queue. */
bool grpc_client_poll(struct grpc_client *client, int64_t timeout_ns);
void grpc_client_wake(struct grpc_client *client);
uint32_t grpc_client_calls(const struct grpc_client *client); /* under way */

/* Waits for one answer to one message. *answer (mem_alloc'd, caller mem_free's) when status is OK. Other
 * calls of the client go on meanwhile. */
err_t grpc_client_unary(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, uint8_t **answer, size_t *answer_bytes) ERR_MUST_CHECK;
