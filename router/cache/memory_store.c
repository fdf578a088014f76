#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/cache/response_store.h"

enum { FIRST_BUCKETS = 256 };

struct entry {
    struct entry *next_in_bucket;
    struct entry *newer, *older; /* by when it was asked for */
    struct response_key key;
    int64_t ends_ns;
    size_t size;
    char bytes[];
};

struct memory_store {
    struct response_store base;
    struct memory_store_options options;
    pthread_mutex_t lock;   /* of what follows */
    struct entry **buckets; /* [n_buckets], a power of 2 */
    size_t n_buckets;
    struct entry *newest, *oldest;
    struct memory_store_view view;
};

static size_t cost_of(size_t size)
{
    return sizeof(struct entry) + size;
}

/* A key is a hash already. */
static size_t bucket_of(const struct memory_store *store, const struct response_key *key)
{
    uint64_t word;
    memcpy(&word, key->bytes, sizeof word);
    return (size_t)word & (store->n_buckets - 1);
}

static struct entry **place_of(struct memory_store *store, const struct response_key *key)
{
    struct entry **place = &store->buckets[bucket_of(store, key)];
    while (*place && memcmp(&(*place)->key, key, sizeof *key) != 0)
        place = &(*place)->next_in_bucket;
    return place;
}

static void take_out_of_order(struct memory_store *store, struct entry *entry)
{
    *(entry->newer ? &entry->newer->older : &store->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &store->oldest) = entry->newer;
}

static void make_newest(struct memory_store *store, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = store->newest;
    *(store->newest ? &store->newest->newer : &store->oldest) = entry;
    store->newest = entry;
}

static void drop(struct memory_store *store, struct entry **place)
{
    struct entry *entry = *place;
    *place = entry->next_in_bucket;
    take_out_of_order(store, entry);
    store->view.n_entries--;
    store->view.n_bytes -= cost_of(entry->size);
    mem_free(entry);
}

static err_t get(struct response_store *base, const struct response_key *key, struct buffer *out, bool *found)
{
    struct memory_store *store = (struct memory_store *)base;
    err_t e = err_ok();
    *found = false;
    pthread_mutex_lock(&store->lock);
    struct entry **place = place_of(store, key), *entry = *place;
    if (entry && clock_now_ns(store->options.clock) >= entry->ends_ns) {
        drop(store, place);
        store->view.n_expired++;
    } else if (entry) {
        take_out_of_order(store, entry);
        make_newest(store, entry);
        *found = buffer_append(out, entry->bytes, entry->size);
        if (!*found)
            e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer of %zu bytes out of the cache",
                        entry->size);
    }
    pthread_mutex_unlock(&store->lock);
    return e;
}

/* Twice the buckets; without memory for them the chains only get longer. */
static void grow(struct memory_store *store)
{
    size_t n = store->n_buckets;
    struct entry **old = store->buckets, **buckets = mem_alloc_array(n * 2, sizeof *buckets);
    if (buckets == NULL)
        return;
    store->buckets = buckets;
    store->n_buckets = n * 2;
    for (size_t i = 0; i < n; i++) {
        for (struct entry *entry = old[i], *next; entry; entry = next) {
            next = entry->next_in_bucket;
            struct entry **place = &buckets[bucket_of(store, &entry->key)];
            entry->next_in_bucket = *place;
            *place = entry;
        }
    }
    mem_free(old);
}

static void insert(struct memory_store *store, struct entry *entry)
{
    struct entry **place = place_of(store, &entry->key);
    if (*place)
        drop(store, place);
    while (store->oldest && store->view.n_bytes + cost_of(entry->size) > store->options.max_bytes) {
        drop(store, place_of(store, &store->oldest->key));
        store->view.n_evicted++;
    }
    if (store->view.n_entries >= store->n_buckets)
        grow(store);
    place = &store->buckets[bucket_of(store, &entry->key)];
    entry->next_in_bucket = *place;
    *place = entry;
    make_newest(store, entry);
    store->view.n_entries++;
    store->view.n_bytes += cost_of(entry->size);
}

static err_t put(struct response_store *base, const struct response_key *key, const char *bytes, size_t size,
                 int64_t ttl_ns)
{
    struct memory_store *store = (struct memory_store *)base;
    if (size > store->options.max_entry_bytes || cost_of(size) > store->options.max_bytes || ttl_ns <= 0)
        return err_ok();
    struct entry *entry = mem_alloc(cost_of(size));
    if (entry == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to keep an answer of %zu bytes", size);
    entry->key = *key;
    entry->size = size;
    memcpy(entry->bytes, bytes, size);
    if (__builtin_add_overflow(clock_now_ns(store->options.clock), ttl_ns, &entry->ends_ns))
        entry->ends_ns = INT64_MAX;
    pthread_mutex_lock(&store->lock);
    insert(store, entry);
    pthread_mutex_unlock(&store->lock);
    return err_ok();
}

static err_t clear(struct response_store *base)
{
    struct memory_store *store = (struct memory_store *)base;
    pthread_mutex_lock(&store->lock);
    while (store->oldest)
        drop(store, place_of(store, &store->oldest->key));
    pthread_mutex_unlock(&store->lock);
    return err_ok();
}

static void close_store(struct response_store *base)
{
    struct memory_store *store = (struct memory_store *)base;
    err_t e = clear(base);
    ASSERT(e.code == ERR_OK);
    pthread_mutex_destroy(&store->lock);
    mem_free(store->buckets);
    mem_free(store);
}

static const struct response_store_vtable VTABLE = {get, put, clear, close_store, .is_outside = false};

err_t memory_store_open(const struct memory_store_options *options, struct response_store **out)
{
    struct memory_store *store = mem_alloc(sizeof *store);
    if (store)
        store->buckets = mem_alloc_array(FIRST_BUCKETS, sizeof *store->buckets);
    if (store == NULL || store->buckets == NULL) {
        mem_free(store);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache of answers");
    }
    store->base.vtable = &VTABLE;
    store->options = *options;
    store->n_buckets = FIRST_BUCKETS;
    ASSERT(pthread_mutex_init(&store->lock, NULL) == 0);
    *out = &store->base;
    return err_ok();
}

struct memory_store_view memory_store_look(struct response_store *base)
{
    ASSERT(base->vtable == &VTABLE);
    struct memory_store *store = (struct memory_store *)base;
    pthread_mutex_lock(&store->lock);
    struct memory_store_view view = store->view;
    pthread_mutex_unlock(&store->lock);
    return view;
}
