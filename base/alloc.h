/* Heap memory for set-up and request threads (never the loop). Any thread.
 * mem_alloc returns zeroed memory or NULL; callers turn NULL into ERR_RESOURCE_EXHAUSTED. A test hook can
 * make the n-th allocation fail, so that each failure path is walked. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size_bytes);
/* count * size with overflow check. */
void *mem_alloc_array(size_t count, size_t size_bytes);
/* Like realloc; new bytes are not zeroed. NULL leaves the old block alive. */
void *mem_realloc(void *block, size_t size_bytes);
char *mem_strdup(const char *text);
/* Copy of size bytes plus a terminating NUL. */
char *mem_strndup(const char *text, size_t size_bytes);
void mem_free(void *block);

/* Tests only: the allocation numbered `nth` from now on (0 = next) fails, once; negative switches it off. */
void mem_fail_nth(int64_t nth);
/* Count of allocations by all threads since start (tests: the loop allocates nothing). */
uint64_t mem_alloc_count(void);
