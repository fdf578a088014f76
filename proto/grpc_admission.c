/* From a call that has come to its handler: who may come in, in what order they give way, and their messages.
 */
#include <string.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "proto/grpc_runtime.h"
#include "proto/grpc_server_internal.h"

#define GAVE_UP "the request's message did not come, and others need the place"

#define STALLED "the reader took nothing for --stream-stall-timeout, and others need the place"

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

static void start_receiving(struct rpc_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->received;
    rpc_call_start_batch(call, &op, 1, &call->received_tag);
}

void rpc_call_receive(struct rpc_call *call)
{
    rpc_call_drop_payload(call);
    start_receiving(call);
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

/* Core leaves out what is larger once the client has acknowledged our settings, which it need not. */
static err_t check_headers(const struct rpc_call *call)
{
    size_t size_bytes = 0, limit_bytes = call->server->options.max_metadata_bytes;
    for (size_t i = 0; i < call->request_metadata.count; i++) {
        const grpc_metadata *header = &call->request_metadata.metadata[i];
        size_bytes +=
            GRPC_SLICE_LENGTH(header->key) + GRPC_SLICE_LENGTH(header->value) + RPC_HEADER_OVERHEAD_BYTES;
    }
    if (size_bytes > limit_bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED,
                       "the request's headers have %zu bytes; at most %zu are allowed", size_bytes,
                       limit_bytes);
    return err_ok();
}

/* --- calls that have come and whose request message has not */

/* Makes room by cutting the call that has waited longest: a client that means it sends its message with the
 * call, so that this one is of those that hold places. */
static void await_message(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    struct rpc_call *oldest = NULL;
    pthread_mutex_lock(&server->calls_mutex);
    if (server->n_awaited == server->options.max_calls) {
        oldest = TAILQ_FIRST(&server->awaited);
        TAILQ_REMOVE(&server->awaited, oldest, awaited_link);
        oldest->awaited = false;
        oldest->given_up = true;
        rpc_call_ref(oldest);
    } else {
        server->n_awaited++;
    }
    TAILQ_INSERT_TAIL(&server->awaited, call, awaited_link);
    call->awaited = true;
    pthread_mutex_unlock(&server->calls_mutex);
    if (!oldest)
        return;
    (void)grpc_call_cancel_with_status(oldest->call, GRPC_STATUS_RESOURCE_EXHAUSTED, GAVE_UP, NULL);
    rpc_call_unref(oldest);
}

/* False when the server has given it up. */
static bool stop_awaiting(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    pthread_mutex_lock(&server->calls_mutex);
    if (call->awaited) {
        TAILQ_REMOVE(&server->awaited, call, awaited_link);
        server->n_awaited--;
        call->awaited = false;
    }
    bool given_up = call->given_up;
    pthread_mutex_unlock(&server->calls_mutex);
    return !given_up;
}

/* --- from a call to its handler */

/* Where many refusals wait for their clients to read them, one more does not. */
static void refuse_at_once(struct rpc_call *call, const err_t *e)
{
    call->refused = true;
    if (atomic_fetch_add(&call->server->n_refused, 1) >= RPC_REFUSED_MAX)
        (void)grpc_call_cancel_with_status(call->call, grpc_status_from_error(e->code), e->message, NULL);
    rpc_call_refuse(call, e, RPC_NO_PUSHBACK);
    rpc_call_unref(call);
}

/* What can be said before the message is there. */
static err_t check_call(struct rpc_call *call)
{
    if (call->method < 0) {
        char *path = grpc_slice_to_c_string(call->details.method);
        err_t e = err_new(ERR_UNIMPLEMENTED, "unknown method %.128s", path);
        gpr_free(path);
        return e;
    }
    TRY(check_headers(call));
    return authenticate(call);
}

void rpc_call_accepted(struct rpc_call *call, bool ok)
{
    struct rpc_server *server = call->server;
    if (!ok) { /* shutting down: this call was only ever a wish */
        rpc_call_unref(call);
        return;
    }
    call->repost_when_freed = !rpc_server_post_call(server, call->method);
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &call->close_cancelled;
    rpc_call_start_batch(call, &op, 1, &call->closed_tag);
    err_t e = check_call(call);
    if (e.code != ERR_OK) {
        refuse_at_once(call, &e);
        return;
    }
    await_message(call);
    start_receiving(call);
}

void rpc_call_leave(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    pthread_mutex_lock(&server->calls_mutex);
    TAILQ_REMOVE(&server->calls, call, call_link);
    pthread_mutex_unlock(&server->calls_mutex);
    atomic_fetch_sub(&server->n_calls, 1);
}

/* Somebody needs a place: takes it from those who hold theirs by reading nothing. It is free a little later.
 */
static void cut_stalled_calls(struct rpc_server *server)
{
    struct rpc_call *stalled[RPC_STALLED_CUT];
    size_t n_stalled = 0;
    int64_t now_ns = clock_now_ns(clock_monotonic());
    int64_t limit_ns = server->options.stall_timeout_ms * INT64_C(1000000);
    pthread_mutex_lock(&server->calls_mutex);
    if (limit_ns > 0 && now_ns - server->looked_ns >= RPC_STALLED_LOOK_MS * INT64_C(1000000)) {
        server->looked_ns = now_ns;
        struct rpc_call *call;
        TAILQ_FOREACH(call, &server->calls, call_link)
        {
            int64_t since_ns = atomic_load(&call->sending_since_ns);
            if (since_ns == 0 || now_ns - since_ns < limit_ns || n_stalled == RPC_STALLED_CUT)
                continue;
            stalled[n_stalled++] = call;
            rpc_call_ref(call);
        }
    }
    pthread_mutex_unlock(&server->calls_mutex);
    for (size_t i = 0; i < n_stalled; i++) {
        (void)grpc_call_cancel_with_status(stalled[i]->call, GRPC_STATUS_CANCELLED, STALLED, NULL);
        rpc_call_unref(stalled[i]);
    }
}

/* Only a call that has its message is one of max_calls. */
static err_t take_first_message(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    if (!stop_awaiting(call))
        return err_new(ERR_RESOURCE_EXHAUSTED, GAVE_UP);
    TRY(gather_payload(call));
    call->counted = true;
    pthread_mutex_lock(&server->calls_mutex);
    TAILQ_INSERT_TAIL(&server->calls, call, call_link);
    pthread_mutex_unlock(&server->calls_mutex);
    if (atomic_fetch_add(&server->n_calls, 1) < server->options.max_calls)
        return err_ok();
    cut_stalled_calls(server);
    return err_new(ERR_RESOURCE_EXHAUSTED, "the server has %u calls under way and takes no more",
                   server->options.max_calls);
}

static void on_first_received(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    err_t e = take_first_message(call);
    if (e.code != ERR_OK) {
        refuse_at_once(call, &e);
        return;
    }
    const struct rpc_method *method = method_of(call);
    bool slow = method->slow || (method->heavy && call->payload_bytes > RPC_INLINE_PAYLOAD_BYTES);
    if (slow && server->workers) {
        call->work.run = run_on_worker;
        work_queue_add(server->workers, &call->work);
    } else {
        run_handler(call);
    }
}

void rpc_call_received(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    if (!call->has_begun) {
        call->has_begun = true;
        on_first_received(call);
    } else {
        call->receive_failed = gather_payload(call).code != ERR_OK;
        server->options.on_received(server->options.context, call);
    }
    rpc_call_unref(call);
}
