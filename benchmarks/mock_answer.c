/* Reading what is asked, and deciding what is said. */
#include "benchmarks/mock_answer.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "benchmarks/mock_schema.h"
#include "benchmarks/mock_table.h"

static const err_t NO_MEMORY = {.code = ERR_RESOURCE_EXHAUSTED,
                                .file = __FILE__,
                                .line = __LINE__,
                                .message = "the mock provider is out of memory"};

static err_t refuse(const char *why)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s", why);
}

/* --- messages */

/* A message's text, its parts one after the other. */
static bool append_text(const json_t *content, struct buffer *out)
{
    if (json_is_string(content))
        return buffer_append(out, json_string_value(content), json_string_length(content));
    bool good = true;
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (json_is_string(text))
            good = good && buffer_append(out, json_string_value(text), json_string_length(text));
    }
    return good;
}

static bool is_tool_result(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    const char *type =
        json_string_value(json_object_get(json_array_get(json_object_get(message, "content"), 0), "type"));
    return (role && strcmp(role, "tool") == 0) || (type && strcmp(type, "tool_result") == 0);
}

/* The last text of the user, and how much text there is. */
static err_t read_messages(struct mock_answer *answer, const json_t *root)
{
    const json_t *messages = json_object_get(root, "messages");
    struct buffer all = {.limit_bytes = MOCK_BODY_BYTES_MAX}, last = {.limit_bytes = MOCK_BODY_BYTES_MAX};
    bool good = append_text(json_object_get(root, "system"), &all) && buffer_append_text(&last, "");
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        const json_t *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        good = good && append_text(content, &all);
        if (role && strcmp(role, "user") == 0 && !is_tool_result(message)) {
            buffer_clear(&last);
            good = good && append_text(content, &last) && buffer_append_text(&last, "");
        }
    }
    answer->input_tokens = (uint32_t)(all.size / 4 + 1);
    buffer_free(&all);
    answer->prompt = last.data;
    if (json_array_size(messages) == 0)
        return refuse("messages must be a list with at least one message");
    return good && answer->prompt ? err_ok() : NO_MEMORY;
}

/* --- orders in the prompt: "mock:503 mock:tokens=100" */

static bool take_number(const char *word, size_t size, const char *name, double *out)
{
    size_t n = strlen(name);
    char digits[32];
    if (size <= n || strncmp(word, name, n) != 0 || size - n >= sizeof digits)
        return false;
    memcpy(digits, word + n, size - n);
    digits[size - n] = '\0';
    char *end;
    *out = strtod(digits, &end);
    return *end == '\0' && *out >= 0 && *out <= 1e6;
}

static err_t take_order(struct mock_answer *answer, const char *word, size_t size, uint32_t *n_tokens)
{
    double number;
    if (take_number(word, size, "tokens=", &number))
        *n_tokens = (uint32_t)number;
    else if (take_number(word, size, "first-byte-ms=", &number))
        answer->first_byte_ns = (int64_t)(number * 1e6);
    else if (take_number(word, size, "per-chunk-ms=", &number))
        answer->per_chunk_ns = (int64_t)(number * 1e6);
    else if (size == 4 && memcmp(word, "tool", 4) == 0)
        answer->wants_tool = true;
    else if (size == 5 && memcmp(word, "tools", 5) == 0)
        answer->wants_tool = answer->wants_tools = true;
    else
        return mock_fault_parse(word, size, &answer->fault);
    return err_ok();
}

static err_t take_orders(struct mock_answer *answer, uint32_t *n_tokens)
{
    static const char MARK[] = "mock:";
    for (const char *at = answer->prompt; (at = strstr(at, MARK)) != NULL;) {
        const char *word = at + sizeof MARK - 1;
        size_t size = strcspn(word, " \t\r\n");
        if (at == answer->prompt || strchr(" \t\r\n", at[-1]))
            TRY(take_order(answer, word, size, n_tokens));
        at = word + size;
    }
    return err_ok();
}

