/* How the doors over HTTP open their transport: their limits, and how a refusal of the transport reads. */
#include "proto/http_door_internal.h"

struct http_door_options http_door_options_default(void)
{
    return (struct http_door_options){
        .host = "127.0.0.1",
        .port = 8000,
        .version = "",
        .n_loop_threads = 2,
        .n_worker_threads = 2,
        .max_connections = 1024,
        .max_message_bytes = 4 << 20,
        .max_head_bytes = 16 << 10,
        .max_pending_bytes = 256 << 20,
        .max_stream_bytes = 64 << 10,
        .max_output_bytes = 256 << 20,
        .head_timeout_ms = 10000,
        .body_timeout_ms = 60000,
        .idle_timeout_ms = 75000,
        .write_timeout_ms = 60000,
    };
}

static void describe_fault(int status, const char *why, struct buffer *body)
{
    (void)openai_encode_fault(status, why, body);
}

static err_t check_options(const struct http_door_options *options)
{
    if (options->n_loop_threads < 1 || options->n_loop_threads > HTTP_THREADS_MAX ||
        options->n_worker_threads < 1 || options->n_worker_threads > HTTP_THREADS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "the HTTP door takes 1 to %d threads of each kind",
                       HTTP_THREADS_MAX);
    if (options->max_message_bytes < 1024 || options->max_message_bytes > 1 << 30)
        return err_new(ERR_INVALID_ARGUMENT, "a limit of %zu bytes a message; it must be 1 KiB to 1 GiB",
                       options->max_message_bytes);
    return err_ok();
}

err_t http_open_transport(const struct http_door_options *options,
                          const struct http_server_options *callbacks, struct http_server **out)
{
    TRY(check_options(options));
    struct http_server_options server = *callbacks;
    server.host = options->host;
    server.port = options->port;
    server.tls = options->tls;
    server.n_loop_threads = options->n_loop_threads;
    server.n_worker_threads = options->n_worker_threads;
    server.max_connections = options->max_connections;
    server.max_head_bytes = options->max_head_bytes;
    server.max_body_bytes = options->max_message_bytes;
    server.max_pending_bytes = options->max_pending_bytes;
    server.max_stream_bytes = options->max_stream_bytes;
    server.max_output_bytes = options->max_output_bytes;
    server.head_timeout_ms = options->head_timeout_ms;
    server.body_timeout_ms = options->body_timeout_ms;
    server.idle_timeout_ms = options->idle_timeout_ms;
    server.write_timeout_ms = options->write_timeout_ms;
    server.max_connection_age_ms = options->max_connection_age_ms;
    server.describe_fault = describe_fault;
    return http_server_open(&server, out);
}
