/* Shared memory of the block under way: one arena of 256 KB of addresses, dynamic memory from
 * EMU_DYNAMIC_ADDRESS up, static variables from the end down, red zones between. */
#include <string.h>
#include <sys/mman.h>
#include "base/assert.h"
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_race.h"

enum { PAGE_BYTES = 4096, POISON_BYTES = 16 };

/* As bf16, f16 and e4m3 every element is a NaN; with signs such that no constant and no NaN that an
 * instruction makes looks the same. */
static const uint8_t poison[POISON_BYTES] = {0xff, 0xff, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0xff,
                                             0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f};
enum { RED = 0xa7 };

void emu_shared_create(struct emu_worker *worker)
{
    uint8_t *map = mmap(NULL, EMU_ARENA_BYTES + 2 * PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(map != MAP_FAILED);
    ASSERT(mprotect(map, PAGE_BYTES, PROT_NONE) == 0);
    ASSERT(mprotect(map + PAGE_BYTES + EMU_ARENA_BYTES, PAGE_BYTES, PROT_NONE) == 0);
    worker->arena = map + PAGE_BYTES;
    worker->view.shared_dynamic = worker->arena + EMU_DYNAMIC_ADDRESS;
}

void emu_shared_destroy(struct emu_worker *worker)
{
    munmap(worker->arena - PAGE_BYTES, EMU_ARENA_BYTES + 2 * PAGE_BYTES);
}

void emu_poison(void *at, size_t size)
{
    size_t phase = (uintptr_t)at % POISON_BYTES;
    uint8_t *to = at;
    for (size_t i = 0; i < size && (phase + i) % POISON_BYTES != 0; i++)
        to[i] = poison[phase + i];
    size_t done = (POISON_BYTES - phase) % POISON_BYTES;
    for (; done + POISON_BYTES <= size; done += POISON_BYTES)
        memcpy(to + done, poison, POISON_BYTES);
    for (size_t i = done; i < size; i++)
        to[i] = poison[i - done];
}

bool emu_is_poison_8(const void *at)
{
    return memcmp(at, poison + ((uintptr_t)at & 8), 8) == 0;
}

void emu_shared_begin(struct emu_worker *worker)
{
    uint32_t bytes = worker->launch->shared_bytes;
    emu_poison(worker->view.shared_dynamic, bytes);
    memset(worker->view.shared_dynamic + bytes, RED, EMU_RED_ZONE);
    memset(worker->view.shared_dynamic - EMU_RED_ZONE, RED, EMU_RED_ZONE);
    worker->n_static = 0;
    worker->static_bytes = 0;
    worker->static_low = EMU_ARENA_BYTES;
}

void *emu_shared_static(const void *key, size_t size, const char *name)
{
    struct emu_worker *worker = emu_worker;
    for (uint32_t i = 0; i < worker->n_static; i++)
        if (worker->statics[i].key == key)
            return worker->arena + worker->statics[i].address;
    uint32_t rounded = ((uint32_t)size + 15u) & ~15u;
    worker->static_bytes += rounded;
    if (worker->static_bytes > EMU_STATIC_MAX)
        emu_fail("%u bytes of static shared memory with %s: at most %u", worker->static_bytes, name,
                 EMU_STATIC_MAX);
    bool not_asked = worker->launch->shared_not_asked;
    uint32_t limit = not_asked ? EMU_NOT_ASKED_MAX : emu_shared_limit(worker->options.target);
    if (worker->static_bytes + worker->launch->shared_bytes > limit)
        emu_fail("%u bytes of static and %u of dynamic shared memory: a block of sm_%u has %u%s",
                 worker->static_bytes, worker->launch->shared_bytes, worker->options.target, limit,
                 not_asked ? " unless more is asked for" : "");
    ASSERT(worker->n_static < sizeof worker->statics / sizeof worker->statics[0]);
    worker->static_low -= rounded + EMU_STATIC_RED_ZONE;
    uint8_t *at = worker->arena + worker->static_low;
    emu_poison(at, rounded);
    memset(at + size, RED, rounded - size + EMU_STATIC_RED_ZONE);
    emu_race_fresh(worker, worker->static_low, rounded + EMU_STATIC_RED_ZONE);
    worker->statics[worker->n_static++] = (struct emu_static){worker->static_low, (uint32_t)size, key, name};
    return at;
}

static void check_red(const uint8_t *from, size_t size, const char *where)
{
    for (size_t i = 0; i < size; i++)
        if (from[i] != RED)
            emu_fail("a thread wrote past the end of shared memory: byte %zu after %s", i, where);
}

void emu_shared_end(struct emu_worker *worker)
{
    uint32_t bytes = worker->launch->shared_bytes;
    emu_now = NULL; /* nobody knows which thread it was */
    check_red(worker->view.shared_dynamic + bytes, EMU_RED_ZONE, "the dynamic part");
    check_red(worker->view.shared_dynamic - EMU_RED_ZONE, EMU_RED_ZONE,
              "the byte 256 before the dynamic part");
    for (uint32_t i = 0; i < worker->n_static; i++) {
        const struct emu_static *s = &worker->statics[i];
        check_red(worker->arena + s->address + s->size, EMU_STATIC_RED_ZONE, s->name);
    }
}

bool emu_is_shared(const void *pointer)
{
    const uint8_t *at = pointer;
    return at >= emu_worker->arena && at < emu_worker->arena + EMU_ARENA_BYTES;
}

uint32_t emu_shared_address(const void *pointer)
{
    if (!emu_is_shared(pointer))
        emu_fail("%p is no address of shared memory", pointer);
    return (uint32_t)((const uint8_t *)pointer - emu_worker->arena);
}

void emu_shared_check(const void *pointer, size_t size, const char *what)
{
    const struct emu_worker *worker = emu_worker;
    uint32_t address = emu_shared_address(pointer);
    uint32_t dynamic_end = EMU_DYNAMIC_ADDRESS + worker->launch->shared_bytes;
    if (address >= EMU_DYNAMIC_ADDRESS && address + size <= dynamic_end)
        return;
    for (uint32_t i = 0; i < worker->n_static; i++) {
        const struct emu_static *s = &worker->statics[i];
        if (address >= s->address && address + size <= s->address + s->size)
            return;
    }
    emu_fail("%s: %zu bytes at shared address %u are outside the block's shared memory (dynamic: %u..%u)",
             what, size, address, EMU_DYNAMIC_ADDRESS, dynamic_end);
}
