#include "proto/grpc_server.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "base/log.h"
#include "base/work_queue.h"
#include "proto/grpc_runtime.h"
#include "proto/grpc_tls.h"
#include "proto/listen_address.h"
#include "proto/slow_sends.h"

enum tag_kind { TAG_ACCEPTED, TAG_CLOSED, TAG_SENT, TAG_RECEIVED, TAG_SHUT_DOWN };

/* What gRPC hands back when a batch is done. */
struct rpc_tag {
    enum tag_kind kind;
    struct rpc_call *call; /* NULL for TAG_SHUT_DOWN */
};

struct rpc_call {
    struct rpc_server *server;
    int method; /* index, or -1 for what nobody registered */
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array request_metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *received;
    struct rpc_tag accepted_tag, closed_tag, sent_tag, received_tag;
    int close_cancelled; /* written by gRPC */
    struct caller caller;

    uint8_t *payload; /* owned */
    size_t payload_bytes;
    size_t reserved_bytes; /* this call's share of the server's pending_bytes */

    _Atomic int references;
    _Atomic bool ended;
    void *_Atomic user;
    bool accepted, repost_when_freed;
    bool receive_failed;          /* of the one who receives */
    bool headers_sent, finishing; /* of the one sender */
    grpc_byte_buffer *sending;
    struct slow_send slow;
    grpc_metadata trailers[RPC_TRAILERS_MAX];
    size_t n_trailers;
    struct work_item work;
};

struct rpc_server {
    struct rpc_server_options options;
    void *registered[RPC_METHODS_MAX];
    grpc_server *server;
    grpc_completion_queue *queue;
    struct grpc_tls_source tls;
    uint16_t port;
    struct rpc_tag shutdown_tag;
    bool shutdown_begun, stopped;
    _Atomic bool is_shut_down;
    struct event_count shut_down;
    _Atomic size_t pending_bytes; /* of payloads */
    struct slow_sends slow_sends;
    _Atomic uint32_t n_calls, n_allocated; /* under way; with those that wait to be accepted */

    pthread_t queue_threads[RPC_THREADS_MAX];
    int n_queue_threads;
    struct work_queue *workers; /* NULL = none */
};

static void post_call(struct rpc_server *server, int method);

/* --- calls */

static struct rpc_call *call_create(struct rpc_server *server, int method)
{
    struct rpc_call *call = mem_alloc(sizeof *call);
    if (!call)
        return NULL;
    call->server = server;
    call->method = method;
    call->accepted_tag = (struct rpc_tag){TAG_ACCEPTED, call};
    call->closed_tag = (struct rpc_tag){TAG_CLOSED, call};
    call->sent_tag = (struct rpc_tag){TAG_SENT, call};
    call->received_tag = (struct rpc_tag){TAG_RECEIVED, call};
    atomic_init(&call->references, 1);
    atomic_fetch_add(&server->n_allocated, 1);
    grpc_metadata_array_init(&call->request_metadata);
    grpc_call_details_init(&call->details);
    return call;
}

static void call_free(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    void *user = rpc_call_user(call);
    if (user)
        server->options.on_free(server->options.context, user);
    if (call->sending)
        grpc_byte_buffer_destroy(call->sending);
    if (call->received)
        grpc_byte_buffer_destroy(call->received);
    for (size_t i = 0; i < call->n_trailers; i++)
        grpc_slice_unref(call->trailers[i].value);
    grpc_metadata_array_destroy(&call->request_metadata);
    grpc_call_details_destroy(&call->details);
    rpc_call_drop_payload(call);
    bool repost = call->repost_when_freed;
    int method = call->method;
    if (call->accepted)
        atomic_fetch_sub(&server->n_calls, 1);
    if (call->call)
        grpc_call_unref(call->call);
    mem_free(call);
    if (repost)
        post_call(server, method);
    atomic_fetch_sub(&server->n_allocated, 1);
}

void rpc_call_ref(struct rpc_call *call)
{
    atomic_fetch_add(&call->references, 1);
}

