#include "proto/http_door.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/answer_source.h"
#include "proto/http_door_internal.h"
#include "proto/metrics_text.h"
#include "proto/route_headers.h"
#include "proto/service_state.h"
#include "proto/whole_answer.h"

#define CLOSE_GRACE_NS INT64_C(1000000000) /* for the last bytes to reach clients that read */
enum { SMALL_ANSWER_BYTES_MAX = 64 << 10, MODELS_BYTES_MAX = 4 << 20 };

/* --- refusals */

void http_refuse(struct http_door *door, struct http_exchange *exchange, const err_t *error,
                 enum openai_kind kind, const char *param)
{
    int status = openai_status_of(error->code);
    if (status == 401)
        http_exchange_header(exchange, "www-authenticate", "Bearer realm=\"bantam\"");
    if (status == 429 || status == 503) {
        char value[24];
        int64_t ms = refusal_pushback_ms(door->service, error);
        (void)snprintf(value, sizeof value, "%lld", (long long)((ms + 999) / 1000));
        http_exchange_header(exchange, "retry-after", value);
        (void)snprintf(value, sizeof value, "%lld", (long long)ms);
        http_exchange_header(exchange, "retry-after-ms", value);
    }
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    (void)openai_encode_error(error, kind, param, &body);
    http_exchange_respond(exchange, status, HTTP_JSON, body.data, body.size);
    buffer_free(&body);
}

void http_refuse_with(struct http_exchange *exchange, int status, const char *message)
{
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    (void)openai_encode_fault(status, message, &body);
    http_exchange_respond(exchange, status, HTTP_JSON, body.data, body.size);
    buffer_free(&body);
}

/* Answers with what was encoded, or with the reason why it could not be. */
static void answer(struct http_door *door, struct http_exchange *exchange, bool encoded, struct buffer *body)
{
    err_t e = err_new(ERR_INTERNAL, "the answer is too large");
    if (encoded)
        http_exchange_respond(exchange, 200, HTTP_JSON, body->data, body->size);
    else
        http_refuse(door, exchange, &e, OPENAI_COMPLETION, NULL);
    buffer_free(body);
}

/* --- the small routes */

typedef void route_fn(struct http_door *door, struct http_exchange *exchange);

void http_answer_health(struct service *service, struct http_exchange *exchange)
{
    static const char alive[] = "{\"status\":\"ok\"}";
    if (service_is_alive(service))
        http_exchange_respond(exchange, 200, HTTP_JSON, alive, sizeof alive - 1);
    else
        http_refuse_with(exchange, 503, "the engine's loop shows no life");
}

void http_answer_metrics(struct service *service, const char *version, struct http_exchange *exchange)
{
    struct buffer body = {.limit_bytes = METRICS_TEXT_BYTES_MAX};
    if (metrics_write_service(service, version, &body))
        http_exchange_respond(exchange, 200, METRICS_CONTENT_TYPE, body.data, body.size);
    else
        http_refuse_with(exchange, 500, "no memory for the metrics");
    buffer_free(&body);
}

static void get_health(struct http_door *door, struct http_exchange *exchange)
{
    http_answer_health(door->service, exchange);
}

static void get_metrics(struct http_door *door, struct http_exchange *exchange)
{
    if (door->options.metrics)
        http_answer_metrics(door->service, door->options.version, exchange);
    else
        http_refuse_with(exchange, 404,
                         "metrics have a port of their own (--metrics-port); see --http-metrics");
}

static void get_ready(struct http_door *door, struct http_exchange *exchange)
{
    if (atomic_load(&door->not_ready))
        http_refuse_with(exchange, 503, "the server is shutting down");
    else
        get_health(door, exchange);
}

static void get_version(struct http_door *door, struct http_exchange *exchange)
{
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    answer(door, exchange, buffer_append_format(&body, "{\"version\":\"%s\"}", door->options.version), &body);
}

static void get_models(struct http_door *door, struct http_exchange *exchange)
{
    struct buffer body = {.limit_bytes = MODELS_BYTES_MAX};
    answer(door, exchange, openai_encode_models(door->service, door->opened_unix_s, &body), &body);
}

