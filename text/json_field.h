/* Fields of a parsed JSON object, with errors that name the field and what was expected. Strings stay the
 * document's. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* Absent or null: *out = NULL, size 0. */
err_t json_field_text(const json_t *object, const char *key, const char **out,
                      size_t *size_bytes) ERR_MUST_CHECK;
/* Must be there. */
err_t json_field_text_required(const json_t *object, const char *key, const char **out,
                               size_t *size_bytes) ERR_MUST_CHECK;
/* Absent or null: fallback. */
err_t json_field_bool(const json_t *object, const char *key, bool fallback, bool *out) ERR_MUST_CHECK;
/* 0..max; must be there. */
err_t json_field_uint(const json_t *object, const char *key, uint64_t max, uint64_t *out) ERR_MUST_CHECK;
/* Must be there: an array. */
err_t json_field_array(const json_t *object, const char *key, const json_t **out) ERR_MUST_CHECK;
enum { SEQUENCE_DEPTH_MAX = 8 }; /* of {"type": "Sequence"} within each other */

/* Is this the "Sequence" of a pipeline? Then *list is its array `key`. depth: how many are around it. */
err_t json_field_sequence(const json_t *object, const char *key, unsigned depth,
                          const json_t **list) ERR_MUST_CHECK;
/* The field "type" of an object. */
err_t json_field_type(const json_t *object, const char **out) ERR_MUST_CHECK;
/* {"String": ..} or {"Regex": ..} in the field "pattern". */
err_t json_field_pattern(const json_t *object, const char **out, size_t *size_bytes,
                         bool *is_regex) ERR_MUST_CHECK;
