/* Bounded queues of fixed-size elements. Storage is allocated once at creation; push and pop copy, never
 * block, never allocate. Capacity is rounded up to a power of two. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* One producer thread, one consumer thread. */
struct spsc_ring;
err_t spsc_ring_create(size_t element_bytes, size_t capacity, struct spsc_ring **out) ERR_MUST_CHECK;
void spsc_ring_destroy(struct spsc_ring *ring);
bool spsc_ring_push(struct spsc_ring *ring, const void *element); /* producer; false when full */
bool spsc_ring_pop(struct spsc_ring *ring, void *element);        /* consumer; false when empty */
size_t spsc_ring_count(const struct spsc_ring *ring);             /* either side; a moment's view */
size_t spsc_ring_capacity(const struct spsc_ring *ring);
/* What spsc_ring_create will allocate; 0 for what it refuses. */
size_t spsc_ring_bytes(size_t element_bytes, size_t capacity);

/* Many producers, one consumer (Vyukov's bounded queue with a sequence number per cell). */
struct mpsc_ring;
err_t mpsc_ring_create(size_t element_bytes, size_t capacity, struct mpsc_ring **out) ERR_MUST_CHECK;
void mpsc_ring_destroy(struct mpsc_ring *ring);
bool mpsc_ring_push(struct mpsc_ring *ring, const void *element); /* any thread; false when full */
bool mpsc_ring_pop(struct mpsc_ring *ring, void *element);        /* consumer; false when empty */
/* What mpsc_ring_create will allocate; 0 for what it refuses. */
size_t mpsc_ring_bytes(size_t element_bytes, size_t capacity);
