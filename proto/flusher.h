/* The thread that moves what services produce into streams: it waits for the service's progress event (or for
 * a watcher's time) and pumps every item once. An item is pumped by one thread at a time, which owns it until
 * its send is done; so it also goes on by itself as fast as its reader takes, without the flusher. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/clock.h"
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
    bool is_watched;                         /* at progress only when it was woken since */

    _Atomic uint32_t state;
    _Atomic bool done, is_woken;
    int64_t due_ns;          /* the flusher's */
    struct flush_item *next; /* the flusher's */
};

/* progress, clock: borrowed. */
err_t flusher_create(struct event_count *progress, const struct clock *clock,
                     struct flusher **out) ERR_MUST_CHECK;
/* Every item must have been let go. */
void flusher_destroy(struct flusher *flusher);

/* Any thread. The item is pumped at once by the caller, then by the flusher. */
void flusher_add(struct flusher *flusher, struct flush_item *item);
/* Any thread: pumps, unless another thread is at it, which then looks again. */
void flush_item_pump(struct flusher *flusher, struct flush_item *item);
/* Any thread, under any lock: there is something for one that is watched, which the flusher looks at. */
void flush_item_wake(struct flusher *flusher, struct flush_item *item);
/* The send begun by pump is done. */
void flush_item_sent(struct flusher *flusher, struct flush_item *item);
/* Pumps all items, watchers too, and returns when that was done, or after a second. Not from pump. */
void flusher_pump_all(struct flusher *flusher);
