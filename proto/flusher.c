#include "proto/flusher.h"

#include <pthread.h>
#include "base/alloc.h"
#include "base/assert.h"

enum { ITEM_OWNED = 1u, ITEM_LOOK_AGAIN = 2u };
#define PUMP_ALL_TIMEOUT_NS INT64_C(1000000000)

struct flusher {
    struct event_count *progress;
    const struct clock *clock;
    pthread_t thread;
    pthread_mutex_t mutex; /* of `added` */
    struct flush_item *added;
    struct flush_item *items; /* the thread's */
    _Atomic bool ends;
    _Atomic uint32_t pump_all_asked; /* count */
    uint32_t pump_all_seen;
    struct event_count pump_all_done;
};

/* The caller owns the item. */
static void pump_owned(struct flusher *flusher, struct flush_item *item)
{
    for (;;) {
        atomic_store(&item->state, ITEM_OWNED);
        enum pump_result result = item->pump(item);
        if (result == PUMP_SENDING)
            return; /* stays owned */
        if (result == PUMP_DONE) {
            atomic_store(&item->done, true); /* owned for ever; from here on it may be freed */
            event_count_bump(flusher->progress);
            return;
        }
        uint32_t owned = ITEM_OWNED;
        if (atomic_compare_exchange_strong(&item->state, &owned, 0))
            return;
    }
}

void flush_item_pump(struct flusher *flusher, struct flush_item *item)
{
    if ((atomic_fetch_or(&item->state, ITEM_OWNED | ITEM_LOOK_AGAIN) & ITEM_OWNED) == 0)
        pump_owned(flusher, item);
}

void flush_item_wake(struct flusher *flusher, struct flush_item *item)
{
    if (!atomic_exchange(&item->is_woken, true))
        event_count_bump(flusher->progress);
}

void flush_item_sent(struct flusher *flusher, struct flush_item *item)
{
    pump_owned(flusher, item);
}

void flusher_add(struct flusher *flusher, struct flush_item *item)
{
    pthread_mutex_lock(&flusher->mutex);
    item->next = flusher->added;
    flusher->added = item;
    pthread_mutex_unlock(&flusher->mutex);
    if (item->interval_ns > 0)
        event_count_bump(flusher->progress); /* there may be an earlier time to wake up at */
    flush_item_pump(flusher, item);
}

static void take_added(struct flusher *flusher)
{
    pthread_mutex_lock(&flusher->mutex);
    struct flush_item *item = flusher->added;
    flusher->added = NULL;
    pthread_mutex_unlock(&flusher->mutex);
    while (item) {
        struct flush_item *next = item->next;
        item->next = flusher->items;
        flusher->items = item;
        if (item->interval_ns > 0)
            item->due_ns = clock_now_ns(flusher->clock) + item->interval_ns;
        item = next;
    }
}

static bool is_due(struct flush_item *item, int64_t now_ns)
{
    if (item->is_watched)
        return atomic_load(&item->is_woken) && atomic_exchange(&item->is_woken, false);
    return item->interval_ns == 0 || item->due_ns <= now_ns;
}

/* Pumps what is due; returns the time of the next watcher, INT64_MAX = none. */
static int64_t pump_items(struct flusher *flusher, bool all)
{
    int64_t now_ns = clock_now_ns(flusher->clock), next_ns = INT64_MAX;
    for (struct flush_item **link = &flusher->items; *link;) {
        struct flush_item *item = *link;
        if (atomic_load(&item->done)) {
            *link = item->next;
            item->let_go(item);
            continue;
        }
        if (is_due(item, now_ns) || all)
            flush_item_pump(flusher, item);
        if (item->interval_ns > 0) {
            if (item->due_ns <= now_ns)
                item->due_ns = now_ns + item->interval_ns;
            next_ns = item->due_ns < next_ns ? item->due_ns : next_ns;
        }
        link = &item->next;
    }
    return next_ns;
}

static void *flusher_main(void *argument)
{
    struct flusher *flusher = argument;
    for (;;) {
        uint32_t seen = event_count_read(flusher->progress);
        bool ends = atomic_load(&flusher->ends);
        uint32_t asked = atomic_load(&flusher->pump_all_asked);
        take_added(flusher);
        int64_t next_ns = pump_items(flusher, asked != flusher->pump_all_seen);
        if (asked != flusher->pump_all_seen) {
            flusher->pump_all_seen = asked;
            event_count_bump(&flusher->pump_all_done);
        }
        if (ends)
            return NULL;
        int64_t timeout_ns = next_ns == INT64_MAX ? -1 : next_ns - clock_now_ns(flusher->clock);
        if (next_ns == INT64_MAX || timeout_ns > 0)
            event_count_wait(flusher->progress, seen, timeout_ns);
    }
}

void flusher_pump_all(struct flusher *flusher)
{
    uint32_t seen = event_count_read(&flusher->pump_all_done);
    atomic_fetch_add(&flusher->pump_all_asked, 1);
    event_count_bump(flusher->progress);
    event_count_wait(&flusher->pump_all_done, seen, PUMP_ALL_TIMEOUT_NS);
}

err_t flusher_create(struct event_count *progress, const struct clock *clock, struct flusher **out)
{
    struct flusher *flusher = mem_alloc(sizeof *flusher);
    if (!flusher)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the flusher");
    flusher->progress = progress;
    flusher->clock = clock;
    pthread_mutex_init(&flusher->mutex, NULL);
    if (pthread_create(&flusher->thread, NULL, flusher_main, flusher) != 0) {
        pthread_mutex_destroy(&flusher->mutex);
        mem_free(flusher);
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start the flusher's thread");
    }
    *out = flusher;
    return err_ok();
}

void flusher_destroy(struct flusher *flusher)
{
    if (!flusher)
        return;
    atomic_store(&flusher->ends, true);
    event_count_bump(flusher->progress);
    pthread_join(flusher->thread, NULL);
    ASSERT(!flusher->items && !flusher->added);
    pthread_mutex_destroy(&flusher->mutex);
    mem_free(flusher);
}
