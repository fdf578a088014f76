/* The one table of which parameter of a chat request crosses to which kind of provider. docs/routing.md shows
 * the same table, and a test holds the two together. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "router/providers/provider_kind.h"

enum crossing {
    CROSSES,     /* as it is */
    IS_MAPPED,   /* under another name or in another form */
    IS_DROPPED,  /* left out, and the answer says so */
    KEEPS_LOCAL, /* the request cannot go there: the answer would be another one, or none */
    IS_OURS,     /* read by the router, never sent on */
};
const char *
crossing_name(enum crossing crossing); /* "as it is", "mapped", "dropped", "stays local", "ours" */

/* name, OpenAI, compatible servers, Anthropic. A value that asks for nothing (null, false, an empty list, the
 * default of a number) crosses nowhere and forbids nothing. Token ids are those of the local vocabulary, and
 * mean other words elsewhere. */
#define PROVIDER_PARAMETERS(X)                                                                               \
    X(model, IS_MAPPED, IS_MAPPED, IS_MAPPED)                                                                \
    X(messages, CROSSES, CROSSES, IS_MAPPED)                                                                 \
    X(stream, IS_MAPPED, IS_MAPPED, IS_MAPPED)                                                               \
    X(stream_options, IS_MAPPED, IS_MAPPED, IS_OURS)                                                         \
    X(max_tokens, IS_MAPPED, IS_MAPPED, IS_MAPPED)                                                           \
    X(max_completion_tokens, IS_MAPPED, IS_MAPPED, IS_MAPPED)                                                \
    X(temperature, CROSSES, CROSSES, CROSSES)                                                                \
    X(top_p, CROSSES, CROSSES, CROSSES)                                                                      \
    X(stop, CROSSES, CROSSES, IS_MAPPED)                                                                     \
    X(n, CROSSES, CROSSES, KEEPS_LOCAL)                                                                      \
    X(seed, CROSSES, CROSSES, IS_DROPPED)                                                                    \
    X(presence_penalty, CROSSES, CROSSES, IS_DROPPED)                                                        \
    X(frequency_penalty, CROSSES, CROSSES, IS_DROPPED)                                                       \
    X(logprobs, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                       \
    X(top_logprobs, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                   \
    X(tools, CROSSES, CROSSES, IS_MAPPED)                                                                    \
    X(tool_choice, CROSSES, CROSSES, IS_MAPPED)                                                              \
    X(parallel_tool_calls, CROSSES, CROSSES, IS_MAPPED)                                                      \
    X(response_format, CROSSES, CROSSES, IS_MAPPED)                                                          \
    X(reasoning_effort, CROSSES, CROSSES, IS_DROPPED)                                                        \
    X(verbosity, CROSSES, CROSSES, IS_DROPPED)                                                               \
    X(user, CROSSES, CROSSES, IS_MAPPED)                                                                     \
    X(metadata, IS_OURS, IS_OURS, IS_OURS)                                                                   \
    X(store, IS_OURS, IS_OURS, IS_OURS)                                                                      \
    X(service_tier, CROSSES, CROSSES, IS_DROPPED)                                                            \
    X(modalities, CROSSES, CROSSES, KEEPS_LOCAL)                                                             \
    X(audio, CROSSES, CROSSES, KEEPS_LOCAL)                                                                  \
    X(top_k, IS_DROPPED, CROSSES, CROSSES)                                                                   \
    X(min_p, IS_DROPPED, CROSSES, IS_DROPPED)                                                                \
    X(repetition_penalty, IS_DROPPED, CROSSES, IS_DROPPED)                                                   \
    X(min_tokens, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                                         \
    X(ignore_eos, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                                         \
    X(logit_bias, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                     \
    X(stop_token_ids, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                 \
    X(allowed_token_ids, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                              \
    X(bad_words, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                                          \
    X(prompt_logprobs, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                \
    X(return_token_ids, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                               \
    X(echo, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                                           \
    X(continue_final_message, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                             \
    X(add_generation_prompt, IS_OURS, CROSSES, IS_OURS)                                                      \
    X(skip_special_tokens, IS_OURS, CROSSES, IS_OURS)                                                        \
    X(include_stop_str_in_output, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                         \
    X(spaces_between_special_tokens, IS_OURS, CROSSES, IS_OURS)                                              \
    X(truncate_prompt_tokens, KEEPS_LOCAL, KEEPS_LOCAL, KEEPS_LOCAL)                                         \
    X(chat_template_kwargs, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                               \
    X(documents, KEEPS_LOCAL, CROSSES, KEEPS_LOCAL)                                                          \
    X(priority, IS_OURS, IS_OURS, IS_OURS)                                                                   \
    X(request_id, IS_OURS, IS_OURS, IS_OURS)                                                                 \
    X(cache_salt, IS_OURS, IS_OURS, IS_OURS)                                                                 \
    X(bantam, IS_OURS, IS_OURS, IS_OURS)

enum provider_parameter {
#define X(name, openai, compatible, anthropic) PARAMETER_##name,
    PROVIDER_PARAMETERS(X)
#undef X
        PROVIDER_PARAMETER_COUNT,
};
_Static_assert(PROVIDER_PARAMETER_COUNT <= 64, "a set of parameters is 64 bits");

/* A set of them. */
typedef uint64_t parameter_set;
static inline parameter_set parameter_bit(enum provider_parameter parameter)
{
    return UINT64_C(1) << parameter;
}

const char *provider_parameter_name(enum provider_parameter parameter);
/* False when there is no parameter of that name. */
bool provider_parameter_find(const char *name, enum provider_parameter *out);
enum crossing provider_parameter_crossing(enum provider_parameter parameter, enum provider_kind kind);
/* Does this value ask for what the parameter does? */
bool provider_parameter_asks(enum provider_parameter parameter, const json_t *value);

/* The first parameter of the request that keeps it from providers of this kind; NULL = it may go. */
const char *provider_parameter_that_keeps(enum provider_kind kind, const json_t *request);
