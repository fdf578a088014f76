#include "proto/openai_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/checked.h"
#include "base/json_bounds.h"
#include "proto/json_read.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

/* --- memory and parsing */

struct scratch_block {
    struct scratch_block *next;
    max_align_t data[];
};

void openai_scratch_free(struct openai_scratch *scratch)
{
    json_decref(scratch->document);
    scratch->document = NULL;
    for (struct scratch_block *block = scratch->blocks, *next; block; block = next) {
        next = block->next;
        mem_free(block);
    }
    scratch->blocks = NULL;
    scratch->beyond = NULL;
}

err_t openai_allocate(struct openai_scratch *scratch, size_t count, size_t size_bytes, void **out)
{
    size_t bytes, total;
    struct scratch_block *block = NULL;
    if (checked_mul(count, size_bytes, &bytes) && checked_add(bytes, sizeof *block, &total))
        block = mem_alloc(total);
    if (!block)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request's lists (%zu entries)", count);
    block->next = scratch->blocks;
    scratch->blocks = block;
    *out = block->data;
    return err_ok();
}

static err_t print_arguments(struct openai_scratch *scratch, const char **out, const char *format,
                             va_list arguments)
{
    void *memory;
    TRY(openai_allocate(scratch, ERR_MESSAGE_MAX, 1, &memory));
    (void)vsnprintf(memory, ERR_MESSAGE_MAX, format, arguments);
    *out = memory;
    return err_ok();
}

err_t openai_print(struct openai_scratch *scratch, const char **out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    err_t e = print_arguments(scratch, out, format, arguments);
    va_end(arguments);
    return e;
}

err_t openai_parse(const char *body, size_t body_bytes, struct openai_scratch *scratch, const json_t **root)
{
    if (body_bytes == 0)
        return INVALID("the request has no body; it must be a JSON object");
    TRY(json_bounds_add(&scratch->bounds, "the request's JSON", body, body_bytes));
    json_error_t failure;
    json_t *document = json_read(body, body_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &failure);
    if (!document && json_error_code(&failure) == json_error_out_of_memory)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request of %zu bytes", body_bytes);
    if (!document)
        return INVALID("the body is not JSON: line %d, column %d: %.*s", failure.line, failure.column,
                       json_fault_bytes(failure.text), failure.text);
    scratch->document = document;
    if (!json_is_object(document))
        return INVALID("the body is a JSON list; it must be an object");
    *root = document;
    return err_ok();
}

/* --- fields */

void openai_blame(struct openai_scratch *scratch, const char *name, ...)
{
    va_list arguments;
    va_start(arguments, name);
    (void)vsnprintf(scratch->param, sizeof scratch->param, name, arguments);
    va_end(arguments);
}

err_t openai_lacking(struct openai_scratch *scratch, const char *name, const char *format, ...)
{
    if (scratch->passes_on && scratch->beyond)
        return err_ok();
    const char *message = NULL;
    va_list arguments;
    va_start(arguments, format);
    err_t e = print_arguments(scratch, &message, format, arguments);
    va_end(arguments);
    if (e.code != ERR_OK)
        return e;
    openai_blame(scratch, "%s", scratch->passes_on ? "" : name);
    if (!scratch->passes_on)
        return err_new(ERR_UNIMPLEMENTED, "%s", message);
    scratch->beyond = message;
    return err_ok();
}

