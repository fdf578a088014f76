#include "tests/cuda/emulator/emu_race.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "tests/cuda/emulator/emu_global.h"
#include "tests/cuda/emulator/emu_numbers.h"

enum { NOBODY = 0xffff, READERS = 2, SAME_BYTES_MAX = 16 };
enum { BY_ATOMIC = 1, BY_ASYNC = 2, UNDER_WAY = 4 };

/* What happened to a byte; an epoch is the clock of the thread at the access. */
struct cell {
    uint32_t write_epoch, read_epoch[READERS];
    uint16_t writer, reader[READERS];
    uint16_t state;
};

struct emu_race {
    uint32_t n; /* threads of the block: length of a clock */
    /* [n]: what all knew of each as they left the last barrier of the whole block */
    uint32_t *common;
    uint32_t *epochs;                       /* [n]: what each knows of itself */
    uint32_t *threads;                      /* [n][n]: what each knows of each, if it knows more */
    uint32_t *fences;                       /* [n][n]: what it knew at its last fence_async_proxy() */
    uint32_t *clocks;                       /* [EMU_CLOCKS][n] */
    uint32_t n_commons;                     /* how many values `common` has had */
    uint32_t has_common[EMU_CLOCKS];        /* the one that the clock was joined with */
    bool is_set[EMU_CLOCKS];                /* else the clock is 0 */
    bool knows_more[EMU_BLOCK_THREADS_MAX]; /* than `common` */
    bool has_fenced[EMU_BLOCK_THREADS_MAX];
    bool is_behind_front[EMU_BLOCK_THREADS_MAX]; /* by what it knew at an access */
    uint32_t waited[EMU_BLOCK_THREADS_MAX];      /* when it was in dependencies_wait(); 0: not yet */
    struct same_write {
        uint32_t address, size; /* size 0: none */
        uint16_t thread, other;
        uint8_t bytes[SAME_BYTES_MAX]; /* before it */
    } same;
    struct cell cells[EMU_ARENA_BYTES];
};

static struct emu_race *race_now(void)
{
    struct emu_worker *worker = emu_worker;
    return worker != NULL && worker->checks_races ? worker->race : NULL;
}

void emu_race_destroy(struct emu_worker *worker)
{
    if (worker->race == NULL)
        return;
    free(worker->race->common);
    free(worker->race->epochs);
    free(worker->race->threads);
    free(worker->race->fences);
    free(worker->race->clocks);
    free(worker->race);
}

static void *of_max_threads(size_t rows)
{
    void *at = calloc(rows * EMU_BLOCK_THREADS_MAX, sizeof(uint32_t));
    ASSERT(at != NULL);
    return at;
}

void emu_race_begin(struct emu_worker *worker)
{
    worker->checks_races = worker->launch->kernel->checked;
    if (!worker->checks_races)
        return;
    if (worker->race == NULL) {
        worker->race = malloc(sizeof *worker->race);
        ASSERT(worker->race != NULL);
        memset(worker->race->cells, 0xff, sizeof worker->race->cells);
        worker->race->common = of_max_threads(1);
        worker->race->epochs = of_max_threads(1);
        worker->race->threads = of_max_threads(EMU_BLOCK_THREADS_MAX);
        worker->race->fences = of_max_threads(EMU_BLOCK_THREADS_MAX);
        worker->race->clocks = of_max_threads(EMU_CLOCKS);
    }
    struct emu_race *race = worker->race;
    size_t n = race->n = worker->view.n_threads;
    memset(race->common, 0, n * sizeof *race->common);
    race->n_commons = 1;
    memset(race->has_common, 0, sizeof race->has_common);
    memset(race->is_set, 0, sizeof race->is_set);
    memset(race->knows_more, 0, n * sizeof *race->knows_more);
    memset(race->has_fenced, 0, n * sizeof *race->has_fenced);
    memset(race->is_behind_front, 0, n * sizeof *race->is_behind_front);
    memset(race->waited, 0, n * sizeof *race->waited);
    for (size_t t = 0; t < n; t++)
        race->epochs[t] = 1;
    race->same.size = 0;
    emu_race_fresh(worker, EMU_DYNAMIC_ADDRESS, worker->launch->shared_bytes);
}

