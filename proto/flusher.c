#include "proto/flusher.h"

#include <pthread.h>
#include <stddef.h>
#include "base/alloc.h"
#include "base/assert.h"

enum { ITEM_OWNED = 1u, ITEM_LOOK_AGAIN = 2u };
#define PUMP_ALL_TIMEOUT_NS INT64_C(1000000000)

TAILQ_HEAD(flush_list, flush_item);

struct flusher {
    struct event_count *progress;
    const struct clock *clock;
    pthread_t thread;
    pthread_mutex_t mutex; /* of what follows */
    struct flush_item *added;
    struct flush_list watched, woken; /* woken: each held */
    uint32_t n_deferred;              /* on other threads, each held */
    pthread_cond_t none_deferred;

    struct flush_item *items; /* the thread's: those that are not watched */
    _Atomic bool ends;
    _Atomic uint32_t pump_all_asked; /* count */
    uint32_t pump_all_seen;
    struct event_count pump_all_done;
};

/* The list's last touch. Whoever looks at the item holds it. */
static void drop_watched(struct flusher *flusher, struct flush_item *item)
{
    pthread_mutex_lock(&flusher->mutex);
    TAILQ_REMOVE(&flusher->watched, item, watched_link);
    pthread_mutex_unlock(&flusher->mutex);
    item->let_go(item);
}

/* The caller owns the item. */
static void pump_owned(struct flusher *flusher, struct flush_item *item)
{
    for (;;) {
        atomic_store(&item->state, ITEM_OWNED);
        enum pump_result result = item->pump(item);
        if (result == PUMP_SENDING)
            return; /* stays owned */
        if (result == PUMP_DONE) {
            if (item->hold) {
                drop_watched(flusher, item);
                return;
            }
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

/* Somebody has held the item for this. */
static void pump_woken_item(struct flusher *flusher, struct flush_item *item)
{
    atomic_store(&item->is_woken, false); /* first: what comes from now on wakes it again */
    flush_item_pump(flusher, item);
    item->let_go(item);
}

static void run_deferred(struct deferred_item *deferred)
{
    struct flush_item *item = (struct flush_item *)((char *)deferred - offsetof(struct flush_item, deferred));
    struct flusher *flusher = item->flusher;
    pump_woken_item(flusher, item);
    pthread_mutex_lock(&flusher->mutex);
    if (--flusher->n_deferred == 0)
        pthread_cond_signal(&flusher->none_deferred);
    pthread_mutex_unlock(&flusher->mutex);
}

void flush_item_watch(struct flusher *flusher, struct flush_item *item, void (*hold)(struct flush_item *item))
{
    item->flusher = flusher;
    item->hold = hold;
    item->deferred.run = run_deferred;
    atomic_store(&item->state, ITEM_OWNED); /* by who adds it */
}

void flush_item_wake(struct flush_item *item)
{
    struct flusher *flusher = item->flusher;
    if (atomic_exchange(&item->is_woken, true))
        return;
    item->hold(item);
    pthread_mutex_lock(&flusher->mutex);
    bool is_deferred = deferred_add(&item->deferred);
    if (is_deferred)
        flusher->n_deferred++;
    else
        TAILQ_INSERT_TAIL(&flusher->woken, item, woken_link);
    pthread_mutex_unlock(&flusher->mutex);
    if (!is_deferred)
        event_count_bump(flusher->progress);
}

void flush_item_sent(struct flusher *flusher, struct flush_item *item)
{
    pump_owned(flusher, item);
}

static void add_watched(struct flusher *flusher, struct flush_item *item)
{
    pthread_mutex_lock(&flusher->mutex);
    TAILQ_INSERT_TAIL(&flusher->watched, item, watched_link);
    pthread_mutex_unlock(&flusher->mutex);
    pump_owned(flusher, item);
}

void flusher_add(struct flusher *flusher, struct flush_item *item)
{
    if (item->hold) {
        add_watched(flusher, item);
        return;
    }
    pthread_mutex_lock(&flusher->mutex);
    item->next = flusher->added;
    flusher->added = item;
    pthread_mutex_unlock(&flusher->mutex);
    if (item->interval_ns > 0)
        event_count_bump(flusher->progress); /* there may be an earlier time to wake up at */
    flush_item_pump(flusher, item);
}

/* One that is woken already is pumped by whoever was told. */
static void wake_all_watched(struct flusher *flusher)
{
    struct flush_item *item;
    pthread_mutex_lock(&flusher->mutex);
    TAILQ_FOREACH(item, &flusher->watched, watched_link)
    {
        if (atomic_exchange(&item->is_woken, true))
            continue;
        item->hold(item);
        TAILQ_INSERT_TAIL(&flusher->woken, item, woken_link);
    }
    pthread_mutex_unlock(&flusher->mutex);
}

static void pump_woken(struct flusher *flusher)
{
    struct flush_list taken = TAILQ_HEAD_INITIALIZER(taken);
    pthread_mutex_lock(&flusher->mutex);
    TAILQ_CONCAT(&taken, &flusher->woken, woken_link);
    pthread_mutex_unlock(&flusher->mutex);
    for (struct flush_item *item = TAILQ_FIRST(&taken), *next; item; item = next) {
        next = TAILQ_NEXT(item, woken_link); /* it may be woken again, or freed */
        pump_woken_item(flusher, item);
    }
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
        if (asked != flusher->pump_all_seen)
            wake_all_watched(flusher);
        pump_woken(flusher);
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
    pthread_cond_init(&flusher->none_deferred, NULL);
    TAILQ_INIT(&flusher->watched);
    TAILQ_INIT(&flusher->woken);
    if (pthread_create(&flusher->thread, NULL, flusher_main, flusher) != 0) {
        pthread_cond_destroy(&flusher->none_deferred);
        pthread_mutex_destroy(&flusher->mutex);
        mem_free(flusher);
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start the flusher's thread");
    }
    (void)pthread_setname_np(flusher->thread, "bantam-flusher");
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
    pthread_mutex_lock(&flusher->mutex);
    while (flusher->n_deferred > 0)
        pthread_cond_wait(&flusher->none_deferred, &flusher->mutex);
    pthread_mutex_unlock(&flusher->mutex);
    ASSERT(!flusher->items && !flusher->added);
    ASSERT(TAILQ_EMPTY(&flusher->watched) && TAILQ_EMPTY(&flusher->woken));
    pthread_cond_destroy(&flusher->none_deferred);
    pthread_mutex_destroy(&flusher->mutex);
    mem_free(flusher);
}
