/* The transport: a gRPC server over core's C surface that knows paths and bytes, not what they mean.
 *
 * Queue threads poll one completion queue. A call is handed to its method's handler with its (only) request
 * message: on the queue thread, or, when the message is large and handling takes time in proportion to it, on
 * a worker thread, so that a long prompt delays nobody's tokens.
 *
 * A call lives until it has ended and every reference is gone. Batches that send are started by one thread at
 * a time: the handler's first, then whoever the owner of the call appoints (at most one send is under way at
 * any time). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <grpc/status.h>
#include "api/metrics.h"
#include "base/error.h"
#include "proto/identity.h"

struct rpc_server;
struct rpc_call;
struct tls_files; /* proto/tls_files.h */

/* Whom a method answers when the server asks who comes in. */
enum rpc_access {
    RPC_FOR_CALLERS, /* who is known */
    RPC_FOR_EVERYONE,
    RPC_FOR_ADMINS,
};

enum {
    RPC_METHODS_MAX = 48,
    RPC_POSTED_CALLS = 64, /* accepted at once per method; more wait inside gRPC for the next free one */
    RPC_POSTED_UNKNOWN_CALLS = 8,     /* calls of unknown methods */
    RPC_INLINE_PAYLOAD_BYTES = 16384, /* larger messages of `heavy` methods go to a worker */
    RPC_PAYLOAD_ALIGN = 16,           /* bytes */
    RPC_THREADS_MAX = 16,
    RPC_TRAILERS_MAX = 24,          /* of one call, the pushback included */
    RPC_READ_BYTES = 8 << 10,       /* of a connection at once, when it is not amid a large message */
    RPC_HEADER_OVERHEAD_BYTES = 32, /* of a header besides its text, as HTTP/2 counts them */
    RPC_STALLED_LOOK_MS = 100,      /* when full, who takes nothing is looked for so often */
    RPC_STALLED_CUT = 64,           /* and so many are cut at once */
    RPC_REFUSED_MAX = 1024,         /* refused calls whose clients have not read so; more are cut */
};
#define RPC_NO_PUSHBACK INT64_MIN
#define RPC_NO_DEADLINE INT64_MAX

struct rpc_method {
    const char *path; /* "/bantam.Bantam/Generate" */
    bool heavy;
    /* Must finish the call or see to it that it will be. `call` is valid until return; rpc_call_ref for
     * longer. */
    void (*handle)(void *context, struct rpc_call *call);
    enum rpc_access access;
    const void *data; /* the handler's, by rpc_call_method_data */
    bool slow;        /* handling takes long whatever the message says: always on a worker */
    bool streams_in;  /* the client may send more messages: rpc_call_receive */
};

struct rpc_server_options {
    const char *host;          /* name or address, no port */
    uint16_t port;             /* 0 = any free one */
    struct tls_files *tls;     /* borrowed; NULL = clear text */
    struct identity *identity; /* who may call; borrowed; NULL = everyone */
    int n_queue_threads, n_worker_threads;
    size_t max_message_bytes;  /* of a request */
    size_t max_pending_bytes;  /* of all request messages that are held at once */
    size_t max_metadata_bytes; /* of a request's headers */
    uint32_t max_connections;
    uint32_t max_streams; /* per connection */
    uint32_t max_calls;   /* of all connections; beyond it RESOURCE_EXHAUSTED. As many again may be without
                             their message */
    /* When max_calls are under way those are cut whose client has taken nothing for so long; 0 = none. */
    int64_t stall_timeout_ms;
    size_t memory_quota_bytes; /* of gRPC's own buffers */
    int64_t keepalive_time_ms,
        keepalive_timeout_ms;            /* a silent peer is pinged after time and dropped after timeout */
    int64_t max_connection_age_ms;       /* then GOAWAY, so that balancers spread anew; 0 = no limit */
    int64_t max_connection_age_grace_ms; /* calls under way are cut after so much more; 0 = never */
    struct metrics *metrics;             /* borrowed: what is sent and answered is counted */
    int64_t handshake_timeout_ms;        /* from a connection to HTTP/2's settings, TLS included */

