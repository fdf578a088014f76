#include "router/service/answer_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLACE_BYTES_MAX = 128 };

struct checker {
    const json_t *root; /* schema */
    uint32_t n_steps;
    bool is_blind; /* something was too deep or too much to be looked at */
};

struct place {
    char text[PLACE_BYTES_MAX];
};

/* name: of a property; NULL = the element at index. */
static struct place inside(const struct place *place, const char *name, size_t index)
{
    struct place out;
    char step[48];
    if (name)
        snprintf(step, sizeof step, ".%.40s", name);
    else
        snprintf(step, sizeof step, "[%zu]", index);
    snprintf(out.text, sizeof out.text, "%.79s%s", place->text, step);
    return out;
}

#define UNFIT(place, ...) err_prefix(err_new(ERR_DATA_LOSS, __VA_ARGS__), "%s", (place)->text)

static bool is_of_type(const json_t *value, const char *type)
{
    if (strcmp(type, "integer") == 0)
        return json_is_integer(value) ||
               (json_is_real(value) && json_real_value(value) == floor(json_real_value(value)));
    return (strcmp(type, "object") == 0 && json_is_object(value)) ||
           (strcmp(type, "array") == 0 && json_is_array(value)) ||
           (strcmp(type, "string") == 0 && json_is_string(value)) ||
           (strcmp(type, "number") == 0 && json_is_number(value)) ||
           (strcmp(type, "boolean") == 0 && json_is_boolean(value)) ||
           (strcmp(type, "null") == 0 && json_is_null(value));
}

static err_t check_type(const json_t *schema, const json_t *value, const struct place *place)
{
    const json_t *type = json_object_get(schema, "type");
    if (json_is_string(type))
        return is_of_type(value, json_string_value(type))
                   ? err_ok()
                   : UNFIT(place, "it must be of type %.20s", json_string_value(type));
    if (!json_is_array(type))
        return err_ok();
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *one = json_string_value(json_array_get(type, i));
        if (one && is_of_type(value, one))
            return err_ok();
    }
    return UNFIT(place, "it is of none of the types that it may have");
}

static bool is_tired(struct checker *checker)
{
    bool is_tired = checker->n_steps++ >= ANSWER_CHECK_STEPS_MAX;
    checker->is_blind = checker->is_blind || is_tired;
    return is_tired;
}

/* json_equal, a step for each value. */
static bool is_equal(struct checker *checker, const json_t *a, const json_t *b)
{
    bool same = true;
    const char *name;
    json_t *member;
    if (is_tired(checker))
        return true;
    if (json_is_array(a) && json_is_array(b)) {
        same = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; same && i < json_array_size(a); i++)
            same = is_equal(checker, json_array_get(a, i), json_array_get(b, i));
        return same;
    }
    if (!json_is_object(a) || !json_is_object(b))
        return json_equal(a, b);
    if (json_object_size(a) != json_object_size(b))
        return false;
    json_object_foreach((json_t *)a, name, member)
    {
        const json_t *other = json_object_get(b, name);
        if (other == NULL || !is_equal(checker, member, other))
            return false;
    }
    return true;
}

static err_t check_values(struct checker *checker, const json_t *schema, const json_t *value,
                          const struct place *place)
{
    const json_t *one = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    if (one && !is_equal(checker, one, value))
        return UNFIT(place, "it is not the one value that it may have");
    if (!json_is_array(list))
        return err_ok();
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (is_equal(checker, json_array_get(list, i), value))
            return err_ok();
    }
    return UNFIT(place, "it is none of the values that it may have");
}

static err_t check(struct checker *checker, const json_t *schema, const json_t *value,
                   const struct place *place, int depth);