void emu_race_fresh(struct emu_worker *worker, uint32_t address, uint32_t size)
{
    if (worker->checks_races)
        memset(worker->race->cells + address, 0xff, size * sizeof(struct cell));
}

/* ---- Clocks ---- */

EMU_CLONES static void clock_join(uint32_t *restrict to, const uint32_t *restrict from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = to[i] < from[i] ? from[i] : to[i];
}

/* What a thread knows of the others. */
static const uint32_t *knowledge(const struct emu_race *race, uint32_t thread)
{
    return race->knows_more[thread] ? race->threads + (size_t)thread * race->n : race->common;
}

/* The same for what it is to learn, its own entry too. */
static uint32_t *own_knowledge(struct emu_race *race, uint32_t thread)
{
    uint32_t *own = race->threads + (size_t)thread * race->n;
    if (!race->knows_more[thread])
        memcpy(own, race->common, race->n * sizeof *own);
    race->knows_more[thread] = true;
    own[thread] = race->epochs[thread];
    return own;
}

void emu_race_release(uint32_t clock)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    uint32_t thread = emu_now->index, *row = race->clocks + (size_t)clock * race->n;
    if (!race->is_set[clock])
        memset(row, 0, race->n * sizeof *row);
    race->is_set[clock] = true;
    if (race->knows_more[thread] || race->has_common[clock] != race->n_commons)
        clock_join(row, knowledge(race, thread), race->n);
    if (!race->knows_more[thread])
        race->has_common[clock] = race->n_commons;
    row[thread] = race->epochs[thread]++;
}

void emu_race_acquire(uint32_t thread, uint32_t clock)
{
    struct emu_race *race = race_now();
    if (race != NULL && race->is_set[clock])
        clock_join(own_knowledge(race, thread), race->clocks + (size_t)clock * race->n, race->n);
}

void emu_race_acquire_all(uint32_t clock)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    memcpy(race->common, race->clocks + (size_t)clock * race->n, race->n * sizeof *race->common);
    race->n_commons++;
    memset(race->knows_more, 0, race->n * sizeof *race->knows_more);
    emu_race_clear(clock);
}

void emu_race_clear(uint32_t clock)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    race->is_set[clock] = false;
    race->has_common[clock] = 0;
}

void emu_race_warp_sync(const struct emu_warp *warp)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    uint32_t all[EMU_BLOCK_THREADS_MAX] = {0}, first = warp->threads[0].view.index;
    for (uint32_t t = first; t < first + EMU_LANES; t++)
        clock_join(all, own_knowledge(race, t), race->n);
    for (uint32_t t = first; t < first + EMU_LANES; t++) {
        memcpy(own_knowledge(race, t), all, race->n * sizeof *all);
        race->epochs[t]++;
    }
}

void emu_race_fence_async(void)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    uint32_t thread = emu_now->index, *fence = race->fences + (size_t)thread * race->n;
    memcpy(fence, knowledge(race, thread), race->n * sizeof *fence);
    fence[thread] = race->epochs[thread]++;
    race->has_fenced[thread] = true;
}

/* What a thread knew of another at its last fence. */
static uint32_t fenced(const struct emu_race *race, uint32_t thread, uint32_t of)
{
    return race->has_fenced[thread] ? race->fences[(size_t)thread * race->n + of] : 0;
}

/* Of a thread that runs; the compiler reports fences of others too. */
void emu_race_fence_device(void)
{
    struct emu_race *race = emu_now != NULL ? race_now() : NULL;
    if (race == NULL)
        return;
    emu_global_fence(emu_worker, own_knowledge(race, emu_now->index), race->n);
    race->epochs[emu_now->index]++;
}

/* ---- The launch in front ---- */

static const char *const access_names[] = {
    [EMU_READ] = "reads", [EMU_WRITE] = "writes", [EMU_ATOMIC] = "updates"};

void emu_race_waited(void)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    race->is_behind_front[emu_now->index] = true;
    if (race->waited[emu_now->index] == 0)
        race->waited[emu_now->index] = race->epochs[emu_now->index];
}

