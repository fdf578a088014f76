#include "engine/kv_hub.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/philox.h"

enum { NAME_PLACES = 2 * KV_SALT_NAMES_MAX };

struct salt_name {
    uint64_t salt; /* 0 = free */
    char name[KV_SALT_NAME_BYTES_MAX + 1];
};

struct kv_hub {
    struct kv_log *log;
    uint32_t block_tokens;
    uint64_t hash_key[2];   /* serials -> hashes of blocks */
    int64_t unix_offset_ns; /* wall clock - monotonic, at the start */
    _Atomic uint32_t n_subscribers;
    pthread_mutex_t mutex; /* of what follows */
    struct kv_subscription *subscriptions;
    uint32_t n_names;
    struct salt_name names[NAME_PLACES]; /* never taken back */
};

struct kv_subscription {
    struct kv_hub *hub;
    struct kv_subscription *next;
    uint64_t own_salt;
    bool sees_all;
    struct kv_snapshot snapshot; /* words NULL when it was sent, or not wanted */
    size_t next_block;           /* of it */
    uint32_t next_chunk;
    uint64_t position;        /* of the log's next event */
    uint64_t sequence_number; /* of the batch given out last */
    struct kv_event_batch batch;
    struct kv_event *events; /* [KV_LOG_BATCH_EVENTS_MAX] */
    uint32_t *tokens; /* [KV_LOG_BATCH_EVENTS_MAX + 1][block_tokens]: also of the event after a batch */
};

static int64_t unix_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sequences begin at the time in us: numbers of a server that was restarted, or of an earlier subscription,
 * are then never taken for this one's, since no loop makes a batch in a us. */
static uint64_t first_sequence_number(void)
{
    int64_t us = unix_now_ns() / 1000;
    return us > 0 ? (uint64_t)us : 1;
}

size_t kv_hub_bytes(uint32_t n_blocks, uint32_t block_tokens)
{
    return sizeof(struct kv_hub) + kv_log_bytes(n_blocks, block_tokens);
}

err_t kv_hub_create(uint32_t n_blocks, uint32_t block_tokens, int64_t monotonic_ns, struct kv_hub **out)
{
    struct kv_hub *hub = mem_alloc(sizeof *hub);
    if (!hub)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for KV events");
    err_t e = kv_log_create(n_blocks, block_tokens, first_sequence_number(), &hub->log);
    if (e.code != ERR_OK) {
        mem_free(hub);
        return e;
    }
    hub->block_tokens = block_tokens;
    hub->hash_key[0] = random_seed_u64();
    hub->hash_key[1] = random_seed_u64();
    hub->unix_offset_ns = unix_now_ns() - monotonic_ns;
    pthread_mutex_init(&hub->mutex, NULL);
    *out = hub;
    return e;
}

void kv_hub_destroy(struct kv_hub *hub)
{
    if (!hub)
        return;
    ASSERT(!hub->subscriptions);
    pthread_mutex_destroy(&hub->mutex);
    kv_log_destroy(hub->log);
    mem_free(hub);
}

struct prefix_observer kv_hub_observer(struct kv_hub *hub)
{
    return kv_log_observer(hub->log);
}

void kv_hub_set_time(struct kv_hub *hub, int64_t monotonic_ns)
{
    kv_log_set_time(hub->log, monotonic_ns + hub->unix_offset_ns);
}

bool kv_hub_flush(struct kv_hub *hub)
{
    return kv_log_flush(hub->log) && atomic_load(&hub->n_subscribers) > 0;
}

/* ---- names of salts ---- */

/* The salt's place, or the free one for it. Salts are keyed hashes already. */
static struct salt_name *name_place(struct kv_hub *hub, uint64_t salt)
{
    size_t i = salt % NAME_PLACES;
    while (hub->names[i].salt != 0 && hub->names[i].salt != salt)
        i = (i + 1) % NAME_PLACES;
    return &hub->names[i];
}

void kv_hub_name_salt(struct kv_hub *hub, uint64_t salt, const char *name)
{
    if (salt == 0)
        return;
    pthread_mutex_lock(&hub->mutex);
    struct salt_name *place = name_place(hub, salt);
    if (place->salt == 0 && hub->n_names < KV_SALT_NAMES_MAX) {
        hub->n_names++;
        place->salt = salt;
        (void)snprintf(place->name, sizeof place->name, "%s", name);
    }
    pthread_mutex_unlock(&hub->mutex);
}

