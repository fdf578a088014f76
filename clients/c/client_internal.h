/* What the files of the client share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include "clients/c/bantam_client.h"
#include "clients/c/retry_policy.h"
#include "clients/c/timer_heap.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_client.h"

/* The headers of a client or a call, their text in one block. */
struct header_list {
    struct client_metadata metadata[CLIENT_METADATA_MAX];
    size_t n;
    char *text[CLIENT_METADATA_MAX]; /* owned: key, NUL, value */
};
err_t header_list_add(struct header_list *list, const struct bantam_header *header) ERR_MUST_CHECK;
void header_list_free(struct header_list *list); /* wipes it: keys are among them */

/* Options, checked: the transport, and the headers with the key. Nothing is left behind on error. */
err_t client_options_apply(const struct bantam_client_options *options, struct grpc_client_queue *queue,
                           struct header_list *headers, struct grpc_client **transport) ERR_MUST_CHECK;

enum call_state { CALL_QUEUED, CALL_RUNNING, CALL_WAITING, CALL_DONE };

/* What other threads ask of a call; bits. */
enum { ASKED_START = 1, ASKED_CANCEL = 2, ASKED_RESUME = 4 };

struct bantam_call {
    struct timer_node timer; /* first: the node is the call. While CALL_WAITING */
    struct bantam_client *client;
    _Atomic uint32_t references; /* the client's until the end, the caller's, the inbox's */
    atomic_bool done;            /* nothing of the client may be touched any more */
    /* Under the client's mutex. */
    uint32_t asked;
    bool in_inbox;
    struct bantam_call *inbox_next;
    /* The driver's from here on. */
    struct bantam_call *previous, *next;
    enum call_state state;
    bool cancelled, paused, no_retries, keeps_up, any_message;
    struct bantam_handler handler;
    /* A watch's stream, which keeps_up: why it ended before it is begun anew. */
    void (*on_lost)(void *context, enum err_code code);
    void *context;
    enum bantam_method method;
    const char *path;
    uint8_t *message; /* owned; until a retry is out of the question */
    size_t message_bytes;
    struct header_list *headers; /* owned; NULL = none of its own */
    int64_t deadline_ns;         /* INT64_MAX = none */
    uint32_t n_attempts, n_failures, n_choices, n_finished;
    struct client_call *transport_call; /* while CALL_RUNNING */
    err_t failure;                      /* of ours: a message that cannot be read */
    struct bantam_reply *reply;         /* of bantam_client_ask: borrowed */
    char request_id[REQUEST_ID_BYTES_MAX + 1], model[REQUEST_MODEL_BYTES_MAX + 1],
        fingerprint[BANTAM_FINGERPRINT_BYTES_MAX];
};

/* A client that is driven alone has a group of its own. */
struct bantam_group {
    struct grpc_client_queue *queue;
    struct bantam_client *clients;
    bool driving;        /* in a callback's reach */
    atomic_bool waiting; /* the driver is in the transport's poll, or about to be */
};

struct bantam_client {
    struct bantam_group *group;
    bool owns_group;
    struct bantam_client *group_previous, *group_next;
    struct grpc_client *transport;
    const struct clock *clock;
    struct bantam_retry_options retry;
    struct header_list headers;
    uint32_t max_calls;
    _Atomic uint32_t n_calls;
    atomic_bool closing;
    atomic_bool has_inbox; /* may be read without the mutex */
    pthread_mutex_t mutex;
    struct bantam_call *inbox_first, *inbox_last;
    /* The driver's from here on. */
    struct bantam_call *calls;
    struct timer_heap timers;
    struct retry_budget budget;
    struct rng rng;
    struct bantam_client_stats stats;
};

struct reply_private; /* bantam_reply with what its answer points into */

/* client_answers.c. The query's message, a copy that the caller mem_free's. */
err_t query_encode(const struct bantam_query *query, uint8_t **message, size_t *message_bytes) ERR_MUST_CHECK;
/* Any method but GENERATE. */
err_t answer_decode(enum bantam_method method, const uint8_t *bytes, size_t size_bytes,
                    struct codec_scratch *scratch, struct bantam_answer *out) ERR_MUST_CHECK;
const char *method_path(enum bantam_method method);
/* Keeps a copy of the message and decodes it. */
err_t reply_fill(struct bantam_reply *reply, enum bantam_method method, const uint8_t *bytes,
                 size_t size_bytes) ERR_MUST_CHECK;
struct bantam_reply *reply_make(void);

/* client_call.c. A call that is not known to the client yet; RESOURCE_EXHAUSTED, UNAVAILABLE. Takes over
 * message. request: whose model and priority are said in headers too; NULL = nobody's. */
err_t call_make(struct bantam_client *client, const char *path, uint8_t *message, size_t message_bytes,
                const struct bantam_call_options *options, const struct request *request,
                struct bantam_call **out) ERR_MUST_CHECK;
/* Any thread: leaves word for the driver. */
void call_ask(struct bantam_call *call, uint32_t what);
/* The driver does what was asked; false when there was nothing. */
bool calls_run_inbox(struct bantam_client *client);
/* The driver begins what is due; false when there was nothing. */
bool calls_run_timers(struct bantam_client *client);
/* The driver ends every call. */
void calls_end_all(struct bantam_client *client);
