#include "proto/grpc_server.h"

#include <string.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "proto/accept_guard.h"
#include "proto/grpc_runtime.h"
#include "proto/grpc_server_internal.h"
#include "proto/listen_address.h"
#include "proto/tls_watch.h"

/* --- calls */

bool rpc_server_post_call(struct rpc_server *server, int method)
{
    struct rpc_call *call = rpc_call_create(server, method);
    if (!call)
        return false;
    atomic_fetch_add(&server->n_tags, 1);
    grpc_call_error e;
    if (method < 0)
        e = grpc_server_request_call(server->server, &call->call, &call->details, &call->request_metadata,
                                     server->queue, server->queue, &call->accepted_tag);
    else
        e = grpc_server_request_registered_call(server->server, server->registered[method], &call->call,
                                                &call->deadline, &call->request_metadata, NULL, server->queue,
                                                server->queue, &call->accepted_tag);
    if (e != GRPC_CALL_OK) { /* the queue is shut down */
        ASSERT(e == GRPC_CALL_ERROR_COMPLETION_QUEUE_SHUTDOWN);
        atomic_fetch_sub(&server->n_tags, 1);
        rpc_call_unref(call);
    }
    return true;
}

static void on_closed(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    atomic_store(&call->ended, true);
    if (rpc_call_user(call))
        server->options.on_ended(server->options.context, call);
    rpc_call_unref(call);
}

static void on_sent(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    if (call->sending) {
        slow_sends_remove(&server->slow_sends, &call->slow);
        grpc_byte_buffer_destroy(call->sending);
        call->sending = NULL;
        atomic_store(&call->sending_since_ns, 0);
    }
    if (!call->finishing && rpc_call_user(call))
        server->options.on_sent(server->options.context, call);
    rpc_call_unref(call);
}

static void *queue_main(void *argument)
{
    struct rpc_server *server = argument;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        struct rpc_tag *tag = event.tag;
        enum tag_kind tag_kind = tag->kind; /* the call may be gone afterwards */
        switch (tag_kind) {
        case TAG_ACCEPTED:
            rpc_call_accepted(tag->call, event.success != 0);
            break;
        case TAG_CLOSED:
            on_closed(tag->call);
            break;
        case TAG_SENT:
            on_sent(tag->call);
            break;
        case TAG_RECEIVED:
            rpc_call_received(tag->call);
            break;
        case TAG_SHUT_DOWN:
            atomic_store(&server->is_shut_down, true);
            event_count_bump(&server->shut_down);
            break;
        }
        if (tag_kind != TAG_SHUT_DOWN && atomic_fetch_sub(&server->n_tags, 1) == 1 &&
            atomic_load(&server->is_shut_down))
            event_count_bump(&server->shut_down);
    }
}

/* --- opening and closing */

static grpc_arg int_arg(const char *key, int64_t value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};
    arg.value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
    return arg;
}

static grpc_server *create_core_server(const struct rpc_server_options *options)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("bantam");
    grpc_resource_quota_resize(quota, options->memory_quota_bytes);
    grpc_arg quota_arg = {.type = GRPC_ARG_POINTER, .key = (char *)GRPC_ARG_RESOURCE_QUOTA};
    quota_arg.value.pointer.p = quota;
    quota_arg.value.pointer.vtable = grpc_resource_quota_arg_vtable();
    int64_t age_ms = options->max_connection_age_ms, grace_ms = options->max_connection_age_grace_ms;
    grpc_arg args[] = {
        int_arg(GRPC_ARG_MAX_CONNECTION_AGE_MS, age_ms > 0 ? age_ms : INT32_MAX), /* the largest: none */
        int_arg(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, grace_ms > 0 ? grace_ms : INT32_MAX),
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int64_t)options->max_message_bytes),
        int_arg(GRPC_ARG_MAX_METADATA_SIZE, (int64_t)options->max_metadata_bytes),
        int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, options->max_streams),
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, options->keepalive_time_ms),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, options->keepalive_timeout_ms),
        int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000),
        int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, options->handshake_timeout_ms),
        int_arg(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, RPC_READ_BYTES),
        int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0), /* or two servers share a port in silence */
        /* Decompressing has no limit in core 1.51: a small message could become gigabytes. */
        int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE),
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
        int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
        quota_arg,
    };
    grpc_channel_args channel_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_server *server = grpc_server_create(&channel_args, NULL);
    grpc_resource_quota_unref(quota);
    return server;
}

