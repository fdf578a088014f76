#include "text/json_field.h"

#include <string.h>

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

static err_t wrong_type(const char *key, const json_t *value, const char *expected)
{
    if (value == NULL)
        return err_new(ERR_DATA_LOSS, "\"%s\" is missing, expected %s", key, expected);
    return err_new(ERR_DATA_LOSS, "\"%s\" is %s, expected %s", key, type_name(value), expected);
}

err_t json_field_text_required(const json_t *object, const char *key, const char **out, size_t *size_bytes)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return wrong_type(key, value, "a string");
    *out = json_string_value(value);
    *size_bytes = json_string_length(value);
    return err_ok();
}

err_t json_field_text(const json_t *object, const char *key, const char **out, size_t *size_bytes)
{
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    *size_bytes = 0;
    if (value == NULL || json_is_null(value))
        return err_ok();
    return json_field_text_required(object, key, out, size_bytes);
}

err_t json_field_bool(const json_t *object, const char *key, bool fallback, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value))
        return err_ok();
    if (!json_is_boolean(value))
        return wrong_type(key, value, "true or false");
    *out = json_is_true(value);
    return err_ok();
}

err_t json_field_uint(const json_t *object, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value))
        return wrong_type(key, value, "a whole number");
    json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number > max)
        return err_new(ERR_DATA_LOSS, "\"%s\" is %lld, expected 0 to %llu", key, (long long)number,
                       (unsigned long long)max);
    *out = (uint64_t)number;
    return err_ok();
}

err_t json_field_array(const json_t *object, const char *key, const json_t **out)
{
    *out = json_object_get(object, key);
    return json_is_array(*out) ? err_ok() : wrong_type(key, *out, "an array");
}

err_t json_field_type(const json_t *object, const char **out)
{
    if (!json_is_object(object))
        return err_new(ERR_DATA_LOSS, "%s where an object with a \"type\" is expected",
                       object ? type_name(object) : "nothing");
    size_t size_bytes;
    return json_field_text_required(object, "type", out, &size_bytes);
}

err_t json_field_pattern(const json_t *object, const char **out, size_t *size_bytes, bool *is_regex)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const json_t *string = json_object_get(pattern, "String");
    const json_t *regex = json_object_get(pattern, "Regex");
    *is_regex = string == NULL;
    const json_t *value = string ? string : regex;
    if (!json_is_string(value))
        return err_new(ERR_DATA_LOSS, "\"pattern\" must be {\"String\": ..} or {\"Regex\": ..}");
    *out = json_string_value(value);
    *size_bytes = json_string_length(value);
    return err_ok();
}

err_t json_field_sequence(const json_t *object, const char *key, unsigned depth, const json_t **list)
{
    const char *type;
    *list = NULL;
    TRY(json_field_type(object, &type));
    if (strcmp(type, "Sequence") != 0)
        return err_ok();
    if (depth == SEQUENCE_DEPTH_MAX)
        return err_new(ERR_DATA_LOSS, "more than %d of \"Sequence\" within each other", SEQUENCE_DEPTH_MAX);
    return json_field_array(object, key, list);
}
