/* What a service's prefix cache holds, block by block: for routers that send a request where its prefix is.
 * Names and meanings are those of vLLM's KV events.
 *
 * A block's hash is an opaque name: it is one block's alone while the service lives, nobody can compute it
 * from tokens, and the same prefix stored again later has another. What a block holds is in the event that
 * stores it: its tokens, and the hash of the block before. A router hashes those in its own way.
 *
 * Batches are numbered without gaps within a subscription. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kv_event_kind {
    KV_BLOCK_STORED,
    KV_BLOCK_REMOVED,
    KV_ALL_CLEARED, /* forget all blocks of this service */
};

struct kv_event {
    enum kv_event_kind kind;
    int64_t block_hash;
    bool has_parent; /* KV_BLOCK_STORED, as all that follows */
    int64_t parent_block_hash;
    const uint32_t *token_ids; /* [kv_event_batch.block_tokens] */
    const char *cache_salt;    /* whose blocks, where the subscriber sees more than its own; NULL = its own */
};

struct kv_event_batch {
    uint64_t sequence_number;
    int64_t unix_ns; /* when its events happened */
    uint32_t block_tokens;
    const struct kv_event *events; /* [n_events] */
    size_t n_events;
    /* One of the chunks that a subscription from the present begins with: KV_ALL_CLEARED, then every block,
     * parents first. Their numbers end at that of the state; what happens later is numbered from there. */
    bool is_snapshot;
    uint32_t snapshot_index, snapshot_count; /* chunks */
    uint64_t snapshot_blocks;                /* in all chunks */
};

struct kv_subscribe {
    const char *tenant;     /* as in struct request; NULL or "" = none */
    const char *cache_salt; /* likewise */
    bool sees_all;          /* blocks of every tenant, not of its own salt alone */
    /* 0 = a snapshot of the present, then what happens. Else all from this batch on: its number was seen last
     * (it may come once more) or is wanted first. */
    uint64_t start_sequence_number;
};

struct kv_subscription; /* one subscriber's; one thread at a time */
