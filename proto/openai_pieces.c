#include "proto/openai_pieces.h"

#include <inttypes.h>
#include <string.h>
#include "proto/answer_source.h"

#define TEXT(text)  buffer_append(out, (text), sizeof(text) - 1)
#define PRINT(...)  buffer_append_format(out, __VA_ARGS__)
#define STRING(str) buffer_append_json_string(out, (str), strlen(str))

bool openai_has_pieces(const struct event *event)
{
    return event->n_tool_calls > 0 || event->refusal_bytes > 0 || event->reasoning_bytes > 0;
}

static bool encode_tool_call(const struct tool_call *call, bool is_delta, struct buffer *out)
{
    bool good = TEXT("{");
    if (is_delta)
        good = good && PRINT("\"index\":%" PRIu32 ",", call->index);
    if (call->id)
        good = good && TEXT("\"id\":") && STRING(call->id) && TEXT(",");
    if (call->id || !is_delta)
        good = good && TEXT("\"type\":\"function\",");
    good = good && TEXT("\"function\":{");
    if (call->name)
        good = good && TEXT("\"name\":") && STRING(call->name) && TEXT(",");
    return good && TEXT("\"arguments\":") &&
           buffer_append_json_string(out, call->arguments_bytes > 0 ? call->arguments : "",
                                     call->arguments_bytes) &&
           TEXT("}}");
}

static bool encode_tool_calls(const struct event *event, bool is_delta, struct buffer *out)
{
    if (event->n_tool_calls == 0)
        return true;
    bool good = TEXT(",\"tool_calls\":[");
    for (size_t i = 0; good && i < event->n_tool_calls; i++)
        good = (i == 0 || TEXT(",")) && encode_tool_call(&event->tool_calls[i], is_delta, out);
    return good && TEXT("]");
}

static bool encode_reasoning(const struct event *event, struct buffer *out)
{
    return event->reasoning_bytes == 0 ||
           (TEXT(",\"reasoning_content\":") &&
            buffer_append_json_string(out, event->reasoning, event->reasoning_bytes));
}

static bool encode_refusal(const struct event *event, struct buffer *out)
{
    return TEXT(",\"refusal\":") && buffer_append_json_string(out, event->refusal, event->refusal_bytes);
}

bool openai_encode_delta_pieces(const struct event *event, struct buffer *out)
{
    return encode_reasoning(event, out) && (event->refusal_bytes == 0 || encode_refusal(event, out)) &&
           encode_tool_calls(event, true, out);
}

bool openai_encode_message_pieces(const struct event *event, struct buffer *out)
{
    return (event->refusal_bytes > 0 ? encode_refusal(event, out) : TEXT(",\"refusal\":null")) &&
           encode_reasoning(event, out) && encode_tool_calls(event, false, out);
}

/* "a,b" -> ["a","b"] */
static bool encode_names(const char *names, struct buffer *out)
{
    bool good = TEXT("["), first = true;
    for (const char *at = names; good && *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        good = (first || TEXT(",")) && buffer_append_json_string(out, at, n);
        first = false;
        at += n;
    }
    return good && TEXT("]");
}

bool openai_encode_source(const struct answer_source *source, struct buffer *out)
{
    const struct {
        const char *field, *text;
    } rows[] = {{"provider", source->provider},
                {"model", source->model},
                {"reason", source->reason},
                {"rule", source->rule},
                {"cache", source->cache},
                {"fingerprint", source->fingerprint},
                {"decision_id", source->decision_id}};
    bool good = TEXT("\"bantam\":{");
    for (size_t i = 0; good && i < sizeof rows / sizeof rows[0]; i++)
        good = PRINT("\"%s\":", rows[i].field) && (rows[i].text[0] ? STRING(rows[i].text) : TEXT("null")) &&
               TEXT(",");
    char cost[ANSWER_COST_BYTES];
    answer_cost_format(source->cost_nanodollars, cost);
    good = good && TEXT("\"dropped\":") && encode_names(source->dropped, out) && TEXT(",\"cost_usd\":");
    good = good && (cost[0] ? PRINT("\"%s\"", cost) : TEXT("null"));
    return good && PRINT(",\"attempts\":%" PRIu32 "}", source->attempts);
}
