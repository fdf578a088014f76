#include "text/template_json.h"

#include <string.h>
#include "base/json_bounds.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

/* --- what may come */

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static err_t check_names(const json_t *object, const char *where, const char *const *taken)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) if (is_one_of(name, taken)) return INVALID(
        "%s sets %s, which stands elsewhere in the request or is the model's", where, name);
    return err_ok();
}

static err_t check_object(const json_t *json, size_t n_messages)
{
    static const char *const OURS[] = {"add_generation_prompt", "bos_token", "eos_token", NULL};
    static const char *const OURS_OF_MESSAGES[] = {"role", "content", NULL};
    if (!json_is_object(json))
        return INVALID("template_json is no JSON object");
    TRY(check_names(json, "template_json", OURS));
    const json_t *messages = json_object_get(json, "messages");
    if (!messages)
        return err_ok();
    if (!json_is_array(messages) || json_array_size(messages) != n_messages)
        return INVALID("template_json.messages must be a list of %zu objects, one for each message",
                       n_messages);
    for (size_t i = 0; i < n_messages; i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message))
            return INVALID("template_json.messages[%zu] is no object", i);
        TRY(check_names(message, "an object of template_json.messages", OURS_OF_MESSAGES));
    }
    return err_ok();
}

err_t template_json_parse(const struct template_input *input, json_t **out)
{
    struct json_bounds bounds = {0};
    json_error_t failure;
    *out = NULL;
    if (!input->json)
        return err_ok();
    TRY(json_bounds_add(&bounds, "template_json", input->json, input->json_bytes));
    json_t *json =
        json_loadb(input->json, input->json_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &failure);
    if (!json && json_error_code(&failure) == json_error_out_of_memory)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for template_json of %zu bytes", input->json_bytes);
    if (!json)
        return INVALID("template_json is not JSON: line %d, column %d: %.*s", failure.line, failure.column,
                       json_fault_bytes(failure.text), failure.text);
    err_t e = check_object(json, input->n_messages);
    if (e.code != ERR_OK)
        json_decref(json);
    else
        *out = json;
    return e;
}

/* --- values */

static bool text_value(struct run *run, const char *data, size_t size_bytes, const uint8_t *ones,
                       struct value *out)
{
    struct text *text = run_alloc(run, NULL, sizeof *text);
    if (text == NULL)
        return false;
    *text = (struct text){data, ones, size_bytes};
    *out = (struct value){.kind = VALUE_TEXT, .text = text};
    return true;
}

static bool value_of(struct run *run, const json_t *json, const uint8_t *ones, struct value *out);

static bool list_value(struct run *run, const json_t *json, const uint8_t *ones, struct value *out)
{
    struct value *items;
    if (!list_new(run, NULL, json_array_size(json), VALUE_LIST, &items, out))
        return false;
    for (size_t i = 0; i < json_array_size(json); i++)
        if (!value_of(run, json_array_get(json, i), ones, &items[i]))
            return false;
    return true;
}

bool template_json_fields(struct run *run, const json_t *object, const uint8_t *ones, struct dict *dict)
{
    const char *name;
    json_t *field;
    json_object_foreach((json_t *)object, name, field)
    {
        struct value key, value;
        if (!text_value(run, name, strlen(name), ones, &key) || !value_of(run, field, ones, &value) ||
            !dict_set(run, NULL, dict, &key, &value))
            return false;
    }
    return true;
}

/* As deep as base/json_bounds.h lets it be. */
static bool value_of(struct run *run, const json_t *json, const uint8_t *ones, struct value *out)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return dict_new(run, NULL, VALUE_DICT, out) && template_json_fields(run, json, ones, out->dict);
    case JSON_ARRAY:
        return list_value(run, json, ones, out);
    case JSON_STRING:
        return text_value(run, json_string_value(json), json_string_length(json), ones, out);
    case JSON_INTEGER:
        *out = value_int(json_integer_value(json));
        return true;
    case JSON_REAL:
        *out = (struct value){.kind = VALUE_FLOAT, .number = json_real_value(json)};
        return true;
    case JSON_NULL:
        *out = (struct value){.kind = VALUE_NONE};
        return true;
    default:
        *out = value_bool(json_is_true(json));
        return true;
    }
}

bool template_json_bind(struct run *run, const json_t *json, const uint8_t *ones)
{
    const char *name;
    json_t *field;
    json_object_foreach((json_t *)json, name, field)
    {
        struct value value;
        if (strcmp(name, "messages") != 0 &&
            (!value_of(run, field, ones, &value) || !run_bind(run, name, &value)))
            return false;
    }
    return true;
}
