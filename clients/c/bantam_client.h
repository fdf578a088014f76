/* The C client of bantam.Bantam (proto/bantam.fbs over gRPC): thousands of streams on one thread, deadlines,
 * retries before the first message, and a server's loads kept up to date. Requests and events are those of
 * api/. docs/clients.md shows it at work.
 *
 * Threads. A client is driven by one thread at a time: whoever calls bantam_client_poll, _ask, _wait and
 * _close. All callbacks run there, from within these calls, one at a time; they may call everything that any
 * thread may. Any thread may start calls, cancel, resume and release them, wake the driver, and read what a
 * watch has; nothing of that blocks for longer than a short lock. Block the signals that some thread waits
 * for before the first client is opened (gRPC makes threads), and never fork after it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "api/service.h"
#include "base/clock.h"
#include "base/error.h"
#include "proto/orca_report.h"

struct bantam_client;
struct bantam_group; /* clients with one driver */
struct bantam_call;  /* a request under way */
struct bantam_watch; /* a server's loads, subscribed to */

#define BANTAM_NO_TIMEOUT INT64_C(-1)

enum {
    BANTAM_HEADERS_MAX = 8,                /* of a client, and as many of a call */
    BANTAM_PEM_BYTES_MAX = 1 << 20,        /* of each file */
    BANTAM_KEY_FILE_BYTES_MAX = 4096,      /* of the file of a key */
    BANTAM_CALLS_MAX_DEFAULT = 16384,      /* under way at once */
    BANTAM_FINGERPRINT_BYTES_MAX = 64,     /* of an outcome's; longer ones are cut */
    BANTAM_ATTEMPTS_MAX = 100,             /* of a call */
    BANTAM_ABORT_IDS_MAX = 1024,           /* of one BANTAM_ABORT */
    BANTAM_HEALTH_SERVICE_BYTES_MAX = 127, /* of a name that BANTAM_HEALTH asks for */
};

/* gRPC metadata of requests: a lower-case key; the value is printable ASCII, or any bytes when the key ends
 * in "-bin". Keys that begin with "grpc-" are gRPC's own. */
struct bantam_header {
    const char *key;
    const void *value;
    size_t value_bytes;
};

/* Over the addresses that a target's name has. */
enum bantam_balancing { BANTAM_PICK_FIRST, BANTAM_ROUND_ROBIN };

/* When a call is tried again: while no message of its answer has come, it was refused as UNAVAILABLE, or as
 * RESOURCE_EXHAUSTED with a pushback, or gRPC cut it with CANCELLED though nobody asked (it crossed a
 * GOAWAY), and its deadline leaves the time. The server's pushback decides when, up to a fifth later; a
 * negative one forbids it. Without one the wait is drawn from [1/2, 1] of backoff, which doubles from try to
 * try. The budget is gRPC's (gRFC A6, "retry throttling"): a refusal costs a token, an answer gives
 * `budget_ratio` of one back, and with half the tokens gone nothing is tried again. */
struct bantam_retry_options {
    uint32_t max_attempts; /* of a call, the first included; 1 = no retries */
    int64_t backoff_ns, backoff_max_ns;
    double budget, budget_ratio; /* tokens; budget 0 = no budget */
};

/* Plain data, copied by bantam_client_open. bantam_client_options_default() and what differs. */
struct bantam_client_options {
    struct bantam_group *group; /* which the client is driven with; NULL = alone */
    const char *target; /* "127.0.0.1:50051", "dns:///models.example:50051", "ipv4:10.0.0.1:1,10.0.0.2:1" */
    enum bantam_balancing balancing;

    bool tls;                         /* also switched on by each of the four below */
    const char *ca_file;              /* PEM: who signs servers' certificates; NULL = the system's */
    const char *cert_file, *key_file; /* PEM: what this client shows; both or none */
    const char *server_name; /* the name that the server's certificate must have; NULL = the target's */

    const char *api_key;      /* sent as "authorization: Bearer KEY"; NULL = none. In clear without TLS */
    const char *api_key_file; /* the same, the first line of a file */
    const struct bantam_header *headers; /* [n_headers] with every call, e.g. x-bantam-tenant for a proxy */
    size_t n_headers;

    size_t max_message_bytes; /* of an answer; 0 = 64 MiB */
    size_t window_bytes; /* the server may send so much of a stream before it is read; 0 = gRPC's choice */
    uint32_t max_calls;  /* under way at once; beyond it start answers RESOURCE_EXHAUSTED */
    bool own_connection; /* do not share a TCP connection with other clients of this process */
    int64_t connect_timeout_ms;                      /* of one attempt */
    int64_t reconnect_min_ms, reconnect_max_ms;      /* from one attempt to the next, growing */
    int64_t keepalive_time_ms, keepalive_timeout_ms; /* a silent server is pinged, then dropped */

