/* Is an answer what its request's response_format asked for, and a call of a tool what its parameters ask
 * for? Of JSON Schema this is checked: type (one or several), enum, const, properties, required,
 * additionalProperties, items, prefixItems, minimum, maximum and their exclusive ones, the least and most of
 * lengths, items and properties, uniqueItems, anyOf, oneOf, allOf, not, and $ref into #/$defs or
 * #/definitions. What else would hold an answer to something is named by answer_check_gap: what is accepted
 * may break that. What describes (title, format, ...) holds nobody to anything. What is refused is wrong.
 * Pure. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "base/error.h"

enum {
    ANSWER_CHECK_DEPTH_MAX = 64,      /* of values in one another; deeper ones are not looked at */
    ANSWER_CHECK_STEPS_MAX = 1 << 18, /* values under schemas, and values compared; what is left then is not
                                         looked at */
};

/* Does the request, a chat in OpenAI's form, ask for JSON, or offer tools that are strict? all_calls: whether
 * they are or not. */
bool answer_check_is_due(const json_t *request, bool all_calls);
/* The first keyword of the schema that holds an answer to something that is not checked here, a static text;
 * NULL = all of it is. */
const char *answer_check_gap(const json_t *response_format);
/* DATA_LOSS says what does not fit and where. A format that asks for no JSON fits everything. */
err_t answer_check(const json_t *response_format, const char *text, size_t text_bytes) ERR_MUST_CHECK;
/* A call of one of those tools: the function must be among them, and its arguments (none: an empty object)
 * fit its parameters where it is strict, or for all_calls. DATA_LOSS likewise. */
err_t answer_check_call(const json_t *tools, bool all_calls, const char *name, const char *arguments,
                        size_t arguments_bytes) ERR_MUST_CHECK;
