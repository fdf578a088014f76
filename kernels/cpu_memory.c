#include "kernels/cpu_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/clock.h"

enum { PAGE_BYTES = 4096, HUGE_PAGE_BYTES = 2 << 20 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* To populate 2 MiB took 0.2 ms where nothing was waited for, as 512 small pages 0.8 (docs/cpu.md). What
 * takes longer than SLOW_NS waited for something; SLOW_PAGES more of them than quick ones are no accident. */
#define SLOW_NS INT64_C(1000000)
enum { SLOW_PAGES = 8 };

/* Stands directly below the block. */
struct header {
    void *heap;    /* the heap's block, which for a mapped one holds nothing but makes it countable */
    char *mapping; /* NULL = the memory is in the heap */
    size_t mapping_bytes;
    size_t huge_bytes;     /* of it, from its start, that are for huge pages */
    struct header *next;   /* in small_blocks, under its lock */
    size_t tended_bytes;   /* likewise: of huge_bytes, from the start */
    atomic_bool are_small; /* huge_bytes are in small pages, but for those touched before */
};
_Static_assert(sizeof(struct header) <= CPU_MEMORY_ALIGN, "the header must fit below the block");

static struct header *header_of(void *block)
{
    return (struct header *)block - 1;
}

/* ---- How huge pages do on this machine ---- */

static int64_t real_now_ns(void)
{
    return clock_now_ns(clock_monotonic());
}

static int64_t (*now_ns)(void) = real_now_ns;
static atomic_int n_slow_more; /* slow ones beyond the quick ones, never below 0 */
static atomic_bool are_slow;   /* from now on */

static void learn(int64_t took_ns)
{
    int n = atomic_load_explicit(&n_slow_more, memory_order_relaxed);
    int next = took_ns > SLOW_NS ? n + 1 : n - (n > 0);
    /* Of two that learn at once one may be lost: more of them come. */
    atomic_store_explicit(&n_slow_more, next, memory_order_relaxed);
    if (next >= SLOW_PAGES)
        atomic_store(&are_slow, true);
}

void cpu_memory_pretend(int64_t (*pretended_now_ns)(void))
{
    now_ns = pretended_now_ns ? pretended_now_ns : real_now_ns;
    atomic_store(&n_slow_more, 0);
    atomic_store(&are_slow, false);
}

/* ---- Blocks in small pages ---- */

static struct {
    pthread_mutex_t lock;
    struct header *first; /* what is left to tend */
} small_blocks = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void remember_small(struct header *header)
{
    pthread_mutex_lock(&small_blocks.lock);
    header->next = small_blocks.first;
    small_blocks.first = header;
    pthread_mutex_unlock(&small_blocks.lock);
}

static void make_small(struct header *header)
{
    if (atomic_exchange(&header->are_small, true))
        return;
    (void)madvise(header->mapping, header->huge_bytes, MADV_NOHUGEPAGE);
    remember_small(header);
}

static void forget_small(struct header *header)
{
    pthread_mutex_lock(&small_blocks.lock);
    struct header **place = &small_blocks.first;
    while (*place && *place != header)
        place = &(*place)->next;
    if (*place)
        *place = header->next;
    pthread_mutex_unlock(&small_blocks.lock);
}

/* Until one was made. False: none is left in this block. */
static bool tend_block(struct header *header)
{
    if (header->tended_bytes == 0)
        (void)madvise(header->mapping, header->huge_bytes, MADV_HUGEPAGE);
    while (header->tended_bytes < header->huge_bytes) {
        char *page = header->mapping + header->tended_bytes;
        header->tended_bytes += HUGE_PAGE_BYTES;
        if (madvise(page, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0)
            return true;
        if (errno == ENOMEM) /* no huge page is free: the block stays as it is */
            return false;
    }
    return false;
}

bool cpu_memory_tend(void)
{
    bool has_made = false;
    pthread_mutex_lock(&small_blocks.lock);
    while (small_blocks.first && !has_made) {
        has_made = tend_block(small_blocks.first);
        if (!has_made)
            small_blocks.first = small_blocks.first->next;
    }
    pthread_mutex_unlock(&small_blocks.lock);
    return has_made;
}

/* ---- Blocks ---- */

static void *place(void *memory, const struct header *header)
{
    char *block = (char *)round_up((uintptr_t)memory + sizeof *header, CPU_MEMORY_ALIGN);
    *header_of(block) = *header;
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
    struct header header = {.heap = heap, .mapping = mapping, .mapping_bytes = bytes};
    if (whole == 0)
        return place(mapping, &header);
    /* Only huge pages that the block fills: many small tensors must not take 2 MB each. Nor is anything left
     * beside them: a kernel that gives huge pages unasked would make one of a block's end and what is behind
     * it. */
    header.mapping = (char *)round_up((uintptr_t)mapping, HUGE_PAGE_BYTES);
    header.huge_bytes = whole;
    const size_t before = (size_t)(header.mapping - mapping);
    if (before > 0)
        (void)munmap(mapping, before);
    (void)munmap(header.mapping + bytes, slack - before);
    atomic_init(&header.are_small, atomic_load(&are_slow));
    (void)madvise(header.mapping, whole, header.are_small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    void *block = place(header.mapping, &header);
    if (header.are_small)
        remember_small(header_of(block));
    return block;
}

void *cpu_memory_alloc(size_t size_bytes)
{
    if (size_bytes < CPU_MEMORY_MAP_FROM_BYTES) {
        void *heap = mem_alloc(size_bytes + 2 * CPU_MEMORY_ALIGN);
        return heap == NULL ? NULL : place(heap, &(struct header){.heap = heap});
    }
    void *heap = mem_alloc(1);
    if (heap == NULL)
        return NULL;
    void *block = map_block(heap, size_bytes);
    if (block == NULL)
        mem_free(heap);
    return block;
}

void cpu_memory_populate(void *block, size_t offset, size_t size_bytes)
{
    struct header *header = header_of(block);
    ASSERT(header->mapping != NULL);
    size_t begin = (size_t)((char *)block - header->mapping) + offset;
    size_t first = begin / PAGE_BYTES * PAGE_BYTES, end = round_up(begin + size_bytes, PAGE_BYTES);
    if (header->huge_bytes > 0 && atomic_load(&are_slow))
        make_small(header);
    /* Threads walk up a block: who comes to the start of a huge page is mostly its first. */
    size_t start = round_up(first, HUGE_PAGE_BYTES);
    bool is_timed = start < end && start < header->huge_bytes && !atomic_load(&header->are_small);
    int64_t begin_ns = is_timed ? now_ns() : 0;
    /* Best effort: an older kernel, or one that is short of memory, goes on at the first touch. */
    bool has_populated = madvise(header->mapping + first, end - first, MADV_POPULATE_WRITE) == 0;
    if (is_timed && has_populated)
        learn((now_ns() - begin_ns) / (int64_t)div_up(end - start, HUGE_PAGE_BYTES));
}

void cpu_memory_free(void *block)
{
    if (block == NULL)
        return;
    ASSERT((uintptr_t)block % CPU_MEMORY_ALIGN == 0);
    if (atomic_load(&header_of(block)->are_small))
        forget_small(header_of(block)); /* which may be tended until then */
    struct header header = *header_of(block);
    if (header.mapping != NULL)
        munmap(header.mapping, header.mapping_bytes);
    mem_free(header.heap);
}
