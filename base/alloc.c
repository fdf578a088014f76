#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/checked.h"

/* Number of further allocations until one fails; negative: never. */
static _Atomic int64_t fail_countdown = -1;
static _Atomic uint64_t alloc_count;

/* Counts the allocation; true when the test hook wants this one to fail. */
static bool count_allocation(void)
{
    atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0)
        return false;
    return atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 0;
}

void *mem_alloc(size_t size_bytes)
{
    if (count_allocation())
        return NULL;
    return calloc(1, size_bytes > 0 ? size_bytes : 1);
}

void *mem_alloc_array(size_t count, size_t size_bytes)
{
    size_t total_bytes;
    if (!checked_mul(count, size_bytes, &total_bytes))
        return NULL;
    return mem_alloc(total_bytes);
}

void *mem_realloc(void *block, size_t size_bytes)
{
    if (count_allocation())
        return NULL;
    return realloc(block, size_bytes > 0 ? size_bytes : 1);
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

char *mem_strndup(const char *text, size_t size_bytes)
{
    size_t total_bytes;
    if (!checked_add(size_bytes, 1, &total_bytes))
        return NULL;
    char *copy = mem_alloc(total_bytes);
    if (copy != NULL && size_bytes > 0)
        memcpy(copy, text, size_bytes);
    return copy;
}

void mem_free(void *block)
{
    free(block);
}

void mem_fail_nth(int64_t nth)
{
    atomic_store_explicit(&fail_countdown, nth, memory_order_relaxed);
}

uint64_t mem_alloc_count(void)
{
    return atomic_load_explicit(&alloc_count, memory_order_relaxed);
}
