#include "kernels/cpu_memory.h"

#include <stdint.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"

enum { PAGE_BYTES = 4096, HUGE_PAGE_BYTES = 2 << 20 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Stands directly below the block. */
struct header {
    void *heap;    /* the heap's block, which for a mapped one holds nothing but makes it countable */
    void *mapping; /* NULL = the memory is in the heap */
    size_t mapping_bytes;
};
_Static_assert(sizeof(struct header) <= CPU_MEMORY_ALIGN, "the header must fit below the block");

static void *place(void *memory, struct header header)
{
    char *block = (char *)round_up((uintptr_t)memory + sizeof header, CPU_MEMORY_ALIGN);
    ((struct header *)block)[-1] = header;
    return block;
}

static void *map_block(void *heap, size_t size_bytes)
{
    size_t bytes;
    if (!checked_add(size_bytes, (size_t)2 * HUGE_PAGE_BYTES, &bytes))
        return NULL;
    bytes = round_up(size_bytes + CPU_MEMORY_ALIGN, PAGE_BYTES);
    const size_t whole = (size_bytes + CPU_MEMORY_ALIGN) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    const size_t slack = whole > 0 ? HUGE_PAGE_BYTES : 0;
    char *mapping =
        mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    if (whole == 0)
        return place(mapping, (struct header){heap, mapping, bytes});
    /* Only huge pages that the block fills: many small tensors must not take 2 MB each. Nor is anything left
     * beside them: a kernel that gives huge pages unasked would make one of a block's end and what is behind
     * it. */
    char *start = (char *)round_up((uintptr_t)mapping, HUGE_PAGE_BYTES);
    const size_t before = (size_t)(start - mapping);
    if (before > 0)
        (void)munmap(mapping, before);
    (void)munmap(start + bytes, slack - before);
    (void)madvise(start, whole, MADV_HUGEPAGE);
    return place(start, (struct header){heap, start, bytes});
}

void *cpu_memory_alloc(size_t size_bytes)
{
    if (size_bytes < CPU_MEMORY_MAP_FROM_BYTES) {
        void *heap = mem_alloc(size_bytes + 2 * CPU_MEMORY_ALIGN);
        return heap == NULL ? NULL : place(heap, (struct header){.heap = heap});
    }
    void *heap = mem_alloc(1);
    if (heap == NULL)
        return NULL;
    void *block = map_block(heap, size_bytes);
    if (block == NULL)
        mem_free(heap);
    return block;
}

void cpu_memory_populate(void *bytes, size_t size_bytes)
{
    uintptr_t first = (uintptr_t)bytes / PAGE_BYTES * PAGE_BYTES;
    uintptr_t end = round_up((uintptr_t)bytes + size_bytes, PAGE_BYTES);
    /* Best effort: an older kernel, or one that is short of memory, goes on at the first touch. */
    (void)madvise((void *)first, end - first, MADV_POPULATE_WRITE);
}

void cpu_memory_free(void *block)
{
    if (block == NULL)
        return;
    ASSERT((uintptr_t)block % CPU_MEMORY_ALIGN == 0);
    struct header header = ((struct header *)block)[-1];
    if (header.mapping != NULL)
        munmap(header.mapping, header.mapping_bytes);
    mem_free(header.heap);
}
