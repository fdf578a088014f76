/* What the transport's files share: grpc_server.c (sockets, threads, opening and closing), grpc_call.c (a
 * call and what it sends) and grpc_admission.c (from a call that has come to its handler). */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include "base/event_count.h"
#include "base/work_queue.h"
#include "proto/connection_watch.h"
#include "proto/grpc_server.h"
#include "proto/grpc_tls.h"
#include "proto/slow_sends.h"

struct accept_guard;

enum tag_kind { TAG_ACCEPTED, TAG_CLOSED, TAG_SENT, TAG_RECEIVED, TAG_SHUT_DOWN };

/* What gRPC hands back when a batch is done. */
struct rpc_tag {
    enum tag_kind kind;
    struct rpc_call *call; /* NULL for TAG_SHUT_DOWN */
};

struct rpc_call {
    struct rpc_server *server;
    int method; /* index, or -1 for what nobody registered */
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array request_metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *received;
    struct rpc_tag accepted_tag, closed_tag, sent_tag, received_tag;
    int close_cancelled; /* written by gRPC */
    struct caller caller;

    uint8_t *payload; /* owned */
    size_t payload_bytes;
    size_t reserved_bytes; /* this call's share of the server's pending_bytes */

    _Atomic int references;
    _Atomic bool ended;
    void *_Atomic user;
    bool refused, counted, has_begun, repost_when_freed;
    bool awaited, given_up; /* with the server's calls_mutex, as the links */
    TAILQ_ENTRY(rpc_call) awaited_link, call_link;
    _Atomic int64_t sending_since_ns; /* 0: nothing is on its way */
    bool receive_failed;              /* of the one who receives */
    bool headers_sent, finishing;     /* of the one sender */
    grpc_byte_buffer *sending;
    struct slow_send slow;
    grpc_metadata *trailers; /* [n_trailers] of RPC_TRAILERS_MAX, owned; NULL until the first */
    size_t n_trailers;
    struct work_item work;
};

struct rpc_server {
    struct rpc_server_options options;
    void *registered[RPC_METHODS_MAX];
    grpc_server *server;
    grpc_completion_queue *queue;
    struct grpc_tls_source tls;
    uint16_t port;
    struct connection_watch watch;
    struct accept_guard *guard;
    struct rpc_tag shutdown_tag;
    bool shutdown_begun, stopped;
    _Atomic bool is_shut_down;
    struct event_count shut_down;
    pthread_mutex_t calls_mutex;
    TAILQ_HEAD(, rpc_call) awaited; /* calls without their message, the oldest first */
    uint32_t n_awaited;
    TAILQ_HEAD(, rpc_call) calls; /* with it */
    int64_t looked_ns;            /* when somebody who takes nothing was last looked for */
    _Atomic size_t pending_bytes; /* of payloads */
    struct slow_sends slow_sends;
    _Atomic uint32_t n_tags;      /* that the queue still owes, or that are being looked at */
    _Atomic uint32_t n_calls;     /* that have their message and have not ended */
    _Atomic uint32_t n_refused;   /* before any handler ran, and not ended either */
    _Atomic uint32_t n_allocated; /* all, with those that wait to be accepted */

    pthread_t queue_threads[RPC_THREADS_MAX];
    int n_queue_threads;
    struct work_queue *workers; /* NULL = none */
};

/* grpc_server.c: posts a request for one more call; false without memory. */
bool rpc_server_post_call(struct rpc_server *server, int method);

/* grpc_call.c. NULL without memory. */
struct rpc_call *rpc_call_create(struct rpc_server *server, int method);
void rpc_call_start_batch(struct rpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag);

/* grpc_admission.c: on a queue thread. `ok` is false for a call that was only ever a wish. */
void rpc_call_accepted(struct rpc_call *call, bool ok);
void rpc_call_received(struct rpc_call *call);
/* Gives back the place of a call that took one. */
void rpc_call_leave(struct rpc_call *call);