static bool is_behind_front(struct emu_race *race, uint32_t thread)
{
    const uint32_t *own = knowledge(race, thread);
    for (uint32_t t = 0; t < race->n && !race->is_behind_front[thread]; t++)
        race->is_behind_front[thread] = race->waited[t] != 0 && own[t] >= race->waited[t];
    return race->is_behind_front[thread];
}

void emu_race_check_front(const void *at, size_t size, enum emu_access access)
{
    struct emu_race *race = race_now();
    const struct emu_launch *launch = emu_worker->launch;
    if (race == NULL || !launch->dependent || race->is_behind_front[emu_now->index])
        return;
    bool is_late = access != EMU_READ;
    for (size_t i = 0; i < launch->n_late && !is_late; i++) {
        uintptr_t begin = (uintptr_t)launch->late[i].at, end = begin + launch->late[i].bytes;
        is_late = (uintptr_t)at < end && (uintptr_t)at + size > begin;
    }
    if (is_late && !is_behind_front(race, emu_now->index))
        emu_fail("race: %s global address %p, which the launch in front may still %s, and no "
                 "dependencies_wait() stands before",
                 access_names[access], at, access == EMU_READ ? "write" : "use");
}

/* ---- Bytes ---- */

/* Nobody has touched it yet. */
static bool is_fresh(const struct cell *cell)
{
    return cell->state == 0xffff;
}

static void make_touched(struct cell *cell)
{
    if (is_fresh(cell))
        *cell = (struct cell){.writer = NOBODY, .reader = {NOBODY, NOBODY}};
}

/* The running thread, of what another did or itself. */
static bool knows(const uint32_t *others, uint16_t thread, uint32_t epoch)
{
    return thread == NOBODY || thread == emu_now->index || others[thread] >= epoch;
}

static void fail_race(uint32_t address, enum emu_access access, uint16_t other, const char *did)
{
    emu_fail("race: %s shared address %u, which thread %u %s, and no barrier stands between",
             access_names[access], address, other, did);
}

/* Two threads that write the same value harm nobody. An access is reported before it happens, so a write that
 * is not in order is looked at when the next access is reported: it must not have changed anything. */
static void same_note(struct emu_race *race, uint32_t address, size_t size, uint16_t other)
{
    if (size > SAME_BYTES_MAX)
        fail_race(address, EMU_WRITE, other, "wrote");
    race->same = (struct same_write){
        .address = address, .size = (uint32_t)size, .thread = (uint16_t)emu_now->index, .other = other};
    memcpy(race->same.bytes, emu_worker->arena + address, size);
}

static void same_check(struct emu_race *race)
{
    struct same_write *same = &race->same;
    if (same->size > 0 && memcmp(same->bytes, emu_worker->arena + same->address, same->size) != 0) {
        emu_now = &emu_worker->threads[same->thread].view;
        fail_race(same->address, EMU_WRITE, same->other, "wrote");
    }
    same->size = 0;
}

static void check_order(const struct emu_race *race, const struct cell *cell, uint32_t address,
                        enum emu_access access)
{
    const uint32_t *own = knowledge(race, emu_now->index);
    bool both_atomic = access == EMU_ATOMIC && (cell->state & BY_ATOMIC) != 0;
    bool both_plain = access == EMU_WRITE && cell->state == 0;
    if (!both_atomic && !both_plain && !knows(own, cell->writer, cell->write_epoch))
        fail_race(address, access, cell->writer, (cell->state & UNDER_WAY) != 0 ? "copies to" : "wrote");
    for (int i = 0; access != EMU_READ && i < READERS; i++)
        if (!knows(own, cell->reader[i], cell->read_epoch[i]))
            fail_race(address, access, cell->reader[i], "read");
}

static void note_read(struct cell *cell, const uint32_t *own, uint16_t thread, uint32_t epoch)
{
    int i = cell->reader[0] == thread || knows(own, cell->reader[0], cell->read_epoch[0]) ? 0 : 1;
    cell->reader[i] = thread;
    cell->read_epoch[i] = epoch;
}

static void note_write(struct cell *cell, uint16_t thread, uint32_t epoch, uint16_t state)
{
    cell->writer = thread;
    cell->write_epoch = epoch;
    cell->reader[0] = cell->reader[1] = NOBODY;
    cell->state = state;
}

