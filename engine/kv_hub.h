/* The log of KV events and its subscribers, as api/service.h hands them out: snapshots cut into chunks,
 * events gathered into batches, other tenants' blocks left out.
 *
 * Who sees all blocks gets the log's own batches under the log's own numbers and may go on from one of them.
 * Who sees one salt's gets batches numbered from the moment of the subscription, because the log's numbers
 * would tell how much others do; such a reader begins with a snapshot each time.
 *
 * The loop writes the log; everything else is for any thread, one at a time for a subscription. */
#pragma once

#include "api/kv_events.h"
#include "engine/kv_log.h"

struct kv_hub;

enum {
    KV_SUBSCRIPTIONS_MAX = 32,        /* of a server */
    KV_SUBSCRIPTIONS_OF_SALT_MAX = 8, /* of them, those that see the same salt alone */
    KV_SALT_NAMES_MAX = 1024,         /* salts with a name; blocks of others are told as KV_OTHER_SALT's */
    KV_SALT_NAME_BYTES_MAX = 159,     /* a tenant's name, and a salt of its own choice */
};
#define KV_OTHER_SALT "other"

/* monotonic_ns: now, on the clock of kv_log_set_time's callers. */
err_t kv_hub_create(uint32_t n_blocks, uint32_t block_tokens, int64_t monotonic_ns,
                    struct kv_hub **out) ERR_MUST_CHECK;
/* Every subscription must have been closed. NULL is fine. */
void kv_hub_destroy(struct kv_hub *hub);
size_t kv_hub_bytes(uint32_t n_blocks, uint32_t block_tokens);

/* The loop's. */
struct prefix_observer kv_hub_observer(struct kv_hub *hub);
void kv_hub_set_time(struct kv_hub *hub, int64_t monotonic_ns);
/* Ends a batch; true when a subscriber has something to read. */
bool kv_hub_flush(struct kv_hub *hub);

/* name: what subscribers of all blocks are told for blocks of this salt. */
void kv_hub_name_salt(struct kv_hub *hub, uint64_t salt, const char *name);

/* own_salt: of the subscriber's requests. OUT_OF_RANGE: the log does not reach back to start_sequence_number,
 * or has not come to it: start with 0. RESOURCE_EXHAUSTED: too many subscriptions, or no memory. */
err_t kv_hub_subscribe(struct kv_hub *hub, uint64_t own_salt, bool sees_all, uint64_t start_sequence_number,
                       struct kv_subscription **out) ERR_MUST_CHECK;
/* *out NULL: nothing now; else valid until the next call. DATA_LOSS: read too slowly, events were
 * overwritten: subscribe again from 0. */
err_t kv_subscription_next(struct kv_subscription *subscription,
                           const struct kv_event_batch **out) ERR_MUST_CHECK;
void kv_subscription_close(struct kv_subscription *subscription);
