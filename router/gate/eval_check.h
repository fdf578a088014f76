/* Is an answer right? Checkers without a model: each gives a score, 0..1, beside what was expected. Pure; any
 * thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/buffer.h"
#include "base/error.h"

enum eval_check_kind {
    CHECK_NONE,       /* nothing to hold it against */
    CHECK_EXACT,      /* the same bytes, but for blanks at both ends */
    CHECK_NORMALISED, /* the same but for ASCII case, blanks, and quotes and full stops around it */
    CHECK_CONTAINS,   /* the expected text is in it, both normalised */
    CHECK_NUMBER,     /* its last number is the expected one, within tolerance */
    CHECK_JSON,       /* the share of fields that are the same; a value that is no object is one field */
    CHECK_LABEL,      /* of all labels, the first that it names is the expected one */
    EVAL_CHECKS,
};
extern const char *const EVAL_CHECK_NAMES[EVAL_CHECKS + 1]; /* "none", "exact", ..., NULL */

enum { EVAL_CHECK_TEXT_MAX = 1 << 20 }; /* bytes of an answer that are looked at */

struct eval_check {
    enum eval_check_kind kind;
    const char *expected; /* expected_bytes; text of a JSON value too */
    size_t expected_bytes;
    const json_t *fields; /* CHECK_JSON: array of names that count; NULL = all of both sides */
    const json_t *labels; /* CHECK_LABEL: array of texts; NULL = the answer begins with the expected one */
    double tolerance;     /* CHECK_NUMBER: of the expected number's size */
};

/* INVALID_ARGUMENT: what is expected is not what the kind needs (no JSON, no number, none of the labels). */
err_t eval_check_validate(const struct eval_check *check) ERR_MUST_CHECK;
/* The check has passed eval_check_validate. Without memory the answer is wrong. */
double eval_check_score(const struct eval_check *check, const char *answer, size_t answer_bytes);

/* How two answers to one request are compared where nobody said it: JSON objects by field, others normalised.
 */
struct eval_check eval_check_like(const char *answer, size_t answer_bytes);

/* The last number in a text: "is 1,234.50 $" is 1234.5. False: there is none. */
bool eval_last_number(const char *text, size_t text_bytes, double *out);
/* The JSON value in an answer: all of it, what stands in a fence, or from its first brace to its last. NULL =
 * none; else the caller's reference. */
json_t *eval_find_json(const char *text, size_t text_bytes);
/* Calls of tools as text, the same for equal calls: {"tool_calls":[{"arguments":{...},"name":"..."}]}, on a
 * line of its own behind a text. calls: array of {"name", "arguments"}, the latter a string, as OpenAI has
 * them under `function`. Nothing when there are none; false at the buffer's limit or without memory. */
bool eval_put_calls(struct buffer *out, const json_t *calls);
