#include "router/gate/eval_cases.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "router/providers/json_text.h"

enum { CASE_TEXT_BYTES_MAX = 64 << 20 };
static const double TOLERANCE = 1e-6, COST_MAX = 1e6, MS_MAX = 1e9;

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the cases");
}

bool eval_next_line(const char *text, size_t text_bytes, size_t *begin, size_t *number, const char **line,
                    size_t *line_bytes)
{
    while (*begin < text_bytes) {
        const char *from = text + *begin, *newline = memchr(from, '\n', text_bytes - *begin);
        size_t bytes = newline ? (size_t)(newline - from) : text_bytes - *begin;
        *begin += bytes + 1;
        ++*number;
        while (bytes > 0 && (from[bytes - 1] == '\r' || from[bytes - 1] == ' ' || from[bytes - 1] == '\t'))
            bytes--;
        *line = from;
        *line_bytes = bytes;
        if (bytes > 0)
            return true;
    }
    return false;
}

err_t eval_hash_json(const json_t *value, char out[17])
{
    struct buffer text = {.limit_bytes = CASE_TEXT_BYTES_MAX};
    err_t e = json_text_append_sorted(&text, value);
    if (e.code == ERR_OK)
        (void)snprintf(out, 17, "%016" PRIx64, hash64(text.data, text.size, 0));
    buffer_free(&text);
    return e;
}

static bool is_ours(const char *key)
{
    static const char *const KEYS[] = {"id",     "title",  "task",      "expected", "reference",  "check",
                                       "fields", "labels", "tolerance", "strong",   "difficulty", "prompt"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        if (strcmp(key, KEYS[i]) == 0)
            return true;
    return false;
}

/* The request as it stands in the line; the caller's, NULL without memory. */
static json_t *copy_request(const json_t *line)
{
    const json_t *given = json_object_get(line, "request");
    if (json_is_object(given))
        return json_deep_copy(given);
    json_t *request = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)line, key, value) /* jansson's iterators take no const */
    {
        if (request != NULL && !is_ours(key) && json_object_set(request, key, value) != 0) {
            json_decref(request);
            return NULL;
        }
    }
    const json_t *prompt = json_object_get(line, "prompt");
    if (request != NULL && json_is_string(prompt) && json_object_get(request, "messages") == NULL) {
        json_t *messages = json_pack("[{s:s, s:O}]", "role", "user", "content", prompt);
        if (messages == NULL || json_object_set_new(request, "messages", messages) != 0) {
            json_decref(request);
            return NULL;
        }
    }
    return request;
}

static err_t read_request(const struct eval_case_defaults *defaults, struct eval_case *out)
{
    out->request = copy_request(out->line);
    if (out->request == NULL)
        return no_memory();
    const json_t *messages = json_object_get(out->request, "messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "a case needs \"messages\", \"prompt\" or \"request\" with messages");
    bool is_set = true;
    if (defaults->max_tokens > 0 && json_object_get(out->request, "max_tokens") == NULL &&
        json_object_get(out->request, "max_completion_tokens") == NULL)
        is_set = json_object_set_new(out->request, "max_tokens", json_integer(defaults->max_tokens)) == 0;
    if (defaults->temperature >= 0 && json_object_get(out->request, "temperature") == NULL)
        is_set &= json_object_set_new(out->request, "temperature", json_real(defaults->temperature)) == 0;
    (void)json_object_del(out->request, "stream");
    return is_set ? err_ok() : no_memory();
}

static err_t read_text(const json_t *line, const char *name, const char **out)
{
    const json_t *value = json_object_get(line, name);
    *out = "";
    if (value == NULL || json_is_null(value))
        return err_ok();
    if (!json_is_string(value))
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a string", name);
    *out = json_string_value(value);
    return err_ok();
}

/* A number of an object, times scale; *out stays when it is not there. */
static err_t read_number(const json_t *object, const char *name, double high, double *out)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL || json_is_null(value))
        return err_ok();
    if (!json_is_number(value) || !(json_number_value(value) >= 0 && json_number_value(value) <= high))
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a number, 0 to %g", name, high);
    *out = json_number_value(value);
    return err_ok();
}

