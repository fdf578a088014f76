/* What happened to the prefix cache, kept for readers that the loop never waits for: the last events in a
 * ring, and the present in a table with a place for every KV block.
 *
 * One writer, the loop: takes no lock, allocates nothing, overwrites the oldest event. Any number of readers,
 * each with a position of its own, who find out when they were overtaken. Events become readable in batches.
 *
 * The present is read without stopping the writer: the table is copied while it changes, and the events of
 * that time, played over the copy, make it exact. The writer changes the table after it has let the events be
 * read, so that whatever a reader saw of a change is among them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "scheduler/prefix_observer.h"

struct kv_log;

enum {
    KV_LOG_EVENTS_MIN = 4096, /* in the ring: twice as many as blocks, within these */
    KV_LOG_EVENTS_MAX = 65536,
    KV_LOG_BATCH_EVENTS_MAX = 1024, /* a larger batch becomes several */
};

/* first_sequence_number > 0: of the empty cache; the first batch has the next one. */
err_t kv_log_create(uint32_t n_blocks, uint32_t block_tokens, uint64_t first_sequence_number,
                    struct kv_log **out) ERR_MUST_CHECK;
void kv_log_destroy(struct kv_log *log);
size_t kv_log_bytes(uint32_t n_blocks, uint32_t block_tokens);

/* ---- The writer ---- */

/* Writes what it is told into the log. */
struct prefix_observer kv_log_observer(struct kv_log *log);
/* The time of the events that follow. */
void kv_log_set_time(struct kv_log *log, int64_t unix_ns);
/* Ends the batch: true when there was one. */
bool kv_log_flush(struct kv_log *log);

/* ---- Readers: any thread ---- */

struct kv_log_event {
    uint64_t sequence_number; /* of its batch */
    bool is_stored;           /* else removed */
    int64_t unix_ns;
    struct prefix_block block; /* tokens: the caller's, where they are filled in */
};

/* Behind the last event that can be read: positions count events from 0. */
uint64_t kv_log_end(const struct kv_log *log);
/* The event at a position before the end; tokens [block_tokens] are filled when it is_stored. False when it
 * was overwritten. */
bool kv_log_read(const struct kv_log *log, uint64_t position, struct kv_log_event *out, uint32_t *tokens);
/* Where the events of batch `sequence_number`, or of the one after it, begin. False when neither is here any
 * more, or that batch is still to come. */
bool kv_log_find(const struct kv_log *log, uint64_t sequence_number, uint64_t *position);

/* The cache at the end of a batch. */
struct kv_snapshot {
    uint64_t sequence_number; /* of that batch */
    uint64_t position;        /* of the events after it */
    uint32_t block_tokens;
    size_t n_blocks;
    size_t stride;   /* words of a block */
    uint64_t *words; /* [n_blocks][stride], parents first; owned */
};
/* Blocks of one salt, or of all (salt NULL). RESOURCE_EXHAUSTED without memory, UNAVAILABLE when the writer
 * was faster time after time. */
err_t kv_log_snapshot(const struct kv_log *log, const uint64_t *salt, struct kv_snapshot *out) ERR_MUST_CHECK;
/* tokens: [block_tokens], filled. */
void kv_snapshot_block(const struct kv_snapshot *snapshot, size_t i, struct prefix_block *out,
                       uint32_t *tokens);
void kv_snapshot_free(struct kv_snapshot *snapshot); /* idempotent */
