/* Anthropic's messages: events of a stream, and whole bodies. Their one answer is choice 0. Tool calls are
 * followed by the index of their content block, and counted from 0 here. */
#include <string.h>
#include "base/alloc.h"
#include "router/providers/provider_answer_internal.h"

static bool is_type(const json_t *object, const char *type)
{
    const char *value = json_string_value(json_object_get(object, "type"));
    return value && strcmp(value, type) == 0;
}

static err_t find_block(struct answer_reader *reader, const json_t *event, struct answer_block **out)
{
    const json_t *value = json_object_get(event, "index");
    json_int_t index = json_is_integer(value) ? json_integer_value(value) : -1;
    if (index < 0 || index >= ANSWER_BLOCKS_MAX)
        return err_new(ERR_DATA_LOSS, "the provider's answer has a content block without an index in 0..%d",
                       ANSWER_BLOCKS_MAX - 1);
    if ((size_t)index >= reader->n_blocks) {
        size_t n = reader->n_blocks;
        struct answer_block *blocks = mem_realloc(reader->blocks, ((size_t)index + 1) * sizeof *blocks);
        if (blocks == NULL)
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a content block of the answer");
        memset(blocks + n, 0, ((size_t)index + 1 - n) * sizeof *blocks);
        reader->blocks = blocks;
        reader->n_blocks = (size_t)index + 1;
    }
    *out = &reader->blocks[index];
    return err_ok();
}

/* Input besides the cache, and what the cache gave and took, are counted apart. message_delta repeats what it
 * knows, cumulative: set, never added. */
static void take_usage(struct answer_reader *reader, const json_t *usage)
{
    struct answer_usage *out = &reader->usage;
    int64_t fresh = -1;
    answer_take_count(&fresh, usage, "input_tokens");
    answer_take_count(&out->cached_tokens, usage, "cache_read_input_tokens");
    answer_take_count(&out->cache_write_tokens, usage, "cache_creation_input_tokens");
    answer_take_count(&out->output_tokens, usage, "output_tokens");
    if (fresh < 0)
        return;
    int64_t from_cache = out->cached_tokens > 0 ? out->cached_tokens : 0,
            into_cache = out->cache_write_tokens > 0 ? out->cache_write_tokens : 0, total;
    if (__builtin_add_overflow(fresh, from_cache, &total) ||
        __builtin_add_overflow(total, into_cache, &total))
        total = -1;
    out->input_tokens = total;
}

static enum answer_finish finish_of(const char *reason)
{
    if (strcmp(reason, "max_tokens") == 0 || strcmp(reason, "model_context_window_exceeded") == 0)
        return ANSWER_LENGTH;
    if (strcmp(reason, "tool_use") == 0)
        return ANSWER_TOOL_CALLS;
    return strcmp(reason, "refusal") == 0 ? ANSWER_CONTENT_FILTER : ANSWER_STOP;
}

static err_t take_stop_reason(struct answer_reader *reader, const json_t *object)
{
    const char *reason = json_string_value(json_object_get(object, "stop_reason"));
    return reason ? answer_give_finish(reader, 0, finish_of(reason)) : err_ok();
}

static void take_message_head(struct answer_reader *reader, const json_t *message)
{
    reader->choices[0].has_begun = true;
    answer_take_name(reader->model, json_object_get(message, "model"));
    answer_take_name(reader->id, json_object_get(message, "id"));
    take_usage(reader, json_object_get(message, "usage"));
}

/* What a message that begins has of output is a beginning too: one token of however many come. Of a stream
 * that ends before its message_delta nobody knows how many there were. */
static void take_message_start(struct answer_reader *reader, const json_t *message)
{
    take_message_head(reader, message);
    reader->usage.output_tokens = -1;
}

/* Arguments that are there from the start; the empty object may be the place of those that come. */
static bool has_fields(const json_t *input)
{
    return json_object_size(input) > 0;
}