/* --- tools */

static const char *tool_name(const json_t *tool, const json_t **schema)
{
    const json_t *function = json_object_get(tool, "function");
    *schema = json_object_get(function, "parameters");
    if (!function) {
        function = tool;
        *schema = json_object_get(tool, "input_schema");
    }
    return json_string_value(json_object_get(function, "name"));
}

/* The one that tool_choice names; NULL = any, or none is asked for. */
static const char *choice_of(const json_t *root, bool *is_forced)
{
    const json_t *choice = json_object_get(root, "tool_choice");
    const char *word = json_string_value(json_is_string(choice) ? choice : json_object_get(choice, "type"));
    *is_forced = word && (strcmp(word, "required") == 0 || strcmp(word, "any") == 0 ||
                          strcmp(word, "tool") == 0 || strcmp(word, "function") == 0);
    if (word && strcmp(word, "none") == 0)
        return "";
    const char *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
    return name ? name : json_string_value(json_object_get(choice, "name"));
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = text; n > 0 && (at = strstr(at, word)) != NULL; at += n) {
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[n]))
            return true;
    }
    return false;
}

static err_t call_tool(struct mock_answer *answer, const char *name, const json_t *schema)
{
    struct mock_call *call = &answer->calls[answer->n_calls++];
    struct buffer arguments = {.limit_bytes = MOCK_EVENT_BYTES_MAX / 4};
    bool good =
        json_is_object(schema) ? mock_schema_write(schema, &arguments) : buffer_append_text(&arguments, "{}");
    call->name = mem_strdup(name);
    call->arguments = arguments.data;
    return good && call->name ? err_ok() : NO_MEMORY;
}

static err_t read_tools(struct mock_answer *answer, const json_t *root)
{
    const json_t *messages = json_object_get(root, "messages"), *tools = json_object_get(root, "tools"),
                 *schema;
    bool is_forced;
    const char *wanted = choice_of(root, &is_forced);
    bool two = answer->wants_tools || (answer->fault.styles & STYLE_TOOLS_AT_ONCE);
    if (is_tool_result(json_array_get(messages, json_array_size(messages) - 1)))
        return err_ok(); /* it was called, and the answer follows */
    size_t i;
    json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        const char *name = tool_name(tool, &schema);
        if (!name || (wanted && strcmp(wanted, name) != 0))
            continue;
        if (!is_forced && !answer->wants_tool && !two && !has_word(answer->prompt, name))
            continue;
        while (answer->n_calls < (two ? MOCK_CALLS_MAX : 1))
            TRY(call_tool(answer, name, schema));
    }
    return err_ok();
}

/* --- the text */

static const json_t *schema_of(const json_t *root)
{
    const json_t *format = json_object_get(root, "response_format");
    if (format)
        return json_object_get(json_object_get(format, "json_schema"), "schema");
    return json_object_get(json_object_get(json_object_get(root, "output_config"), "format"), "schema");
}

static bool asks_for_json(const json_t *root)
{
    const char *type = json_string_value(json_object_get(json_object_get(root, "response_format"), "type"));
    return type && strcmp(type, "json_object") == 0;
}

