/* The order of requests, and the waiting ones as a binary heap in that order: O(log n) in and out. Requests
 * are known by handle. No two keys are equal: `sequence` decides. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "scheduler/carve.h"

#define QUEUE_POSITION_NONE UINT32_MAX

/* Compared field by field, smaller first. */
struct request_key {
    int64_t priority, deadline_ns, arrival_ns;
    uint64_t sequence; /* of submission */
};

bool request_key_before(const struct request_key *a, const struct request_key *b);

struct request_queue {
    uint32_t n;
    uint32_t *heap;           /* [max_requests] handles; [0] is first */
    uint32_t *positions;      /* [max_requests] by handle: its place in heap, or QUEUE_POSITION_NONE */
    struct request_key *keys; /* [max_requests] by handle; set by the owner, fixed while queued */
};

void request_queue_carve(struct request_queue *queue, struct carver *carver, uint32_t max_requests);
void request_queue_init(struct request_queue *queue, uint32_t max_requests);
void request_queue_push(struct request_queue *queue, uint32_t handle);
/* A handle that is not queued is left alone. */
void request_queue_remove(struct request_queue *queue, uint32_t handle);
