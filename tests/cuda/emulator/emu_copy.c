/* Asynchronous copies and mbarriers. A copy poisons what it will overwrite when it is issued and lands as
 * late as it may: cp.async when its thread waits for its group, a bulk copy when no thread can go on without
 * it. So whoever reads before the wait reads poison. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_race.h"

enum { MBARRIERS_MAX = 256, MBARRIER_MAGIC = 0x6d626172 };

struct copy16 {
    uint8_t *to;
    const uint8_t *from;
    uint32_t n_valid, group;
    bool is_read; /* into `bytes` */
    uint8_t bytes[16];
};

/* Of one thread: a queue that grows to what the kernel needs. */
struct copies {
    struct copy16 *items;
    uint32_t first, n, capacity; /* items[first, first + n) are under way */
    uint32_t n_groups;           /* committed */
};

struct mbarrier {
    uint32_t address, count;
    uint32_t n_missing;    /* arrivals that the phase waits for */
    int64_t bytes_missing; /* and bytes */
    int64_t bytes_issued;  /* of copies under way */
    uint32_t phase, n_waiting;
    bool fenced;
};

struct bulk {
    uint8_t *to;
    const uint8_t *from;
    uint32_t bytes, bar;
};

struct emu_async {
    struct copies copies[EMU_BLOCK_THREADS_MAX];
    struct mbarrier bars[MBARRIERS_MAX];
    uint32_t n_bars;
    struct bulk *bulks;
    uint32_t n_bulks, bulk_capacity;
};

void emu_async_create(struct emu_worker *worker)
{
    worker->async = calloc(1, sizeof *worker->async);
    ASSERT(worker->async != NULL);
}

void emu_async_destroy(struct emu_worker *worker)
{
    for (uint32_t i = 0; i < EMU_BLOCK_THREADS_MAX; i++)
        free(worker->async->copies[i].items);
    free(worker->async->bulks);
    free(worker->async);
}

void emu_async_begin(struct emu_worker *worker)
{
    struct emu_async *async = worker->async;
    async->n_bars = 0;
    async->n_bulks = 0;
    for (uint32_t i = 0; i < worker->view.n_threads; i++)
        async->copies[i].n_groups = 0;
}

void emu_async_end(struct emu_worker *worker)
{
    const struct emu_async *async = worker->async;
    if (async->n_bulks > 0)
        emu_fail("the block ended while %u bulk copies were under way: nobody waited for their mbarrier",
                 async->n_bulks);
    for (uint32_t i = 0; i < async->n_bars; i++) {
        char text[160];
        emu_mbarrier_describe((const uint64_t *)(worker->arena + async->bars[i].address), text, sizeof text);
        if (async->bars[i].bytes_missing != 0)
            emu_fail("the block ended, but %s", text);
    }
}

/* ---- cp.async ---- */

static struct copies *copies_now(void)
{
    return &emu_worker->async->copies[emu_now->index];
}

void emu_copy_async_16(void *to, const void *from, uint32_t n_valid)
{
    struct copies *copies = copies_now();
    if (n_valid > 16)
        emu_fail("copy_async_16 of %u valid bytes: 0..16", n_valid);
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0)
        emu_fail("copy_async_16: to %p from %p: not aligned to 16 bytes", to, from);
    emu_shared_check(to, 16, "copy_async_16");
    if (copies->first + copies->n == copies->capacity) {
        if (copies->first > copies->n) {
            memcpy(copies->items, copies->items + copies->first, copies->n * sizeof *copies->items);
        } else {
            uint32_t capacity = copies->capacity * 2 + 16;
            struct copy16 *items = malloc(capacity * sizeof *items);
            ASSERT(items != NULL);
            if (copies->n > 0)
                memcpy(items, copies->items + copies->first, copies->n * sizeof *items);
            free(copies->items);
            copies->items = items;
            copies->capacity = capacity;
        }
        copies->first = 0;
    }
    copies->items[copies->first + copies->n++] =
        (struct copy16){.to = to, .from = from, .n_valid = n_valid, .group = copies->n_groups};
    if (n_valid > 0)
        emu_race_check_front(from, n_valid, EMU_READ);
    emu_race_copy(to, 16, false);
    emu_poison(to, 16);
}

void emu_copy_async_commit(void)
{
    copies_now()->n_groups++;
}

