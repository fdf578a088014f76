#include "tests/cuda/fake_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/assert.h"
#include "base/checked.h"

enum { BLOCKS_MAX = 64, PAGE_BYTES = 4096 };
/* What is behind is left as it comes: large plans must cost no memory, and buffers for uploads, which are as
 * large for the smallest model, little time. */
#define POISONED_MAX        ((size_t)256 << 20)
#define PINNED_POISONED_MAX ((size_t)1 << 20)

struct block {
    enum fake_memory_kind kind;
    uint8_t *memory;
    size_t size_bytes, mapped_bytes;
};

static struct block blocks[BLOCKS_MAX];

static struct block *find_block(const void *memory)
{
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (blocks[i].memory != NULL && blocks[i].memory == memory)
            return &blocks[i];
    return NULL;
}

static void protect(const struct block *block, bool reachable)
{
    int result = mprotect(block->memory, block->mapped_bytes, reachable ? PROT_READ | PROT_WRITE : PROT_NONE);
    ASSERT(result == 0);
}

void *fake_memory_alloc(enum fake_memory_kind kind, size_t size_bytes)
{
    struct block *block = NULL;
    for (int i = 0; i < BLOCKS_MAX && block == NULL; i++)
        block = blocks[i].memory == NULL ? &blocks[i] : NULL;
    ASSERT(block != NULL);
    size_t mapped_bytes = round_up(size_bytes + 1, PAGE_BYTES);
    void *memory =
        mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(memory != MAP_FAILED);
    (void)madvise(memory, mapped_bytes, MADV_HUGEPAGE); /* opening and closing then costs little */
    size_t poisoned_max = kind == FAKE_MEMORY_DEVICE ? POISONED_MAX : PINNED_POISONED_MAX;
    memset(memory, 0xa5, size_bytes < poisoned_max ? size_bytes : poisoned_max);
    *block = (struct block){kind, memory, size_bytes, mapped_bytes};
    if (kind == FAKE_MEMORY_DEVICE)
        protect(block, false);
    return memory;
}

/* The addresses are not used again: whoever still has one faults. */
void fake_memory_free(void *memory)
{
    struct block *block = find_block(memory);
    ASSERT(block != NULL);
    void *gone = mmap(block->memory, block->mapped_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    ASSERT(gone == block->memory);
    *block = (struct block){0};
}

void fake_memory_check(enum fake_memory_kind kind, const void *pointer, size_t size_bytes, const char *what)
{
    const uint8_t *at = pointer;
    for (int i = 0; i < BLOCKS_MAX; i++) {
        const struct block *block = &blocks[i];
        if (block->memory != NULL && block->kind == kind && at >= block->memory &&
            size_bytes <= block->size_bytes && at <= block->memory + block->size_bytes - size_bytes)
            return;
    }
    (void)fprintf(stderr, "fake device: %s, %zu bytes at %p, is not within %s memory\n", what, size_bytes,
                  pointer, kind == FAKE_MEMORY_DEVICE ? "device" : "pinned");
    abort();
}

bool fake_memory_is_within(const void *memory, const void *pointer)
{
    const struct block *block = find_block(memory);
    const uint8_t *at = pointer;
    return block != NULL && at >= block->memory && at < block->memory + block->size_bytes;
}

uint64_t fake_memory_device_bytes(void)
{
    uint64_t bytes = 0;
    for (int i = 0; i < BLOCKS_MAX; i++)
        bytes += blocks[i].memory != NULL && blocks[i].kind == FAKE_MEMORY_DEVICE ? blocks[i].size_bytes : 0;
    return bytes;
}

static void protect_all(bool reachable)
{
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (blocks[i].memory != NULL && blocks[i].kind == FAKE_MEMORY_DEVICE)
            protect(&blocks[i], reachable);
}

void fake_memory_open(void)
{
    protect_all(true);
}

void fake_memory_close(void)
{
    protect_all(false);
}