static err_t check_object(struct checker *checker, const json_t *schema, const json_t *value,
                          const struct place *place, int depth)
{
    const json_t *properties = json_object_get(schema, "properties"),
                 *required = json_object_get(schema, "required"),
                 *more = json_object_get(schema, "additionalProperties");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name && !is_tired(checker) && json_object_get(value, name) == NULL)
            return UNFIT(place, "\"%.40s\" is missing", name);
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)value, name, member)
    {
        struct place at = inside(place, name, 0);
        const json_t *own = json_object_get(properties, name);
        if (own == NULL && json_is_false(more))
            return UNFIT(&at, "the schema has no such property");
        if (own || json_is_object(more))
            TRY(check(checker, own ? own : more, member, &at, depth));
    }
    return err_ok();
}

/* "#/$defs/NAME"; NULL = not one of these. */
static const json_t *referred(const struct checker *checker, const char *reference)
{
    static const char *const PLACES[] = {"$defs", "definitions"};
    if (strcmp(reference, "#") == 0)
        return checker->root;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        char start[24];
        int length = snprintf(start, sizeof start, "#/%s/", PLACES[i]);
        if (strncmp(reference, start, (size_t)length) == 0)
            return json_object_get(json_object_get(checker->root, PLACES[i]), reference + length);
    }
    return NULL;
}

static bool bound(const json_t *schema, const char *name, double *out)
{
    const json_t *value = json_object_get(schema, name);
    *out = json_number_value(value);
    return json_is_number(value);
}

static err_t check_number(const json_t *schema, const json_t *value, const struct place *place)
{
    double number = json_number_value(value), limit;
    if (bound(schema, "minimum", &limit) && number < limit)
        return UNFIT(place, "it must be at least %g", limit);
    if (bound(schema, "maximum", &limit) && number > limit)
        return UNFIT(place, "it must be at most %g", limit);
    if (bound(schema, "exclusiveMinimum", &limit) && number <= limit)
        return UNFIT(place, "it must be more than %g", limit);
    if (bound(schema, "exclusiveMaximum", &limit) && number >= limit)
        return UNFIT(place, "it must be less than %g", limit);
    return err_ok();
}

static err_t check_count(const json_t *schema, const char *least, const char *most, size_t n,
                         const struct place *place)
{
    double limit;
    if (bound(schema, least, &limit) && (double)n < limit)
        return UNFIT(place, "it has %zu, which is less than %s", n, least);
    if (bound(schema, most, &limit) && (double)n > limit)
        return UNFIT(place, "it has %zu, which is more than %s", n, most);
    return err_ok();
}

/* Characters, as JSON Schema counts. */
static size_t length_of(const json_t *text)
{
    const char *bytes = json_string_value(text);
    size_t n = 0;
    for (size_t i = 0; i < json_string_length(text); i++)
        n += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return n;
}

static err_t check_unique(struct checker *checker, const json_t *schema, const json_t *list,
                          const struct place *place)
{
    if (!json_is_true(json_object_get(schema, "uniqueItems")))
        return err_ok();
    for (size_t i = 0; i < json_array_size(list); i++) {
        for (size_t j = 0; j < i && !checker->is_blind; j++) {
            bool same = is_equal(checker, json_array_get(list, j), json_array_get(list, i));
            if (same && !checker->is_blind)
                return UNFIT(place, "its elements %zu and %zu are the same", j, i);
        }
    }
    return err_ok();
}

static err_t check_sizes(struct checker *checker, const json_t *schema, const json_t *value,
                         const struct place *place)
{
    if (json_is_number(value))
        return check_number(schema, value, place);
    if (json_is_string(value))
        return check_count(schema, "minLength", "maxLength", length_of(value), place);
    if (json_is_object(value))
        return check_count(schema, "minProperties", "maxProperties", json_object_size(value), place);
    if (!json_is_array(value))
        return err_ok();
    TRY(check_count(schema, "minItems", "maxItems", json_array_size(value), place));
    return check_unique(checker, schema, value, place);
}

static err_t check_all(struct checker *checker, const json_t *schemas, const json_t *value,
                       const struct place *place, int depth)
{
    for (size_t i = 0; i < json_array_size(schemas); i++)
        TRY(check(checker, json_array_get(schemas, i), value, place, depth));
    return err_ok();
}

