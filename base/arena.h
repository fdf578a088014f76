/* A bump allocator over one reserved range of address space: allocate at start, seal, run.
 * Memory is zeroed and freed all at once. Not thread-safe; after arena_seal any thread may read.
 * Backed by mmap with transparent huge pages requested; pages are committed when first touched. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

struct arena;

enum { ARENA_ALIGN = 64 }; /* bytes: least alignment of every allocation, one cache line */

/* Reserves capacity_bytes. ERR_RESOURCE_EXHAUSTED when the address space cannot be had. */
err_t arena_create(size_t capacity_bytes, struct arena **out) ERR_MUST_CHECK;
void arena_destroy(struct arena *arena); /* NULL is fine */

/* Zeroed memory of size bytes, ARENA_ALIGN aligned; aborts when sealed or when the capacity that the plan
 * computed is exceeded (a bug of the plan). */
void *arena_alloc(struct arena *arena, size_t size_bytes);

/* From now on arena_alloc aborts. */
void arena_seal(struct arena *arena);
size_t arena_used_bytes(const struct arena *arena);
size_t arena_capacity_bytes(const struct arena *arena);
