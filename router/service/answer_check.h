/* Is an answer what its request's response_format asked for? Of JSON Schema a subset is checked: type (one or
 * several), properties, required, enum, const, items, additionalProperties, anyOf, and $ref into #/$defs or
 * #/definitions. Other keywords are passed over: what this accepts may yet break them, what it refuses is
 * wrong. Pure. */
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
/* DATA_LOSS says what does not fit and where. A format that asks for no JSON fits everything. */
err_t answer_check(const json_t *response_format, const char *text, size_t text_bytes) ERR_MUST_CHECK;
