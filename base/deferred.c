#include "base/deferred.h"

#include <stddef.h>
#include "base/assert.h"

static _Thread_local struct {
    struct deferred_item *first, *last;
    int depth;
} turn;

void deferred_begin(void)
{
    turn.depth++;
}

void deferred_end(void)
{
    ASSERT(turn.depth > 0);
    while (turn.depth == 1 && turn.first) {
        struct deferred_item *item = turn.first;
        turn.first = item->next;
        if (turn.first == NULL)
            turn.last = NULL;
        item->run(item);
    }
    turn.depth--;
}

bool deferred_add(struct deferred_item *item)
{
    if (turn.depth == 0)
        return false;
    item->next = NULL;
    if (turn.last)
        turn.last->next = item;
    else
        turn.first = item;
    turn.last = item;
    return true;
}
