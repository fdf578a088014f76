#include "model/json_fields.h"

#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

enum { KEY_SHOWN_MAX = 80 }; /* bytes of a key that a message repeats */

/* The last "key": before the place where the parser stopped, so that a message can name the field. */
static size_t last_key(const char *text, size_t end, const char **key)
{
    size_t colon = end;
    while (colon > 0) {
        colon--;
        if (text[colon] != ':')
            continue;
        size_t close = colon;
        while (close > 0 && (text[close - 1] == ' ' || text[close - 1] == '\t' || text[close - 1] == '\n' ||
                             text[close - 1] == '\r'))
            close--;
        if (close == 0 || text[close - 1] != '"')
            continue;
        close--;
        size_t open = close;
        while (open > 0 && text[open - 1] != '"' && close - open < KEY_SHOWN_MAX)
            open--;
        *key = text + open;
        return close - open;
    }
    return 0;
}

err_t json_object_parse(const char *file, const char *text, size_t size_bytes, json_t **root)
{
    *root = NULL;
    json_error_t error;
    json_t *value = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        size_t end =
            error.position > 0 && (size_t)error.position < size_bytes ? (size_t)error.position : size_bytes;
        const char *key = "";
        size_t key_bytes = last_key(text, end, &key);
        if (key_bytes == 0)
            return err_new(ERR_DATA_LOSS, "%s: not valid JSON at line %d, column %d: %s", file, error.line,
                           error.column, error.text);
        return err_new(ERR_DATA_LOSS,
                       "%s: not valid JSON at line %d, column %d, in or after field \"%.*s\": %s", file,
                       error.line, error.column, (int)key_bytes, key, error.text);
    }
    if (!json_is_object(value)) {
        json_decref(value);
        return err_new(ERR_DATA_LOSS, "%s: the top level must be a JSON object", file);
    }
    *root = value;
    return err_ok();
}

err_t json_object_load(const char *path, json_t **root)
{
    *root = NULL;
    char *text = NULL;
    size_t size_bytes = 0;
    TRY(file_read(path, JSON_FILE_MAX_BYTES, &text, &size_bytes));
    err_t e = json_object_parse(path, text, size_bytes, root);
    mem_free(text);
    return e;
}

static const json_t *field_find(const struct json_fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    return value && !json_is_null(value) ? value : NULL;
}

bool json_has(const struct json_fields *fields, const char *name)
{
    return field_find(fields, name) != NULL;
}

static const char *kind_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static err_t wrong_kind(const struct json_fields *fields, const char *name, const char *expected,
                        const json_t *value)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" must be %s, it is %s", fields->file, fields->prefix,
                   name, expected, kind_name(value));
}

static err_t absent(const struct json_fields *fields, const char *name)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" is missing", fields->file, fields->prefix, name);
}

err_t json_opt_u32(const struct json_fields *fields, const char *name, uint32_t min, uint32_t max,
                   uint32_t *out)
{
    const json_t *value = field_find(fields, name);
    if (!value)
        return err_ok();
    json_int_t n = json_integer_value(value);
    if (json_is_real(value)) {
        /* Some writers put 2048.0 where 2048 is meant. */
        double real = json_real_value(value);
        if (!(real >= 0 && real <= (double)UINT32_MAX && real == floor(real)))
            return wrong_kind(fields, name, "an integer", value);
        n = (json_int_t)real;
    } else if (!json_is_integer(value)) {
        return wrong_kind(fields, name, "an integer", value);
    }
    if (n < (json_int_t)min || n > (json_int_t)max)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" is %lld, it must be from %u to %u", fields->file,
                       fields->prefix, name, (long long)n, min, max);
    *out = (uint32_t)n;
    return err_ok();
}

err_t json_get_u32(const struct json_fields *fields, const char *name, uint32_t min, uint32_t max,
                   uint32_t *out)
{
    if (!json_has(fields, name))
        return absent(fields, name);
    return json_opt_u32(fields, name, min, max, out);
}

err_t json_opt_number(const struct json_fields *fields, const char *name, double min, double max, double *out)
{
    const json_t *value = field_find(fields, name);
    if (!value)
        return err_ok();
    if (!json_is_number(value))
        return wrong_kind(fields, name, "a number", value);
    double number = json_number_value(value);
    if (!(number >= min && number <= max)) /* NaN fails too */
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" is %g, it must be from %g to %g", fields->file,
                       fields->prefix, name, number, min, max);
    *out = number;
    return err_ok();
}

err_t json_get_number(const struct json_fields *fields, const char *name, double min, double max, double *out)
{
    if (!json_has(fields, name))
        return absent(fields, name);
    return json_opt_number(fields, name, min, max, out);
}

err_t json_opt_bool(const struct json_fields *fields, const char *name, bool *out)
{
    const json_t *value = field_find(fields, name);
    if (!value)
        return err_ok();
    if (!json_is_boolean(value))
        return wrong_kind(fields, name, "true or false", value);
    *out = json_is_true(value);
    return err_ok();
}

err_t json_opt_text(const struct json_fields *fields, const char *name, const char **out)
{
    const json_t *value = field_find(fields, name);
    if (!value)
        return err_ok();
    if (!json_is_string(value))
        return wrong_kind(fields, name, "a string", value);
    *out = json_string_value(value);
    return err_ok();
}

err_t json_get_text(const struct json_fields *fields, const char *name, const char **out)
{
    if (!json_has(fields, name))
        return absent(fields, name);
    return json_opt_text(fields, name, out);
}

err_t json_opt_object(const struct json_fields *fields, const char *name, const char *prefix,
                      struct json_fields *out)
{
    const json_t *value = field_find(fields, name);
    *out = (struct json_fields){.file = fields->file, .prefix = prefix, .object = NULL};
    if (!value)
        return err_ok();
    if (!json_is_object(value))
        return wrong_kind(fields, name, "an object", value);
    out->object = value;
    return err_ok();
}

err_t json_opt_array(const struct json_fields *fields, const char *name, size_t max_items, const json_t **out)
{
    *out = NULL;
    const json_t *value = field_find(fields, name);
    if (!value)
        return err_ok();
    if (!json_is_array(value))
        return wrong_kind(fields, name, "an array", value);
    if (json_array_size(value) > max_items)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" has %zu items, at most %zu are allowed",
                       fields->file, fields->prefix, name, json_array_size(value), max_items);
    *out = value;
    return err_ok();
}