static err_t make_text(struct mock_answer *answer, const struct mock_options *options, const json_t *root,
                       uint32_t n_tokens)
{
    static const char ODD[] = " Gr\u00fc\u00dfe \u4e16\u754c \U0001f600 na\u00efve \u2026";
    struct buffer text = {.limit_bytes = MOCK_BODY_BYTES_MAX};
    const json_t *schema = schema_of(root);
    const char *known = mock_table_find(options->table, answer->prompt);
    size_t prompt_bytes = strnlen(answer->prompt, MOCK_ECHO_BYTES_MAX);
    while (prompt_bytes > 0 && ((unsigned char)answer->prompt[prompt_bytes] & 0xc0) == 0x80)
        prompt_bytes--;
    bool good, odd = answer->fault.styles & STYLE_SPLIT_UTF8;
    if (answer->fault.styles & STYLE_BAD_SCHEMA)
        good = buffer_append_text(&text, "{\"mock\":\"not what was asked for");
    else if (json_is_object(schema))
        good = mock_schema_write(schema, &text);
    else if (known)
        good = buffer_append_text(&text, known) && (!odd || buffer_append_text(&text, ODD));
    else if (asks_for_json(root))
        good = buffer_append_text(&text, "{\"mock\": true}");
    else if (n_tokens > 0 && !odd)
        return err_ok(); /* words */
    else
        good = buffer_append_text(&text, "A mock answer to: ") &&
               buffer_append(&text, answer->prompt, prompt_bytes) && (!odd || buffer_append_text(&text, ODD));
    answer->text = text.data;
    return good ? err_ok() : NO_MEMORY;
}

/* A call of a tool is one piece that names it and two of its arguments. */
static err_t count_pieces(struct mock_answer *answer, const json_t *root, uint32_t n_tokens)
{
    const json_t *most = json_object_get(root, "max_completion_tokens");
    if (!json_is_integer(most))
        most = json_object_get(root, "max_tokens");
    if (answer->form == MOCK_ANTHROPIC && !json_is_integer(most))
        return refuse("max_tokens: Field required");
    if (json_is_integer(most) && json_integer_value(most) < 1)
        return refuse("max_tokens must be at least 1");
    if (answer->n_calls > 0) {
        answer->n_pieces = answer->n_calls * 3;
        return err_ok();
    }
    answer->n_pieces = n_tokens < MOCK_TOKENS_MAX ? n_tokens : MOCK_TOKENS_MAX;
    if (answer->text) {
        size_t size;
        for (answer->n_pieces = 0; mock_answer_word(answer, &size); answer->piece++)
            answer->n_pieces++;
        answer->piece = 0;
        answer->text_at = 0;
    }
    if (json_is_integer(most) && json_integer_value(most) < (json_int_t)answer->n_pieces) {
        answer->n_pieces = (uint32_t)json_integer_value(most);
        answer->is_cut = true;
    }
    return err_ok();
}

static err_t name_model(struct mock_answer *answer, const json_t *root)
{
    const char *asked = json_string_value(json_object_get(root, "model"));
    if (!asked)
        return refuse("model must be a name");
    struct buffer name = {.limit_bytes = MOCK_FAULT_NAME_BYTES_MAX * 2};
    bool good = (strncmp(asked, "mock", 4) == 0 || buffer_append_text(&name, "mock-")) &&
                buffer_append_text(&name, asked);
    answer->model = name.data;
    return good ? err_ok() : refuse("the model's name is too long");
}

static err_t read_request(struct mock_answer *answer, const struct mock_options *options, const json_t *root)
{
    uint32_t n_tokens = options->n_tokens;
    const json_t *n = json_object_get(root, "n");
    if (!json_is_object(root))
        return refuse("the body must be a JSON object");
    TRY(name_model(answer, root));
    TRY(read_messages(answer, root));
    TRY(take_orders(answer, &n_tokens));
    if (json_is_integer(n) && json_integer_value(n) != 1)
        return refuse("the mock provider answers once: n must be 1");
    answer->is_stream = json_is_true(json_object_get(root, "stream"));
    answer->wants_usage =
        json_is_true(json_object_get(json_object_get(root, "stream_options"), "include_usage"));
    TRY(read_tools(answer, root));
    TRY(make_text(answer, options, root, n_tokens));
    return count_pieces(answer, root, n_tokens);
}

/* What its fault means for the head. */
static void settle_head(struct mock_answer *answer)
{
    enum mock_course course = answer->fault.course;
    if (course == COURSE_STATUS)
        answer->status = answer->fault.status;
    if (answer->status != 200)
        answer->is_stream = false;
    bool is_html = course == COURSE_HTML || answer->status == 502;
    answer->content_type = is_html             ? "text/html"
                           : answer->is_stream ? "text/event-stream"
                                               : "application/json";
    answer->until_close = course == COURSE_EOF || (course == COURSE_CUT_ANYWHERE && answer->is_stream);
    answer->cut_event = mock_random(&answer->random) % (answer->n_pieces + 2);
}

