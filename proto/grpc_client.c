#include "proto/grpc_client.h"

#include <stdlib.h>
#include <string.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/grpc_runtime.h"

enum {
    CLIENT_MESSAGE_BYTES_DEFAULT = 64 << 20,
    CLIENT_KEEPALIVE_TIME_MS = 30000,
    CLIENT_KEEPALIVE_TIMEOUT_MS = 20000,
    CLIENT_WINDOW_BYTES_DEFAULT = 65536, /* where gRPC starts from as well */
};

enum client_tag_kind { CLIENT_BEGUN, CLIENT_MESSAGE, CLIENT_STATUS };

struct client_tag {
    enum client_tag_kind kind;
    struct client_call *call;
};

struct client_call {
    struct grpc_client *client;
    const struct client_handler *handler;
    void *context;
    grpc_call *call;
    struct client_tag begun_tag, message_tag, status_tag;
    uint32_t n_batches; /* under way */
    bool reading, has_status;
    grpc_metadata_array headers, trailers;
    grpc_byte_buffer *sending, *received;
    grpc_status_code status;
    grpc_slice details;
    struct client_call *previous, *next;
};

struct grpc_client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    struct client_call *calls;
    uint32_t n_calls;
};

static void start_batch(struct client_call *call, const grpc_op *ops, size_t n_ops, struct client_tag *tag)
{
    grpc_call_error e = grpc_call_start_batch(call->call, ops, n_ops, tag, NULL);
    ASSERT(e == GRPC_CALL_OK);
    call->n_batches++;
}

static void read_next(struct client_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->received;
    call->reading = true;
    start_batch(call, &op, 1, &call->message_tag);
}

void grpc_client_resume(struct client_call *call)
{
    if (!call->reading && !call->has_status)
        read_next(call);
}

void grpc_client_cancel(struct client_call *call)
{
    (void)grpc_call_cancel(call->call, NULL);
}

static grpc_arg int_arg(const char *key, int value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};
    arg.value.integer = value;
    return arg;
}

err_t grpc_client_open(const char *target, const struct grpc_client_options *options,
                       struct grpc_client **out)
{
    struct grpc_client *client = mem_alloc(sizeof *client);
    if (!client)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a gRPC client");
    grpc_runtime_init();
    client->queue = grpc_completion_queue_create_for_next(NULL);
    size_t max_bytes = options->max_message_bytes ? options->max_message_bytes : CLIENT_MESSAGE_BYTES_DEFAULT;
    int window_bytes = options->window_bytes ? (int)options->window_bytes : CLIENT_WINDOW_BYTES_DEFAULT;
    grpc_arg args[] = {
        int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)max_bytes),
        int_arg(GRPC_ARG_ENABLE_RETRIES, 0), /* a stream of tokens cannot be sent twice */
        int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, CLIENT_KEEPALIVE_TIME_MS),
        int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, CLIENT_KEEPALIVE_TIMEOUT_MS),
        int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, options->own_connection),
        int_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, window_bytes),
        int_arg(GRPC_ARG_HTTP2_BDP_PROBE, options->window_bytes == 0), /* it would widen the window */
    };
    grpc_channel_args channel_args = {.num_args = sizeof args / sizeof args[0], .args = args};
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    client->channel = grpc_channel_create(target, credentials, &channel_args);
    grpc_channel_credentials_release(credentials);
    *out = client;
    return err_ok();
}

static gpr_timespec deadline_from(int64_t timeout_ns)
{
    if (timeout_ns < 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(timeout_ns, GPR_TIMESPAN));
}

static void link_call(struct grpc_client *client, struct client_call *call)
{
    call->next = client->calls;
    if (client->calls)
        client->calls->previous = call;
    client->calls = call;
    client->n_calls++;
}

static void unlink_call(struct grpc_client *client, struct client_call *call)
{
    if (call->previous)
        call->previous->next = call->next;
    else
        client->calls = call->next;
    if (call->next)
        call->next->previous = call->previous;
    client->n_calls--;
}

static void begin_call(struct client_call *call)
{
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                      {.op = GRPC_OP_SEND_MESSAGE},
                      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
                      {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    ops[1].data.send_message.send_message = call->sending;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->headers;
    start_batch(call, ops, 4, &call->begun_tag);
    read_next(call);
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    op.data.recv_status_on_client.trailing_metadata = &call->trailers;
    op.data.recv_status_on_client.status = &call->status;
    op.data.recv_status_on_client.status_details = &call->details;
    start_batch(call, &op, 1, &call->status_tag);
}

err_t grpc_client_start(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, const struct client_handler *handler, void *context,
                        struct client_call **out)
{
    struct client_call *call = mem_alloc(sizeof *call);
    if (!call)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    call->client = client;
    call->handler = handler;
    call->context = context;
    call->begun_tag = (struct client_tag){CLIENT_BEGUN, call};
    call->message_tag = (struct client_tag){CLIENT_MESSAGE, call};
    call->status_tag = (struct client_tag){CLIENT_STATUS, call};
    call->details = grpc_empty_slice();
    grpc_metadata_array_init(&call->headers);
    grpc_metadata_array_init(&call->trailers);
    grpc_slice message = grpc_slice_from_copied_buffer((const char *)bytes, size_bytes);
    call->sending = grpc_raw_byte_buffer_create(&message, 1);
    grpc_slice_unref(message);
    grpc_slice method = grpc_slice_from_copied_string(path);
    call->call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                                          method, NULL, deadline_from(timeout_ns), NULL);
    grpc_slice_unref(method);
    link_call(client, call);
    begin_call(call);
    if (out)
        *out = call;
    return err_ok();
}

