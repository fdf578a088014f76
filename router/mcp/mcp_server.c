#include "router/mcp/mcp_server.h"
#include <string.h>
#include "base/alloc.h"
#include "proto/http_server.h"
#include "router/mcp/mcp_message.h"
#include "router/mcp/mcp_tools.h"
#include "router/providers/json_text.h"

#define JSON_TYPE     "application/json"
#define DECISIONS_URI "router://decisions/"

struct mcp_server {
    struct mcp_options options;
    struct service *service; /* the door's; set before it opens */
    struct mcp_handles *handles;
};

/* One message under way. */
struct call {
    struct mcp_server *server;
    struct mcp_message message;
    struct mcp_run *run;
};

static struct mcp_ground ground_of(struct mcp_server *server)
{
    return (struct mcp_ground){&server->options.backend, server->service, server->handles};
}

/* --- answering */

static void answer(struct http_exchange *exchange, int status, struct buffer *body, bool good)
{
    static const char lost[] =
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"the "
        "answer is too large, or there is no memory for it\"}}";
    if (good)
        http_exchange_respond(exchange, status, JSON_TYPE, body->data, body->size);
    else
        http_exchange_respond(exchange, 500, JSON_TYPE, lost, sizeof lost - 1);
    buffer_free(body);
}

static void answer_fault(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    struct buffer body = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    /* Under the older protocol errors of methods are answers of a request that was fine. */
    bool is_transport =
        call->message.is_stateless || !call->message.method || fault->code == MCP_UNSUPPORTED_VERSION;
    bool good = mcp_write_fault(&call->message, fault, &body);
    answer(exchange, is_transport ? mcp_status_of(fault->code) : 200, &body, good);
    mcp_fault_free(fault);
}

/* result is given away. */
static void answer_result(struct call *call, struct http_exchange *exchange, json_t *result)
{
    struct buffer body = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    if (call->message.is_stateless)
        (void)json_object_set_new(result, "resultType", json_string("complete"));
    bool good = mcp_write_result(&call->message, result, &body);
    answer(exchange, 200, &body, good);
}

/* --- methods. Each gives a result, starts a run, or sets the fault: NULL. */

static const char instructions[] =
    "A router between a small local model and frontier models. complete answers with whoever is good enough; "
    "escalate asks the frontier when an answer was not; route_explain tells beforehand; compare shows "
    "answers "
    "side by side. Ask with privacy local_only whatever must not leave this machine.";

static json_t *server_info(const struct call *call)
{
    return json_pack("{s:s, s:s, s:s}", "name", "bantam", "title", "Bantam router", "version",
                     call->server->options.version);
}

static json_t *capabilities(void)
{
    return json_pack("{s:{}, s:{}}", "tools", "resources");
}

static json_t *initialize(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)exchange;
    (void)fault;
    return json_pack("{s:s, s:o, s:o, s:s}", "protocolVersion", MCP_VERSION_HANDSHAKE, "capabilities",
                     capabilities(), "serverInfo", server_info(call), "instructions", instructions);
}

/* Results that may be kept say for how long, and for whom. */
static json_t *keepable(const struct call *call, json_t *result, json_int_t ttl_ms)
{
    if (result && call->message.is_stateless) {
        (void)json_object_set_new(result, "ttlMs", json_integer(ttl_ms));
        (void)json_object_set_new(result, "cacheScope", json_string("private"));
    }
    return result;
}

static json_t *discover(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)exchange;
    (void)fault;
    json_t *result = json_pack("{s:o, s:o, s:s, s:{s:o}}", "supportedVersions", mcp_versions(),
                               "capabilities", capabilities(), "instructions", instructions, "_meta",
                               "io.modelcontextprotocol/serverInfo", server_info(call));
    return keepable(call, result, 60000);
}

static json_t *ping(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)call;
    (void)exchange;
    (void)fault;
    return json_object();
}

static json_t *list_tools(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)exchange;
    (void)fault;
    return keepable(call, json_pack("{s:o}", "tools", mcp_tools_describe()), 60000);
}

static json_t *call_tool(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    const json_t *name = json_object_get(call->message.params, "name");
    json_t *result = NULL;
    struct mcp_ground ground = ground_of(call->server);
    if (!json_is_string(name))
        (void)mcp_fault_set(fault, MCP_INVALID_PARAMS, "params.name must be the name of a tool");
    else
        (void)mcp_run_start(&ground, http_exchange_caller(exchange)->tenant, json_string_value(name),
                            json_object_get(call->message.params, "arguments"), &call->run, &result, fault);
    return result;
}

static json_t *list_resources(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)exchange;
    (void)fault;
    static const struct {
        const char *uri, *name, *title;
    } rows[] = {{"router://models", "models", "Models that may be asked for"},
                {"router://prices", "prices", "What they cost"},
                {"router://engine/state", "state", "What the router and its engines are doing"}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:s, s:s}", "uri", rows[i].uri, "name",
                                              rows[i].name, "title", rows[i].title, "mimeType", JSON_TYPE));
    return keepable(call, json_pack("{s:o}", "resources", list), 60000);
}

