/* What a request shows of itself, before anybody has answered it: the ground that a policy's rules stand on.
 * Nothing of its content is kept. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "router/policy/language_guess.h"
#include "router/policy/text_script.h"

/* What the caller wishes: metadata, headers or the field `bantam` of the body. */
enum route_wish {
    WISH_AUTO,
    WISH_LOCAL,
    WISH_FRONTIER,
    WISH_MODEL /* the tier between, or the model of it, that the request names as its model; no hint says it
                */
};
extern const char *const ROUTE_WISH_NAMES[5]; /* "auto", "local", "frontier", "model", NULL */

struct route_hints {
    enum route_wish route;
    bool local_only;     /* privacy: nothing of it leaves this machine */
    uint32_t complexity; /* 1..10; 0 = not told */
    int64_t max_cost;    /* nano-dollars; -1 = not told */
    char task[64];       /* the caller's own name for what this is; "" = not told */
};
#define ROUTE_HINTS_NONE ((struct route_hints){.max_cost = -1})

struct request_signals {
    uint32_t n_turns; /* messages of role user */
    uint32_t n_tools; /* offered */
    uint32_t n_images, n_audio, n_files;
    bool has_schema;        /* response_format with a schema or object */
    bool has_code;          /* a fenced block, or lines that look like a program's */
    bool calls_tools;       /* a call or result of a tool is among the messages */
    enum script script;     /* of what users say */
    enum language language; /* of the last message of a user in which it can be told */
    uint64_t text_bytes;    /* of all messages */
    uint64_t max_tokens;    /* that may be answered; 0 = not told */
};

/* Of a chat request in OpenAI's form, or a completion with `prompt`. Never fails: what is malformed counts as
 * not there, and is refused where it is read. */
struct request_signals request_signals_of(const json_t *request);

/* The hints in request["bantam"]: {"route": "local", "privacy": "local_only", "complexity": 7, "max_cost":
 * "0.01", "task": "tickets"}, over what *hints holds already. INVALID_ARGUMENT names the field. */
err_t route_hints_of_body(const json_t *request, struct route_hints *hints) ERR_MUST_CHECK;
/* One hint by its name, as metadata and headers have it: "route", "privacy", "complexity", "max-cost",
 * "task". */
err_t route_hint_set(struct route_hints *hints, const char *name, const char *value) ERR_MUST_CHECK;