static err_t read_kind(const json_t *line, enum eval_check_kind *out)
{
    const char *name;
    TRY(read_text(line, "check", &name));
    *out = CHECK_NONE;
    if (name[0] == '\0')
        return err_ok();
    for (int kind = 0; kind < EVAL_CHECKS; kind++) {
        if (strcmp(name, EVAL_CHECK_NAMES[kind]) == 0) {
            *out = (enum eval_check_kind)kind;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT,
                   "check \"%.40s\" is none of exact, normalised, contains, number, json, label", name);
}

/* Strings stand as they are, what else is expected as its JSON. */
static err_t read_expected(const json_t *expected, struct eval_case *out)
{
    if (json_is_string(expected)) {
        out->check.expected = json_string_value(expected);
        out->check.expected_bytes = json_string_length(expected);
        return err_ok();
    }
    struct buffer text = {.limit_bytes = CASE_TEXT_BYTES_MAX};
    err_t e = json_text_append(&text, expected);
    if (e.code != ERR_OK) {
        buffer_free(&text);
        return e;
    }
    out->expected_text = text.data;
    out->check.expected = text.data;
    out->check.expected_bytes = text.size;
    return err_ok();
}

static err_t read_check(struct eval_case *out)
{
    const json_t *expected = json_object_get(out->line, "expected");
    if (expected == NULL)
        expected = json_object_get(out->line, "reference");
    TRY(read_kind(out->line, &out->kind));
    out->check.tolerance = TOLERANCE;
    TRY(read_number(out->line, "tolerance", 1, &out->check.tolerance));
    out->check.fields = json_object_get(out->line, "fields");
    out->check.labels = json_object_get(out->line, "labels");
    if (expected == NULL)
        return err_ok();
    TRY(read_expected(expected, out));
    struct eval_check like = eval_check_like(out->check.expected, out->check.expected_bytes);
    out->check.kind = out->kind != CHECK_NONE     ? out->kind
                      : json_is_number(expected)  ? CHECK_NUMBER
                      : !json_is_string(expected) ? CHECK_JSON
                      : like.kind == CHECK_JSON   ? CHECK_JSON
                      : out->check.labels != NULL ? CHECK_LABEL
                                                  : CHECK_EXACT;
    return eval_check_validate(&out->check);
}

static err_t read_strong(struct eval_case *out)
{
    const json_t *strong = json_object_get(out->line, "strong");
    const json_t *text = json_is_object(strong) ? json_object_get(strong, "text") : strong;
    out->strong_cost = out->strong_total_us = -1;
    if (strong == NULL || json_is_null(strong))
        return err_ok();
    if (!json_is_string(text))
        return err_new(ERR_INVALID_ARGUMENT, "strong must be a string or an object with \"text\"");
    out->strong = json_string_value(text);
    out->strong_bytes = json_string_length(text);
    double cost = -1, ms = -1;
    TRY(read_number(strong, "cost", COST_MAX, &cost));
    TRY(read_number(strong, "ms", MS_MAX, &ms));
    out->strong_cost = cost < 0 ? -1 : (int64_t)(cost * 1e9 + 0.5);
    out->strong_total_us = ms < 0 ? -1 : (int64_t)(ms * 1e3 + 0.5);
    return err_ok();
}

static err_t read_id(struct eval_case *out)
{
    const json_t *id = json_object_get(out->line, "id");
    if (id == NULL || json_is_null(id))
        return eval_hash_json(out->line, out->id);
    int bytes = -1;
    if (json_is_integer(id))
        bytes = snprintf(out->id, sizeof out->id, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
    else if (json_is_string(id) && json_string_length(id) > 0)
        bytes = snprintf(out->id, sizeof out->id, "%s", json_string_value(id));
    if (bytes < 0 || (size_t)bytes >= sizeof out->id)
        return err_new(ERR_INVALID_ARGUMENT, "id must be a number or a string of 1 to %d bytes",
                       EVAL_CASE_ID_BYTES - 1);
    return err_ok();
}

static void free_case(struct eval_case *one)
{
    json_decref(one->line);
    json_decref(one->request);
    mem_free(one->expected_text);
}

static err_t read_case(const char *text, size_t bytes, const struct eval_case_defaults *defaults,
                       struct eval_case *out)
{
    json_error_t error;
    *out = (struct eval_case){.difficulty = -1};
    out->line = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (out->line == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "not JSON: %s at byte %d", error.text, error.position);
    if (!json_is_object(out->line))
        return err_new(ERR_INVALID_ARGUMENT, "a case is an object");
    TRY(read_request(defaults, out));
    TRY(read_id(out));
    TRY(read_text(out->line, "task", &out->task));
    TRY(read_check(out));
    TRY(read_strong(out));
    return read_number(out->line, "difficulty", 1, &out->difficulty);
}

static err_t make_room(struct eval_cases *cases)
{
    if (cases->n < cases->capacity)
        return err_ok();
    if (cases->n == EVAL_CASES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "more than %d cases", EVAL_CASES_MAX);
    size_t capacity = cases->capacity ? 2 * cases->capacity : 64;
    struct eval_case *grown = mem_realloc(cases->cases, capacity * sizeof *grown);
    if (grown == NULL)
        return no_memory();
    cases->cases = grown;
    cases->capacity = capacity;
    return err_ok();
}

/* Where the id stands in the table (open addressing, place + 1 of its case), or where it would. */
static size_t place_of_id(const struct eval_cases *cases, const uint32_t *table, size_t size, const char *id)
{
    size_t at = hash64(id, strlen(id), 0) & (size - 1);
    while (table[at] != 0 && strcmp(cases->cases[table[at] - 1].id, id) != 0)
        at = (at + 1) & (size - 1);
    return at;
}

/* The same id twice is an error; equal lines without one get their number behind their hash. */
static err_t check_ids(struct eval_cases *cases)
{
    size_t size = 1;
    while (size < 2 * cases->n)
        size *= 2;
    uint32_t *table = mem_alloc_array(size, sizeof *table);
    err_t e = table == NULL ? no_memory() : err_ok();
    for (size_t i = 0; i < cases->n && e.code == ERR_OK; i++) {
        struct eval_case *one = &cases->cases[i];
        bool is_made = json_object_get(one->line, "id") == NULL;
        size_t at = place_of_id(cases, table, size, one->id);
        if (table[at] != 0 && is_made) {
            (void)snprintf(one->id + 16, sizeof one->id - 16, "-%zu", i + 1);
            at = place_of_id(cases, table, size, one->id);
        }
        if (table[at] != 0)
            e = err_new(ERR_INVALID_ARGUMENT, "the id \"%s\" stands twice", one->id);
        else
            table[at] = (uint32_t)i + 1;
    }
    mem_free(table);
    return e;
}

static err_t hash_cases(struct eval_cases *cases)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < cases->n; i++) {
        char digits[17];
        TRY(eval_hash_json(cases->cases[i].line, digits));
        hash = hash64(digits, 16, hash);
    }
    (void)snprintf(cases->id, sizeof cases->id, "%016" PRIx64, hash);
    return err_ok();
}