static const char *salt_name_of(struct kv_hub *hub, uint64_t salt)
{
    pthread_mutex_lock(&hub->mutex);
    const struct salt_name *place = name_place(hub, salt);
    const char *name = place->salt == salt ? place->name : KV_OTHER_SALT;
    pthread_mutex_unlock(&hub->mutex);
    return name;
}

/* ---- coming and going ---- */

static err_t join(struct kv_hub *hub, struct kv_subscription *subscription)
{
    err_t e = err_ok();
    uint32_t n = 0, n_of_salt = 0;
    pthread_mutex_lock(&hub->mutex);
    for (const struct kv_subscription *other = hub->subscriptions; other; other = other->next) {
        n++;
        n_of_salt += !other->sees_all && other->own_salt == subscription->own_salt;
    }
    if (n >= KV_SUBSCRIPTIONS_MAX)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "KV events have %u subscribers and take no more", n);
    else if (!subscription->sees_all && n_of_salt >= KV_SUBSCRIPTIONS_OF_SALT_MAX)
        e = err_new(ERR_RESOURCE_EXHAUSTED,
                    "the KV events of this tenant have %u subscribers and take no more", n_of_salt);
    if (e.code == ERR_OK) {
        subscription->hub = hub;
        subscription->next = hub->subscriptions;
        hub->subscriptions = subscription;
        atomic_fetch_add(&hub->n_subscribers, 1);
    }
    pthread_mutex_unlock(&hub->mutex);
    return e;
}

static void leave(struct kv_hub *hub, struct kv_subscription *subscription)
{
    pthread_mutex_lock(&hub->mutex);
    struct kv_subscription **link = &hub->subscriptions;
    while (*link != subscription)
        link = &(*link)->next;
    *link = subscription->next;
    atomic_fetch_sub(&hub->n_subscribers, 1);
    pthread_mutex_unlock(&hub->mutex);
}

static err_t begin(struct kv_subscription *subscription, uint64_t start_sequence_number)
{
    struct kv_hub *hub = subscription->hub;
    if (start_sequence_number == 0) {
        const uint64_t *salt = subscription->sees_all ? NULL : &subscription->own_salt;
        TRY(kv_log_snapshot(hub->log, salt, &subscription->snapshot));
        subscription->position = subscription->snapshot.position;
        return err_ok();
    }
    if (subscription->sees_all && kv_log_find(hub->log, start_sequence_number, &subscription->position))
        return err_ok();
    return err_new(ERR_OUT_OF_RANGE,
                   "start_sequence_number %" PRIu64 " is not in the log of KV events%s; start with 0",
                   start_sequence_number, subscription->sees_all ? "" : ", which a tenant cannot go back in");
}

err_t kv_hub_subscribe(struct kv_hub *hub, uint64_t own_salt, bool sees_all, uint64_t start_sequence_number,
                       struct kv_subscription **out)
{
    struct kv_subscription *subscription = mem_alloc(sizeof *subscription);
    if (!subscription)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a subscriber");
    subscription->own_salt = own_salt;
    subscription->sees_all = sees_all;
    err_t e = join(hub, subscription);
    if (e.code != ERR_OK) {
        mem_free(subscription);
        return e;
    }
    subscription->events = mem_alloc_array(KV_LOG_BATCH_EVENTS_MAX, sizeof *subscription->events);
    subscription->tokens =
        mem_alloc_array(KV_LOG_BATCH_EVENTS_MAX + 1, hub->block_tokens * sizeof *subscription->tokens);
    if (!subscription->events || !subscription->tokens)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a subscriber");
    if (e.code == ERR_OK)
        e = begin(subscription, start_sequence_number);
    if (e.code != ERR_OK) {
        kv_subscription_close(subscription);
        return e;
    }
    *out = subscription;
    return e;
}

void kv_subscription_close(struct kv_subscription *subscription)
{
    leave(subscription->hub, subscription);
    kv_snapshot_free(&subscription->snapshot);
    mem_free(subscription->events);
    mem_free(subscription->tokens);
    mem_free(subscription);
}

/* ---- batches ---- */

static int64_t hash_of(const struct kv_hub *hub, uint64_t serial)
{
    return (int64_t)siphash128(hub->hash_key, &serial, sizeof serial).low;
}

/* Where the tokens of the next event go. */
static uint32_t *room_for_tokens(struct kv_subscription *subscription)
{
    return subscription->tokens + subscription->batch.n_events * subscription->hub->block_tokens;
}

