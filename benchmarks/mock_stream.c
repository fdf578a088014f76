/* Streams and bodies of both forms, and the ways in which a stream may be written. */
#include <string.h>
#include <time.h>
#include "benchmarks/mock_answer.h"

enum { HUGE_STEP_BYTES = 64 << 10 };

static const char *const WORDS[] = {"These", " words", " are", " made", " up,", " one", " a", " token."};

const char *mock_answer_word(struct mock_answer *answer, size_t *size_bytes)
{
    if (!answer->text) {
        const char *word = answer->piece % 8 == 0 && answer->piece > 0
                               ? " These"
                               : WORDS[answer->piece % (sizeof WORDS / sizeof *WORDS)];
        *size_bytes = strlen(word);
        return word;
    }
    const char *word = answer->text + answer->text_at;
    size_t n = strspn(word, " \n");
    n += strcspn(word + n, " \n");
    answer->text_at += n;
    *size_bytes = n;
    return n > 0 ? word : NULL;
}

static bool put_string(struct buffer *out, const char *text)
{
    return buffer_append_json_string(out, text, strlen(text));
}

/* --- how an event is written */

static void put_data(const struct mock_answer *answer, struct buffer *out, const char *json, size_t size,
                     const char *end_of_line)
{
    unsigned styles = answer->fault.styles;
    const char *field = styles & STYLE_NO_SPACE ? "data:" : "data: ";
    bool in_lines = styles & STYLE_LINES && size > 2 && json[0] == '{';
    (void)buffer_append_text(out, field);
    if (in_lines) { /* between the braces and what they hold, JSON takes a line's end */
        (void)buffer_append_format(out, "{%s%s", end_of_line, field);
        (void)buffer_append(out, json + 1, size - 2);
        (void)buffer_append_format(out, "%s%s}", end_of_line, field);
    } else {
        (void)buffer_append(out, json, size);
    }
    (void)buffer_append_format(out, "%s%s%s", styles & STYLE_TRAILING ? "  \t" : "", end_of_line,
                               end_of_line);
}

static const char *end_of_line(const struct mock_answer *answer)
{
    return answer->fault.styles & STYLE_CRLF ? "\r\n" : answer->fault.styles & STYLE_CR ? "\r" : "\n";
}

static void put_event(struct mock_answer *answer, struct buffer *out, const char *name,
                      const struct buffer *json)
{
    unsigned styles = answer->fault.styles;
    const char *end = end_of_line(answer);
    if (styles & STYLE_BOM && !answer->has_begun)
        (void)buffer_append_text(out, "\xef\xbb\xbf");
    answer->has_begun = true;
    if (styles & STYLE_COMMENTS) {
        (void)buffer_append_format(out, ": MOCK PROCESSING%s%s:%s", end, end, end);
        if (answer->form == MOCK_ANTHROPIC && strcmp(name, "message_start") != 0)
            (void)buffer_append_format(out, "event: ping%sdata: {\"type\": \"ping\"}%s%s", end, end, end);
    }
    if (answer->form == MOCK_ANTHROPIC)
        (void)buffer_append_format(out, "event: %s%s", name, end);
    put_data(answer, out, json->data, json->size, end);
}

/* --- OpenAI's chunks */

static void put_usage(const struct mock_answer *answer, struct buffer *out)
{
    (void)buffer_append_format(out,
                               "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
                               "\"prompt_tokens_details\":{\"cached_tokens\":0},"
                               "\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
                               answer->input_tokens, answer->n_pieces,
                               answer->input_tokens + answer->n_pieces);
}

static bool counts(const struct mock_answer *answer)
{
    return !(answer->fault.styles & STYLE_NO_USAGE);
}

static const char *finish_of(const struct mock_answer *answer)
{
    bool is_openai = answer->form == MOCK_OPENAI;
    if (is_openai && answer->fault.course == COURSE_FINISH_ERROR)
        return "error";
    if (answer->n_calls > 0)
        return is_openai ? "tool_calls" : "tool_use";
    if (answer->is_cut)
        return is_openai ? "length" : "max_tokens";
    return is_openai ? "stop" : "end_turn";
}

static void make_head(struct mock_answer *answer)
{
    if (answer->head.size > 0)
        return;
    (void)buffer_append_format(
        &answer->head,
        "{\"id\":\"chatcmpl-mock-%llu\",\"object\":\"chat.completion%s\",\"created\":%lld,"
        "\"system_fingerprint\":\"fp_mock\",\"model\":",
        (unsigned long long)answer->number, answer->is_stream ? ".chunk" : "", (long long)time(NULL));
    (void)put_string(&answer->head, answer->model);
}