void emu_copy_async_wait(uint32_t n_pending)
{
    struct copies *copies = copies_now();
    while (copies->n > 0) {
        const struct copy16 *copy = &copies->items[copies->first];
        if (copy->group + n_pending >= copies->n_groups)
            break;
        memcpy(copy->to, copy->is_read ? copy->bytes : copy->from, copy->n_valid);
        memset(copy->to + copy->n_valid, 0, 16 - copy->n_valid);
        emu_race_landed(emu_now->index, copy->to, 16, false);
        copies->first++;
        copies->n--;
    }
    if (copies->n == 0)
        copies->first = 0;
}

void emu_async_read_early(struct emu_worker *worker)
{
    for (uint32_t t = 0; t < worker->view.n_threads; t++) {
        struct copies *copies = &worker->async->copies[t];
        for (uint32_t i = copies->first; i < copies->first + copies->n; i++) {
            struct copy16 *copy = &copies->items[i];
            if (!copy->is_read)
                memcpy(copy->bytes, copy->from, copy->n_valid);
            copy->is_read = true;
        }
    }
}

void emu_async_thread_end(struct emu_thread *thread)
{
    uint32_t n = emu_worker->async->copies[thread->view.index].n;
    if (n > 0)
        emu_fail("ended while %u of its copy_async_16 were under way: no copy_async_wait", n);
}

/* ---- mbarriers ---- */

static uint64_t mbarrier_word(const struct emu_worker *worker, uint32_t index)
{
    return (uint64_t)MBARRIER_MAGIC << 32 | (uint64_t)((uint32_t)worker->block_serial & 0xffffffu) << 8 |
           index;
}

static struct mbarrier *mbarrier_find(const uint64_t *bar)
{
    struct emu_worker *worker = emu_worker;
    emu_shared_check(bar, 8, "mbarrier");
    uint32_t index = (uint32_t)*bar & 0xffu, address = emu_shared_address(bar);
    if (index >= worker->async->n_bars || *bar != mbarrier_word(worker, index) ||
        worker->async->bars[index].address != address)
        emu_fail("the mbarrier at shared address %u has not been initialised, or its memory was overwritten",
                 address);
    return &worker->async->bars[index];
}

static uint32_t clock_of(const struct mbarrier *state)
{
    return EMU_CLOCK_MBARRIER + (uint32_t)(state - emu_worker->async->bars);
}

void emu_mbarrier_describe(const uint64_t *bar, char *text, size_t size)
{
    const struct mbarrier *state = mbarrier_find(bar);
    snprintf(text, size,
             "the mbarrier at shared address %u is in phase %u and expects %u of %u arrivals and %lld bytes",
             state->address, state->phase, state->n_missing, state->count, (long long)state->bytes_missing);
}

void emu_mbarrier_init(uint64_t *bar, uint32_t count)
{
    struct emu_worker *worker = emu_worker;
    struct emu_async *async = worker->async;
    if ((uintptr_t)bar % 8 != 0 || count == 0 || count > 0xfffff)
        emu_fail("mbarrier_init at %p of %u arrivals: 8-byte aligned, 1..2^20 - 1", (void *)bar, count);
    emu_shared_check(bar, 8, "mbarrier_init");
    uint32_t index = 0, address = emu_shared_address(bar);
    while (index < async->n_bars && async->bars[index].address != address)
        index++;
    ASSERT(index < MBARRIERS_MAX);
    async->n_bars = index == async->n_bars ? index + 1 : async->n_bars;
    async->bars[index] = (struct mbarrier){.address = address, .count = count, .n_missing = count};
    *bar = mbarrier_word(worker, index);
}

void emu_fence_mbarrier_init(void)
{
    struct emu_async *async = emu_worker->async;
    for (uint32_t i = 0; i < async->n_bars; i++)
        async->bars[i].fenced = true;
}

/* Ends the phase when nothing is missing, and wakes who waited for that. */
static void mbarrier_check_phase(struct mbarrier *state)
{
    struct emu_worker *worker = emu_worker;
    if (state->n_missing > 0 || state->bytes_missing != 0)
        return;
    state->phase++;
    state->n_missing = state->count;
    const uint64_t *bar = (const uint64_t *)(worker->arena + state->address);
    for (uint32_t i = 0; i < worker->n_warps && state->n_waiting > 0; i++) {
        struct emu_warp *warp = &worker->warps[i];
        for (uint32_t rest = warp->at_mbarrier; rest != 0; rest &= rest - 1) {
            uint32_t lane = (uint32_t)__builtin_ctz(rest);
            const struct emu_thread *thread = &warp->threads[lane];
            if (thread->bar != bar || thread->bar_parity == (state->phase & 1u))
                continue;
            warp->at_mbarrier &= ~(1u << lane);
            warp->runnable |= 1u << lane;
            state->n_waiting--;
        }
    }
}

