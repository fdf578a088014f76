/* What a JSON text takes once it is parsed is decided by its values, not its bytes: they are counted first.
 */
#pragma once

#include <stddef.h>
#include "base/error.h"

enum {
    JSON_VALUES_MAX = 1 << 19,
    JSON_CONTAINERS_MAX = 1 << 16, /* of them lists and objects */
    JSON_STRINGS_MAX = 1 << 16,    /* and strings, names of fields included */
    JSON_DEPTH_MAX = 32,           /* of nesting */
};

/* Of all texts that are parsed for one purpose. Zero-initialise. */
struct json_bounds {
    size_t n_values, n_containers, n_strings;
};

/* The bytes of what jansson says of a fault up to where it quotes the text, which it may cut within a
 * character. */
int json_fault_bytes(const char *fault);
/* Adds a text, which may be anything. INVALID_ARGUMENT past a limit; what: how the message calls it, such as
 * "the request's JSON". Pure. */
err_t json_bounds_add(struct json_bounds *counted, const char *what, const char *text,
                      size_t text_bytes) ERR_MUST_CHECK;
