/* What the files of the doors' bench share. */
#pragma once

#include <stdatomic.h>
#include <sys/types.h>
#include "base/error.h"
#include "benchmarks/doors_bench.h"
#include "benchmarks/latency_stats.h"

enum {
    DOORS_STAMPS = 8192,  /* steps whose time is known: more than a stream can be behind */
    DOORS_CODES_MIN = 64, /* tokens that tell steps apart; they repeat */
    DOORS_CODES_MAX = 256,
    DOORS_CODE_BYTES = 4, /* letters of each */
    DOORS_CODE_SLOTS = 1024,
    DOORS_INPUT_MAX = 1024, /* tokens of a prompt */
};

/* Memory of all three processes. */
struct doors_shared {
    _Atomic int64_t step_ns; /* the client asks for it */

    /* The server's. Step s draws the token codes[s % n_codes] and has ready_ns[s % DOORS_STAMPS] (monotonic).
     */
    uint16_t grpc_port, http_port;
    uint32_t n_codes;
    uint32_t code_ids[DOORS_CODES_MAX];
    char code_texts[DOORS_CODES_MAX][DOORS_CODE_BYTES];
    _Atomic uint64_t n_steps;
    _Atomic int64_t ready_ns[DOORS_STAMPS];
    _Atomic int64_t loop_cpu_ns;
    _Atomic uint64_t allocations, pauses;

    /* Of whichever process failed first. */
    _Atomic bool failed;
    err_t error;

    struct doors_result result; /* the client's */
};

/* Tokens that a stream asks for: more than it gets before it is dropped. */
uint32_t doors_stream_tokens(const struct doors_options *options);
void doors_fail(struct doors_shared *shared, const err_t *error);

/* The server's process: opens, says so by a byte to ready_fd, serves until stop_fd ends. */
void doors_serve(const struct doors_options *options, struct doors_shared *shared, int ready_fd, int stop_fd);

/* --- the client's process */

struct doors_client;

struct doors_request {
    struct doors_client *client;
    const uint32_t *prompt_ids; /* [options.input_len] */
    uint32_t max_tokens;
    bool whole; /* one message at the end */

    int64_t started_ns;
    uint64_t n_tokens, last_step;
    void *transport; /* the driver's */
};

/* A door as its client sees it. */
struct doors_driver {
    err_t (*open)(struct doors_client *client, void **out);
    err_t (*start)(void *driver, struct doors_request *request);
    /* Handles what has come, or waits for it, not longer than timeout_ns. */
    err_t (*poll)(void *driver, int64_t timeout_ns);
    /* Drops what is under way; nobody hears of it. */
    void (*close)(void *driver);
};
extern const struct doors_driver doors_driver_native, doors_driver_facade, doors_driver_http;

struct doors_client {
    const struct doors_options *options;
    struct doors_shared *shared;
    pid_t server;
    const struct doors_driver *driver;
    void *connection;                        /* the driver's state */
    struct doors_request *requests;          /* [n_streams] */
    uint32_t *prompts;                       /* [n_streams][input_len] */
    uint32_t code_keys[2][DOORS_CODE_SLOTS]; /* by id, by text; 0 = free */
    uint16_t codes[2][DOORS_CODE_SLOTS];

    bool closing;   /* ends are not looked at */
    bool measuring; /* samples are kept */
    uint32_t n_begun, n_started, n_done;
    uint64_t tokens, messages;
    uint64_t seen;          /* of messages and requests, */
    int64_t seen_ns;        /* and when that last changed */
    struct samples samples; /* us: added latency, or time to a whole answer */
    int64_t until_ns;       /* whole answers: the next request of each is sent until then */
    err_t failure;
};

void doors_client_run(const struct doors_options *options, enum doors_kind kind, pid_t server,
                      struct doors_shared *shared);

/* From drivers: one message with new tokens, by id or as text, then the end. */
void doors_client_ids(struct doors_request *request, const uint32_t *ids, size_t n_ids, int64_t now_ns);
void doors_client_text(struct doors_request *request, const char *text, size_t text_bytes, int64_t now_ns);
void doors_client_done(struct doors_request *request, const err_t *error);
