/* Who is told what the prefix cache holds: called by the scheduler on its own thread, in the middle of its
 * own calls, once for every entry that comes and once for every one that goes. Must not call back. */
#pragma once

#include <stdint.h>

/* A block that holds a prefix. Serials are never used twice, grow, and a parent's is the smaller one. */
struct prefix_block {
    uint32_t block; /* of the KV store: one entry at a time */
    uint32_t adapter;
    uint64_t serial;
    uint64_t parent_serial; /* of the entry that holds the block before; 0 = this is the first */
    uint64_t salt;
    const uint32_t *tokens; /* [block_tokens], the cache's: valid during the call */
};

struct prefix_observer {
    void *context;
    void (*stored)(void *context, const struct prefix_block *block); /* NULL = nobody wants to know */
    void (*removed)(void *context, const struct prefix_block *block);
};