static void put_chunk(struct mock_answer *answer, struct buffer *out, const char *delta, size_t delta_bytes,
                      const char *finish)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    make_head(answer);
    (void)buffer_append(&json, answer->head.data, answer->head.size);
    (void)buffer_append_text(&json, ",\"choices\":[{\"index\":0,\"delta\":{");
    (void)buffer_append(&json, delta, delta_bytes);
    (void)buffer_append_format(&json, "},\"logprobs\":null,\"finish_reason\":%s%s%s}]%s}", finish ? "\"" : "",
                               finish ? finish : "null", finish ? "\"" : "",
                               answer->wants_usage ? ",\"usage\":null" : "");
    put_event(answer, out, "", &json);
    buffer_free(&json);
}

/* Part 0 names the call, 1 and 2 are the halves of its arguments; 3: all of it. */
static void put_call(const struct mock_answer *answer, struct buffer *out, uint32_t index, uint32_t part)
{
    const struct mock_call *call = &answer->calls[index];
    size_t size = strlen(call->arguments), half = size / 2;
    size_t from = part == 2 ? half : 0, to = part == 0 ? 0 : part == 1 ? half : size;
    while (part == 1 && to > 0 && ((unsigned char)call->arguments[to] & 0xc0) == 0x80)
        to--;
    while (part == 2 && from > 0 && ((unsigned char)call->arguments[from] & 0xc0) == 0x80)
        from--;
    (void)buffer_append_format(out, "{\"index\":%u,", index);
    if (part == 0 || part == 3) {
        (void)buffer_append_format(
            out, "\"id\":\"call_mock_%llu_%u\",\"type\":\"function\",\"function\":{\"name\":",
            (unsigned long long)answer->number, index);
        (void)put_string(out, call->name);
        (void)buffer_append_text(out, ",\"arguments\":");
    } else {
        (void)buffer_append_text(out, "\"function\":{\"arguments\":");
    }
    (void)buffer_append_json_string(out, call->arguments + from, to - from);
    (void)buffer_append_text(out, "}}");
}

static void openai_piece(struct mock_answer *answer, struct buffer *out)
{
    struct buffer delta = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    size_t size;
    if (answer->n_calls > 0) {
        (void)buffer_append_text(&delta, "\"tool_calls\":[");
        put_call(answer, &delta, answer->piece / 3, answer->piece % 3);
        (void)buffer_append_text(&delta, "]");
    } else {
        const char *word = mock_answer_word(answer, &size);
        (void)buffer_append_text(&delta, "\"content\":");
        (void)buffer_append_json_string(&delta, word, size);
    }
    put_chunk(answer, out, delta.data, delta.size, NULL);
    buffer_free(&delta);
}

static void openai_tools_at_once(struct mock_answer *answer, struct buffer *out)
{
    struct buffer delta = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_text(&delta, "\"tool_calls\":[");
    for (uint32_t i = 0; i < answer->n_calls; i++) {
        (void)buffer_append_text(&delta, i > 0 ? "," : "");
        put_call(answer, &delta, i, 3);
    }
    (void)buffer_append_text(&delta, "]");
    put_chunk(answer, out, delta.data, delta.size, finish_of(answer));
    buffer_free(&delta);
}

static void openai_usage(struct mock_answer *answer, struct buffer *out)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    make_head(answer);
    (void)buffer_append(&json, answer->head.data, answer->head.size);
    (void)buffer_append_text(&json, ",\"choices\":[],");
    put_usage(answer, &json);
    (void)buffer_append_text(&json, "}");
    put_event(answer, out, "", &json);
    buffer_free(&json);
}

static void openai_stage(struct mock_answer *answer, struct buffer *out)
{
    static const char ROLE[] = "\"role\":\"assistant\",\"content\":\"\"";
    static const struct buffer DONE = {.data = "[DONE]", .size = 6};
    switch (answer->stage) {
    case STAGE_START:
        put_chunk(answer, out, ROLE, sizeof ROLE - 1, NULL);
        break;
    case STAGE_BODY:
        openai_piece(answer, out);
        break;
    case STAGE_FINISH:
        put_chunk(answer, out, "", 0, finish_of(answer));
        break;
    case STAGE_USAGE:
        if (answer->wants_usage && counts(answer))
            openai_usage(answer, out);
        break;
    case STAGE_DONE:
        if (!(answer->fault.styles & STYLE_NO_DONE))
            put_event(answer, out, "", &DONE);
        break;
    case STAGE_OVER:
        break;
    }
}