/* Where something was not looked at, nobody can say that it does not fit. */
static err_t check_one_and_not(struct checker *checker, const json_t *schema, const json_t *value,
                               const struct place *place, int depth)
{
    const json_t *one = json_object_get(schema, "oneOf"), *never = json_object_get(schema, "not");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(one); i++)
        n += check(checker, json_array_get(one, i), value, place, depth).code == ERR_OK;
    if (json_array_size(one) > 0 && n != 1 && !checker->is_blind)
        return UNFIT(place, "it fits %zu of the schemas of which it must fit one", n);
    if (never && check(checker, never, value, place, depth).code == ERR_OK && !checker->is_blind)
        return UNFIT(place, "it fits a schema that it must not fit");
    return err_ok();
}

static err_t check_items(struct checker *checker, const json_t *schema, const json_t *list,
                         const struct place *place, int depth)
{
    const json_t *first = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items");
    size_t n_first = json_array_size(first);
    for (size_t i = 0; (first || items) && i < json_array_size(list); i++) {
        struct place at = inside(place, NULL, i);
        const json_t *own = i < n_first ? json_array_get(first, i) : items;
        if (own)
            TRY(check(checker, own, json_array_get(list, i), &at, depth));
    }
    return err_ok();
}

static err_t check_any(struct checker *checker, const json_t *schemas, const json_t *value,
                       const struct place *place, int depth)
{
    size_t n = json_array_size(schemas);
    for (size_t i = 0; i < n; i++) {
        if (check(checker, json_array_get(schemas, i), value, place, depth).code == ERR_OK)
            return err_ok();
    }
    return n == 0 ? err_ok() : UNFIT(place, "it fits none of the schemas that it may fit");
}

static err_t check(struct checker *checker, const json_t *schema, const json_t *value,
                   const struct place *place, int depth)
{
    if (json_is_false(schema))
        return UNFIT(place, "nothing may be here");
    if (!json_is_object(schema) || is_tired(checker))
        return err_ok();
    if (depth >= ANSWER_CHECK_DEPTH_MAX) {
        checker->is_blind = true;
        return err_ok();
    }
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference)
        TRY(check(checker, referred(checker, reference), value, place, depth + 1));
    TRY(check_type(schema, value, place));
    TRY(check_values(checker, schema, value, place));
    TRY(check_sizes(checker, schema, value, place));
    TRY(check_all(checker, json_object_get(schema, "allOf"), value, place, depth + 1));
    TRY(check_any(checker, json_object_get(schema, "anyOf"), value, place, depth + 1));
    TRY(check_one_and_not(checker, schema, value, place, depth + 1));
    if (json_is_object(value))
        return check_object(checker, schema, value, place, depth + 1);
    return json_is_array(value) ? check_items(checker, schema, value, place, depth + 1) : err_ok();
}

/* --- what is not checked */

static const char *gap_of(struct checker *checker, const json_t *schema, int depth);

static const char *gap_of_each(struct checker *checker, const json_t *schemas, int depth)
{
    const char *gap = NULL, *name;
    json_t *member;
    for (size_t i = 0; gap == NULL && i < json_array_size(schemas); i++)
        gap = gap_of(checker, json_array_get(schemas, i), depth);
    json_object_foreach((json_t *)schemas, name, member) gap = gap ? gap : gap_of(checker, member, depth);
    return gap;
}