bool openai_text_is(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

const json_t *openai_find(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool openai_asks_for_nothing(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

err_t openai_wrong_type(struct openai_scratch *scratch, const char *name, const json_t *value,
                        const char *expected)
{
    openai_blame(scratch, "%s", name);
    if (!value)
        return INVALID("%s is missing; it must be %s", name, expected);
    return INVALID("%s is %s; it must be %s", name, type_name(value), expected);
}

static void set_found(bool *found, const json_t *value)
{
    if (found)
        *found = value != NULL;
}

err_t openai_bool(struct openai_scratch *scratch, const json_t *object, const char *name, bool *out,
                  bool *found)
{
    const json_t *value = openai_find(object, name);
    set_found(found, value);
    if (!value)
        return err_ok();
    if (!json_is_boolean(value))
        return openai_wrong_type(scratch, name, value, "true or false");
    *out = json_is_true(value);
    return err_ok();
}

err_t openai_number(struct openai_scratch *scratch, const json_t *object, const char *name, float *out,
                    bool *found)
{
    const json_t *value = openai_find(object, name);
    set_found(found, value);
    if (!value)
        return err_ok();
    if (!json_is_number(value))
        return openai_wrong_type(scratch, name, value, "a number");
    *out = (float)json_number_value(value);
    return err_ok();
}

/* 2^63: from there on a number is no int64_t. */
static const double INT64_END = 0x1p63;

static bool is_whole(const json_t *value)
{
    return json_is_real(value) && json_real_value(value) == trunc(json_real_value(value));
}

/* A number without a fraction; false for all else. */
static bool integer_of(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (!is_whole(value) || !(fabs(json_real_value(value)) < INT64_END))
        return false;
    *out = (int64_t)json_real_value(value);
    return true;
}

err_t openai_integer(struct openai_scratch *scratch, const json_t *object, const char *name, int64_t low,
                     int64_t high, int64_t *out, bool *found)
{
    const json_t *value = openai_find(object, name);
    int64_t number;
    set_found(found, value);
    if (!value)
        return err_ok();
    if (is_whole(value) && !integer_of(value, &number)) {
        openai_blame(scratch, "%s", name);
        return INVALID("%s is %.15g; it must be %lld to %lld", name, json_real_value(value), (long long)low,
                       (long long)high);
    }
    if (!integer_of(value, &number))
        return openai_wrong_type(scratch, name, value, "an integer");
    openai_blame(scratch, "%s", name);
    if (number < low || number > high)
        return INVALID("%s is %lld; it must be %lld to %lld", name, (long long)number, (long long)low,
                       (long long)high);
    openai_blame(scratch, "%s", "");
    *out = number;
    return err_ok();
}

static err_t name_of(struct openai_scratch *scratch, const json_t *value, const char *name, const char **out)
{
    if (!json_is_string(value))
        return openai_wrong_type(scratch, name, value, "a string");
    *out = json_string_value(value);
    if (strlen(*out) == json_string_length(value))
        return err_ok();
    openai_blame(scratch, "%s", name);
    return INVALID("%s contains a NUL character", name);
}

err_t openai_name(struct openai_scratch *scratch, const json_t *object, const char *name, const char **out)
{
    const json_t *value = openai_find(object, name);
    return value ? name_of(scratch, value, name, out) : err_ok();
}

err_t openai_ids(struct openai_scratch *scratch, const json_t *array, const char *name, const uint32_t **out,
                 size_t *n)
{
    if (!json_is_array(array))
        return openai_wrong_type(scratch, name, array, "a list of token ids");
    *n = json_array_size(array);
    void *memory;
    TRY(openai_allocate(scratch, *n, sizeof(uint32_t), &memory));
    uint32_t *ids = memory;
    for (size_t i = 0; i < *n; i++) {
        int64_t id = -1;
        if (!integer_of(json_array_get(array, i), &id) || id < 0 || id > UINT32_MAX) {
            openai_blame(scratch, "%s", name);
            return INVALID("%s[%zu] is not a token id", name, i);
        }
        ids[i] = (uint32_t)id;
    }
    *out = ids;
    return err_ok();
}

err_t openai_names(struct openai_scratch *scratch, const json_t *object, const char *name,
                   const char *const **out, size_t *n)
{
    const json_t *value = openai_find(object, name);
    *n = 0;
    if (!value)
        return err_ok();
    if (!json_is_string(value) && !json_is_array(value))
        return openai_wrong_type(scratch, name, value, "a string or a list of strings");
    size_t count = json_is_string(value) ? 1 : json_array_size(value);
    void *memory;
    TRY(openai_allocate(scratch, count, sizeof(char *), &memory));
    const char **names = memory;
    for (size_t i = 0; i < count; i++) {
        if (json_is_string(value)) {
            TRY(name_of(scratch, value, name, &names[i]));
            continue;
        }
        char entry[OPENAI_PARAM_BYTES_MAX];
        (void)snprintf(entry, sizeof entry, "%s[%zu]", name, i);
        TRY(name_of(scratch, json_array_get(value, i), entry, &names[i]));
    }
    *out = names;
    *n = count;
    return err_ok();
}