void rpc_call_unref(struct rpc_call *call)
{
    int before = atomic_fetch_sub(&call->references, 1);
    ASSERT(before > 0);
    if (before == 1)
        call_free(call);
}

const uint8_t *rpc_call_payload(const struct rpc_call *call, size_t *size_bytes)
{
    *size_bytes = call->payload_bytes;
    return call->payload;
}

void rpc_call_drop_payload(struct rpc_call *call)
{
    mem_free(call->payload);
    call->payload = NULL;
    call->payload_bytes = 0;
    atomic_fetch_sub(&call->server->pending_bytes, call->reserved_bytes);
    call->reserved_bytes = 0;
}

const void *rpc_call_method_data(const struct rpc_call *call)
{
    return call->server->options.methods[call->method].data;
}

bool rpc_call_receive_failed(const struct rpc_call *call)
{
    return call->receive_failed;
}

int64_t rpc_call_remaining_ns(const struct rpc_call *call)
{
    if (gpr_time_cmp(call->deadline, gpr_inf_future(call->deadline.clock_type)) == 0)
        return RPC_NO_DEADLINE;
    gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    if (left.tv_sec >= INT64_MAX / 2000000000)
        return RPC_NO_DEADLINE;
    return left.tv_sec * 1000000000 + left.tv_nsec;
}

bool rpc_call_ended(const struct rpc_call *call)
{
    return atomic_load(&call->ended);
}

const struct caller *rpc_call_caller(const struct rpc_call *call)
{
    return &call->caller;
}

const char *rpc_call_path(const struct rpc_call *call)
{
    return call->method >= 0 ? call->server->options.methods[call->method].path : "";
}

bool rpc_call_header(const struct rpc_call *call, const char *key, char *out, size_t out_bytes)
{
    for (size_t i = 0; i < call->request_metadata.count; i++) {
        const grpc_metadata *header = &call->request_metadata.metadata[i];
        if (grpc_slice_str_cmp(header->key, key) != 0)
            continue;
        size_t size_bytes = GRPC_SLICE_LENGTH(header->value);
        if (size_bytes >= out_bytes || memchr(GRPC_SLICE_START_PTR(header->value), 0, size_bytes))
            return false;
        memcpy(out, GRPC_SLICE_START_PTR(header->value), size_bytes);
        out[size_bytes] = '\0';
        return true;
    }
    return false;
}

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    atomic_store(&call->user, user);
}

void *rpc_call_user(const struct rpc_call *call)
{
    return atomic_load(&((struct rpc_call *)call)->user);
}

/* --- sending */

static void start_batch(struct rpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    rpc_call_ref(call);
    grpc_call_error e = grpc_call_start_batch(call->call, ops, n_ops, tag, NULL);
    ASSERT(e == GRPC_CALL_OK);
}

static void add_headers(struct rpc_call *call, grpc_op *ops, size_t *n_ops)
{
    if (call->headers_sent)
        return;
    call->headers_sent = true;
    ops[(*n_ops)++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
}

static void add_message(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes, grpc_op *ops,
                        size_t *n_ops)
{
    ASSERT(!call->sending);
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, size_bytes);
    call->sending = grpc_raw_byte_buffer_create(&slice, 1);
    metric_add(&call->server->options.metrics->sent_bytes[METRIC_DOOR_GRPC], size_bytes);
    grpc_slice_unref(slice);
    if (size_bytes > SLOW_SEND_BYTES)
        slow_sends_add(&call->server->slow_sends, &call->slow, clock_now_ns(clock_monotonic()));
    grpc_op *op = &ops[(*n_ops)++];
    *op = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
    op->data.send_message.send_message = call->sending;
}

void rpc_call_send(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes)
{
    ASSERT(!call->finishing);
    grpc_op ops[2];
    size_t n_ops = 0;
    add_headers(call, ops, &n_ops);
    add_message(call, bytes, size_bytes, ops, &n_ops);
    start_batch(call, ops, n_ops, &call->sent_tag);
}

