/* What of a chat the model's template gets besides roles and texts: calls of tools that were made, tools that
 * must not be called now, documents, and values under names of the template's own. */
#include <stdio.h>
#include <string.h>
#include "proto/openai_fields.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for what a template gets");
}

/* value: owned by the object from now on, also after an error. */
static err_t set_new(json_t *object, const char *name, json_t *value)
{
    return json_object_set_new(object, name, value) == 0 ? err_ok() : no_memory();
}

static err_t set(json_t *object, const char *name, const json_t *value)
{
    return json_object_set(object, name, (json_t *)value) == 0 ? err_ok() : no_memory();
}

/* --- messages */

/* A call's arguments travel as a text of JSON; templates are given what it says, as vLLM does. */
static err_t open_arguments(struct openai_scratch *scratch, json_t *function, const char *name)
{
    const json_t *given = openai_find(function, "arguments");
    if (json_is_object(given) || json_is_array(given))
        return err_ok();
    if (!given || (json_is_string(given) && json_string_length(given) == 0))
        return set_new(function, "arguments", json_object());
    if (!json_is_string(given))
        return openai_lacking(scratch, name, "%s is no text of JSON, which a template could show", name);
    err_t e = json_bounds_add(&scratch->bounds, name, json_string_value(given), json_string_length(given));
    if (e.code != ERR_OK)
        return openai_lacking(scratch, name, "%s", e.message);
    json_t *opened = json_loadb(json_string_value(given), json_string_length(given),
                                JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    if (!opened)
        return openai_lacking(scratch, name, "%s is no text of JSON, which a template could show", name);
    return set_new(function, "arguments", opened);
}

static err_t open_calls(struct openai_scratch *scratch, const json_t *given, size_t message, json_t *out)
{
    char name[OPENAI_PARAM_BYTES_MAX];
    (void)snprintf(name, sizeof name, "messages[%zu].tool_calls", message);
    if (!json_is_array(given))
        return openai_wrong_type(scratch, name, given, "a list of calls");
    json_t *calls = json_deep_copy(given);
    TRY(set_new(out, "tool_calls", calls));
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        (void)snprintf(name, sizeof name, "messages[%zu].tool_calls[%zu].function", message, i);
        if (!json_is_object(function)) {
            TRY(openai_lacking(scratch, name, "%s is no object: templates know calls of functions alone",
                               name));
            continue;
        }
        (void)snprintf(name, sizeof name, "messages[%zu].tool_calls[%zu].function.arguments", message, i);
        TRY(open_arguments(scratch, function, name));
    }
    return err_ok();
}

/* What stands beside role and content. */
static err_t add_fields(struct openai_scratch *scratch, const json_t *message, size_t index, json_t *out)
{
    static const char *const TEXTS[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++) {
        const json_t *text = openai_find(message, TEXTS[i]);
        if (json_is_string(text))
            TRY(set(out, TEXTS[i], text));
    }
    const json_t *calls = openai_find(message, "tool_calls");
    return openai_asks_for_nothing(calls) ? err_ok() : open_calls(scratch, calls, index, out);
}

static err_t add_messages(struct openai_scratch *scratch, const json_t *messages, json_t *object)
{
    json_t *list = json_array();
    TRY(set_new(object, "messages", list));
    bool any = false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *fields = json_object();
        if (json_array_append_new(list, fields) != 0)
            return no_memory();
        TRY(add_fields(scratch, json_array_get(messages, i), i, fields));
        any = any || json_object_size(fields) > 0;
    }
    if (!any)
        (void)json_object_del(object, "messages");
    return err_ok();
}

/* --- names of the template */

static err_t add_arguments(struct openai_scratch *scratch, const json_t *root, json_t *object)
{
    static const char *const TAKEN[] = {"messages",  "tools",     "documents", "add_generation_prompt",
                                        "bos_token", "eos_token", NULL};
    const json_t *arguments = openai_find(root, "chat_template_kwargs");
    if (arguments && !json_is_object(arguments))
        return openai_wrong_type(scratch, "chat_template_kwargs", arguments, "an object");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)arguments, name, value)
    {
        openai_blame(scratch, "chat_template_kwargs");
        for (const char *const *taken = TAKEN; *taken; taken++)
            if (strcmp(*taken, name) == 0)
                return INVALID(
                    "chat_template_kwargs sets %s, which stands elsewhere in the request or is the "
                    "model's",
                    name);
        openai_blame(scratch, "%s", "");
        TRY(set(object, name, value));
    }
    const json_t *effort = openai_find(root, "reasoning_effort");
    return json_is_string(effort) && !json_object_get(object, "reasoning_effort")
               ? set(object, "reasoning_effort", effort)
               : err_ok();
}

static err_t add_lists(struct openai_scratch *scratch, const json_t *root, json_t *object)
{
    static const char *const LISTS[] = {"tools", "documents"};
    for (size_t i = 0; i < sizeof LISTS / sizeof LISTS[0]; i++) {
        const json_t *list = openai_find(root, LISTS[i]);
        if (openai_asks_for_nothing(list))
            continue;
        if (!json_is_array(list))
            return openai_wrong_type(scratch, LISTS[i], list, "a list");
        TRY(set(object, LISTS[i], list));
    }
    return err_ok();
}

/* --- together */

static err_t fill(struct openai_scratch *scratch, const json_t *root, json_t *object)
{
    TRY(add_lists(scratch, root, object));
    TRY(add_arguments(scratch, root, object));
    return add_messages(scratch, openai_find(root, "messages"), object);
}

static err_t write_out(struct openai_scratch *scratch, const json_t *object, struct request *out)
{
    if (json_object_size(object) == 0)
        return err_ok();
    size_t size_bytes = json_dumpb(object, NULL, 0, JSON_COMPACT);
    void *text;
    TRY(openai_allocate(scratch, size_bytes, 1, &text));
    if (size_bytes == 0 || json_dumpb(object, text, size_bytes, JSON_COMPACT) != size_bytes)
        return no_memory();
    out->template_json = text;
    out->template_json_bytes = size_bytes;
    return err_ok();
}

err_t openai_template(struct openai_scratch *scratch, const json_t *root, struct request *out)
{
    json_t *object = json_object();
    err_t e = object ? fill(scratch, root, object) : no_memory();
    if (e.code == ERR_OK)
        e = write_out(scratch, object, out);
    json_decref(object);
    return e;
}
