/* The least value that a JSON schema takes: required properties alone, first choices, smallest numbers.
 * Patterns and formats are not looked at. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "base/buffer.h"

enum { MOCK_SCHEMA_DEPTH_MAX = 16, MOCK_SCHEMA_ITEMS_MAX = 64, MOCK_SCHEMA_TEXT_BYTES_MAX = 1024 };

/* Appends it as JSON; null where the schema is deeper than MOCK_SCHEMA_DEPTH_MAX. False at the buffer's limit
 * or without memory. */
bool mock_schema_write(const json_t *schema, struct buffer *out);
