/* The thread that moves what services produce into streams: it waits for the service's progress event (or for
 * a watcher's time) and pumps every item once; items that are watched are looked at when they are woken, and
 * no others with them. An item is pumped by one thread at a time, which owns it until its send is done; so it
 * also goes on by itself as fast as its reader takes, without the flusher. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include "base/clock.h"
#include "base/deferred.h"
#include "base/error.h"
#include "base/event_count.h"

struct flusher;

enum pump_result {
    PUMP_IDLE,    /* nothing to send now */
    PUMP_SENDING, /* a send was begun; flush_item_sent follows */
    PUMP_DONE,    /* finished: never pump again */
};

struct flush_item {
    enum pump_result (*pump)(struct flush_item *item);
    void (*let_go)(struct flush_item *item); /* the flusher's last touch; the item may be freed in it */
    int64_t interval_ns;                     /* > 0: pumped at that interval; 0: at every progress */

    _Atomic uint32_t state;
    _Atomic bool done;
    int64_t due_ns;          /* the flusher's */
    struct flush_item *next; /* the flusher's */

    /* Of one that is watched; flush_item_watch sets them. */
    struct flusher *flusher;
    void (*hold)(struct flush_item *item); /* one more will let it go; under any lock */
    _Atomic bool is_woken;
    struct deferred_item deferred;
    TAILQ_ENTRY(flush_item) watched_link, woken_link; /* under the flusher's lock */
};

/* progress, clock: borrowed. */
err_t flusher_create(struct event_count *progress, const struct clock *clock,
                     struct flusher **out) ERR_MUST_CHECK;
/* Every item must have been let go. */
void flusher_destroy(struct flusher *flusher);

/* Before it is added, and before anybody may wake it: it is pumped when it was woken, at the end of the
 * waking thread's turn where that has one (deferred.h), else by the flusher; and not before it is added. */
void flush_item_watch(struct flusher *flusher, struct flush_item *item,
                      void (*hold)(struct flush_item *item));
/* Any thread. The item is pumped at once by the caller, then by the flusher. */
void flusher_add(struct flusher *flusher, struct flush_item *item);
/* Any thread: pumps, unless another thread is at it, which then looks again. */
void flush_item_pump(struct flusher *flusher, struct flush_item *item);
/* Any thread, under any lock, while nobody has let it go: there is something for one that is watched. */
void flush_item_wake(struct flush_item *item);
/* The send begun by pump is done. */
void flush_item_sent(struct flusher *flusher, struct flush_item *item);
/* Pumps all items, watchers too, and returns when that was done, or after a second. Not from pump. */
void flusher_pump_all(struct flusher *flusher);
