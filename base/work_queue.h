/* Threads that do what they are given, oldest first. Items are the caller's memory: their number is bounded
 * by what the caller holds. Any thread may add. */
#pragma once

#include "base/error.h"

struct work_queue;

struct work_item {
    void (*run)(struct work_item *item); /* on one of the threads; may free the item */
    struct work_item *next;              /* the queue's */
};

enum { WORK_QUEUE_THREADS_MAX = 16 };

/* n_threads: 1..WORK_QUEUE_THREADS_MAX. RESOURCE_EXHAUSTED. */
err_t work_queue_create(int n_threads, struct work_queue **out) ERR_MUST_CHECK;
void work_queue_add(struct work_queue *queue, struct work_item *item);
/* Does what is still queued, ends the threads and frees. Nobody may add any more. NULL is fine. */
void work_queue_destroy(struct work_queue *queue);
