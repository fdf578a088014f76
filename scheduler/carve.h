/* Measures or allocates with the same lines: without an arena it only adds up the bytes. */
#pragma once

#include <stddef.h>
#include "base/arena.h"
#include "base/checked.h"

struct carver {
    struct arena *arena; /* NULL: measure */
    size_t bytes;        /* so far */
};

/* Zeroed, ARENA_ALIGN aligned memory; NULL while measuring. The configuration's limits keep count *
 * size_bytes far from an overflow. */
static inline void *carve(struct carver *carver, size_t count, size_t size_bytes)
{
    size_t bytes = round_up(count * size_bytes, ARENA_ALIGN);
    carver->bytes += bytes;
    return carver->arena == NULL ? NULL : arena_alloc(carver->arena, bytes);
}
