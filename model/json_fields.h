/* Checked access to JSON files: kind and range of every field, with errors that name the file and the field.
 * Over jansson. A field that is null counts as absent. Any thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    JSON_FILE_MAX_BYTES = 64 << 20, /* config.json, generation_config.json, *.index.json */
};

/* One object of a file. `file` is what messages call it; `prefix` is "" at the top, else "rope_scaling." and
 * the like. */
struct json_fields {
    const char *file;
    const char *prefix;
    const json_t *object;
};

/* Reads an object from a file; the caller json_decref's *root. NOT_FOUND and IO as file_read; DATA_LOSS for
 * text that is not one JSON object: NaN and Infinity are no JSON, and the message names the field that holds
 * them; so does it for duplicate keys. */
err_t json_object_load(const char *path, json_t **root) ERR_MUST_CHECK;
/* The same from memory; file is for messages. */
err_t json_object_parse(const char *file, const char *text, size_t size_bytes, json_t **root) ERR_MUST_CHECK;

bool json_has(const struct json_fields *fields, const char *name);

/* Required fields. INVALID_ARGUMENT when absent, of another kind, or outside [min, max]. */
err_t json_get_u32(const struct json_fields *fields, const char *name, uint32_t min, uint32_t max,
                   uint32_t *out) ERR_MUST_CHECK;
err_t json_get_number(const struct json_fields *fields, const char *name, double min, double max,
                      double *out) ERR_MUST_CHECK;
/* *out borrows from the object. */
err_t json_get_text(const struct json_fields *fields, const char *name, const char **out) ERR_MUST_CHECK;

/* Optional fields: *out is left alone when absent. */
err_t json_opt_u32(const struct json_fields *fields, const char *name, uint32_t min, uint32_t max,
                   uint32_t *out) ERR_MUST_CHECK;
err_t json_opt_number(const struct json_fields *fields, const char *name, double min, double max,
                      double *out) ERR_MUST_CHECK;
err_t json_opt_bool(const struct json_fields *fields, const char *name, bool *out) ERR_MUST_CHECK;
err_t json_opt_text(const struct json_fields *fields, const char *name, const char **out) ERR_MUST_CHECK;
/* out->object is NULL when absent; prefix (static text) is what messages put before the inner names. */
err_t json_opt_object(const struct json_fields *fields, const char *name, const char *prefix,
                      struct json_fields *out) ERR_MUST_CHECK;
/* *out is NULL when absent; else an array of at most max_items. */
err_t json_opt_array(const struct json_fields *fields, const char *name, size_t max_items,
                     const json_t **out) ERR_MUST_CHECK;