static err_t listen_on(struct rpc_server *server)
{
    const struct rpc_server_options *options = &server->options;
    char address[512];
    listen_format_address(options->host, options->port, address, sizeof address);
    server->tls.files = options->tls;
    if (options->tls)
        TRY(tls_watch_prepare());
    grpc_server_credentials *credentials =
        options->tls ? grpc_tls_credentials(&server->tls) : grpc_insecure_server_credentials_create();
    if (!credentials)
        return err_new(ERR_INVALID_ARGUMENT, "gRPC does not take the server's certificate");
    int port = grpc_server_add_http2_port(server->server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (port <= 0)
        return listen_explain_failure(options->host, options->port);
    server->port = (uint16_t)port;
    server->watch = (struct connection_watch){.limits = {.max_streams = options->max_streams},
                                              .clear_text = !options->tls,
                                              .metrics = options->metrics,
                                              .port = server->port};
    return accept_guard_open(&server->watch, options->max_connections, &server->guard);
}

static err_t start_threads(struct rpc_server *server)
{
    if (server->options.n_worker_threads > 0)
        TRY(work_queue_create(server->options.n_worker_threads, &server->workers));
    for (int i = 0; i < server->options.n_queue_threads; i++) {
        if (pthread_create(&server->queue_threads[i], NULL, queue_main, server) != 0)
            return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start a gRPC queue thread");
        (void)pthread_setname_np(server->queue_threads[i], "bantam-grpc");
        server->n_queue_threads++;
    }
    return err_ok();
}

err_t rpc_server_open(const struct rpc_server_options *options, struct rpc_server **out)
{
    ASSERT(options->n_methods <= RPC_METHODS_MAX);
    ASSERT(options->n_queue_threads >= 1 && options->n_queue_threads <= RPC_THREADS_MAX);
    ASSERT(options->n_worker_threads >= 0 && options->n_worker_threads <= RPC_THREADS_MAX);
    struct rpc_server *server = mem_alloc(sizeof *server);
    if (!server)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the gRPC server");
    server->options = *options;
    server->shutdown_tag.kind = TAG_SHUT_DOWN;
    slow_sends_init(&server->slow_sends);
    pthread_mutex_init(&server->calls_mutex, NULL);
    TAILQ_INIT(&server->awaited);
    TAILQ_INIT(&server->calls);
    grpc_runtime_init();
    server->queue = grpc_completion_queue_create_for_next(NULL);
    server->server = create_core_server(options);
    grpc_server_register_completion_queue(server->server, server->queue, NULL);
    for (size_t i = 0; i < options->n_methods; i++)
        server->registered[i] = grpc_server_register_method(server->server, options->methods[i].path, NULL,
                                                            GRPC_SRM_PAYLOAD_NONE, 0);
    err_t e = listen_on(server);
    if (e.code == ERR_OK) {
        grpc_server_start(server->server);
        for (int method = -1; method < (int)options->n_methods; method++)
            for (int i = 0; i < (method < 0 ? RPC_POSTED_UNKNOWN_CALLS : RPC_POSTED_CALLS); i++)
                if (!rpc_server_post_call(server, method))
                    log_error("grpc", "no memory to accept another call");
        e = start_threads(server);
    }
    if (e.code != ERR_OK) {
        rpc_server_stop(server);
        rpc_server_close(server);
        return e;
    }
    *out = server;
    return err_ok();
}

uint16_t rpc_server_port(const struct rpc_server *server)
{
    return server->port;
}

void rpc_server_shutdown(struct rpc_server *server)
{
    if (server->shutdown_begun)
        return;
    server->shutdown_begun = true;
    accept_guard_close(server->guard); /* core closes its sockets, and their numbers will be others' */
    grpc_server_shutdown_and_notify(server->server, server->queue, &server->shutdown_tag);
}

bool rpc_server_wait(struct rpc_server *server, int64_t timeout_ns)
{
    uint32_t seen = event_count_read(&server->shut_down);
    if (!atomic_load(&server->is_shut_down))
        event_count_wait(&server->shut_down, seen, timeout_ns);
    return atomic_load(&server->is_shut_down);
}

void rpc_server_cancel_calls(struct rpc_server *server)
{
    grpc_server_cancel_all_calls(server->server);
}

void rpc_server_stop(struct rpc_server *server)
{
    if (server->stopped)
        return;
    server->stopped = true;
    rpc_server_shutdown(server);
    rpc_server_cancel_calls(server);
    if (server->n_queue_threads == 0 &&
        pthread_create(&server->queue_threads[0], NULL, queue_main, server) == 0)
        server->n_queue_threads = 1; /* opening failed before there was one: somebody must drain the queue */
    ASSERT(server->n_queue_threads > 0);
    while (!rpc_server_wait(server, -1))
        continue;
    work_queue_destroy(server->workers);
    /* Core says that it is shut down while calls that were reset are still in the queue: each may want a
     * batch. */
    for (;;) {
        uint32_t seen = event_count_read(&server->shut_down);
        if (atomic_load(&server->n_tags) == 0)
            break;
        event_count_wait(&server->shut_down, seen, -1);
    }
    grpc_completion_queue_shutdown(server->queue);
    for (int i = 0; i < server->n_queue_threads; i++)
        pthread_join(server->queue_threads[i], NULL);
}

void rpc_server_close(struct rpc_server *server)
{
    if (!server)
        return;
    ASSERT(server->stopped);
    ASSERT(atomic_load(&server->n_allocated) == 0);
    grpc_server_destroy(server->server);
    grpc_completion_queue_destroy(server->queue);
    connection_watch_end(&server->watch);
    slow_sends_destroy(&server->slow_sends);
    ASSERT(server->n_awaited == 0 && TAILQ_EMPTY(&server->calls));
    pthread_mutex_destroy(&server->calls_mutex);
    mem_free(server);
    grpc_runtime_shutdown();
}
