/* The one way out: HTTP calls to providers (libcurl's multi interface over libevent). Connections are used
 * again, HTTP/2 where the provider speaks it, certificates checked, no redirects followed, so that a key goes
 * nowhere but to the address that it was meant for.
 *
 * Calls run on lanes. A thread that runs an event loop may join, and then has those calls in clear text that
 * it starts itself, on connections of its own: a request that comes in on it goes out and comes back without
 * another thread. All others are the egress's own thread's, those over TLS so that they share handshakes and
 * streams of HTTP/2. A call is named by a number, and its handler hears of it on its lane alone: any number
 * of head and bytes, then one end, after which the number means nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct egress;
struct event_base;

enum { EGRESS_NAME_BYTES_MAX = 127 };

struct egress_options {
    uint32_t max_calls;                /* at once; more are refused at once */
    uint32_t max_connections_per_host; /* of a lane; calls wait for one; HTTP/2 carries many on each */
    const char *ca_file;               /* certificates to trust, PEM; NULL = the system's */
    const char *user_agent;            /* static */
};
/* 16,384 calls, and as many connections to a host: each stream over HTTP/1.1 has one of its own. */
struct egress_options egress_options_default(void);

err_t egress_open(const struct egress_options *options, struct egress **out) ERR_MUST_CHECK;
/* Every call still under way ends with CANCELLED before it returns; threads that joined have left. NULL is
 * fine. */
void egress_close(struct egress *egress);

/* On the thread of that loop, which is nobody else's: calls that it starts from now on are its own, until it
 * leaves. Calls under way end with CANCELLED there. False: no memory or descriptors, and its calls are those
 * of the egress's thread as before. */
bool egress_join(struct egress *egress, struct event_base *base);
void egress_leave(struct egress *egress); /* nothing where it has not joined */

/* A limit of which a provider tells what is left. */
struct egress_rate {
    int64_t remaining; /* -1 = not told */
    int64_t reset_ms;  /* until it is new again; -1 = not told */
};
enum egress_rate_kind {
    EGRESS_REQUESTS,
    EGRESS_TOKENS,
    EGRESS_INPUT_TOKENS,
    EGRESS_OUTPUT_TOKENS,
    EGRESS_RATES,
};
extern const char *const EGRESS_RATE_NAMES[EGRESS_RATES]; /* "requests", "tokens", ... */

/* What the head of an answer says to the router; Unix time is asked of the system. */
struct egress_head {
    int status;             /* of HTTP */
    int64_t retry_after_ms; /* 0 = not told */
    bool is_event_stream;   /* Content-Type: text/event-stream */
    bool should_not_retry;  /* X-Should-Retry: false */
    /* A router's X-Bantam-Provider and X-Bantam-Answered-By, cut where they are longer; "" = it is none. */
    char answered_provider[EGRESS_NAME_BYTES_MAX + 1], answered_by[EGRESS_NAME_BYTES_MAX + 1];
    struct egress_rate rates[EGRESS_RATES];
};

/* When, on the monotonic clock in ns; 0 = it did not come to that. */
struct egress_times {
    int64_t started_ns, first_byte_ns, ended_ns;
    bool reused_connection;
    bool was_sent; /* some of the request went out: it may be billed, whatever comes back */
};

struct egress_handler {
    /* Once, before the first bytes. An error ends the call with it. */
    err_t (*head)(void *context, const struct egress_head *head);
    /* More of the body. An error ends the call with it. *pause: these bytes are taken, and no more until
     * egress_resume: the provider is held back. */
    err_t (*bytes)(void *context, const char *bytes, size_t size, bool *pause);
    /* The last call, exactly once. OK: the body came to its end. UNAVAILABLE: no connection, or it broke;
     * DEADLINE_EXCEEDED: one of the times below; CANCELLED; or what head or bytes gave. */
    void (*end)(void *context, err_t error, const struct egress_times *times);
};

/* Everything is copied but the handler, which must live until its end. 0 = without limit. */
struct egress_call {
    const char *url;            /* http: or https: */
    const char *ca_file;        /* certificates to trust, PEM; NULL = those of the options */
    const char *const *headers; /* [n_headers], "name: value"; Content-Type is JSON without saying */
    size_t n_headers;
    const char *body; /* POST */
    size_t body_bytes;
    int64_t connect_timeout_ms;    /* TLS included */
    int64_t first_byte_timeout_ms; /* from the start to the body's first byte */
    int64_t chunk_timeout_ms;      /* between bytes of the body, comments of a stream included */
    int64_t total_timeout_ms;
};

/* Any thread. INVALID_ARGUMENT: the URL or a header cannot be sent. RESOURCE_EXHAUSTED: max_calls, or memory;
 * then no handler hears of it. */
err_t egress_start(struct egress *egress, const struct egress_call *call,
                   const struct egress_handler *handler, void *context, uint64_t *number) ERR_MUST_CHECK;
/* Any thread, any time: a number of a call that has ended is nothing. */
void egress_cancel(struct egress *egress, uint64_t number);
void egress_resume(struct egress *egress, uint64_t number);
/* Calls that have not ended. */
uint32_t egress_active(struct egress *egress);
