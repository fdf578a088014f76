#include "router/mcp/mcp_tools.h"
#include <stdio.h>
#include <string.h>
#include "api/request_log.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "proto/answer_source.h"
#include "proto/openai_fields.h"
#include "proto/whole_answer.h"
#include "router/policy/policy.h"
#include "router/providers/json_text.h"

enum { BODY_BYTES_MAX = 64 << 20 };

#define MESSAGES                                                                                             \
    "\"messages\":{\"type\":\"array\",\"items\":{\"type\":\"object\"},"                                      \
    "\"description\":\"OpenAI's chat messages: role and content\"},"                                         \
    "\"prompt\":{\"type\":\"string\",\"description\":\"one user's message, in place of messages\"},"
#define LIMITS                                                                                               \
    "\"max_tokens\":{\"type\":\"integer\",\"minimum\":1},\"temperature\":{\"type\":\"number\",\"minimum\":"  \
    "0}"
#define WISHES                                                                                               \
    "\"route\":{\"type\":\"string\",\"enum\":[\"auto\",\"local\",\"frontier\"],"                             \
    "\"description\":\"who shall answer; auto leaves it to the policy\"},"                                   \
    "\"max_cost_usd\":{\"type\":\"number\",\"minimum\":0},"                                                  \
    "\"privacy\":{\"type\":\"string\",\"enum\":[\"local_only\",\"shareable\"],"                              \
    "\"description\":\"local_only: nothing of it leaves this machine\"},"                                    \
    "\"complexity\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":10},\"task\":{\"type\":\"string\"}"
#define ANSWER                                                                                               \
    "\"outputSchema\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"},"                  \
    "\"finish_reason\":{\"type\":\"string\"},\"handle\":{\"type\":\"string\"},"                              \
    "\"answered_by\":{\"type\":\"object\"}},\"required\":[\"text\",\"finish_reason\",\"handle\"]}"

/* JSON, in the order that they are shown. */
static const char tools_text[] =
    "[{\"name\":\"complete\",\"title\":\"Ask the small local model, or the frontier\","
    "\"description\":\"Answers a chat. By default the router's policy decides between the local model (fast, "
    "private, nearly free) and a frontier model. Says who answered, why, and what it cost; its handle is for "
    "escalate.\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{" MESSAGES
    "\"model\":{\"type\":\"string\",\"description\":\"a name of router://models\"}," WISHES "," LIMITS
    "},\"additionalProperties\":false}," ANSWER ",\"annotations\":{\"readOnlyHint\":true}},"
    "{\"name\":\"route_explain\",\"title\":\"Who would answer, and why\","
    "\"description\":\"What the policy sees in a chat, what each tier would cost and how soon it would "
    "begin, "
    "and the decision. Nobody is called and nothing is spent.\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{" MESSAGES "\"model\":{\"type\":\"string\"}," WISHES
    "," LIMITS "},\"additionalProperties\":false},\"outputSchema\":{\"type\":\"object\"},"
    "\"annotations\":{\"readOnlyHint\":true}},"
    "{\"name\":\"escalate\",\"title\":\"Ask the frontier again\","
    "\"description\":\"Puts the chat of an earlier complete to the frontier, when its answer was not good "
    "enough. A chat that was local_only is never escalated.\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{\"handle\":{\"type\":\"string\"},"
    "\"max_cost_usd\":{\"type\":\"number\",\"minimum\":0}},\"required\":[\"handle\"],"
    "\"additionalProperties\":false}," ANSWER ",\"annotations\":{\"readOnlyHint\":true}},"
    "{\"name\":\"compare\",\"title\":\"Ask several models the same\","
    "\"description\":\"Puts one chat to two to four models at once and shows the answers side by side, with "
    "times and costs. \\\"local\\\" and \\\"frontier\\\" are names too.\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{" MESSAGES
    "\"models\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":2,\"maxItems\":4},"
    "\"max_cost_usd\":{\"type\":\"number\",\"minimum\":0}," LIMITS
    "},\"required\":[\"models\"],\"additionalProperties\":false},\"outputSchema\":{\"type\":\"object\"},"
    "\"annotations\":{\"readOnlyHint\":true}},"
    "{\"name\":\"budget_status\",\"title\":\"What may still be spent\","
    "\"description\":\"What was spent and reserved today and this month, and what is left.\","
    "\"inputSchema\":{\"type\":\"object\",\"additionalProperties\":false},"
    "\"outputSchema\":{\"type\":\"object\"},\"annotations\":{\"readOnlyHint\":true}}]";

