#include "scheduler/prefix_cache.h"

#include <string.h>
#include "base/assert.h"

void prefix_cache_carve(struct prefix_cache *cache, struct carver *carver, uint32_t n_blocks)
{
    if (!cache->enabled)
        return;
    cache->n_buckets = 1;
    while (cache->n_buckets < n_blocks)
        cache->n_buckets *= 2;
    cache->entries = carve(carver, n_blocks, sizeof *cache->entries);
    cache->tokens = carve(carver, n_blocks, cache->block_tokens * sizeof *cache->tokens);
    cache->buckets = carve(carver, cache->n_buckets, sizeof *cache->buckets);
    cache->links.prev = carve(carver, n_blocks, sizeof *cache->links.prev);
    cache->links.next = carve(carver, n_blocks, sizeof *cache->links.next);
    cache->tenants = carve(carver, n_blocks, sizeof *cache->tenants);
    cache->tenant_buckets = carve(carver, cache->n_buckets, sizeof *cache->tenant_buckets);
}

void prefix_cache_init(struct prefix_cache *cache)
{
    if (!cache->enabled)
        return;
    uint32_t n_blocks = cache->pool->n_blocks;
    for (uint32_t i = 0; i < cache->n_buckets; i++) {
        cache->buckets[i] = BLOCK_NONE;
        cache->tenant_buckets[i] = BLOCK_NONE;
    }
    for (uint32_t i = 0; i < n_blocks; i++) {
        cache->tenants[i].bucket_next = i + 1 < n_blocks ? i + 1 : BLOCK_NONE;
        block_list_clear(&cache->tenants[i].free);
    }
    cache->unused_tenant = 0;
}

static struct hash128 hash_masked(const struct prefix_cache *cache, const void *data, size_t size_bytes)
{
    struct hash128 hash = siphash128(cache->key, data, size_bytes);
    hash.low &= cache->hash_mask.low;
    hash.high &= cache->hash_mask.high;
    return hash;
}

struct prefix_chain prefix_cache_start(const struct prefix_cache *cache, uint64_t salt, uint32_t adapter)
{
    struct prefix_chain chain = {.salt = salt, .adapter = adapter, .block = BLOCK_NONE, .serial = 0};
    if (!cache->enabled)
        return chain;
    /* 12 bytes: no block's input (16 bytes of parent and at least one token) is as short. */
    uint32_t words[3] = {(uint32_t)salt, (uint32_t)(salt >> 32), adapter};
    chain.hash = hash_masked(cache, words, sizeof words);
    return chain;
}

static struct hash128 hash_block(const struct prefix_cache *cache, const struct prefix_chain *chain,
                                 const uint32_t *tokens)
{
    struct {
        struct hash128 parent;
        uint32_t tokens[BLOCK_TOKENS_MAX];
    } input;
    size_t tokens_bytes = cache->block_tokens * sizeof *tokens;
    input.parent = chain->hash;
    memcpy(input.tokens, tokens, tokens_bytes);
    return hash_masked(cache, &input, sizeof input.parent + tokens_bytes);
}

static uint32_t *bucket_of(const struct prefix_cache *cache, struct hash128 hash)
{
    return &cache->buckets[hash.low & (cache->n_buckets - 1)];
}

static uint32_t entry_find(const struct prefix_cache *cache, const struct prefix_chain *chain,
                           struct hash128 hash, const uint32_t *tokens)
{
    size_t tokens_bytes = cache->block_tokens * sizeof *tokens;
    for (uint32_t block = *bucket_of(cache, hash); block != BLOCK_NONE;
         block = cache->entries[block].bucket_next) {
        const struct prefix_entry *entry = &cache->entries[block];
        if (hash128_equal(entry->hash, hash) && entry->parent_serial == chain->serial &&
            entry->salt == chain->salt && entry->adapter == chain->adapter &&
            memcmp(&cache->tokens[(size_t)block * cache->block_tokens], tokens, tokens_bytes) == 0)
            return block;
    }
    return BLOCK_NONE;
}

static void chain_step(const struct prefix_cache *cache, struct prefix_chain *chain, struct hash128 hash,
                       uint32_t block)
{
    chain->hash = hash;
    chain->block = block;
    chain->serial = cache->entries[block].serial;
}

uint32_t prefix_cache_find(const struct prefix_cache *cache, struct prefix_chain *chain,
                           const uint32_t *tokens)
{
    if (!cache->enabled)
        return BLOCK_NONE;
    struct hash128 hash = hash_block(cache, chain, tokens);
    uint32_t block = entry_find(cache, chain, hash, tokens);
    if (block != BLOCK_NONE)
        chain_step(cache, chain, hash, block);
    return block;
}

bool prefix_cache_is_live(const struct prefix_cache *cache, const struct prefix_chain *chain)
{
    return chain->block == BLOCK_NONE || cache->entries[chain->block].serial == chain->serial;
}

static uint32_t *tenant_bucket_of(const struct prefix_cache *cache, uint64_t salt)
{
    struct hash128 hash = siphash128(cache->key, &salt, sizeof salt);
    return &cache->tenant_buckets[hash.low & (cache->n_buckets - 1)];
}

static uint32_t tenant_in_bucket(const struct prefix_cache *cache, uint32_t first, uint64_t salt)
{
    uint32_t tenant = first;
    while (tenant != BLOCK_NONE && cache->tenants[tenant].salt != salt)
        tenant = cache->tenants[tenant].bucket_next;
    return tenant;
}

