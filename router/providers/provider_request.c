#include "router/providers/provider_request.h"

#include <stdio.h>
#include <string.h>
#include "router/providers/json_text.h"
#include "router/providers/provider_request_internal.h"

enum { LOGIT_BIAS_MOST = 100 }; /* that OpenAI takes */

err_t request_set(json_t *object, const char *name, json_t *value)
{
    if (value && json_object_set_new(object, name, value) == 0)
        return err_ok();
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for \"%s\" of a request to a provider", name);
}

err_t request_append(json_t *array, json_t *value)
{
    if (value && json_array_append_new(array, value) == 0)
        return err_ok();
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a list of a request to a provider");
}

/* Parts of messages that only some models take. */
static err_t check_part(const struct provider_model *model, size_t message, const char *type)
{
    static const char *const KNOWN[] = {"text", "refusal"};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        if (type && strcmp(type, KNOWN[i]) == 0)
            return err_ok();
    }
    if (type && strcmp(type, "image_url") == 0 && model->takes_images)
        return err_ok();
    if (type && strcmp(type, "input_audio") == 0 && model->takes_audio)
        return err_ok();
    if (type && strcmp(type, "file") == 0 && model->takes_files)
        return err_ok();
    return err_new(ERR_UNIMPLEMENTED, "messages[%zu] has a part of type \"%.40s\", which %s does not take",
                   message, type ? type : "", model->name);
}

static err_t check_messages(const struct provider_model *model, const json_t *messages)
{
    if (json_array_size(messages) == 0)
        return err_new(ERR_UNIMPLEMENTED, "a request without messages stays local");
    size_t i, j;
    json_t *message, *part;
    json_array_foreach(messages, i, message)
    {
        json_array_foreach(json_object_get(message, "content"), j, part)
            TRY(check_part(model, i, json_string_value(json_object_get(part, "type"))));
    }
    return err_ok();
}

static err_t check_format(const struct provider_model *model, const json_t *format)
{
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type == NULL || strcmp(type, "text") == 0)
        return err_ok();
    bool is_object = strcmp(type, "json_object") == 0;
    if (is_object && model->kind == PROVIDER_ANTHROPIC)
        return err_new(ERR_UNIMPLEMENTED, "response_format json_object has no counterpart at Anthropic");
    if (!is_object && !model->takes_schemas)
        return err_new(ERR_UNIMPLEMENTED, "response_format \"%.40s\" is more than %s takes", type,
                       model->name);
    return err_ok();
}

err_t provider_request_check(const struct provider_model *model, const json_t *request)
{
    const char *keeps = provider_parameter_that_keeps(model->kind, request);
    if (keeps)
        return err_new(ERR_UNIMPLEMENTED, "%s keeps the request from %s", keeps, model->name);
    if (!model->takes_tools && provider_parameter_asks(PARAMETER_tools, json_object_get(request, "tools")))
        return err_new(ERR_UNIMPLEMENTED, "tools are more than %s takes", model->name);
    TRY(check_format(model, json_object_get(request, "response_format")));
    return check_messages(model, json_object_get(request, "messages"));
}

/* OpenAI has no list of what is allowed, but a bias that leaves nothing else. */
static err_t hold_to_tokens(const struct provider_model *model, json_t *body)
{
    bool has_list = model->kind == PROVIDER_COMPATIBLE;
    json_t *held = has_list ? json_array() : json_object();
    err_t e = request_set(body, has_list ? "allowed_token_ids" : "logit_bias", held);
    for (size_t i = 0; i < model->n_only_token_ids && e.code == ERR_OK; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", model->only_token_ids[i]);
        e = has_list ? request_append(held, json_integer(model->only_token_ids[i]))
                     : request_set(held, name, json_integer(LOGIT_BIAS_MOST));
    }
    return e;
}

/* Of OpenAI's format: what has another name or value there. */
static err_t map_openai(const struct provider_model *model, const json_t *request, json_t *body)
{
    json_t *most = json_object_get(request, "max_completion_tokens");
    if (!json_is_integer(most))
        most = json_object_get(request, "max_tokens");
    const char *name = model->max_completion_tokens ? "max_completion_tokens" : "max_tokens";
    if (json_is_integer(most))
        TRY(request_set(body, name, json_incref(most)));
    else if (model->output_limit > 0)
        TRY(request_set(body, name, json_integer(model->output_limit)));
    if (model->top_logprobs > 0) {
        TRY(request_set(body, "logprobs", json_true()));
        TRY(request_set(body, "top_logprobs", json_integer(model->top_logprobs)));
    }
    if (model->n_only_token_ids > 0)
        TRY(hold_to_tokens(model, body));
    if (json_is_true(json_object_get(body, "stream")))
        TRY(request_set(body, "stream_options", json_pack("{s:b}", "include_usage", 1)));
    return err_ok();
}

/* What crosses as it is; what does not is noted. */
static err_t copy_fields(const struct provider_model *model, const json_t *request, json_t *body,
                         struct provider_dropped *dropped)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)request, name, value)
    {
        enum provider_parameter parameter;
        if (!provider_parameter_find(name, &parameter)) {
            if (model->kind == PROVIDER_COMPATIBLE)
                TRY(request_set(body, name, json_incref(value)));
            else
                dropped->n_unknown += !json_is_null(value);
            continue;
        }
        if (!provider_parameter_asks(parameter, value))
            continue;
        enum crossing crossing = provider_parameter_crossing(parameter, model->kind);
        bool is_refused = (model->refuses & parameter_bit(parameter)) != 0 && crossing == CROSSES;
        if (crossing == IS_DROPPED || is_refused)
            dropped->parameters |= parameter_bit(parameter);
        else if (crossing == CROSSES)
            TRY(request_set(body, name, json_incref(value)));
    }
    return err_ok();
}

err_t provider_request_write(const struct provider_model *model, const json_t *request, bool is_stream,
                             struct provider_dropped *dropped, struct buffer *text)
{
    *dropped = (struct provider_dropped){0, 0};
    json_t *body = json_object();
    err_t e = request_set(body, "model", json_string(model->name));
    if (e.code == ERR_OK && is_stream)
        e = request_set(body, "stream", json_true());
    if (e.code == ERR_OK)
        e = copy_fields(model, request, body, dropped);
    if (e.code == ERR_OK)
        e = model->kind == PROVIDER_ANTHROPIC ? request_map_anthropic(model, request, body, dropped)
                                              : map_openai(model, request, body);
    if (e.code == ERR_OK)
        e = json_text_append(text, body);
    json_decref(body);
    return e;
}