json_t *mcp_tools_describe(void)
{
    json_error_t error;
    json_t *tools = json_loadb(tools_text, sizeof tools_text - 1, 0, &error);
    ASSERT(tools);
    return tools;
}

/* One request to the service. */
struct ask {
    struct stream *stream; /* NULL = over */
    struct whole_answer *whole;
    struct answer_source *source; /* owned; NULL = not told */
    const char *name;             /* of compare: whom; the arguments' */
    err_t error;
    int64_t started_ns, ended_ns;
};

struct mcp_run {
    struct mcp_ground ground;
    char tenant[REQUEST_TENANT_BYTES_MAX + 1];
    json_t *arguments; /* owned: of the chat */
    json_t *call;      /* owned: of the tool, whose texts the asks borrow */
    bool compares;
    struct ask asks[MCP_COMPARE_MODELS_MAX];
    size_t n_asks;
};

/* --- results */

/* structured is given away. */
static json_t *tool_result(bool is_error, const char *text, size_t text_bytes, json_t *structured)
{
    json_t *shown = json_stringn(text, text_bytes);
    if (!shown)
        shown = json_string("(the answer is not valid UTF-8)");
    json_t *result =
        json_pack("{s:[{s:s, s:o}], s:b}", "content", "type", "text", "text", shown, "isError", is_error);
    if (result && structured)
        (void)json_object_set(result, "structuredContent", structured);
    json_decref(structured);
    return result;
}

static json_t *failed(const err_t *error)
{
    json_t *structured = NULL;
    if (error->retry_after_ms > 0)
        structured = json_pack("{s:s, s:I}", "error", err_code_name(error->code), "retry_after_ms",
                               (json_int_t)error->retry_after_ms);
    return tool_result(true, error->message, strlen(error->message), structured);
}

/* The structured part, shown as text too. */
static json_t *structured_result(json_t *structured)
{
    struct buffer text = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    err_t e = structured ? json_text_append_decimal(&text, structured)
                         : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
    json_t *result =
        e.code == ERR_OK ? tool_result(false, text.data, text.size, json_incref(structured)) : failed(&e);
    json_decref(structured);
    buffer_free(&text);
    return result;
}

static json_t *parsed_result(err_t e, const struct buffer *text)
{
    if (e.code != ERR_OK)
        return failed(&e);
    json_error_t error;
    return structured_result(json_loadb(text->data, text->size, 0, &error));
}

/* --- arguments */

static err_t check_names(const json_t *arguments, const char *const *known)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)arguments, key, value)
    {
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = strcmp(known[i], key) == 0;
        if (!found)
            return err_new(ERR_INVALID_ARGUMENT, "there is no argument \"%.64s\"", key);
    }
    return err_ok();
}

static bool set_copy(json_t *to, const char *key, const json_t *value)
{
    return !value || json_object_set(to, key, (json_t *)value) == 0;
}

/* max_cost_usd as the hint has it, in dollars. */
static err_t put_cost(json_t *hints, const json_t *cost)
{
    if (!cost)
        return err_ok();
    if (!json_is_number(cost) || !(json_number_value(cost) >= 0) || json_number_value(cost) > 1e9)
        return err_new(ERR_INVALID_ARGUMENT, "max_cost_usd must be a number of dollars from 0 to 10^9");
    char text[40];
    (void)snprintf(text, sizeof text, "%.9f", json_number_value(cost));
    return json_object_set_new(hints, "max_cost", json_string(text)) == 0
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
}

