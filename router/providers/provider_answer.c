#include "router/providers/provider_answer.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/json_read.h"
#include "router/providers/json_text.h"
#include "router/providers/provider_answer_internal.h"
#include "router/providers/provider_error.h"

const char *answer_finish_name(enum answer_finish finish)
{
    static const char *const NAMES[] = {
        [ANSWER_UNFINISHED] = "",
        [ANSWER_STOP] = "stop",
        [ANSWER_LENGTH] = "length",
        [ANSWER_TOOL_CALLS] = "tool_calls",
        [ANSWER_CONTENT_FILTER] = "content_filter",
    };
    return NAMES[finish];
}

err_t answer_reader_open(enum provider_kind kind, const struct answer_sink *sink, struct answer_reader **out)
{
    ASSERT(kind < PROVIDER_KINDS && sink->take);
    struct answer_reader *reader = mem_alloc(sizeof *reader);
    if (reader == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to read an answer");
    reader->kind = kind;
    reader->sink = *sink;
    reader->usage = (struct answer_usage){-1, -1, -1, -1, -1};
    reader->cost = -1;
    *out = reader;
    return err_ok();
}

void answer_reader_close(struct answer_reader *reader)
{
    if (reader == NULL)
        return;
    mem_free(reader->blocks);
    mem_free(reader);
}

/* The document must be an object that is no error; JSON_ALLOW_NUL, since a model may write one. */
static err_t parse(const char *data, size_t data_bytes, json_t **out)
{
    json_error_t error;
    json_t *root = json_read(data, data_bytes, JSON_ALLOW_NUL, &error);
    if (root == NULL)
        return err_new(ERR_DATA_LOSS, "the provider's answer is not JSON at byte %d: %s", error.position,
                       error.text);
    err_t e = err_ok();
    if (!json_is_object(root))
        e = err_new(ERR_DATA_LOSS, "the provider's answer is JSON, but not an object");
    else if (provider_error_of_json(root, &e))
        ASSERT(e.code != ERR_OK);
    if (e.code == ERR_OK)
        *out = root;
    else
        json_decref(root);
    return e;
}

err_t answer_reader_event(struct answer_reader *reader, const char *data, size_t data_bytes)
{
    size_t bytes = data_bytes;
    while (bytes > 0 && strchr(" \t\r\n", data[bytes - 1]))
        bytes--;
    if (reader->is_done || bytes == 0)
        return err_ok();
    if (reader->kind != PROVIDER_ANTHROPIC && bytes == 6 && memcmp(data, "[DONE]", 6) == 0) {
        reader->is_done = true;
        return err_ok();
    }
    json_t *root;
    TRY(parse(data, bytes, &root));
    err_t e = reader->kind == PROVIDER_ANTHROPIC ? answer_anthropic_event(reader, root)
                                                 : answer_openai_chunk(reader, root);
    json_decref(root);
    return e;
}

err_t answer_reader_body(struct answer_reader *reader, const char *body, size_t body_bytes)
{
    json_t *root;
    TRY(parse(body, body_bytes, &root));
    err_t e = reader->kind == PROVIDER_ANTHROPIC ? answer_anthropic_body(reader, root)
                                                 : answer_openai_body(reader, root);
    json_decref(root);
    reader->is_done = e.code == ERR_OK;
    return e;
}

err_t answer_reader_end(struct answer_reader *reader)
{
    bool has_begun = false;
    for (uint32_t i = 0; i < ANSWER_CHOICES_MAX; i++) {
        const struct answer_choice *choice = &reader->choices[i];
        has_begun = has_begun || choice->has_begun;
        if (choice->has_begun && choice->finish == ANSWER_UNFINISHED)
            return err_new(ERR_UNAVAILABLE, "the provider's answer ended without saying why: it was cut off");
    }
    return has_begun ? err_ok() : err_new(ERR_UNAVAILABLE, "the provider's answer ended before it began");
}

bool answer_reader_is_done(const struct answer_reader *reader)
{
    return reader->is_done;
}

struct answer_usage answer_reader_usage(const struct answer_reader *reader)
{
    return reader->usage;
}

const char *answer_reader_model(const struct answer_reader *reader)
{
    return reader->model;
}

const char *answer_reader_id(const struct answer_reader *reader)
{
    return reader->id;
}

const char *answer_reader_fingerprint(const struct answer_reader *reader)
{
    return reader->fingerprint;
}

int64_t answer_reader_cost(const struct answer_reader *reader)
{
    return reader->cost;
}

static err_t give(struct answer_reader *reader, const struct answer_piece *piece)
{
    ASSERT(piece->choice_index < ANSWER_CHOICES_MAX);
    reader->choices[piece->choice_index].has_begun = true;
    return reader->sink.take(reader->sink.context, piece);
}

err_t answer_give_text(struct answer_reader *reader, uint32_t choice, enum answer_piece_kind kind,
                       const json_t *text)
{
    if (!json_is_string(text) || json_string_length(text) == 0)
        return err_ok();
    return give(reader, &(struct answer_piece){
                            .kind = kind,
                            .choice_index = choice,
                            .text = json_string_value(text),
                            .text_bytes = json_string_length(text),
                        });
}

err_t answer_give_logprobs(struct answer_reader *reader, uint32_t choice, const json_t *logprobs)
{
    if (!json_is_object(logprobs))
        return err_ok();
    return give(reader,
                &(struct answer_piece){
                    .kind = ANSWER_LOGPROBS, .choice_index = choice, .text = "", .logprobs = logprobs});
}

err_t answer_give_tool(struct answer_reader *reader, uint32_t choice, uint32_t tool_index, const char *id,
                       const char *name, const json_t *arguments)
{
    if (tool_index >= ANSWER_TOOL_CALLS_MAX)
        return err_new(ERR_DATA_LOSS, "the provider calls tool number %u; at most %d are read", tool_index,
                       ANSWER_TOOL_CALLS_MAX);
    struct answer_choice *of = &reader->choices[choice];
    if (tool_index >= of->n_tool_calls)
        of->n_tool_calls = tool_index + 1;
    struct answer_piece piece = {
        .kind = ANSWER_TOOL_CALL,
        .choice_index = choice,
        .text = json_is_string(arguments) ? json_string_value(arguments) : "",
        .text_bytes = json_string_length(arguments),
        .tool_index = tool_index,
        .tool_id = id,
        .tool_name = name,
    };
    if (!json_is_object(arguments))
        return give(reader, &piece);
    struct buffer written = {.limit_bytes = SIZE_MAX / 2};
    err_t e = json_text_append(&written, arguments);
    if (e.code == ERR_OK) {
        piece.text = written.data;
        piece.text_bytes = written.size;
        e = give(reader, &piece);
    }
    buffer_free(&written);
    return e;
}

err_t answer_give_finish(struct answer_reader *reader, uint32_t choice, enum answer_finish finish)
{
    struct answer_choice *of = &reader->choices[choice];
    if (of->finish != ANSWER_UNFINISHED)
        return err_ok();
    of->finish = finish;
    return give(reader, &(struct answer_piece){
                            .kind = ANSWER_FINISH, .choice_index = choice, .text = "", .finish = finish});
}

void answer_take_name(char out[ANSWER_NAME_BYTES_MAX + 1], const json_t *value)
{
    if (!json_is_string(value))
        return;
    size_t bytes = strnlen(json_string_value(value), ANSWER_NAME_BYTES_MAX);
    memcpy(out, json_string_value(value), bytes);
    out[bytes] = '\0';
}

void answer_take_count(int64_t *out, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        *out = json_integer_value(value);
}
