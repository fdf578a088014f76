/* Races on shared memory (on global memory: emu_global.h), of kernels that were compiled to report each of
 * their accesses (emu_instrument.c). Each thread has a vector clock; barriers, warp_sync and mbarriers pass
 * it on; each byte remembers who wrote and who read it. Shuffles, votes, products and atomics order nothing,
 * as on the card. All functions do nothing for other kernels. */
#pragma once

#include "tests/cuda/emulator/emu_internal.h"

enum emu_access { EMU_READ, EMU_WRITE, EMU_ATOMIC };

/* Clocks that pass knowledge on. */
enum { EMU_CLOCK_BARRIER = 0, EMU_CLOCK_MBARRIER = EMU_BARRIERS, EMU_CLOCKS = EMU_CLOCK_MBARRIER + 256 };

void emu_race_begin(struct emu_worker *worker);
void emu_race_destroy(struct emu_worker *worker);

/* Nobody has touched these bytes: dynamic memory of a new block by itself, a static variable as it appears.
 */
void emu_race_fresh(struct emu_worker *worker, uint32_t address, uint32_t size);

void emu_race_access_shared(const void *at, size_t size, enum emu_access access);
void emu_race_access_global(const void *at, size_t size, enum emu_access access);
/* The running thread accesses memory by itself. size: at least 1. Its own stack is nobody else's. */
static inline void emu_race_access(const void *at, size_t size, enum emu_access access)
{
    const struct emu_worker *worker = emu_worker;
    if (worker == NULL || !worker->checks_races || emu_now == NULL)
        return;
    const struct emu_fiber *fiber = emu_thread_now()->fiber;
    if (fiber == NULL || (size_t)((const uint8_t *)at - fiber->stack) < fiber->stack_bytes)
        return;
    if ((size_t)((const uint8_t *)at - worker->arena) < EMU_ARENA_BYTES)
        emu_race_access_shared(at, size, access);
    else
        emu_race_access_global(at, size, access);
}
/* It lets a copy write there: nobody may read it until emu_race_landed. asynchronous: as there. */
void emu_race_copy(const void *at, size_t size, bool asynchronous);
/* The copy that `thread` issued has landed; asynchronous: by the proxy that wgmma reads through. */
void emu_race_landed(uint32_t thread, const void *at, size_t size, bool asynchronous);
/* wgmma reads there, for the running thread. */
void emu_race_read_async(const void *at, size_t size);
void emu_race_fence_async(void);
void emu_race_fence_device(void);

/* The running thread is behind dependencies_wait(). */
void emu_race_waited(void);
/* It accesses global memory, by itself or by a copy: in a dependent launch, what others in front may still
 * write, or read, only behind dependencies_wait(), its own or one that barriers put before it. */
void emu_race_check_front(const void *at, size_t size, enum emu_access access);

void emu_race_release(uint32_t clock);
void emu_race_acquire(uint32_t thread, uint32_t clock);
/* All threads of the block, which have released to it since it was clear; clears it. */
void emu_race_acquire_all(uint32_t clock);
void emu_race_clear(uint32_t clock);
/* All lanes of the warp know what each of them knew. */
void emu_race_warp_sync(const struct emu_warp *warp);