/* --- Anthropic's events */

static void put_json(struct mock_answer *answer, struct buffer *out, const char *name, struct buffer *json)
{
    put_event(answer, out, name, json);
    buffer_free(json);
}

static void anthropic_start(struct mock_answer *answer, struct buffer *out)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_format(
        &json,
        "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock_%llu\",\"type\":\"message\","
        "\"role\":\"assistant\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,",
        (unsigned long long)answer->number);
    if (counts(answer))
        (void)buffer_append_format(&json,
                                   "\"usage\":{\"input_tokens\":%u,\"cache_creation_input_tokens\":0,"
                                   "\"cache_read_input_tokens\":0,\"output_tokens\":1},",
                                   answer->input_tokens);
    (void)buffer_append_text(&json, "\"model\":");
    (void)put_string(&json, answer->model);
    (void)buffer_append_text(&json, "}}");
    put_json(answer, out, "message_start", &json);
}

static void anthropic_block_start(struct mock_answer *answer, struct buffer *out, uint32_t index)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_format(&json, "{\"type\":\"content_block_start\",\"index\":%u,\"content_block\":{",
                               index);
    if (answer->n_calls > 0) {
        (void)buffer_append_format(
            &json, "\"type\":\"tool_use\",\"id\":\"toolu_mock_%llu_%u\",\"input\":{},\"name\":",
            (unsigned long long)answer->number, index);
        (void)put_string(&json, answer->calls[index].name);
    } else {
        (void)buffer_append_text(&json, "\"type\":\"text\",\"text\":\"\"");
    }
    (void)buffer_append_text(&json, "}}");
    put_json(answer, out, "content_block_start", &json);
}

static void anthropic_delta(struct mock_answer *answer, struct buffer *out, uint32_t index, const char *type,
                            const char *field, const char *text, size_t size)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_format(
        &json, "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":\"%s\",\"%s\":", index,
        type, field);
    (void)buffer_append_json_string(&json, text, size);
    (void)buffer_append_text(&json, "}}");
    put_json(answer, out, "content_block_delta", &json);
}

static void anthropic_block_stop(struct mock_answer *answer, struct buffer *out, uint32_t index)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_format(&json, "{\"type\":\"content_block_stop\",\"index\":%u}", index);
    put_json(answer, out, "content_block_stop", &json);
}

static void anthropic_piece(struct mock_answer *answer, struct buffer *out)
{
    size_t size;
    if (answer->n_calls == 0) {
        if (answer->piece == 0)
            anthropic_block_start(answer, out, 0);
        const char *word = mock_answer_word(answer, &size);
        anthropic_delta(answer, out, 0, "text_delta", "text", word, size);
        if (answer->piece + 1 == answer->n_pieces)
            anthropic_block_stop(answer, out, 0);
        return;
    }
    uint32_t index = answer->piece / 3;
    const char *arguments = answer->calls[index].arguments;
    size_t all = strlen(arguments), half = all / 2;
    while (half > 0 && ((unsigned char)arguments[half] & 0xc0) == 0x80)
        half--;
    if (answer->piece % 3 == 0)
        anthropic_block_start(answer, out, index);
    else if (answer->piece % 3 == 1)
        anthropic_delta(answer, out, index, "input_json_delta", "partial_json", arguments, half);
    else {
        anthropic_delta(answer, out, index, "input_json_delta", "partial_json", arguments + half, all - half);
        anthropic_block_stop(answer, out, index);
    }
}

static void anthropic_finish(struct mock_answer *answer, struct buffer *out)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    (void)buffer_append_format(
        &json, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null}",
        finish_of(answer));
    if (counts(answer))
        (void)buffer_append_format(&json, ",\"usage\":{\"output_tokens\":%u}", answer->n_pieces);
    (void)buffer_append_text(&json, "}");
    put_json(answer, out, "message_delta", &json);
}