err_t mock_answer_make(const struct mock_options *options, enum mock_form form, const char *body,
                       size_t body_bytes, const struct mock_fault *fault, uint64_t number,
                       struct mock_answer **out)
{
    struct mock_answer *answer = mem_alloc(sizeof *answer);
    if (!answer)
        return NO_MEMORY;
    *answer = (struct mock_answer){.form = form,
                                   .fault = *fault,
                                   .status = 200,
                                   .first_byte_ns = options->first_byte_ns,
                                   .per_chunk_ns = options->per_chunk_ns,
                                   .huge_bytes = options->huge_bytes,
                                   .number = number,
                                   .random = number * 0x9e3779b97f4a7c15u + 1,
                                   .head.limit_bytes = MOCK_EVENT_BYTES_MAX};
    json_t *root = json_loadb(body, body_bytes, 0, NULL);
    err_t e = root ? read_request(answer, options, root) : refuse("the body is not JSON");
    json_decref(root);
    if (e.code == ERR_INVALID_ARGUMENT) {
        answer->fault = (struct mock_fault){.course = COURSE_STATUS, .status = 400};
        mem_free(answer->text);
        answer->text = mem_strdup(e.message);
        e = answer->text ? err_ok() : NO_MEMORY;
    }
    if (e.code != ERR_OK) {
        mock_answer_free(answer);
        return e;
    }
    settle_head(answer);
    *out = answer;
    return e;
}

void mock_answer_free(struct mock_answer *answer)
{
    if (!answer)
        return;
    for (uint32_t i = 0; i < MOCK_CALLS_MAX; i++) {
        mem_free(answer->calls[i].name);
        mem_free(answer->calls[i].arguments);
    }
    mem_free(answer->prompt);
    mem_free(answer->model);
    mem_free(answer->text);
    buffer_free(&answer->head);
    mem_free(answer);
}

/* --- bodies */

void mock_error_body(enum mock_form form, int status, bool is_about_money, const char *why,
                     struct buffer *out)
{
    static const struct {
        int status;
        const char *openai, *anthropic;
    } TYPES[] = {
        {400, "invalid_request_error", "invalid_request_error"},
        {401, "authentication_error", "authentication_error"},
        {402, "insufficient_quota", "billing_error"},
        {403, "permission_error", "permission_error"},
        {404, "model_not_found", "not_found_error"},
        {413, "request_too_large", "request_too_large"},
        {429, "rate_limit_exceeded", "rate_limit_error"},
        {504, "timeout_error", "timeout_error"},
        {529, "overloaded_error", "overloaded_error"},
    };
    const char *type = status >= 500 ? "server_error" : "invalid_request_error";
    if (form == MOCK_ANTHROPIC && status >= 500)
        type = "api_error";
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (TYPES[i].status == status)
            type = form == MOCK_OPENAI ? TYPES[i].openai : TYPES[i].anthropic;
    if (is_about_money)
        type = form == MOCK_OPENAI ? "insufficient_quota" : "billing_error";
    (void)buffer_append_text(out, form == MOCK_OPENAI ? "{\"error\":{\"message\":"
                                                      : "{\"type\":\"error\",\"error\":{\"message\":");
    (void)buffer_append_json_string(out, why, strlen(why));
    (void)buffer_append_format(out, ",\"type\":\"%s\"", type);
    (void)buffer_append_format(
        out, form == MOCK_OPENAI ? ",\"param\":null,\"code\":\"%s\"}}" : "},\"request_id\":\"req_mock\"}",
        type);
}

static void fill_noise(struct mock_answer *answer, struct buffer *out, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        char byte = (char)mock_random(&answer->random);
        (void)buffer_append(out, &byte, 1);
    }
}