static err_t begin_block(struct answer_reader *reader, struct answer_block *block, const json_t *content)
{
    *block = (struct answer_block){.kind = BLOCK_OTHER};
    if (is_type(content, "text")) {
        block->kind = BLOCK_TEXT;
        return answer_give_text(reader, 0, ANSWER_TEXT, json_object_get(content, "text"));
    }
    if (is_type(content, "thinking")) {
        block->kind = BLOCK_THINKING;
        return answer_give_text(reader, 0, ANSWER_REASONING, json_object_get(content, "thinking"));
    }
    if (!is_type(content, "tool_use"))
        return err_ok();
    const json_t *input = json_object_get(content, "input");
    block->kind = BLOCK_TOOL;
    block->tool_index = reader->choices[0].n_tool_calls;
    block->has_arguments = has_fields(input);
    return answer_give_tool(reader, 0, block->tool_index, json_string_value(json_object_get(content, "id")),
                            json_string_value(json_object_get(content, "name")),
                            block->has_arguments ? input : NULL);
}

static err_t go_on_block(struct answer_reader *reader, struct answer_block *block, const json_t *delta)
{
    if (block->kind == BLOCK_TEXT && is_type(delta, "text_delta"))
        return answer_give_text(reader, 0, ANSWER_TEXT, json_object_get(delta, "text"));
    if (block->kind == BLOCK_THINKING && is_type(delta, "thinking_delta"))
        return answer_give_text(reader, 0, ANSWER_REASONING, json_object_get(delta, "thinking"));
    const json_t *arguments = json_object_get(delta, "partial_json");
    if (block->kind != BLOCK_TOOL || !is_type(delta, "input_json_delta") ||
        json_string_length(arguments) == 0)
        return err_ok();
    block->has_arguments = true;
    return answer_give_tool(reader, 0, block->tool_index, NULL, NULL, arguments);
}

/* A tool without parameters sends no arguments; a reader of OpenAI's format expects an object. */
static err_t end_block(struct answer_reader *reader, struct answer_block *block)
{
    if (block->kind != BLOCK_TOOL || block->has_arguments)
        return err_ok();
    block->has_arguments = true;
    json_t *nothing = json_string("{}");
    if (nothing == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the arguments of a tool call");
    err_t e = answer_give_tool(reader, 0, block->tool_index, NULL, NULL, nothing);
    json_decref(nothing);
    return e;
}

err_t answer_anthropic_event(struct answer_reader *reader, const json_t *root)
{
    struct answer_block *block;
    if (is_type(root, "message_start")) {
        take_message_start(reader, json_object_get(root, "message"));
        return err_ok();
    }
    if (is_type(root, "content_block_start")) {
        TRY(find_block(reader, root, &block));
        return begin_block(reader, block, json_object_get(root, "content_block"));
    }
    if (is_type(root, "content_block_delta")) {
        TRY(find_block(reader, root, &block));
        return go_on_block(reader, block, json_object_get(root, "delta"));
    }
    if (is_type(root, "content_block_stop")) {
        TRY(find_block(reader, root, &block));
        return end_block(reader, block);
    }
    if (is_type(root, "message_delta")) {
        take_usage(reader, json_object_get(root, "usage"));
        return take_stop_reason(reader, json_object_get(root, "delta"));
    }
    if (is_type(root, "message_stop"))
        reader->is_done = true;
    return err_ok(); /* ping, and events that come to be later */
}

err_t answer_anthropic_body(struct answer_reader *reader, const json_t *root)
{
    const json_t *content = json_object_get(root, "content");
    if (!json_is_array(content))
        return err_new(ERR_DATA_LOSS, "the provider's answer has no content");
    take_message_head(reader, root);
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        struct answer_block block;
        TRY(begin_block(reader, &block, part));
        TRY(end_block(reader, &block));
    }
    return take_stop_reason(reader, root);
}
