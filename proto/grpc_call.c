/* A call: its life, what it was asked, and what it sends. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <grpc/support/time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/grpc_runtime.h"
#include "proto/grpc_server_internal.h"

/* --- calls */

struct rpc_call *rpc_call_create(struct rpc_server *server, int method)
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
    mem_free(call->trailers);
    grpc_metadata_array_destroy(&call->request_metadata);
    grpc_call_details_destroy(&call->details);
    rpc_call_drop_payload(call);
    bool repost = call->repost_when_freed;
    int method = call->method;
    if (call->counted)
        rpc_call_leave(call);
    if (call->refused)
        atomic_fetch_sub(&server->n_refused, 1);
    if (call->call)
        grpc_call_unref(call->call);
    mem_free(call);
    if (repost && !rpc_server_post_call(server, method))
        log_error("grpc", "no memory to accept another call");
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

bool rpc_call_header_at(const struct rpc_call *call, size_t i, struct rpc_header *out)
{
    if (i >= call->request_metadata.count)
        return false;
    const grpc_metadata *header = &call->request_metadata.metadata[i];
    *out = (struct rpc_header){(const char *)GRPC_SLICE_START_PTR(header->key),
                               (const char *)GRPC_SLICE_START_PTR(header->value),
                               GRPC_SLICE_LENGTH(header->key), GRPC_SLICE_LENGTH(header->value)};
    return true;
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

void rpc_call_start_batch(struct rpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    rpc_call_ref(call);
    atomic_fetch_add(&call->server->n_tags, 1);
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
    grpc_op *op = &ops[(*n_ops)++];
    *op = (grpc_op){.op = GRPC_OP_SEND_MESSAGE};
    op->data.send_message.send_message = call->sending;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    atomic_store(&call->sending_since_ns, now_ns);
    if (size_bytes > SLOW_SEND_BYTES)
        slow_sends_add(&call->server->slow_sends, &call->slow, now_ns);
}

void rpc_call_send(struct rpc_call *call, const uint8_t *bytes, size_t size_bytes)
{
    ASSERT(!call->finishing);
    grpc_op ops[2];
    size_t n_ops = 0;
    add_headers(call, ops, &n_ops);
    add_message(call, bytes, size_bytes, ops, &n_ops);
    rpc_call_start_batch(call, ops, n_ops, &call->sent_tag);
}

void rpc_call_add_trailer(struct rpc_call *call, const char *key, const void *value, size_t value_bytes)
{
    ASSERT(call->n_trailers < RPC_TRAILERS_MAX);
    size_t key_bytes = strlen(key);
    bool binary = key_bytes > 4 && strcmp(key + key_bytes - 4, "-bin") == 0;
    for (size_t i = 0; !binary && i < value_bytes; i++)
        if (((const char *)value)[i] < 0x20 || ((const char *)value)[i] == 0x7f)
            return; /* core refuses the whole batch for it */
    if (!call->trailers)
        call->trailers = mem_alloc_array(RPC_TRAILERS_MAX, sizeof *call->trailers);
    if (!call->trailers)
        return;
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
    rpc_call_start_batch(call, ops, n_ops, &call->sent_tag);
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