static const char *gap_of(struct checker *checker, const json_t *schema, int depth)
{
    static const char *const UNCHECKED[] = {"pattern",
                                            "patternProperties",
                                            "multipleOf",
                                            "if",
                                            "contains",
                                            "propertyNames",
                                            "dependentRequired",
                                            "dependentSchemas",
                                            "dependencies",
                                            "additionalItems",
                                            "unevaluatedProperties",
                                            "unevaluatedItems",
                                            "$dynamicRef",
                                            "$recursiveRef"};
    static const char *const LISTS[] = {"properties", "$defs", "definitions", "prefixItems",
                                        "anyOf",      "oneOf", "allOf"},
                             *const SINGLES[] = {"items", "additionalProperties", "not"};
    const char *gap = NULL;
    if (!json_is_object(schema))
        return NULL;
    if (is_tired(checker) || depth >= ANSWER_CHECK_DEPTH_MAX)
        return "its depth";
    for (size_t i = 0; i < sizeof UNCHECKED / sizeof *UNCHECKED; i++) {
        if (json_object_get(schema, UNCHECKED[i]))
            return UNCHECKED[i];
    }
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference && referred(checker, reference) == NULL)
        return "$ref";
    if (json_is_array(json_object_get(schema, "items")))
        return "items";
    for (size_t i = 0; gap == NULL && i < sizeof LISTS / sizeof *LISTS; i++)
        gap = gap_of_each(checker, json_object_get(schema, LISTS[i]), depth + 1);
    for (size_t i = 0; gap == NULL && i < sizeof SINGLES / sizeof *SINGLES; i++)
        gap = gap_of(checker, json_object_get(schema, SINGLES[i]), depth + 1);
    return gap;
}

static bool has_type(const json_t *format, const char *type)
{
    const char *own = json_string_value(json_object_get(format, "type"));
    return own && strcmp(own, type) == 0;
}

static bool asks_for_json(const json_t *response_format)
{
    return has_type(response_format, "json_object") || has_type(response_format, "json_schema");
}

bool answer_check_is_due(const json_t *request, bool all_calls)
{
    const json_t *tools = json_object_get(request, "tools");
    bool has_strict = all_calls && json_array_size(tools) > 0;
    for (size_t i = 0; !has_strict && i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        has_strict = json_is_true(json_object_get(function, "strict"));
    }
    return has_strict || asks_for_json(json_object_get(request, "response_format"));
}

const char *answer_check_gap(const json_t *response_format)
{
    const json_t *schema = json_object_get(json_object_get(response_format, "json_schema"), "schema");
    struct checker checker = {.root = schema};
    return has_type(response_format, "json_schema") ? gap_of(&checker, schema, 0) : NULL;
}

err_t answer_check(const json_t *response_format, const char *text, size_t text_bytes)
{
    if (!asks_for_json(response_format))
        return err_ok();
    json_error_t why;
    json_t *value = json_loadb(text, text_bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (value == NULL)
        return err_new(ERR_DATA_LOSS, "the answer is not the JSON that was asked for: %.100s", why.text);
    struct place place = {"answer"};
    const json_t *schema = json_object_get(json_object_get(response_format, "json_schema"), "schema");
    struct checker checker = {.root = schema};
    err_t e = err_ok();
    if (has_type(response_format, "json_object") && !json_is_object(value))
        e = UNFIT(&place, "it must be an object");
    else if (schema)
        e = check(&checker, schema, value, &place, 0);
    json_decref(value);
    return e;
}

static const json_t *function_named(const json_t *tools, const char *name)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        if (own && strcmp(own, name) == 0)
            return function;
    }
    return NULL;
}

err_t answer_check_call(const json_t *tools, bool all_calls, const char *name, const char *arguments,
                        size_t arguments_bytes)
{
    const json_t *function = function_named(tools, name);
    if (function == NULL)
        return err_new(ERR_DATA_LOSS, "the answer calls \"%.60s\", which is none of the request's tools",
                       name);
    if (!all_calls && !json_is_true(json_object_get(function, "strict")))
        return err_ok();
    json_error_t why;
    json_t *value = arguments_bytes > 0 ? json_loadb(arguments, arguments_bytes,
                                                     JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why)
                                        : json_object();
    if (value == NULL)
        return err_new(ERR_DATA_LOSS, "the arguments for \"%.60s\" are no JSON", name);
    struct place place;
    snprintf(place.text, sizeof place.text, "arguments for \"%.60s\"", name);
    struct checker checker = {.root = json_object_get(function, "parameters")};
    err_t e = json_is_object(value) ? check(&checker, checker.root, value, &place, 0)
                                    : UNFIT(&place, "they must be an object");
    json_decref(value);
    return e;
}
