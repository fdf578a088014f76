/* What the transport's files share: http_server.c (threads), http_places.c (who may stay), http_connection.c
 * (what a client sends) and http_exchange.c (what it is answered). */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include "base/log_repeat.h"
#include "base/work_queue.h"
#include "proto/flusher.h"
#include "proto/http_server.h"

enum {
    HTTP_LINGER_MS = 2000,           /* a refused client may go on sending for so long and still hear why */
    HTTP_ACCEPT_PAUSE_MS = 100,      /* when the process has no file descriptor left */
    HTTP_HEADER_LINES_MAX = 8 << 10, /* bytes of an answer's own headers */
    HTTP_READ_BYTES = 64 << 10,      /* of one system call, as of one write */
    HTTP_HANDED_PAUSE_MS = 1,        /* when too many of the following wait */
    HTTP_HANDED_MAX = 256,           /* connections that wait for another loop to give them a place */
    HTTP_ACCEPTS_MAX = 64,     /* in a turn of a loop, or a quarter of the limit: the heads of those that have
                                  come     are read before more come, or they would give way unheard */
    HTTP_SLOW_BYTES = 1 << 20, /* what a client may leave lying for as long as it takes a byte now and then */
};

enum exchange_state {
    EXCHANGE_HEAD,   /* the next request's head is awaited */
    EXCHANGE_BODY,   /* and its body */
    EXCHANGE_WORKER, /* a worker has the exchange */
    EXCHANGE_OPEN,   /* handled, the answer is not complete */
    EXCHANGE_FLUSH,  /* the answer is complete and on its way */
    EXCHANGE_LINGER, /* everything was said; what still comes is dropped */
};

/* What a connection without a request under way waits for; in this order they give way. */
enum http_wait {
    HTTP_WAIT_HEAD,    /* its first head, or the rest of one that has begun */
    HTTP_WAIT_REQUEST, /* the next one: all before were answered */
    HTTP_WAITS,
    HTTP_WAIT_NONE = HTTP_WAITS, /* a request is under way, or the end */
};

/* A connection, and the request that it has under way. */
struct http_exchange {
    struct http_server *server;
    struct http_loop *loop;
    struct bufferevent *stream; /* NULL: the client has gone, and a worker still has the exchange */
    struct event *timer;
    struct http_peer *peer; /* owned; NULL = no certificate */
    enum exchange_state state;
    int64_t old_at_ns;                   /* from then on an answer closes the connection; INT64_MAX = never */
    LIST_ENTRY(http_exchange) all_link;  /* of the loop's connections */
    LIST_ENTRY(http_exchange) open_link; /* of those in EXCHANGE_OPEN */
    enum http_wait wait;
    int64_t wait_since_ns;
    TAILQ_ENTRY(http_exchange) wait_link; /* of the loop's waiting[wait] */
    size_t output_counted;                /* this connection's share of the server's output_bytes */

    /* The request. */
    bool receiving;   /* its first byte has come */
    size_t head_seen; /* bytes in which no end of the head was found */
    char *head_bytes; /* owned: what head points into */
    struct http_head head;
    struct caller caller;
    struct http_chunks chunks;
    struct buffer body;
    size_t reserved_bytes; /* this request's share of the server's pending_bytes */

    /* The answer. */
    struct evbuffer *out;  /* what was not handed to the stream yet */
    struct buffer headers; /* lines besides the transport's own */
    bool handled;          /* `handle` was called, `ended` is owed */
    bool begun, complete, failed, is_chunked, close_after;
    void *user;
    struct work_item work_item;
    void (*work)(void *context, struct http_exchange *exchange); /* to be done, or being done */
    struct http_exchange *next_returned;

    TAILQ_ENTRY(http_exchange) woken_link; /* under the loop's mutex, of its woken */
    bool is_woken;                         /* likewise */
};

LIST_HEAD(exchange_list, http_exchange);
TAILQ_HEAD(exchange_queue, http_exchange);

struct http_waiting {
    struct exchange_queue queue; /* the one that has waited longest is the first; the loop's own */
    _Atomic int64_t oldest_ns;   /* since when that one waits; INT64_MAX = none. For other loops */
};

