/* grpc.reflection over a stream in both directions: one answer to each message, in turn. */
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/grpc_door_internal.h"
#include "proto/reflection.h"

#define IDLE_INTERVAL_NS                                                                                     \
    INT64_C(1000000000) /* between the flusher's looks at a stream that waits for its client */

struct reflect_call {
    struct door_item item;
    _Atomic bool received; /* a message, or the client's last word, is there */
    bool asked;            /* for the next one */
};

static enum pump_result end_with(struct rpc_call *call, const err_t *e)
{
    if (e->code == ERR_OK)
        rpc_call_finish(call, NULL, 0, GRPC_STATUS_OK, NULL, RPC_NO_PUSHBACK);
    else
        rpc_call_refuse(call, e, RPC_NO_PUSHBACK);
    return PUMP_DONE;
}

static enum pump_result answer_received(struct reflect_call *reflect)
{
    struct rpc_call *call = reflect->item.call;
    size_t size_bytes;
    const uint8_t *bytes = rpc_call_payload(call, &size_bytes);
    err_t e = err_ok();
    if (rpc_call_receive_failed(call))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "there is no room for another message");
    if (e.code != ERR_OK || !bytes)
        return end_with(call, &e);
    struct buffer out = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX + 2 * REFLECTION_REQUEST_BYTES_MAX};
    e = reflection_answer(bytes, size_bytes, &out);
    enum pump_result result = PUMP_SENDING;
    if (e.code == ERR_OK)
        rpc_call_send(call, (const uint8_t *)out.data, out.size);
    else
        result = end_with(call, &e);
    buffer_free(&out);
    return result;
}

static enum pump_result pump_reflect(struct flush_item *flush)
{
    struct reflect_call *reflect = (struct reflect_call *)flush;
    struct rpc_call *call = reflect->item.call;
    if (rpc_call_ended(call))
        return PUMP_DONE;
    if (atomic_load(&reflect->item.door->closing)) {
        err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
        return end_with(call, &e);
    }
    if (atomic_exchange(&reflect->received, false)) {
        reflect->asked = false;
        return answer_received(reflect);
    }
    if (!reflect->asked) {
        reflect->asked = true;
        rpc_call_receive(call);
    }
    return PUMP_IDLE;
}

static void destroy_reflect(struct door_item *item)
{
    mem_free(item);
}

void door_reflect_received(struct grpc_door *door, struct rpc_call *call)
{
    struct reflect_call *reflect = rpc_call_user(call);
    atomic_store(&reflect->received, true);
    flush_item_pump(door->flusher, &reflect->item.flush);
}

void door_reflect(void *context, struct rpc_call *call)
{
    struct reflect_call *reflect = mem_alloc(sizeof *reflect);
    if (!reflect) {
        err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a stream");
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    reflect->received = true;
    reflect->asked = true;
    door_item_start(&reflect->item, context, call, pump_reflect, IDLE_INTERVAL_NS, destroy_reflect);
}
