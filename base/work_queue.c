#include "base/work_queue.h"

#include <pthread.h>
#include <stdbool.h>
#include "base/alloc.h"
#include "base/assert.h"

struct work_queue {
    pthread_t threads[WORK_QUEUE_THREADS_MAX];
    int n_threads;
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    struct work_item *first, *last;
    bool ends;
};

static void *worker_main(void *argument)
{
    struct work_queue *queue = argument;
    pthread_mutex_lock(&queue->mutex);
    for (;;) {
        struct work_item *item = queue->first;
        if (!item && queue->ends)
            break;
        if (!item) {
            pthread_cond_wait(&queue->ready, &queue->mutex);
            continue;
        }
        queue->first = item->next;
        if (!queue->first)
            queue->last = NULL;
        pthread_mutex_unlock(&queue->mutex);
        item->run(item);
        pthread_mutex_lock(&queue->mutex);
    }
    pthread_mutex_unlock(&queue->mutex);
    return NULL;
}

void work_queue_add(struct work_queue *queue, struct work_item *item)
{
    item->next = NULL;
    pthread_mutex_lock(&queue->mutex);
    ASSERT(!queue->ends);
    if (queue->last)
        queue->last->next = item;
    else
        queue->first = item;
    queue->last = item;
    pthread_cond_signal(&queue->ready);
    pthread_mutex_unlock(&queue->mutex);
}

err_t work_queue_create(int n_threads, struct work_queue **out)
{
    ASSERT(n_threads >= 1 && n_threads <= WORK_QUEUE_THREADS_MAX);
    struct work_queue *queue = mem_alloc(sizeof *queue);
    if (!queue)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a work queue");
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->ready, NULL);
    for (int i = 0; i < n_threads; i++) {
        if (pthread_create(&queue->threads[i], NULL, worker_main, queue) != 0) {
            work_queue_destroy(queue);
            return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start a worker thread");
        }
        queue->n_threads++;
    }
    *out = queue;
    return err_ok();
}

void work_queue_destroy(struct work_queue *queue)
{
    if (!queue)
        return;
    pthread_mutex_lock(&queue->mutex);
    queue->ends = true;
    pthread_cond_broadcast(&queue->ready);
    pthread_mutex_unlock(&queue->mutex);
    for (int i = 0; i < queue->n_threads; i++)
        pthread_join(queue->threads[i], NULL);
    pthread_cond_destroy(&queue->ready);
    pthread_mutex_destroy(&queue->mutex);
    mem_free(queue);
}