struct http_loop {
    struct flush_item wake_item; /* first: the flusher bumps it at each progress */
    struct http_server *server;
    pthread_t thread;
    bool thread_started;
    struct event_base *base;
    int wake_fd; /* an eventfd: wakes the loop */
    struct event *wake_event, *woken_event, *resume_event, *grace_event;
    struct log_repeat full, failed, evicted; /* connections that were refused, not to be had, or gave way */
    struct evconnlistener *listeners[HTTP_LISTEN_ADDRESSES_MAX];
    struct exchange_list all, open;
    struct http_waiting waiting[HTTP_WAITS];
    uint32_t n_accepted; /* in this turn */
    _Atomic uint32_t n_open;
    _Atomic bool has_progress; /* all that are open are to be pumped */
    pthread_mutex_t mutex;     /* of the following */
    struct http_exchange *returned;
    struct exchange_queue woken;
    uint32_t n_woken;
    int handed[HTTP_HANDED_MAX]; /* descriptors of connections, counted already */
    uint32_t n_handed;
    bool handed_closed; /* nothing is handed to this loop any more */
    bool stop_begun, grace_over;
    _Atomic bool ended;
};

struct http_server {
    struct http_server_options options;
    uint16_t port;
    int listen_fds[HTTP_LISTEN_ADDRESSES_MAX];
    size_t n_listen_fds;
    struct http_loop loops[HTTP_THREADS_MAX];
    int n_loops;
    struct work_queue *workers;
    struct flusher *flusher;
    _Atomic uint32_t n_connections;
    _Atomic uint32_t n_handed; /* of all loops */
    _Atomic size_t pending_bytes, output_bytes;
    _Atomic bool draining, stopping;
    _Atomic int64_t grace_ms;
    _Atomic uint32_t n_stopping; /* loops that have heard of it */
    struct event_count stop_heard;
};

/* http_server.c */
/* One connection more or less. Returns how many there were before. */
uint32_t http_server_count_connection(struct http_server *server);
void http_server_forget_connection(struct http_server *server);
void http_loop_wake(struct http_loop *loop);
/* On the loop's thread: nobody pumps it for what came before. */
void http_loop_forget_woken(struct http_exchange *exchange);
/* When stopping: leaves the loop after the last connection. */
void http_loop_check_end(struct http_loop *loop);

/* http_places.c: on the loop's thread. */
void http_places_init(struct http_loop *loop);
/* What the connection waits for from now on. */
void http_place_wait(struct http_exchange *exchange, enum http_wait wait);
/* A connection that is counted and has no place: one that waits gives way, maybe on another loop, or this one
 * is refused. Takes over the descriptor. */
void http_place_find(struct http_loop *loop, int fd);
/* Too many wait for another loop: more are left in the listener's queue. */
bool http_places_must_wait(struct http_server *server);
/* Those that other loops have handed to this one; last: no more will be. */
void http_places_take_handed(struct http_loop *loop, bool last);

/* http_connection.c: on the loop's thread. */
void http_connection_open(struct http_loop *loop, int fd, bool refused);
/* The exchange may be gone afterwards, as after each of the following. */
void http_connection_pump(struct http_exchange *exchange);
void http_connection_returned(struct http_exchange *exchange); /* from a worker */
void http_connection_close(struct http_exchange *exchange);
/* The server stops: connections without a request end, the others are pumped and then cut. */
void http_connection_stop(struct http_exchange *exchange);

/* http_tls.c */
struct http_peer;
/* NULL without memory. */
struct bufferevent *http_tls_accept(struct http_server *server, struct event_base *base, int fd);
/* After the handshake: what the client has shown, or NULL. */
struct http_peer *http_tls_peer(struct bufferevent *stream);
void http_peer_free(struct http_peer *peer);
const struct peer_names *http_peer_names(const struct http_peer *peer); /* NULL of NULL */
/* Says that nothing more is sent; nothing happens in clear text. */
void http_tls_say_end(struct bufferevent *stream);
void http_tls_log_failure(struct bufferevent *stream);

/* http_exchange.c */
void http_exchange_respond_fault(struct http_exchange *exchange, int status, const char *why);
