#include "router/providers/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"

enum {
    DECIMAL_DIGITS = 15, /* a double keeps any so many (DBL_DIG) */
    DIGITS_MOST = 17,    /* tell any two doubles apart */
    MEMBERS_FEW = 32,    /* of an object: their names are sorted without allocating */
};

static int append(const char *bytes, size_t size, void *buffer)
{
    return buffer_append(buffer, bytes, size) ? 0 : -1;
}

static bool write_real(struct buffer *text, double value)
{
    char digits[40];
    for (int precision = 1; precision <= DIGITS_MOST; precision++) {
        (void)snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    const char *end = strpbrk(digits, ".e") ? "" : ".0"; /* it stays no integer */
    return buffer_append_text(text, digits) && buffer_append_text(text, end);
}

static bool write_value(struct buffer *text, const json_t *value, bool is_sorted, int depth);

static bool write_array(struct buffer *text, const json_t *value, bool is_sorted, int depth)
{
    bool fits = buffer_append(text, "[", 1);
    for (size_t i = 0; fits && i < json_array_size(value); i++)
        fits = (i == 0 || buffer_append(text, ",", 1)) &&
               write_value(text, json_array_get(value, i), is_sorted, depth + 1);
    return fits && buffer_append(text, "]", 1);
}

static bool write_member(struct buffer *text, const char *name, const json_t *value, bool is_first,
                         bool is_sorted, int depth)
{
    return (is_first || buffer_append(text, ",", 1)) && buffer_append_json_string(text, name, strlen(name)) &&
           buffer_append(text, ":", 1) && write_value(text, value, is_sorted, depth + 1);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool write_sorted_object(struct buffer *text, const json_t *value, int depth)
{
    const char *few[MEMBERS_FEW], *name, **names = few;
    json_t *member;
    size_t n = 0, size = json_object_size(value);
    if (size > MEMBERS_FEW)
        names = mem_alloc_array(size, sizeof *names);
    if (names == NULL)
        return false;
    json_object_foreach((json_t *)value, name, member) names[n++] = name;
    qsort(names, n, sizeof *names, compare_names);
    bool fits = buffer_append(text, "{", 1);
    for (size_t i = 0; fits && i < n; i++)
        fits = write_member(text, names[i], json_object_get(value, names[i]), i == 0, true, depth);
    if (names != few)
        mem_free(names);
    return fits && buffer_append(text, "}", 1);
}

static bool write_object(struct buffer *text, const json_t *value, int depth)
{
    const char *name;
    json_t *member;
    bool fits = buffer_append(text, "{", 1), is_first = true;
    json_object_foreach((json_t *)value, name, member)
    {
        fits = fits && write_member(text, name, member, is_first, false, depth);
        is_first = false;
    }
    return fits && buffer_append(text, "}", 1);
}

static bool write_value(struct buffer *text, const json_t *value, bool is_sorted, int depth)
{
    if (value == NULL || depth > JSON_TEXT_DEPTH_MAX)
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return is_sorted ? write_sorted_object(text, value, depth) : write_object(text, value, depth);
    case JSON_ARRAY:
        return write_array(text, value, is_sorted, depth);
    case JSON_STRING:
        return buffer_append_json_string(text, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return buffer_append_integer(text, json_integer_value(value));
    case JSON_REAL:
        return write_real(text, json_real_value(value));
    case JSON_TRUE:
        return buffer_append_text(text, "true");
    case JSON_FALSE:
        return buffer_append_text(text, "false");
    case JSON_NULL:
        return buffer_append_text(text, "null");
    }
    return false;
}

static err_t append_value(struct buffer *text, const json_t *value, bool is_sorted)
{
    return write_value(text, value, is_sorted, 0)
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "JSON text of more than %zu bytes, or no memory for it",
                         text->limit_bytes);
}

err_t json_text_append(struct buffer *text, const json_t *value)
{
    return append_value(text, value, false);
}

err_t json_text_append_sorted(struct buffer *text, const json_t *value)
{
    return append_value(text, value, true);
}

err_t json_text_append_decimal(struct buffer *text, const json_t *value)
{
    if (json_dump_callback(value, append, text,
                           JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(DECIMAL_DIGITS)) == 0)
        return err_ok();
    return err_new(ERR_RESOURCE_EXHAUSTED, "JSON text of more than %zu bytes, or no memory for it",
                   text->limit_bytes);
}
