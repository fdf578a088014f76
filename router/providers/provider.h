/* A provider and its models, as the configuration describes them. Plain data; strings belong to whoever made
 * it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "router/money/money.h"
#include "router/providers/provider_kind.h"
#include "router/providers/provider_parameters.h"

struct provider_model {
    enum provider_kind kind;    /* its provider's */
    const char *name;           /* as the provider calls it */
    uint32_t context_tokens;    /* prompt and answer together; 0 = not known */
    uint32_t max_output_tokens; /* what Anthropic's max_tokens is when the request has none; > 0 for it */
    uint32_t output_limit;      /* what OpenAI's is then; 0 = none is sent */
    parameter_set refuses;      /* that this model answers with 400: dropped and reported */
    bool max_completion_tokens; /* it wants this name for max_tokens: OpenAI's reasoning models */
    bool takes_images, takes_audio, takes_files, takes_tools, takes_schemas;
    bool takes_unchecked_schemas;   /* also those of which its answers are not checked against all */
    const uint32_t *only_token_ids; /* [n_only_token_ids]: what it may answer with, of its own vocabulary;
                                       NULL = anything */
    size_t n_only_token_ids;
    uint32_t top_logprobs; /* that it is to tell of each token; 0 = none */
    struct price price;
    int64_t priced_s; /* Unix time of the day that the prices are of; 0 = not told */
};

struct provider {
    const char *name; /* ours: in logs, metrics and the ledger */
    enum provider_kind kind;
    const char *url;            /* "https://api.openai.com/v1", without the slash at the end */
    const char *ca_file;        /* whose certificates are trusted instead of the system's; NULL = those */
    const char *key;            /* a secret: in no message and no log; NULL = none */
    const char *const *headers; /* [n_headers] more, "name: value" */
    size_t n_headers;
    int64_t connect_timeout_ms, first_byte_timeout_ms, chunk_timeout_ms, total_timeout_ms; /* egress.h */
    const struct provider_model *models;                                                   /* [n_models] */
    size_t n_models;
};
