#include "tests/router/answer_script.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "router/providers/sse_reader.h"

enum { SCRIPT_BYTES_MAX = 1 << 24, EVENT_BYTES_MAX = 1 << 20 };

/* Consecutive pieces of text of one place are one: how a stream is cut must not show. */
struct script {
    struct buffer text;
    struct answer_piece last; /* its text is not kept */
    bool is_open;
};

static void close_piece(struct script *script)
{
    if (script->is_open)
        ASSERT(buffer_append_text(&script->text, ")"));
    script->is_open = false;
}

static void open_piece(struct script *script, const struct answer_piece *piece)
{
    static const char *const KINDS[] = {"text", "refusal", "reasoning", "tool", "finish", "logprobs"};
    bool goes_on = script->is_open && script->last.kind == piece->kind &&
                   script->last.choice_index == piece->choice_index &&
                   script->last.tool_index == piece->tool_index && piece->tool_id == NULL &&
                   piece->tool_name == NULL;
    script->last = *piece;
    if (goes_on)
        return;
    close_piece(script);
    script->is_open = true;
    ASSERT(buffer_append_format(&script->text, "%s%u:%s", script->text.size > 0 ? " " : "",
                                piece->choice_index, KINDS[piece->kind]));
    if (piece->kind == ANSWER_TOOL_CALL)
        ASSERT(buffer_append_format(&script->text, "%u(%s %s ", piece->tool_index,
                                    piece->tool_id ? piece->tool_id : "-",
                                    piece->tool_name ? piece->tool_name : "-"));
    else
        ASSERT(buffer_append_text(&script->text, "("));
}

static err_t take(void *context, const struct answer_piece *piece)
{
    struct script *script = context;
    ASSERT(piece->choice_index < ANSWER_CHOICES_MAX && piece->text != NULL);
    open_piece(script, piece);
    if (piece->kind == ANSWER_FINISH)
        ASSERT(buffer_append_text(&script->text, answer_finish_name(piece->finish)));
    ASSERT(buffer_append(&script->text, piece->text, piece->text_bytes));
    return err_ok();
}

static err_t read_stream(struct answer_reader *reader, const char *bytes, size_t size, size_t piece)
{
    struct sse_reader sse = {.event_bytes_max = EVENT_BYTES_MAX};
    struct sse_event event;
    bool found = false;
    err_t e = err_ok();
    for (size_t at = 0; at < size && e.code == ERR_OK;) {
        size_t n = size - at < piece ? size - at : piece, consumed = 0;
        e = sse_reader_next(&sse, bytes + at, n, &consumed, &event, &found);
        if (e.code == ERR_OK && found)
            e = answer_reader_event(reader, event.data, event.data_bytes);
        at += consumed;
    }
    if (e.code == ERR_OK)
        e = sse_reader_end(&sse, &event, &found);
    if (e.code == ERR_OK && found)
        e = answer_reader_event(reader, event.data, event.data_bytes);
    if (e.code == ERR_OK)
        e = answer_reader_end(reader);
    sse_reader_free(&sse);
    return e;
}

char *answer_script(enum provider_kind kind, const char *bytes, size_t size, size_t piece, bool is_stream)
{
    struct script script = {.text = {.limit_bytes = SCRIPT_BYTES_MAX}};
    struct answer_sink sink = {.take = take, .context = &script};
    struct answer_reader *reader;
    ASSERT(buffer_append_text(&script.text, ""));
    ASSERT(answer_reader_open(kind, &sink, &reader).code == ERR_OK);
    err_t e = is_stream ? read_stream(reader, bytes, size, piece) : answer_reader_body(reader, bytes, size);
    if (e.code == ERR_OK && !is_stream)
        e = answer_reader_end(reader);
    close_piece(&script);
    struct answer_usage usage = answer_reader_usage(reader);
    if (usage.input_tokens >= 0 || usage.output_tokens >= 0)
        ASSERT(buffer_append_format(&script.text, " usage(%lld,%lld,%lld,%lld,%lld)",
                                    (long long)usage.input_tokens, (long long)usage.cached_tokens,
                                    (long long)usage.cache_write_tokens, (long long)usage.output_tokens,
                                    (long long)usage.reasoning_tokens));
    if (e.code != ERR_OK)
        ASSERT(buffer_append_format(&script.text, " error(%s)", err_code_name(e.code)));
    answer_reader_close(reader);
    return script.text.data;
}
