#include "clients/c/timer_heap.h"

#include <stddef.h>
#include "base/assert.h"

/* Of two roots one; NULL is fine for either. */
static struct timer_node *meld(struct timer_node *a, struct timer_node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (b->due_ns < a->due_ns) {
        struct timer_node *later = a;
        a = b;
        b = later;
    }
    b->previous = a;
    b->next = a->child;
    if (a->child)
        a->child->previous = b;
    a->child = b;
    return a;
}

/* Siblings to one root: pairs from the left, then all of them from the right. */
static struct timer_node *meld_siblings(struct timer_node *first)
{
    struct timer_node *pairs = NULL, *root = NULL;
    while (first) {
        struct timer_node *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b)
            b->next = b->previous = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct timer_node *rest = pairs->next;
        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = rest;
    }
    return root;
}

void timer_heap_add(struct timer_heap *heap, struct timer_node *node, int64_t due_ns)
{
    *node = (struct timer_node){.due_ns = due_ns};
    heap->first = meld(heap->first, node);
}

void timer_heap_remove(struct timer_heap *heap, struct timer_node *node)
{
    ASSERT(heap->first);
    struct timer_node *children = meld_siblings(node->child);
    if (node == heap->first) {
        heap->first = children;
    } else {
        ASSERT(node->previous);
        if (node->previous->child == node)
            node->previous->child = node->next;
        else
            node->previous->next = node->next;
        if (node->next)
            node->next->previous = node->previous;
        heap->first = meld(heap->first, children);
    }
    *node = (struct timer_node){.due_ns = node->due_ns};
}