void rpc_call_add_trailer(struct rpc_call *call, const char *key, const void *value, size_t value_bytes)
{
    ASSERT(call->n_trailers < RPC_TRAILERS_MAX);
    size_t key_bytes = strlen(key);
    bool binary = key_bytes > 4 && strcmp(key + key_bytes - 4, "-bin") == 0;
    for (size_t i = 0; !binary && i < value_bytes; i++)
        if (((const char *)value)[i] < 0x20 || ((const char *)value)[i] == 0x7f)
            return; /* core refuses the whole batch for it */
    call->trailers[call->n_trailers++] = (grpc_metadata){
        .key = grpc_slice_from_static_string(key),
        .value = grpc_slice_from_copied_buffer(value, value_bytes),
    };
}

void rpc_call_finish(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes, grpc_status_code status,
                     const char *message, int64_t pushback_ms)
{
    ASSERT(!call->finishing);
    call->finishing = true;
    if (call->method >= 0 && !call->server->options.methods[call->method].streams_in)
        rpc_call_drop_payload(call); /* the call lives on for as long as its client does not read */
    const struct rpc_server_options *options = &call->server->options;
    metric_add(&options->metrics->answers[metric_answer_grpc((int)status)], 1);
    if (options->before_finish)
        options->before_finish(options->context, call, status);
    grpc_op ops[3];
    size_t n_ops = 0;
    /* Headers and status in one batch: core 1.51 accepts a status alone and never sends it. */
    add_headers(call, ops, &n_ops);
    if (bytes)
        add_message(call, bytes, size_bytes, ops, &n_ops);
    grpc_op *op = &ops[n_ops++];
    *op = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    op->data.send_status_from_server.status = status;
    grpc_slice details = grpc_slice_from_copied_string(message ? message : "");
    op->data.send_status_from_server.status_details = &details;
    if (pushback_ms != RPC_NO_PUSHBACK) {
        char text[24];
        int length = snprintf(text, sizeof text, "%lld", (long long)pushback_ms);
        rpc_call_add_trailer(call, "grpc-retry-pushback-ms", text, (size_t)length);
    }
    op->data.send_status_from_server.trailing_metadata = call->trailers;
    op->data.send_status_from_server.trailing_metadata_count = call->n_trailers;
    start_batch(call, ops, n_ops, &call->sent_tag);
    grpc_slice_unref(details);
}

void rpc_call_refuse(struct rpc_call *call, const err_t *error, int64_t pushback_ms)
{
    rpc_call_finish(call, NULL, 0, grpc_status_from_error(error->code), error->message, pushback_ms);
}

static void cut_send(struct slow_send *send)
{
    struct rpc_call *call = (struct rpc_call *)((char *)send - offsetof(struct rpc_call, slow));
    (void)grpc_call_cancel_with_status(call->call, GRPC_STATUS_CANCELLED,
                                       "the client does not take its answer", NULL);
}

uint32_t rpc_server_cut_slow(struct rpc_server *server, int64_t timeout_ns)
{
    return slow_sends_cut(&server->slow_sends, clock_now_ns(clock_monotonic()) - timeout_ns, cut_send);
}

/* --- receiving */

/* Posts a request for one more call; false without memory. */
static bool try_post_call(struct rpc_server *server, int method)
{
    struct rpc_call *call = call_create(server, method);
    if (!call)
        return false;
    grpc_call_error e;
    if (method < 0)
        e = grpc_server_request_call(server->server, &call->call, &call->details, &call->request_metadata,
                                     server->queue, server->queue, &call->accepted_tag);
    else
        e = grpc_server_request_registered_call(server->server, server->registered[method], &call->call,
                                                &call->deadline, &call->request_metadata, &call->received,
                                                server->queue, server->queue, &call->accepted_tag);
    if (e != GRPC_CALL_OK) { /* the queue is shut down */
        ASSERT(e == GRPC_CALL_ERROR_COMPLETION_QUEUE_SHUTDOWN);
        rpc_call_unref(call);
    }
    return true;
}

