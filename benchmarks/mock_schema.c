#include "benchmarks/mock_schema.h"

#include <string.h>

static json_t *instance(const json_t *root, const json_t *schema, int depth);

/* "#/$defs/place" */
static const json_t *resolve(const json_t *root, const char *reference)
{
    if (strncmp(reference, "#/", 2) != 0)
        return root;
    const json_t *at = root;
    for (const char *part = reference + 2; at && *part;) {
        size_t n = strcspn(part, "/");
        at = json_object_getn(at, part, n);
        part += n + (part[n] == '/');
    }
    return at;
}

static const json_t *first_of(const json_t *schema, const char *key)
{
    return json_array_get(json_object_get(schema, key), 0);
}

static const char *type_of(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    if (json_is_array(type))
        type = json_array_get(type, 0);
    if (json_is_string(type))
        return json_string_value(type);
    return json_object_get(schema, "properties") ? "object"
           : json_object_get(schema, "items")    ? "array"
                                                 : "string";
}

static json_t *object_of(const json_t *root, const json_t *schema, int depth)
{
    json_t *out = json_object(), *name;
    const json_t *properties = json_object_get(schema, "properties");
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, name)
    {
        const char *key = json_string_value(name);
        if (key)
            (void)json_object_set_new(out, key, instance(root, json_object_get(properties, key), depth + 1));
    }
    return out;
}

static json_t *array_of(const json_t *root, const json_t *schema, int depth)
{
    json_t *out = json_array();
    json_int_t n = json_integer_value(json_object_get(schema, "minItems"));
    for (json_int_t i = 0; i < n && i < MOCK_SCHEMA_ITEMS_MAX; i++)
        (void)json_array_append_new(out, instance(root, json_object_get(schema, "items"), depth + 1));
    return out;
}

static json_t *text_of(const json_t *schema)
{
    char text[MOCK_SCHEMA_TEXT_BYTES_MAX];
    json_int_t n = json_integer_value(json_object_get(schema, "minLength"));
    size_t size = n < 0 ? 0 : n > MOCK_SCHEMA_TEXT_BYTES_MAX ? MOCK_SCHEMA_TEXT_BYTES_MAX : (size_t)n;
    memset(text, 'm', sizeof text);
    return json_stringn(text, size);
}

static json_t *number_of(const json_t *schema, bool is_integer)
{
    const json_t *least = json_object_get(schema, "minimum"),
                 *above = json_object_get(schema, "exclusiveMinimum"),
                 *most = json_object_get(schema, "maximum");
    double value = json_is_number(least)   ? json_number_value(least)
                   : json_is_number(above) ? json_number_value(above) + 1
                                           : 0;
    if (json_is_number(most) && value > json_number_value(most))
        value = json_number_value(most);
    bool fits = value > -9e15 && value < 9e15;
    return is_integer ? json_integer(fits ? (json_int_t)value : 0) : json_real(fits ? value : 0);
}

static json_t *instance(const json_t *root, const json_t *schema, int depth)
{
    static const char *const CHOICES[] = {"anyOf", "oneOf", "allOf"};
    if (depth > MOCK_SCHEMA_DEPTH_MAX)
        return json_null();
    const json_t *fixed = json_object_get(schema, "const");
    if (!fixed)
        fixed = first_of(schema, "enum");
    if (fixed)
        return json_deep_copy(fixed);
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference)
        return instance(root, resolve(root, reference), depth + 1);
    for (size_t i = 0; i < sizeof CHOICES / sizeof *CHOICES; i++)
        if (first_of(schema, CHOICES[i]))
            return instance(root, first_of(schema, CHOICES[i]), depth + 1);
    const char *type = type_of(schema);
    if (strcmp(type, "object") == 0)
        return object_of(root, schema, depth);
    if (strcmp(type, "array") == 0)
        return array_of(root, schema, depth);
    if (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0)
        return number_of(schema, type[0] == 'i');
    if (strcmp(type, "boolean") == 0)
        return json_false();
    return strcmp(type, "null") == 0 ? json_null() : text_of(schema);
}

static int append(const char *bytes, size_t size, void *buffer)
{
    return buffer_append(buffer, bytes, size) ? 0 : -1;
}

bool mock_schema_write(const json_t *schema, struct buffer *out)
{
    json_t *value = instance(schema, schema, 0);
    bool good = value && json_dump_callback(value, append, out, JSON_COMPACT | JSON_ENCODE_ANY) == 0;
    json_decref(value);
    return good;
}
