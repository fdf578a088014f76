/* The client's half of the codec: KV events. */
#include "proto/codec_internal.h"

namespace
{

/* What a message's lists have in all; DATA_LOSS for what no server sends. */
err_t check_event(const bantam::KvCacheEvent *event, struct kv_event_batch *out)
{
    const bantam::KvBlocksStored *stored = event->stored();
    const bantam::KvBlocksRemoved *removed = event->removed();
    if ((stored != nullptr) + (removed != nullptr) + (event->cleared() != nullptr) != 1)
        return err_new(ERR_DATA_LOSS, "a KV event must be one of stored, removed and cleared");
    out->n_events += event->cleared() != nullptr;
    out->n_events += removed && removed->block_hashes() ? removed->block_hashes()->size() : 0;
    if (!stored || !stored->blocks())
        return err_ok();
    for (const bantam::KvBlock *block : *stored->blocks()) {
        uint32_t n_tokens = block->token_ids() ? block->token_ids()->size() : 0;
        if (out->block_tokens == 0)
            out->block_tokens = n_tokens;
        if (n_tokens == 0 || n_tokens != out->block_tokens || block->block_size() != (int64_t)n_tokens)
            return err_new(ERR_DATA_LOSS, "a KV block has %u token ids of %d", n_tokens, block->block_size());
        out->n_events++;
    }
    return err_ok();
}

void decode_stored(const bantam::KvBlocksStored *stored, struct kv_event **next)
{
    bool has_parent = stored->parent_block_hash().has_value();
    int64_t parent = has_parent ? *stored->parent_block_hash() : 0;
    const char *salt = stored->cache_salt() ? stored->cache_salt()->c_str() : nullptr;
    if (!stored->blocks())
        return;
    for (const bantam::KvBlock *block : *stored->blocks()) {
        struct kv_event *out = (*next)++;
        size_t n_tokens;
        out->kind = KV_BLOCK_STORED;
        out->block_hash = block->block_hash();
        out->has_parent = has_parent;
        out->parent_block_hash = parent;
        out->cache_salt = salt;
        codec_ids(block->token_ids(), &out->token_ids, &n_tokens);
        has_parent = true;
        parent = block->block_hash();
    }
}

void decode_event(const bantam::KvCacheEvent *event, struct kv_event **next)
{
    if (event->stored())
        decode_stored(event->stored(), next);
    if (event->cleared())
        (*next)++->kind = KV_ALL_CLEARED;
    if (!event->removed() || !event->removed()->block_hashes())
        return;
    for (int64_t hash : *event->removed()->block_hashes()) {
        struct kv_event *out = (*next)++;
        out->kind = KV_BLOCK_REMOVED;
        out->block_hash = hash;
    }
}

} // namespace

struct codec_bytes codec_encode_kv_subscribe(uint64_t start_sequence_number)
{
    builder_t &builder = codec_builder();
    return codec_finish(builder, bantam::CreateSubscribeKvEventsRequest(builder, start_sequence_number));
}

err_t codec_decode_kv_events(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                             struct kv_event_batch *out)
{
    *out = {};
    const bantam::KvEventBatch *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "KvEventBatch", scratch, &root));
    out->sequence_number = root->sequence_number();
    double unix_ns = root->timestamp() * 1e9;
    out->unix_ns = unix_ns > 0 && unix_ns < 9e18 ? static_cast<int64_t>(unix_ns) : 0;
    if (root->snapshot()) {
        out->is_snapshot = true;
        out->snapshot_index = root->snapshot()->index();
        out->snapshot_count = root->snapshot()->count();
        out->snapshot_blocks = root->snapshot()->blocks();
    }
    if (!root->events())
        return err_ok();
    for (const bantam::KvCacheEvent *event : *root->events()) {
        TRY(check_event(event, out));
        if (out->n_events > CODEC_KV_EVENTS_MAX)
            return err_new(ERR_DATA_LOSS, "more than %d KV events in a batch", CODEC_KV_EVENTS_MAX);
    }
    if (out->n_events == 0)
        return err_ok();
    TRY(codec_arrays(scratch, out->n_events * sizeof(struct kv_event)));
    struct kv_event *next = static_cast<struct kv_event *>(scratch->arrays);
    out->events = next;
    for (const bantam::KvCacheEvent *event : *root->events())
        decode_event(event, &next);
    return err_ok();
}