static void find_pushback(const struct client_call *call, struct client_status *status)
{
    for (size_t i = 0; i < call->trailers.count; i++) {
        const grpc_metadata *metadata = &call->trailers.metadata[i];
        if (grpc_slice_str_cmp(metadata->key, "grpc-retry-pushback-ms") != 0)
            continue;
        char *text = grpc_slice_to_c_string(metadata->value);
        status->has_pushback = true;
        status->pushback_ms = strtoll(text, NULL, 10);
        gpr_free(text);
    }
}

/* The last batch is done: reports and frees. */
static void finish_call(struct client_call *call)
{
    char *message = grpc_slice_to_c_string(call->details);
    struct client_status status = {.code = call->status, .message = message};
    find_pushback(call, &status);
    unlink_call(call->client, call);
    call->handler->on_done(call->context, &status);
    gpr_free(message);
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->headers);
    grpc_metadata_array_destroy(&call->trailers);
    grpc_byte_buffer_destroy(call->sending);
    grpc_call_unref(call->call);
    mem_free(call);
}

static bool deliver(struct client_call *call)
{
    grpc_byte_buffer_reader reader;
    bool more = true;
    if (grpc_byte_buffer_reader_init(&reader, call->received)) {
        grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
        more = call->handler->on_message(call->context, GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all));
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    return more;
}

static void on_message_tag(struct client_call *call)
{
    call->reading = false;
    if (call->received && deliver(call))
        read_next(call);
}

/* Returns with the call possibly gone. */
static void on_tag(const struct client_tag *tag)
{
    struct client_call *call = tag->call;
    if (tag->kind == CLIENT_STATUS)
        call->has_status = true;
    else if (tag->kind == CLIENT_MESSAGE)
        on_message_tag(call);
    call->n_batches--;
    if (call->n_batches == 0)
        finish_call(call);
}

bool grpc_client_poll(struct grpc_client *client, int64_t timeout_ns)
{
    grpc_event event = grpc_completion_queue_next(client->queue, deadline_from(timeout_ns), NULL);
    if (event.type != GRPC_OP_COMPLETE)
        return false;
    on_tag(event.tag);
    return true;
}

uint32_t grpc_client_calls(const struct grpc_client *client)
{
    return client->n_calls;
}

void grpc_client_close(struct grpc_client *client)
{
    if (!client)
        return;
    for (struct client_call *call = client->calls; call; call = call->next)
        grpc_client_cancel(call);
    while (client->n_calls > 0)
        (void)grpc_client_poll(client, -1);
    grpc_completion_queue_shutdown(client->queue);
    while (grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(client->queue);
    grpc_channel_destroy(client->channel);
    mem_free(client);
    grpc_runtime_shutdown();
}

/* --- one answer */

struct unary_wait {
    bool done;
    uint8_t *answer;
    size_t answer_bytes;
    err_t error;
};

static bool keep_answer(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct unary_wait *wait = context;
    mem_free(wait->answer);
    wait->answer = mem_alloc(size_bytes + 1);
    if (wait->answer)
        memcpy(wait->answer, bytes, size_bytes);
    wait->answer_bytes = size_bytes;
    return true;
}

static void keep_status(void *context, const struct client_status *status)
{
    struct unary_wait *wait = context;
    wait->done = true;
    if (status->code != GRPC_STATUS_OK)
        wait->error = err_new(grpc_status_to_error(status->code), "%s", status->message);
    else if (!wait->answer)
        wait->error = err_new(ERR_INTERNAL, "the server sent no answer");
}

err_t grpc_client_unary(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, uint8_t **answer, size_t *answer_bytes)
{
    static const struct client_handler handler = {keep_answer, keep_status};
    struct unary_wait wait = {.error = {.code = ERR_OK}};
    TRY(grpc_client_start(client, path, bytes, size_bytes, timeout_ns, &handler, &wait, NULL));
    while (!wait.done)
        (void)grpc_client_poll(client, -1);
    if (wait.error.code != ERR_OK) {
        mem_free(wait.answer);
        return wait.error;
    }
    *answer = wait.answer;
    *answer_bytes = wait.answer_bytes;
    return err_ok();
}
