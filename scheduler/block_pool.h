/* The blocks of the KV store by number: how many own each one, and which are free. Every call is O(1).
 *
 * A free block is either plain (nothing worth keeping) or cached (its content may be found again through the
 * prefix cache). Plain ones are handed out first; the cached ones wait in the order in which they became
 * free, the oldest first to be evicted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "scheduler/carve.h"

#define BLOCK_NONE UINT32_MAX

/* Doubly linked, by block number, through a pair of link arrays: a block is in one list of a pair at most. */
struct block_links {
    uint32_t *prev, *next; /* [n_blocks] */
};
struct block_list {
    uint32_t head, tail; /* BLOCK_NONE when empty */
    uint32_t n;
};

void block_list_clear(struct block_list *list);
void block_list_push_head(struct block_list *list, const struct block_links *links, uint32_t block);
void block_list_push_tail(struct block_list *list, const struct block_links *links, uint32_t block);
void block_list_remove(struct block_list *list, const struct block_links *links, uint32_t block);

struct block_pool {
    uint32_t n_blocks;
    uint32_t *n_owners; /* [n_blocks] */
    bool *is_cached;    /* [n_blocks] holds a registered prefix, owned or not */
    struct block_links links;
    struct block_list plain, cached; /* the free blocks; cached: head = free for longest */
};

void block_pool_carve(struct block_pool *pool, struct carver *carver, uint32_t n_blocks);
/* All blocks free and plain; the first ones taken are 0, 1, 2, ... */
void block_pool_init(struct block_pool *pool);

static inline uint32_t block_pool_n_free(const struct block_pool *pool)
{
    return pool->plain.n + pool->cached.n;
}

/* A plain free block, now with one owner; BLOCK_NONE when there is none. */
uint32_t block_pool_take_plain(struct block_pool *pool);
/* One more owner: of a block in use, or of a free cached one, which leaves its list. */
void block_pool_own(struct block_pool *pool, uint32_t block);
/* One owner less. True when the block became free by it. */
bool block_pool_disown(struct block_pool *pool, uint32_t block);
/* Marks a block as cached or plain; a free one changes lists (to plain only: nothing enters the cache while
 * it is free). */
void block_pool_set_cached(struct block_pool *pool, uint32_t block, bool is_cached);
