/* The flusher with a transport of threads in place of gRPC: every item's messages go out in order, one at a
 * time, and none is forgotten. (It needs base/ alone, so that ThreadSanitizer sees it too.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include "base/assert.h"
#include "base/ring.h"
#include "proto/flusher.h"

enum { N_ITEMS = 64, N_MESSAGES = 300, N_SENDERS = 3, RING_CAPACITY = 256 };

struct world;

struct item {
    struct flush_item flush;
    struct world *world;
    _Atomic uint32_t produced; /* by the test's thread */
    uint32_t sent;             /* the owner's: plain, so that a second owner at once is a race */
    _Atomic bool in_pump, let_go;
    _Atomic int holds;      /* beside the flusher's own */
    bool news_while_pumped; /* each message comes at the worst moment: when pump has found nothing and not yet
                               said so */
};

struct world {
    struct event_count progress, sending, finished;
    struct flusher *flusher;
    struct mpsc_ring *sends; /* of struct item * */
    pthread_mutex_t mutex;   /* makes several senders one consumer */
    _Atomic bool ends;
    _Atomic uint32_t n_let_go;
    struct item items[N_ITEMS];
    pthread_t senders[N_SENDERS];
};

static enum pump_result pump(struct flush_item *flush)
{
    struct item *item = (struct item *)flush;
    ASSERT(!atomic_exchange(&item->in_pump, true));
    enum pump_result result = PUMP_IDLE;
    if (item->sent == N_MESSAGES) {
        result = PUMP_DONE;
    } else if (item->sent < atomic_load(&item->produced)) {
        item->sent++;
        result = PUMP_SENDING;
    } else if (item->news_while_pumped) {
        atomic_fetch_add(&item->produced, 1);
        flush_item_pump(item->world->flusher, flush); /* as another thread would */
    }
    atomic_store(&item->in_pump, false);
    if (result == PUMP_SENDING) {
        bool pushed = mpsc_ring_push(item->world->sends, &item);
        ASSERT(pushed);
        event_count_bump(&item->world->sending);
    }
    return result;
}

static void let_go(struct flush_item *flush)
{
    struct item *item = (struct item *)flush;
    if (atomic_fetch_sub(&item->holds, 1) > 0)
        return;
    ASSERT(!atomic_exchange(&item->let_go, true));
    atomic_fetch_add(&item->world->n_let_go, 1);
    event_count_bump(&item->world->finished);
}

static void hold(struct flush_item *flush)
{
    atomic_fetch_add(&((struct item *)flush)->holds, 1);
}

static void *sender_main(void *argument)
{
    struct world *world = argument;
    while (!atomic_load(&world->ends)) {
        uint32_t seen = event_count_read(&world->sending);
        struct item *item;
        pthread_mutex_lock(&world->mutex);
        bool any = mpsc_ring_pop(world->sends, &item);
        pthread_mutex_unlock(&world->mutex);
        if (any)
            flush_item_sent(world->flusher, &item->flush);
        else if (!atomic_load(&world->ends))
            event_count_wait(&world->sending, seen, -1);
    }
    return NULL;
}

static void world_open(struct world *world, int64_t interval_ns)
{
    assert_int_equal(mpsc_ring_create(sizeof(struct item *), RING_CAPACITY, &world->sends).code, ERR_OK);
    assert_int_equal(flusher_create(&world->progress, clock_monotonic(), &world->flusher).code, ERR_OK);
    pthread_mutex_init(&world->mutex, NULL);
    for (int i = 0; i < N_SENDERS; i++)
        assert_int_equal(pthread_create(&world->senders[i], NULL, sender_main, world), 0);
    for (int i = 0; i < N_ITEMS; i++) {
        world->items[i].world = world;
        world->items[i].flush.pump = pump;
        world->items[i].flush.let_go = let_go;
        world->items[i].flush.interval_ns = interval_ns;
    }
}

static void world_close(struct world *world)
{
    for (;;) {
        uint32_t seen = event_count_read(&world->finished);
        if (atomic_load(&world->n_let_go) == N_ITEMS)
            break;
        (void)event_count_wait(&world->finished, seen, -1);
    }
    atomic_store(&world->ends, true);
    event_count_bump(&world->sending);
    for (int i = 0; i < N_SENDERS; i++)
        pthread_join(world->senders[i], NULL);
    flusher_destroy(world->flusher);
    mpsc_ring_destroy(world->sends);
    pthread_mutex_destroy(&world->mutex);
    for (int i = 0; i < N_ITEMS; i++)
        assert_int_equal(world->items[i].sent, N_MESSAGES);
}

