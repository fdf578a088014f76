/* OpenAI's JSON, with vLLM's additions, <-> api's request and event.
 *
 * Decoding checks the shape (types, one kind of prompt, limits before anything is built) and refuses what
 * this server cannot do; ranges of values are api/validate.h's business. A field that nobody here knows is
 * ignored, as vLLM does. Pure but for memory; any thread. Source: OpenAI's API reference (chat completions,
 * completions, models, streaming, errors); vLLM's OpenAI-compatible server. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "api/service.h"
#include "base/buffer.h"
#include "base/error.h"
#include "base/json_bounds.h"

enum {
    OPENAI_PROMPTS_MAX = 1024, /* of one request */
    OPENAI_CHOICES_MAX = 4096, /* of one request: prompts times n */
    OPENAI_PARAM_BYTES_MAX = 96,
    OPENAI_ID_BYTES_MAX = REQUEST_ID_BYTES_MAX + 16,
};

/* What a decoded request needs besides its bytes, and the field that an error is about. Zero-initialise but
 * for passes_on; openai_scratch_free when the request is no longer needed (idempotent; param stays). */
struct openai_scratch {
    bool passes_on;     /* the request is for a service that may pass it on (api/service.h): what no engine
                           does is noted and not refused, and hints are read */
    const char *beyond; /* the note; NULL = nothing */
    void *document;     /* jansson's */
    void *blocks;       /* arrays */
    struct json_bounds bounds;          /* of the body, and of JSON in its strings */
    char param[OPENAI_PARAM_BYTES_MAX]; /* "" = no field in particular */
};
void openai_scratch_free(struct openai_scratch *scratch);

enum openai_kind { OPENAI_COMPLETION, OPENAI_CHAT };

struct openai_prompt {
    enum prompt_kind kind; /* text or token ids */
    const char *text;      /* text_bytes of UTF-8 */
    size_t text_bytes;
    const uint32_t *token_ids; /* [n_token_ids] */
    size_t n_token_ids;
};

struct openai_request {
    enum openai_kind kind;
    struct request request;              /* all but a completion's prompt */
    const struct openai_prompt *prompts; /* [n_prompts]; NULL for chat, whose messages are in request */
    size_t n_prompts;                    /* 1 for chat */
    uint32_t n_choices;                  /* of each prompt */
    bool stream, include_usage, continuous_usage;
    bool echo;                       /* the answer's text and logprobs begin with the prompt's */
    bool prompt_only;                /* max_tokens = 0: what is generated is not shown */
    bool wants_prompt_logprobs;      /* as a field of their own */
    int32_t logprobs;                /* -1 = none, else alternatives a token */
    bool return_token_ids;           /* vLLM */
    bool return_tokens_as_token_ids; /* vLLM: logprobs name tokens "token_id:17" */
};

/* Pointers in *out live as long as body and scratch. With scratch->passes_on the request has its original,
 * what of it is beyond an engine, and the hints of its field "bantam"; messages then hold what text there is.
 * Without, "bantam" is a field that nobody knows. */
err_t openai_decode_request(enum openai_kind kind, const char *body, size_t body_bytes,
                            struct openai_scratch *scratch, struct openai_request *out) ERR_MUST_CHECK;
/* The request for one of its prompts. */
struct request openai_request_of_prompt(const struct openai_request *request, size_t prompt);

struct openai_tokenize {
    struct request request;
    bool return_token_strs;
};
err_t openai_decode_tokenize(const char *body, size_t body_bytes, struct openai_scratch *scratch,
                             struct openai_tokenize *out) ERR_MUST_CHECK;

struct openai_detokenize {
    const char *model; /* NULL = the served one */
    const uint32_t *token_ids;
    size_t n_token_ids;
};
err_t openai_decode_detokenize(const char *body, size_t body_bytes, struct openai_scratch *scratch,
                               struct openai_detokenize *out) ERR_MUST_CHECK;

/* --- answers. All append to *out and return false at its limit or without memory. */

/* What is the same for all of an answer. */
struct openai_answer {
    const struct openai_request *request;
    struct service *service; /* gives tokens their text */
    const struct model_info *model;
    int64_t created_unix_s;
    char id[OPENAI_ID_BYTES_MAX]; /* "chatcmpl-..." | "cmpl-..." */
    struct buffer opening;        /* owned: how every message begins; of openai_answer_prepare */
};
/* Once id and all else stand; again when it is known who answers, if the service has others do it (NULL: it
 * answers itself). */
bool openai_answer_prepare(struct openai_answer *answer, const struct answer_source *source);
void openai_answer_free(struct openai_answer *answer);

/* A choice of the answer, and how much of it was encoded. */
struct openai_choice {
    uint32_t index; /* in the answer */
    bool started;
    uint32_t completion_tokens; /* so far; whoever counts usage keeps it */
    size_t text_offset;         /* characters of text before the next token with logprobs */
    const char *echo_text;      /* echo: echo_bytes of the prompt's text */
    size_t echo_bytes;
};

struct openai_usage {
    uint64_t prompt_tokens, completion_tokens, cached_tokens;
    bool is_unknown;                    /* null, whatever the numbers are */
    const struct answer_source *source; /* "bantam" in it, or beside it when it is null; NULL = none */
};

/* One event of a stream as "data: {...}" and a blank line; nothing when it has nothing that shows. usage:
 * with continuous_usage, else NULL. Where the client asked for no usage the end of a choice tells who
 * answered. */
bool openai_encode_chunk(const struct openai_answer *answer, struct openai_choice *choice,
                         const struct event *event, const struct openai_usage *usage, struct buffer *out);
/* The last two messages of a stream. */
bool openai_encode_usage_chunk(const struct openai_answer *answer, const struct openai_usage *usage,
                               struct buffer *out);
bool openai_encode_done(struct buffer *out);

/* A whole answer: begin, each choice (an EVENT_FINISHED with all of its output), end. `first`: the first
 * choice's event, which has the prompt's ids and logprobs of a chat. */
bool openai_encode_begin(const struct openai_answer *answer, struct buffer *out);
bool openai_encode_choice(const struct openai_answer *answer, struct openai_choice *choice,
                          const struct event *event, struct buffer *out);
bool openai_encode_end(const struct openai_answer *answer, const struct event *first,
                       const struct openai_usage *usage, struct buffer *out);

/* The i-th model that may be asked for; false when there are no more. */
bool openai_model_card(struct service *service, size_t i, struct model_card *out);
bool openai_encode_models(struct service *service, int64_t created_unix_s, struct buffer *out);
bool openai_encode_model(struct service *service, const struct model_card *card, int64_t created_unix_s,
                         struct buffer *out);
/* with_strs: the text of each, too. */
bool openai_encode_tokens(struct service *service, const uint32_t *ids, size_t n_ids, bool with_strs,
                          struct buffer *out);
bool openai_encode_text(const char *text, size_t text_bytes, struct buffer *out);

/* The text of one token, as it is inside a text; "" for an id without a token. */
bool openai_token_text(struct service *service, uint32_t id, struct buffer *out);

/* --- errors */

/* The HTTP status of an error. */
int openai_status_of(enum err_code code);
/* {"error": {...}}. param: NULL or "" = found in the message, which names the field first. */
bool openai_encode_error(const err_t *error, enum openai_kind kind, const char *param, struct buffer *out);
/* The same for what has a status and no err_t. */
bool openai_encode_fault(int status, const char *message, struct buffer *out);
/* What the service said of one of several prompts, with that prompt's number in it. */
err_t openai_error_of_prompt(err_t error, size_t prompt);
