/* What is due first: an intrusive pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986). It allocates
 * nothing. One thread. */
#pragma once

#include <stdint.h>

struct timer_node {
    int64_t due_ns;
    struct timer_node *child, *next, *previous; /* previous: the parent for a first child, else a sibling */
};

struct timer_heap {
    struct timer_node *first; /* NULL = empty */
};

/* The node must be in no heap. */
void timer_heap_add(struct timer_heap *heap, struct timer_node *node, int64_t due_ns);
/* The node must be in this heap. */
void timer_heap_remove(struct timer_heap *heap, struct timer_node *node);
