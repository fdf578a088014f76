/* An event that outlives its maker: a node of a stream's queue, with everything that it points to, in one
 * block for mem_free. */
#pragma once

#include "api/event.h"

struct event_node {
    struct event_node *next;
    size_t n_bytes; /* of the block */
    struct event event;
    struct answer_source source; /* event.source points here when it is told; its strings are not copied */
};

/* NULL without memory. The source is left out. */
struct event_node *event_copy(const struct event *event);
