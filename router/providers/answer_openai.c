/* OpenAI's chat completions: chunks of a stream, and whole bodies. */
#include <string.h>
#include "router/money/money.h"
#include "router/providers/provider_answer_internal.h"
#include "router/providers/provider_error.h"

static err_t read_index(const json_t *object, const char *what, size_t absent, json_int_t limit,
                        uint32_t *out)
{
    const json_t *value = json_object_get(object, "index");
    json_int_t index = json_is_integer(value) ? json_integer_value(value) : (json_int_t)absent;
    if (index < 0 || index >= limit)
        return err_new(ERR_DATA_LOSS, "the provider's answer has %s of index %lld; at most %lld are read",
                       what, (long long)index, (long long)limit);
    *out = (uint32_t)index;
    return err_ok();
}

/* Reasons that servers of this format give besides OpenAI's four; an unknown one is a stop. */
static enum answer_finish finish_of(const char *reason)
{
    static const struct {
        const char *reason;
        enum answer_finish finish;
    } REASONS[] = {
        {"length", ANSWER_LENGTH},
        {"max_tokens", ANSWER_LENGTH},
        {"model_length", ANSWER_LENGTH},
        {"tool_calls", ANSWER_TOOL_CALLS},
        {"tool_use", ANSWER_TOOL_CALLS},
        {"function_call", ANSWER_TOOL_CALLS},
        {"content_filter", ANSWER_CONTENT_FILTER},
        {"refusal", ANSWER_CONTENT_FILTER},
    };
    for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++) {
        if (strcmp(REASONS[i].reason, reason) == 0)
            return REASONS[i].finish;
    }
    return ANSWER_STOP;
}

/* Text as a string, or as a list of parts of which those of text count. */
static err_t take_content(struct answer_reader *reader, uint32_t choice, const json_t *content)
{
    if (!json_is_array(content))
        return answer_give_text(reader, choice, ANSWER_TEXT, content);
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (type && strcmp(type, "text") == 0)
            TRY(answer_give_text(reader, choice, ANSWER_TEXT, json_object_get(part, "text")));
    }
    return err_ok();
}

static err_t take_tool_calls(struct answer_reader *reader, uint32_t choice, const json_t *calls)
{
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        uint32_t index;
        TRY(read_index(call, "a tool call", i, ANSWER_TOOL_CALLS_MAX, &index));
        const json_t *function = json_object_get(call, "function");
        const char *id = json_string_value(json_object_get(call, "id")),
                   *name = json_string_value(json_object_get(function, "name"));
        TRY(answer_give_tool(reader, choice, index, id && id[0] ? id : NULL, name && name[0] ? name : NULL,
                             json_object_get(function, "arguments")));
    }
    return err_ok();
}

/* message: a chunk's delta or a body's message. */
static err_t take_message(struct answer_reader *reader, uint32_t choice, const json_t *message)
{
    /* vLLM and DeepSeek; OpenRouter and vLLM's newer ones. Never both: the first that is there. */
    const json_t *reasoning = json_object_get(message, "reasoning_content");
    if (!json_is_string(reasoning))
        reasoning = json_object_get(message, "reasoning");
    TRY(answer_give_text(reader, choice, ANSWER_REASONING, reasoning));
    TRY(take_content(reader, choice, json_object_get(message, "content")));
    TRY(answer_give_text(reader, choice, ANSWER_REFUSAL, json_object_get(message, "refusal")));
    return take_tool_calls(reader, choice, json_object_get(message, "tool_calls"));
}

static err_t take_choice(struct answer_reader *reader, const json_t *object, size_t position,
                         const char *message)
{
    uint32_t choice;
    TRY(read_index(object, "a choice", position, ANSWER_CHOICES_MAX, &choice));
    err_t failure;
    if (provider_error_of_json(object, &failure)) /* OpenRouter's, inside the choice */
        return failure;
    reader->choices[choice].has_begun = true;
    TRY(answer_give_logprobs(reader, choice, json_object_get(object, "logprobs")));
    TRY(take_message(reader, choice, json_object_get(object, message)));
    const char *reason = json_string_value(json_object_get(object, "finish_reason"));
    if (reason == NULL || reason[0] == '\0')
        return err_ok();
    if (strcmp(reason, "error") == 0)
        return err_new(ERR_UNAVAILABLE, "the provider's answer ended with finish_reason \"error\"");
    return answer_give_finish(reader, choice, finish_of(reason));
}

static void take_usage(struct answer_reader *reader, const json_t *usage)
{
    struct answer_usage *out = &reader->usage;
    answer_take_count(&out->input_tokens, usage, "prompt_tokens");
    answer_take_count(&out->output_tokens, usage, "completion_tokens");
    answer_take_count(&out->cached_tokens, json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    answer_take_count(&out->reasoning_tokens, json_object_get(usage, "completion_tokens_details"),
                      "reasoning_tokens");
}

static void take_cost(struct answer_reader *reader, const json_t *told)
{
    const char *text = json_string_value(json_object_get(told, "cost_usd"));
    nanodollars cost;
    if (text && money_parse(text, &cost).code == ERR_OK)
        reader->cost = cost;
}

static err_t take_root(struct answer_reader *reader, const json_t *root, const char *message)
{
    answer_take_name(reader->model, json_object_get(root, "model"));
    answer_take_name(reader->id, json_object_get(root, "id"));
    answer_take_name(reader->fingerprint, json_object_get(root, "system_fingerprint"));
    take_usage(reader, json_object_get(root, "usage"));
    take_cost(reader, json_object_get(root, "bantam"));
    take_cost(reader, json_object_get(json_object_get(root, "usage"), "bantam"));
    size_t i;
    json_t *choice;
    json_array_foreach(json_object_get(root, "choices"), i, choice)
        TRY(take_choice(reader, choice, i, message));
    return err_ok();
}

err_t answer_openai_chunk(struct answer_reader *reader, const json_t *root)
{
    return take_root(reader, root, "delta");
}

err_t answer_openai_body(struct answer_reader *reader, const json_t *root)
{
    if (!json_is_array(json_object_get(root, "choices")))
        return err_new(ERR_DATA_LOSS, "the provider's answer has no choices");
    return take_root(reader, root, "message");
}
