/* OpenAI's chat request in the terms of Anthropic's messages. */
#include <string.h>
#include "router/providers/provider_request_internal.h"

static bool is_text(const json_t *value, const char *text)
{
    const char *is = json_string_value(value);
    return is && strcmp(is, text) == 0;
}

/* Its text blocks may not be empty: such text is left out. */
static err_t append_text(json_t *blocks, const json_t *text)
{
    if (json_string_length(text) == 0)
        return err_ok();
    return request_append(blocks, json_pack("{s:s, s:O}", "type", "text", "text", text));
}

/* "data:image/png;base64,AAAA" by value, anything else by address. */
static err_t append_image(json_t *blocks, const json_t *part)
{
    const json_t *image = json_object_get(part, "image_url");
    const char *url = json_string_value(json_is_string(image) ? image : json_object_get(image, "url"));
    if (url == NULL || url[0] == '\0')
        return err_new(ERR_INVALID_ARGUMENT, "an image_url part has no url");
    if (strncmp(url, "data:", 5) != 0)
        return request_append(
            blocks, json_pack("{s:s, s:{s:s, s:s}}", "type", "image", "source", "type", "url", "url", url));
    const char *type = url + 5, *end = strstr(type, ";base64,");
    if (end == NULL || end == type || end - type > 100)
        return err_new(ERR_INVALID_ARGUMENT, "an image as a data URL must begin with data:image/...;base64,");
    return request_append(blocks, json_pack("{s:s, s:{s:s, s:s%, s:s}}", "type", "image", "source", "type",
                                            "base64", "media_type", type, (size_t)(end - type), "data",
                                            end + strlen(";base64,")));
}

static err_t append_content(json_t *blocks, const json_t *content)
{
    if (json_is_string(content))
        return append_text(blocks, content);
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type");
        if (is_text(type, "text"))
            TRY(append_text(blocks, json_object_get(part, "text")));
        else if (is_text(type, "refusal"))
            TRY(append_text(blocks, json_object_get(part, "refusal")));
        else if (is_text(type, "image_url"))
            TRY(append_image(blocks, part));
        else
            return err_new(ERR_UNIMPLEMENTED, "a part of type \"%.40s\" has no counterpart at Anthropic",
                           json_string_value(type) ? json_string_value(type) : "");
    }
    return err_ok();
}

static err_t append_tool_call(json_t *blocks, size_t message, const json_t *call)
{
    const json_t *function = json_object_get(call, "function"), *id = json_object_get(call, "id"),
                 *name = json_object_get(function, "name"),
                 *arguments = json_object_get(function, "arguments");
    if (!json_is_string(id) || !json_is_string(name))
        return err_new(ERR_INVALID_ARGUMENT, "messages[%zu]: a tool call needs an id and a function's name",
                       message);
    json_t *input = json_string_length(arguments) == 0
                        ? json_object()
                        : json_loadb(json_string_value(arguments), json_string_length(arguments), 0, NULL);
    if (!json_is_object(input)) {
        json_decref(input);
        return err_new(ERR_INVALID_ARGUMENT,
                       "messages[%zu]: arguments of the tool call %.60s are not a JSON object", message,
                       json_string_value(id));
    }
    return request_append(blocks, json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id", id, "name",
                                            name, "input", input));
}

static err_t append_tool_result(json_t *blocks, size_t message, const json_t *object)
{
    const json_t *id = json_object_get(object, "tool_call_id");
    if (!json_is_string(id))
        return err_new(ERR_INVALID_ARGUMENT, "messages[%zu]: a message of role tool needs a tool_call_id",
                       message);
    json_t *content = json_array();
    err_t e = append_content(content, json_object_get(object, "content"));
    if (e.code != ERR_OK) {
        json_decref(content);
        return e;
    }
    return request_append(
        blocks, json_pack("{s:s, s:O, s:o}", "type", "tool_result", "tool_use_id", id, "content", content));
}

/* The blocks of a message of `role` at the end of the list: those of the last one when that has the same
 * role, since turns alternate there. Results of tools are a user's. */
static err_t open_message(json_t *messages, const char *role, json_t **blocks)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (!is_text(json_object_get(last, "role"), role)) {
        TRY(request_append(messages, json_pack("{s:s, s:[]}", "role", role, "content")));
        last = json_array_get(messages, json_array_size(messages) - 1);
    }
    *blocks = json_object_get(last, "content");
    return err_ok();
}

static err_t map_message(const json_t *message, size_t number, json_t *system, json_t *messages)
{
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
    json_t *blocks;
    if (is_text(role, "system") || is_text(role, "developer"))
        return append_content(system, content);
    if (is_text(role, "tool")) {
        TRY(open_message(messages, "user", &blocks));
        return append_tool_result(blocks, number, message);
    }
    if (!is_text(role, "user") && !is_text(role, "assistant"))
        return err_new(ERR_INVALID_ARGUMENT,
                       "messages[%zu].role must be system, developer, user, assistant or tool", number);
    TRY(open_message(messages, json_string_value(role), &blocks));
    TRY(append_content(blocks, content));
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
        TRY(append_tool_call(blocks, number, call));
    return err_ok();
}