    const struct rpc_method *methods; /* [n_methods], static */
    size_t n_methods;
    void *context; /* of handlers and of the callbacks below */
    /* On a queue thread, for calls with a user pointer. on_sent: what rpc_call_send began is done, the next
     * may begin. on_ended: cancelled, disconnected, past its deadline, or finished: nothing can be sent any
     * more. on_free: the user pointer's last use. */
    void (*on_sent)(void *context, struct rpc_call *call);
    void (*on_ended)(void *context, struct rpc_call *call);
    void (*on_free)(void *context, void *user);
    /* Just before a call's last word, by whoever says it: may add trailers. */
    void (*before_finish)(void *context, struct rpc_call *call, grpc_status_code status);
    /* What rpc_call_receive asked for is there. NULL when no method streams in. */
    void (*on_received)(void *context, struct rpc_call *call);
};

/* Starts listening. Errors: IO (the address cannot be had; says why), INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
 */
err_t rpc_server_open(const struct rpc_server_options *options, struct rpc_server **out) ERR_MUST_CHECK;
uint16_t rpc_server_port(const struct rpc_server *server);

/* Stops accepting (GOAWAY); calls under way go on. Idempotent. */
void rpc_server_shutdown(struct rpc_server *server);
/* After shutdown: true when every call has ended, false after timeout_ns. */
bool rpc_server_wait(struct rpc_server *server, int64_t timeout_ns);
/* After shutdown: cancels what is still under way. */
void rpc_server_cancel_calls(struct rpc_server *server);
/* Ends every call and every thread. Afterwards nothing is called back any more. Idempotent. */
void rpc_server_stop(struct rpc_server *server);
/* After rpc_server_stop: frees. Every reference to a call must have been given back. */
void rpc_server_close(struct rpc_server *server);

/* The request's message, RPC_PAYLOAD_ALIGN aligned, valid as long as the call, or until dropped. */
const uint8_t *rpc_call_payload(const struct rpc_call *call, size_t *size_bytes);
void rpc_call_drop_payload(struct rpc_call *call);
const void *rpc_call_method_data(const struct rpc_call *call);
/* Of a method that streams in: drops the payload and asks for the next one; on_received follows, always. One
 * at a time, also while a send is under way. The payload is then NULL with 0 bytes when the client has said
 * its last, when the call has ended, or when rpc_call_receive_failed: there was no room for the message. A
 * first message may be missing in the same way. */
void rpc_call_receive(struct rpc_call *call);
bool rpc_call_receive_failed(const struct rpc_call *call);
/* Time left until the client's deadline; RPC_NO_DEADLINE. */
int64_t rpc_call_remaining_ns(const struct rpc_call *call);
bool rpc_call_ended(const struct rpc_call *call);
/* The method's path; "" for what nobody registered. */
const char *rpc_call_path(const struct rpc_call *call);
/* The request's header `key` (lower case) as text; false when there is none or it does not fit. */
bool rpc_call_header(const struct rpc_call *call, const char *key, char *out, size_t out_bytes);

/* The request's i-th header as bytes of the call's; false when there are no more. */
struct rpc_header {
    const char *key, *value; /* key_bytes, value_bytes; not NUL-terminated */
    size_t key_bytes, value_bytes;
};
bool rpc_call_header_at(const struct rpc_call *call, size_t i, struct rpc_header *out);

/* Who calls; zero without identity, and where everyone may. */
const struct caller *rpc_call_caller(const struct rpc_call *call);

void rpc_call_set_user(struct rpc_call *call, void *user); /* once */
void *rpc_call_user(const struct rpc_call *call);
void rpc_call_ref(struct rpc_call *call);
void rpc_call_unref(struct rpc_call *call);

/* Ends calls whose message of more than SLOW_SEND_BYTES (slow_sends.h) has been on its way for longer, with
 * CANCELLED; returns how many. Any thread. */
uint32_t rpc_server_cut_slow(struct rpc_server *server, int64_t timeout_ns);

/* Sent with the status. By whoever finishes the call, or from before_finish. key: static; the value is
 * copied. Unless the key ends in "-bin" a value that is not printable ASCII vanishes with its key, and so
 * does any value without memory. At most RPC_TRAILERS_MAX - 1 of a call. */
void rpc_call_add_trailer(struct rpc_call *call, const char *key, const void *value, size_t value_bytes);

/* One message of a stream; on_sent follows, always. No other send may be under way. Copies the bytes. */
void rpc_call_send(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes);
/* The last word: optional last message (bytes != NULL) and status, in one batch. No send may be under way;
 * nothing may follow. pushback_ms: grpc-retry-pushback-ms, or RPC_NO_PUSHBACK. */
void rpc_call_finish(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes, grpc_status_code status,
                     const char *message, int64_t pushback_ms);
/* rpc_call_finish without message for an error. */
void rpc_call_refuse(struct rpc_call *call, const err_t *error, int64_t pushback_ms);