static json_t *list_templates(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    (void)exchange;
    (void)fault;
    return keepable(call,
                    json_pack("{s:[{s:s, s:s, s:s, s:s}]}", "resourceTemplates", "uriTemplate",
                              DECISIONS_URI "{handle}", "name", "decision", "title", "Who answered, and why",
                              "mimeType", JSON_TYPE),
                    60000);
}

static err_t write_models(struct service *service, struct buffer *out)
{
    json_t *list = json_array();
    struct model_card card;
    for (size_t i = 0; service->vtable->model_card && service->vtable->model_card(service, i, &card); i++)
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "name", card.name, "owner", card.owner,
                                                    "context_tokens", (json_int_t)card.context_tokens));
    json_t *models = json_pack("{s:o}", "models", list);
    err_t e = models ? json_text_append(out, models) : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
    json_decref(models);
    return e;
}

/* NOT_FOUND: there is no such resource. */
static err_t write_resource(struct mcp_server *server, const char *tenant, const char *uri,
                            struct buffer *out)
{
    const struct mcp_backend *backend = &server->options.backend;
    if (strcmp(uri, "router://models") == 0)
        return write_models(server->service, out);
    if (strcmp(uri, "router://prices") == 0)
        return backend->prices(backend->context, out);
    if (strcmp(uri, "router://engine/state") == 0)
        return backend->state(backend->context, out);
    struct mcp_ground ground = ground_of(server);
    json_t *decision = strncmp(uri, DECISIONS_URI, strlen(DECISIONS_URI)) == 0
                           ? mcp_decision_of(&ground, tenant, uri + strlen(DECISIONS_URI))
                           : NULL;
    if (!decision)
        return err_new(ERR_NOT_FOUND, "there is no resource %.200s", uri);
    err_t e = json_text_append_decimal(out, decision);
    json_decref(decision);
    return e;
}

static json_t *read_resource(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault)
{
    const char *uri = json_string_value(json_object_get(call->message.params, "uri"));
    if (!uri) {
        (void)mcp_fault_set(fault, MCP_INVALID_PARAMS, "params.uri must be the address of a resource");
        return NULL;
    }
    struct buffer text = {.limit_bytes = MCP_ANSWER_BYTES_MAX};
    json_t *result = NULL;
    err_t e = write_resource(call->server, http_exchange_caller(exchange)->tenant, uri, &text);
    if (e.code == ERR_OK)
        result = keepable(call,
                          json_pack("{s:[{s:s, s:s, s:s%}]}", "contents", "uri", uri, "mimeType", JSON_TYPE,
                                    "text", text.data, text.size),
                          0);
    else if (e.code == ERR_NOT_FOUND)
        (void)mcp_fault_set(fault, call->message.is_stateless ? MCP_INVALID_PARAMS : MCP_RESOURCE_NOT_FOUND,
                            "%s", e.message);
    else
        (void)mcp_fault_set(fault, MCP_INTERNAL_ERROR, "%s", e.message);
    buffer_free(&text);
    return result;
}

enum era { ERA_BOTH, ERA_HANDSHAKE, ERA_STATELESS };

static const struct method {
    const char *name;
    enum era era;
    json_t *(*run)(struct call *call, struct http_exchange *exchange, struct mcp_fault *fault);
} methods[] = {
    {"tools/call", ERA_BOTH, call_tool},          {"tools/list", ERA_BOTH, list_tools},
    {"resources/list", ERA_BOTH, list_resources}, {"resources/templates/list", ERA_BOTH, list_templates},
    {"resources/read", ERA_BOTH, read_resource},  {"server/discover", ERA_STATELESS, discover},
    {"initialize", ERA_HANDSHAKE, initialize},    {"ping", ERA_HANDSHAKE, ping},
};

static const struct method *find_method(const struct mcp_message *message)
{
    enum era other = message->is_stateless ? ERA_HANDSHAKE : ERA_STATELESS;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, message->method) == 0 && methods[i].era != other)
            return &methods[i];
    return NULL;
}

/* --- the route */

static void pump(void *context, struct http_exchange *exchange)
{
    (void)context;
    struct call *call = http_exchange_user(exchange);
    json_t *result = call && call->run ? mcp_run_pump(call->run) : NULL;
    if (!result)
        return;
    mcp_run_end(call->run);
    call->run = NULL;
    answer_result(call, exchange, result);
}

static void ended(void *context, struct http_exchange *exchange)
{
    (void)context;
    struct call *call = http_exchange_user(exchange);
    if (!call)
        return;
    mcp_run_end(call->run);
    mcp_message_free(&call->message);
    mem_free(call);
}

