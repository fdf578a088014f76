/* Requests put to a model, many at a time, and all that is worth knowing of its answers: an engine or router
 * over gRPC (clients/c), or an endpoint over HTTP (provider_call.h). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/local/local_fleet.h"
#include "router/money/money.h"
#include "router/providers/provider.h"

enum {
    EVAL_MARGINS_MAX = 64,      /* tokens whose margin is kept */
    EVAL_CONCURRENCY_MAX = 256, /* requests at once */
    EVAL_ATTEMPTS_MAX = 4,      /* of one request over HTTP; clients/c has its own */
    EVAL_FAILURES_MAX = 20,     /* without one answer: then nothing more is asked */
    EVAL_ANSWER_BYTES_MAX = 4 << 20,
};

struct eval_answer {
    char *text; /* owned, text_bytes and a NUL; tool calls as eval_put_calls writes them; NULL = failed */
    size_t text_bytes;
    bool was_asked;  /* or recorded; false: it is no answer, not even one that failed */
    char error[160]; /* why it failed; "" = it did not */
    char model[64];  /* as who answered calls it; "" = not told */
    struct answer_usage usage;
    nanodollars cost;                 /* -1 = not known */
    int64_t first_token_us, total_us; /* -1 = did not happen */
    bool is_from_strong;              /* a router says that a provider answered */
    uint32_t n_margins;               /* tokens; 0 = not known */
    float margins[EVAL_MARGINS_MAX];  /* probability of the best token less that of the next */
};
void eval_answer_free(struct eval_answer *answer);
/* 1 - the mean margin of the first n tokens, or of as many as there are; 1 when none is known. */
double eval_answer_doubt(const struct eval_answer *answer, uint32_t n);

/* Strings are copied, but for a provider's, which must outlive the endpoint. */
struct eval_endpoint_options {
    const char *name; /* for messages */
    /* "127.0.0.1:50051", "grpc://HOST:PORT": an engine's or router's native door, with or without "#ADAPTER".
     * "https://HOST/v1#MODEL": an OpenAI-compatible endpoint, "anthropic:https://HOST/v1#MODEL": one of
     * Anthropic's. NULL: the provider below. */
    const char *target;
    const struct local_model_options *local; /* its first target, its keys, TLS and cost */
    const struct provider *provider;
    const struct provider_model *model;
    const char *key;              /* NULL = none */
    const struct price *price;    /* NULL = the provider's; an engine's hours; else not known */
    int64_t nanodollars_per_hour; /* of an engine while it is asked, shared out evenly; 0 = free, or the
                                     local's */
    int64_t timeout_ms;           /* of a request */
    const _Atomic bool *stop;     /* set: nothing more is asked; outlives the endpoint; NULL = never */
};

struct eval_endpoint;

/* INVALID_ARGUMENT: the target makes no sense. UNAVAILABLE and the like: the engine does not answer. */
err_t eval_endpoint_open(const struct eval_endpoint_options *options,
                         struct eval_endpoint **out) ERR_MUST_CHECK;
void eval_endpoint_close(struct eval_endpoint *endpoint); /* NULL is fine */
/* Of an engine; "" = not told. */
const char *eval_endpoint_fingerprint(const struct eval_endpoint *endpoint);

/* Puts requests[0..n), chat requests in OpenAI's form, a NULL being left out, and waits for all.
 * answers[0..n): the caller's, to be freed one by one, whatever is returned. done: after each, with how many
 * there are; may be NULL. A request that fails is one answer's error; the first EVAL_FAILURES_MAX failing is
 * this function's. Once the endpoint is told to stop what is under way is awaited, and the rest was not
 * asked. One thread. */
err_t eval_ask(struct eval_endpoint *endpoint, json_t *const *requests, size_t n, uint32_t concurrency,
               void (*done)(void *context, size_t n_done), void *context,
               struct eval_answer *answers) ERR_MUST_CHECK;
