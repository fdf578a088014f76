/* JSON values as text, in memory of ours. */
#pragma once

#include <jansson.h>
#include "base/buffer.h"
#include "base/error.h"

enum { JSON_TEXT_DEPTH_MAX = 2048 }; /* of values in one another: as jansson reads them */

/* Appends value without blanks, numbers as the shortest text that reads back as the same: 0.7 and not
 * 0.69999999999999996. RESOURCE_EXHAUSTED when the buffer's limit, memory or the depth is reached, the buffer
 * then ends anywhere. Any thread. */
err_t json_text_append(struct buffer *text, const json_t *value) ERR_MUST_CHECK;
/* The same with 15 digits of a real number, which are those that it was made of: 0.1 + 0.2 is written as 0.3,
 * and dollars up to a million to the last of their nine digits after the point. */
err_t json_text_append_decimal(struct buffer *text, const json_t *value) ERR_MUST_CHECK;
/* json_text_append with the keys of every object in the order of their bytes: equal values give equal text.
 */
err_t json_text_append_sorted(struct buffer *text, const json_t *value) ERR_MUST_CHECK;
