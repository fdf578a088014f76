#include "base/arena.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"

enum { HUGE_PAGE_BYTES = 2 << 20 };

struct arena {
    uint8_t *base; /* aligned start of the usable range */
    void *mapping; /* what munmap wants back */
    size_t mapping_bytes;
    size_t capacity_bytes;
    size_t used_bytes;
    bool sealed;
};

err_t arena_create(size_t capacity_bytes, struct arena **out)
{
    *out = NULL;
    /* Slack, so that the range can start on a huge page. */
    size_t mapping_bytes;
    if (!checked_add(capacity_bytes, 2 * (size_t)HUGE_PAGE_BYTES, &mapping_bytes))
        return err_new(ERR_RESOURCE_EXHAUSTED, "arena of %zu bytes exceeds the address space",
                       capacity_bytes);
    struct arena *arena = mem_alloc(sizeof *arena);
    if (arena == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an arena");
    void *mapping =
        mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        int saved_errno = errno;
        mem_free(arena);
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot reserve %zu bytes of memory: %s", capacity_bytes,
                       strerror(saved_errno));
    }
    arena->mapping = mapping;
    arena->mapping_bytes = mapping_bytes;
    arena->base = (uint8_t *)round_up((size_t)(uintptr_t)mapping, HUGE_PAGE_BYTES);
    arena->capacity_bytes = capacity_bytes;
    /* Only huge pages that the arena fills: it takes no more than was planned. Best effort: a kernel without
     * transparent huge pages is only slower. */
    size_t whole_bytes = capacity_bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if (whole_bytes > 0)
        (void)madvise(arena->base, whole_bytes, MADV_HUGEPAGE);
    *out = arena;
    return err_ok();
}

void arena_destroy(struct arena *arena)
{
    if (arena == NULL)
        return;
    munmap(arena->mapping, arena->mapping_bytes);
    mem_free(arena);
}

void *arena_alloc(struct arena *arena, size_t size_bytes)
{
    ASSERT(!arena->sealed);
    /* used_bytes is always a multiple of ARENA_ALIGN, or past the last one within the capacity. */
    ASSERT(arena->used_bytes <= arena->capacity_bytes);
    ASSERT(size_bytes <= arena->capacity_bytes - arena->used_bytes);
    uint8_t *block = arena->base + arena->used_bytes;
    arena->used_bytes = round_up(arena->used_bytes + size_bytes, ARENA_ALIGN);
    if (arena->used_bytes > arena->capacity_bytes)
        arena->used_bytes = arena->capacity_bytes;
    return block;
}

void arena_seal(struct arena *arena)
{
    arena->sealed = true;
}

size_t arena_used_bytes(const struct arena *arena)
{
    return arena->used_bytes;
}

size_t arena_capacity_bytes(const struct arena *arena)
{
    return arena->capacity_bytes;
}
