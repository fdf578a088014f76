/* What a service answers: the one event type. A request yields, per choice, any number of EVENT_TOKENS and
 * one EVENT_FINISHED. Pointers belong to the stream and live until its next stream_next or its release. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/sampling_params.h"
#include "base/error.h"

struct token_logprob {
    uint32_t token_id;
    float logprob; /* natural log, of the raw distribution (before penalties and temperature) */
};

/* One position: the token at it, and the `n_top` best tokens by logprob (descending, ties by id). */
struct position_logprobs {
    struct token_logprob chosen;
    uint32_t rank; /* of the chosen token, 1 = best */
    uint32_t n_top;
    struct token_logprob top[SAMPLING_LOGPROBS_MAX];
};

enum finish_reason {
    FINISH_NONE,
    FINISH_STOP,           /* EOS, a stop id or a stop string */
    FINISH_LENGTH,         /* max_tokens or the model's length */
    FINISH_ABORT,          /* cancelled */
    FINISH_ERROR,          /* event.error says why */
    FINISH_TOOL_CALLS,     /* event.tool_calls were the answer */
    FINISH_CONTENT_FILTER, /* whoever answers would not */
};
/* "stop" | "length" | "abort" | "error" | "tool_calls" | "content_filter" | "" */
const char *finish_reason_name(enum finish_reason reason);

/* Of a choice. Where others answer (event.source) and count n > 1 choices together, one choice's end has all
 * of it and the other ones zeros. */
struct usage {
    uint32_t prompt_tokens;     /* cached ones included */
    uint32_t completion_tokens; /* output_prefix_ids not included */
    uint32_t cached_tokens;     /* prompt tokens read from the prefix cache */
    uint32_t preemptions;
    bool is_unknown; /* who answered did not count: the numbers above mean nothing */
};

/* Durations in ns; -1 = did not happen. */
struct timings {
    int64_t queue_ns;   /* submit to first scheduled */
    int64_t prefill_ns; /* first scheduled to first token */
    int64_t decode_ns;  /* first token to last */
};

/* More of a call of a tool, or a whole one in an event that has all of a choice's output. */
struct tool_call {
    uint32_t index;        /* counts from 0 in each choice */
    const char *id;        /* NULL = told before */
    const char *name;      /* of the function; NULL = told before */
    const char *arguments; /* arguments_bytes of JSON, or more of it */
    size_t arguments_bytes;
};

/* Who answered, and why he did, where a service asks others. Strings are never NULL; "" = nothing to tell. */
struct answer_source {
    const char *provider; /* "local", or the name of a provider in the configuration */
    const char *model;    /* as its owner calls it */
    const char *reason;   /* why it went there: a name of a fixed set, e.g. "default", "rule", "overflow" */
    const char *rule;     /* of the policy, that decided */
    const char *cache;    /* "hit", "shared", "miss", "off" */
    const char *fingerprint;  /* of what answered, as it calls itself */
    const char *dropped;      /* names of parameters that did not cross, joined by commas */
    const char *decision_id;  /* under which the decision was logged */
    int64_t cost_nanodollars; /* -1 = not known, or not yet */
    uint32_t attempts;        /* calls that were made for it */
};

enum event_kind { EVENT_TOKENS, EVENT_FINISHED };

struct event {
    enum event_kind kind;
    uint32_t choice_index; /* 0..n-1 */
    bool last;             /* no event follows on this stream */

    /* New output since the choice's last event; EVENT_FINISHED may carry the rest. */
    const uint32_t *token_ids; /* [n_token_ids] */
    size_t n_token_ids;        /* 0 beside a text: who answers has no ids of ours; usage counts at the end */
    const char *text; /* text_bytes of whole UTF-8 characters; "" when the service has no tokenizer */
    size_t text_bytes;
    const struct position_logprobs *logprobs; /* [n_logprobs]: n_token_ids when asked for, else 0 */
    size_t n_logprobs;

    /* What only others than our engines answer: pieces, as they come. */
    const struct tool_call *tool_calls; /* [n_tool_calls] */
    size_t n_tool_calls;
    const char *refusal; /* refusal_bytes of UTF-8; NULL = none */
    size_t refusal_bytes;
    const char *reasoning; /* reasoning_bytes of UTF-8; NULL = none */
    size_t reasoning_bytes;
    /* With the first event of a stream, and with each EVENT_FINISHED, where what it cost stands; else NULL.
     * NULL always: the service itself answers. */
    const struct answer_source *source;

    /* The whole prompt, once, with the first event of choice 0. */
    const uint32_t *prompt_token_ids; /* [n_prompt_token_ids] or NULL */
    size_t n_prompt_token_ids;
    const struct position_logprobs
        *prompt_logprobs; /* [n_prompt_logprobs] = prompt length when asked for: entry 0 has
                             no logprob (NaN), entry i is that of token i */
    size_t n_prompt_logprobs;

    /* EVENT_FINISHED */
    enum finish_reason finish_reason;
    const char *stop_string; /* the matched stop string, or NULL */
    int64_t stop_token_id;   /* the matched id, or -1 */
    struct usage usage;
    struct timings timings;
    err_t error; /* FINISH_ERROR */
};