/* The chat of the arguments in OpenAI's form, with the wishes as hints. */
static err_t make_body(const json_t *arguments, const char *model, const char *route, json_t **out)
{
    const json_t *messages = json_object_get(arguments, "messages"),
                 *prompt = json_object_get(arguments, "prompt");
    if ((messages != NULL) == (prompt != NULL))
        return err_new(ERR_INVALID_ARGUMENT, "give either messages or prompt");
    if (prompt && !json_is_string(prompt))
        return err_new(ERR_INVALID_ARGUMENT, "prompt must be a string");
    json_t *body = json_object(), *hints = json_object();
    bool good = body && hints;
    if (good && prompt)
        good =
            json_object_set_new(body, "messages",
                                json_pack("[{s:s, s:O}]", "role", "user", "content", (json_t *)prompt)) == 0;
    good = good && set_copy(body, "messages", messages) &&
           set_copy(body, "max_tokens", json_object_get(arguments, "max_tokens")) &&
           set_copy(body, "temperature", json_object_get(arguments, "temperature")) &&
           set_copy(body, "model", json_object_get(arguments, "model")) &&
           (!model || json_object_set_new(body, "model", json_string(model)) == 0) &&
           set_copy(hints, "route", json_object_get(arguments, "route")) &&
           (!route || json_object_set_new(hints, "route", json_string(route)) == 0) &&
           set_copy(hints, "privacy", json_object_get(arguments, "privacy")) &&
           set_copy(hints, "complexity", json_object_get(arguments, "complexity")) &&
           set_copy(hints, "task", json_object_get(arguments, "task"));
    err_t e = good ? put_cost(hints, json_object_get(arguments, "max_cost_usd"))
                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
    if (e.code == ERR_OK && json_object_set(body, "bantam", hints) != 0)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
    json_decref(hints);
    if (e.code == ERR_OK)
        *out = body;
    else
        json_decref(body);
    return e;
}

/* Decodes the body as the HTTP door would, and gives the request to `use`. */
static err_t with_request(const struct mcp_ground *ground, const char *tenant, const json_t *body,
                          err_t (*use)(void *context, const struct request *request), void *context)
{
    struct buffer text = {.limit_bytes = BODY_BYTES_MAX};
    struct openai_scratch scratch = {.passes_on = ground->service->vtable->passes_on};
    struct openai_request request;
    err_t e = json_text_append(&text, body);
    if (e.code == ERR_OK)
        e = openai_decode_request(OPENAI_CHAT, text.data, text.size, &scratch, &request);
    if (e.code == ERR_OK) {
        request.request.tenant = tenant;
        request.request.door = "mcp";
        e = use(context, &request.request);
    }
    openai_scratch_free(&scratch);
    buffer_free(&text);
    return e;
}

/* --- running */

struct submission {
    struct mcp_run *run;
    struct ask *ask;
};

static err_t submit(void *context, const struct request *request)
{
    struct submission *submission = context;
    struct service *service = submission->run->ground.service;
    return service->vtable->submit(service, request, &submission->ask->stream);
}

static void log_refused(const struct mcp_ground *ground, const char *tenant, const json_t *arguments,
                        const char *model, const err_t *error)
{
    const struct request_log_name name = {
        .tenant = tenant,
        .model = model ? model : json_string_value(json_object_get(arguments, "model")),
        .door = "mcp",
    };
    request_log_refused(ground->service, &name, error);
}

static void start_ask(struct mcp_run *run, struct ask *ask, const char *model, const char *route)
{
    json_t *body = NULL;
    ask->started_ns = clock_now_ns(clock_monotonic());
    ask->ended_ns = ask->started_ns;
    ask->error = make_body(run->arguments, model, route, &body);
    if (ask->error.code == ERR_OK)
        ask->error = whole_answer_create(1, &ask->whole);
    if (ask->error.code == ERR_OK)
        ask->error = with_request(&run->ground, run->tenant, body, submit, &(struct submission){run, ask});
    json_decref(body);
    if (ask->error.code != ERR_OK)
        log_refused(&run->ground, run->tenant, run->arguments, model, &ask->error);
}