static void respond(struct call *call, struct http_exchange *exchange)
{
    struct mcp_fault fault = {0};
    const struct method *method = find_method(&call->message);
    if (!method) {
        (void)mcp_fault_set(&fault, MCP_METHOD_NOT_FOUND, "there is no method \"%.64s\"",
                            call->message.method);
        answer_fault(call, exchange, &fault);
        return;
    }
    json_t *result = method->run(call, exchange, &fault);
    if (result)
        answer_result(call, exchange, result);
    else if (call->run)
        pump(NULL, exchange);
    else {
        if (fault.code == 0)
            (void)mcp_fault_set(&fault, MCP_INTERNAL_ERROR, "no memory for the answer");
        answer_fault(call, exchange, &fault);
    }
}

/* scheme://host[:port] of this machine: what a page on it, or a program's own window, is. */
static bool is_local_origin(const char *origin)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *host = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;
    for (size_t i = 0; host && i < sizeof hosts / sizeof *hosts; i++) {
        size_t n = strlen(hosts[i]);
        if (strncmp(host, hosts[i], n) == 0 && (host[n] == '\0' || host[n] == ':'))
            return host[n] == '\0' || strspn(host + n + 1, "0123456789") == strlen(host + n + 1);
    }
    return false;
}

static bool is_allowed_origin(const struct mcp_server *server, struct http_text origin)
{
    char text[MCP_ORIGIN_BYTES_MAX + 1];
    if (!origin.data)
        return true;
    if (origin.size >= sizeof text || memchr(origin.data, 0, origin.size))
        return false;
    memcpy(text, origin.data, origin.size);
    text[origin.size] = '\0';
    for (size_t i = 0; i < server->options.n_origins; i++)
        if (strcmp(server->options.origins[i], text) == 0)
            return true;
    return is_local_origin(text);
}

static struct mcp_headers headers_of(const struct http_head *head)
{
    struct mcp_headers headers = {0};
    const struct {
        const char *name;
        struct http_text *to;
    } rows[] = {{"mcp-protocol-version", &headers.version},
                {"mcp-method", &headers.method},
                {"mcp-name", &headers.name}};
    for (size_t i = 0; i < head->n_headers; i++)
        for (size_t row = 0; row < sizeof rows / sizeof *rows; row++)
            if (http_text_is_ignoring_case(head->headers[i].name, rows[row].name)) {
                headers.is_repeated = headers.is_repeated || rows[row].to->data;
                *rows[row].to = head->headers[i].value;
            }
    return headers;
}

/* What is wrong with the request before its body is looked at: 0 = nothing. */
static int check_http(const struct mcp_server *server, struct http_exchange *exchange)
{
    const struct http_head *head = http_exchange_head(exchange);
    struct http_text accept = http_head_find(head, "accept"), type = http_head_find(head, "content-type");
    if (!is_allowed_origin(server, http_head_find(head, "origin")))
        return 403;
    if (!http_text_is(head->method, "POST")) {
        http_exchange_header(exchange, "allow", "POST");
        return 405;
    }
    static const char json[] = JSON_TYPE;
    if (!type.data || type.size < sizeof json - 1 || memcmp(type.data, json, sizeof json - 1) != 0)
        return 415;
    if (accept.data && !memmem(accept.data, accept.size, json, sizeof json - 1) &&
        !memmem(accept.data, accept.size, "*/*", 3))
        return 406;
    return 0;
}

static void handle(void *context, struct http_exchange *exchange)
{
    struct mcp_server *server = context;
    int status = check_http(server, exchange);
    struct call *call = status == 0 ? mem_alloc(sizeof *call) : NULL;
    if (!call) {
        http_exchange_respond(exchange, status ? status : 503, NULL, NULL, 0);
        return;
    }
    call->server = server;
    http_exchange_set_user(exchange, call);
    struct mcp_headers headers = headers_of(http_exchange_head(exchange));
    struct mcp_fault fault = {0};
    size_t size;
    const char *body = http_exchange_body(exchange, &size);
    bool is_message = mcp_message_read(body, size, &headers, &call->message, &fault);
    http_exchange_drop_body(exchange);
    if (!is_message)
        answer_fault(call, exchange, &fault);
    else if (!call->message.id)
        http_exchange_respond(exchange, 202, NULL, NULL, 0);
    else
        respond(call, exchange);
}

static void attach(void *context, struct service *service)
{
    struct mcp_server *server = context;
    server->service = service;
}

err_t mcp_server_open(const struct mcp_options *options, struct mcp_server **out)
{
    struct mcp_server *server = mem_alloc(sizeof *server);
    if (!server)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for MCP");
    server->options = *options;
    err_t e = mcp_handles_create(&server->handles);
    if (e.code != ERR_OK) {
        mem_free(server);
        return e;
    }
    *out = server;
    return err_ok();
}

void mcp_server_close(struct mcp_server *server)
{
    if (!server)
        return;
    mcp_handles_destroy(server->handles);
    mem_free(server);
}

struct extra_route mcp_server_route(struct mcp_server *server)
{
    return (struct extra_route){.path = MCP_PATH,
                                .context = server,
                                .attach = attach,
                                .handle = handle,
                                .pump = pump,
                                .ended = ended};
}
