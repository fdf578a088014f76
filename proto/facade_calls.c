/* What only vllm.grpc.engine has: its health check, the tokenizer's files, and what is refused by name. */
#include "base/alloc.h"
#include "proto/codec_protobuf.h"
#include "proto/grpc_door_internal.h"

#define IDLE_INTERVAL_NS                                                                                     \
    INT64_C(1000000000) /* sends move a stream on; the flusher looks for the door's end only */

enum { TOKENIZER_CHUNK_BYTES = 64 << 10 };

void door_unimplemented(void *context, struct rpc_call *call)
{
    (void)context;
    err_t e = err_new(ERR_UNIMPLEMENTED, "%s", (const char *)rpc_call_method_data(call));
    rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
}

/* The bytes of a request whose fields do not matter. */
static err_t check_payload(struct rpc_call *call)
{
    struct codec_scratch scratch = {0};
    size_t size_bytes;
    const uint8_t *payload = rpc_call_payload(call, &size_bytes);
    return protobuf_decode_empty(payload, size_bytes, &scratch);
}

void door_health_answer(void *context, struct rpc_call *call)
{
    const char *why;
    err_t e = check_payload(call);
    bool healthy = door_is_serving(context, &why);
    door_answer(call, &e, protobuf_encode_health(healthy, why));
}

struct tokenizer_call {
    struct door_item item;
    const struct tokenizer_archive *archive;
    size_t sent_bytes;
};

static enum pump_result pump_tokenizer(struct flush_item *flush)
{
    struct tokenizer_call *tokenizer = (struct tokenizer_call *)flush;
    const struct tokenizer_archive *archive = tokenizer->archive;
    struct rpc_call *call = tokenizer->item.call;
    if (rpc_call_ended(call))
        return PUMP_DONE;
    err_t e = err_ok();
    if (atomic_load(&tokenizer->item.door->closing))
        e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
    size_t left_bytes = archive->size_bytes - tokenizer->sent_bytes;
    bool last = left_bytes <= TOKENIZER_CHUNK_BYTES;
    size_t size_bytes = last ? left_bytes : TOKENIZER_CHUNK_BYTES;
    struct codec_bytes bytes = protobuf_encode_tokenizer_chunk(archive->data + tokenizer->sent_bytes,
                                                               size_bytes, last ? archive->sha256 : NULL);
    if (last || e.code != ERR_OK || !bytes.data) {
        door_answer(call, &e, bytes);
        return PUMP_DONE;
    }
    tokenizer->sent_bytes += size_bytes;
    rpc_call_send(call, bytes.data, bytes.size);
    return PUMP_SENDING;
}

static void destroy_tokenizer(struct door_item *item)
{
    tokenizer_archive_release(&item->door->tokenizer);
    mem_free(item);
}

void door_get_tokenizer(void *context, struct rpc_call *call)
{
    struct grpc_door *door = context;
    const struct model_info *model = door->service->vtable->model_info(door->service);
    struct tokenizer_call *tokenizer = mem_alloc(sizeof *tokenizer);
    err_t e = check_payload(call);
    if (e.code == ERR_OK && !tokenizer)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a stream");
    if (e.code == ERR_OK)
        e = tokenizer_archive_acquire(&door->tokenizer, model->has_tokenizer ? model->model_path : NULL,
                                      &tokenizer->archive);
    if (e.code != ERR_OK) {
        mem_free(tokenizer);
        rpc_call_refuse(call, &e, RPC_NO_PUSHBACK);
        return;
    }
    door_item_start(&tokenizer->item, door, call, pump_tokenizer, IDLE_INTERVAL_NS, destroy_tokenizer);
}