static err_t read_lines(const char *name, const char *text, size_t text_bytes,
                        const struct eval_case_defaults *defaults, struct eval_cases *out)
{
    size_t begin = 0, number = 0, bytes;
    const char *line;
    while (eval_next_line(text, text_bytes, &begin, &number, &line, &bytes)) {
        TRY(make_room(out));
        err_t e = read_case(line, bytes, defaults, &out->cases[out->n]);
        out->n++; /* with what it has, to be freed */
        if (e.code != ERR_OK)
            return err_prefix(e, "%s line %zu", name, number);
    }
    if (out->n == 0)
        return err_new(ERR_INVALID_ARGUMENT, "%s: there are no cases", name);
    err_t e = check_ids(out);
    return e.code == ERR_OK ? hash_cases(out) : err_prefix(e, "%s", name);
}

err_t eval_cases_parse(const char *name, const char *text, size_t text_bytes,
                       const struct eval_case_defaults *defaults, struct eval_cases *out)
{
    *out = (struct eval_cases){0};
    err_t e = read_lines(name, text, text_bytes, defaults, out);
    if (e.code != ERR_OK)
        eval_cases_free(out);
    return e;
}

err_t eval_cases_read(const char *path, const struct eval_case_defaults *defaults, struct eval_cases *out)
{
    char *text;
    size_t bytes;
    *out = (struct eval_cases){0};
    TRY(file_read(path, EVAL_FILE_BYTES_MAX, &text, &bytes));
    err_t e = eval_cases_parse(path, text, bytes, defaults, out);
    mem_free(text);
    return e;
}

void eval_cases_free(struct eval_cases *cases)
{
    for (size_t i = 0; i < cases->n; i++)
        free_case(&cases->cases[i]);
    mem_free(cases->cases);
    *cases = (struct eval_cases){0};
}
