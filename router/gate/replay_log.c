#include "router/gate/replay_log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/mapped_file.h"
#include "router/gate/eval_cases.h"
#include "router/gate/eval_check.h"
#include "router/log/decision_entry.h"
#include "router/providers/json_text.h"

enum { ANSWER_BYTES_MAX = 4 << 20 };
static const double COST_MAX = 1e6, SECONDS_MAX = 1e6;

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the log");
}

/* The line is fine and has nothing to replay. */
static err_t no_content(void)
{
    return err_new(ERR_NOT_FOUND, "it has no request with an answer");
}

static bool is_known(const json_t *value)
{
    return value != NULL && !json_is_null(value);
}

/* Text of a message's content: a string, or its parts that are text. */
static bool put_content(struct buffer *out, const json_t *content)
{
    bool fits = buffer_append_text(out, "");
    if (json_is_string(content))
        return fits && buffer_append(out, json_string_value(content), json_string_length(content));
    for (size_t i = 0; i < json_array_size(content) && fits; i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (json_is_string(text))
            fits = buffer_append(out, json_string_value(text), json_string_length(text));
    }
    return fits;
}

static bool put_calls(struct buffer *out, const json_t *calls)
{
    json_t *functions = json_array();
    for (size_t i = 0; i < json_array_size(calls) && functions != NULL; i++)
        (void)json_array_append(functions, json_object_get(json_array_get(calls, i), "function"));
    bool fits = functions != NULL && eval_put_calls(out, functions);
    json_decref(functions);
    return fits;
}

/* An assistant's message becomes the answer. NOT_FOUND: it says nothing. */
static err_t take_message(const json_t *message, struct replay_item *out)
{
    struct buffer text = {.limit_bytes = ANSWER_BYTES_MAX};
    bool fits = put_content(&text, json_object_get(message, "content")) &&
                put_calls(&text, json_object_get(message, "tool_calls"));
    if (!fits || text.size == 0) {
        buffer_free(&text);
        return fits ? no_content() : no_memory();
    }
    out->answer = text.data;
    out->answer_bytes = text.size;
    return err_ok();
}

static int64_t read_count(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_integer(value) && json_integer_value(value) >= 0 ? json_integer_value(value) : -1;
}

