/* Which full blocks hold which prefix, so that a later request with the same prefix uses them instead of
 * computing them again. Stands on the block pool and decides which free block is given away next.
 *
 * A block is found by a keyed 128-bit hash over (hash of the prefix before it, its tokens); the chain starts
 * from a hash of (salt, adapter). A hash only names candidates: one counts when its tokens, salt and adapter
 * are equal and its parent is the very entry found for the block before, so that equal hashes of different
 * prefixes can never make a hit. Entries are numbered by a serial that is never used twice; a parent is known
 * by its serial. When a parent is evicted its children cannot be found any more and are evicted in their
 * turn: chains are freed last block first, so that this is rare.
 *
 * The first block registered for a prefix stays its entry; later copies are not registered. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/hash.h"
#include "scheduler/block_pool.h"
#include "scheduler/prefix_observer.h"

enum { BLOCK_TOKENS_MAX = 256 };

/* Where a walk along a prefix stands: what lies before the next block. */
struct prefix_chain {
    struct hash128 hash;
    uint64_t salt;
    uint32_t adapter;
    uint32_t block;  /* entry of the block before; BLOCK_NONE at the start */
    uint64_t serial; /* its serial; 0 at the start */
};

struct prefix_entry { /* one per block; serial 0 = the block has no entry */
    struct hash128 hash;
    uint64_t serial, parent_serial;
    uint64_t salt;
    uint32_t adapter;
    uint32_t tenant;      /* index */
    uint32_t bucket_next; /* block, BLOCK_NONE = last */
};

/* A salt with at least one entry. */
struct prefix_tenant {
    uint64_t salt;
    uint32_t n_entries;     /* 0 = not in use */
    uint32_t bucket_next;   /* tenant in the same bucket, or the next unused one; BLOCK_NONE = last */
    struct block_list free; /* its free cached blocks, head = free for longest */
};

struct prefix_cache {
    struct block_pool *pool;
    bool enabled;
    uint32_t block_tokens;
    uint32_t tenant_free_blocks_max; /* 0 = no quota */
    uint64_t key[2];
    struct hash128 hash_mask; /* all ones; tests weaken the hash with it */
    struct prefix_observer observer;

    uint64_t last_serial;
    struct prefix_entry *entries; /* [n_blocks] */
    uint32_t *tokens;             /* [n_blocks][block_tokens] of each entry */
    uint32_t n_buckets;           /* power of two */
    uint32_t *buckets;            /* [n_buckets] block */
    struct block_links links;     /* of the tenants' free lists */
    struct prefix_tenant *tenants;
    uint32_t *tenant_buckets; /* [n_buckets] tenant */
    uint32_t unused_tenant;
};

/* With `enabled` false nothing but the pool is carved, and nothing is ever found or registered. */
void prefix_cache_carve(struct prefix_cache *cache, struct carver *carver, uint32_t n_blocks);
void prefix_cache_init(struct prefix_cache *cache);

struct prefix_chain prefix_cache_start(const struct prefix_cache *cache, uint64_t salt, uint32_t adapter);
/* The block that holds these tokens [block_tokens] after the chain, which then stands behind it; BLOCK_NONE
 * leaves the chain alone. Takes no ownership. */
uint32_t prefix_cache_find(const struct prefix_cache *cache, struct prefix_chain *chain,
                           const uint32_t *tokens);
/* Whether what is registered behind this chain can be found by a walk from the start. */
bool prefix_cache_is_live(const struct prefix_cache *cache, const struct prefix_chain *chain);
/* Makes `block` (in use, computed, full) the entry of these tokens after the chain, unless there is one; the
 * chain moves behind it. */
void prefix_cache_register(struct prefix_cache *cache, struct prefix_chain *chain, uint32_t block,
                           const uint32_t *tokens);

/* A block with one owner: a plain one, else the one free for longest, whose prefix is forgotten. The caller
 * knows that one is free. */
uint32_t prefix_cache_take_block(struct prefix_cache *cache);
/* One more owner of a block that prefix_cache_find gave. */
void prefix_cache_own_block(struct prefix_cache *cache, uint32_t block);
/* One owner less; a block that becomes free stays cached if it has an entry, within its tenant's quota. */
void prefix_cache_release_block(struct prefix_cache *cache, uint32_t block);
/* Forgets the entries of all free blocks. */
void prefix_cache_reset(struct prefix_cache *cache);

/* What a block is the entry of; false when of nothing. */
bool prefix_cache_entry(const struct prefix_cache *cache, uint32_t block, struct prefix_block *out);

/* The tenant of a salt, BLOCK_NONE when it has no entry. */
uint32_t prefix_cache_find_tenant(const struct prefix_cache *cache, uint64_t salt);