/* Its tokens stand in their room. */
static void add_event(struct kv_subscription *subscription, const struct prefix_block *block, bool is_stored)
{
    struct kv_hub *hub = subscription->hub;
    ASSERT(subscription->batch.n_events < KV_LOG_BATCH_EVENTS_MAX);
    struct kv_event *event = &subscription->events[subscription->batch.n_events++];
    *event = (struct kv_event){
        .kind = is_stored ? KV_BLOCK_STORED : KV_BLOCK_REMOVED,
        .block_hash = hash_of(hub, block->serial),
    };
    if (!is_stored)
        return;
    event->token_ids = block->tokens;
    event->has_parent = block->parent_serial != 0;
    if (event->has_parent)
        event->parent_block_hash = hash_of(hub, block->parent_serial);
    if (block->salt != subscription->own_salt)
        event->cache_salt = salt_name_of(hub, block->salt);
}

static void open_batch(struct kv_subscription *subscription)
{
    subscription->batch = (struct kv_event_batch){
        .block_tokens = subscription->hub->block_tokens,
        .events = subscription->events,
    };
}

static uint32_t chunks_of(const struct kv_snapshot *snapshot)
{
    return (uint32_t)(snapshot->n_blocks / KV_LOG_BATCH_EVENTS_MAX + 1); /* one event says: forget all */
}

/* The numbers of a snapshot's chunks end at that of its state. */
static void number_chunk(struct kv_subscription *subscription, uint32_t count)
{
    if (subscription->next_chunk > 0)
        subscription->sequence_number++;
    else if (subscription->sees_all)
        subscription->sequence_number = subscription->snapshot.sequence_number - count + 1;
    else
        subscription->sequence_number = first_sequence_number();
}

static void next_chunk(struct kv_subscription *subscription)
{
    struct kv_snapshot *snapshot = &subscription->snapshot;
    struct kv_event_batch *batch = &subscription->batch;
    uint32_t count = chunks_of(snapshot);
    open_batch(subscription);
    number_chunk(subscription, count);
    batch->sequence_number = subscription->sequence_number;
    batch->unix_ns = unix_now_ns();
    batch->is_snapshot = true;
    batch->snapshot_index = subscription->next_chunk++;
    batch->snapshot_count = count;
    batch->snapshot_blocks = snapshot->n_blocks;
    if (batch->snapshot_index == 0)
        subscription->events[batch->n_events++] = (struct kv_event){.kind = KV_ALL_CLEARED};
    while (subscription->next_block < snapshot->n_blocks && batch->n_events < KV_LOG_BATCH_EVENTS_MAX) {
        struct prefix_block block;
        kv_snapshot_block(snapshot, subscription->next_block++, &block, room_for_tokens(subscription));
        add_event(subscription, &block, true);
    }
    if (subscription->next_chunk == count)
        kv_snapshot_free(snapshot);
}

/* What the log's next batch with something for this reader holds; no events when there is none yet. */
static err_t next_events(struct kv_subscription *subscription)
{
    const struct kv_hub *hub = subscription->hub;
    struct kv_event_batch *batch = &subscription->batch;
    uint64_t end = kv_log_end(hub->log), log_sequence = 0;
    open_batch(subscription);
    for (; subscription->position < end; subscription->position++) {
        struct kv_log_event event;
        if (!kv_log_read(hub->log, subscription->position, &event, room_for_tokens(subscription)))
            return err_new(ERR_DATA_LOSS,
                           "the subscriber fell behind the log of KV events; subscribe again from 0");
        if (!subscription->sees_all && event.block.salt != subscription->own_salt)
            continue;
        if (batch->n_events > 0 && event.sequence_number != log_sequence)
            break;
        log_sequence = event.sequence_number;
        batch->unix_ns = event.unix_ns;
        add_event(subscription, &event.block, event.is_stored);
    }
    if (batch->n_events > 0)
        subscription->sequence_number =
            subscription->sees_all ? log_sequence : subscription->sequence_number + 1;
    batch->sequence_number = subscription->sequence_number;
    return err_ok();
}

err_t kv_subscription_next(struct kv_subscription *subscription, const struct kv_event_batch **out)
{
    *out = NULL;
    if (subscription->snapshot.words)
        next_chunk(subscription);
    else
        TRY(next_events(subscription));
    if (subscription->batch.n_events > 0)
        *out = &subscription->batch;
    return err_ok();
}