static double read_real(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void read_figures(const json_t *line, const json_t *response, struct replay_item *out)
{
    const json_t *usage = json_object_get(response, "usage");
    if (usage == NULL)
        usage = json_object_get(line, "usage");
    if (usage == NULL)
        usage = line; /* LiteLLM's own: prompt_tokens beside the messages */
    out->input_tokens = read_count(usage, "prompt_tokens");
    out->output_tokens = read_count(usage, "completion_tokens");
    double cost = read_real(line, "response_cost"), start = read_real(line, "startTime"),
           end = read_real(line, "endTime");
    if (cost >= 0 && cost <= COST_MAX)
        out->cost = (nanodollars)llround(cost * 1e9);
    if (end >= start && end - start <= SECONDS_MAX)
        out->total_us = llround((end - start) * 1e6);
    const char *model = json_string_value(json_object_get(response, "model"));
    if (model == NULL)
        model = json_string_value(json_object_get(line, "model"));
    (void)snprintf(out->model, sizeof out->model, "%s", model ? model : "");
}

/* The request's own copy, as it can be asked again. */
static err_t copy_request(const json_t *given, struct replay_item *out)
{
    const json_t *messages = json_object_get(given, "messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return no_content();
    out->request = json_deep_copy(given);
    if (out->request == NULL)
        return no_memory();
    (void)json_object_del(out->request, "stream");
    (void)json_object_del(out->request, "stream_options");
    return err_ok();
}

static err_t read_response(const json_t *response, struct replay_item *out)
{
    if (json_is_string(response)) {
        json_t *message = json_pack("{s:O}", "content", response);
        err_t e = message ? take_message(message, out) : no_memory();
        json_decref(message);
        return e;
    }
    const json_t *choice = json_array_get(json_object_get(response, "choices"), 0);
    const json_t *message = json_object_get(choice, "message");
    return is_known(message) ? take_message(message, out) : no_content();
}

/* {messages, ...} where the parameters stand beside the messages, or in LiteLLM's model_parameters. */
static json_t *request_around(const json_t *line)
{
    static const char *const NAMES[] = {
        "messages", "max_tokens",  "max_completion_tokens", "temperature", "top_p", "stop",
        "tools",    "tool_choice", "response_format",       "seed",        NULL};
    const json_t *parameters = json_object_get(line, "model_parameters");
    json_t *request = json_object();
    for (size_t i = 0; NAMES[i] != NULL && request != NULL; i++) {
        json_t *value = json_object_get(line, NAMES[i]);
        if (!is_known(value))
            value = json_object_get(parameters, NAMES[i]);
        if (is_known(value) && json_object_set(request, NAMES[i], value) != 0) {
            json_decref(request);
            return NULL;
        }
    }
    return request;
}

/* The answer is the last of the messages, and no part of what was asked. */
static err_t split_messages(struct replay_item *out)
{
    json_t *messages = json_object_get(out->request, "messages");
    size_t n = json_array_size(messages);
    const json_t *last = json_array_get(messages, n - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (n < 2 || role == NULL || strcmp(role, "assistant") != 0)
        return no_content();
    TRY(take_message(last, out));
    return json_array_remove(messages, n - 1) == 0 ? err_ok() : no_memory();
}

static err_t read_messages(const json_t *line, struct replay_item *out)
{
    json_t *around = request_around(line);
    if (around == NULL)
        return no_memory();
    err_t e = copy_request(around, out);
    json_decref(around);
    TRY(e);
    const json_t *response = json_object_get(line, "response");
    read_figures(line, response, out);
    return is_known(response) ? read_response(response, out) : split_messages(out);
}

static err_t read_pair(const json_t *line, struct replay_item *out)
{
    const json_t *response = json_object_get(line, "response");
    TRY(copy_request(json_object_get(line, "request"), out));
    read_figures(line, response, out);
    return is_known(response) ? read_response(response, out) : no_content();
}

static err_t read_decision(const char *text, size_t bytes, struct replay_item *out)
{
    struct decision_line line;
    TRY(decision_line_parse(text, bytes, &line));
    const struct decision_entry *entry = &line.entry;
    err_t e = entry->request == NULL || entry->answer == NULL || entry->error[0] != '\0'
                  ? no_content()
                  : copy_request(entry->request, out);
    if (e.code == ERR_OK) {
        out->answer = mem_strndup(entry->answer, entry->answer_bytes);
        out->answer_bytes = entry->answer_bytes;
        out->cost = entry->cost;
        out->input_tokens = entry->usage.input_tokens;
        out->output_tokens = entry->usage.output_tokens;
        out->total_us = entry->total_us;
        (void)snprintf(out->model, sizeof out->model, "%s", entry->answered_by);
        (void)snprintf(out->tenant, sizeof out->tenant, "%s", entry->tenant);
        if (out->answer == NULL)
            e = no_memory();
    }
    decision_line_free(&line);
    return e;
}

static err_t read_line(const char *text, size_t bytes, struct replay_item *out)
{
    json_error_t error;
    json_t *line = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(line)) {
        json_decref(line);
        return err_new(ERR_INVALID_ARGUMENT, "not a JSON object: %s at byte %d", error.text, error.position);
    }
    err_t e;
    if (json_object_get(line, "version") != NULL && json_object_get(line, "unix_ms") != NULL)
        e = read_decision(text, bytes, out);
    else if (json_is_object(json_object_get(line, "request")))
        e = read_pair(line, out);
    else if (json_is_array(json_object_get(line, "messages")))
        e = read_messages(line, out);
    else
        e = err_new(ERR_INVALID_ARGUMENT, "neither a decision, nor {request, response}, nor {messages, ...}");
    json_decref(line);
    return e;
}

static void free_item(struct replay_item *item)
{
    json_decref(item->request);
    mem_free(item->answer);
    *item = (struct replay_item){0};
}

static err_t make_room(struct replay_log *log)
{
    if (log->n < log->capacity)
        return err_ok();
    if (log->n == REPLAY_ITEMS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "more than %d requests", REPLAY_ITEMS_MAX);
    size_t capacity = log->capacity ? 2 * log->capacity : 64;
    struct replay_item *grown = mem_realloc(log->items, capacity * sizeof *grown);
    if (grown == NULL)
        return no_memory();
    log->items = grown;
    log->capacity = capacity;
    return err_ok();
}

static err_t take_line(struct replay_log *log, const char *text, size_t bytes, size_t number)
{
    TRY(make_room(log));
    struct replay_item *item = &log->items[log->n];
    *item = (struct replay_item){.cost = -1, .input_tokens = -1, .output_tokens = -1, .total_us = -1};
    err_t e = read_line(text, bytes, item);
    if (e.code == ERR_OK) {
        log->n++;
        return e;
    }
    free_item(item);
    if (e.code == ERR_RESOURCE_EXHAUSTED)
        return err_prefix(e, "line %zu", number);
    log->n_without_content += e.code == ERR_NOT_FOUND;
    if (e.code != ERR_NOT_FOUND && log->n_bad++ == 0) {
        log->first_bad = number;
        log->why_bad = e;
    }
    return err_ok();
}

err_t replay_log_parse(const char *text, size_t text_bytes, struct replay_log *out)
{
    size_t begin = 0, number = 0, bytes;
    const char *line;
    *out = (struct replay_log){.why_bad = err_ok()};
    while (eval_next_line(text, text_bytes, &begin, &number, &line, &bytes)) {
        err_t e = take_line(out, line, bytes, number);
        if (e.code != ERR_OK) {
            replay_log_free(out);
            return e;
        }
    }
    return err_ok();
}

err_t replay_log_read(const char *path, struct replay_log *out)
{
    char *text;
    size_t bytes;
    *out = (struct replay_log){.why_bad = err_ok()};
    TRY(file_read(path, EVAL_FILE_BYTES_MAX, &text, &bytes));
    err_t e = replay_log_parse(text, bytes, out);
    mem_free(text);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", path);
}

void replay_log_keep_last(struct replay_log *log, size_t n)
{
    if (n >= log->n)
        return;
    size_t n_gone = log->n - n;
    for (size_t i = 0; i < n_gone; i++)
        free_item(&log->items[i]);
    memmove(log->items, log->items + n_gone, n * sizeof *log->items);
    log->n = n;
}

void replay_log_free(struct replay_log *log)
{
    for (size_t i = 0; i < log->n; i++)
        free_item(&log->items[i]);
    mem_free(log->items);
    *log = (struct replay_log){.why_bad = err_ok()};
}
