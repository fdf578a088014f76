#include "base/ring.h"

#include <stdatomic.h>
#include <string.h>
#include "base/alloc.h"
#include "base/checked.h"

/* Producer's and consumer's words are kept this far apart (two lines: the prefetcher fetches pairs). */
enum { LINE_PAIR_BYTES = 128, RING_CAPACITY_MAX = 1 << 30 };

/* head and tail count elements ever popped and pushed; their difference is the fill. Each side keeps the last
 * value it saw of the other's, so that the shared line moves only when the ring looks full or empty. */
struct spsc_ring {
    size_t element_bytes;
    size_t mask; /* capacity - 1 */
    uint8_t *slots;
    char padding0[LINE_PAIR_BYTES];
    _Atomic size_t tail; /* written by the producer */
    size_t head_seen;
    char padding1[LINE_PAIR_BYTES];
    _Atomic size_t head; /* written by the consumer */
    size_t tail_seen;
    char padding2[LINE_PAIR_BYTES];
};

/* Least power of two >= capacity and >= least; 0 when out of range. */
static size_t ring_capacity(size_t capacity, size_t least)
{
    if (capacity == 0 || capacity > RING_CAPACITY_MAX)
        return 0;
    size_t rounded = least;
    while (rounded < capacity)
        rounded *= 2;
    return rounded;
}

static err_t capacity_error(size_t element_bytes, size_t capacity)
{
    return err_new(ERR_INVALID_ARGUMENT,
                   "a ring of %zu elements of %zu bytes: both must be at least 1, elements at most %d",
                   capacity, element_bytes, RING_CAPACITY_MAX);
}

static err_t memory_error(size_t element_bytes, size_t capacity)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ring of %zu elements of %zu bytes", capacity,
                   element_bytes);
}

size_t spsc_ring_bytes(size_t element_bytes, size_t capacity)
{
    size_t rounded = ring_capacity(capacity, 1), bytes;
    if (element_bytes == 0 || rounded == 0 || !checked_mul(rounded, element_bytes, &bytes) ||
        !checked_add(bytes, sizeof(struct spsc_ring), &bytes))
        return 0;
    return bytes;
}

err_t spsc_ring_create(size_t element_bytes, size_t capacity, struct spsc_ring **out)
{
    *out = NULL;
    size_t rounded = ring_capacity(capacity, 1);
    if (element_bytes == 0 || rounded == 0)
        return capacity_error(element_bytes, capacity);
    struct spsc_ring *ring = mem_alloc(sizeof *ring);
    if (ring == NULL)
        return memory_error(element_bytes, capacity);
    ring->slots = mem_alloc_array(rounded, element_bytes);
    if (ring->slots == NULL) {
        mem_free(ring);
        return memory_error(element_bytes, capacity);
    }
    ring->element_bytes = element_bytes;
    ring->mask = rounded - 1;
    *out = ring;
    return err_ok();
}

void spsc_ring_destroy(struct spsc_ring *ring)
{
    if (ring == NULL)
        return;
    mem_free(ring->slots);
    mem_free(ring);
}

bool spsc_ring_push(struct spsc_ring *ring, const void *element)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail - ring->head_seen > ring->mask) {
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail - ring->head_seen > ring->mask)
            return false;
    }
    memcpy(ring->slots + (tail & ring->mask) * ring->element_bytes, element, ring->element_bytes);
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

bool spsc_ring_pop(struct spsc_ring *ring, void *element)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head == ring->tail_seen) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head == ring->tail_seen)
            return false;
    }
    memcpy(element, ring->slots + (head & ring->mask) * ring->element_bytes, ring->element_bytes);
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

size_t spsc_ring_count(const struct spsc_ring *ring)
{
    /* head first: the tail read later is never behind it. */
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    size_t count = atomic_load_explicit(&ring->tail, memory_order_acquire) - head;
    return count <= ring->mask ? count : ring->mask + 1;
}

size_t spsc_ring_capacity(const struct spsc_ring *ring)
{
    return ring->mask + 1;
}

