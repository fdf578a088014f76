/* The key of whoever is asked: out of the environment (key_env: NAME) or a file (key_file: PATH), and never
 * in the configuration itself. */
#pragma once

#include "base/error.h"
#include "router/config/yaml_fields.h"

enum { KEY_FIELD_BYTES_MAX = 2048 };

/* map: the one that has key_env or key_file; *out is NULL when it has neither. what: whose key, for messages.
 * environment: getenv, or a test's. INVALID_ARGUMENT names file, line and field; NOT_FOUND and IO name the
 * file of the key. Messages do not hold it. */
err_t key_field_read(const struct yaml_value *map, const char *what, char *(*environment)(const char *name),
                     const char **out) ERR_MUST_CHECK;
/* Wipes it and frees it. NULL is fine. */
void key_field_free(const char *key);
