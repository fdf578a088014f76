/* The one validator, behind every door. Pure functions. */
#pragma once

#include "api/request.h"
#include "base/error.h"

struct validate_limits {
    uint32_t vocab_size;
    uint32_t max_model_len; /* tokens */
    uint32_t max_n;         /* choices per request, <= SAMPLING_N_MAX */
    bool has_tokenizer;     /* without one: token ids only, no stop strings, no bad words */
    bool has_chat_template;
};

/* Shape of a request before tokenising: one kind of prompt, sizes, names, UTF-8, ranges of every set sampling
 * parameter, token ids below vocab_size. ERR_INVALID_ARGUMENT names the field, its value and what would be
 * right. */
err_t validate_request(const struct request *request, const struct validate_limits *limits) ERR_MUST_CHECK;

/* The ranges of the scalars that are set, as in validate_request: for a model's own defaults. */
err_t validate_sampling(const struct sampling_params *params,
                        const struct validate_limits *limits) ERR_MUST_CHECK;

/* How many of a prompt's last tokens count; params: resolved. */
size_t validate_truncated(const struct sampling_params *params, size_t n_prompt_tokens,
                          const struct validate_limits *limits);

/* After tokenising and resolving: the prompt has 1..max_model_len-1 tokens, min_tokens <= max_tokens, and so
 * on. Lowers params->max_tokens to what the model's length leaves (0 = all of it). */
err_t validate_resolved(struct sampling_params *params, size_t n_prompt_tokens, size_t n_output_prefix,
                        const struct validate_limits *limits) ERR_MUST_CHECK;

/* Does the error, maybe of another process, say that a prompt is too long for the model? Then *n_tokens is
 * how many it has. */
bool validate_is_too_long(const err_t *e, uint64_t *n_tokens);