static err_t map_messages(const json_t *request, json_t *body)
{
    json_t *system = json_array(), *messages = json_array();
    err_t e = err_ok();
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(request, "messages"), i, message)
    {
        if (e.code == ERR_OK)
            e = map_message(message, i, system, messages);
    }
    /* A turn of which nothing was left may not be sent. */
    for (size_t n = json_array_size(messages); n > 0; n--) {
        if (json_array_size(json_object_get(json_array_get(messages, n - 1), "content")) == 0)
            json_array_remove(messages, n - 1);
    }
    if (e.code == ERR_OK && json_array_size(messages) == 0)
        e = err_new(ERR_INVALID_ARGUMENT, "messages must have one of role user that says something");
    if (e.code == ERR_OK && json_array_size(system) > 0)
        e = request_set(body, "system", json_incref(system));
    if (e.code == ERR_OK)
        e = request_set(body, "messages", json_incref(messages));
    json_decref(system);
    json_decref(messages);
    return e;
}

static err_t map_tools(const json_t *request, json_t *body)
{
    const json_t *tools = json_object_get(request, "tools");
    if (json_array_size(tools) == 0)
        return err_ok();
    TRY(request_set(body, "tools", json_array()));
    json_t *mapped = json_object_get(body, "tools");
    size_t i;
    json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function"), *name = json_object_get(function, "name"),
                     *description = json_object_get(function, "description"),
                     *parameters = json_object_get(function, "parameters");
        if (!is_text(json_object_get(tool, "type"), "function") || !json_is_string(name))
            return err_new(ERR_UNIMPLEMENTED, "tools[%zu] is not a function with a name", i);
        json_t *schema = json_is_object(parameters)
                             ? json_incref((json_t *)parameters)
                             : json_pack("{s:s, s:{}}", "type", "object", "properties");
        TRY(request_append(mapped, json_pack("{s:O, s:o}", "name", name, "input_schema", schema)));
        if (json_string_length(description) > 0)
            TRY(request_set(json_array_get(mapped, i), "description", json_incref((json_t *)description)));
    }
    return err_ok();
}

static err_t map_tool_choice(const json_t *request, json_t *body)
{
    const json_t *choice = json_object_get(request, "tool_choice");
    bool is_single = json_is_false(json_object_get(request, "parallel_tool_calls"));
    if (json_object_get(body, "tools") == NULL ||
        (!provider_parameter_asks(PARAMETER_tool_choice, choice) && !is_single))
        return err_ok();
    const json_t *name = json_object_get(json_object_get(choice, "function"), "name");
    json_t *mapped;
    if (json_is_string(name))
        mapped = json_pack("{s:s, s:O}", "type", "tool", "name", name);
    else if (is_text(choice, "none"))
        mapped = json_pack("{s:s}", "type", "none");
    else if (is_text(choice, "required"))
        mapped = json_pack("{s:s}", "type", "any");
    else if (choice == NULL || json_is_null(choice) || is_text(choice, "auto"))
        mapped = json_pack("{s:s}", "type", "auto");
    else
        return err_new(ERR_INVALID_ARGUMENT,
                       "tool_choice must be \"none\", \"auto\", \"required\" or a function with its name");
    TRY(request_set(body, "tool_choice", mapped));
    if (is_single && !is_text(choice, "none"))
        return request_set(json_object_get(body, "tool_choice"), "disable_parallel_tool_use", json_true());
    return err_ok();
}

static err_t map_format(const json_t *request, json_t *body)
{
    const json_t *format = json_object_get(request, "response_format");
    if (!is_text(json_object_get(format, "type"), "json_schema"))
        return err_ok();
    const json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    if (!json_is_object(schema))
        return err_new(ERR_INVALID_ARGUMENT, "response_format.json_schema.schema must be an object");
    return request_set(body, "output_config",
                       json_pack("{s:{s:s, s:O}}", "format", "type", "json_schema", "schema", schema));
}

static err_t map_limits(const struct provider_model *model, const json_t *request, json_t *body)
{
    const json_t *most = json_object_get(request, "max_completion_tokens"),
                 *stop = json_object_get(request, "stop"), *user = json_object_get(request, "user");
    if (!json_is_integer(most))
        most = json_object_get(request, "max_tokens");
    json_int_t max_tokens =
        json_is_integer(most) ? json_integer_value(most) : (json_int_t)model->max_output_tokens;
    TRY(request_set(body, "max_tokens", json_integer(max_tokens)));
    if (json_string_length(stop) > 0)
        TRY(request_set(body, "stop_sequences", json_pack("[O]", stop)));
    else if (json_array_size(stop) > 0)
        TRY(request_set(body, "stop_sequences", json_incref((json_t *)stop)));
    if (json_string_length(user) > 0)
        TRY(request_set(body, "metadata", json_pack("{s:O}", "user_id", user)));
    return err_ok();
}

err_t request_map_anthropic(const struct provider_model *model, const json_t *request, json_t *body,
                            struct provider_dropped *dropped)
{
    TRY(map_messages(request, body));
    TRY(map_tools(request, body));
    TRY(map_tool_choice(request, body));
    TRY(map_format(request, body));
    TRY(map_limits(model, request, body));
    if (json_number_value(json_object_get(body, "temperature")) > 1) { /* a 400 there */
        json_object_del(body, "temperature");
        dropped->parameters |= parameter_bit(PARAMETER_temperature);
    }
    return err_ok();
}
