/* Memory of one compiled template or one render: handed out piece by piece, up to a limit, freed at once. One
 * thread at a time. */
#pragma once

#include <stddef.h>

struct template_pool {
    struct template_chunk *chunks; /* owned */
    size_t used_bytes, limit_bytes;
    size_t chunk_left;
    char *chunk_next;
};

/* Zeroed, aligned for any type. NULL at the limit or without memory. */
void *template_pool_alloc(struct template_pool *pool, size_t size_bytes);
void template_pool_free(struct template_pool *pool);
