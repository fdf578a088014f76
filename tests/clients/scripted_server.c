#include "tests/clients/scripted_server.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_server.h"

struct scripted_server {
    struct rpc_server *server;
    const struct scripted_answer *answers;
    size_t n_answers;
    _Atomic uint32_t n_calls;
    char target[32], header[SCRIPT_HEADER_BYTES], routes[2 * SCRIPT_HEADER_BYTES];
    const struct scripted_answer *current; /* one queue thread: handlers do not overlap */
    struct metrics metrics;
};

static void generate(void *context, struct rpc_call *call)
{
    static const struct model_info model = {.model = "scripted", .fingerprint = "0123456789abcdef"};
    struct scripted_server *server = context;
    size_t at = atomic_load(&server->n_calls);
    const struct scripted_answer *answer =
        &server->answers[at < server->n_answers ? at : server->n_answers - 1];
    struct event event = {
        .kind = EVENT_FINISHED, .text = "", .finish_reason = FINISH_STOP, .stop_token_id = -1};
    struct codec_answer common = {.request_id = "scripted-1", .model = &model};
    struct codec_bytes bytes = {NULL, 0};
    if (answer->message)
        bytes = codec_encode_event(&common, &event, 0);
    if (!rpc_call_header(call, "x-test", server->header, sizeof server->header))
        server->header[0] = '\0';
    char model_name[SCRIPT_HEADER_BYTES], priority[SCRIPT_HEADER_BYTES];
    bool has_model = rpc_call_header(call, "x-bantam-model", model_name, sizeof model_name),
         has_priority = rpc_call_header(call, "x-bantam-priority", priority, sizeof priority);
    (void)snprintf(server->routes, sizeof server->routes, "%s %s", has_model ? model_name : "-",
                   has_priority ? priority : "-");
    server->current = answer;
    atomic_fetch_add(&server->n_calls, 1);
    rpc_call_finish(call, bytes.data, bytes.size, answer->code, answer->code ? "as the script says" : NULL,
                    RPC_NO_PUSHBACK);
}

static void add_pushback(void *context, struct rpc_call *call, grpc_status_code status)
{
    const struct scripted_server *server = context;
    (void)status;
    const char *pushback = server->current ? server->current->pushback : NULL;
    if (pushback)
        rpc_call_add_trailer(call, "grpc-retry-pushback-ms", pushback, strlen(pushback));
}

static void no_call(void *context, struct rpc_call *call)
{
    (void)context;
    (void)call;
}

static void no_user(void *context, void *user)
{
    (void)context;
    (void)user;
}

struct scripted_server *scripted_server_open(const struct scripted_answer *answers, size_t n_answers)
{
    static const struct rpc_method methods[] = {{"/bantam.Bantam/Generate", .handle = generate}};
    struct scripted_server *server = mem_alloc(sizeof *server);
    ASSERT(server && n_answers > 0);
    server->answers = answers;
    server->n_answers = n_answers;
    struct rpc_server_options options = {
        .host = "127.0.0.1",
        .n_queue_threads = 1,
        .n_worker_threads = 1,
        .max_message_bytes = 1 << 20,
        .max_pending_bytes = 1 << 20,
        .max_metadata_bytes = 16384,
        .max_connections = 100,
        .max_streams = 100,
        .max_calls = 100,
        .memory_quota_bytes = 1 << 26,
        .keepalive_time_ms = 30000,
        .keepalive_timeout_ms = 20000,
        .handshake_timeout_ms = 10000,
        .metrics = &server->metrics,
        .methods = methods,
        .n_methods = 1,
        .context = server,
        .on_sent = no_call,
        .on_ended = no_call,
        .on_free = no_user,
        .before_finish = add_pushback,
    };
    ASSERT(rpc_server_open(&options, &server->server).code == ERR_OK);
    (void)snprintf(server->target, sizeof server->target, "127.0.0.1:%u", rpc_server_port(server->server));
    return server;
}

void scripted_server_close(struct scripted_server *server)
{
    rpc_server_shutdown(server->server);
    rpc_server_stop(server->server);
    rpc_server_close(server->server);
    mem_free(server);
}

const char *scripted_server_target(const struct scripted_server *server)
{
    return server->target;
}

uint32_t scripted_server_calls(const struct scripted_server *server)
{
    return atomic_load(&((struct scripted_server *)server)->n_calls);
}

const char *scripted_server_header(const struct scripted_server *server)
{
    return server->header;
}

const char *scripted_server_routes(const struct scripted_server *server)
{
    return server->routes;
}