/* Source: D. Vyukov's bounded multi-producer queue. A cell's sequence says whose turn it is: equal to a
 * position, the producer of that position may write; one more, the consumer may read. */
struct mpsc_ring {
    size_t element_bytes;
    size_t cell_bytes;
    size_t mask;
    uint8_t *cells; /* each an _Atomic size_t sequence and the element */
    char padding0[LINE_PAIR_BYTES];
    _Atomic size_t tail; /* next position to push */
    char padding1[LINE_PAIR_BYTES];
    size_t head; /* next position to pop; the consumer's own */
    char padding2[LINE_PAIR_BYTES];
};

struct cell {
    _Atomic size_t sequence;
    uint8_t element[];
};

static struct cell *cell_at(const struct mpsc_ring *ring, size_t position)
{
    return (struct cell *)(void *)(ring->cells + (position & ring->mask) * ring->cell_bytes);
}

/* At least two cells: with one, "full" and "my turn" would be the same number. False when out of range. */
static bool mpsc_layout(size_t element_bytes, size_t capacity, size_t *n_cells, size_t *cell_bytes)
{
    *n_cells = ring_capacity(capacity, 2);
    if (element_bytes == 0 || *n_cells == 0 ||
        !checked_add(element_bytes, sizeof(struct cell) + sizeof(size_t), cell_bytes))
        return false;
    *cell_bytes = round_up(sizeof(struct cell) + element_bytes, sizeof(size_t));
    return true;
}

size_t mpsc_ring_bytes(size_t element_bytes, size_t capacity)
{
    size_t n_cells, cell_bytes, bytes;
    if (!mpsc_layout(element_bytes, capacity, &n_cells, &cell_bytes) ||
        !checked_mul(n_cells, cell_bytes, &bytes) || !checked_add(bytes, sizeof(struct mpsc_ring), &bytes))
        return 0;
    return bytes;
}

err_t mpsc_ring_create(size_t element_bytes, size_t capacity, struct mpsc_ring **out)
{
    *out = NULL;
    size_t rounded, cell_bytes;
    if (!mpsc_layout(element_bytes, capacity, &rounded, &cell_bytes))
        return capacity_error(element_bytes, capacity);
    struct mpsc_ring *ring = mem_alloc(sizeof *ring);
    if (ring == NULL)
        return memory_error(element_bytes, capacity);
    ring->cells = mem_alloc_array(rounded, cell_bytes);
    if (ring->cells == NULL) {
        mem_free(ring);
        return memory_error(element_bytes, capacity);
    }
    ring->element_bytes = element_bytes;
    ring->cell_bytes = cell_bytes;
    ring->mask = rounded - 1;
    for (size_t i = 0; i < rounded; i++)
        atomic_init(&cell_at(ring, i)->sequence, i);
    *out = ring;
    return err_ok();
}

void mpsc_ring_destroy(struct mpsc_ring *ring)
{
    if (ring == NULL)
        return;
    mem_free(ring->cells);
    mem_free(ring);
}

bool mpsc_ring_push(struct mpsc_ring *ring, const void *element)
{
    size_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    struct cell *cell;
    for (;;) {
        cell = cell_at(ring, position);
        size_t sequence = atomic_load_explicit(&cell->sequence, memory_order_acquire);
        intptr_t turn = (intptr_t)(sequence - position);
        if (turn < 0)
            return false; /* still holds the element of one lap ago */
        if (turn > 0)
            position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&ring->tail, &position, position + 1,
                                                       memory_order_relaxed, memory_order_relaxed))
            break;
    }
    memcpy(cell->element, element, ring->element_bytes);
    atomic_store_explicit(&cell->sequence, position + 1, memory_order_release);
    return true;
}

bool mpsc_ring_pop(struct mpsc_ring *ring, void *element)
{
    struct cell *cell = cell_at(ring, ring->head);
    if (atomic_load_explicit(&cell->sequence, memory_order_acquire) != ring->head + 1)
        return false;
    memcpy(element, cell->element, ring->element_bytes);
    atomic_store_explicit(&cell->sequence, ring->head + ring->mask + 1, memory_order_release);
    ring->head++;
    return true;
}
