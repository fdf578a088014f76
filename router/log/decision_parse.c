#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "router/log/decision_entry.h"

/* A field that is of another kind makes the line none of ours. */
struct fields {
    const json_t *object; /* NULL = nothing is there */
    err_t *wrong;         /* the first thing that is */
};

static void refuse(const struct fields *fields, const char *name, const char *expected)
{
    if (fields->wrong->code == ERR_OK)
        *fields->wrong = err_new(ERR_INVALID_ARGUMENT, "\"%s\" must be %s", name, expected);
}

static const json_t *field(const struct fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    return json_is_null(value) ? NULL : value;
}

static const char *read_text(const struct fields *fields, const char *name)
{
    const json_t *value = field(fields, name);
    if (value == NULL)
        return "";
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value)) {
        refuse(fields, name, "a text");
        return "";
    }
    return json_string_value(value);
}

static int64_t read_number(const struct fields *fields, const char *name, int64_t otherwise, int64_t high)
{
    const json_t *value = field(fields, name);
    if (value == NULL)
        return otherwise;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > high) {
        refuse(fields, name, "a whole number that is not negative nor beyond what it counts");
        return otherwise;
    }
    return json_integer_value(value);
}

static int64_t read_count(const struct fields *fields, const char *name, int64_t otherwise)
{
    return read_number(fields, name, otherwise, INT64_MAX);
}

static uint32_t read_small(const struct fields *fields, const char *name)
{
    return (uint32_t)read_number(fields, name, 0, UINT32_MAX);
}

static nanodollars read_money(const struct fields *fields, const char *name, nanodollars otherwise)
{
    return read_number(fields, name, otherwise, MONEY_MAX);
}

static bool read_flag(const struct fields *fields, const char *name)
{
    const json_t *value = field(fields, name);
    if (value && !json_is_boolean(value))
        refuse(fields, name, "true or false");
    return json_is_true(value);
}

static double read_share(const struct fields *fields, const char *name)
{
    const json_t *value = field(fields, name);
    if (value == NULL)
        return -1;
    if (!json_is_number(value) || json_number_value(value) < 0) {
        refuse(fields, name, "a number that is not negative");
        return -1;
    }
    return json_number_value(value);
}

static uint64_t read_seed(const struct fields *fields)
{
    const char *text = read_text(fields, "seed");
    char *end;
    if (strspn(text, "0123456789") != strlen(text) || strlen(text) > 20)
        refuse(fields, "seed", "a whole number in quotes");
    return strtoull(text, &end, 10);
}

/* An index into names, which NULL ends; 0 when it is none of them. */
static int read_name(const struct fields *fields, const char *name, const char *const *names)
{
    const char *text = read_text(fields, name);
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0)
            return i;
    }
    if (text[0] != '\0')
        refuse(fields, name, "a name that is known");
    return 0;
}

static struct fields read_object(const struct fields *fields, const char *name)
{
    const json_t *value = field(fields, name);
    if (value && !json_is_object(value)) {
        refuse(fields, name, "an object");
        value = NULL;
    }
    return (struct fields){value, fields->wrong};
}

static struct request_signals read_signals(const struct fields *input)
{
    struct fields fields = read_object(input, "signals");
    return (struct request_signals){
        .n_turns = read_small(&fields, "turns"),
        .n_tools = read_small(&fields, "tools"),
        .n_images = read_small(&fields, "images"),
        .n_audio = read_small(&fields, "audio"),
        .n_files = read_small(&fields, "files"),
        .has_schema = read_flag(&fields, "schema"),
        .has_code = read_flag(&fields, "code"),
        .calls_tools = read_flag(&fields, "tool_calls"),
        .script = (enum script)read_name(&fields, "script", SCRIPT_NAMES),
        .language = (enum language)read_name(&fields, "language", LANGUAGE_NAMES),
        .text_bytes = (uint64_t)read_count(&fields, "text_bytes", 0),
        .max_tokens = (uint64_t)read_count(&fields, "max_tokens", 0),
    };
}

static struct route_hints read_hints(const struct fields *input)
{
    struct fields fields = read_object(input, "hints");
    struct route_hints hints = {
        .route = (enum route_wish)read_name(&fields, "route", ROUTE_WISH_NAMES),
        .local_only = read_flag(&fields, "local_only"),
        .complexity = (uint32_t)read_number(&fields, "complexity", 0, 10),
        .max_cost = read_money(&fields, "max_cost_nanodollars", -1),
    };
    const char *task = read_text(&fields, "task");
    if (strlen(task) < sizeof hints.task)
        memcpy(hints.task, task, strlen(task) + 1);
    else
        refuse(&fields, "task", "at most 63 bytes");
    return hints;
}

static size_t read_tiers(const struct fields *fields, struct policy_input *input)
{
    const json_t *tiers = field(fields, "tiers");
    size_t n = json_array_size(tiers);
    if ((tiers && !json_is_array(tiers)) || n > POLICY_TIERS_MAX) {
        refuse(fields, "tiers", "a list of at most 8");
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct fields tier = {json_array_get(tiers, i), fields->wrong};
        input->context_tokens[i] = (uint64_t)read_count(&tier, "context_tokens", 0);
        input->ttft_ms[i] = read_count(&tier, "ttft_ms", -1);
        input->is_down[i] = read_flag(&tier, "down");
        const char *why = read_text(&tier, "cannot_cross");
        input->cannot_cross[i] = why[0] != '\0' ? why : NULL;
    }
    return n;
}