static bool find_model(struct http_door *door, const char *name, struct model_card *out)
{
    for (size_t i = 0; openai_model_card(door->service, i, out); i++)
        if (strcmp(out->name, name) == 0)
            return true;
    return false;
}

static err_t check_model(struct http_door *door, const char *name, struct model_card *out)
{
    const char *served = door->service->vtable->model_info(door->service)->model;
    if (find_model(door, name && name[0] ? name : served, out) || !name || !name[0])
        return err_ok();
    if (door->service->vtable->model_card)
        return err_new(ERR_NOT_FOUND, "model \"%.256s\" is not known here; /v1/models lists what is", name);
    return err_new(ERR_NOT_FOUND, "model \"%.256s\" is not served here; \"%s\" is", name, served);
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c | 0x20) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* %41 -> A; false when it does not fit or is none. */
static bool decode_percent(struct http_text text, char *out, size_t out_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%') {
            int high = i + 2 < text.size ? hex_value(text.data[i + 1]) : -1;
            int low = high >= 0 ? hex_value(text.data[i + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0' || n + 1 == out_bytes)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

static const char models_prefix[] = "/v1/models/";

static void get_model(struct http_door *door, struct http_exchange *exchange)
{
    struct http_text path = http_exchange_head(exchange)->path;
    size_t skip = sizeof models_prefix - 1;
    char name[REQUEST_MODEL_BYTES_MAX + 1];
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    if (!decode_percent((struct http_text){path.data + skip, path.size - skip}, name, sizeof name)) {
        http_refuse_with(exchange, 400, "the model's name in the path is not well-formed");
        return;
    }
    struct model_card card;
    err_t e = check_model(door, name, &card);
    if (e.code != ERR_OK) {
        http_refuse(door, exchange, &e, OPENAI_COMPLETION, NULL);
        return;
    }
    answer(door, exchange, openai_encode_model(door->service, &card, door->opened_unix_s, &body), &body);
}

static err_t admit_call(struct http_door *door, struct http_exchange *exchange)
{
    err_t e = service_admit_call(door->service, http_exchange_caller(exchange)->tenant);
    http_add_rates(door, exchange);
    return e;
}

static void post_tokenize(struct http_door *door, struct http_exchange *exchange)
{
    struct openai_scratch scratch = {0};
    struct openai_tokenize tokenize;
    struct model_card card;
    struct buffer body = {.limit_bytes = WHOLE_ANSWER_BYTES_MAX};
    size_t size_bytes, n_ids = 0;
    uint32_t *ids = NULL;
    const char *bytes = http_exchange_body(exchange, &size_bytes);
    err_t e = openai_decode_tokenize(bytes, size_bytes, &scratch, &tokenize);
    if (e.code == ERR_OK)
        e = check_model(door, tokenize.request.model, &card);
    if (e.code == ERR_OK)
        e = admit_call(door, exchange);
    if (e.code == ERR_OK)
        e = door->service->vtable->tokenize(door->service, &tokenize.request, &ids, &n_ids);
    if (e.code == ERR_OK)
        answer(door, exchange,
               openai_encode_tokens(door->service, ids, n_ids, tokenize.return_token_strs, &body), &body);
    else
        http_refuse(door, exchange, &e, OPENAI_COMPLETION, scratch.param);
    mem_free(ids);
    openai_scratch_free(&scratch);
}

static void post_detokenize(struct http_door *door, struct http_exchange *exchange)
{
    struct openai_scratch scratch = {0};
    struct openai_detokenize detokenize;
    struct model_card card;
    struct buffer text = {.limit_bytes = WHOLE_ANSWER_BYTES_MAX}, body = text;
    size_t size_bytes;
    const char *bytes = http_exchange_body(exchange, &size_bytes);
    err_t e = openai_decode_detokenize(bytes, size_bytes, &scratch, &detokenize);
    if (e.code == ERR_OK)
        e = check_model(door, detokenize.model, &card);
    if (e.code == ERR_OK)
        e = admit_call(door, exchange);
    if (e.code == ERR_OK)
        e = door->service->vtable->detokenize(door->service, detokenize.token_ids, detokenize.n_token_ids,
                                              false, &text);
    if (e.code == ERR_OK)
        answer(door, exchange, openai_encode_text(text.data ? text.data : "", text.size, &body), &body);
    else
        http_refuse(door, exchange, &e, OPENAI_COMPLETION, scratch.param);
    buffer_free(&text);
    openai_scratch_free(&scratch);
}

static void post_chat(struct http_door *door, struct http_exchange *exchange)
{
    http_generate(door, exchange, OPENAI_CHAT);
}

static void post_completion(struct http_door *door, struct http_exchange *exchange)
{
    http_generate(door, exchange, OPENAI_COMPLETION);
}

/* --- routing */

/* Whom a path answers when the door asks who comes in. */
enum http_access {
    HTTP_FOR_CALLERS, /* who is known */
    HTTP_FOR_EVERYONE,
    HTTP_FOR_ADMINS,
};

static route_fn get_paths;

static const struct http_route {
    const char *path;
    bool posts; /* POST with a JSON body; else GET and HEAD */
    route_fn *handle;
    enum http_access access;
} routes[] = {
    {"/v1/chat/completions", true, post_chat, HTTP_FOR_CALLERS},
    {"/v1/completions", true, post_completion, HTTP_FOR_CALLERS},
    {"/v1/models", false, get_models, HTTP_FOR_CALLERS},
    {"/tokenize", true, post_tokenize, HTTP_FOR_CALLERS},
    {"/detokenize", true, post_detokenize, HTTP_FOR_CALLERS},
    {"/health", false, get_health, HTTP_FOR_EVERYONE},
    {"/ready", false, get_ready, HTTP_FOR_EVERYONE},
    {"/version", false, get_version, HTTP_FOR_CALLERS},
    {"/metrics", false, get_metrics, HTTP_FOR_ADMINS},
    {"/", false, get_paths, HTTP_FOR_CALLERS},
};
static const struct http_route model_route = {models_prefix, false, get_model, HTTP_FOR_CALLERS};

/* For who opens the address in a browser, or has a wrong path. */
static void get_paths(struct http_door *door, struct http_exchange *exchange)
{
    struct buffer body = {.limit_bytes = SMALL_ANSWER_BYTES_MAX};
    bool good = buffer_append_format(&body, "{\"version\":\"%s\",\"paths\":[", door->options.version);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        good = good && buffer_append_format(&body, "%s\"%s %s\"", i > 0 ? "," : "",
                                            routes[i].posts ? "POST" : "GET", routes[i].path);
    for (size_t i = 0; i < door->options.extra.n; i++)
        good = good && buffer_append_format(&body, ",\"POST %s\"", door->options.extra.routes[i].path);
    answer(door, exchange, good && buffer_append_text(&body, "]}"), &body);
}

static const struct http_route *find_route(struct http_text path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (http_text_is(path, routes[i].path))
            return &routes[i];
    size_t size = sizeof models_prefix - 1;
    bool names_model = path.size > size && memcmp(path.data, models_prefix, size) == 0;
    return names_model ? &model_route : NULL;
}

/* A page in a browser can send anything but this without asking first. */
static bool is_json(const struct http_head *head)
{
    struct http_text type = http_head_find(head, "content-type");
    size_t size = 0;
    while (size < type.size && type.data[size] != ';' && type.data[size] != ' ')
        size++;
    type.size = size;
    return type.data && http_text_is_ignoring_case(type, HTTP_JSON);
}

/* The client's name for the request goes back to it, whatever becomes of the request. */
static void echo_request_id(struct http_exchange *exchange, const struct http_head *head)
{
    struct http_text id = http_head_find(head, "x-request-id");
    char value[REQUEST_ID_BYTES_MAX + 1];
    if (id.size == 0 || id.size > REQUEST_ID_BYTES_MAX)
        return;
    (void)snprintf(value, sizeof value, "%.*s", (int)id.size, id.data);
    http_exchange_header(exchange, "x-request-id", value);
}

bool http_check_method(struct http_exchange *exchange, bool posts)
{
    const struct http_head *head = http_exchange_head(exchange);
    bool is_post = http_text_is(head->method, "POST");
    bool is_get = http_text_is(head->method, "GET") || http_text_is(head->method, "HEAD");
    if (posts ? !is_post : !is_get) {
        http_exchange_header(exchange, "allow", posts ? "POST" : "GET, HEAD");
        http_refuse_with(exchange, 405, posts ? "this path takes POST" : "this path takes GET");
        return false;
    }
    if (posts && !is_json(head)) {
        http_refuse_with(exchange, 415,
                         "the body must be JSON, with the header Content-Type: application/json");
        return false;
    }
    return true;
}

void http_add_load_headers(struct http_door *door, struct http_exchange *exchange)
{
    http_exchange_header(exchange, ROUTE_MODEL, door->service->vtable->model_info(door->service)->model);
    struct http_text wanted = http_head_find(http_exchange_head(exchange), "endpoint-load-metrics-format");
    enum orca_format format = wanted.data ? orca_format_parse(wanted.data, wanted.size) : ORCA_FORMAT_NONE;
    if (format == ORCA_FORMAT_NONE)
        return;
    struct orca_report report;
    char value[ORCA_REPORT_BYTES_MAX * 2];
    load_meter_read(&door->load_meter, true, &report);
    orca_report_write(&report, format, value);
    http_exchange_header(exchange, "endpoint-load-metrics", value);
}

/* The cost is known at the end alone, of a whole answer. */
void http_add_source_headers(const struct answer_source *source, struct http_exchange *exchange)
{
    struct answer_source_rows said;
    answer_source_list(source, &said);
    for (size_t i = 0; i < ANSWER_SOURCE_ROWS; i++)
        if (said.rows[i].text[0])
            http_exchange_header(exchange, said.rows[i].name, said.rows[i].text);
}

static void handle(void *context, struct http_exchange *exchange)
{
    struct http_door *door = context;
    const struct http_head *head = http_exchange_head(exchange);
    const struct http_route *route = find_route(head->path);
    echo_request_id(exchange, head);
    const struct extra_route *extra = route ? NULL : extra_route_find(&door->options.extra, head->path);
    if (extra) {
        extra->handle(extra->context, exchange);
        return;
    }
    if (!route) {
        char message[128];
        (void)snprintf(message, sizeof message, "there is nothing at %.*s; GET / lists what there is",
                       (int)(head->path.size < 64 ? head->path.size : 64), head->path.data);
        http_refuse_with(exchange, 404, message);
        return;
    }
    if (http_check_method(exchange, route->posts))
        route->handle(door, exchange);
}

/* --- who comes in */

static bool admit(void *context, struct http_exchange *exchange)
{
    struct http_door *door = context;
    const struct http_head *head = http_exchange_head(exchange);
    const struct http_route *route = find_route(head->path);
    const struct extra_route *extra = route ? NULL : extra_route_find(&door->options.extra, head->path);
    if (!door->options.identity || (route && route->access == HTTP_FOR_EVERYONE) ||
        (extra && extra->is_for_everyone))
        return true;
    struct credentials credentials = {.peer = http_exchange_peer(exchange)};
    for (size_t i = 0; i < head->n_headers; i++) {
        if (!http_text_is_ignoring_case(head->headers[i].name, "authorization"))
            continue;
        credentials.authorization = head->headers[i].value.data;
        credentials.authorization_bytes = head->headers[i].value.size;
        credentials.n_authorizations++;
    }
    struct caller *caller = http_exchange_caller(exchange);
    err_t e = identity_authenticate(door->options.identity, &credentials, caller);
    if (e.code == ERR_OK && route && route->access == HTTP_FOR_ADMINS && !caller->is_admin)
        e = err_new(ERR_PERMISSION_DENIED, "tenant %s may not read this; it is for tenants with admin=yes",
                    caller->tenant);
    if (e.code == ERR_OK)
        return true;
    echo_request_id(exchange, head);
    http_refuse(door, exchange, &e, OPENAI_COMPLETION, NULL);
    return false;
}

/* "6m0s", "1.5s", "20ms", as OpenAI writes durations. */
static void format_duration(int64_t ns, char *out, size_t out_bytes)
{
    int64_t ms = ns / 1000000 + (ns % 1000000 > 0);
    if (ms < 1000)
        (void)snprintf(out, out_bytes, "%lldms", (long long)ms);
    else if (ms < 60000)
        (void)snprintf(out, out_bytes, "%gs", (double)ms / 1000);
    else
        (void)snprintf(out, out_bytes, "%lldm%llds", (long long)(ms / 60000), (long long)(ms % 60000 / 1000));
}

static void add_rate(struct http_exchange *exchange, const char *const names[3],
                     const struct quota_view *view)
{
    char value[32];
    if (view->limit == 0)
        return;
    (void)snprintf(value, sizeof value, "%u", view->limit);
    http_exchange_header(exchange, names[0], value);
    (void)snprintf(value, sizeof value, "%u", view->remaining);
    http_exchange_header(exchange, names[1], value);
    format_duration(view->reset_ns, value, sizeof value);
    http_exchange_header(exchange, names[2], value);
}

void http_add_rates(struct http_door *door, struct http_exchange *exchange)
{
    static const char *const requests[3] = {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
                                            "x-ratelimit-reset-requests"};
    static const char *const tokens[3] = {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
                                          "x-ratelimit-reset-tokens"};
    struct tenant_rates rates;
    if (!door->options.identity ||
        !identity_rates(door->options.identity, http_exchange_caller(exchange)->tenant, &rates))
        return;
    add_rate(exchange, requests, &rates.requests);
    add_rate(exchange, tokens, &rates.tokens);
}

static const struct extra_route *find_extra(const struct http_door *door,
                                            const struct http_exchange *exchange)
{
    return extra_route_find(&door->options.extra, http_exchange_head(exchange)->path);
}

static void pump(void *context, struct http_exchange *exchange)
{
    const struct extra_route *extra = find_extra(context, exchange);
    if (!extra)
        http_generate_pump(context, exchange);
    else if (extra->pump)
        extra->pump(extra->context, exchange);
}

static void ended(void *context, struct http_exchange *exchange)
{
    const struct extra_route *extra = find_extra(context, exchange);
    if (!extra)
        http_generate_ended(context, exchange);
    else if (extra->ended)
        extra->ended(extra->context, exchange);
}

/* --- opening, draining, closing */

err_t http_door_open(struct service *service, const struct http_door_options *options, struct http_door **out)
{
    struct http_door *door = mem_alloc(sizeof *door);
    if (!door)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the HTTP door");
    door->service = service;
    door->options = *options;
    door->opened_unix_s = (int64_t)time(NULL);
    door->metrics = service->vtable->metrics(service);
    load_meter_init(&door->load_meter, service);
    for (size_t i = 0; i < options->extra.n; i++)
        if (options->extra.routes[i].attach)
            options->extra.routes[i].attach(options->extra.routes[i].context, service);
    const struct http_server_options server = {
        .metrics = door->metrics,
        .progress = service->vtable->progress(service),
        .context = door,
        .admit = admit,
        .handle = handle,
        .pump = pump,
        .ended = ended,
        .hooks = options->hooks,
    };
    err_t e = http_open_transport(options, &server, &door->server);
    if (e.code != ERR_OK) {
        mem_free(door);
        return e;
    }
    *out = door;
    return e;
}

uint16_t http_door_port(const struct http_door *door)
{
    return http_server_port(door->server);
}

uint32_t http_door_active(const struct http_door *door)
{
    return atomic_load(&((struct http_door *)door)->n_active);
}

void http_door_not_ready(struct http_door *door)
{
    atomic_store(&door->not_ready, true);
}

void http_door_drain(struct http_door *door, struct event_count *idle)
{
    atomic_store(&door->idle, idle);
    http_door_not_ready(door);
    atomic_store(&door->draining, true);
    http_server_drain(door->server);
}

void http_door_close(struct http_door *door)
{
    if (!door)
        return;
    atomic_store(&door->draining, true);
    atomic_store(&door->closing, true);
    http_server_close(door->server, CLOSE_GRACE_NS);
    ASSERT(atomic_load(&door->n_active) == 0);
    mem_free(door);
}
