/* A configuration file in YAML, and its fields with errors that say where: "route.yaml:12: providers[0].kind:
 * ...". Maps take the keys that their reader names and no others. YAML by libyaml; aliases are refused, so
 * that a file of a few bytes cannot mean gigabytes. Strings belong to the file. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

enum {
    YAML_FILE_BYTES_MAX = 1 << 20,
    YAML_DEPTH_MAX = 16,
    YAML_PATH_BYTES_MAX = 160, /* of a field's place; what is longer is cut */
};

struct yaml_file;

/* name: for messages, copied. INVALID_ARGUMENT with line and column when it is not YAML. */
err_t yaml_file_parse(const char *name, const char *text, size_t text_bytes,
                      struct yaml_file **out) ERR_MUST_CHECK;
void yaml_file_close(struct yaml_file *file); /* NULL is fine */

/* A value and its place. */
struct yaml_value {
    const struct yaml_file *file;
    const void *node; /* libyaml's; NULL = not there */
    char path[YAML_PATH_BYTES_MAX];
};

/* The whole document. */
struct yaml_value yaml_root(const struct yaml_file *file);
bool yaml_is_there(const struct yaml_value *value); /* and is not null or empty */
/* "route.yaml:12: providers[0].url: <message>" */
err_t yaml_wrong(const struct yaml_value *value, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A map with no keys but these (NULL ends the list), none of them twice. */
err_t yaml_map(const struct yaml_value *value, const char *const *keys) ERR_MUST_CHECK;
/* The value of a key of a map; not there when it is none. */
struct yaml_value yaml_at(const struct yaml_value *map, const char *key);
/* Elements of a list; 0 when it is not there. */
err_t yaml_list(const struct yaml_value *value, size_t *n) ERR_MUST_CHECK;
struct yaml_value yaml_element(const struct yaml_value *list, size_t index);

/* Each leaves *out alone when the value is not there. */
err_t yaml_text(const struct yaml_value *value, const char **out) ERR_MUST_CHECK; /* not empty */
err_t yaml_bool(const struct yaml_value *value, bool *out) ERR_MUST_CHECK;        /* true, false, yes, no */
err_t yaml_integer(const struct yaml_value *value, int64_t low, int64_t high, int64_t *out) ERR_MUST_CHECK;
err_t yaml_number(const struct yaml_value *value, double low, double high, double *out) ERR_MUST_CHECK;
/* "300ms", "5s", "2m", "1h", "30d"; 0 is 0. Milliseconds. */
err_t yaml_duration_ms(const struct yaml_value *value, int64_t *out) ERR_MUST_CHECK;
/* Dollars with at most nine digits after the point, like 0.0375. Nano-dollars. */
err_t yaml_money(const struct yaml_value *value, int64_t *out) ERR_MUST_CHECK;
/* One of the names (NULL ends the list); *out is its index. */
err_t yaml_choice(const struct yaml_value *value, const char *const *names, int *out) ERR_MUST_CHECK;
/* The value must be there. */
err_t yaml_required(const struct yaml_value *value) ERR_MUST_CHECK;

/* The value as text that is the same for every way of writing it: keys sorted, no comments, nothing that is
 * not there. For fingerprints of values that their reader has accepted. False when it does not fit. */
bool yaml_append_canonical(const struct yaml_value *value, struct buffer *out);
