/* Many small copies in one block of memory: the same code is run twice, first to count and then to copy. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MEMORY_BLOCK_ALIGN = 8 };

struct memory_block {
    char *at; /* NULL while it is only counted */
    size_t used;
};

/* A copy of size bytes, and a NUL behind it; NULL while counting, or when data is NULL. */
static inline void *memory_block_copy(struct memory_block *block, const void *data, size_t size)
{
    if (data == NULL)
        return NULL;
    char *place = block->at ? block->at + block->used : NULL;
    block->used += (size + MEMORY_BLOCK_ALIGN) / MEMORY_BLOCK_ALIGN * MEMORY_BLOCK_ALIGN;
    if (place == NULL)
        return NULL;
    memcpy(place, data, size);
    place[size] = '\0';
    return place;
}

static inline char *memory_block_text(struct memory_block *block, const char *text)
{
    return memory_block_copy(block, text, text ? strlen(text) : 0);
}
