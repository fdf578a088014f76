/* The cases of an evaluation: a file of JSON lines, each a request and what its answer is held against.
 *
 *   {"messages": [...], "expected": "billing", "check": "label", "labels": ["billing", "account"]}
 *   {"prompt": "What is 17 * 23?", "expected": 391, "max_tokens": 32}
 *   {"request": {"messages": [...], "temperature": 0.2}, "strong": {"text": "...", "cost": 0.004, "ms": 900}}
 *
 * The request is `request`, or everything of the line that is not named here: `id`, `title`, `task`;
 * `expected` or `reference` (any JSON), `check` (eval_check.h), `fields`, `labels`, `tolerance`; `strong`,
 * the strong model's answer as it was recorded, a string or an object; `difficulty`, 0..1. `prompt` is a
 * user's message. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/gate/eval_check.h"

enum {
    EVAL_FILE_BYTES_MAX = 1 << 30,
    EVAL_CASES_MAX = 1000000,
    EVAL_CASE_ID_BYTES = 64, /* NUL included */
};

struct eval_case {
    json_t *line;                /* owned; texts below live in it */
    json_t *request;             /* owned: a chat request in OpenAI's form */
    char id[EVAL_CASE_ID_BYTES]; /* its own, or 16 hexadecimal digits of the request's hash */
    const char *task;            /* "" = not told */
    struct eval_check check;     /* CHECK_NONE without `expected`; the kind alone may be told */
    enum eval_check_kind kind;   /* that was told; CHECK_NONE = none was */
    char *expected_text;         /* owned; NULL where `expected` is a string */
    const char *strong;          /* strong_bytes; NULL = none was recorded */
    size_t strong_bytes;
    int64_t strong_cost, strong_total_us; /* nano-dollars, microseconds; -1 = not told */
    double difficulty;                    /* negative = not told */
};

struct eval_cases {
    struct eval_case *cases; /* [n] */
    size_t n, capacity;
    char id[17]; /* of their content, in order: 16 hexadecimal digits */
};

/* What a request gets that does not say it. */
struct eval_case_defaults {
    uint32_t max_tokens; /* 0 = nothing */
    double temperature;  /* negative = nothing */
};

/* name: for messages, "name line 3: ...". INVALID_ARGUMENT: a line is none of the above, an id stands twice,
 * or there are no cases. *out is empty then. */
err_t eval_cases_parse(const char *name, const char *text, size_t text_bytes,
                       const struct eval_case_defaults *defaults, struct eval_cases *out) ERR_MUST_CHECK;
err_t eval_cases_read(const char *path, const struct eval_case_defaults *defaults,
                      struct eval_cases *out) ERR_MUST_CHECK;
void eval_cases_free(struct eval_cases *cases);

/* A line after the other, empty ones left out, without the blanks at its end: false when there are no more.
 * *begin is where the next one begins and *number its number from 1 on; both 0 at first. */
bool eval_next_line(const char *text, size_t text_bytes, size_t *begin, size_t *number, const char **line,
                    size_t *line_bytes);
/* The hash of a JSON value, whatever the order of its keys, as 16 digits. RESOURCE_EXHAUSTED. */
err_t eval_hash_json(const json_t *value, char out[17]) ERR_MUST_CHECK;