    struct bantam_retry_options retry;
    const struct clock *clock; /* of deadlines and retries; NULL = clock_monotonic() */
    uint64_t seed;             /* of the waits' randomness; 0 = from the system */
};
struct bantam_client_options bantam_client_options_default(void);

/* Connects lazily: an unreachable server shows as UNAVAILABLE at the first call. INVALID_ARGUMENT, NOT_FOUND
 * and IO say which option or file is wrong. */
err_t bantam_client_open(const struct bantam_client_options *options,
                         struct bantam_client **out) ERR_MUST_CHECK;
/* Cancels what is under way (each on_done is called), ends the watches and frees. No other thread may be in a
 * function of the client; calls and watches that are not released yet still must be. NULL is fine. */
void bantam_client_close(struct bantam_client *client);

/* Clients that one thread drives together, each to its own target. Polling any of them polls the group; so
 * does closing one, whose caller hears callbacks of the others meanwhile. Clients are opened and closed by
 * the driver, and not from a callback. */
err_t bantam_group_open(struct bantam_group **out) ERR_MUST_CHECK;
void bantam_group_close(struct bantam_group *group); /* after its clients; NULL is fine */
/* As bantam_client_poll and bantam_client_wake. */
bool bantam_group_poll(struct bantam_group *group, int64_t timeout_ns);
void bantam_group_wake(struct bantam_group *group);

/* ---- Calls */

enum bantam_method {
    BANTAM_GENERATE, /* a stream: on_event */
    BANTAM_GENERATE_WHOLE,
    BANTAM_TOKENIZE,
    BANTAM_DETOKENIZE,
    BANTAM_ABORT,
    BANTAM_MODEL_INFO,
    BANTAM_SERVER_INFO,
    BANTAM_LOADS, /* once; bantam_client_watch keeps them up */
    BANTAM_HEALTH,
};

/* What is asked. Borrowed until start returns. */
struct bantam_query {
    enum bantam_method method;
    /* GENERATE, GENERATE_WHOLE, TOKENIZE. Its tenant, cache_salt and deadline_ns are not on the wire; a salt
     * is a header (docs/wire.md). Its model and a priority that is not 0 are also sent as the headers
     * x-bantam-model and x-bantam-priority, unless the caller has given these. */
    const struct request *request;
    /* GENERATE, GENERATE_WHOLE: the body of an OpenAI chat completion (openai_json_bytes), in the place of
     * the request's prompt and sampling; for what those have no fields for. NULL = none */
    const char *openai_json;
    size_t openai_json_bytes;
    bool return_prompt_token_ids;
    const uint32_t *token_ids; /* DETOKENIZE: [n_token_ids] */
    size_t n_token_ids;
    bool keep_special_tokens;       /* DETOKENIZE */
    const char *const *request_ids; /* ABORT: [n_request_ids] */
    size_t n_request_ids;
    const char *health_service; /* HEALTH: NULL = the server as a whole */
};

struct bantam_call_options {
    int64_t timeout_ns; /* from start, all attempts together; BANTAM_NO_TIMEOUT */
    bool no_retries;
    const struct bantam_header *headers; /* [n_headers] besides the client's */
    size_t n_headers;
};

/* The one message of every method but GENERATE. */
struct bantam_answer {
    enum bantam_method method;
    union {
        struct {
            const struct event *events; /* [n_events] EVENT_FINISHED, one a choice, with all of its output */
            size_t n_events;
            const char *request_id, *model, *fingerprint;
        } whole;
        struct {
            const uint32_t *ids; /* [n_ids] */
            size_t n_ids;
        } tokens;
        struct {
            const char *text; /* text_bytes of UTF-8 */
            size_t text_bytes;
        } text;
        struct {
            const bool *aborted; /* [n_aborted] one a request id: whether there was such a request */
            size_t n_aborted;
        } abort;
        struct model_info model_info; /* without model_path and sampling_defaults */
        struct {
            const char *version, *grpc_version;
            double uptime_seconds;
            uint32_t active_requests;
            uint64_t max_message_bytes; /* of a request */
            bool draining;
        } server_info;
        struct loads loads;
        bool serving;
    };
};