static void progress_moves_every_item(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 0);
    for (int i = 0; i < N_ITEMS; i++)
        flusher_add(world.flusher, &world.items[i].flush);
    for (uint32_t message = 0; message < N_MESSAGES; message++) {
        for (int i = 0; i < N_ITEMS; i++)
            atomic_fetch_add(&world.items[i].produced, 1);
        event_count_bump(&world.progress); /* once a step */
        if (message % 16 == 0)
            flush_item_pump(world.flusher, &world.items[message % N_ITEMS].flush); /* as a cancel does */
    }
    world_close(&world);
}

/* What was there before an item was added is not waited for. */
static void late_items_start_at_once(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 0);
    for (int i = 0; i < N_ITEMS; i++) {
        atomic_store(&world.items[i].produced, N_MESSAGES);
        flusher_add(world.flusher, &world.items[i].flush);
    }
    world_close(&world);
}

static void news_during_a_pump_are_not_forgotten(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 0);
    for (int i = 0; i < N_ITEMS; i++) {
        world.items[i].news_while_pumped = true;
        flusher_add(world.flusher, &world.items[i].flush);
    }
    world_close(&world);
}

/* Watchers are pumped by their time alone, and by flusher_pump_all. */
static void watchers_are_pumped_in_time(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 1000000);
    for (int i = 0; i < N_ITEMS; i++)
        flusher_add(world.flusher, &world.items[i].flush);
    for (int i = 0; i < N_ITEMS; i++)
        atomic_store(&world.items[i].produced, N_MESSAGES);
    world_close(&world);
}

static void pump_all_reaches_watchers(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, INT64_C(3600000000000));
    for (int i = 0; i < N_ITEMS; i++)
        flusher_add(world.flusher, &world.items[i].flush);
    for (int i = 0; i < N_ITEMS; i++)
        atomic_store(&world.items[i].produced, N_MESSAGES);
    flusher_pump_all(world.flusher);
    world_close(&world);
}

static void add_watched(struct world *world)
{
    memset(world, 0, sizeof *world);
    world_open(world, 0);
    for (int i = 0; i < N_ITEMS; i++) {
        flush_item_watch(world->flusher, &world->items[i].flush, hold);
        if (i % 2 == 0)
            flush_item_wake(&world->items[i].flush); /* as a service may before the item is added */
        flusher_add(world->flusher, &world->items[i].flush);
    }
}

static void wake_all(struct world *world)
{
    for (int i = 0; i < N_ITEMS; i++) {
        atomic_fetch_add(&world->items[i].produced, 1);
        flush_item_wake(&world->items[i].flush);
    }
}

/* Progress says nothing of them, and each wake alone is enough. */
static void watched_items_are_woken_one_by_one(void **state)
{
    (void)state;
    static struct world world;
    add_watched(&world);
    event_count_bump(&world.progress);
    for (int message = 0; message < N_MESSAGES; message++)
        wake_all(&world);
    world_close(&world);
}

/* The waking thread pumps them itself when its turn ends, and not before. */
static void watched_items_are_pumped_at_a_turns_end(void **state)
{
    (void)state;
    static struct world world;
    add_watched(&world);
    for (int message = 0; message < N_MESSAGES; message++) {
        deferred_begin();
        deferred_begin(); /* the outer one counts */
        wake_all(&world);
        deferred_end();
        deferred_end();
    }
    world_close(&world);
}

static void pump_all_reaches_watched_items(void **state)
{
    (void)state;
    static struct world world;
    add_watched(&world);
    for (int i = 0; i < N_ITEMS; i++)
        atomic_store(&world.items[i].produced, N_MESSAGES);
    flusher_pump_all(world.flusher);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_moves_every_item),
        cmocka_unit_test(late_items_start_at_once),
        cmocka_unit_test(news_during_a_pump_are_not_forgotten),
        cmocka_unit_test(watchers_are_pumped_in_time),
        cmocka_unit_test(pump_all_reaches_watchers),
        cmocka_unit_test(watched_items_are_woken_one_by_one),
        cmocka_unit_test(watched_items_are_pumped_at_a_turns_end),
        cmocka_unit_test(pump_all_reaches_watched_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
