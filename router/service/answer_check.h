/* Is an answer what its request's response_format asked for? Of JSON Schema this is checked: type (one or
 * several), enum, const, properties, required, additionalProperties, items, prefixItems, minimum, maximum and
 * their exclusive ones, the least and most of lengths, items and properties, uniqueItems, anyOf, oneOf,
 * allOf, not, and $ref into #/$defs or #/definitions. What else would hold an answer to something is named by
 * answer_check_gap: what is accepted may break that. What describes (title, format, ...) holds nobody to
 * anything. What is refused is wrong. Pure. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "base/error.h"

enum {
    ANSWER_CHECK_DEPTH_MAX = 64,      /* of values in one another; deeper ones are not looked at */
    ANSWER_CHECK_STEPS_MAX = 1 << 18, /* values under schemas, and values compared; what is left then is not
                                         looked at */
};

/* Does the request ask for JSON? */
bool answer_check_is_due(const json_t *response_format);
/* The first keyword of the schema that holds an answer to something that is not checked here, a static text;
 * NULL = all of it is. */
const char *answer_check_gap(const json_t *response_format);
/* DATA_LOSS says what does not fit and where. A format that asks for no JSON fits everything. */
err_t answer_check(const json_t *response_format, const char *text, size_t text_bytes) ERR_MUST_CHECK;