static inline void access_byte(struct emu_race *race, uint32_t address, uint32_t first, size_t size,
                               enum emu_access access, uint16_t state)
{
    uint16_t thread = (uint16_t)emu_now->index;
    const uint32_t *own = knowledge(race, thread);
    struct cell *cell = &race->cells[address];
    make_touched(cell);
    if (access == EMU_WRITE && cell->state == 0 && !knows(own, cell->writer, cell->write_epoch))
        same_note(race, first, size, cell->writer);
    check_order(race, cell, address, access);
    if (access == EMU_READ && (cell->state & UNDER_WAY) != 0)
        emu_fail("reads shared address %u, to which a copy of thread %u is under way", address, cell->writer);
    if (access == EMU_READ)
        note_read(cell, own, thread, race->epochs[thread]);
    else
        note_write(cell, thread, race->epochs[thread], state);
}

/* Bytes that have all the same history, as nearly always, are looked at once. */
static void access_bytes(struct emu_race *race, const void *at, size_t size, enum emu_access access,
                         uint16_t state)
{
    uint32_t first = (uint32_t)((const uint8_t *)at - emu_worker->arena);
    struct cell *cells = &race->cells[first];
    if (size > EMU_ARENA_BYTES - first)
        size = EMU_ARENA_BYTES - first;
    same_check(race);
    if (size > 1 && memcmp(cells, cells + 1, (size - 1) * sizeof *cells) == 0) {
        access_byte(race, first, first, size, access, state);
        for (size_t i = 1; i < size; i++)
            cells[i] = cells[0];
        return;
    }
    for (uint32_t i = first; i < first + size; i++)
        access_byte(race, i, first, size, access, state);
}

void emu_race_access_shared(const void *at, size_t size, enum emu_access access)
{
    access_bytes(emu_worker->race, at, size, access, access == EMU_ATOMIC ? BY_ATOMIC : 0);
}

void emu_race_access_global(const void *at, size_t size, enum emu_access access)
{
    struct emu_race *race = emu_worker->race;
    uint32_t thread = emu_now->index;
    uint32_t *own = race->knows_more[thread] ? race->threads + (size_t)thread * race->n : race->common;
    const uint32_t epoch = own[thread]; /* which is not what it knows of itself now */
    own[thread] = race->epochs[thread];
    emu_global_access(emu_worker, own, race->n, at, size, access);
    own[thread] = epoch;
}

/* What the asynchronous proxy reads or overwrites, and a thread wrote by itself, was fenced: by its writer or
 * by the running thread, who knows of it. */
static void check_proxy(const struct emu_race *race, const void *at, size_t size, const char *does)
{
    const struct cell *cells = &race->cells[(const uint8_t *)at - emu_worker->arena];
    for (size_t i = 0; i < size; i++) {
        uint16_t writer = cells[i].writer;
        if (writer == NOBODY || (cells[i].state & BY_ASYNC) != 0 ||
            fenced(race, emu_now->index, writer) >= cells[i].write_epoch ||
            fenced(race, writer, writer) >= cells[i].write_epoch)
            continue;
        emu_fail("%s what thread %u wrote to shared memory without fence_async_proxy() after it", does,
                 writer);
    }
}

void emu_race_copy(const void *at, size_t size, bool asynchronous)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    if (asynchronous)
        check_proxy(race, at, size, "bulk_copy overwrites");
    access_bytes(race, at, size, EMU_WRITE, UNDER_WAY);
}

void emu_race_landed(uint32_t thread, const void *at, size_t size, bool asynchronous)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    struct cell *cells = &race->cells[(const uint8_t *)at - emu_worker->arena];
    for (size_t i = 0; i < size; i++) {
        if (!asynchronous)
            cells[i].write_epoch = race->epochs[thread];
        cells[i].state = asynchronous ? BY_ASYNC : 0;
    }
}

void emu_race_read_async(const void *at, size_t size)
{
    struct emu_race *race = race_now();
    if (race == NULL)
        return;
    access_bytes(race, at, size, EMU_READ, 0);
    check_proxy(race, at, size, "wgmma reads");
}
