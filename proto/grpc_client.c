#include "proto/grpc_client.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_runtime.h"

enum client_tag_kind { CLIENT_BEGUN, CLIENT_MESSAGE, CLIENT_STATUS, CLIENT_WAKE };

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
    grpc_metadata metadata[CLIENT_METADATA_MAX];
    size_t n_metadata;
    grpc_byte_buffer *sending, *received;
    grpc_status_code status;
    grpc_slice details;
    struct client_call *previous, *next;
};

struct grpc_client_queue {
    grpc_completion_queue *queue;
    /* A call that is never begun, on a channel to nowhere: an empty batch on it wakes the queue from any
     * thread. */
    grpc_channel *wake_channel;
    grpc_call *wake_call;
    struct client_tag wake_tag;
    atomic_bool waking; /* such a batch is under way */
};

struct grpc_client {
    grpc_channel *channel;
    struct grpc_client_queue *queue;
    bool owns_queue;
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

static const gpr_timespec NEVER = {INT64_MAX, 0, GPR_CLOCK_MONOTONIC};

static gpr_timespec deadline_from(int64_t timeout_ns)
{
    if (timeout_ns < 0 || timeout_ns > INT64_MAX / 2)
        return NEVER;
    if (timeout_ns == 0)
        return gpr_inf_past(GPR_CLOCK_MONOTONIC); /* now would be rounded up: core waits whole milliseconds */
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(timeout_ns, GPR_TIMESPAN));
}

err_t grpc_client_queue_open(struct grpc_client_queue **out)
{
    struct grpc_client_queue *queue = mem_alloc(sizeof *queue);
    if (!queue)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a gRPC client");
    grpc_runtime_init();
    queue->queue = grpc_completion_queue_create_for_next(NULL);
    queue->wake_tag.kind = CLIENT_WAKE;
    queue->wake_channel = grpc_lame_client_channel_create(NULL, GRPC_STATUS_UNAVAILABLE, "to nowhere");
    queue->wake_call =
        grpc_channel_create_call(queue->wake_channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue->queue,
                                 grpc_slice_from_static_string("/bantam.Bantam/Wake"), NULL, NEVER, NULL);
    *out = queue;
    return err_ok();
}