static void anthropic_stage(struct mock_answer *answer, struct buffer *out)
{
    static const char STOP[] = "{\"type\":\"message_stop\"}";
    static const struct buffer DONE = {.data = (char *)STOP, .size = sizeof STOP - 1};
    if (answer->stage == STAGE_START)
        anthropic_start(answer, out);
    else if (answer->stage == STAGE_BODY)
        anthropic_piece(answer, out);
    else if (answer->stage == STAGE_FINISH)
        anthropic_finish(answer, out);
    else if (answer->stage == STAGE_DONE && !(answer->fault.styles & STYLE_NO_DONE))
        put_event(answer, out, "message_stop", &DONE);
}

/* --- the course of a stream */

static void advance(struct mock_answer *answer)
{
    if (answer->stage == STAGE_BODY && ++answer->piece < answer->n_pieces)
        return;
    answer->stage++;
    if (answer->stage == STAGE_BODY && answer->n_pieces == 0)
        answer->stage++;
    if (answer->stage == STAGE_FINISH && answer->fault.course == COURSE_NO_FINISH)
        answer->stage++;
}

static void put_error(struct mock_answer *answer, struct buffer *out)
{
    struct buffer json = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    if (answer->fault.course == COURSE_ERROR_OBJECT)
        (void)buffer_append_text(&json, "{\"object\":\"error\",\"message\":\"a mock of an error\",\"type\":"
                                        "\"InternalServerError\",\"param\":null,\"code\":500}");
    else
        mock_error_body(answer->form, 529, false, "a mock of an overloaded provider", &json);
    put_json(answer, out, "error", &json);
}

/* Half of an event as it would be written. */
static void put_half_event(struct mock_answer *answer, struct buffer *out, bool as_whole)
{
    struct buffer event = {.limit_bytes = MOCK_EVENT_BYTES_MAX};
    struct mock_answer plain = *answer;
    plain.fault.styles &= STYLE_CRLF | STYLE_CR;
    if (answer->form == MOCK_OPENAI)
        openai_stage(&plain, &event);
    else
        anthropic_stage(&plain, &event);
    answer->head = plain.head;
    const char *data = strstr(event.data, "data:");
    size_t size = (size_t)(data - event.data) + strlen(data) / 2;
    (void)buffer_append(out, event.data, size);
    if (as_whole)
        (void)buffer_append_format(out, "%s%s", end_of_line(answer), end_of_line(answer));
    buffer_free(&event);
}

static enum mock_step huge_next(struct mock_answer *answer, struct buffer *out)
{
    char fill[HUGE_STEP_BYTES];
    size_t n = answer->huge_left < sizeof fill ? answer->huge_left : sizeof fill;
    memset(fill, 'm', n);
    (void)buffer_append(out, fill, n);
    answer->huge_left -= n;
    if (answer->huge_left == 0)
        (void)buffer_append_format(out, "\"}%s%s", end_of_line(answer), end_of_line(answer));
    return MOCK_MORE;
}

/* What its fault has in the middle. False: it goes on as ever. */
static bool fail_mid(struct mock_answer *answer, struct buffer *out, enum mock_step *step)
{
    *step = MOCK_MORE;
    switch (answer->fault.course) {
    case COURSE_ERROR_MID:
    case COURSE_ERROR_OBJECT:
        put_error(answer, out);
        *step = MOCK_END;
        return true;
    case COURSE_RESET_MID:
        *step = MOCK_RESET;
        return true;
    case COURSE_STALL:
        *step = MOCK_NOTHING;
        return true;
    case COURSE_GARBLED:
        put_half_event(answer, out, true);
        return true;
    case COURSE_EOF:
    case COURSE_CUT:
        put_half_event(answer, out, false);
        *step = MOCK_CLOSE;
        return true;
    case COURSE_HUGE_LINE:
        (void)buffer_append_text(out, "data: {\"mock\":\"");
        answer->huge_left = answer->huge_bytes;
        return true;
    default:
        return false;
    }
}

/* A part of the event that comes now, less than its JSON. */
static enum mock_step cut_here(struct mock_answer *answer, struct buffer *out)
{
    size_t before = out->size;
    if (answer->form == MOCK_OPENAI)
        openai_stage(answer, out);
    else
        anthropic_stage(answer, out);
    size_t size = out->size - before;
    while (size > 1 && out->data[before + size - 1] != '}')
        size--;
    out->size = before + mock_random(&answer->random) % size;
    return MOCK_CLOSE;
}

