/* SubscribeKvEvents, of every codec. */
#include "base/alloc.h"
#include "proto/grpc_door_internal.h"

struct kv_call {
    struct door_item item;
    const struct door_codec *codec;
    struct kv_subscription *subscription; /* NULL when it was given back */
    uint64_t last_event_id;
};

static const struct service_vtable *service_of(const struct kv_call *kv)
{
    return kv->item.door->service->vtable;
}

static enum pump_result end_subscription(struct kv_call *kv)
{
    service_of(kv)->kv_unsubscribe(kv->item.door->service, kv->subscription);
    kv->subscription = NULL;
    return PUMP_DONE;
}

static enum pump_result fail_subscription(struct kv_call *kv, const err_t *error)
{
    rpc_call_refuse(kv->item.call, error, RPC_NO_PUSHBACK);
    return end_subscription(kv);
}

static enum pump_result pump_kv(struct flush_item *flush)
{
    struct kv_call *kv = (struct kv_call *)flush;
    if (rpc_call_ended(kv->item.call))
        return end_subscription(kv);
    if (atomic_load(&kv->item.door->closing)) {
        err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
        return fail_subscription(kv, &e);
    }
    const struct kv_event_batch *batch;
    err_t e = service_of(kv)->kv_next(kv->item.door->service, kv->subscription, &batch);
    if (e.code == ERR_OK && !batch)
        return PUMP_IDLE;
    struct codec_bytes bytes = {0};
    if (e.code == ERR_OK) {
        bytes = kv->codec->encode_kv_events(batch, &kv->last_event_id);
        if (!bytes.data)
            e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a batch of KV events");
    }
    if (e.code != ERR_OK)
        return fail_subscription(kv, &e);
    rpc_call_send(kv->item.call, bytes.data, bytes.size);
    return PUMP_SENDING;
}

static void destroy_kv(struct door_item *item)
{
    mem_free(item);
}

static err_t open_subscription(struct grpc_door *door, struct rpc_call *call, struct kv_call *kv)
{
    const struct service_vtable *vtable = door->service->vtable;
    if (!vtable->kv_subscribe)
        return err_new(ERR_UNIMPLEMENTED, "this service does not tell what its prefix cache holds");
    const struct caller *caller = rpc_call_caller(call);
    /* Without tenants there is nobody to keep it from. */
    struct kv_subscribe request = {.tenant = caller->tenant,
                                   .sees_all = caller->is_admin || caller->tenant[0] == '\0'};
    struct codec_scratch scratch = {0};
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    err_t e = kv->codec->decode_kv_subscribe(payload, size_bytes, &scratch, &request.start_sequence_number);
    codec_scratch_free(&scratch);
    if (e.code != ERR_OK)
        return e;
    return vtable->kv_subscribe(door->service, &request, &kv->subscription);
}

void door_subscribe_kv(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    struct kv_call *kv = mem_alloc(sizeof *kv);
    err_t e = kv ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a subscriber");
    if (kv) {
        kv->codec = rpc_call_method_data(call);
        e = open_subscription(door, call, kv);
    }
    if (e.code != ERR_OK) {
        mem_free(kv);
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    door_item_start(&kv->item, door, call, pump_kv, 0, destroy_kv);
}
