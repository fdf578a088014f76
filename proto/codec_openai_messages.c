/* The messages of a chat: roles and texts, out of parts. */
#include <stdio.h>
#include <string.h>
#include "proto/openai_fields.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

/* What a part of a message is, when it is not text. */
static const char *kind_of_part(const char *type)
{
    static const struct {
        const char *type, *kind;
    } kinds[] = {
        {"image_url", "an image"}, {"image", "an image"},        {"input_image", "an image"},
        {"input_audio", "audio"},  {"audio_url", "audio"},       {"audio", "audio"},
        {"video_url", "a video"},  {"video", "a video"},         {"file", "a file"},
        {"input_file", "a file"},  {"image_embeds", "an image"}, {"image_pil", "an image"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].type, type) == 0)
            return kinds[i].kind;
    return "of an unknown kind";
}

/* *text: NULL where a part that is passed on has none. */
static err_t part_text(struct openai_scratch *scratch, const json_t *part, size_t message, size_t index,
                       const json_t **text)
{
    char name[OPENAI_PARAM_BYTES_MAX];
    (void)snprintf(name, sizeof name, "messages[%zu].content[%zu]", message, index);
    if (!json_is_object(part))
        return openai_wrong_type(scratch, name, part, "an object with a type");
    const json_t *type = json_object_get(part, "type");
    openai_blame(scratch, "%s", name);
    if (!json_is_string(type))
        return INVALID("%s has no type", name);
    const char *key = openai_text_is(type, "text") || openai_text_is(type, "input_text") ||
                              openai_text_is(type, "output_text")
                          ? "text"
                      : openai_text_is(type, "refusal") ? "refusal"
                                                        : NULL;
    *text = NULL;
    if (!key)
        return openai_lacking(scratch, name, "%s is %s (type \"%.32s\"); this model takes text only", name,
                              kind_of_part(json_string_value(type)), json_string_value(type));
    *text = json_object_get(part, key);
    if (!json_is_string(*text))
        return INVALID("%s has no %s", name, key);
    openai_blame(scratch, "%s", "");
    return err_ok();
}

/* Parts are put together with line breaks, as vLLM does. */
static err_t join_parts(struct openai_scratch *scratch, const json_t *parts, size_t message,
                        struct chat_message *out)
{
    size_t n = json_array_size(parts), bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *text;
        TRY(part_text(scratch, json_array_get(parts, i), message, i, &text));
        bytes += text ? json_string_length(text) + 1 : 0;
    }
    void *memory;
    TRY(openai_allocate(scratch, bytes, 1, &memory));
    char *content = memory;
    size_t at = 0, n_texts = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *text;
        TRY(part_text(scratch, json_array_get(parts, i), message, i, &text));
        if (!text)
            continue;
        if (n_texts++ > 0)
            content[at++] = '\n';
        memcpy(content + at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    out->content = content;
    out->content_bytes = at;
    return err_ok();
}

static err_t decode_message(struct openai_scratch *scratch, const json_t *value, size_t index,
                            struct chat_message *out)
{
    char name[OPENAI_PARAM_BYTES_MAX];
    (void)snprintf(name, sizeof name, "messages[%zu]", index);
    if (!json_is_object(value))
        return openai_wrong_type(scratch, name, value, "an object with role and content");
    (void)snprintf(name, sizeof name, "messages[%zu].role", index);
    const json_t *role = json_object_get(value, "role");
    if (!json_is_string(role))
        return openai_wrong_type(scratch, name, role, "a string");
    openai_blame(scratch, "%s", name);
    if (strlen(json_string_value(role)) != json_string_length(role))
        return INVALID("%s contains a NUL character", name);
    /* What OpenAI's newer models call developer, templates know as system. */
    out->role = openai_text_is(role, "developer") ? "system" : json_string_value(role);
    openai_blame(scratch, "%s", "");
    const json_t *content = openai_find(value, "content");
    if (json_is_array(content))
        return join_parts(scratch, content, index, out);
    (void)snprintf(name, sizeof name, "messages[%zu].content", index);
    if (!json_is_string(content) && !(content == NULL && openai_text_is(role, "assistant")))
        return openai_wrong_type(scratch, name, content, "a string or a list of parts");
    out->content = content ? json_string_value(content) : "";
    out->content_bytes = content ? json_string_length(content) : 0;
    return err_ok();
}

err_t openai_messages(struct openai_scratch *scratch, const json_t *root, struct request *out)
{
    const json_t *value = openai_find(root, "messages");
    if (!json_is_array(value))
        return openai_wrong_type(scratch, "messages", value, "a list of messages");
    size_t n = json_array_size(value);
    openai_blame(scratch, "messages");
    if (n == 0 || n > REQUEST_MESSAGES_MAX)
        return INVALID("messages has %zu entries; 1 to %d are allowed", n, REQUEST_MESSAGES_MAX);
    openai_blame(scratch, "%s", "");
    void *memory;
    TRY(openai_allocate(scratch, n, sizeof(struct chat_message), &memory));
    struct chat_message *messages = memory;
    for (size_t i = 0; i < n; i++)
        TRY(decode_message(scratch, json_array_get(value, i), i, &messages[i]));
    out->prompt_kind = PROMPT_MESSAGES;
    out->messages = messages;
    out->n_messages = n;
    TRY(openai_template(scratch, root, out));
    bool opens = true, adds = false;
    TRY(openai_bool(scratch, root, "add_generation_prompt", &opens, NULL));
    TRY(openai_bool(scratch, root, "add_special_tokens", &adds, NULL));
    out->no_generation_prompt = !opens;
    if (!adds)
        return err_ok();
    return openai_lacking(scratch, "add_special_tokens",
                          "add_special_tokens is not supported with messages: the template writes them");
}
