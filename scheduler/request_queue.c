#include "scheduler/request_queue.h"

#include "base/assert.h"

bool request_key_before(const struct request_key *a, const struct request_key *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    if (a->arrival_ns != b->arrival_ns)
        return a->arrival_ns < b->arrival_ns;
    return a->sequence < b->sequence;
}

void request_queue_carve(struct request_queue *queue, struct carver *carver, uint32_t max_requests)
{
    queue->heap = carve(carver, max_requests, sizeof *queue->heap);
    queue->positions = carve(carver, max_requests, sizeof *queue->positions);
    queue->keys = carve(carver, max_requests, sizeof *queue->keys);
}

void request_queue_init(struct request_queue *queue, uint32_t max_requests)
{
    queue->n = 0;
    for (uint32_t i = 0; i < max_requests; i++)
        queue->positions[i] = QUEUE_POSITION_NONE;
}

static void put(struct request_queue *queue, uint32_t position, uint32_t handle)
{
    queue->heap[position] = handle;
    queue->positions[handle] = position;
}

static bool before(const struct request_queue *queue, uint32_t a, uint32_t b)
{
    return request_key_before(&queue->keys[a], &queue->keys[b]);
}

static void sift_up(struct request_queue *queue, uint32_t position, uint32_t handle)
{
    while (position > 0) {
        uint32_t parent = (position - 1) / 2;
        if (!before(queue, handle, queue->heap[parent]))
            break;
        put(queue, position, queue->heap[parent]);
        position = parent;
    }
    put(queue, position, handle);
}

static void sift_down(struct request_queue *queue, uint32_t position, uint32_t handle)
{
    for (;;) {
        uint32_t child = 2 * position + 1;
        if (child >= queue->n)
            break;
        if (child + 1 < queue->n && before(queue, queue->heap[child + 1], queue->heap[child]))
            child++;
        if (!before(queue, queue->heap[child], handle))
            break;
        put(queue, position, queue->heap[child]);
        position = child;
    }
    put(queue, position, handle);
}

void request_queue_push(struct request_queue *queue, uint32_t handle)
{
    ASSERT(queue->positions[handle] == QUEUE_POSITION_NONE);
    sift_up(queue, queue->n++, handle);
}

void request_queue_remove(struct request_queue *queue, uint32_t handle)
{
    uint32_t position = queue->positions[handle];
    if (position == QUEUE_POSITION_NONE)
        return;
    queue->positions[handle] = QUEUE_POSITION_NONE;
    uint32_t last = queue->heap[--queue->n];
    if (position == queue->n)
        return;
    /* The last one takes the hole, and moves whichever way it belongs. */
    if (position > 0 && before(queue, last, queue->heap[(position - 1) / 2]))
        sift_up(queue, position, last);
    else
        sift_down(queue, position, last);
}