void emu_mbarrier_arrive(uint64_t *bar, uint32_t expected_bytes)
{
    struct mbarrier *state = mbarrier_find(bar);
    emu_race_release(clock_of(state));
    if (state->n_missing == 0)
        emu_fail("mbarrier at shared address %u: more than its %u arrivals in a phase, which still expects "
                 "%lld bytes",
                 state->address, state->count, (long long)state->bytes_missing);
    state->n_missing--;
    state->bytes_missing += expected_bytes;
    mbarrier_check_phase(state);
}

void emu_mbarrier_wait(uint64_t *bar, uint32_t parity)
{
    if (parity > 1)
        emu_fail("mbarrier_wait for parity %u: 0 or 1", parity);
    struct mbarrier *state = mbarrier_find(bar);
    struct emu_thread *thread = emu_thread_now();
    if ((state->phase & 1u) != parity) {
        emu_race_acquire(thread->view.index, clock_of(state));
        return;
    }
    state->n_waiting++;
    emu_warp_of(thread)->at_mbarrier |= 1u << thread->view.lane;
    thread->bar = bar;
    thread->bar_parity = parity;
    emu_suspend(thread, EMU_IN_MBARRIER);
    emu_race_acquire(thread->view.index, clock_of(state));
}

/* ---- Bulk copies ---- */

void emu_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *bar)
{
    struct emu_worker *worker = emu_worker;
    struct emu_async *async = worker->async;
    if (worker->options.target < 90)
        emu_fail("bulk_copy on sm_%u: sm_90 and later have it", worker->options.target);
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0 || bytes % 16 != 0 || bytes == 0)
        emu_fail("bulk_copy of %u bytes to %p from %p: all must be multiples of 16", bytes, to, from);
    emu_shared_check(to, bytes, "bulk_copy");
    struct mbarrier *state = mbarrier_find(bar);
    if (!state->fenced)
        emu_fail("bulk_copy to the mbarrier at shared address %u without fence_mbarrier_init()",
                 state->address);
    if (state->bytes_issued + bytes > state->bytes_missing)
        emu_fail("bulk_copy of %u bytes, but its mbarrier expects %lld more: mbarrier_expect comes first",
                 bytes, (long long)(state->bytes_missing - state->bytes_issued));
    state->bytes_issued += bytes;
    if (async->n_bulks == async->bulk_capacity) {
        async->bulk_capacity = async->bulk_capacity * 2 + 16;
        async->bulks = realloc(async->bulks, async->bulk_capacity * sizeof *async->bulks);
        ASSERT(async->bulks != NULL);
    }
    async->bulks[async->n_bulks++] = (struct bulk){to, from, bytes, (uint32_t)(state - async->bars)};
    emu_race_check_front(from, bytes, EMU_READ);
    emu_race_copy(to, bytes, true);
    emu_race_release(clock_of(state));
    emu_poison(to, bytes);
}

static void bulk_land(struct emu_async *async, uint32_t index)
{
    struct bulk bulk = async->bulks[index];
    async->n_bulks--;
    memmove(&async->bulks[index], &async->bulks[index + 1], (async->n_bulks - index) * sizeof bulk);
    memcpy(bulk.to, bulk.from, bulk.bytes);
    emu_race_landed(0, bulk.to, bulk.bytes, true);
    struct mbarrier *state = &async->bars[bulk.bar];
    state->bytes_missing -= bulk.bytes;
    state->bytes_issued -= bulk.bytes;
    mbarrier_check_phase(state);
}

static bool any_runnable(const struct emu_worker *worker)
{
    for (uint32_t i = 0; i < worker->n_warps; i++)
        if (worker->warps[i].runnable != 0)
            return true;
    return false;
}

bool emu_async_progress(struct emu_worker *worker)
{
    struct emu_async *async = worker->async;
    while (!any_runnable(worker)) {
        uint32_t first =
            worker->options.seed != 0 && async->n_bulks > 0 ? emu_random(worker) % async->n_bulks : 0;
        uint32_t n = 0;
        while (n < async->n_bulks &&
               async->bars[async->bulks[(first + n) % async->n_bulks].bar].n_waiting == 0)
            n++;
        if (n == async->n_bulks)
            return false;
        bulk_land(async, (first + n) % async->n_bulks);
    }
    return true;
}

void emu_fence_async_proxy(void)
{
    emu_race_fence_async();
}