static err_t take_event(struct ask *ask, const struct event *event)
{
    if (event->source) {
        mem_free(ask->source);
        ask->source = answer_source_copy(event->source);
    }
    if (event->kind == EVENT_FINISHED && event->finish_reason == FINISH_ERROR)
        return event->error;
    return whole_answer_add(ask->whole, event, false);
}

/* True when it is over. */
static bool pump_ask(struct mcp_run *run, struct ask *ask)
{
    const struct service_vtable *vtable = run->ground.service->vtable;
    struct event event;
    bool ends = false;
    while (ask->stream && !ends && vtable->stream_next(ask->stream, &event)) {
        ask->error = take_event(ask, &event);
        ends = event.last || ask->error.code != ERR_OK;
    }
    if (!ends)
        return !ask->stream;
    vtable->stream_release(ask->stream);
    ask->stream = NULL;
    ask->ended_ns = clock_now_ns(clock_monotonic());
    return true;
}

static json_t *describe_source(const struct answer_source *source)
{
    char cost[ANSWER_COST_BYTES];
    answer_cost_format(source->cost_nanodollars, cost);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "provider", source->provider,
                     "model", source->model, "reason", source->reason, "rule", source->rule, "cache",
                     source->cache, "fingerprint", source->fingerprint, "dropped", source->dropped,
                     "decision", source->decision_id, "cost_usd", cost, "attempts", (int)source->attempts);
}

static json_t *describe_calls(const struct event *event)
{
    json_t *calls = json_array();
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        (void)json_array_append_new(calls,
                                    json_pack("{s:s, s:s, s:s%}", "id", call->id ? call->id : "", "name",
                                              call->name ? call->name : "", "arguments",
                                              call->arguments ? call->arguments : "", call->arguments_bytes));
    }
    return calls;
}

/* What one ask came to; NULL without memory. */
static json_t *describe_answer(const struct ask *ask)
{
    size_t n_events;
    const struct event *event = whole_answer_events(ask->whole, &n_events);
    json_t *text = json_stringn(event->text ? event->text : "", event->text_bytes);
    json_t *answer = json_pack("{s:o, s:s, s:I}", "text", text ? text : json_string(""), "finish_reason",
                               finish_reason_name(event->finish_reason), "took_us",
                               (json_int_t)((ask->ended_ns - ask->started_ns) / 1000));
    if (!answer)
        return NULL;
    if (!event->usage.is_unknown)
        (void)json_object_set_new(answer, "usage",
                                  json_pack("{s:I, s:I, s:I}", "prompt_tokens",
                                            (json_int_t)event->usage.prompt_tokens, "completion_tokens",
                                            (json_int_t)event->usage.completion_tokens, "cached_tokens",
                                            (json_int_t)event->usage.cached_tokens));
    if (event->n_tool_calls > 0)
        (void)json_object_set_new(answer, "tool_calls", describe_calls(event));
    if (event->refusal_bytes > 0)
        (void)json_object_set_new(answer, "refusal", json_stringn(event->refusal, event->refusal_bytes));
    if (ask->source)
        (void)json_object_set_new(answer, "answered_by", describe_source(ask->source));
    return answer;
}

static json_t *finish_compare(struct mcp_run *run)
{
    json_t *list = json_array();
    for (size_t i = 0; i < run->n_asks; i++) {
        const struct ask *ask = &run->asks[i];
        json_t *entry = ask->error.code == ERR_OK ? describe_answer(ask)
                                                  : json_pack("{s:s, s:s+}", "error", ask->error.message,
                                                              "code", err_code_name(ask->error.code), "");
        if (entry)
            (void)json_object_set_new(entry, "model", json_string(ask->name));
        (void)json_array_append_new(list, entry ? entry : json_null());
    }
    return structured_result(json_pack("{s:o}", "answers", list));
}

/* By the caller's word or by a rule. A rule may go by the model's name, which an escalated chat has no more.
 */
static bool is_private(const json_t *arguments, const struct answer_source *source)
{
    return openai_text_is(json_object_get(arguments, "privacy"), "local_only") ||
           (source && strcmp(source->reason, POLICY_REASON_NAMES[REASON_PRIVACY]) == 0);
}

