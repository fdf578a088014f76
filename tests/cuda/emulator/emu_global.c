#include "tests/cuda/emulator/emu_global.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

enum { PAGE_BITS = 12, UNIT_BYTES = 2, PAGE_UNITS = (1 << PAGE_BITS) / UNIT_BYTES };
enum { BUCKETS = 4096, FENCES_MAX = EMU_BLOCK_THREADS_MAX, ACQUIRED_MAX = 1024 };

/* The last write of a unit. Blocks are numbered as the worker runs them, from 1; 0: nobody. */
struct note {
    uint32_t block, epoch;
    uint16_t thread, by_atomic;
};

struct page {
    uintptr_t number;
    struct page *next;
    struct note notes[PAGE_UNITS];
};

/* What a block's fences before its atomics on a counter cover. */
struct release {
    uint32_t block;
    uint32_t *clock;
};

struct counter {
    uintptr_t address;
    struct counter *next;
    struct release *releases;
    uint32_t n, capacity;
};

struct emu_global {
    struct page *pages[BUCKETS], *free_pages;
    struct counter *counters[BUCKETS];
    uint64_t serial; /* of the block under way */
    uint32_t block;
    /* Of the block under way. */
    struct {
        uint32_t *clock; /* at its last fence */
        bool is_set;
        const struct counter
            *counter; /* of its last atomic, and how much of it; NULL: none since its fence */
        uint32_t n_releases;
    } fences[FENCES_MAX];
    struct {
        const struct counter *counter;
        uint32_t n_releases, thread, epoch;
    } acquired[ACQUIRED_MAX];
    uint32_t n_acquired;
};

static size_t bucket_of(uintptr_t value)
{
    return (value * 0x9e3779b97f4a7c15u >> 40) % BUCKETS;
}

static void forget(struct emu_global *global)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (global->pages[i] != NULL) {
            struct page *page = global->pages[i];
            global->pages[i] = page->next;
            page->next = global->free_pages;
            global->free_pages = page;
        }
        while (global->counters[i] != NULL) {
            struct counter *counter = global->counters[i];
            global->counters[i] = counter->next;
            for (uint32_t r = 0; r < counter->n; r++)
                free(counter->releases[r].clock);
            free(counter->releases);
            free(counter);
        }
    }
}

void emu_global_begin(struct emu_worker *worker)
{
    if (worker->global == NULL) {
        worker->global = calloc(1, sizeof *worker->global);
        ASSERT(worker->global != NULL);
    }
    forget(worker->global);
    worker->global->block = 0;
    worker->global->serial = 0;
}

void emu_global_destroy(struct emu_worker *worker)
{
    struct emu_global *global = worker->global;
    if (global == NULL)
        return;
    forget(global);
    while (global->free_pages != NULL) {
        struct page *page = global->free_pages;
        global->free_pages = page->next;
        free(page);
    }
    for (size_t t = 0; t < FENCES_MAX; t++)
        free(global->fences[t].clock);
    free(global);
    worker->global = NULL;
}

/* At the first access of a block. */
static void block_begin(struct emu_global *global, uint64_t serial)
{
    if (global->serial == serial)
        return;
    global->serial = serial;
    global->block++;
    global->n_acquired = 0;
    for (size_t t = 0; t < FENCES_MAX; t++) {
        global->fences[t].is_set = false;
        global->fences[t].counter = NULL;
    }
}

static struct page *find_page(struct emu_global *global, uintptr_t number, bool make)
{
    struct page **bucket = &global->pages[bucket_of(number)], *page = *bucket;
    while (page != NULL && page->number != number)
        page = page->next;
    if (page != NULL || !make)
        return page;
    page = global->free_pages;
    if (page != NULL)
        global->free_pages = page->next;
    else
        page = malloc(sizeof *page);
    ASSERT(page != NULL);
    memset(page->notes, 0, sizeof page->notes);
    page->number = number;
    page->next = *bucket;
    return *bucket = page;
}

static struct counter *find_counter(struct emu_global *global, uintptr_t address, bool make)
{
    struct counter **bucket = &global->counters[bucket_of(address)], *counter = *bucket;
    while (counter != NULL && counter->address != address)
        counter = counter->next;
    if (counter != NULL || !make)
        return counter;
    counter = calloc(1, sizeof *counter);
    ASSERT(counter != NULL);
    counter->address = address;
    counter->next = *bucket;
    return *bucket = counter;
}

/* ---- Counters ---- */