static void post_call(struct rpc_server *server, int method)
{
    if (!try_post_call(server, method))
        log_error("grpc", "no memory to accept another call");
}

static const struct rpc_method *method_of(const struct rpc_call *call)
{
    return &call->server->options.methods[call->method];
}

/* The received slices, gathered into aligned memory. */
static err_t gather_payload(struct rpc_call *call)
{
    if (!call->received && method_of(call)->streams_in)
        return err_ok();
    if (!call->received)
        return err_new(ERR_INVALID_ARGUMENT, "the call has no request message");
    size_t size_bytes = grpc_byte_buffer_length(call->received);
    if (size_bytes > call->server->options.max_message_bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the message has %zu bytes; at most %zu are allowed",
                       size_bytes, call->server->options.max_message_bytes);
    metric_add(&call->server->options.metrics->received_bytes[METRIC_DOOR_GRPC], size_bytes);
    if (atomic_fetch_add(&call->server->pending_bytes, size_bytes) + size_bytes >
        call->server->options.max_pending_bytes) {
        atomic_fetch_sub(&call->server->pending_bytes,
                         size_bytes); /* the refused call lives on for a while */
        return err_new(ERR_RESOURCE_EXHAUSTED, "the server holds %zu bytes of requests and takes no more",
                       call->server->options.max_pending_bytes);
    }
    call->reserved_bytes = size_bytes;
    call->payload = mem_alloc(size_bytes + 1);
    if (!call->payload)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", size_bytes);
    ASSERT((uintptr_t)call->payload % RPC_PAYLOAD_ALIGN == 0);
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, call->received))
        return err_new(ERR_INVALID_ARGUMENT, "the request message cannot be read");
    grpc_slice slice;
    while (grpc_byte_buffer_reader_next(&reader, &slice)) {
        memcpy(call->payload + call->payload_bytes, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
        call->payload_bytes += GRPC_SLICE_LENGTH(slice);
        grpc_slice_unref(slice);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    return err_ok();
}

void rpc_call_receive(struct rpc_call *call)
{
    rpc_call_drop_payload(call);
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->received;
    start_batch(call, &op, 1, &call->received_tag);
}

static void on_received(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    call->receive_failed = gather_payload(call).code != ERR_OK;
    server->options.on_received(server->options.context, call);
    rpc_call_unref(call);
}

static void run_handler(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    method_of(call)->handle(server->options.context, call);
    rpc_call_unref(call);
}

static void run_on_worker(struct work_item *item)
{
    run_handler((struct rpc_call *)((char *)item - offsetof(struct rpc_call, work)));
}

static void find_authorization(const struct rpc_call *call, struct credentials *out)
{
    static const char name[] = "authorization";
    for (size_t i = 0; i < call->request_metadata.count; i++) {
        const grpc_metadata *metadata = &call->request_metadata.metadata[i];
        if (grpc_slice_str_cmp(metadata->key, name) != 0)
            continue;
        out->authorization = (const char *)GRPC_SLICE_START_PTR(metadata->value);
        out->authorization_bytes = GRPC_SLICE_LENGTH(metadata->value);
        out->n_authorizations++;
    }
}

static err_t authenticate(struct rpc_call *call)
{
    const struct rpc_server_options *options = &call->server->options;
    enum rpc_access access = options->methods[call->method].access;
    if (!options->identity || access == RPC_FOR_EVERYONE)
        return err_ok();
    struct peer_names peer = {.n = 0};
    grpc_auth_context *context = options->tls ? grpc_tls_peer(call->call, &peer) : NULL;
    struct credentials credentials = {.peer = &peer};
    find_authorization(call, &credentials);
    err_t e = identity_authenticate(options->identity, &credentials, &call->caller);
    if (context)
        grpc_auth_context_release(context);
    if (e.code == ERR_OK && access == RPC_FOR_ADMINS && !call->caller.is_admin)
        e = err_new(ERR_PERMISSION_DENIED,
                    "tenant %s may not call this method; it is for tenants with admin=yes",
                    call->caller.tenant);
    return e;
}

/* A refusal before any handler ran. */
static bool refuse_at_once(struct rpc_call *call, uint32_t n_calls)
{
    err_t e = err_ok();
    if (call->method < 0) {
        char *path = grpc_slice_to_c_string(call->details.method);
        e = err_new(ERR_UNIMPLEMENTED, "unknown method %.128s", path);
        gpr_free(path);
    } else if (n_calls > call->server->options.max_calls) {
        e = err_new(ERR_RESOURCE_EXHAUSTED, "the server has %u calls under way and takes no more",
                    call->server->options.max_calls);
    } else {
        e = authenticate(call);
        if (e.code == ERR_OK)
            e = gather_payload(call);
    }
    if (e.code == ERR_OK)
        return false;
    rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
    rpc_call_unref(call);
    return true;
}

static void on_accepted(struct rpc_call *call, bool ok)
{
    struct rpc_server *server = call->server;
    if (!ok) { /* shutting down: this call was only ever a wish */
        rpc_call_unref(call);
        return;
    }
    call->accepted = true;
    uint32_t n_calls = atomic_fetch_add(&server->n_calls, 1) + 1;
    call->repost_when_freed = !try_post_call(server, call->method);
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &call->close_cancelled;
    start_batch(call, &op, 1, &call->closed_tag);
    if (refuse_at_once(call, n_calls))
        return;
    const struct rpc_method *method = method_of(call);
    bool slow = method->slow || (method->heavy && call->payload_bytes > RPC_INLINE_PAYLOAD_BYTES);
    if (slow && server->workers) {
        call->work.run = run_on_worker;
        work_queue_add(server->workers, &call->work);
    } else {
        run_handler(call);
    }
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
        switch (tag->kind) {
        case TAG_ACCEPTED:
            on_accepted(tag->call, event.success != 0);
            break;
        case TAG_CLOSED:
            on_closed(tag->call);
            break;
        case TAG_SENT:
            on_sent(tag->call);
            break;
        case TAG_RECEIVED:
            on_received(tag->call);
            break;
        case TAG_SHUT_DOWN:
            atomic_store(&server->is_shut_down, true);
            event_count_bump(&server->shut_down);
            break;
        }
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
    grpc_server_credentials *credentials =
        options->tls ? grpc_tls_credentials(&server->tls) : grpc_insecure_server_credentials_create();
    if (!credentials)
        return err_new(ERR_INVALID_ARGUMENT, "gRPC does not take the server's certificate");
    int port = grpc_server_add_http2_port(server->server, address, credentials);
    grpc_server_credentials_release(credentials);
    if (port <= 0)
        return listen_explain_failure(options->host, options->port);
    server->port = (uint16_t)port;
    return err_ok();
}

static err_t start_threads(struct rpc_server *server)
{
    if (server->options.n_worker_threads > 0)
        TRY(work_queue_create(server->options.n_worker_threads, &server->workers));
    for (int i = 0; i < server->options.n_queue_threads; i++) {
        if (pthread_create(&server->queue_threads[i], NULL, queue_main, server) != 0)
            return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start a gRPC queue thread");
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
    grpc_runtime_init();
    server->queue = grpc_completion_queue_create_for_next(NULL);
    server->server = create_core_server(options);
    grpc_server_register_completion_queue(server->server, server->queue, NULL);
    for (size_t i = 0; i < options->n_methods; i++)
        server->registered[i] = grpc_server_register_method(server->server, options->methods[i].path, NULL,
                                                            GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    err_t e = listen_on(server);
    if (e.code == ERR_OK) {
        grpc_server_start(server->server);
        for (int method = -1; method < (int)options->n_methods; method++)
            for (int i = 0; i < (method < 0 ? RPC_POSTED_UNKNOWN_CALLS : RPC_POSTED_CALLS); i++)
                post_call(server, method);
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
    slow_sends_destroy(&server->slow_sends);
    mem_free(server);
    grpc_runtime_shutdown();
}