void grpc_client_queue_close(struct grpc_client_queue *queue)
{
    if (!queue)
        return;
    grpc_completion_queue_shutdown(queue->queue);
    grpc_call_unref(queue->wake_call);
    while (grpc_completion_queue_next(queue->queue, NEVER, NULL).type != GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(queue->queue);
    grpc_channel_destroy(queue->wake_channel);
    mem_free(queue);
    grpc_runtime_shutdown();
}

err_t grpc_client_open(const char *target, const struct grpc_client_options *options,
                       struct grpc_client **out)
{
    struct grpc_client *client = mem_alloc(sizeof *client);
    if (!client)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a gRPC client");
    grpc_runtime_init();
    client->owns_queue = options->queue == NULL;
    client->queue = options->queue;
    err_t e = client->owns_queue ? grpc_client_queue_open(&client->queue) : err_ok();
    if (e.code == ERR_OK)
        e = grpc_channel_open(target, options, &client->channel);
    if (e.code != ERR_OK) {
        if (client->owns_queue)
            grpc_client_queue_close(client->queue);
        grpc_runtime_shutdown();
        mem_free(client);
        return e;
    }
    *out = client;
    return err_ok();
}

void grpc_client_queue_wake(struct grpc_client_queue *queue)
{
    if (atomic_exchange(&queue->waking, true))
        return;
    grpc_call_error e = grpc_call_start_batch(queue->wake_call, NULL, 0, &queue->wake_tag, NULL);
    ASSERT(e == GRPC_CALL_OK);
}

void grpc_client_wake(struct grpc_client *client)
{
    grpc_client_queue_wake(client->queue);
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
    ops[0].data.send_initial_metadata.count = call->n_metadata;
    ops[0].data.send_initial_metadata.metadata = call->metadata;
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

static bool is_reserved(const char *key)
{
    static const char *const names[] = {"content-type", "te", "host", "user-agent", "connection"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(key, names[i]) == 0)
            return true;
    return key[0] == ':' || strncmp(key, "grpc-", 5) == 0;
}

err_t client_metadata_check(const struct client_metadata *metadata)
{
    size_t key_bytes = strlen(metadata->key);
    if (key_bytes > CLIENT_METADATA_BYTES_MAX ||
        metadata->value_bytes > CLIENT_METADATA_BYTES_MAX - key_bytes)
        return err_new(ERR_INVALID_ARGUMENT, "a header with its value has at most %d bytes",
                       CLIENT_METADATA_BYTES_MAX);
    grpc_slice key = grpc_slice_from_static_buffer(metadata->key, key_bytes);
    if (!grpc_header_key_is_legal(key))
        return err_new(ERR_INVALID_ARGUMENT,
                       "\"%.64s\" cannot name a header: lower case letters, digits, '-', '_' and '.'",
                       metadata->key);
    if (is_reserved(metadata->key))
        return err_new(ERR_INVALID_ARGUMENT, "the header %.64s is gRPC's own", metadata->key);
    grpc_slice value = grpc_slice_from_static_buffer(metadata->value, metadata->value_bytes);
    if (!grpc_is_binary_header(key) && !grpc_header_nonbin_value_is_legal(value))
        return err_new(ERR_INVALID_ARGUMENT, "the value of the header %.64s is not printable ASCII",
                       metadata->key);
    return err_ok();
}

static struct client_call *make_call(struct grpc_client *client, const char *path, const uint8_t *bytes,
                                     size_t size_bytes, int64_t timeout_ns)
{
    struct client_call *call = mem_alloc(sizeof *call);
    if (!call)
        return NULL;
    call->client = client;
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
    call->call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue->queue, method,
                                 NULL, deadline_from(timeout_ns), NULL);
    grpc_slice_unref(method);
    return call;
}

err_t grpc_client_start_with(struct grpc_client *client, const char *path, const uint8_t *bytes,
                             size_t size_bytes, int64_t timeout_ns, const struct client_metadata *metadata,
                             size_t n_metadata, const struct client_handler *handler, void *context,
                             struct client_call **out)
{
    ASSERT(n_metadata <= CLIENT_METADATA_MAX);
    struct client_call *call = make_call(client, path, bytes, size_bytes, timeout_ns);
    if (!call)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    call->handler = handler;
    call->context = context;
    for (size_t i = 0; i < n_metadata; i++)
        call->metadata[call->n_metadata++] = (grpc_metadata){
            .key = grpc_slice_from_copied_string(metadata[i].key),
            .value = grpc_slice_from_copied_buffer(metadata[i].value, metadata[i].value_bytes)};
    link_call(client, call);
    begin_call(call);
    if (out)
        *out = call;
    return err_ok();
}

err_t grpc_client_start(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, const struct client_handler *handler, void *context,
                        struct client_call **out)
{
    return grpc_client_start_with(client, path, bytes, size_bytes, timeout_ns, NULL, 0, handler, context,
                                  out);
}

bool client_status_trailer(const struct client_status *status, const char *key, const uint8_t **value,
                           size_t *value_bytes)
{
    const grpc_metadata_array *trailers = &status->call->trailers;
    for (size_t i = 0; i < trailers->count; i++) {
        const grpc_metadata *metadata = &trailers->metadata[i];
        if (grpc_slice_str_cmp(metadata->key, key) != 0)
            continue;
        *value = GRPC_SLICE_START_PTR(metadata->value);
        *value_bytes = GRPC_SLICE_LENGTH(metadata->value);
        return true;
    }
    return false;
}

char *client_status_peer(const struct client_status *status)
{
    char *peer = grpc_call_get_peer(status->call->call);
    char *copy = peer ? mem_strdup(peer) : NULL;
    gpr_free(peer);
    return copy;
}

static void find_pushback(struct client_status *status)
{
    const uint8_t *value;
    size_t value_bytes;
    if (!client_status_trailer(status, "grpc-retry-pushback-ms", &value, &value_bytes))
        return;
    char text[24], *end;
    bool fits = value_bytes > 0 && value_bytes < sizeof text;
    size_t length = fits ? value_bytes : 0;
    memcpy(text, value, length);
    text[length] = '\0';
    errno = 0;
    status->has_pushback = true;
    status->pushback_ms = strtoll(text, &end, 10);
    if (!fits || *end != '\0' || errno != 0)
        status->pushback_ms = -1;
}

/* The last batch is done: reports and frees. */
static void finish_call(struct client_call *call)
{
    char *message = grpc_slice_to_c_string(call->details);
    struct client_status status = {.code = call->status, .message = message, .call = call};
    find_pushback(&status);
    unlink_call(call->client, call);
    call->handler->on_done(call->context, &status);
    gpr_free(message);
    grpc_slice_unref(call->details);
    grpc_metadata_array_destroy(&call->headers);
    grpc_metadata_array_destroy(&call->trailers);
    for (size_t i = 0; i < call->n_metadata; i++) {
        grpc_slice_unref(call->metadata[i].key);
        grpc_slice_unref(call->metadata[i].value);
    }
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

bool grpc_client_queue_poll(struct grpc_client_queue *queue, int64_t timeout_ns)
{
    grpc_event event = grpc_completion_queue_next(queue->queue, deadline_from(timeout_ns), NULL);
    if (event.type != GRPC_OP_COMPLETE)
        return false;
    if (event.tag == &queue->wake_tag)
        atomic_store(&queue->waking, false);
    else
        on_tag(event.tag);
    return true;
}

bool grpc_client_poll(struct grpc_client *client, int64_t timeout_ns)
{
    return grpc_client_queue_poll(client->queue, timeout_ns);
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
    grpc_channel_destroy(client->channel);
    if (client->owns_queue)
        grpc_client_queue_close(client->queue);
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