static json_t *finish_complete(struct mcp_run *run)
{
    const struct ask *ask = &run->asks[0];
    if (ask->error.code != ERR_OK)
        return failed(&ask->error);
    json_t *answer = describe_answer(ask);
    char handle[MCP_HANDLE_BYTES];
    mcp_handle_make(handle);
    if (!answer || json_object_set_new(answer, "handle", json_string(handle)) != 0) {
        json_decref(answer);
        err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the answer");
        return failed(&e);
    }
    json_t *source = json_object_get(answer, "answered_by");
    json_t *decision = source ? json_incref(source) : json_object();
    mcp_handles_put(run->ground.handles, handle, run->tenant,
                    is_private(run->arguments, ask->source) ? NULL : run->arguments, decision);
    json_decref(decision);
    const json_t *text = json_object_get(answer, "text");
    return tool_result(false, json_string_value(text), json_string_length(text), answer);
}

json_t *mcp_run_pump(struct mcp_run *run)
{
    bool over = true;
    for (size_t i = 0; i < run->n_asks; i++)
        over = pump_ask(run, &run->asks[i]) && over;
    if (!over)
        return NULL;
    return run->compares ? finish_compare(run) : finish_complete(run);
}

void mcp_run_end(struct mcp_run *run)
{
    if (!run)
        return;
    for (size_t i = 0; i < run->n_asks; i++) {
        struct ask *ask = &run->asks[i];
        if (ask->stream)
            run->ground.service->vtable->stream_release(ask->stream);
        whole_answer_destroy(ask->whole);
        mem_free(ask->source);
    }
    json_decref(run->arguments);
    json_decref(run->call);
    mem_free(run);
}

/* --- the tools */

static err_t new_run(const struct mcp_ground *ground, const char *tenant, const json_t *call, json_t *chat,
                     struct mcp_run **out)
{
    struct mcp_run *run = mem_alloc(sizeof *run);
    if (!run)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the call");
    run->ground = *ground;
    (void)snprintf(run->tenant, sizeof run->tenant, "%s", tenant);
    run->call = json_incref((json_t *)call);
    run->arguments = json_incref(chat);
    *out = run;
    return err_ok();
}

static err_t complete(const struct mcp_ground *ground, const char *tenant, const json_t *arguments,
                      struct mcp_run **run)
{
    static const char *const known[] = {"messages",    "prompt",       "model",   "route",      "max_tokens",
                                        "temperature", "max_cost_usd", "privacy", "complexity", "task",
                                        NULL};
    TRY(check_names(arguments, known));
    TRY(new_run(ground, tenant, arguments, (json_t *)arguments, run));
    (*run)->n_asks = 1;
    start_ask(*run, &(*run)->asks[0], NULL, NULL);
    return err_ok();
}

static err_t escalate(const struct mcp_ground *ground, const char *tenant, const json_t *arguments,
                      struct mcp_run **run)
{
    static const char *const known[] = {"handle", "max_cost_usd", NULL};
    TRY(check_names(arguments, known));
    const char *handle = json_string_value(json_object_get(arguments, "handle"));
    json_t *request = NULL, *decision = NULL;
    if (!handle || !mcp_handles_get(ground->handles, handle, tenant, &request, &decision))
        return err_new(ERR_NOT_FOUND, "there is no such handle; the last %d answers have one",
                       MCP_HANDLES_MAX);
    json_decref(decision);
    if (!request)
        return err_new(ERR_PERMISSION_DENIED, "that chat was local_only: nothing of it leaves this machine");
    json_t *chat = json_copy(request);
    json_decref(request);
    bool good = chat && set_copy(chat, "max_cost_usd", json_object_get(arguments, "max_cost_usd"));
    if (good)
        (void)json_object_del(chat,
                              "model"); /* the small one was asked for: the frontier's is the policy's */
    err_t e =
        good ? new_run(ground, tenant, arguments, chat, run) : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
    json_decref(chat);
    TRY(e);
    (*run)->n_asks = 1;
    start_ask(*run, &(*run)->asks[0], NULL, "frontier");
    return err_ok();
}