/* How a call ended. Pointers live until on_done returns. */
struct bantam_outcome {
    err_t error;     /* ERR_OK; else the server's words, and retry_after_ms from its pushback */
    int grpc_status; /* of the last attempt, 0..16 */
    uint32_t attempts;
    const char *request_id, *model, *fingerprint; /* of what answered; "" = not known */
    const char *peer;                             /* "ipv4:10.0.0.1:50051"; "" when nobody answered */
    bool has_load;
    struct orca_report load;    /* the server's at its last word */
    const void *trailer_source; /* bantam_outcome_trailer */
};
/* Any other trailer of the answer; false when there is none. */
bool bantam_outcome_trailer(const struct bantam_outcome *outcome, const char *key, const uint8_t **value,
                            size_t *value_bytes);

struct bantam_handler {
    /* GENERATE: an event, valid during the call; its `last` is always false, on_done tells. False: read no
     * more until bantam_call_resume; the server then pauses this request alone. NULL: events are dropped. */
    bool (*on_event)(void *context, const struct event *event);
    /* The others' answer, valid during the call. May be NULL. */
    void (*on_answer)(void *context, const struct bantam_answer *answer);
    /* Exactly once, after everything else. */
    void (*on_done)(void *context, const struct bantam_outcome *outcome);
};

/* Any thread. The call begins when the client is polled next. *handler is copied; context must live until
 * on_done. out: NULL, or a reference that the caller releases. options: NULL = no timeout, no headers.
 * INVALID_ARGUMENT (headers, names that cannot be sent), RESOURCE_EXHAUSTED (max_calls, memory), UNAVAILABLE
 * (closing); no callback then. */
err_t bantam_client_start(struct bantam_client *client, const struct bantam_query *query,
                          const struct bantam_call_options *options, const struct bantam_handler *handler,
                          void *context, struct bantam_call **out) ERR_MUST_CHECK;
/* Any thread, in every state, any number of times: no event follows that the driver is not handling already,
 * and on_done says CANCELLED unless the call had ended. */
void bantam_call_cancel(struct bantam_call *call);
/* Any thread: after on_event has returned false. One that is called while on_event runs counts as after it.
 */
void bantam_call_resume(struct bantam_call *call);
/* Any thread: the caller's last use of the call, which goes on by itself. NULL is fine. */
void bantam_call_release(struct bantam_call *call);

/* The driver. Runs what is due: callbacks, retries; waits for it up to timeout_ns (0: not at all, negative:
 * as long as it takes). False when there was nothing. */
bool bantam_client_poll(struct bantam_client *client, int64_t timeout_ns);
/* Any thread: a poll that waits returns. */
void bantam_client_wake(struct bantam_client *client);
/* The driver, not from a callback: polls until that call, whose reference the caller holds, is done. */
void bantam_client_wait(struct bantam_client *client, const struct bantam_call *call);

/* The driver, not from a callback: one answer, waited for while other calls go on. GENERATE is not one. */
struct bantam_reply {
    struct bantam_answer answer; /* lives as long as the reply */
};
err_t bantam_client_ask(struct bantam_client *client, const struct bantam_query *query,
                        const struct bantam_call_options *options, struct bantam_reply **out) ERR_MUST_CHECK;
void bantam_reply_free(struct bantam_reply *reply); /* NULL is fine */

/* Since the client was opened. The driver. */
struct bantam_client_stats {
    uint32_t calls;   /* under way, watches included */
    uint32_t waiting; /* of these: for their next attempt */
    uint64_t attempts, retries;
    uint64_t budget_refusals; /* retries that the budget forbade */
};
struct bantam_client_stats bantam_client_stats(const struct bantam_client *client);

/* ---- Subscribed loads. The server asks for an admin's key when it asks for keys at all. */

struct bantam_loads_view {
    struct loads loads;    /* zeros while n_messages is 0 */
    int64_t age_ns;        /* since it was received; -1 = never */
    bool connected;        /* false: the stream is being made anew */
    uint64_t n_messages;   /* since the watch began */
    uint64_t n_failures;   /* ends of the stream, refused attempts included */
    enum err_code failure; /* why it ended last; ERR_OK = it has not */
};

/* Any thread. A WatchLoads stream that is begun anew, with backoff and without end, whenever it ends: a
 * refusal may be lifted, a server come back. interval_ms: 10..60000 between two messages. Over several
 * addresses it tells of one of them. */
err_t bantam_client_watch(struct bantam_client *client, uint32_t interval_ms,
                          struct bantam_watch **out) ERR_MUST_CHECK;
/* Any thread, at any time between watch and close: the latest, under a short lock. */
void bantam_watch_read(struct bantam_watch *watch, struct bantam_loads_view *out);
/* Any thread, before or after the client's close. NULL is fine. */
void bantam_watch_close(struct bantam_watch *watch);