static void read_input(const struct fields *line, struct decision_line *out)
{
    struct fields fields = read_object(line, "input");
    if (fields.object == NULL)
        return;
    out->signals = read_signals(&fields);
    out->hints = read_hints(&fields);
    out->input = (struct policy_input){
        .signals = &out->signals,
        .hints = &out->hints,
        .tenant = out->entry.tenant,
        .model = out->entry.model,
        .verdict = (enum policy_verdict)read_name(&fields, "verdict", POLICY_VERDICT_NAMES),
        .intent = read_text(&fields, "intent"),
        .difficulty = read_share(&fields, "difficulty"),
        .budget_percent = (uint64_t)read_count(&fields, "budget_percent", 0),
        .prompt_tokens = (uint64_t)read_count(&fields, "prompt_tokens", 0),
        .is_broke = read_flag(&fields, "broke"),
    };
    for (size_t i = 0; i < POLICY_TIERS_MAX; i++)
        out->input.ttft_ms[i] = -1;
    out->entry.n_tiers = read_tiers(&fields, &out->input);
    out->entry.input = &out->input;
}

static struct answer_usage read_usage(const struct fields *line)
{
    struct fields fields = read_object(line, "usage");
    return (struct answer_usage){
        .input_tokens = read_count(&fields, "input_tokens", -1),
        .cached_tokens = read_count(&fields, "cached_tokens", -1),
        .cache_write_tokens = read_count(&fields, "cache_write_tokens", -1),
        .output_tokens = read_count(&fields, "output_tokens", -1),
        .reasoning_tokens = read_count(&fields, "reasoning_tokens", -1),
    };
}

static struct decision_entry read_entry(const struct fields *fields)
{
    return (struct decision_entry){
        .unix_ms = read_count(fields, "unix_ms", 0),
        .id = read_text(fields, "id"),
        .request_id = read_text(fields, "request_id"),
        .tenant = read_text(fields, "tenant"),
        .model = read_text(fields, "model"),
        .provider = read_text(fields, "provider"),
        .answered_by = read_text(fields, "answered_by"),
        .tier = read_text(fields, "tier"),
        .reason = read_text(fields, "reason"),
        .rule = read_text(fields, "rule"),
        .cache = read_text(fields, "cache"),
        .policy_id = read_text(fields, "policy_id"),
        .fingerprint = read_text(fields, "fingerprint"),
        .stage = read_text(fields, "stage"),
        .error = read_text(fields, "error"),
        .finish_reason = read_text(fields, "finish_reason"),
        .seed = read_seed(fields),
        .local_only = read_flag(fields, "local_only"),
        .escalated = read_flag(fields, "escalated"),
        .hedged = read_flag(fields, "hedged"),
        .attempts = read_small(fields, "attempts"),
        .difficulty = read_share(fields, "difficulty"),
        .confidence = read_share(fields, "confidence"),
        .prompt_tokens = (uint64_t)read_count(fields, "prompt_tokens", 0),
        .predicted_ttft_ms = read_count(fields, "predicted_ttft_ms", -1),
        .queue_us = read_count(fields, "queue_us", -1),
        .first_token_us = read_count(fields, "first_token_us", -1),
        .total_us = read_count(fields, "total_us", -1),
        .usage = read_usage(fields),
        .cost = read_money(fields, "cost_nanodollars", -1),
        .cost_is_estimate = read_flag(fields, "cost_is_estimate"),
        .frontier_cost = read_money(fields, "frontier_cost_nanodollars", -1),
    };
}

static void read_content(const struct fields *fields, struct decision_entry *entry)
{
    entry->request = read_object(fields, "request").object;
    const json_t *answer = field(fields, "answer");
    if (answer && !json_is_string(answer)) {
        refuse(fields, "answer", "a text");
    } else if (answer) {
        entry->answer = json_string_value(answer);
        entry->answer_bytes = json_string_length(answer);
    }
}

err_t decision_line_parse(const char *text, size_t text_bytes, struct decision_line *out)
{
    *out = (struct decision_line){0};
    json_error_t where;
    json_t *document = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!json_is_object(document)) {
        json_decref(document);
        return err_new(ERR_INVALID_ARGUMENT, "not a JSON object, as its byte %d shows",
                       document ? 0 : where.position);
    }
    err_t wrong = err_ok();
    struct fields fields = {document, &wrong};
    out->document_ = document;
    if (read_number(&fields, "version", 0, INT64_MAX) != DECISION_LINE_VERSION)
        refuse(&fields, "version", "1");
    out->entry = read_entry(&fields);
    read_content(&fields, &out->entry);
    read_input(&fields, out);
    if (wrong.code != ERR_OK)
        decision_line_free(out);
    return wrong;
}

void decision_line_free(struct decision_line *line)
{
    json_decref(line->document_);
    *line = (struct decision_line){0};
}
