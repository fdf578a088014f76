#include "text/template_pool.h"

#include <string.h>
#include "base/alloc.h"

enum { CHUNK_BYTES = 64 << 10, ALIGN = 16 };

struct template_chunk {
    struct template_chunk *next;
    size_t unused; /* keeps what follows aligned */
};
_Static_assert(sizeof(struct template_chunk) % ALIGN == 0, "memory after the head is aligned");

void *template_pool_alloc(struct template_pool *pool, size_t size_bytes)
{
    if (size_bytes > pool->limit_bytes - pool->used_bytes)
        return NULL;
    size_t needed = (size_bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (needed > pool->chunk_left) {
        size_t chunk_bytes = needed > CHUNK_BYTES ? needed : CHUNK_BYTES;
        struct template_chunk *chunk = mem_alloc(sizeof *chunk + chunk_bytes);
        if (chunk == NULL)
            return NULL;
        chunk->next = pool->chunks;
        pool->chunks = chunk;
        if (chunk_bytes - needed >= pool->chunk_left) { /* else go on in the old one */
            pool->chunk_next = (char *)(chunk + 1) + needed;
            pool->chunk_left = chunk_bytes - needed;
        }
        pool->used_bytes += size_bytes;
        return chunk + 1;
    }
    void *block = pool->chunk_next;
    pool->chunk_next += needed;
    pool->chunk_left -= needed;
    pool->used_bytes += size_bytes;
    return block;
}

void template_pool_free(struct template_pool *pool)
{
    while (pool->chunks != NULL) {
        struct template_chunk *next = pool->chunks->next;
        mem_free(pool->chunks);
        pool->chunks = next;
    }
    memset(pool, 0, sizeof *pool);
}
