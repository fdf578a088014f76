/* What is put off until a thread holds nothing: a loop opens a place for the length of a turn, whoever is
 * called in it under whatever locks adds to it, and the turn's end runs what has come, so that it needs no
 * other thread. Each thread has its own; turns may lie in one another, and the outermost one's end runs. */
#pragma once

#include <stdbool.h>

struct deferred_item {
    struct deferred_item *next;
    void (*run)(struct deferred_item *item); /* the last touch: the item may be freed in it */
};

void deferred_begin(void);
/* Runs in the order of adding; what they add runs, too. */
void deferred_end(void);
/* False: this thread is in no turn, and somebody else must do it. An item is added once until it runs. */
bool deferred_add(struct deferred_item *item);