/* Half of what it was. */
static void halve(struct buffer *out, size_t before)
{
    out->size = before + (out->size - before) / 2;
    out->data[out->size] = '\0';
}

static enum mock_step whole_next(struct mock_answer *answer, struct buffer *out, size_t *told_bytes)
{
    static const char PAGE[] = "<html><body>mock: a gateway's page</body></html>";
    size_t before = out->size;
    enum mock_step step = MOCK_END;
    switch (answer->fault.course) {
    case COURSE_STATUS:
        if (answer->status == 502)
            (void)buffer_append_text(out, PAGE);
        else
            mock_error_body(answer->form, answer->status, answer->fault.is_about_money,
                            answer->text && answer->status == 400 ? answer->text : "a mock of that error",
                            out);
        break;
    case COURSE_ERROR_FIRST:
    case COURSE_ERROR_MID:
    case COURSE_ERROR_OBJECT:
        mock_error_body(answer->form, 529, false, "a mock of an overloaded provider", out);
        break;
    case COURSE_NOISE:
        fill_noise(answer, out, 4096);
        break;
    case COURSE_HTML:
        (void)buffer_append_text(out, PAGE);
        break;
    case COURSE_EMPTY:
        break;
    default:
        mock_body_write(answer, out);
    }
    *told_bytes = out->size - before;
    switch (answer->fault.course) {
    case COURSE_RESET_MID:
    case COURSE_STALL:
    case COURSE_CUT:
    case COURSE_EOF:
        halve(out, before);
        step = answer->fault.course == COURSE_RESET_MID ? MOCK_RESET
               : answer->fault.course == COURSE_STALL   ? MOCK_NOTHING
                                                        : MOCK_CLOSE;
        break;
    case COURSE_GARBLED:
        halve(out, before);
        *told_bytes = out->size - before;
        break;
    default:
        break;
    }
    return step;
}

/* One event in four. */
static void mutate(struct mock_answer *answer, struct buffer *out, size_t before)
{
    size_t size = out->size - before;
    if (size < 2 || mock_random(&answer->random) % 4 != 0)
        return;
    char *bytes = out->data + before;
    size_t at = mock_random(&answer->random) % size;
    size_t n = mock_random(&answer->random) % (size - at);
    n = n % (mock_random(&answer->random) % 2 ? 2 : 64);
    switch (mock_random(&answer->random) % 4) {
    case 0:
        bytes[at] = (char)mock_random(&answer->random);
        break;
    case 1:
        bytes[at] = "\r\n:{}[]\",\\\0u0"[mock_random(&answer->random) % 13];
        break;
    case 2:
        memmove(bytes + at, bytes + at + n, size - at - n);
        out->size -= n;
        break;
    default: {
        char again[64];
        memcpy(again, bytes + at, n);
        (void)buffer_append(out, again, n);
    }
    }
}

enum mock_step mock_answer_next(struct mock_answer *answer, struct buffer *out, size_t *told_bytes)
{
    static const char PAGE[] = "<html><body>mock: a page where a stream should be</body></html>";
    enum mock_course course = answer->fault.course;
    *told_bytes = 0;
    if (course == COURSE_RESET)
        return MOCK_RESET;
    if (course == COURSE_HANG)
        return MOCK_NOTHING;
    if (!answer->is_stream)
        return whole_next(answer, out, told_bytes);
    if (course == COURSE_EMPTY)
        return MOCK_END;
    if (course == COURSE_HTML || course == COURSE_NOISE) {
        if (course == COURSE_HTML)
            (void)buffer_append_text(out, PAGE);
        else
            fill_noise(answer, out, 4096);
        return MOCK_END;
    }
    size_t before = out->size;
    enum mock_step step = mock_stream_next(answer, out);
    if (answer->fault.styles & STYLE_MUTATED)
        mutate(answer, out, before);
    return step;
}