static void count(struct emu_global *global, uint32_t n, uintptr_t address)
{
    uint32_t thread = emu_now->index;
    bool is_set = global->fences[thread].is_set;
    struct counter *counter = find_counter(global, address, is_set);
    if (counter == NULL)
        return;
    global->fences[thread].counter = counter;
    global->fences[thread].n_releases = counter->n;
    if (!is_set)
        return;
    if (counter->n == counter->capacity) {
        counter->capacity = counter->capacity * 2 + 4;
        counter->releases = realloc(counter->releases, counter->capacity * sizeof *counter->releases);
        ASSERT(counter->releases != NULL);
    }
    struct release *release = &counter->releases[counter->n++];
    release->block = global->block;
    release->clock = malloc(n * sizeof *release->clock);
    ASSERT(release->clock != NULL);
    memcpy(release->clock, global->fences[thread].clock, n * sizeof *release->clock);
}

void emu_global_fence(struct emu_worker *worker, const uint32_t *own, uint32_t n)
{
    struct emu_global *global = worker->global;
    uint32_t thread = emu_now->index;
    block_begin(global, worker->block_serial);
    if (global->fences[thread].clock == NULL)
        global->fences[thread].clock = malloc(EMU_BLOCK_THREADS_MAX * sizeof *own);
    ASSERT(global->fences[thread].clock != NULL);
    memcpy(global->fences[thread].clock, own, n * sizeof *own);
    global->fences[thread].is_set = true;
    if (global->fences[thread].counter == NULL)
        return;
    ASSERT(global->n_acquired < ACQUIRED_MAX);
    global->acquired[global->n_acquired].counter = global->fences[thread].counter;
    global->acquired[global->n_acquired].n_releases = global->fences[thread].n_releases;
    global->acquired[global->n_acquired].thread = thread;
    global->acquired[global->n_acquired++].epoch = own[thread];
    global->fences[thread].counter = NULL;
}

/* ---- Bytes ---- */

static bool is_seen(const struct emu_global *global, const uint32_t *own, const struct note *note)
{
    for (uint32_t i = global->n_acquired; i-- > 0;) {
        if (own[global->acquired[i].thread] < global->acquired[i].epoch)
            continue;
        const struct release *releases = global->acquired[i].counter->releases;
        for (uint32_t r = global->acquired[i].n_releases; r-- > 0;)
            if (releases[r].block == note->block && releases[r].clock[note->thread] >= note->epoch)
                return true;
    }
    return false;
}

static void check_read(const struct emu_global *global, const uint32_t *own, const struct note *note,
                       uintptr_t address)
{
    bool is_own = note->block == global->block;
    if (note->block == 0 || (is_own && own[note->thread] >= note->epoch) || is_seen(global, own, note))
        return;
    if (is_own)
        emu_fail("race: reads global address %p, which thread %u wrote, and no barrier stands between",
                 (void *)address, note->thread);
    emu_fail("race: reads global address %p, which thread %u of an earlier block wrote, and no barriers, "
             "fence_device() and counter stand between",
             (void *)address, note->thread);
}

/* Whether the thread knows of a count on that address: who counted last may put it back to zero. */
static bool has_counted(const struct emu_global *global, const uint32_t *own, uintptr_t address)
{
    for (uint32_t i = 0; i < global->n_acquired; i++)
        if (global->acquired[i].counter->address == address &&
            own[global->acquired[i].thread] >= global->acquired[i].epoch)
            return true;
    return false;
}

/* An atomic and a plain write that the block does not order; what blocks do to each other is left alone. */
static void check_update(const struct emu_global *global, const uint32_t *own, const struct note *note,
                         uintptr_t address, bool is_atomic)
{
    if (note->block == global->block && note->by_atomic != is_atomic && own[note->thread] < note->epoch &&
        (is_atomic || !has_counted(global, own, address)))
        emu_fail("race: updates global address %p, which thread %u %s, and no barrier stands between",
                 (void *)address, note->thread, is_atomic ? "wrote" : "updated");
}

void emu_global_access(struct emu_worker *worker, const uint32_t *own, uint32_t n, const void *at,
                       size_t size, enum emu_access access)
{
    struct emu_global *global = worker->global;
    uintptr_t address = (uintptr_t)at;
    emu_race_check_front(at, size, access);
    if (size < UNIT_BYTES || address % UNIT_BYTES != 0)
        return;
    block_begin(global, worker->block_serial);
    if (access == EMU_ATOMIC)
        count(global, n, address);
    struct page *page = NULL;
    for (uintptr_t i = address; i < address + size; i += UNIT_BYTES) {
        if (page == NULL || i % (1 << PAGE_BITS) == 0) {
            page = find_page(global, i >> PAGE_BITS, access != EMU_READ);
            if (page == NULL && (i | ((1 << PAGE_BITS) - 1)) >= address + size - 1)
                return;
        }
        if (page == NULL)
            continue;
        struct note *note = &page->notes[i % (1 << PAGE_BITS) / UNIT_BYTES];
        if (access == EMU_READ) {
            check_read(global, own, note, i);
            continue;
        }
        check_update(global, own, note, i, access == EMU_ATOMIC);
        *note =
            (struct note){global->block, own[emu_now->index], (uint16_t)emu_now->index, access == EMU_ATOMIC};
    }
}
