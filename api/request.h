/* What a client asks for: the one request type. Codecs fill it from bytes; a service reads it. Plain data:
 * the caller owns every pointer, which must live until submit returns (a service copies what it keeps). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/sampling_params.h"

enum {
    REQUEST_ID_BYTES_MAX = 128,
    REQUEST_MESSAGES_MAX = 4096,
    REQUEST_ROLE_BYTES_MAX = 32,
    REQUEST_TENANT_BYTES_MAX = 64,
    REQUEST_MODEL_BYTES_MAX = 256,
    REQUEST_PRIORITY_LIMIT = 1000000, /* |priority| */
    REQUEST_HINTS_MAX = 16,
    REQUEST_HINT_BYTES_MAX = 128, /* of a value */
};
#define REQUEST_NO_DEADLINE INT64_MAX

struct chat_message {
    const char *role;    /* NUL-terminated: "system", "user", "assistant", ... */
    const char *content; /* content_bytes of UTF-8, not NUL-terminated */
    size_t content_bytes;
};

/* A wish of the caller's about where his request may go, as metadata, headers or a body have it. */
struct request_hint {
    const char *name;  /* "route", "privacy", "complexity", "max-cost", "task" */
    const char *value; /* as it came; whoever routes reads it and refuses what makes no sense */
};

enum prompt_kind { PROMPT_NONE, PROMPT_TEXT, PROMPT_TOKEN_IDS, PROMPT_MESSAGES };

struct request {
    const char *request_id; /* NULL = the service makes one; unique among the running ones of a tenant */
    const char *model;      /* NULL or "" = the served model; else its name, or an adapter's */
    const char *tenant;     /* the authenticated identity; NULL or "" = none */
    const char *door;       /* by which it came, for the log: "grpc", "http", "mcp"; static; NULL = by none */
    const char *cache_salt; /* prefixes are found by requests of one salt only; NULL = the tenant's name */
    int32_t priority;       /* lower runs earlier, 0 is normal (vLLM's meaning) */
    int64_t deadline_ns;    /* on the service's clock; REQUEST_NO_DEADLINE */

    enum prompt_kind prompt_kind;
    const char *text; /* PROMPT_TEXT: text_bytes of UTF-8 */
    size_t text_bytes;
    const uint32_t *token_ids; /* PROMPT_TOKEN_IDS: [n_token_ids] */
    size_t n_token_ids;
    const struct chat_message *messages; /* PROMPT_MESSAGES: [n_messages] */
    size_t n_messages;
    /* PROMPT_MESSAGES: what else the model's template gets, as the text of a JSON object: under "messages" a
     * list with an object for each message, whose fields stand beside role and content (tool_calls, name);
     * under any other name a value of that name (tools, documents). All of it counts as written by a user. */
    const char *template_json; /* template_json_bytes of UTF-8; NULL = nothing */
    size_t template_json_bytes;
    bool no_special_tokens; /* PROMPT_TEXT: do not add BOS and the like (vLLM: add_special_tokens = false) */
    bool no_generation_prompt; /* PROMPT_MESSAGES: do not open an assistant turn */

    /* Tokens already generated elsewhere for this request: sampling, penalties, max_tokens and stop state go
     * on from there, and none of them is sent again. */
    const uint32_t *output_prefix_ids; /* [n_output_prefix_ids] */
    size_t n_output_prefix_ids;

    struct sampling_params sampling;

    /* For services that pass requests on (service.h: passes_on); others leave these alone. `original` stands
     * above the fields that were made of it, but for a completion with several prompts, of which text or
     * token_ids have the one that is asked for. */
    const struct request_hint *hints; /* [n_hints] */
    size_t n_hints;
    struct json_t *original; /* jansson's: the request in OpenAI's form as it came, read only. A service takes
                                a reference of its own to keep it. NULL = the fields above say all there is */
    const char *beyond;  /* what `original` asks for and no engine of ours can do, as the message of the error
                            that an engine's door gives for it; NULL = nothing. Static or the codec's */
    bool wants_whole;    /* nobody looks at the answer before its end: a service may gather it */
    bool takes_ids_only; /* the client's protocol has token ids and nothing else: an answer without is none */
};