static err_t compare(const struct mcp_ground *ground, const char *tenant, const json_t *arguments,
                     struct mcp_run **run)
{
    static const char *const known[] = {"messages",    "prompt",       "models", "max_tokens",
                                        "temperature", "max_cost_usd", NULL};
    TRY(check_names(arguments, known));
    const json_t *models = json_object_get(arguments, "models");
    size_t n = json_array_size(models);
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(models, i)))
            n = 0;
    if (n < 2 || n > MCP_COMPARE_MODELS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "models must be 2 to %d names", MCP_COMPARE_MODELS_MAX);
    TRY(new_run(ground, tenant, arguments, (json_t *)arguments, run));
    (*run)->compares = true;
    (*run)->n_asks = n;
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(models, i));
        bool is_route = strcmp(name, "local") == 0 || strcmp(name, "frontier") == 0;
        (*run)->asks[i].name = name;
        start_ask(*run, &(*run)->asks[i], is_route ? NULL : name, is_route ? name : NULL);
    }
    return err_ok();
}

struct explanation {
    const struct mcp_ground *ground;
    struct buffer *text;
};

static err_t explain_request(void *context, const struct request *request)
{
    const struct explanation *explanation = context;
    const struct mcp_backend *backend = explanation->ground->backend;
    return backend->explain(backend->context, request, explanation->text);
}

static json_t *explain(const struct mcp_ground *ground, const char *tenant, const json_t *arguments)
{
    json_t *body = NULL;
    struct buffer text = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    err_t e = make_body(arguments, NULL, NULL, &body);
    if (e.code == ERR_OK)
        e = with_request(ground, tenant, body, explain_request, &(struct explanation){ground, &text});
    json_decref(body);
    json_t *result = parsed_result(e, &text);
    buffer_free(&text);
    return result;
}

static json_t *budget(const struct mcp_ground *ground, const char *tenant)
{
    struct buffer text = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    json_t *result = parsed_result(ground->backend->budget(ground->backend->context, tenant, &text), &text);
    buffer_free(&text);
    return result;
}

bool mcp_run_start(const struct mcp_ground *ground, const char *tenant, const char *name,
                   const json_t *arguments, struct mcp_run **run, json_t **result, struct mcp_fault *fault)
{
    static const struct {
        const char *name;
        err_t (*start)(const struct mcp_ground *ground, const char *tenant, const json_t *arguments,
                       struct mcp_run **run);
    } starts[] = {{"complete", complete}, {"escalate", escalate}, {"compare", compare}};
    *run = NULL;
    *result = NULL;
    if (arguments && !json_is_object(arguments))
        return mcp_fault_set(fault, MCP_INVALID_PARAMS, "arguments must be an object");
    json_t *none = arguments ? NULL : json_object();
    const json_t *given = arguments ? arguments : none;
    bool found = true;
    err_t e = err_ok();
    if (strcmp(name, "route_explain") == 0)
        *result = explain(ground, tenant, given);
    else if (strcmp(name, "budget_status") == 0)
        *result = budget(ground, tenant);
    else {
        found = false;
        for (size_t i = 0; i < sizeof starts / sizeof *starts && !found; i++) {
            found = strcmp(starts[i].name, name) == 0;
            if (found)
                e = starts[i].start(ground, tenant, given, run);
        }
    }
    if (e.code != ERR_OK) {
        log_refused(ground, tenant, given, NULL, &e);
        *result = failed(&e);
    }
    json_decref(none);
    if (!found)
        return mcp_fault_set(fault, MCP_INVALID_PARAMS, "there is no tool \"%.64s\"", name);
    if (!*run && !*result)
        return mcp_fault_set(fault, MCP_INTERNAL_ERROR, "no memory for the answer");
    return true;
}

json_t *mcp_decision_of(const struct mcp_ground *ground, const char *tenant, const char *handle)
{
    json_t *request = NULL, *decision = NULL;
    if (!mcp_handles_get(ground->handles, handle, tenant, &request, &decision))
        return NULL;
    json_decref(request);
    return decision;
}