uint32_t prefix_cache_find_tenant(const struct prefix_cache *cache, uint64_t salt)
{
    return tenant_in_bucket(cache, *tenant_bucket_of(cache, salt), salt);
}

static uint32_t tenant_get(struct prefix_cache *cache, uint64_t salt)
{
    uint32_t *bucket = tenant_bucket_of(cache, salt);
    uint32_t tenant = tenant_in_bucket(cache, *bucket, salt);
    if (tenant == BLOCK_NONE) {
        tenant = cache->unused_tenant;
        ASSERT(tenant != BLOCK_NONE); /* each tenant has an entry, and there is one entry a block */
        cache->unused_tenant = cache->tenants[tenant].bucket_next;
        cache->tenants[tenant].salt = salt;
        cache->tenants[tenant].bucket_next = *bucket;
        *bucket = tenant;
    }
    return tenant;
}

static void tenant_put(struct prefix_cache *cache, uint32_t tenant)
{
    uint32_t *link = tenant_bucket_of(cache, cache->tenants[tenant].salt);
    while (*link != tenant)
        link = &cache->tenants[*link].bucket_next;
    *link = cache->tenants[tenant].bucket_next;
    cache->tenants[tenant].bucket_next = cache->unused_tenant;
    cache->unused_tenant = tenant;
}

bool prefix_cache_entry(const struct prefix_cache *cache, uint32_t block, struct prefix_block *out)
{
    const struct prefix_entry *entry = &cache->entries[block];
    *out = (struct prefix_block){
        .block = block,
        .adapter = entry->adapter,
        .serial = entry->serial,
        .parent_serial = entry->parent_serial,
        .salt = entry->salt,
        .tokens = &cache->tokens[(size_t)block * cache->block_tokens],
    };
    return entry->serial != 0;
}

static void tell(const struct prefix_cache *cache,
                 void (*told)(void *context, const struct prefix_block *block), uint32_t block)
{
    struct prefix_block entry;
    if (told && prefix_cache_entry(cache, block, &entry))
        told(cache->observer.context, &entry);
}

static void forget(struct prefix_cache *cache, uint32_t block)
{
    tell(cache, cache->observer.removed, block);
    struct prefix_entry *entry = &cache->entries[block];
    struct prefix_tenant *tenant = &cache->tenants[entry->tenant];
    ASSERT(entry->serial != 0);
    uint32_t *link = bucket_of(cache, entry->hash);
    while (*link != block)
        link = &cache->entries[*link].bucket_next;
    *link = entry->bucket_next;
    if (cache->pool->n_owners[block] == 0)
        block_list_remove(&tenant->free, &cache->links, block);
    if (--tenant->n_entries == 0)
        tenant_put(cache, entry->tenant);
    entry->serial = 0;
    block_pool_set_cached(cache->pool, block, false);
}

void prefix_cache_register(struct prefix_cache *cache, struct prefix_chain *chain, uint32_t block,
                           const uint32_t *tokens)
{
    ASSERT(cache->enabled && cache->pool->n_owners[block] > 0);
    struct hash128 hash = hash_block(cache, chain, tokens);
    uint32_t found = entry_find(cache, chain, hash, tokens);
    if (found == BLOCK_NONE) {
        struct prefix_entry *entry = &cache->entries[block];
        /* The block may still stand under a parent that was evicted since. */
        if (entry->serial != 0)
            forget(cache, block);
        uint32_t tenant = tenant_get(cache, chain->salt);
        cache->tenants[tenant].n_entries++;
        uint32_t *bucket = bucket_of(cache, hash);
        *entry = (struct prefix_entry){
            .hash = hash,
            .serial = ++cache->last_serial,
            .parent_serial = chain->serial,
            .salt = chain->salt,
            .adapter = chain->adapter,
            .tenant = tenant,
            .bucket_next = *bucket,
        };
        *bucket = block;
        memcpy(&cache->tokens[(size_t)block * cache->block_tokens], tokens,
               cache->block_tokens * sizeof *tokens);
        block_pool_set_cached(cache->pool, block, true);
        tell(cache, cache->observer.stored, block);
        found = block;
    }
    chain_step(cache, chain, hash, found);
}

uint32_t prefix_cache_take_block(struct prefix_cache *cache)
{
    struct block_pool *pool = cache->pool;
    if (pool->plain.n == 0) {
        ASSERT(pool->cached.n > 0);
        forget(cache, pool->cached.head);
    }
    return block_pool_take_plain(pool);
}

void prefix_cache_own_block(struct prefix_cache *cache, uint32_t block)
{
    if (cache->pool->n_owners[block] == 0)
        block_list_remove(&cache->tenants[cache->entries[block].tenant].free, &cache->links, block);
    block_pool_own(cache->pool, block);
}

void prefix_cache_release_block(struct prefix_cache *cache, uint32_t block)
{
    if (!block_pool_disown(cache->pool, block) || !cache->pool->is_cached[block])
        return;
    struct prefix_tenant *tenant = &cache->tenants[cache->entries[block].tenant];
    block_list_push_tail(&tenant->free, &cache->links, block);
    if (cache->tenant_free_blocks_max > 0 && tenant->free.n > cache->tenant_free_blocks_max)
        forget(cache, tenant->free.head);
}

void prefix_cache_reset(struct prefix_cache *cache)
{
    while (cache->pool->cached.n > 0)
        forget(cache, cache->pool->cached.head);
}