enum mock_step mock_stream_next(struct mock_answer *answer, struct buffer *out)
{
    enum mock_step step;
    if (answer->fault.course == COURSE_CUT_ANYWHERE && answer->cut_event-- == 0)
        return cut_here(answer, out);
    if (answer->huge_left > 0)
        return huge_next(answer, out);
    if (answer->fault.course == COURSE_ERROR_FIRST) {
        put_error(answer, out);
        return MOCK_END;
    }
    bool is_half = answer->stage >= STAGE_BODY && answer->piece >= answer->n_pieces / 2;
    if (is_half && !answer->has_failed) {
        answer->has_failed = true;
        if (fail_mid(answer, out, &step))
            return step;
    }
    bool at_once = answer->stage == STAGE_BODY && answer->n_calls > 0 && answer->form == MOCK_OPENAI &&
                   answer->fault.styles & STYLE_TOOLS_AT_ONCE;
    if (at_once) {
        openai_tools_at_once(answer, out);
        answer->stage = STAGE_USAGE;
        return MOCK_MORE;
    }
    if (answer->form == MOCK_OPENAI)
        openai_stage(answer, out);
    else
        anthropic_stage(answer, out);
    advance(answer);
    return answer->stage == STAGE_OVER ? MOCK_END : MOCK_MORE;
}

/* --- whole answers */

static void put_all_text(struct mock_answer *answer, struct buffer *out)
{
    struct buffer text = {.limit_bytes = MOCK_BODY_BYTES_MAX};
    size_t size;
    for (answer->piece = 0; answer->piece < answer->n_pieces; answer->piece++) {
        const char *word = mock_answer_word(answer, &size);
        (void)buffer_append(&text, word, size);
    }
    (void)buffer_append_json_string(out, text.data ? text.data : "", text.size);
    buffer_free(&text);
}

static void openai_body(struct mock_answer *answer, struct buffer *out)
{
    make_head(answer);
    (void)buffer_append(out, answer->head.data, answer->head.size);
    (void)buffer_append_text(out,
                             ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    if (answer->n_calls == 0) {
        put_all_text(answer, out);
    } else {
        (void)buffer_append_text(out, "null,\"tool_calls\":[");
        for (uint32_t i = 0; i < answer->n_calls; i++) {
            (void)buffer_append_text(out, i > 0 ? "," : "");
            put_call(answer, out, i, 3);
        }
        (void)buffer_append_text(out, "]");
    }
    (void)buffer_append_text(out, ",\"refusal\":null},\"logprobs\":null");
    if (answer->fault.course != COURSE_NO_FINISH)
        (void)buffer_append_format(out, ",\"finish_reason\":\"%s\"", finish_of(answer));
    (void)buffer_append_text(out, "}]");
    if (counts(answer)) {
        (void)buffer_append_text(out, ",");
        put_usage(answer, out);
    }
    (void)buffer_append_text(out, "}");
}

static void anthropic_body(struct mock_answer *answer, struct buffer *out)
{
    (void)buffer_append_format(
        out, "{\"id\":\"msg_mock_%llu\",\"type\":\"message\",\"role\":\"assistant\",\"model\":",
        (unsigned long long)answer->number);
    (void)put_string(out, answer->model);
    (void)buffer_append_text(out, ",\"content\":[");
    if (answer->n_calls == 0) {
        (void)buffer_append_text(out, "{\"type\":\"text\",\"text\":");
        put_all_text(answer, out);
        (void)buffer_append_text(out, "}");
    }
    for (uint32_t i = 0; i < answer->n_calls; i++) {
        (void)buffer_append_format(out, "%s{\"type\":\"tool_use\",\"id\":\"toolu_mock_%llu_%u\",\"name\":",
                                   i > 0 ? "," : "", (unsigned long long)answer->number, i);
        (void)put_string(out, answer->calls[i].name);
        (void)buffer_append_format(out, ",\"input\":%s}", answer->calls[i].arguments);
    }
    if (answer->fault.course == COURSE_NO_FINISH)
        (void)buffer_append_text(out, "],\"stop_reason\":null,\"stop_sequence\":null");
    else
        (void)buffer_append_format(out, "],\"stop_reason\":\"%s\",\"stop_sequence\":null", finish_of(answer));
    if (counts(answer))
        (void)buffer_append_format(out, ",\"usage\":{\"input_tokens\":%u,\"output_tokens\":%u}",
                                   answer->input_tokens, answer->n_pieces);
    (void)buffer_append_text(out, "}");
}

void mock_body_write(struct mock_answer *answer, struct buffer *out)
{
    if (answer->form == MOCK_OPENAI)
        openai_body(answer, out);
    else
        anthropic_body(answer, out);
}
