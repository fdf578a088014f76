#include "scheduler/block_pool.h"

#include "base/assert.h"

void block_list_clear(struct block_list *list)
{
    *list = (struct block_list){BLOCK_NONE, BLOCK_NONE, 0};
}

void block_list_push_head(struct block_list *list, const struct block_links *links, uint32_t block)
{
    links->prev[block] = BLOCK_NONE;
    links->next[block] = list->head;
    if (list->head == BLOCK_NONE)
        list->tail = block;
    else
        links->prev[list->head] = block;
    list->head = block;
    list->n++;
}

void block_list_push_tail(struct block_list *list, const struct block_links *links, uint32_t block)
{
    links->prev[block] = list->tail;
    links->next[block] = BLOCK_NONE;
    if (list->tail == BLOCK_NONE)
        list->head = block;
    else
        links->next[list->tail] = block;
    list->tail = block;
    list->n++;
}

void block_list_remove(struct block_list *list, const struct block_links *links, uint32_t block)
{
    uint32_t prev = links->prev[block], next = links->next[block];
    ASSERT(list->n > 0);
    if (prev == BLOCK_NONE)
        list->head = next;
    else
        links->next[prev] = next;
    if (next == BLOCK_NONE)
        list->tail = prev;
    else
        links->prev[next] = prev;
    list->n--;
}

void block_pool_carve(struct block_pool *pool, struct carver *carver, uint32_t n_blocks)
{
    pool->n_blocks = n_blocks;
    pool->n_owners = carve(carver, n_blocks, sizeof *pool->n_owners);
    pool->is_cached = carve(carver, n_blocks, sizeof *pool->is_cached);
    pool->links.prev = carve(carver, n_blocks, sizeof *pool->links.prev);
    pool->links.next = carve(carver, n_blocks, sizeof *pool->links.next);
}

void block_pool_init(struct block_pool *pool)
{
    block_list_clear(&pool->plain);
    block_list_clear(&pool->cached);
    for (uint32_t block = 0; block < pool->n_blocks; block++)
        block_list_push_tail(&pool->plain, &pool->links, block);
}

uint32_t block_pool_take_plain(struct block_pool *pool)
{
    uint32_t block = pool->plain.head;
    if (block == BLOCK_NONE)
        return BLOCK_NONE;
    ASSERT(pool->n_owners[block] == 0 && !pool->is_cached[block]);
    block_list_remove(&pool->plain, &pool->links, block);
    pool->n_owners[block] = 1;
    return block;
}

void block_pool_own(struct block_pool *pool, uint32_t block)
{
    ASSERT(block < pool->n_blocks);
    if (pool->n_owners[block] == 0) {
        ASSERT(pool->is_cached[block]);
        block_list_remove(&pool->cached, &pool->links, block);
    }
    pool->n_owners[block]++;
}

bool block_pool_disown(struct block_pool *pool, uint32_t block)
{
    ASSERT(block < pool->n_blocks && pool->n_owners[block] > 0);
    if (--pool->n_owners[block] > 0)
        return false;
    if (pool->is_cached[block])
        block_list_push_tail(&pool->cached, &pool->links, block);
    else
        block_list_push_head(&pool->plain, &pool->links, block);
    return true;
}

void block_pool_set_cached(struct block_pool *pool, uint32_t block, bool is_cached)
{
    ASSERT(block < pool->n_blocks && pool->is_cached[block] != is_cached);
    pool->is_cached[block] = is_cached;
    if (pool->n_owners[block] > 0)
        return;
    ASSERT(!is_cached);
    block_list_remove(&pool->cached, &pool->links, block);
    block_list_push_head(&pool->plain, &pool->links, block);
}
